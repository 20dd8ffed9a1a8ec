//! Resolves an unknown outcome manually: what was made is booked, what was not made is given back, each by the operation that
//! the gateway's own report would have caused, and its row is closed.

use quota::{AmountMinor, AttemptId, Code, Currency, MerchantId, OperationId, OperationKind, OperationNo, OrderNo};
use sluice_kit::database::PgPool;
use thiserror::Error;
use uuid::Uuid;

use super::request::api_attempt;
use super::{Actor, Operations};
use crate::decider::Decision;
use crate::request::{Operation, Request, capture_id};
use sluice_journal::outcomes::read::{self, UnknownOutcome, Verdict};
use sluice_store::StoreError;

/// What was resolved.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Its current state.
    pub outcome: UnknownOutcome,
    /// The operation for it; `None` where none was needed.
    pub done: Option<Decision>,
}

/// Why an outcome is not resolved.
#[derive(Debug, Error)]
pub enum ResolveError {
    #[error("there is no such outcome")]
    NotFound,
    #[error("it was resolved as {0} already")]
    Contradicts(String),
    #[error("the operation was refused: {}", .0.reply.record.code.as_str())]
    Refused(Box<Decision>),
    #[error("its row cannot be read as an operation: {0}")]
    Corrupt(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database gave no answer: {0}")]
    Database(#[from] sluice_kit::database::Error),
}

/// Resolves an outcome. A repeated request gets the same answer and changes nothing.
///
/// # Errors
/// [`ResolveError`] says what to do; after [`ResolveError::Store`] the operation may have been done, and may be requested
/// again.
pub async fn resolve(
    pool: &PgPool,
    operations: &Operations,
    actor: &Actor,
    outcome_id: Uuid,
    verdict: Verdict,
    reason: &str,
) -> Result<Resolved, ResolveError> {
    let outcome = read::get(pool, None, outcome_id).await?.ok_or(ResolveError::NotFound)?;
    match outcome.resolution.as_deref() {
        Some(resolution) if resolution == verdict.as_str() => return Ok(Resolved { outcome, done: None }),
        Some(resolution) => return Err(ResolveError::Contradicts(resolution.to_owned())),
        None => {}
    }
    let done = match request(operations, &outcome, verdict, reason).await? {
        Some(request) => Some(accepted(verdict, operations.execute(actor, request).await?)?),
        None => None,
    };
    read::close(pool, outcome_id, verdict, actor.id.as_str(), reason).await?;
    let outcome = read::get(pool, None, outcome_id).await?.ok_or(ResolveError::NotFound)?;
    Ok(Resolved { outcome, done })
}

/// A charge that is not known any more stays as it is: that it was made changes nothing then.
fn accepted(verdict: Verdict, done: Decision) -> Result<Decision, ResolveError> {
    let is_evicted = verdict == Verdict::Made
        && matches!(done.command().action, quota::Action::Resolve(_))
        && done.reply.record.code == Code::OrderUnknown;
    if done.is_refused() && !is_evicted { Err(ResolveError::Refused(Box::new(done))) } else { Ok(done) }
}

/// The operation that a verdict requires; `None` where the quota is right already.
async fn request(
    operations: &Operations,
    outcome: &UnknownOutcome,
    verdict: Verdict,
    reason: &str,
) -> Result<Option<Request>, ResolveError> {
    let id = || outcome.operation_id.map(|id| OperationId(id.into_bytes())).ok_or_else(|| corrupt(&"no operation_id"));
    let amount =
        u64::try_from(outcome.amount).ok().and_then(AmountMinor::new).filter(|amount| *amount > AmountMinor::ZERO);
    let mut attempt = api_attempt();
    let operation = match (outcome.operation.as_str(), verdict) {
        ("consume" | "hold", verdict) => Operation::Resolve(verdict.resolution()),
        // One without a number is the order's only capture, and so its last one.
        ("settle", Verdict::Made) => {
            Operation::Settle { amount, id: id()?, last: id()? == capture_id(None), reported: true }
        }
        ("refund", Verdict::Made) => Operation::Refund { amount, id: id()?, reserve: false },
        ("refund", Verdict::NotMade) => {
            attempt = reserving(operations, outcome, id()?).await?.unwrap_or(attempt);
            Operation::VoidAttempt
        }
        ("void", Verdict::Made) => Operation::Void,
        // Nothing was booked for it.
        ("settle" | "void", Verdict::NotMade) => return Ok(None),
        (other, _) => return Err(corrupt(&format!("the operation {other}"))),
    };
    let operation_no = outcome.operation_no.as_deref().map(OperationNo::parse).transpose();
    let merchant = MerchantId::parse(&outcome.merchant_id).map_err(|error| corrupt(&error))?;
    let currency = Currency::parse(&outcome.currency).map_err(|error| corrupt(&error))?;
    Ok(Some(Request {
        order_no: Some(OrderNo::parse(&outcome.order_no).map_err(|error| corrupt(&error))?),
        operation_no: operation_no.map_err(|error| corrupt(&error))?,
        reason: reason.to_owned(),
        ..Request::new(merchant, currency, attempt, operation)
    }))
}

/// The attempt that the refund is reserved for: a later try may have taken it over.
async fn reserving(
    operations: &Operations,
    outcome: &UnknownOutcome,
    id: OperationId,
) -> Result<Option<AttemptId>, ResolveError> {
    let merchant = MerchantId::parse(&outcome.merchant_id).map_err(|error| corrupt(&error))?;
    let order_no = OrderNo::parse(&outcome.order_no).map_err(|error| corrupt(&error))?;
    let order = operations.store().redis().order(&merchant, &order_no).await?;
    let reserved = order.and_then(|order| {
        let mut reserved = order.operations.into_iter();
        reserved.find(|operation| operation.kind == OperationKind::Reservation && operation.id == id)
    });
    let known = reserved.map(|operation| operation.attempt);
    Ok(known.or_else(|| outcome.attempt.map(|attempt| AttemptId(attempt.into_bytes()))))
}

fn corrupt(what: &dyn std::fmt::Display) -> ResolveError {
    ResolveError::Corrupt(what.to_string())
}
