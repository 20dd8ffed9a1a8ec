//! Sums up held messages: one digest for each channel that is due.

use sqlx::{PgConnection, PgPool};
use tracing::error;
use uuid::Uuid;

use super::Tools;
use crate::notice::Notice;
use sluice_kit::clock;

/// Channels of one run.
const CHANNELS_MAX: i64 = 100;
/// Messages of one digest; the others follow in the next.
const MESSAGES_MAX: i64 = 1_000;
/// The type of a digest, which is about no single alert.
const DIGEST: &str = "digest";

const DUE: &str = "SELECT DISTINCT scope, channel_id FROM alert_message \
    WHERE state = 'held' AND digest_id IS NULL AND next_try_at <= now() LIMIT $1";
/// Messages held by the rate limit are included before they are due by themselves: the receiver gets one message.
const HELD: &str = "SELECT message_id, channel_kind, body::text FROM alert_message \
    WHERE state = 'held' AND digest_id IS NULL AND scope = $1 AND channel_id = $2 \
        AND (held_by = 'limit' OR next_try_at <= now()) \
    ORDER BY created_at, message_id LIMIT $3 FOR UPDATE";
const MAKE: &str = "INSERT INTO alert_message (message_id, kind, scope, channel_id, channel_kind, alert_type, alert_level, \
        body, state, give_up_at) \
    VALUES ($1, 'digest', $2, $3, $4, $5, $6, $7::jsonb, 'pending', now() + make_interval(secs => $8))";

#[derive(sqlx::FromRow)]
struct Held {
    message_id: Uuid,
    channel_kind: String,
    body: String,
}

/// Makes the digests that are due.
pub(super) async fn due(tools: &Tools) -> Result<(), sqlx::Error> {
    let due: Vec<(String, String)> = sqlx::query_as(DUE).bind(CHANNELS_MAX).fetch_all(&tools.pool).await?;
    let give_up_secs = tools.live.current().alert_give_up_secs as f64;
    for (scope, channel) in due {
        sum_up(&tools.pool, &scope, &channel, give_up_secs).await?;
    }
    Ok(())
}

async fn sum_up(pool: &PgPool, scope: &str, channel: &str, give_up_secs: f64) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let held: Vec<Held> =
        sqlx::query_as(HELD).bind(scope).bind(channel).bind(MESSAGES_MAX).fetch_all(&mut *transaction).await?;
    let Some(last) = held.last() else { return Ok(()) };
    let notices =
        held.iter().filter_map(|one| {
            Notice::parse(&one.body).inspect_err(|error| {
        error!(message_id = %one.message_id, %error, "held alert message cannot be read, its digest lacks it");
    }).ok()
        });
    let digest = Notice::digest(notices, clock::now());
    let id = Uuid::from_bytes(clock::decision_id());
    sqlx::query(MAKE)
        .bind(id)
        .bind(scope)
        .bind(channel)
        .bind(&last.channel_kind)
        .bind(DIGEST)
        .bind(digest.level().into_str())
        .bind(digest.json())
        .bind(give_up_secs)
        .execute(&mut *transaction)
        .await?;
    join(&mut transaction, id, &held).await?;
    transaction.commit().await
}

async fn join(connection: &mut PgConnection, digest: Uuid, held: &[Held]) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = held.iter().map(|one| one.message_id).collect();
    sqlx::query("UPDATE alert_message SET digest_id = $1 WHERE message_id = ANY($2)")
        .bind(digest)
        .bind(ids)
        .execute(connection)
        .await
        .map(drop)
}
