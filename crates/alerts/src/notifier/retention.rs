//! Gives up overdue messages, and removes old rows. Neither delays messages that are due.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tracing::warn;
use uuid::Uuid;

use super::{POLL_INTERVAL, Tools};
use sluice_kit::health::warn_unless_away;

/// How often old rows are removed.
const REMOVE_INTERVAL: Duration = Duration::from_secs(3600);
/// Rows of one statement; the others follow in the next run.
const ROWS_MAX: i64 = 1_000;

/// Messages under way or scheduled for later end after their try, which checks the time.
const OVERDUE: &str = "UPDATE alert_message SET state = 'dead', ended_at = now(), by_hand = NULL WHERE message_id IN (\
        SELECT message_id FROM alert_message WHERE state = 'pending' AND give_up_at <= now() AND next_try_at <= now() \
        ORDER BY give_up_at LIMIT $1 FOR UPDATE SKIP LOCKED) \
    RETURNING message_id, channel_kind";
/// The messages in a digest end with it.
const SUMMED_UP: &str =
    "UPDATE alert_message SET state = 'dead', ended_at = now() WHERE digest_id = ANY($1) AND state = 'held'";

/// Rows older than so many days. Tries and changes are removed with their messages and alerts.
const OLD: [&str; 3] = [
    "DELETE FROM alert_message WHERE message_id IN (SELECT message_id FROM alert_message \
        WHERE state IN ('sent', 'dead') AND ended_at < now() - make_interval(days => $1) ORDER BY ended_at LIMIT $2)",
    "DELETE FROM quota_alert WHERE alert_id IN (SELECT alert_id FROM quota_alert AS old \
        WHERE resolved_at < now() - make_interval(days => $1) AND NOT EXISTS (SELECT 1 FROM alert_message AS left_over \
            WHERE left_over.alert_id = old.alert_id AND state IN ('pending', 'held')) ORDER BY resolved_at LIMIT $2)",
    // Their numbers rise with time, nearly.
    "DELETE FROM alert_change WHERE change_no IN (SELECT change_no FROM alert_change ORDER BY change_no LIMIT $2) \
        AND changed_at < now() - make_interval(days => $1)",
];

/// When each part is due next; `None` is at once.
#[derive(Debug, Default)]
pub(super) struct Retention {
    overdue_at: Option<Instant>,
    old_at: Option<Instant>,
}

impl Retention {
    /// Does a part of the work, at its intervals.
    pub(super) async fn run(&mut self, tools: &Tools) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        if is_due(self.overdue_at) {
            self.overdue_at = Some(now + POLL_INTERVAL);
            if let Err(error) = give_up(tools).await {
                warn_unless_away!(error, "overdue alert messages cannot be given up");
            }
        }
        let days = tools.live.current().alert_keep_days;
        if days > 0 && is_due(self.old_at) {
            let more = remove(&tools.pool, days).await.unwrap_or_else(|error| {
                warn_unless_away!(error, "old alerts and messages cannot be removed, next try in an hour");
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
    warn!(messages = ended.len(), "alert messages given up: their time was over before the next try");
    ended.iter().for_each(|(_, channel_kind)| tools.metrics.dead(channel_kind));
    Ok(())
}

/// Removes some of the old rows; returns whether there may be more.
async fn remove(pool: &PgPool, days: u64) -> Result<bool, sqlx::Error> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let mut more = false;
    for statement in OLD {
        let removed = sqlx::query(statement).bind(days).bind(ROWS_MAX).execute(pool).await?.rows_affected();
        more |= i64::try_from(removed).is_ok_and(|removed| removed >= ROWS_MAX);
    }
    Ok(more)
}
