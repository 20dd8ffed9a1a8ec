//! Where accounts and orders live: one atomic step per command, in Redis or in memory.

pub mod keys;
mod memory;
pub mod packed;
mod redis;

use std::future::Future;

use proto::journal::EventContext;
use quota::{Action, Command, Reply};
use thiserror::Error;

pub use memory::MemoryStore;
pub use redis::{DueHold, RedisStore, RedisStoreConfig, SCRIPT};

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
    /// Why an attempt is voided, or empty.
    pub reason: String,
}

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
    /// A value or reply that does not have its format.
    #[error("the quota store holds something else than expected: {0}")]
    Corrupt(String),
}

/// One atomic step per command.
pub trait Store: Send + Sync + 'static {
    /// Decides and applies a command, and appends its event to the journal in the same step.
    ///
    /// # Errors
    /// [`StoreError`] where no answer could be given.
    fn apply(&self, command: &Command, notes: &Notes) -> impl Future<Output = Result<Reply, StoreError>> + Send;

    /// Decides and applies commands of one shard in their order, in one step: each by itself, or all of them or none. In the
    /// second case they are of one merchant; where one is refused, it alone has its code, and the others have
    /// [`quota::Code::BatchRefused`].
    ///
    /// # Errors
    /// [`StoreError`] where no answer could be given, then for all of them.
    fn apply_batch(
        &self,
        batch: &[(Command, Notes)],
        all_or_none: bool,
    ) -> impl Future<Output = Result<Vec<Reply>, StoreError>> + Send;
}

/// The part of an event that the server knows before the store decides.
pub(crate) fn event_context(command: &Command, notes: &Notes) -> EventContext {
    let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
    let (action, amount_minor) = match &command.action {
        Action::Consume(consume) => (proto::extension::ACTION_CONSUME, consume.amount.get()),
        Action::Void => (proto::extension::ACTION_VOID, 0),
    };
    EventContext {
        event_id: command.decision_id.to_vec(),
        at_ms: command.now_ms,
        action: action.to_owned(),
        merchant: command.merchant.as_str().to_owned(),
        currency: command.currency.code().to_owned(),
        amount_minor,
        order_no: command.order_no.as_str().to_owned(),
        payment_no: text(command.payment_no.as_ref().map(quota::PaymentNo::as_str)),
        channel: text(command.channel.as_ref().map(quota::Channel::as_str)),
        attempt: command.attempt.0.to_vec(),
        actor: notes.actor.clone(),
        policy_version: notes.policy_version.clone(),
        mode: notes.mode.to_owned(),
        trace_id: notes.trace_id.clone(),
        reason: notes.reason.clone(),
    }
}
