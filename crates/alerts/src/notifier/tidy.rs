//! Gives up what was to be told long ago, and removes what is old. Neither holds up what is to be told now.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tracing::warn;
use uuid::Uuid;

use super::{LOOK_INTERVAL, Tools};
use sluice_kit::health::warn_unless_away;

/// How often is looked for what is old.
const REMOVE_INTERVAL: Duration = Duration::from_secs(3600);
/// Rows of one statement; what is more comes with the next look.
const ROWS_MAX: i64 = 1_000;

/// What is under way or put off ends after its try, which knows its time.
const OVERDUE: &str = "UPDATE alert_message SET state = 'dead', ended_at = now(), by_hand = NULL WHERE message_id IN (\
        SELECT message_id FROM alert_message WHERE state = 'pending' AND give_up_at <= now() AND next_try_at <= now() \
        ORDER BY give_up_at LIMIT $1 FOR UPDATE SKIP LOCKED) \
    RETURNING message_id, channel_kind";
/// What a digest sums up ends with it.
const SUMMED_UP: &str =
    "UPDATE alert_message SET state = 'dead', ended_at = now() WHERE digest_id = ANY($1) AND state = 'held'";

/// What is older than so many days. Their tries and changes go with messages and alerts.
const OLD: [&str; 3] = [
    "DELETE FROM alert_message WHERE message_id IN (SELECT message_id FROM alert_message \
        WHERE state IN ('sent', 'dead') AND ended_at < now() - make_interval(days => $1) ORDER BY ended_at LIMIT $2)",
    "DELETE FROM quota_alert WHERE alert_id IN (SELECT alert_id FROM quota_alert AS old \
        WHERE resolved_at < now() - make_interval(days => $1) AND NOT EXISTS (SELECT 1 FROM alert_message AS left_over \
            WHERE left_over.alert_id = old.alert_id AND state IN ('pending', 'held')) ORDER BY resolved_at LIMIT $2)",
    // Their numbers rise with time well enough.
    "DELETE FROM alert_change WHERE change_no IN (SELECT change_no FROM alert_change ORDER BY change_no LIMIT $2) \
        AND changed_at < now() - make_interval(days => $1)",
];

/// When it looks next; at once where that is not known.
#[derive(Debug, Default)]
pub(super) struct Tidy {
    overdue_at: Option<Instant>,
    old_at: Option<Instant>,
}

impl Tidy {
    /// Does some of what there is to do, every so often.
    pub(super) async fn up(&mut self, tools: &Tools) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        if is_due(self.overdue_at) {
            self.overdue_at = Some(now + LOOK_INTERVAL);
            if let Err(error) = give_up(tools).await {
                warn_unless_away!(error, "messages whose time is over cannot be given up");
            }
        }
        let days = tools.live.current().alert_keep_days;
        if days > 0 && is_due(self.old_at) {
            let more = remove(&tools.pool, days).await.unwrap_or_else(|error| {
                warn_unless_away!(error, "old alerts and messages cannot be removed, this is tried again in an hour");
                false
            });
            self.old_at = (!more).then_some(now + REMOVE_INTERVAL);
        }
    }
}

async fn give_up(tools: &Tools) -> Result<(), sqlx::Error> {
    let mut transaction = tools.pool.begin().await?;
    let ended: Vec<(Uuid, String)> = sqlx::query_as(OVERDUE).bind(ROWS_MAX).fetch_all(&mut *transaction).await?;
    if ended.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = ended.iter().map(|(id, _)| *id).collect();
    sqlx::query(SUMMED_UP).bind(ids).execute(&mut *transaction).await?;
    transaction.commit().await?;
    warn!(messages = ended.len(), "messages were given up, whose time was over before they could be tried again");
    ended.iter().for_each(|(_, channel_kind)| tools.figures.dead(channel_kind));
    Ok(())
}

/// Removes some of what is old; whether there may be more.
async fn remove(pool: &PgPool, days: u64) -> Result<bool, sqlx::Error> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let mut more = false;
    for statement in OLD {
        let removed = sqlx::query(statement).bind(days).bind(ROWS_MAX).execute(pool).await?.rows_affected();
        more |= i64::try_from(removed).is_ok_and(|removed| removed >= ROWS_MAX);
    }
    Ok(more)
}
