//! Creates messages for changes of alerts, by the current settings. A change is marked as seen in the transaction that creates
//! its messages. Where settings cannot be read it stays unseen, so that its messages follow when the settings are repaired.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tracing::error;
use uuid::Uuid;

use super::Tools;
use crate::notice::{Alert, Change, Notice};
use crate::settings::{AlertAttributes, Delivery};
use crate::{Level, Settings, Subject};
use sluice_kit::clock;

/// Alerts of one transaction.
const ALERTS_MAX: i64 = 500;
/// The operators' scope.
const OPERATORS: &str = "operators";
/// The recipient whose scope is the merchant's own.
const MERCHANT: &str = "merchant";

/// Rows that the journal has locked are left for the next run: the notifier does not wait for them.
const SEE: &str = "SELECT alert_id, merchant_id, currency::text, subject, alert_type, alert_level, threshold, remaining_below, message, window_id, \
        current_used, max, trim_scale(trunc(usage_percent, 2))::text AS usage_percent, policy_version, event_id, \
        trace_id, recipients, channels, raised_at, resolved_at, resolved_by, resolve_reason, resolve_notes, raise_seen_at IS NULL AS is_raised, \
        resolved_at IS NOT NULL AND resolve_seen_at IS NULL AS is_ended \
    FROM quota_alert WHERE (raise_seen_at IS NULL OR (resolved_at IS NOT NULL AND resolve_seen_at IS NULL)) \
        AND alert_id > $1 ORDER BY alert_id LIMIT $2 FOR UPDATE SKIP LOCKED";
const MARK: &str = "UPDATE quota_alert SET raise_seen_at = coalesce(raise_seen_at, now()), \
        resolve_seen_at = CASE WHEN resolved_at IS NOT NULL THEN coalesce(resolve_seen_at, now()) END \
    WHERE alert_id = ANY($1)";

/// Messages that were created before for an alert that stayed unseen exist already. All messages that a route holds for a digest
/// of one channel are due with the first of them.
const MAKE: &str = "INSERT INTO alert_message (message_id, alert_id, kind, scope, channel_id, channel_kind, alert_type, \
        alert_level, body, state, held_by, next_try_at, give_up_at) \
    SELECT id, alert, kind, of, channel, way, type, level, payload::jsonb, \
        CASE WHEN minutes IS NULL THEN 'pending' ELSE 'held' END, CASE WHEN minutes IS NOT NULL THEN 'route' END, \
        CASE WHEN minutes IS NULL THEN now() ELSE coalesce((SELECT min(next_try_at) FROM alert_message AS held \
            WHERE held.state = 'held' AND held.held_by = 'route' AND held.digest_id IS NULL AND held.scope = of \
            AND held.channel_id = channel), now() + make_interval(mins => minutes)) END, \
        now() + make_interval(secs => $11) \
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
        $9::text[], $10::int[]) AS made (id, alert, kind, of, channel, way, type, level, payload, minutes) \
    ON CONFLICT DO NOTHING";

#[derive(sqlx::FromRow)]
struct Seen {
    alert_id: Uuid,
    merchant_id: Option<String>,
    currency: Option<String>,
    subject: String,
    alert_type: String,
    alert_level: String,
    threshold: Option<i32>,
    remaining_below: Option<i64>,
    message: String,
    window_id: Option<i32>,
    current_used: Option<i64>,
    max: Option<i64>,
    usage_percent: Option<String>,
    policy_version: Option<String>,
    event_id: Option<Uuid>,
    trace_id: Option<String>,
    recipients: Option<Vec<String>>,
    channels: Option<Vec<String>>,
    raised_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    resolved_by: Option<String>,
    resolve_reason: Option<String>,
    resolve_notes: Option<String>,
    is_raised: bool,
    is_ended: bool,
}

/// The new rows, by column.
#[derive(Default)]
struct Made {
    ids: Vec<Uuid>,
    alerts: Vec<Uuid>,
    kinds: Vec<&'static str>,
    scopes: Vec<String>,
    channels: Vec<String>,
    ways: Vec<&'static str>,
    types: Vec<String>,
    levels: Vec<&'static str>,
    bodies: Vec<String>,
    digest_minutes: Vec<Option<i32>>,
}

/// The scopes whose settings cannot be read. Only a change is logged.
pub(super) type Unreadable = BTreeSet<String>;

/// Creates the messages of all alerts, in batches.
pub(super) async fn all(tools: &Tools, unreadable: &mut Unreadable) -> Result<(), sqlx::Error> {
    let mut next = Some(Uuid::nil());
    while let Some(after) = next {
        next = some(tools, unreadable, after).await?;
    }
    Ok(())
}

/// Creates the messages of one batch of alerts, after an id; returns the last id where there may be more.
async fn some(tools: &Tools, unreadable: &mut Unreadable, after: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    let mut transaction = tools.pool.begin().await?;
    let mut seen: Vec<Seen> = sqlx::query_as(SEE).bind(after).bind(ALERTS_MAX).fetch_all(&mut *transaction).await?;
    if seen.is_empty() {
        return Ok(None);
    }
    let is_full = i64::try_from(seen.len()).is_ok_and(|seen| seen == ALERTS_MAX);
    let last = seen.last().filter(|_| is_full).map(|alert| alert.alert_id);
    // The ids of their messages rise with time.
    seen.sort_by_key(|alert| (alert.raised_at, alert.alert_id));
    let settings = settings_of(&mut transaction, &seen, unreadable).await?;
    let (mut made, mut marked) = (Made::default(), Vec::new());
    for alert in &seen {
        let scopes = alert.scopes();
        for scope in &scopes {
            if let Some(settings) = settings.get(scope) {
                made.add(alert, scope, settings);
            }
        }
        if !scopes.iter().any(|scope| unreadable.contains(scope)) {
            marked.push(alert.alert_id);
        }
    }
    let give_up_secs = tools.live.current().alert_give_up_secs as f64;
    made.insert(&mut transaction, give_up_secs).await?;
    sqlx::query(MARK).bind(marked).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(last)
}

/// A document that cannot be read delays no other: no alert is sent by it until it is repaired.
async fn settings_of(
    connection: &mut PgConnection,
    seen: &[Seen],
    unreadable: &mut Unreadable,
) -> Result<HashMap<String, Settings>, sqlx::Error> {
    let mut scopes: Vec<String> = seen.iter().flat_map(Seen::scopes).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT scope, document::text FROM alert_settings WHERE scope = ANY($1)")
            .bind(&scopes)
            .fetch_all(connection)
            .await?;
    let before = unreadable.clone();
    unreadable.retain(|scope| !scopes.contains(scope));
    let read = rows.into_iter().filter_map(|(scope, document)| match serde_json::from_str(&document) {
        Ok(settings) => Some((scope, settings)),
        Err(_) => {
            if !before.contains(&scope) {
                error!(
                    scope,
                    "alert settings in the database cannot be read, no alert is sent by them: save them again"
                );
            }
            unreadable.insert(scope);
            None
        }
    });
    Ok(read.collect())
}

impl Seen {
    /// The scopes whose settings may route it: the operators', and the merchant's own, as far as it is addressed to them.
    fn scopes(&self) -> Vec<String> {
        let is_addressed =
            |name: &str| self.recipients.as_ref().is_none_or(|names| names.iter().any(|own| own == name));
        let operators = is_addressed(OPERATORS).then(|| OPERATORS.to_owned());
        let merchant = self.merchant_id.as_ref().filter(|_| is_addressed(MERCHANT));
        operators.into_iter().chain(merchant.map(|merchant| format!("merchant:{merchant}"))).collect()
    }

    fn changes(&self) -> impl Iterator<Item = Change> {
        let raised = self.is_raised.then_some(Change::Raised);
        raised.into_iter().chain(self.is_ended.then_some(Change::Resolved))
    }

    fn level(&self) -> Level {
        self.alert_level.parse().unwrap_or(Level::Critical)
    }

    /// As it stood at the change.
    fn alert(&self, change: Change) -> Alert {
        let ended = change == Change::Resolved;
        let at_end = |text: &Option<String>| text.clone().filter(|_| ended);
        Alert {
            alert_id: self.alert_id,
            merchant_id: self.merchant_id.clone(),
            currency: self.currency.clone(),
            subject: self.subject.clone(),
            alert_type: self.alert_type.clone(),
            alert_level: self.level(),
            threshold: self.threshold,
            remaining_below: self.remaining_below,
            message: self.message.clone(),
            window_id: self.window_id,
            current_used: self.current_used,
            limit: self.max,
            usage_percent: self.usage_percent.as_ref().and_then(|text| serde_json::from_str(text).ok()),
            policy_version: self.policy_version.clone(),
            event_id: self.event_id,
            trace_id: self.trace_id.clone(),
            raised_at: self.raised_at,
            is_resolved: ended,
            resolved_at: self.resolved_at.filter(|_| ended),
            resolved_by: at_end(&self.resolved_by),
            resolve_reason: at_end(&self.resolve_reason),
            resolve_notes: at_end(&self.resolve_notes),
        }
    }
}

impl Made {
    fn add(&mut self, seen: &Seen, scope: &str, settings: &Settings) {
        let Some(subject) = Subject::from_column(&seen.subject) else {
            return error!(subject = seen.subject, "alert of an unknown subject, no message is sent");
        };
        let threshold = seen.threshold.and_then(|threshold| u32::try_from(threshold).ok());
        for change in seen.changes() {
            let resolved = change == Change::Resolved;
            let alert = AlertAttributes { subject, level: seen.level(), threshold, resolved };
            for (channel, delivery) in settings.channels_for(&alert, seen.channels.as_deref()) {
                let minutes = match delivery {
                    Delivery::Immediate => None,
                    Delivery::Digest => Some(i32::try_from(settings.digest_minutes).unwrap_or(i32::MAX)),
                };
                self.ids.push(Uuid::from_bytes(clock::decision_id()));
                self.alerts.push(seen.alert_id);
                self.kinds.push(change.into_str());
                self.scopes.push(scope.to_owned());
                self.channels.push(channel.id().to_owned());
                self.ways.push(channel.kind());
                self.types.push(seen.alert_type.clone());
                self.levels.push(seen.level().into_str());
                self.bodies.push(Notice::of(change, seen.alert(change)).json());
                self.digest_minutes.push(minutes);
            }
        }
    }

    async fn insert(self, connection: &mut PgConnection, give_up_secs: f64) -> Result<(), sqlx::Error> {
        sqlx::query(MAKE)
            .bind(self.ids)
            .bind(self.alerts)
            .bind(self.kinds)
            .bind(self.scopes)
            .bind(self.channels)
            .bind(self.ways)
            .bind(self.types)
            .bind(self.levels)
            .bind(self.bodies)
            .bind(self.digest_minutes)
            .bind(give_up_secs)
            .execute(connection)
            .await
            .map(drop)
    }
}
