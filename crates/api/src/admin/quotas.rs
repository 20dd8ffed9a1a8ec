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

use super::execute::{self, MerchantAccounts, no_account, no_decision, parse_currency, parse_merchant};
use super::openapi::{BodyProblems, NotFound, Problems, Refusals};
use super::page::{Cursor, Page, limit};
use super::problem::{Answer, Problem};
use super::{Admin, Caller, Json, Path, Permission, Query};
use crate::store::accounts::{self, AccountFilter, CurrencyStats, DayStats};
use sluice_decision::decider::Decision;
use sluice_decision::operations::{
    AccountView, AdjustRequest, BatchRequest, ChargeRequest, CheckAnswer, CheckRequest, ExtendHoldRequest,
    InitializeRequest, Invalid, MerchantAnswer, OperationAnswer, RefundRequest, ReleaseRequest, Request, ResetRequest,
    SettleRequest, SuspendRequest, VoidRequest,
};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(check))
        .routes(routes!(consume))
        .routes(routes!(hold))
        .routes(routes!(settle))
        .routes(routes!(void))
        .routes(routes!(extend_hold))
        .routes(routes!(release))
        .routes(routes!(refund))
        .routes(routes!(adjust))
        .routes(routes!(reset))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(initialize))
        .routes(routes!(batch))
        .routes(routes!(by_merchant))
        .routes(routes!(by_currency))
        .routes(routes!(list))
        .routes(routes!(stats))
}

/// Would a payment be admitted, and what do its limits leave? Consumes nothing, and answers 200 also where it would be refused.
#[utoipa::path(post, path = "/quotas/check", tag = "quotas", request_body = CheckRequest,
    responses((status = OK, body = CheckAnswer), Problems, BodyProblems))]
async fn check(
    State(admin): State<Admin>,
    caller: Caller,
    Json(body): Json<CheckRequest>,
) -> Answer<Json<CheckAnswer>> {
    let done = execute::execute(&admin, &caller, body.try_into()).await?;
    Ok(Json(CheckAnswer::of(&done)))
}

/// Consume quota for an order, once.
#[utoipa::path(post, path = "/quotas/consume", tag = "quotas", request_body = ChargeRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn consume(State(admin): State<Admin>, caller: Caller, Json(body): Json<ChargeRequest>) -> Operated {
    execute_operation(&admin, &caller, Request::consume(body)).await
}

/// Consume quota whose final amount is open, until it is settled, voided or expires.
#[utoipa::path(post, path = "/quotas/hold", tag = "quotas", request_body = ChargeRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn hold(State(admin): State<Admin>, caller: Caller, Json(body): Json<ChargeRequest>) -> Operated {
    execute_operation(&admin, &caller, Request::hold(body)).await
}

/// Capture from a hold: a part, all of it, or within the policy's bound more than it.
#[utoipa::path(post, path = "/quotas/settle", tag = "quotas", request_body = SettleRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn settle(State(admin): State<Admin>, caller: Caller, Json(body): Json<SettleRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

/// End a hold; what it still holds is returned.
#[utoipa::path(post, path = "/quotas/void", tag = "quotas", request_body = VoidRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn void(State(admin): State<Admin>, caller: Caller, Json(body): Json<VoidRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

/// Keep a hold open for longer, as after an extended authorisation. Sent again, it changes nothing.
#[utoipa::path(post, path = "/quotas/extend-hold", tag = "quotas", request_body = ExtendHoldRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn extend_hold(State(admin): State<Admin>, caller: Caller, Json(body): Json<ExtendHoldRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

/// Give back what an order has consumed: a hold is voided, what was captured is refunded.
#[utoipa::path(post, path = "/quotas/release", tag = "quotas", request_body = ReleaseRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn release(State(admin): State<Admin>, caller: Caller, Json(body): Json<ReleaseRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

/// Return captured quota: into the windows it came from as far as they are open, and into today's figures of refunds.
#[utoipa::path(post, path = "/quotas/refund", tag = "quotas", request_body = RefundRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn refund(State(admin): State<Admin>, caller: Caller, Json(body): Json<RefundRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

/// Correct one counter by hand. With `expected_version` it is done once, however often it is sent.
#[utoipa::path(post, path = "/quotas/adjust", tag = "quotas", request_body = AdjustRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn adjust(State(admin): State<Admin>, caller: Caller, Json(body): Json<AdjustRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

/// Empty an account's windows. Orders of before are no longer returned into them. With `expected_version` it is done once.
#[utoipa::path(post, path = "/quotas/reset", tag = "quotas", request_body = ResetRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn reset(State(admin): State<Admin>, caller: Caller, Json(body): Json<ResetRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

/// Refuse an account's charges from now on, repetitions of admitted orders too; without a currency those of the merchant as a
/// whole, in every currency. Captures, voids and refunds go on.
#[utoipa::path(post, path = "/quotas/suspend", tag = "quotas", request_body = SuspendRequest,
    responses((status = OK, body = SuspensionAnswer), Problems, BodyProblems, Refusals))]
async fn suspend(State(admin): State<Admin>, caller: Caller, Json(body): Json<SuspendRequest>) -> Suspended {
    let done = execute::execute(&admin, &caller, Request::suspend(body)).await?;
    Ok(Json(SuspensionAnswer::of(&done)))
}

/// Take an account's charges again; without a currency those of the merchant, but for accounts that are suspended themselves.
#[utoipa::path(post, path = "/quotas/resume", tag = "quotas", request_body = SuspendRequest,
    responses((status = OK, body = SuspensionAnswer), Problems, BodyProblems, Refusals))]
async fn resume(State(admin): State<Admin>, caller: Caller, Json(body): Json<SuspendRequest>) -> Suspended {
    let done = execute::execute(&admin, &caller, Request::resume(body)).await?;
    Ok(Json(SuspensionAnswer::of(&done)))
}

/// Make an account, so that it is listed before its first payment. One that is there stays as it is.
#[utoipa::path(post, path = "/quotas/initialize", tag = "quotas", request_body = InitializeRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn initialize(State(admin): State<Admin>, caller: Caller, Json(body): Json<InitializeRequest>) -> Operated {
    execute_operation(&admin, &caller, body.try_into()).await
}

type Operated = Answer<Json<OperationAnswer>>;
type Suspended = Answer<Json<SuspensionAnswer>>;

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

async fn execute_operation(admin: &Admin, caller: &Caller, request: Result<Request, Invalid>) -> Operated {
    let done = execute::execute(admin, caller, request).await?;
    Ok(Json(OperationAnswer::of(&done)))
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
        if merchant.is_none() && done.command.effect == quota::Effect::Commit {
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
    let operations = body.operations.into_iter().map(Request::try_from);
    let outcomes = execute::batch(&admin, &caller, operations, body.atomic).await?;
    let keep = execute::keep(&outcomes);
    let results: Vec<BatchItem> = outcomes.into_iter().map(BatchItem::from).collect();
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
