//! What REST and gRPC share: who may request which operation, operations in a caller's name, and refusals as problems. The
//! transports read bodies and write answers.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use quota::{Code, Currency, MerchantId};
use serde::Serialize;
use sqlx::PgPool;
use tokio::time::timeout;
use tracing::warn;
use utoipa::ToSchema;
use uuid::Uuid;

use super::idempotency;
use super::problem::{Answer, Keep, Kind, Problem};
use super::{Admin, Caller, Permission, rate};
use crate::store::accounts as store;
use sluice_decision::decider::Decision;
use sluice_decision::operations::resolve::{self, ResolveError, Resolved};
use sluice_decision::operations::{
    AccountView, Actor, BATCH_MAX, Invalid, OperationRequest, Provenance, Request, moment, refusing_limit,
};
use sluice_journal::outcomes::read::Verdict;
use sluice_kit::telemetry;
use sluice_store::StoreError;
use sluice_store::refusal;

/// `Retry-After` if the store gave no answer.
const STORE_RETRY_SECS: u64 = 1;
/// Timeout of the answer to an operation or a batch: shorter than that of a request, so that the problem fits the operation. The
/// operation continues.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Ends an unknown outcome in the caller's name.
pub(super) async fn resolve(
    admin: &Admin,
    caller: &Caller,
    outcome_id: Uuid,
    verdict: Verdict,
    reason: String,
) -> Answer<Resolved> {
    caller.require(Permission::QuotasManage)?;
    if caller.merchant.is_some() {
        // A merchant may not declare that its own payments were not made.
        return Err(Problem::new(Kind::Forbidden));
    }
    let (pool, operations, actor) = (admin.pool.clone(), admin.operations.clone(), actor(caller));
    let work = async move { resolve::resolve(&pool, &operations, &actor, outcome_id, verdict, &reason).await };
    to_the_end(Repeat::Safe, OPERATION_TIMEOUT, work).await?.map_err(|error| match error {
        ResolveError::NotFound => Problem::new(Kind::NotFound),
        ResolveError::Contradicts(_) => Problem::new(Kind::Conflict).detail(error.to_string()),
        ResolveError::Refused(done) => refused(&done),
        ResolveError::Corrupt(_) => Problem::internal("an unknown outcome", &error),
        ResolveError::Store(error) => no_decision(&error),
        ResolveError::Database(error) => error.into(),
    })
}

/// A valid operation, with what its row in the table says of it.
#[derive(Debug)]
pub(crate) struct Requested {
    request: Request,
    permission: Permission,
    repeat: Repeat,
}

impl Requested {
    /// A request that is no row of the table of operations. Its numbers identify it, however often it comes.
    pub(crate) const fn numbered(request: Request, permission: Permission) -> Self {
        Self { request, permission, repeat: Repeat::Safe }
    }
}

impl TryFrom<OperationRequest> for Requested {
    type Error = Invalid;

    fn try_from(operation: OperationRequest) -> Result<Self, Invalid> {
        let permission = permission(&operation);
        let repeat = if operation.is_idempotent() { Repeat::Safe } else { Repeat::Unsafe };
        Ok(Self { request: operation.try_into()?, permission, repeat })
    }
}

/// Declares the permissions from the table of operations.
macro_rules! permission {
    ([$({
        $name:ident, $variant:ident($body:ident), $permission:ident, $repetition:ident, $summary:literal,
        rest$rest:tt, grpc$grpc:tt
    })+]) => {
        const fn permission(operation: &OperationRequest) -> Permission {
            match operation { $(OperationRequest::$variant(_) => Permission::$permission,)+ }
        }
    };
}

sluice_decision::for_each_operation!(permission!());

/// Executes one operation in the caller's name; a refused dry run is an answer as well.
pub(crate) async fn execute(admin: &Admin, caller: &Caller, requested: Result<Requested, Invalid>) -> Answer<Decision> {
    let requested = requested.map_err(|invalid| invalid_field(&invalid, invalid.field))?;
    allow(caller, &requested)?;
    let Requested { request, repeat, .. } = requested;
    let (operations, actor) = (admin.operations.clone(), actor(caller));
    let done = to_the_end(repeat, OPERATION_TIMEOUT, async move { operations.execute(&actor, request).await }).await?;
    outcome(done.map_err(|error| repeat.no_decision(&error))?)
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct BatchOutcome {
    /// The result of each operation, in its order.
    pub results: Vec<Answer<Decision>>,
    /// Whether the answer is kept for its idempotency key; `None` where its status decides that.
    pub keep: Option<Keep>,
}

/// Executes the operations of a batch, each by itself or all or none.
pub(crate) async fn batch(
    admin: &Admin,
    caller: &Caller,
    operations: impl ExactSizeIterator<Item = Result<Requested, Invalid>>,
    atomic: bool,
) -> Answer<BatchOutcome> {
    let (requests, repeats) = batch_of(admin, caller, operations)?;
    let whole = if repeats.contains(&Repeat::Unsafe) { Repeat::Unsafe } else { Repeat::Safe };
    let (operations, actor) = (admin.operations.clone(), actor(caller));
    let results: Vec<Answer<Decision>> = if atomic {
        one_merchant(&requests)?;
        let work = async move { operations.execute_all_or_none(&actor, requests).await };
        let done = to_the_end(whole, OPERATION_TIMEOUT, work).await?;
        done.map_err(|error| whole.no_decision(&error))?.into_iter().map(outcome).collect()
    } else {
        let work = async move { operations.execute_each(&actor, requests).await };
        let done = to_the_end(whole, OPERATION_TIMEOUT, work).await?.into_iter().zip(&repeats);
        done.map(|(done, repeat)| done.map_err(|error| repeat.no_decision(&error)).and_then(outcome)).collect()
    };
    Ok(BatchOutcome { keep: keep(&results, &repeats), results })
}

/// Whether a batch's answer is kept for its idempotency key, if its status does not decide that: not with items that may be
/// retried, but always if something was done, or may have been, that a retry would do twice.
fn keep(results: &[Answer<Decision>], repeats: &[Repeat]) -> Option<Keep> {
    let once = |(result, repeat): (&Answer<Decision>, &Repeat)| match result {
        Ok(_) => *repeat == Repeat::Unsafe,
        Err(problem) => problem.is_outcome_unknown(),
    };
    let again =
        |result: &Answer<Decision>| result.as_ref().is_err_and(|problem| idempotency::may_be_retried(problem.status()));
    if results.iter().zip(repeats).any(once) {
        Some(Keep::Always)
    } else if results.iter().any(again) {
        Some(Keep::Never)
    } else {
        None
    }
}

/// Whether an operation may be requested again when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Its numbers identify it as one operation, however often it comes.
    Safe,
    /// A correction that names no version counts as often as it is done.
    Unsafe,
}

impl Repeat {
    fn no_decision(self, error: &StoreError) -> Problem {
        match self {
            Self::Safe => no_decision(error),
            Self::Unsafe if error.is_undone() => no_decision(error),
            Self::Unsafe => Problem::quota(Code::StoreUnavailable).outcome_unknown(),
        }
    }

    /// Adds to a failure without an answer of the store what is known of the operation.
    fn failed(self, problem: Problem) -> Problem {
        match self {
            Self::Safe => problem,
            Self::Unsafe => problem.outcome_unknown(),
        }
    }
}

/// A caller that leaves must not end its operation half way: the store's answer is awaited, logged and counted.
async fn to_the_end<T: Send + 'static>(
    repeat: Repeat,
    within: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Answer<T> {
    match timeout(within, tokio::spawn(telemetry::carried(work))).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(repeat.failed(Problem::internal("an operation's task", &error))),
        Err(_) => Err(repeat.failed(Problem::new(Kind::NoAnswer))),
    }
}

/// The same for work that is identified by its numbers.
pub(super) async fn repeatable<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Answer<T> {
    to_the_end(Repeat::Safe, OPERATION_TIMEOUT, work).await
}

/// The state of one account.
pub(crate) async fn account(admin: &Admin, caller: &Caller, merchant_id: &str, currency: &str) -> Answer<AccountView> {
    let merchant = readable(caller, merchant_id)?;
    let currency = parse_currency(currency)?;
    let provenance = provenances(&admin.pool, &merchant).await.remove(currency.code()).unwrap_or_default();
    let account = admin.operations.account(&merchant, currency, provenance).await;
    account.map_err(|error| no_decision(&error))?.ok_or_else(no_account)
}

/// The state of every account of a merchant, and whether the merchant is suspended as a whole; no accounts if nothing was ever
/// done with them.
pub(crate) async fn accounts(admin: &Admin, caller: &Caller, merchant_id: &str) -> Answer<MerchantAccounts> {
    let merchant = readable(caller, merchant_id)?;
    let known = provenances(&admin.pool, &merchant).await;
    let found = admin.operations.accounts(&merchant, known).await;
    let (accounts, state) = found.map_err(|error| no_decision(&error))?;
    let suspended_at = moment(state.suspended_at_ms);
    let (suspended_reason, suspended_by) = match suspended_at {
        Some(_) => suspension(&admin.pool, &merchant).await.unwrap_or_default(),
        None => (None, None),
    };
    let is_suspended = suspended_at.is_some();
    let merchant_id = merchant.to_string();
    Ok(MerchantAccounts { merchant_id, is_suspended, suspended_at, suspended_reason, suspended_by, accounts })
}

/// The accounts of a merchant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MerchantAccounts {
    pub merchant_id: String,
    /// Whether the merchant is suspended as a whole, in every currency; each account may be by itself besides.
    pub is_suspended: bool,
    pub suspended_at: Option<DateTime<Utc>>,
    /// Some seconds behind, as what the journal knows of an account.
    pub suspended_reason: Option<String>,
    pub suspended_by: Option<String>,
    /// One for each currency.
    pub accounts: Vec<AccountView>,
}

/// Why a merchant is suspended as a whole, and by whom, as far as the journal knows.
async fn suspension(pool: &PgPool, merchant: &MerchantId) -> Option<(Option<String>, Option<String>)> {
    store::suspension(pool, merchant).await.unwrap_or_else(|error| {
        warn!(%merchant, %error, "suspension reason of a merchant cannot be read");
        None
    })
}

fn allow(caller: &Caller, requested: &Requested) -> Answer<()> {
    caller.require(requested.permission)?;
    caller.may_see(&requested.request.merchant)
}

pub(super) fn actor(caller: &Caller) -> Actor {
    Actor { id: caller.subject.clone(), operator_type: caller.operator_type() }
}

/// A refusal is a problem, except that of a dry run, which is its answer.
fn outcome(done: Decision) -> Answer<Decision> {
    if done.is_refused() && done.command().effect == quota::Effect::Commit { Err(refused(&done)) } else { Ok(done) }
}

fn batch_of(
    admin: &Admin,
    caller: &Caller,
    operations: impl ExactSizeIterator<Item = Result<Requested, Invalid>>,
) -> Answer<(Vec<Request>, Vec<Repeat>)> {
    let count = operations.len();
    if count == 0 || count > BATCH_MAX {
        let detail = format!("must hold 1 to {BATCH_MAX} operations, it has {count}");
        return Err(Problem::field("operations", detail));
    }
    rate::take_batch(admin, caller, count)?;
    let parsed = |(place, requested): (usize, Result<Requested, Invalid>)| {
        let requested =
            requested.map_err(|invalid| invalid_field(&invalid, format!("operations[{place}].{}", invalid.field)))?;
        allow(caller, &requested)?;
        Ok((requested.request, requested.repeat))
    };
    operations.enumerate().map(parsed).collect()
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

fn invalid_field(invalid: &Invalid, field: impl Into<String>) -> Problem {
    if invalid.is_amount {
        Problem::quota(Code::BadAmount).detail(invalid.problem.clone()).at(field)
    } else {
        Problem::field(field, invalid.problem.clone())
    }
}

pub(super) fn refused(done: &Decision) -> Problem {
    let id = Uuid::from_bytes(done.reply.decision_id).to_string();
    let (limit, retry_after_secs) = refusing_limit(done);
    let mut problem = Problem::quota(done.reply.record.code).decision(id);
    if let Some(limit) = limit {
        problem = problem.limit(limit);
    }
    if let Some(details) = &done.refusal {
        problem = problem.refusal(details.clone());
        if let Some(sentence) = refusal::sentence(details, done.command().currency.code()) {
            problem = problem.detail(sentence);
        }
    }
    match retry_after_secs {
        Some(secs) => problem.retry_after(secs),
        None => problem,
    }
}

/// The outcome of the operation, or the state of the order, is unknown. Most errors name internal addresses, for the log alone.
pub(super) fn no_decision(error: &StoreError) -> Problem {
    let detail = match error {
        StoreError::History(why) | StoreError::Clock(why) => why.as_str(),
        StoreError::NotBegun => "the day that the operation is of has not begun by the store's clock; send it again",
        StoreError::Timeout { .. }
        | StoreError::Unavailable(_)
        | StoreError::Shards { .. }
        | StoreError::NeedsHistory
        | StoreError::Corrupt(_) => "the operation may or may not have been done; send it again with the same numbers",
    };
    Problem::quota(Code::StoreUnavailable).detail(detail).retry_after(STORE_RETRY_SECS)
}

fn readable(caller: &Caller, merchant_id: &str) -> Answer<MerchantId> {
    caller.require(Permission::QuotasRead)?;
    let merchant = parse_merchant(merchant_id)?;
    caller.may_see(&merchant)?;
    Ok(merchant)
}

pub(super) fn parse_currency(code: &str) -> Answer<Currency> {
    Currency::parse(code).map_err(|error| Problem::field("currency", error.to_string()))
}

pub(super) fn parse_merchant(merchant_id: &str) -> Answer<MerchantId> {
    MerchantId::parse(merchant_id).map_err(|error| Problem::field("merchant_id", error.to_string()))
}

pub(super) fn no_account() -> Problem {
    Problem::new(Kind::NotFound).detail("the merchant has no such account: nothing was ever consumed or initialized")
}

/// The journal's data of a merchant's accounts, by currency. The counters do not wait for it: without Postgres it is empty.
async fn provenances(pool: &PgPool, merchant: &MerchantId) -> HashMap<String, Provenance> {
    match store::of_merchant(pool, merchant).await {
        Ok(rows) => rows.into_iter().map(|row| (row.currency.clone(), row.into())).collect(),
        Err(error) => {
            warn!(%merchant, %error, "account returned without its journal data");
            HashMap::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn an_operation_goes_on_without_its_caller() {
        let (go_on, released) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let caller = to_the_end(Repeat::Safe, OPERATION_TIMEOUT, async move {
            released.await.unwrap();
            done.send(()).unwrap();
        });
        // The caller polls once, and leaves.
        assert!(timeout(Duration::ZERO, caller).await.is_err());
        go_on.send(()).unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn an_operation_that_takes_too_long_is_told_as_what_it_is() {
        for (repeat, unknown) in [(Repeat::Safe, false), (Repeat::Unsafe, true)] {
            let problem = to_the_end(repeat, Duration::ZERO, std::future::pending::<()>()).await.unwrap_err();
            assert_eq!((problem.code(), problem.is_outcome_unknown()), ("NO_ANSWER", unknown));
            assert_eq!(problem.into_response().extensions().get(), unknown.then_some(&Keep::Always));
        }
    }
}
