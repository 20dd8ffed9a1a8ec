//! Alerts as the API shows them: lists, one alert, its acknowledgement and its end by hand. `messages` has their
//! notifications, `stats` counts them.

pub mod messages;
pub mod stats;

use chrono::{DateTime, Utc};
use quota::{Currency, MerchantId};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgPool, Postgres, QueryBuilder};
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Level, Scope, Subject};

/// Wakes the notifier and the live stream.
pub(crate) const NOTIFY: &str = "SELECT pg_notify('sluice_alert', $1)";
/// A merchant sees the alerts that are addressed to it.
pub(crate) const FOR_MERCHANTS: &str = " AND (a.recipients IS NULL OR 'merchant' = ANY(a.recipients))";
/// The end by hand, in the column `resolve_reason`.
const BY_HAND: &str = "by_hand";

/// The columns of [`Alert`]. A percentage is cut, not rounded: 99.999 is not 100.
const SELECT: &str = "SELECT a.alert_id, a.merchant_id, a.currency, a.alert_type, a.alert_level, a.subject, a.threshold, \
    a.remaining_below, a.is_own, \
    a.window_id, a.current_used, a.max AS \"limit\", trim_scale(trunc(a.usage_percent, 2))::text AS usage_percent, \
    a.message, a.policy_version, a.event_id, a.trace_id, a.raised_at, a.acknowledged_at, a.acknowledged_by, \
    a.acknowledge_notes, a.resolved_at IS NOT NULL AS is_resolved, a.resolved_at, a.resolved_by, a.resolve_reason, \
    a.resolve_notes, a.resolve_event_id, sent.at IS NOT NULL AS notification_sent, sent.at AS notification_sent_at \
    FROM quota_alert a LEFT JOIN LATERAL (SELECT min(m.ended_at) AS at FROM alert_message m \
        WHERE m.alert_id = a.alert_id AND m.kind = 'raised' AND m.state = 'sent'";
const ACKNOWLEDGE: &str = "UPDATE quota_alert SET acknowledged_at = now(), acknowledged_by = $2, acknowledge_notes = $3 \
    WHERE alert_id = $1 AND acknowledged_at IS NULL AND resolved_at IS NULL \
        AND ($4::text IS NULL OR merchant_id = $4 AND (recipients IS NULL OR 'merchant' = ANY(recipients)))";
const RESOLVE: &str = "UPDATE quota_alert SET resolved_at = greatest(now(), raised_at), resolved_by = $2, resolve_notes = $3, \
    resolve_reason = $5 WHERE alert_id = $1 AND resolved_at IS NULL \
        AND ($4::text IS NULL OR merchant_id = $4 AND (recipients IS NULL OR 'merchant' = ANY(recipients)))";

/// An alert. Amounts are in minor units.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = QuotaAlert)]
pub struct Alert {
    pub alert_id: Uuid,
    /// Absent for what concerns operators only.
    pub merchant_id: Option<String>,
    pub currency: Option<String>,
    /// What it is about, and for limits at which percentage, as in `daily_80`, `monthly_count_100`, `daily_remaining`, `suspended`.
    pub alert_type: String,
    #[sqlx(try_from = "String")]
    pub alert_level: Level,
    /// What it is about alone: a limit, as in `daily_amount`, or as the type.
    pub subject: String,
    /// The percentage of the limit that usage has reached.
    pub threshold: Option<i32>,
    /// Of a threshold that is no percentage: less than this was left of the limit.
    pub remaining_below: Option<i64>,
    /// The threshold is one that the merchant set for itself.
    pub is_own: bool,
    /// The window whose usage it is: YYYYMMDD, YYYYMM or YYYY in the merchant's time zone.
    pub window_id: Option<i32>,
    /// What counted against the limit when the alert was raised: an amount, or a number of charges.
    pub current_used: Option<i64>,
    /// The limit then.
    pub limit: Option<i64>,
    /// The one as a percentage of the other; may be far above 100.
    #[schema(value_type = Option<f64>)]
    pub usage_percent: Option<Number>,
    /// The same in words.
    pub message: String,
    /// The policy that set the limit.
    pub policy_version: Option<String>,
    /// The usage log's row that raised it.
    pub event_id: Option<Uuid>,
    pub trace_id: Option<String>,
    pub raised_at: DateTime<Utc>,
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Its merchant sees who, and what they said.
    pub acknowledged_by: Option<String>,
    pub acknowledge_notes: Option<String>,
    pub is_resolved: bool,
    pub resolved_at: Option<DateTime<Utc>>,
    /// `system` where usage fell or the trouble passed. Its merchant sees who, and their notes, and its channels are notified.
    pub resolved_by: Option<String>,
    /// Why, as in `refund`, `limit_raised`, `window_closed`, `by_hand`.
    pub resolve_reason: Option<String>,
    pub resolve_notes: Option<String>,
    /// The usage log's row that ended it.
    pub resolve_event_id: Option<Uuid>,
    /// Whether a message about it has arrived on any channel that the caller may see.
    pub notification_sent: bool,
    /// When the first one did.
    pub notification_sent_at: Option<DateTime<Utc>>,
}

/// A number that is serialized with the digits of Postgres.
#[derive(Clone, Debug, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Number(#[serde(serialize_with = "digits")] String);

fn digits<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// A value of a column that its type does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown word {0}")]
pub struct UnknownWord(String);

impl TryFrom<String> for Level {
    type Error = UnknownWord;

    fn try_from(text: String) -> Result<Self, UnknownWord> {
        text.parse().map_err(|_| UnknownWord(text))
    }
}

/// Which threshold usage has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Percent(i32),
    /// Any of what is left of the limit.
    Remaining,
}

/// Which alerts; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub merchant: Option<MerchantId>,
    pub currency: Option<Currency>,
    /// The subject, and for limits optionally one threshold.
    pub kind: Option<(Subject, Option<Reached>)>,
    pub level: Option<Level>,
    pub resolved: Option<bool>,
    pub acknowledged: Option<bool>,
    /// Not raised before.
    pub from: Option<DateTime<Utc>>,
    /// Raised before.
    pub to: Option<DateTime<Utc>>,
}

impl Filter {
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(merchant) = &self.merchant {
            sql.push(" AND a.merchant_id = ").push_bind(merchant.as_str().to_owned());
        }
        if let Some(currency) = self.currency {
            sql.push(" AND a.currency = ").push_bind(currency.code().to_owned());
        }
        if let Some((subject, threshold)) = self.kind {
            sql.push(" AND a.subject = ").push_bind(subject.column());
            match threshold {
                Some(Reached::Percent(percent)) => sql.push(" AND a.threshold = ").push_bind(percent),
                Some(Reached::Remaining) => sql.push(" AND a.remaining_below IS NOT NULL"),
                None => sql,
            };
        }
        if let Some(level) = self.level {
            sql.push(" AND a.alert_level = ").push_bind(level.into_str());
        }
        if let Some(resolved) = self.resolved {
            // Plain conditions: only these use the index of open alerts.
            sql.push(if resolved { " AND a.resolved_at IS NOT NULL" } else { " AND a.resolved_at IS NULL" });
        }
        if let Some(acknowledged) = self.acknowledged {
            sql.push(" AND (a.acknowledged_at IS NOT NULL) = ").push_bind(acknowledged);
        }
        if let Some(from) = self.from {
            sql.push(" AND a.raised_at >= ").push_bind(from);
        }
        if let Some(to) = self.to {
            sql.push(" AND a.raised_at < ").push_bind(to);
        }
    }
}

/// A query of alerts for a caller that sees one merchant, or all; conditions on `quota_alert a` may follow.
pub fn select(merchant: Option<&MerchantId>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(SELECT);
    if let Some(merchant) = merchant {
        sql.push(" AND m.scope = ").push_bind(Scope::Merchant(merchant.clone()).text());
    }
    sql.push(") sent ON true WHERE true");
    if let Some(merchant) = merchant {
        sql.push(" AND a.merchant_id = ").push_bind(merchant.as_str().to_owned());
        sql.push(FOR_MERCHANTS);
    }
    sql
}

/// At most `limit` alerts, the newest first, from a cursor on; of one merchant where the caller sees no other.
///
/// # Errors
/// Those of Postgres.
pub async fn list(
    pool: &PgPool,
    own: Option<&MerchantId>,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Alert>, sqlx::Error> {
    let mut sql = select(own);
    filter.push(&mut sql);
    if let Some((at, id)) = after {
        sql.push(" AND (a.raised_at, a.alert_id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY a.raised_at DESC, a.alert_id DESC LIMIT ").push_bind(limit);
    sql.build_query_as().fetch_all(pool).await
}

/// One alert; of one merchant where the caller sees no other.
///
/// # Errors
/// Those of Postgres.
pub async fn get(pool: &PgPool, own: Option<&MerchantId>, id: Uuid) -> Result<Option<Alert>, sqlx::Error> {
    let mut sql = select(own);
    sql.push(" AND a.alert_id = ").push_bind(id);
    sql.build_query_as().fetch_optional(pool).await
}

/// Who changes an alert by hand, and their notes.
#[derive(Clone, Copy, Debug)]
pub struct ByHand<'a> {
    pub actor: &'a str,
    pub notes: Option<&'a str>,
    /// The only merchant whose alerts the caller sees.
    pub own: Option<&'a MerchantId>,
}

/// Why an alert was not changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    #[error("there is no such alert")]
    NotFound,
    #[error("the alert was {what} by {by} at {}", .at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))]
    Done { what: &'static str, by: String, at: DateTime<Utc> },
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Records the acknowledgement of an open alert.
///
/// # Errors
/// [`ChangeError::Done`] where it is acknowledged or resolved already.
pub async fn acknowledge(pool: &PgPool, id: Uuid, by: ByHand<'_>) -> Result<Alert, ChangeError> {
    change(pool, id, by, Step::Acknowledge).await
}

/// Resolves an open alert. Of concurrent calls one succeeds, and the others return an error.
///
/// # Errors
/// [`ChangeError::Done`] where it has ended.
pub async fn resolve(pool: &PgPool, id: Uuid, by: ByHand<'_>) -> Result<Alert, ChangeError> {
    change(pool, id, by, Step::Resolve).await
}

#[derive(Clone, Copy)]
enum Step {
    Acknowledge,
    Resolve,
}

async fn change(pool: &PgPool, id: Uuid, by: ByHand<'_>, step: Step) -> Result<Alert, ChangeError> {
    let mut transaction = pool.begin().await?;
    let merchant = by.own.map(MerchantId::as_str);
    let query = match step {
        Step::Acknowledge => sqlx::query(ACKNOWLEDGE).bind(id).bind(by.actor).bind(by.notes).bind(merchant),
        Step::Resolve => sqlx::query(RESOLVE).bind(id).bind(by.actor).bind(by.notes).bind(merchant).bind(BY_HAND),
    };
    let changed = query.execute(&mut *transaction).await?.rows_affected() > 0;
    if changed {
        sqlx::query(NOTIFY).bind(id.to_string()).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    let alert = get(pool, by.own, id).await?.ok_or(ChangeError::NotFound)?;
    if changed { Ok(alert) } else { Err(alert.why_not(step)) }
}

impl Alert {
    fn why_not(self, step: Step) -> ChangeError {
        let resolved = self.resolved_at.zip(self.resolved_by).map(|(at, by)| ("resolved", at, by));
        let acknowledged = self.acknowledged_at.zip(self.acknowledged_by).map(|(at, by)| ("acknowledged", at, by));
        let done = match step {
            Step::Acknowledge => resolved.or(acknowledged),
            Step::Resolve => resolved,
        };
        done.map_or(ChangeError::NotFound, |(what, at, by)| ChangeError::Done { what, by, at })
    }
}
