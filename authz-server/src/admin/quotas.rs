//! `/quotas`: operations on quota, and accounts as they stand.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use quota::{Code, Currency, MerchantId};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgPool};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::openapi::{BodyProblems, NotFound, Problems, Refusals};
use super::page::{Cursor, Page, limit};
use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller, Json, Path, Permission, Query};
use crate::operations::{
    AccountView, Actor, AdjustRequest, Ask, BATCH_MAX, BatchRequest, ChargeRequest, CheckAnswer, CheckRequest, Done,
    Failure, InitializeRequest, Invalid, OperationAnswer, Provenance, RefundRequest, ReleaseRequest, Request,
    ResetRequest, SettleRequest, SuspendRequest, VoidRequest, refusing_limit,
};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(check))
        .routes(routes!(consume))
        .routes(routes!(hold))
        .routes(routes!(settle))
        .routes(routes!(void))
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
    let done = execute(&admin, &caller, body.try_into()).await?;
    Ok(Json(CheckAnswer::of(&done)))
}

/// Consume quota for an order, once.
#[utoipa::path(post, path = "/quotas/consume", tag = "quotas", request_body = ChargeRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn consume(State(admin): State<Admin>, caller: Caller, Json(body): Json<ChargeRequest>) -> Operated {
    operate(&admin, &caller, Request::consume(body)).await
}

/// Consume quota whose final amount is open, until it is settled, voided or expires.
#[utoipa::path(post, path = "/quotas/hold", tag = "quotas", request_body = ChargeRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn hold(State(admin): State<Admin>, caller: Caller, Json(body): Json<ChargeRequest>) -> Operated {
    operate(&admin, &caller, Request::hold(body)).await
}

/// Capture from a hold: a part, all of it, or within the policy's bound more than it.
#[utoipa::path(post, path = "/quotas/settle", tag = "quotas", request_body = SettleRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn settle(State(admin): State<Admin>, caller: Caller, Json(body): Json<SettleRequest>) -> Operated {
    operate(&admin, &caller, body.try_into()).await
}

/// End a hold; what it still holds is returned.
#[utoipa::path(post, path = "/quotas/void", tag = "quotas", request_body = VoidRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn void(State(admin): State<Admin>, caller: Caller, Json(body): Json<VoidRequest>) -> Operated {
    operate(&admin, &caller, body.try_into()).await
}

/// Give back what an order has consumed: a hold is voided, what was captured is refunded.
#[utoipa::path(post, path = "/quotas/release", tag = "quotas", request_body = ReleaseRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn release(State(admin): State<Admin>, caller: Caller, Json(body): Json<ReleaseRequest>) -> Operated {
    operate(&admin, &caller, body.try_into()).await
}

/// Return captured quota: into the windows it came from as far as they are open, and into today's figures of refunds.
#[utoipa::path(post, path = "/quotas/refund", tag = "quotas", request_body = RefundRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals, NotFound))]
async fn refund(State(admin): State<Admin>, caller: Caller, Json(body): Json<RefundRequest>) -> Operated {
    operate(&admin, &caller, body.try_into()).await
}

/// Correct one counter by hand.
#[utoipa::path(post, path = "/quotas/adjust", tag = "quotas", request_body = AdjustRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn adjust(State(admin): State<Admin>, caller: Caller, Json(body): Json<AdjustRequest>) -> Operated {
    operate(&admin, &caller, body.try_into()).await
}

/// Empty an account's windows. Orders of before are no longer returned into them.
#[utoipa::path(post, path = "/quotas/reset", tag = "quotas", request_body = ResetRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn reset(State(admin): State<Admin>, caller: Caller, Json(body): Json<ResetRequest>) -> Operated {
    operate(&admin, &caller, body.try_into()).await
}

/// Refuse an account's new charges from now on. Captures, voids and refunds go on.
#[utoipa::path(post, path = "/quotas/suspend", tag = "quotas", request_body = SuspendRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn suspend(State(admin): State<Admin>, caller: Caller, Json(body): Json<SuspendRequest>) -> Operated {
    operate(&admin, &caller, Request::suspend(body)).await
}

/// Take an account's new charges again.
#[utoipa::path(post, path = "/quotas/resume", tag = "quotas", request_body = SuspendRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn resume(State(admin): State<Admin>, caller: Caller, Json(body): Json<SuspendRequest>) -> Operated {
    operate(&admin, &caller, Request::resume(body)).await
}

/// Make an account, so that it is listed before its first payment. One that is there stays as it is.
#[utoipa::path(post, path = "/quotas/initialize", tag = "quotas", request_body = InitializeRequest,
    responses((status = OK, body = OperationAnswer), Problems, BodyProblems, Refusals))]
async fn initialize(State(admin): State<Admin>, caller: Caller, Json(body): Json<InitializeRequest>) -> Operated {
    operate(&admin, &caller, body.try_into()).await
}

type Operated = Answer<Json<OperationAnswer>>;

async fn operate(admin: &Admin, caller: &Caller, request: Result<Request, Invalid>) -> Operated {
    let done = execute(admin, caller, request).await?;
    if done.is_refused() { Err(refusal(&done)) } else { Ok(Json(OperationAnswer::of(&done))) }
}

async fn execute(admin: &Admin, caller: &Caller, request: Result<Request, Invalid>) -> Answer<Done> {
    let request = request.map_err(|invalid| invalid_field(&invalid, invalid.field))?;
    allow(caller, &request)?;
    admin.operations.execute(&actor(caller), request).await.map_err(|failure| no_decision(&failure))
}

/// The one place that says who may ask for which operation on whose quota.
fn allow(caller: &Caller, request: &Request) -> Answer<()> {
    caller.require(match request.ask {
        Ask::Check(_) => Permission::QuotasCheck,
        Ask::Consume(_)
        | Ask::Hold(_)
        | Ask::Settle { .. }
        | Ask::Void
        | Ask::Refund { .. }
        | Ask::Release { .. } => Permission::QuotasOperate,
        Ask::Adjust(_) | Ask::Reset(_) | Ask::Suspend | Ask::Resume | Ask::Initialize => Permission::QuotasManage,
    })?;
    caller.may_see(&request.merchant)
}

fn actor(caller: &Caller) -> Actor {
    Actor { id: caller.subject.clone(), operator_type: caller.operator_type() }
}

fn invalid_field(invalid: &Invalid, field: impl Into<String>) -> Problem {
    if invalid.is_amount {
        Problem::quota(Code::BadAmount).detail(invalid.problem.clone()).at(field)
    } else {
        Problem::field(field, invalid.problem.clone())
    }
}

fn refusal(done: &Done) -> Problem {
    let id = Uuid::from_bytes(done.reply.decision_id).to_string();
    let (limit, retry_after_secs) = refusing_limit(done);
    let mut problem = Problem::quota(done.reply.record.code).decision(id);
    if let Some(limit) = limit {
        problem = problem.limit(limit);
    }
    match retry_after_secs {
        Some(secs) => problem.retry_after(secs),
        None => problem,
    }
}

/// When to ask again after the store gave no answer.
const STORE_RETRY_SECS: u64 = 1;

fn no_decision(failure: &Failure) -> Problem {
    let detail = match failure {
        // The text may name addresses of ours.
        Failure::Store(_) => "the operation may or may not have been done; ask again with the same numbers".to_owned(),
        Failure::History(error) => error.to_string(),
    };
    Problem::quota(Code::StoreUnavailable).detail(detail).retry_after(STORE_RETRY_SECS)
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
    /// Of a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckAnswer>,
    /// Of an operation that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl From<Problem> for BatchItem {
    fn from(problem: Problem) -> Self {
        Self { status: problem.status().as_u16(), operation: None, check: None, problem: Some(problem) }
    }
}

impl BatchItem {
    fn of(done: &Done) -> Self {
        if done.command.dry != quota::Dry::No {
            return Self { status: 200, operation: None, check: Some(CheckAnswer::of(done)), problem: None };
        }
        if done.is_refused() {
            return refusal(done).into();
        }
        Self { status: 200, operation: Some(OperationAnswer::of(done)), check: None, problem: None }
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
/// batch answers 409.
#[utoipa::path(post, path = "/quotas/batch", tag = "quotas", request_body = BatchRequest,
    responses((status = OK, body = BatchAnswer), (status = MULTI_STATUS, body = BatchAnswer),
        (status = CONFLICT, body = BatchAnswer, description = "an atomic batch of which one operation was refused"),
        Problems, BodyProblems, Refusals))]
async fn batch(State(admin): State<Admin>, caller: Caller, Json(body): Json<BatchRequest>) -> Answer<Response> {
    if body.operations.is_empty() || body.operations.len() > BATCH_MAX {
        let detail = format!("must hold 1 to {BATCH_MAX} operations, it has {}", body.operations.len());
        return Err(Problem::field("operations", detail));
    }
    let mut requests = Vec::with_capacity(body.operations.len());
    for (place, operation) in body.operations.into_iter().enumerate() {
        let request = Request::try_from(operation)
            .map_err(|invalid| invalid_field(&invalid, format!("operations[{place}].{}", invalid.field)))?;
        allow(&caller, &request)?;
        requests.push(request);
    }
    let actor = actor(&caller);
    let results: Vec<BatchItem> = if body.atomic {
        one_merchant(&requests)?;
        let done = admin.operations.execute_all_or_none(&actor, requests).await;
        done.map_err(|failure| no_decision(&failure))?.iter().map(BatchItem::of).collect()
    } else {
        let item = |outcome: Result<Done, Arc<Failure>>| match outcome {
            Ok(done) => BatchItem::of(&done),
            Err(failure) => no_decision(&failure).into(),
        };
        admin.operations.execute_each(&actor, requests).await.into_iter().map(item).collect()
    };
    let failed = results.iter().filter(|item| item.status != 200).count();
    let status = match (failed, body.atomic) {
        (0, _) => StatusCode::OK,
        (_, true) => StatusCode::CONFLICT,
        (_, false) => StatusCode::MULTI_STATUS,
    };
    Ok((status, Json(BatchAnswer { succeeded: results.len() - failed, failed, results })).into_response())
}

fn one_merchant(requests: &[Request]) -> Answer<()> {
    let first = requests.first().map(|request| &request.merchant);
    match requests.iter().position(|request| Some(&request.merchant) != first) {
        Some(place) => Err(Problem::field(
            format!("operations[{place}].merchant_id"),
            "an atomic batch is of one merchant: leave atomic out, or send one batch for each",
        )),
        None => Ok(()),
    }
}

/// The accounts of a merchant.
#[derive(Debug, Serialize, ToSchema)]
struct MerchantAccounts {
    merchant_id: String,
    /// One for each currency.
    accounts: Vec<AccountView>,
}

/// Every account of a merchant as it stands.
#[utoipa::path(get, path = "/quotas/merchant/{merchant_id}", tag = "quotas",
    params(("merchant_id" = String, Path, max_length = 64)),
    responses((status = OK, body = MerchantAccounts), Problems, NotFound))]
async fn by_merchant(
    State(admin): State<Admin>,
    caller: Caller,
    Path(merchant_id): Path<String>,
) -> Answer<Json<MerchantAccounts>> {
    let merchant = readable(&caller, &merchant_id)?;
    let known = provenances(&admin.pool, &merchant).await;
    let accounts = admin.operations.accounts(&merchant, known).await.map_err(|failure| no_decision(&failure))?;
    if accounts.is_empty() {
        return Err(no_account());
    }
    Ok(Json(MerchantAccounts { merchant_id, accounts }))
}

/// One account as it stands.
#[utoipa::path(get, path = "/quotas/merchant/{merchant_id}/currency/{currency}", tag = "quotas",
    params(("merchant_id" = String, Path, max_length = 64), ("currency" = String, Path, example = "USD")),
    responses((status = OK, body = AccountView), Problems, NotFound))]
async fn by_currency(
    State(admin): State<Admin>,
    caller: Caller,
    Path((merchant_id, currency)): Path<(String, String)>,
) -> Answer<Json<AccountView>> {
    let merchant = readable(&caller, &merchant_id)?;
    let currency = Currency::parse(&currency).map_err(|error| Problem::field("currency", error.to_string()))?;
    let provenance = provenances(&admin.pool, &merchant).await.remove(currency.code()).unwrap_or_default();
    let account = admin.operations.account(&merchant, currency, provenance).await;
    account.map_err(|failure| no_decision(&failure))?.map(Json).ok_or_else(no_account)
}

fn readable(caller: &Caller, merchant_id: &str) -> Answer<MerchantId> {
    caller.require(Permission::QuotasRead)?;
    let merchant = parse_merchant(merchant_id)?;
    caller.may_see(&merchant)?;
    Ok(merchant)
}

fn parse_merchant(merchant_id: &str) -> Answer<MerchantId> {
    MerchantId::parse(merchant_id).map_err(|error| Problem::field("merchant_id", error.to_string()))
}

fn no_account() -> Problem {
    Problem::new(Kind::NotFound).detail("the merchant has no such account: nothing was ever consumed or initialized")
}

#[derive(FromRow)]
struct KnownAccount {
    currency: String,
    suspended_reason: Option<String>,
    suspended_by: Option<String>,
    last_order_no: Option<String>,
    last_payment_no: Option<String>,
    last_updated_by: String,
}

/// What the journal knows of a merchant's accounts, by currency. The counters do not wait for it: without Postgres it is empty.
async fn provenances(pool: &PgPool, merchant: &MerchantId) -> HashMap<String, Provenance> {
    let rows = sqlx::query_as::<_, KnownAccount>(
        "SELECT currency, suspended_reason, suspended_by, last_order_no, last_payment_no, last_updated_by
         FROM quota_account WHERE merchant_id = $1",
    )
    .bind(merchant.as_str())
    .fetch_all(pool)
    .await;
    match rows {
        Ok(rows) => rows.into_iter().map(|row| (row.currency.clone(), row.into())).collect(),
        Err(error) => {
            tracing::warn!(%merchant, %error, "an account is told without what the journal knows of it");
            HashMap::new()
        }
    }
}

impl From<KnownAccount> for Provenance {
    fn from(row: KnownAccount) -> Self {
        Self {
            suspended_reason: row.suspended_reason,
            suspended_by: row.suspended_by,
            last_order_no: row.last_order_no,
            last_payment_no: row.last_payment_no,
            last_updated_by: Some(row.last_updated_by),
        }
    }
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
    is_suspended: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// The place in the list of accounts.
#[derive(Debug, Serialize, Deserialize)]
struct AccountPlace(String, String);

impl Cursor for AccountPlace {}

/// Accounts, ordered by merchant and currency. Which ones there are is the journal's knowledge, some seconds behind; their
/// figures are those of now.
#[utoipa::path(get, path = "/quotas/list", tag = "quotas", params(ListQuery),
    responses((status = OK, body = Page<AccountView>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<AccountView>>> {
    caller.require(Permission::QuotasRead)?;
    let merchant = caller.narrow(query.merchant_id.as_deref().map(parse_merchant).transpose()?)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let AccountPlace(after_merchant, after_currency) = match &query.cursor {
        Some(cursor) => AccountPlace::decode(cursor)?,
        None => AccountPlace(String::new(), String::new()),
    };
    let rows = sqlx::query_as::<_, ListedAccount>(
        "SELECT merchant_id, currency, suspended_reason, suspended_by, last_order_no, last_payment_no, last_updated_by
         FROM quota_account
         WHERE (merchant_id, currency) > ($1, $2::char(3))
           AND ($3::text IS NULL OR merchant_id = $3)
           AND ($4::text IS NULL OR currency = $4::char(3))
           AND ($5::boolean IS NULL OR (suspended_at IS NOT NULL) = $5)
         ORDER BY merchant_id, currency LIMIT $6",
    )
    .bind(after_merchant)
    .bind(after_currency)
    .bind(merchant.as_ref().map(MerchantId::as_str))
    .bind(query.currency)
    .bind(query.is_suspended)
    .bind(page_max + 1)
    .fetch_all(&admin.pool)
    .await?;
    let page = Page::from_rows(rows, page_max, |row| AccountPlace(row.merchant_id.clone(), row.known.currency.clone()));
    let mut items = Vec::with_capacity(page.items.len());
    for row in page.items {
        let merchant = MerchantId::parse(&row.merchant_id);
        let currency = Currency::parse(&row.known.currency);
        let (Ok(merchant), Ok(currency)) = (merchant, currency) else { continue };
        let account = admin.operations.account(&merchant, currency, row.known.into()).await;
        items.extend(account.map_err(|failure| no_decision(&failure))?);
    }
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

#[derive(FromRow)]
struct ListedAccount {
    merchant_id: String,
    #[sqlx(flatten)]
    known: KnownAccount,
}

/// The accounts of one currency together. Sums that do not fit 63 bits show the largest number that does.
#[derive(Debug, Serialize, ToSchema, FromRow)]
struct CurrencyStats {
    #[schema(example = "USD")]
    currency: String,
    accounts: i64,
    suspended_accounts: i64,
    /// What open holds have not settled.
    pending_amount: i64,
}

/// The accounts of one currency whose latest business day is this one.
#[derive(Debug, Serialize, ToSchema, FromRow)]
struct DayStats {
    #[schema(example = "USD")]
    currency: String,
    /// YYYYMMDD, in each merchant's own time zone.
    #[schema(example = 20_261_121)]
    day: i32,
    accounts: i64,
    daily_used: i64,
    transactions_today: i64,
    refunded_today: i64,
}

/// All accounts together.
#[derive(Debug, Serialize, ToSchema)]
struct QuotaStats {
    currencies: Vec<CurrencyStats>,
    /// By the latest business day of each account, the newest first.
    days: Vec<DayStats>,
    /// When the figures were read; they follow the counters by the journal's delay.
    at: DateTime<Utc>,
}

/// How many latest days are told.
const STATS_DAYS_MAX: i64 = 100;

/// Sums over all accounts that the caller may see.
#[utoipa::path(get, path = "/quotas/stats", tag = "quotas", responses((status = OK, body = QuotaStats), Problems))]
async fn stats(State(admin): State<Admin>, caller: Caller) -> Answer<Json<QuotaStats>> {
    caller.require(Permission::QuotasRead)?;
    let merchant = caller.narrow(None)?;
    let merchant = merchant.as_ref().map(MerchantId::as_str);
    let currencies = sqlx::query_as(
        "SELECT currency, count(*) AS accounts, count(suspended_at) AS suspended_accounts,
                least(sum(pending_amount), 9223372036854775807)::bigint AS pending_amount
         FROM quota_account WHERE $1::text IS NULL OR merchant_id = $1
         GROUP BY currency ORDER BY currency",
    )
    .bind(merchant)
    .fetch_all(&admin.pool)
    .await?;
    let days = sqlx::query_as(
        "SELECT currency, daily_window AS day, count(*) AS accounts,
                least(sum(daily_used), 9223372036854775807)::bigint AS daily_used,
                least(sum(daily_count), 9223372036854775807)::bigint AS transactions_today,
                least(sum(daily_refunded), 9223372036854775807)::bigint AS refunded_today
         FROM quota_account WHERE ($1::text IS NULL OR merchant_id = $1) AND daily_window > 0
         GROUP BY daily_window, currency ORDER BY daily_window DESC, currency LIMIT $2",
    )
    .bind(merchant)
    .bind(STATS_DAYS_MAX)
    .fetch_all(&admin.pool)
    .await?;
    let at = DateTime::from_timestamp_millis(crate::clock::now_ms()).unwrap_or_default();
    Ok(Json(QuotaStats { currencies, days, at }))
}
