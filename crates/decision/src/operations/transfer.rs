//! Takes a transfer to its end, step by step. Its caller and a sweep after a crash do the same.

use quota::{ActorId, AmountMinor, Currency, MerchantId, OrderNo, Posting, PostingKind};
use sluice_kit::database::change::ChangeError;
use thiserror::Error;
use uuid::Uuid;

use super::{Actor, OnLine, Operations};
use crate::decider::Decision;
use crate::request::Request;
use sluice_lines::{Transfer, TransferRepository, TransferState};
use sluice_store::StoreError;

/// Why a transfer is not at its end. It is continued by the next sweep.
#[derive(Debug, Error)]
pub enum TransferError {
    #[error("its row cannot be read as a transfer: {0}")]
    Corrupt(String),
    /// Its limit is not known: nothing is given away.
    #[error("the server does not know the sender's credit line yet")]
    Unknown,
    /// Without a calendar its line cannot be read. The transfer waits for a policy.
    #[error("no policy applies to the sender")]
    NoPolicy,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Row(#[from] ChangeError),
}

/// A transfer at its end.
#[derive(Clone, Debug)]
pub struct Transferred {
    pub transfer: Transfer,
    /// The decision that refused a step just now.
    pub refused: Option<Box<Decision>>,
}

/// Does the steps that are left.
///
/// # Errors
/// [`TransferError`]: the transfer goes on later, with the same result for every caller who asks again.
pub async fn finish(
    transfers: &TransferRepository,
    operations: &Operations,
    transfer_no: &str,
) -> Result<Transferred, TransferError> {
    let mut refused = None;
    loop {
        let step = transfers.step(transfer_no).await?;
        let Some((actor, request)) = request(&step.transfer)? else {
            return Ok(Transferred { transfer: step.transfer, refused });
        };
        let is_return = step.transfer.state == TransferState::Returning;
        let decision = if step.transfer.state == TransferState::Requested {
            match operations.execute_on_line(&actor, request).await? {
                OnLine::Decided(decision) => *decision,
                OnLine::Unknown => return Err(TransferError::Unknown),
                // Another server may have taken it already, and its event may be on its way: it is never given up here.
                OnLine::NoPolicy => return Err(TransferError::NoPolicy),
            }
        } else {
            operations.execute(&actor, request).await?
        };
        let code = decision.is_refused().then(|| decision.reply.record.code.as_str());
        step.done(Uuid::from_bytes(decision.reply.decision_id), code).await?;
        if let Some(code) = code {
            if is_return {
                return Err(TransferError::Corrupt(format!("the sender does not take it back: {code}")));
            }
            refused = Some(Box::new(decision));
        }
    }
}

/// The posting that is next, in the name of the caller who requested the transfer; `None` at its end.
fn request(transfer: &Transfer) -> Result<Option<(Actor, Request)>, TransferError> {
    let (from, to) = (&transfer.from_merchant_id, &transfer.to_merchant_id);
    let (merchant, kind, reason) = match transfer.state {
        TransferState::Requested => (from, PostingKind::TransferOut, format!("transfer to {to}")),
        TransferState::Reserved => (to, PostingKind::TransferIn, format!("transfer from {from}")),
        TransferState::Returning => (from, PostingKind::TransferIn, format!("transfer returned by {to}")),
        TransferState::Completed | TransferState::Refused | TransferState::Returned => return Ok(None),
    };
    let corrupt = |what: &dyn std::fmt::Display| TransferError::Corrupt(what.to_string());
    let amount = u64::try_from(transfer.amount).ok().and_then(AmountMinor::new);
    let amount = amount.ok_or_else(|| corrupt(&transfer.amount))?;
    let request = Request::posting(
        MerchantId::parse(merchant).map_err(|error| corrupt(&error))?,
        Currency::parse(&transfer.currency).map_err(|error| corrupt(&error))?,
        OrderNo::parse(&transfer.transfer_no).map_err(|error| corrupt(&error))?,
        Posting { kind, amount },
    );
    let actor = Actor {
        id: ActorId::parse(&transfer.requested_by).map_err(|error| corrupt(&error))?,
        operator_type: if transfer.operator_type == "admin" { "admin" } else { "api" },
    };
    let remarks = transfer.reason.clone().unwrap_or_default();
    Ok(Some((actor, Request { reason, remarks, ..request })))
}
