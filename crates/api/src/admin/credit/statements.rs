//! Statements: of one line, and of all of them; as pages of JSON, or as CSV for the finance department.

use std::collections::{HashMap, HashSet};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use csv::ByteRecord;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{LinePath, record, repository, today};
use crate::admin::execute::{parse_currency, parse_merchant};
use crate::admin::export::{Format, ListRequest, Rows};
use crate::admin::openapi::{NotFound, Problems};
use crate::admin::page::{Cursor, Page, limit};
use crate::admin::policies::{HistoryPlace, problem_of};
use crate::admin::problem::{Answer, Kind, Problem};
use crate::admin::{Admin, Caller, Json, Path, Permission, Query};
use sluice_lines::{AccountStatement, LineKey, STATEMENT_COLUMNS, StatementFilter, StatementView, statement_cells};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(of_line)).routes(routes!(statement)).routes(routes!(of_all))
}

/// How statements of a line are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LineQuery {
    /// `csv` is what `Accept: text/csv` asks for as well: all statements, the oldest first.
    #[param(inline)]
    format: Option<Format>,
    /// Where to go on: `next_cursor` of the page before. Not for an export.
    cursor: Option<String>,
    /// Most items to answer with; not for an export, which has no pages.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// The statements of a line, the newest first.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/statements", tag = "credit",
    operation_id = "list_statements", params(LinePath, LineQuery),
    responses((status = OK, content((Page<StatementView> = "application/json"), (String = "text/csv"))), Problems, NotFound))]
async fn of_line(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    headers: HeaderMap,
    Query(query): Query<LineQuery>,
) -> Answer<Response> {
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let record = record(&admin, &key).await?;
    let request = ListRequest { format: query.format, cursor: None, limit: query.limit, headers: &headers };
    if request.format()? == Format::Csv {
        if query.cursor.is_some() {
            return Err(Problem::field("cursor", "an export has no pages"));
        }
        let filter = StatementFilter { merchant: Some(key.0), currency: Some(key.1), ..StatementFilter::default() };
        return request.answer(&admin, &caller, StatementRows { admin: admin.clone(), filter }).await;
    }
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let before = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(number)| number);
    let views = record.statement_views(today(&admin, (&key.0, key.1)).await?).into_iter().rev();
    let found = views.filter(|view| before.is_none_or(|before| i64::from(view.statement.number) < before));
    let rows = found.take(usize::try_from(page_max + 1).unwrap_or(usize::MAX)).collect();
    let page = Page::from_rows(rows, page_max, |view: &StatementView| HistoryPlace(view.statement.number.into()));
    Ok(Json(page).into_response())
}

/// Which statement.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct StatementPath {
    #[param(max_length = 64, example = "merchant-001")]
    merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[param(example = "USD")]
    currency: String,
    /// 1 for the first one.
    #[param(minimum = 1)]
    number: u32,
}

/// One statement, with what paid it.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/statements/{number}", tag = "credit",
    operation_id = "get_statement", params(StatementPath),
    responses((status = OK, body = StatementView), Problems, NotFound))]
async fn statement(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<StatementPath>,
) -> Answer<Json<StatementView>> {
    let StatementPath { merchant_id, currency, number } = path;
    let key = LinePath { merchant_id, currency }.allowed(&caller, Permission::CreditRead)?;
    let record = record(&admin, &key).await?;
    let views = record.statement_views(today(&admin, (&key.0, key.1)).await?);
    let found = views.into_iter().find(|view| view.statement.number == number);
    Ok(Json(found.ok_or_else(|| Problem::new(Kind::NotFound).detail("there is no such statement"))?))
}

/// Which statements are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct StatementQuery {
    #[param(max_length = 64)]
    merchant_id: Option<String>,
    currency: Option<String>,
    /// Closed on this day or later.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Date>,
    /// Closed on this day or earlier.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Date>,
    /// `csv` is what `Accept: text/csv` asks for as well: all rows, as a stream.
    #[param(inline)]
    format: Option<Format>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with; not for an export, which has no pages.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// The statements of all lines that the caller may see, by account, and of each the oldest first.
#[utoipa::path(get, path = "/credit/statements", tag = "credit", operation_id = "credit_statements",
    params(StatementQuery),
    responses((status = OK, content((Page<AccountStatement> = "application/json"), (String = "text/csv"))), Problems))]
async fn of_all(
    State(admin): State<Admin>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<StatementQuery>,
) -> Answer<Response> {
    caller.require(Permission::CreditRead)?;
    let StatementQuery { merchant_id, currency, from, to, format, cursor, limit } = query;
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Problem::field("from", "must not be after to"));
    }
    let merchant = caller.narrow(merchant_id.as_deref().map(parse_merchant).transpose()?)?;
    let currency = currency.as_deref().map(parse_currency).transpose()?;
    let rows = StatementRows { admin: admin.clone(), filter: StatementFilter { merchant, currency, from, to } };
    ListRequest { format, cursor: cursor.as_deref(), limit, headers: &headers }.answer(&admin, &caller, rows).await
}

/// Statements of many lines, each as of its account's business day.
struct StatementRows {
    admin: Admin,
    filter: StatementFilter,
}

/// Lines whose books are read at once.
const BOOKS_AT_ONCE: usize = 20;

/// A statement's account and number.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StatementPlace(String, String, u32);

impl StatementPlace {
    fn key(&self) -> Option<(LineKey, u32)> {
        let Self(merchant, currency, number) = self;
        Some(((parse_merchant(merchant).ok()?, parse_currency(currency).ok()?), *number))
    }
}

impl Cursor for StatementPlace {
    fn is_possible(&self) -> bool {
        self.key().is_some()
    }
}

impl Rows for StatementRows {
    type Row = AccountStatement;
    type Place = StatementPlace;
    const FILE: &'static str = "statements";

    async fn read(&self, after: Option<StatementPlace>, limit: i64) -> Answer<Vec<AccountStatement>> {
        let after = after.as_ref().and_then(StatementPlace::key);
        let lines = repository(&self.admin);
        let keys = lines.statement_keys(&self.filter, after.as_ref(), limit).await.map_err(problem_of)?;
        // They are in order.
        let mut accounts: Vec<LineKey> = keys.iter().map(|(account, _)| account.clone()).collect();
        accounts.dedup();
        let mut views: HashMap<(LineKey, u32), StatementView> = HashMap::new();
        // The books of a few lines at a time are in memory.
        let wanted: HashSet<&(LineKey, u32)> = keys.iter().collect();
        for some in accounts.chunks(BOOKS_AT_ONCE) {
            for (account, record) in lines.records(some).await.map_err(problem_of)? {
                let own = record.statement_views(today(&self.admin, (&account.0, account.1)).await?);
                let own = own.into_iter().map(|view| ((account.clone(), view.statement.number), view));
                views.extend(own.filter(|(key, _)| wanted.contains(key)));
            }
        }
        // A list that leaves out what cannot be read would look complete.
        let unreadable = |number: u32| Problem::internal("a statement's line", &number);
        let row = |key: (LineKey, u32)| {
            let statement = views.remove(&key).ok_or_else(|| unreadable(key.1))?;
            let (merchant, currency) = key.0;
            Ok(AccountStatement { merchant_id: merchant.to_string(), currency: currency.code().to_owned(), statement })
        };
        keys.into_iter().map(row).collect()
    }

    fn place(row: &AccountStatement) -> StatementPlace {
        StatementPlace(row.merchant_id.clone(), row.currency.clone(), row.statement.statement.number)
    }

    fn columns() -> ByteRecord {
        ByteRecord::from(STATEMENT_COLUMNS.to_vec())
    }

    fn cells(row: &AccountStatement) -> ByteRecord {
        ByteRecord::from(statement_cells(&row.merchant_id, &row.currency, &row.statement).to_vec())
    }
}
