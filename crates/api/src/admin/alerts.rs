//! `/alerts`: raised alerts and how they ended, acknowledging and resolving by hand; their messages and their settings.

mod deliverable;
mod messages;
pub(super) mod settings;

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use quota::MerchantId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::execute::{parse_currency, parse_merchant};
use super::openapi::{BodyProblems, NotFound, Problems};
use super::page::{self, Cursor, Page, TimeId, check_time};
use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller, Json, Path, Permission, Query};
use sluice_alerts::read::{self, Alert, ByHand, ChangeError, Filter, Reached};
use sluice_alerts::{Level, Subject};
use sluice_kit::clock;

pub(super) use deliverable::Deliverable;

/// Longest notes, in characters.
const NOTES_LEN_MAX: usize = 2000;
/// The default of the counted time, in days.
const STATS_DAYS_DEFAULT: i64 = 30;
/// Longest time counted, in days.
const STATS_DAYS_MAX: i64 = 366;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(of_merchant))
        .routes(routes!(unresolved))
        .routes(routes!(stats))
        .routes(routes!(get))
        .routes(routes!(acknowledge))
        .routes(routes!(resolve))
        .merge(messages::routes())
        .merge(settings::routes())
}

/// The problem that an error is to its caller.
pub(super) fn change_problem(error: ChangeError) -> Problem {
    match error {
        ChangeError::NotFound => Problem::new(Kind::NotFound),
        ChangeError::Done { .. } => Problem::new(Kind::Conflict).detail(error.to_string()),
        ChangeError::Database(error) => error.into(),
    }
}

/// Which alerts to list, the newest first.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AlertQuery {
    merchant_id: Option<String>,
    currency: Option<String>,
    /// As in `daily_80`, or `daily` for every percentage.
    #[serde(rename = "type")]
    kind: Option<String>,
    #[param(inline)]
    level: Option<Level>,
    /// Only what has ended, or only what has not.
    resolved: Option<bool>,
    /// Only acknowledged alerts, or only those that are not.
    acknowledged: Option<bool>,
    /// Not raised before this time (RFC 3339).
    from: Option<DateTime<Utc>>,
    /// Raised before this time (RFC 3339).
    to: Option<DateTime<Utc>>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// Which open alerts to list, the newest first.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UnresolvedQuery {
    merchant_id: Option<String>,
    currency: Option<String>,
    /// As in `daily_80`, or `daily` for every percentage.
    #[serde(rename = "type")]
    kind: Option<String>,
    #[param(inline)]
    level: Option<Level>,
    /// Only acknowledged alerts, or only those that are not.
    acknowledged: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// An alert with its messages.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = QuotaAlertDetail)]
struct AlertDetail {
    #[serde(flatten)]
    alert: Alert,
    /// The newest first; a merchant sees those of its own channels.
    messages: Vec<read::messages::Detail>,
}

/// The notes of the person who acknowledges or resolves an alert.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AlertNotes)]
struct Notes {
    /// The alert's merchant reads them, and its channels get those of the end.
    #[schema(max_length = 2000)]
    notes: Option<String>,
}

/// What of the alerts is counted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AlertStatsQuery {
    /// Not raised before this time (RFC 3339); 30 days before `to` by default.
    from: Option<DateTime<Utc>>,
    /// Raised before this time (RFC 3339); now by default. 366 days after `from` at most.
    to: Option<DateTime<Utc>>,
    merchant_id: Option<String>,
    currency: Option<String>,
}

/// How many alerts were raised in a time.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct AlertStats {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    #[serde(flatten)]
    totals: read::stats::Totals,
}

/// Alerts, those of operators included.
#[utoipa::path(get, path = "/alerts", tag = "alerts", operation_id = "list_alerts", params(AlertQuery),
    responses((status = OK, body = Page<Alert>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<AlertQuery>,
) -> Answer<Json<Page<Alert>>> {
    let filter = query.filter(&caller)?;
    page_of(&admin, &caller, &filter, query.cursor.as_deref(), query.limit).await
}

/// A merchant's alerts.
#[utoipa::path(get, path = "/alerts/merchant/{merchant_id}", tag = "alerts", operation_id = "alerts_of_merchant",
    params(("merchant_id" = String, Path), AlertQuery), responses((status = OK, body = Page<Alert>), Problems))]
async fn of_merchant(
    State(admin): State<Admin>,
    caller: Caller,
    Path(merchant): Path<String>,
    Query(query): Query<AlertQuery>,
) -> Answer<Json<Page<Alert>>> {
    if query.merchant_id.is_some() {
        return Err(Problem::field("merchant_id", "the path names the merchant already"));
    }
    let mut filter = query.filter(&caller)?;
    let merchant = parse_merchant(&merchant)?;
    caller.may_see(&merchant)?;
    filter.merchant = Some(merchant);
    page_of(&admin, &caller, &filter, query.cursor.as_deref(), query.limit).await
}

/// Alerts that have not ended.
#[utoipa::path(get, path = "/alerts/unresolved", tag = "alerts", operation_id = "unresolved_alerts",
    params(UnresolvedQuery), responses((status = OK, body = Page<Alert>), Problems))]
async fn unresolved(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<UnresolvedQuery>,
) -> Answer<Json<Page<Alert>>> {
    caller.require(Permission::AlertsRead)?;
    let filter = Filter {
        merchant: caller.narrow(query.merchant_id.as_deref().map(parse_merchant).transpose()?)?,
        currency: query.currency.as_deref().map(parse_currency).transpose()?,
        kind: query.kind.as_deref().map(kind).transpose()?,
        level: query.level,
        resolved: Some(false),
        acknowledged: query.acknowledged,
        ..Filter::default()
    };
    page_of(&admin, &caller, &filter, query.cursor.as_deref(), query.limit).await
}

/// How many alerts were raised in a time, and what has become of them.
#[utoipa::path(get, path = "/alerts/stats", tag = "alerts", operation_id = "alert_stats", params(AlertStatsQuery),
    responses((status = OK, body = AlertStats), Problems))]
async fn stats(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<AlertStatsQuery>,
) -> Answer<Json<AlertStats>> {
    let (filter, from, to) = query.filter(&caller, now())?;
    let totals = read::stats::count(&admin.pool, caller.merchant.as_ref(), &filter).await?;
    Ok(Json(AlertStats { from, to, totals }))
}

/// An alert with its messages and each try to deliver them.
#[utoipa::path(get, path = "/alerts/{alert_id}", tag = "alerts", operation_id = "get_alert",
    params(("alert_id" = Uuid, Path)), responses((status = OK, body = AlertDetail), Problems, NotFound))]
async fn get(State(admin): State<Admin>, caller: Caller, Path(alert_id): Path<Uuid>) -> Answer<Json<AlertDetail>> {
    caller.require(Permission::AlertsRead)?;
    let found = read::get(&admin.pool, caller.merchant.as_ref(), alert_id).await?;
    let alert = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
    let messages = messages::of_alert(&admin, &caller, alert_id).await?;
    Ok(Json(AlertDetail { alert, messages }))
}

/// Acknowledge an open alert; others see it.
#[utoipa::path(post, path = "/alerts/{alert_id}/acknowledge", tag = "alerts", operation_id = "acknowledge_alert",
    params(("alert_id" = Uuid, Path)), request_body = Notes,
    responses((status = OK, body = Alert), Problems, BodyProblems, NotFound))]
async fn acknowledge(
    State(admin): State<Admin>,
    caller: Caller,
    Path(alert_id): Path<Uuid>,
    Json(body): Json<Notes>,
) -> Answer<Json<Alert>> {
    let by = body.by(&caller)?;
    Ok(Json(read::acknowledge(&admin.pool, alert_id, by).await.map_err(change_problem)?))
}

/// End an open alert. Usage that stays above the threshold raises no other: the next one comes when it has fallen and risen.
#[utoipa::path(post, path = "/alerts/{alert_id}/resolve", tag = "alerts", operation_id = "resolve_alert",
    params(("alert_id" = Uuid, Path)), request_body = Notes,
    responses((status = OK, body = Alert), Problems, BodyProblems, NotFound))]
async fn resolve(
    State(admin): State<Admin>,
    caller: Caller,
    Path(alert_id): Path<Uuid>,
    Json(body): Json<Notes>,
) -> Answer<Json<Alert>> {
    let by = body.by(&caller)?;
    Ok(Json(read::resolve(&admin.pool, alert_id, by).await.map_err(change_problem)?))
}

async fn page_of(
    admin: &Admin,
    caller: &Caller,
    filter: &Filter,
    cursor: Option<&str>,
    limit: Option<u64>,
) -> Answer<Json<Page<Alert>>> {
    let limit = page::limit(limit, admin.live.current().admin_page_max)?;
    let after = place(cursor)?;
    let own = caller.merchant.as_ref();
    let rows = read::list(&admin.pool, own, filter, after, limit.saturating_add(1)).await?;
    Ok(Json(Page::from_rows(rows, limit, |last| TimeId(last.raised_at, last.alert_id))))
}

fn place(cursor: Option<&str>) -> Answer<Option<(DateTime<Utc>, Uuid)>> {
    Ok(cursor.map(TimeId::decode).transpose()?.map(|TimeId(at, id)| (at, id)))
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(clock::now_ms()).unwrap_or_default()
}

impl AlertQuery {
    /// Checks every condition, and narrows to what the caller may see.
    fn filter(&self, caller: &Caller) -> Answer<Filter> {
        caller.require(Permission::AlertsRead)?;
        check_time("from", self.from)?;
        check_time("to", self.to)?;
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(Problem::field("from", "must be before to"));
        }
        Ok(Filter {
            merchant: caller.narrow(self.merchant_id.as_deref().map(parse_merchant).transpose()?)?,
            currency: self.currency.as_deref().map(parse_currency).transpose()?,
            kind: self.kind.as_deref().map(kind).transpose()?,
            level: self.level,
            resolved: self.resolved,
            acknowledged: self.acknowledged,
            from: self.from,
            to: self.to,
        })
    }
}

impl AlertStatsQuery {
    fn filter(&self, caller: &Caller, now: DateTime<Utc>) -> Answer<(Filter, DateTime<Utc>, DateTime<Utc>)> {
        caller.require(Permission::AlertsRead)?;
        check_time("from", self.from)?;
        check_time("to", self.to)?;
        let to = self.to.unwrap_or(now);
        let earlier = |days: i64| TimeDelta::try_days(days).and_then(|time| to.checked_sub_signed(time));
        let from = self.from.or_else(|| earlier(STATS_DAYS_DEFAULT)).unwrap_or(DateTime::<Utc>::MIN_UTC);
        if from >= to {
            return Err(Problem::field("from", "must be before to"));
        }
        if earlier(STATS_DAYS_MAX).is_none_or(|first| from < first) {
            return Err(Problem::field("from", format!("must be at most {STATS_DAYS_MAX} days before to")));
        }
        let filter = Filter {
            merchant: caller.narrow(self.merchant_id.as_deref().map(parse_merchant).transpose()?)?,
            currency: self.currency.as_deref().map(parse_currency).transpose()?,
            from: Some(from),
            to: Some(to),
            ..Filter::default()
        };
        Ok((filter, from, to))
    }
}

impl Notes {
    fn by<'a>(&'a self, caller: &'a Caller) -> Answer<ByHand<'a>> {
        caller.require(Permission::AlertsManage)?;
        let own: Option<&MerchantId> = caller.merchant.as_ref();
        let notes = self.notes.as_deref();
        if notes.is_some_and(|notes| notes.chars().count() > NOTES_LEN_MAX) {
            return Err(Problem::field("notes", format!("may have {NOTES_LEN_MAX} characters")));
        }
        Ok(ByHand { actor: caller.subject.as_str(), notes, own })
    }
}

/// Reads an alert's type: a subject, and for limits perhaps a threshold.
fn kind(text: &str) -> Answer<(Subject, Option<Reached>)> {
    if let Some(subject) = Subject::parse(text) {
        return Ok((subject, None));
    }
    let parts = text.rsplit_once('_').and_then(|(word, threshold)| {
        let subject = Subject::parse(word).filter(|subject| subject.has_thresholds())?;
        let reached = match threshold {
            "remaining" => Reached::Remaining,
            percent => Reached::Percent(percent.parse().ok()?),
        };
        Some((subject, Some(reached)))
    });
    parts.ok_or_else(|| Problem::field("type", "must be an alert's type, as in daily_80, daily or suspended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_subjects_with_or_without_a_percentage() {
        for (text, expected) in [
            ("daily", Some((Subject::Daily, None))),
            ("daily_80", Some((Subject::Daily, Some(Reached::Percent(80))))),
            ("weekly_80", Some((Subject::Weekly, Some(Reached::Percent(80))))),
            ("daily_count", Some((Subject::DailyCount, None))),
            ("daily_count_100", Some((Subject::DailyCount, Some(Reached::Percent(100))))),
            ("pending_150", Some((Subject::Pending, Some(Reached::Percent(150))))),
            ("credit_utilisation", Some((Subject::CreditUtilisation, None))),
            ("credit_utilisation_80", Some((Subject::CreditUtilisation, Some(Reached::Percent(80))))),
            ("daily_remaining", Some((Subject::Daily, Some(Reached::Remaining)))),
            ("suspended_remaining", None),
            ("over_capture", Some((Subject::OverCapture, None))),
            ("over_capture_80", None),
            ("daily_", None),
            ("daily_x", None),
            ("daily_99999999999", None),
            ("", None),
            ("hourly_80", None),
        ] {
            assert_eq!(kind(text).ok(), expected, "{text}");
        }
    }
}
