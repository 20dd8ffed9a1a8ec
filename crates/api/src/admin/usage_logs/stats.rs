//! The usage log's totals over a time: how many commands were granted and refused, with which codes, and what they moved.

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{action, currency, merchant_id};
use crate::admin::openapi::Problems;
use crate::admin::page::check_time;
use crate::admin::problem::{Answer, Problem};
use crate::admin::{Admin, Caller, Json, Permission, Query};
use crate::store::usage_log::{UsageFilter, UsageTotal};
use sluice_kit::clock;

/// The default time span, in hours.
const HOURS_DEFAULT: i64 = 24;
/// Longest time, in days: its rows are counted one by one.
const DAYS_MAX: i64 = 92;
/// Which rows to add up.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StatsQuery {
    /// Not before this time (RFC 3339); 24 hours before `to` by default.
    from: Option<DateTime<Utc>>,
    /// Before this time (RFC 3339); now by default. 92 days after `from` at most.
    to: Option<DateTime<Utc>>,
    merchant_id: Option<String>,
    currency: Option<String>,
    action: Option<String>,
}

/// The totals over a time.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct UsageStats {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// Absent where all merchants are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_id: Option<String>,
    /// Commands in all.
    total: i64,
    /// Of these, granted.
    succeeded: i64,
    /// Of these, refused.
    failed: i64,
    items: Vec<UsageTotal>,
}

/// Totals of the usage log by currency, action and code.
#[utoipa::path(
    get, path = "/usage-logs/stats", tag = "usage logs", params(StatsQuery),
    responses((status = OK, body = UsageStats), Problems),
)]
pub(super) async fn usage_log_stats(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<StatsQuery>,
) -> Answer<Json<UsageStats>> {
    let (filter, from, to) = query.filter(&caller, clock::now_ms())?;
    let items = filter.totals(&admin.pool).await?;
    let count = |success: bool| items.iter().filter(|item| item.success == success).map(|item| item.count).sum::<i64>();
    let (succeeded, failed) = (count(true), count(false));
    let merchant_id = filter.merchant.map(|merchant| merchant.as_str().to_owned());
    Ok(Json(UsageStats { from, to, merchant_id, total: succeeded.saturating_add(failed), succeeded, failed, items }))
}

impl StatsQuery {
    fn filter(&self, caller: &Caller, now_ms: i64) -> Answer<(UsageFilter, DateTime<Utc>, DateTime<Utc>)> {
        caller.require(Permission::QuotasRead)?;
        let merchant = self.merchant_id.as_deref().map(|id| merchant_id("merchant_id", id)).transpose()?;
        check_time("from", self.from)?;
        check_time("to", self.to)?;
        let to = self.to.or_else(|| DateTime::from_timestamp_millis(now_ms)).unwrap_or_default();
        let earlier = |hours: i64| TimeDelta::try_hours(hours).and_then(|time| to.checked_sub_signed(time));
        let from = self.from.or_else(|| earlier(HOURS_DEFAULT)).unwrap_or(DateTime::<Utc>::MIN_UTC);
        if from >= to {
            return Err(Problem::field("from", "must be before to"));
        }
        if earlier(DAYS_MAX * 24).is_none_or(|first| from < first) {
            return Err(Problem::field("from", format!("must be at most {DAYS_MAX} days before to")));
        }
        let filter = UsageFilter {
            merchant: caller.narrow(merchant)?,
            from: Some(from),
            to: Some(to),
            currency: self.currency.as_deref().map(currency).transpose()?,
            action: self.action.as_deref().map(action).transpose()?,
            ..UsageFilter::default()
        };
        Ok((filter, from, to))
    }
}
