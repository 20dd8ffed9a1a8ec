//! One try to send one message: by the current settings, within the rate limit, and recorded whatever its result.

use chrono::DateTime;
use tracing::debug;
use uuid::Uuid;

use super::Tools;
use super::claim::Message;
use super::outcome::{self, Ended};
use crate::channel::{Delivery, Outcome, Report};
use crate::notice::{Alert, Change, Content, Notice};
use crate::rate::{Allowance, Bound, Counted, Notification};
use crate::settings::{self, Channel};
use crate::{Level, Scope};
use sluice_kit::clock;
use sluice_kit::health::warn_unless_away;
use sluice_kit::telemetry::{self, Delivered};

/// Tries the message. Where Postgres does not answer, it is due again by itself.
pub(super) async fn run(tools: &Tools, message: Message) {
    if let Err(error) = attempt(tools, &message).await {
        let (message_id, (event_id, trace_id)) = (message.message_id, outcome::decision(&message));
        warn_unless_away!(
            error,
            %message_id,
            event_id,
            trace_id,
            "the result of an alert message cannot be recorded, it is tried again"
        );
    }
}

async fn attempt(tools: &Tools, message: &Message) -> Result<(), sqlx::Error> {
    let started = clock::now();
    let ended = |report| Ended { report, started, took: (clock::now() - started).to_std().unwrap_or_default() };
    let notice = match Notice::parse(&message.body) {
        Ok(notice) => notice,
        Err(error) => {
            let report = Report::refused(format!("the message cannot be read: {error}"));
            return outcome::record(tools, message, ended(report)).await;
        }
    };
    let (scope, channel) = match channel(tools, message).await? {
        Ok(found) => found,
        Err(report) => return outcome::record(tools, message, ended(report)).await,
    };
    if let Some(until) = message.behind.filter(|_| message.by_hand.is_none()) {
        return outcome::hold(tools, message, until).await;
    }
    let limited = limited(message, &notice);
    if let Some((alert, change)) = limited
        && let Allowance::Held { until_ms } = allowance(tools, message, alert, change).await
    {
        let until = DateTime::from_timestamp_millis(until_ms).unwrap_or(started);
        return outcome::hold(tools, message, until).await;
    }
    let about = notice.alert();
    let span = telemetry::Delivery::begin(
        about.and_then(|alert| alert.trace_id.as_deref()),
        about.and_then(|alert| alert.event_id),
    );
    let traceparent = span.traceparent();
    let delivery = Delivery {
        id: message.message_id,
        notice: &notice,
        now_secs: clock::now().timestamp(),
        traceparent: traceparent.as_deref(),
        delivered_to: &message.delivered_to,
    };
    let report = tools.sender.send(&scope, &channel, delivery, tools.live.current().alert_timeout()).await;
    span.end(&Delivered {
        channel_kind: &message.channel_kind,
        message_id: message.message_id,
        attempt: message.attempts,
        status: report.status,
        error: report.error.as_deref(),
    });
    if report.outcome != Outcome::Sent
        && let Some((alert, change)) = limited
    {
        give_back(tools, message, alert, change).await;
    }
    outcome::record(tools, message, ended(report)).await
}

/// The channel in the current settings, and their scope; or the try's report where they have none of that id and kind.
async fn channel(tools: &Tools, message: &Message) -> Result<Result<(Scope, Channel), Report>, sqlx::Error> {
    let gone = || Report::refused("the channel is no longer in the settings: add it again, and redeliver");
    let Some(scope) = Scope::parse(&message.scope) else { return Ok(Err(gone())) };
    let stored = match settings::load(&tools.pool, &scope).await {
        Ok(stored) => stored,
        // They may be repaired before the message is given up.
        Err(sqlx::Error::Decode(_)) => return Ok(Err(Report::failed("the settings cannot be read: save them again"))),
        Err(error) => return Err(error),
    };
    let channel = stored.settings.channel(&message.channel_id).cloned();
    let channel = channel.filter(|channel| channel.kind() == message.channel_kind);
    Ok(channel.map(|channel| (scope, channel)).ok_or_else(gone))
}

/// The alert by which the message counts against the limit; `None` where it is exempt: critical alerts, digests, and messages
/// by hand.
fn limited<'a>(message: &Message, notice: &'a Notice) -> Option<(&'a Alert, Change)> {
    let (alert, change) = match &notice.content {
        Content::Raised(alert) => (alert, Change::Raised),
        Content::Resolved(alert) => (alert, Change::Resolved),
        Content::Digest(_) | Content::Test(_) => return None,
    };
    (alert.alert_level != Level::Critical && message.by_hand.is_none()).then_some((alert, change))
}

async fn allowance(tools: &Tools, message: &Message, alert: &Alert, change: Change) -> Allowance {
    let live = tools.live.current();
    let bound = Bound { notifications_max: live.alert_rate_messages, period: live.alert_rate_period() };
    let taken =
        tools.rate.take(counted(message, alert), notification(message, alert.alert_id, change), bound, clock::now_ms());
    match taken.await {
        Ok(allowance) => allowance,
        // Rather too many messages than none.
        Err(error) => {
            warn_unless_away!(error, "alert rate limit unavailable, the message passes without it");
            Allowance::Granted
        }
    }
}

async fn give_back(tools: &Tools, message: &Message, alert: &Alert, change: Change) {
    let given = tools.rate.give_back(counted(message, alert), notification(message, alert.alert_id, change)).await;
    if let Err(error) = given {
        debug!(%error, "a failed message counts against the rate limit of alerts");
    }
}

fn counted<'a>(message: &'a Message, alert: &'a Alert) -> Counted<'a> {
    let merchant = alert.merchant_id.as_deref().unwrap_or_default();
    Counted { scope: &message.scope, merchant, alert_type: &alert.alert_type }
}

fn notification(message: &Message, alert: Uuid, change: Change) -> Notification<'_> {
    Notification { alert, change, channel: &message.channel_id }
}
