//! Records the result of a try: the try itself, and the next state of its message.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tracing::field::{DisplayValue, display};
use tracing::{info, warn};
use uuid::Uuid;

use super::Tools;
use super::claim::Message;
use crate::channel::{Outcome, Report};
use crate::notice::Notice;
use crate::retry;
use sluice_kit::clock;

/// Longest error that is kept, in characters.
const ERROR_CHARS_MAX: usize = 2000;

const TRY: &str = "INSERT INTO alert_delivery (delivery_id, message_id, attempt, started_at, took_ms, outcome, status, \
        response, error, next_try_at, by_hand) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const DELIVERED_TO: &str = "UPDATE alert_message SET told = told || $2 WHERE message_id = $1";
/// The messages in a digest end with it.
const END: &str = "UPDATE alert_message SET state = $2, ended_at = now(), by_hand = NULL \
    WHERE (message_id = $1 OR digest_id = $1) AND state <> 'sent'";
/// Where another server has claimed it since, its next try stays.
const AGAIN: &str = "UPDATE alert_message SET next_try_at = $2, by_hand = NULL \
    WHERE message_id = $1 AND attempts = $3 AND state = 'pending' RETURNING give_up_at <= $2";
/// Its digest is due one period after the last one at the earliest; a digest that it was in before no longer has it. The claim
/// does not count as a try.
const HOLD: &str = "UPDATE alert_message AS own SET state = 'held', held_by = 'limit', digest_id = NULL, attempts = attempts - 1, \
        next_try_at = greatest($2, (SELECT max(last.created_at) FROM alert_message AS last WHERE last.kind = 'digest' \
            AND last.scope = own.scope AND last.channel_id = own.channel_id) + make_interval(secs => $3)) \
    WHERE message_id = $1 AND state = 'pending'";

/// A try that is over.
pub(super) struct Ended {
    pub report: Report,
    pub started: DateTime<Utc>,
    pub took: Duration,
}

/// Holds the message back for a digest, not before `until`.
pub(super) async fn hold(tools: &Tools, message: &Message, until: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let period_secs = tools.live.current().alert_rate_secs as f64;
    sqlx::query(HOLD).bind(message.message_id).bind(until).bind(period_secs).execute(&tools.pool).await?;
    tools.metrics.held(&message.channel_kind);
    Ok(())
}

/// Records the try, and the time of the next one, if any.
pub(super) async fn record(tools: &Tools, message: &Message, ended: Ended) -> Result<(), sqlx::Error> {
    let Ended { report, .. } = &ended;
    let sent = report.outcome == Outcome::Sent;
    tools.metrics.tried(&message.channel_kind, sent, ended.took);
    let mut transaction = tools.pool.begin().await?;
    if !report.delivered_to.is_empty() {
        sqlx::query(DELIVERED_TO)
            .bind(message.message_id)
            .bind(&report.delivered_to)
            .execute(&mut *transaction)
            .await?;
    }
    let next = match report.outcome {
        Outcome::Sent => {
            end(&mut transaction, message, "sent").await?;
            None
        }
        Outcome::Refused => {
            end(&mut transaction, message, "dead").await?;
            None
        }
        Outcome::Failed { retry_after } => again(tools, &mut transaction, message, retry_after).await?,
    };
    insert(&mut transaction, message, &ended, next).await?;
    transaction.commit().await?;
    let (message_id, kind, channel) = (message.message_id, &message.kind, &message.channel_kind);
    let (event_id, trace_id) = decision(message);
    if sent {
        info!(%message_id, event_id, trace_id, kind, channel, scope = message.scope, "alert message sent");
    } else {
        let error = report.error.as_deref().unwrap_or_default();
        let scope = &message.scope;
        warn!(%message_id, event_id, trace_id, kind, channel, scope, error, next_try_at = next.map(|at| at.to_rfc3339()), "alert message not sent");
        if next.is_none() {
            tools.metrics.dead(&message.channel_kind);
        }
    }
    Ok(())
}

/// For log lines: the event that the message is about, and its trace.
pub(super) fn decision(message: &Message) -> (Option<DisplayValue<Uuid>>, Option<String>) {
    let notice = Notice::parse(&message.body).ok();
    let alert = notice.as_ref().and_then(Notice::alert);
    (alert.and_then(|alert| alert.event_id).map(display), alert.and_then(|alert| alert.trace_id.clone()))
}

/// Schedules the next try, or gives the message up where that would be too late.
async fn again(
    tools: &Tools,
    connection: &mut PgConnection,
    message: &Message,
    retry_after: Option<Duration>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let first = Duration::from_millis(tools.live.current().alert_retry_ms);
    let next = clock::now() + retry::wait(message.round, first, retry_after);
    let too_late: Option<bool> = sqlx::query_scalar(AGAIN)
        .bind(message.message_id)
        .bind(next)
        .bind(message.attempts)
        .fetch_optional(&mut *connection)
        .await?;
    if too_late == Some(true) {
        end(connection, message, "dead").await?;
        return Ok(None);
    }
    Ok(Some(next))
}

async fn end(connection: &mut PgConnection, message: &Message, state: &str) -> Result<(), sqlx::Error> {
    sqlx::query(END).bind(message.message_id).bind(state).execute(connection).await.map(drop)
}

async fn insert(
    connection: &mut PgConnection,
    message: &Message,
    ended: &Ended,
    next: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    let report = &ended.report;
    let outcome = if report.outcome == Outcome::Sent { "sent" } else { "failed" };
    let error = report.error.as_ref().map(|error| error.chars().take(ERROR_CHARS_MAX).collect::<String>());
    sqlx::query(TRY)
        .bind(Uuid::from_bytes(clock::decision_id()))
        .bind(message.message_id)
        .bind(message.attempts)
        .bind(ended.started)
        .bind(i64::try_from(ended.took.as_millis()).unwrap_or(i64::MAX))
        .bind(outcome)
        .bind(report.status.map(i32::from))
        .bind(report.response.as_ref())
        .bind(error)
        .bind(next)
        .bind(message.by_hand.as_ref())
        .execute(connection)
        .await
        .map(drop)
}
