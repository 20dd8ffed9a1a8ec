//! `/quotas`: operations on quota, and accounts as they stand.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use quota::{Currency, MerchantId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::execute::{
    self, BatchOutcome, MerchantAccounts, Requested, no_account, no_decision, parse_currency, parse_merchant,
};
use super::openapi::{BodyProblems, NotFound, Problems, Refusals};
use super::page::{Cursor, Page, limit};
use super::problem::{Answer, Problem};
use super::{Admin, Caller, Json, Path, Permission, Query};
use crate::store::accounts::{self, AccountFilter, CurrencyStats, DayStats};
use sluice_decision::decider::Decision;
use sluice_decision::operations::{
    AccountView, CheckAnswer, MerchantAnswer, OperationAnswer, OperationRequest, body, body::BatchRequest,
};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    operations()
        .routes(routes!(batch))
        .routes(routes!(by_merchant))
        .routes(routes!(by_currency))
        .routes(routes!(list))
        .routes(routes!(stats))
}

/// Declares the handler of each operation, with its description, from the table of operations.
macro_rules! operations {
    ([$({
        $name:ident, $variant:ident($body:ident), $permission:ident, $repetition:ident, $summary:literal,
        rest[$path:literal -> $answer:ident $(, $problems:ident)*], grpc$grpc:tt
    })+]) => {
        $(
            #[doc = $summary]
            #[utoipa::path(post, path = $path, tag = "quotas", request_body = body::$body,
                responses((status = OK, body = $answer), Problems, BodyProblems $(, $problems)*))]
            async fn $name(
                State(admin): State<Admin>,
                caller: Caller,
                Json(body): Json<body::$body>,
            ) -> Answer<Json<$answer>> {
                let requested = OperationRequest::$variant(body).try_into();
                let done = execute::execute(&admin, &caller, requested).await?;
                Ok(Json($answer::of(&done)))
            }
        )+

        fn operations() -> OpenApiRouter<Admin> {
            OpenApiRouter::new()$(.routes(routes!($name)))+
        }
    };
}

sluice_decision::for_each_operation!(operations!());

/// A suspension, or its end: of an account, or of a merchant as a whole.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum SuspensionAnswer {
    Merchant(MerchantAnswer),
    Account(Box<OperationAnswer>),
}

impl SuspensionAnswer {
    fn of(done: &Decision) -> Self {
        match MerchantAnswer::of(done) {
            Some(answer) => Self::Merchant(answer),
            None => Self::Account(Box::new(OperationAnswer::of(done))),
        }
    }
}

/// What became of one operation of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct BatchItem {
    /// The HTTP status that the operation would have had by itself.
    #[schema(example = 200)]
    status: u16,
    /// Of an operation that took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<OperationAnswer>,
    /// Of one on a merchant as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant: Option<MerchantAnswer>,
    /// Of a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckAnswer>,
    /// Of an operation that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl From<Answer<Decision>> for BatchItem {
    fn from(outcome: Answer<Decision>) -> Self {
        let done = match outcome {
            Ok(done) => done,
            Err(problem) => {
                let status = problem.status().as_u16();
                return Self { status, operation: None, merchant: None, check: None, problem: Some(problem) };
            }
        };
        let (mut operation, mut check) = (None, None);
        let merchant = MerchantAnswer::of(&done);
        if merchant.is_none() && done.command().effect == quota::Effect::Commit {
            operation = Some(OperationAnswer::of(&done));
        } else if merchant.is_none() {
            check = Some(CheckAnswer::of(&done));
        }
        Self { status: 200, operation, merchant, check, problem: None }
    }
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct BatchAnswer {
    /// Operations with status 200.
    succeeded: usize,
    failed: usize,
    /// In the order of the request.
    results: Vec<BatchItem>,
}

/// Do many operations, each by itself or all or none. 200 where all took effect, 207 where some were refused; a refused atomic
/// batch answers 409. A batch counts as as many requests of its caller as it has operations.
#[utoipa::path(post, path = "/quotas/batch", tag = "quotas", request_body = BatchRequest,
    responses((status = OK, body = BatchAnswer), (status = MULTI_STATUS, body = BatchAnswer),
        (status = CONFLICT, body = BatchAnswer, description = "an atomic batch of which one operation was refused"),
        Problems, BodyProblems, Refusals))]
async fn batch(State(admin): State<Admin>, caller: Caller, Json(body): Json<BatchRequest>) -> Answer<Response> {
    let operations = body.operations.into_iter().map(Requested::try_from);
    let BatchOutcome { results, keep } = execute::batch(&admin, &caller, operations, body.atomic).await?;
    let results: Vec<BatchItem> = results.into_iter().map(BatchItem::from).collect();
    let failed = results.iter().filter(|item| item.status != 200).count();
    let status = match (failed, body.atomic) {
        (0, _) => StatusCode::OK,
        (_, true) => StatusCode::CONFLICT,
        (_, false) => StatusCode::MULTI_STATUS,
    };
    let answer = BatchAnswer { succeeded: results.len() - failed, failed, results };
    let mut response = (status, Json(answer)).into_response();
    if let Some(keep) = keep {
        response.extensions_mut().insert(keep);
    }
    Ok(response)
}

/// Every account of a merchant as it stands, and whether the merchant is suspended as a whole.
#[utoipa::path(get, path = "/quotas/merchant/{merchant_id}", tag = "quotas",
    operation_id = "get_accounts", params(("merchant_id" = String, Path, max_length = 64)),
    responses((status = OK, body = MerchantAccounts), Problems, NotFound))]
async fn by_merchant(
    State(admin): State<Admin>,
    caller: Caller,
    Path(merchant_id): Path<String>,
) -> Answer<Json<MerchantAccounts>> {
    let found = execute::accounts(&admin, &caller, &merchant_id).await?;
    if found.accounts.is_empty() && !found.is_suspended {
        return Err(no_account());
    }
    Ok(Json(found))
}

/// One account as it stands.
#[utoipa::path(get, path = "/quotas/merchant/{merchant_id}/currency/{currency}", tag = "quotas",
    operation_id = "get_account",
    params(("merchant_id" = String, Path, max_length = 64), ("currency" = String, Path, example = "USD")),
    responses((status = OK, body = AccountView), Problems, NotFound))]
async fn by_currency(
    State(admin): State<Admin>,
    caller: Caller,
    Path((merchant_id, currency)): Path<(String, String)>,
) -> Answer<Json<AccountView>> {
    execute::account(&admin, &caller, &merchant_id, &currency).await.map(Json)
}

/// Which accounts are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[param(max_length = 64)]
    merchant_id: Option<String>,
    /// ISO 4217 alphabetic code.
    currency: Option<String>,
    /// Whether charges of the account are refused: it is suspended, or its merchant as a whole.
    is_suspended: Option<bool>,
    /// Whether its merchant is suspended as a whole.
    is_merchant_suspended: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// The position in the list of accounts.
#[derive(Debug, Serialize, Deserialize)]
struct AccountPlace(String, String);

impl Cursor for AccountPlace {
    fn is_possible(&self) -> bool {
        MerchantId::parse(&self.0).is_ok() && Currency::parse(&self.1).is_ok()
    }
}

/// Accounts, ordered by merchant and currency. Which ones there are is the journal's knowledge, some seconds behind; their
/// figures are those of now. Pages have no numbers: `cursor` goes on where the page before ended.
#[utoipa::path(get, path = "/quotas/list", tag = "quotas",
    operation_id = "list_accounts", params(ListQuery),
    responses((status = OK, body = Page<AccountView>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<AccountView>>> {
    caller.require(Permission::QuotasRead)?;
    let filter = AccountFilter {
        merchant: caller.narrow(query.merchant_id.as_deref().map(parse_merchant).transpose()?)?,
        currency: query.currency.as_deref().map(parse_currency).transpose()?,
        is_suspended: query.is_suspended,
        is_merchant_suspended: query.is_merchant_suspended,
    };
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let AccountPlace(merchant, currency) = match &query.cursor {
        Some(cursor) => AccountPlace::decode(cursor)?,
        None => AccountPlace(String::new(), String::new()),
    };
    let rows = filter.page(&admin.pool, (&merchant, &currency), page_max + 1).await?;
    let page = Page::from_rows(rows, page_max, |row| AccountPlace(row.merchant_id.clone(), row.known.currency.clone()));
    let mut items = Vec::with_capacity(page.items.len());
    for row in page.items {
        let merchant = MerchantId::parse(&row.merchant_id);
        let currency = Currency::parse(&row.known.currency);
        let (Ok(merchant), Ok(currency)) = (merchant, currency) else { continue };
        let account = admin.operations.account(&merchant, currency, row.known.into()).await;
        items.extend(account.map_err(|error| no_decision(&error))?);
    }
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// All accounts together.
#[derive(Debug, Serialize, ToSchema)]
struct QuotaStats {
    currencies: Vec<CurrencyStats>,
    /// Merchants that are suspended as a whole.
    suspended_merchants: i64,
    /// By the latest business day of each account, the newest first.
    days: Vec<DayStats>,
    /// When the figures were read; they follow the counters by the journal's delay.
    at: DateTime<Utc>,
}

/// Sums over all accounts that the caller may see.
#[utoipa::path(get, path = "/quotas/stats", tag = "quotas",
    operation_id = "quota_stats", responses((status = OK, body = QuotaStats), Problems))]
async fn stats(State(admin): State<Admin>, caller: Caller) -> Answer<Json<QuotaStats>> {
    caller.require(Permission::QuotasRead)?;
    let merchant = caller.narrow(None)?;
    let currencies = accounts::by_currency(&admin.pool, merchant.as_ref()).await?;
    let days = accounts::by_day(&admin.pool, merchant.as_ref()).await?;
    let suspended_merchants = accounts::suspended_merchants(&admin.pool, merchant.as_ref()).await?;
    let at = DateTime::from_timestamp_millis(sluice_kit::clock::now_ms()).unwrap_or_default();
    Ok(Json(QuotaStats { currencies, suspended_merchants, days, at }))
}
