//! Where accounts and orders live: one atomic step per command, in Redis or in memory.

mod group;
pub mod keys;
mod memory;
pub mod packed;
mod redis;

use std::future::Future;
use std::time::Duration;

use proto::journal::EventContext;
use quota::{
    Action, AmountMinor, AttemptId, Change, Channel, Command, OnExpiry, OperationId, OperationNo, OrderNo, PaymentNo,
    Reply,
};
use thiserror::Error;

pub use group::GroupCommit;
pub use memory::MemoryStore;
pub use redis::{DueHold, DueHolds, RedisStore, RedisStoreConfig, SCRIPT};

/// What the journal is told beside the command itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Who asked: `proxy` for payments.
    pub actor: String,
    /// `enforce` or `shadow`.
    pub mode: &'static str,
    /// The policy in force; empty where none is.
    pub policy_version: String,
    /// 32 hexadecimal digits, or empty.
    pub trace_id: String,
    /// Why an attempt is voided, a hold ends or an account is changed by hand; or empty.
    pub reason: String,
    /// `system`, `admin` or `api`; empty where the actor tells.
    pub operator_type: &'static str,
    /// A person's note on the operation, [`REMARKS_BYTES_MAX`] at most; or empty.
    pub remarks: String,
    /// The caller's own data on the operation: a JSON document of [`METADATA_BYTES_MAX`] at most; or empty.
    pub metadata: String,
}

/// The attempt of commands that no request asked for, as the end of a hold; the journal shows none.
pub const NO_ATTEMPT: AttemptId = AttemptId([0; 16]);
/// Longest [`Notes::remarks`], in bytes.
pub const REMARKS_BYTES_MAX: usize = 1024;
/// Longest [`Notes::metadata`], in bytes: Redis holds it until the journal has stored it.
pub const METADATA_BYTES_MAX: usize = 4096;

/// No answer could be given. A refusal is not an error: it is a [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Too slow: the command may be applied yet.
    #[error("the quota store gave no answer within {after_ms} ms")]
    Timeout { after_ms: u128 },
    /// Not reachable, or gone before its answer came: the command may have been applied.
    #[error("the quota store cannot be reached: {0}")]
    Unavailable(String),
    /// The store holds another number of shards than the settings say.
    #[error("the quota store has {stored} shards, the settings say {configured}: set SLUICE_SHARDS={stored}")]
    Shards { stored: u16, configured: u16 },
    /// The order is not in the store any more, and its past cannot be read.
    #[error("the order's past cannot be read: {0}")]
    History(String),
    /// Not decided, because the order is not in the store any more and its past has to be read first.
    #[error("the order's past has to be read first")]
    NeedsPast,
    /// A value or reply that does not have its format.
    #[error("the quota store holds something else than expected: {0}")]
    Corrupt(String),
}

/// One atomic step per command.
pub trait Store: Send + Sync + 'static {
    /// How long a call may take.
    fn timeout(&self) -> Duration;

    /// Decides and applies a command, and appends its event to the journal in the same step.
    ///
    /// # Errors
    /// [`StoreError`] where no answer could be given.
    fn apply(&self, command: &Command, notes: &Notes) -> impl Future<Output = Result<Reply, StoreError>> + Send;

    /// Decides and applies commands of any merchants in their order, each by itself: one that fails stands in no other's way.
    /// There is a result for each of them.
    fn apply_each(&self, batch: &[(Command, Notes)]) -> impl Future<Output = Vec<Result<Reply, StoreError>>> + Send;

    /// As [`Store::apply_each`], but commands whose order's past would have to be read first are not decided: they have
    /// [`StoreError::NeedsPast`].
    fn apply_known(&self, batch: &[(Command, Notes)]) -> impl Future<Output = Vec<Result<Reply, StoreError>>> + Send {
        self.apply_each(batch)
    }

    /// Decides and applies commands of one merchant in their order, all of them or none. Where one is refused, it alone has its
    /// code, and the others have [`quota::Code::BatchRefused`].
    ///
    /// # Errors
    /// [`StoreError`] where no answer could be given.
    fn apply_all(&self, batch: &[(Command, Notes)]) -> impl Future<Output = Result<Vec<Reply>, StoreError>> + Send;
}

/// The part of an event that the server knows before the store decides.
pub(crate) fn event_context(command: &Command, notes: &Notes) -> EventContext {
    let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
    let order_no = command.order_no.as_ref();
    let attempt = order_no.map(|_| command.attempt).filter(|attempt| *attempt != NO_ATTEMPT);
    let (counter, change, expected_version) = by_hand(&command.action);
    EventContext {
        event_id: command.decision_id.to_vec(),
        at_ms: command.now_ms,
        action: action_word(&command.action).to_owned(),
        merchant: command.merchant.as_str().to_owned(),
        currency: command.currency.code().to_owned(),
        amount_minor: command.action.amount().map_or(0, AmountMinor::get),
        order_no: text(order_no.map(OrderNo::as_str)),
        payment_no: text(command.payment_no.as_ref().map(PaymentNo::as_str)),
        channel: text(command.channel.as_ref().map(Channel::as_str)),
        attempt: attempt.map(|attempt| attempt.0.to_vec()).unwrap_or_default(),
        actor: notes.actor.clone(),
        policy_version: notes.policy_version.clone(),
        mode: notes.mode.to_owned(),
        trace_id: notes.trace_id.clone(),
        reason: notes.reason.clone(),
        operation_no: text(command.operation_no.as_ref().map(OperationNo::as_str)),
        operation_id: operation_id(&command.action).map(|id| id.0.to_vec()).unwrap_or_default(),
        operator_type: notes.operator_type.to_owned(),
        remarks: notes.remarks.clone(),
        metadata: notes.metadata.clone(),
        counter,
        change: change.to_owned(),
        expected_version,
        hold_on_expiry: hold_on_expiry(&command.action).to_owned(),
        order_ttl_secs: order_no.map_or(0, |_| command.order_ttl_secs),
    }
}

/// The action's word; a release that reserves its refund is told from one that refunds at once.
const fn action_word(action: &Action) -> &'static str {
    if let Action::Release(refund) = action
        && refund.reserve
    {
        return Action::Refund(*refund).as_str();
    }
    action.as_str()
}

const fn operation_id(action: &Action) -> Option<OperationId> {
    if let Action::Settle(settle) = action {
        return Some(settle.id);
    }
    if let Action::Refund(refund) | Action::Release(refund) = action {
        return Some(refund.id);
    }
    None
}

const fn hold_on_expiry(action: &Action) -> &'static str {
    let Action::Hold(_, terms) = action else { return "" };
    match terms.on_expiry {
        OnExpiry::Void => "void",
        OnExpiry::Settle => "settle",
    }
}

/// What a change by hand is about, how it changes that, and the account's version that it was decided on.
fn by_hand(action: &Action) -> (String, &'static str, Option<u64>) {
    if let Action::Adjust(adjust) = action {
        let change = match adjust.change {
            Change::Add(_) => "add",
            Change::Subtract(_) => "subtract",
            Change::Set(_) => "set",
        };
        return (adjust.counter.as_str().to_owned(), change, adjust.expected_version);
    }
    if let Action::Reset(reset) = action {
        let windows = [(reset.day, "day"), (reset.month, "month"), (reset.year, "year")];
        let names: Vec<&str> = windows.into_iter().filter_map(|(reset, name)| reset.then_some(name)).collect();
        return (names.join(","), "", reset.expected_version);
    }
    (String::new(), "", None)
}
