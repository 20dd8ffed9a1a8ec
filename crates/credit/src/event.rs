//! What changes the books of a credit line, and the postings that follow from it.

use jiff::civil::Date;
use quota::OperationNo;
use thiserror::Error;

use crate::{CycleId, Statement};

/// One event of a line, in the order of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The business date. One that is earlier than that of the event before it counts as the same day, as in windows.
    pub on: Date,
    pub change: Change,
}

/// What an event changes. Amounts are minor units, and positive where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A charge, hold, capture, void or refund within the open cycle, by what it adds to each. Either may be negative.
    Usage { held: i64, unbilled: i64 },
    /// A cycle closed, and what was unbilled is billed. The amount may be 0.
    CycleClosed(Statement),
    /// A repayment arrived.
    Repaid { repayment_no: OperationNo, amount: i64, received_on: Date },
    /// A repayment was returned, as a debit that bounces: what it paid is open again.
    RepaymentReversed { repayment_no: OperationNo },
    /// A void or refund of a charge whose cycle has closed.
    Credited { cycle: CycleId, amount: i64 },
    /// The lender gives up an amount. What exceeds what is open takes later statements.
    WrittenOff { amount: i64 },
    /// Money arrived for what is written off. The exposure does not fall again.
    Recovered { recovery_no: OperationNo, amount: i64, received_on: Date },
    /// Another account transferred an amount to this one.
    TransferIn { transfer_no: OperationNo, amount: i64 },
    /// A statement was open when the line was taken over from another system: what was open of it is billed here.
    BroughtForward(Statement),
    /// This account transferred an amount to another one. It is billed with the cycle.
    TransferOut { transfer_no: OperationNo, amount: i64 },
}

/// An account of the books. The first four make up the exposure; a positive balance is owed by the merchant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BookAccount {
    /// Holds whose final amount is not known.
    Held,
    /// Charges of the open cycle.
    Unbilled,
    /// The statement of one cycle.
    Obligation(CycleId),
    /// Money and write-offs that no obligation has taken yet. Its balance is negative or 0.
    Unapplied,
    /// The other side of charges, voids and refunds.
    Payments,
    /// The other side of repayments and recoveries.
    Cash,
    /// The other side of transfers.
    Transfers,
    /// The other side of what is written off, less what is recovered.
    WriteOffs,
    /// The other side of what was taken over from another system.
    BroughtForward,
}

/// A change of one account. The postings of an event sum to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    pub account: BookAccount,
    pub amount: i64,
}

/// Why an event is not applied. The books stay as they were.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BooksError {
    #[error("the amount {0} is not 0 to 9007199254740991 minor units")]
    Amount(i64),
    #[error("the books cannot hold amounts of this size")]
    TooLarge,
    #[error("repayment `{0}` was recorded with another amount or another day of receipt")]
    RepaymentConflict(OperationNo),
    #[error("there is no repayment `{0}`")]
    RepaymentUnknown(OperationNo),
    #[error("recovery `{0}` was recorded with another amount or another day of receipt")]
    RecoveryConflict(OperationNo),
    #[error("the recovery of {amount} exceeds the {written_off} minor units that are written off and not recovered")]
    RecoveryTooLarge { amount: i64, written_off: i64 },
    #[error("transfer `{0}` was recorded with another amount")]
    TransferConflict(OperationNo),
    #[error("cycle {} was closed with other figures", .0.0)]
    CycleConflict(CycleId),
}
