//! The usage log as Postgres has it: every decision, by merchant or by order, with filters, as pages of JSON or as one CSV
//! file; and its totals.

mod export;
mod stats;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use quota::{Action, Code, Currency, MerchantId, OrderNo};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Problems;
use super::page::{self, Cursor, Page, TimeId};
use super::problem::{Answer, Problem};
use super::{Admin, Caller, Json, Path, Permission, Query};
use crate::store::usage_log::UsageFilter;
use sluice_journal::usage_log::UsageLog;

pub use export::Exports;

/// A row's position in a list.
const fn place(row: &UsageLog) -> TimeId {
    TimeId(row.at, row.event_id)
}

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(of_merchant)).routes(routes!(of_order)).routes(routes!(stats::usage_log_stats))
}

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// One page.
    Json,
    /// Everything that matches, as a file.
    Csv,
}

/// Which rows to list; those of before `to` and not of before `from`, the newest first.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// Not before this time (RFC 3339).
    from: Option<DateTime<Utc>>,
    /// Before this time (RFC 3339).
    to: Option<DateTime<Utc>>,
    /// What was asked, as in `consume`.
    action: Option<String>,
    /// The answer's code, as in `DAILY_AMOUNT`.
    code: Option<String>,
    merchant_id: Option<String>,
    order_no: Option<String>,
    currency: Option<String>,
    /// Only what was granted, or only what was refused.
    success: Option<bool>,
    /// `csv` is what `Accept: text/csv` asks for as well: all rows, as a stream.
    #[param(inline)]
    format: Option<Format>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with; not for an export, which has no pages.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// Every decision on a merchant's quota.
#[utoipa::path(
    get, path = "/usage-logs/merchant/{merchant_id}", tag = "usage logs", operation_id = "usage_logs_of_merchant",
    params(("merchant_id" = String, Path), LogQuery),
    responses((status = OK, content((Page<UsageLog> = "application/json"), (String = "text/csv"))), Problems),
)]
async fn of_merchant(
    State(admin): State<Admin>,
    caller: Caller,
    Path(merchant): Path<String>,
    headers: HeaderMap,
    Query(query): Query<LogQuery>,
) -> Answer<Response> {
    if query.merchant_id.is_some() {
        return Err(Problem::field("merchant_id", "the path names the merchant already"));
    }
    let mut filter = query.filter(&caller)?;
    let merchant = merchant_id("merchant_id", &merchant)?;
    caller.may_see(&merchant)?;
    filter.merchant = Some(merchant);
    answer(&admin, &caller, &query, filter, &headers).await
}

/// Every decision on an order. Merchants number their orders themselves: `merchant_id` distinguishes equal numbers.
#[utoipa::path(
    get, path = "/usage-logs/order/{order_no}", tag = "usage logs", operation_id = "usage_logs_of_order",
    params(("order_no" = String, Path), LogQuery),
    responses((status = OK, content((Page<UsageLog> = "application/json"), (String = "text/csv"))), Problems),
)]
async fn of_order(
    State(admin): State<Admin>,
    caller: Caller,
    Path(order): Path<String>,
    headers: HeaderMap,
    Query(query): Query<LogQuery>,
) -> Answer<Response> {
    if query.order_no.is_some() {
        return Err(Problem::field("order_no", "the path names the order already"));
    }
    let mut filter = query.filter(&caller)?;
    filter.order = Some(order_no(&order)?);
    answer(&admin, &caller, &query, filter, &headers).await
}

async fn answer(
    admin: &Admin,
    caller: &Caller,
    query: &LogQuery,
    filter: UsageFilter,
    headers: &HeaderMap,
) -> Answer<Response> {
    let after = query.cursor.as_deref().map(TimeId::decode).transpose()?;
    if query.format.unwrap_or_else(|| accepted(headers)) == Format::Csv {
        if query.limit.is_some() {
            return Err(Problem::field("limit", "an export has no pages"));
        }
        return admin.exports.start(&caller.subject, &admin.pool, filter, after).await;
    }
    let limit = page::limit(query.limit, admin.live.current().admin_page_max)?;
    let rows = filter.rows(&admin.pool, after, limit.saturating_add(1)).await?;
    Ok(Json(Page::from_rows(rows, limit, place)).into_response())
}

fn accepted(headers: &HeaderMap) -> Format {
    let accepts =
        |value: &str| value.split(',').any(|media| media.split(';').next().unwrap_or_default().trim() == "text/csv");
    let csv = headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(accepts));
    if csv { Format::Csv } else { Format::Json }
}

impl LogQuery {
    /// Checks every condition, and narrows to what the caller may see.
    fn filter(&self, caller: &Caller) -> Answer<UsageFilter> {
        caller.require(Permission::QuotasRead)?;
        let merchant = self.merchant_id.as_deref().map(|id| merchant_id("merchant_id", id)).transpose()?;
        page::check_time("from", self.from)?;
        page::check_time("to", self.to)?;
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(Problem::field("from", "must be before to"));
        }
        let code = |text: &str| Code::parse(text).ok_or_else(|| Problem::field("code", "is no code of an answer"));
        Ok(UsageFilter {
            merchant: caller.narrow(merchant)?,
            order: self.order_no.as_deref().map(order_no).transpose()?,
            from: self.from,
            to: self.to,
            action: self.action.as_deref().map(action).transpose()?,
            code: self.code.as_deref().map(code).transpose()?,
            currency: self.currency.as_deref().map(currency).transpose()?,
            success: self.success,
        })
    }
}

fn merchant_id(field: &'static str, text: &str) -> Answer<MerchantId> {
    MerchantId::parse(text).map_err(|error| Problem::field(field, error.to_string()))
}

fn order_no(text: &str) -> Answer<OrderNo> {
    OrderNo::parse(text).map_err(|error| Problem::field("order_no", error.to_string()))
}

fn currency(text: &str) -> Answer<Currency> {
    Currency::parse(text).map_err(|error| Problem::field("currency", error.to_string()))
}

fn action(text: &str) -> Answer<&'static str> {
    let known = Action::NAMES.into_iter().find(|action| *action == text);
    known.ok_or_else(|| Problem::field("action", format!("must be one of {}", Action::NAMES.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn csv_is_sent_to_whoever_accepts_it() {
        for (accept, format) in [
            ("text/csv", Format::Csv),
            ("application/json, text/csv;q=0.5", Format::Csv),
            ("text/csvx", Format::Json),
            ("*/*", Format::Json),
            ("", Format::Json),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(accepted(&headers), format, "{accept}");
        }
    }
}
