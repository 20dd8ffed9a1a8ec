//! The usage log as Postgres has it: every decision, by merchant or by order, with filters, as pages of JSON or as one CSV
//! file; and its totals.

mod stats;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use csv::ByteRecord;
use quota::{Action, Code, Currency, MerchantId, OrderNo};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::export::{Format, ListRequest, Rows};
use super::openapi::Problems;
use super::page::{self, Page, TimeId};
use super::problem::{Answer, Problem};
use super::{Admin, Caller, Path, Permission, Query};
use crate::store::usage_log::UsageFilter;
use sluice_journal::usage_log::UsageLog;

/// Rows of the usage log, the newest first.
struct LogRows {
    pool: PgPool,
    filter: UsageFilter,
    /// The caller is a merchant's.
    for_merchant: bool,
}

impl Rows for LogRows {
    type Row = UsageLog;
    type Place = TimeId;
    const FILE: &'static str = "usage-log";

    async fn read(&self, after: Option<TimeId>, limit: i64) -> Answer<Vec<UsageLog>> {
        let rows = self.filter.rows(&self.pool, after, limit).await?;
        Ok(if self.for_merchant { rows.into_iter().map(UsageLog::for_merchant).collect() } else { rows })
    }

    fn place(row: &UsageLog) -> TimeId {
        TimeId(row.at, row.event_id)
    }

    fn columns() -> ByteRecord {
        UsageLog::names()
    }

    fn cells(row: &UsageLog) -> ByteRecord {
        row.cells()
    }
}

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(of_merchant)).routes(routes!(of_order)).routes(routes!(stats::usage_log_stats))
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
    let LogQuery { format, cursor, limit, .. } = query;
    let request = ListRequest { format: *format, cursor: cursor.as_deref(), limit: *limit, headers };
    let for_merchant = caller.merchant.is_some();
    request.answer(admin, caller, LogRows { pool: admin.pool.clone(), filter, for_merchant }).await
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
