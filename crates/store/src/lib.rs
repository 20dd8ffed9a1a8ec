//! Where accounts and orders live: one atomic step per command, in Redis or in memory.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// An arm for all others would take a new variant in silently.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod refusal;

mod clock;
mod context;
mod group;
pub mod keys;
mod memory;
mod metrics;
mod outcome;
pub mod packed;
mod redis;
mod script;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proto::RefusalDetails;
use quota::{AttemptId, Command, Reply, Thresholds};
use thiserror::Error;

use sluice_kit::health::Away;
use sluice_kit::telemetry::Trace;

pub use clock::{Skew, StoreClock, StoreTime};
pub use group::GroupCommit;
pub use memory::MemoryStore;
pub use metrics::{RedisMetrics, Use};
pub use outcome::{operation_word, resolution_word};
pub use redis::is_wrong_server;
pub use redis::{
    DueHold, DueHolds, Failovers, OutstandingRight, OutstandingRights, RedisLink, RedisStore, RedisStoreConfig,
    Verified,
};
pub use script::SCRIPT;

/// What the journal records besides the command itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditContext {
    /// The caller: `proxy` for payments.
    pub actor: Cow<'static, str>,
    /// `enforce` or `shadow`.
    pub mode: &'static str,
    /// The policy in force; empty where none is.
    pub policy_version: Arc<str>,
    /// The decision's span in its trace; the journal keeps the trace's id.
    pub trace: Option<Trace>,
    /// Why an attempt is voided, a hold ends or an account is changed manually; or empty.
    pub reason: String,
    /// `system`, `admin` or `api`; empty where the actor implies it.
    pub operator_type: &'static str,
    /// A person's note on the operation, [`REMARKS_BYTES_MAX`] at most; or empty.
    pub remarks: String,
    /// The caller's own data on the operation: a JSON document of [`METADATA_BYTES_MAX`] at most; or empty.
    pub metadata: String,
    /// The policy's details for a charge that it refuses regardless of usage.
    pub refusal: Option<Box<RefusalDetails>>,
    /// The account's credit line, where the server knows it.
    pub credit: Option<CreditContext>,
    /// The day on which money was received, `YYYYMMDD`, where it is not the business day.
    pub value_day: Option<u32>,
}

/// A credit line on the day of a command, by the server's knowledge. Amounts in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditContext {
    /// The limit in force.
    pub limit: u64,
    /// The stage's name.
    pub stage: Cow<'static, str>,
    pub days_past_due: u32,
    /// The due date of the oldest statement that is past due, `YYYYMMDD`.
    pub oldest_due_day: Option<u32>,
    /// The least repayment after which nothing material is past due.
    pub amount_to_cure: u64,
    /// When the line was last read, milliseconds since the epoch, where Postgres could not be read since.
    pub read_at_ms: Option<i64>,
    /// Percentages of the limit at which usage is reported.
    pub thresholds: Thresholds,
}

impl CreditContext {
    /// The stage that events leave out.
    pub const CURRENT: &'static str = "current";
}

/// A command and what the journal records beside it. It is large and passes through several hands, which share it.
pub type Call = Arc<(Command, AuditContext)>;

/// The attempt of commands without a request, such as the end of a hold; the journal shows none.
pub const NO_ATTEMPT: AttemptId = AttemptId([0; 16]);
/// Longest [`AuditContext::remarks`], in bytes.
pub const REMARKS_BYTES_MAX: usize = 1024;
/// Longest [`AuditContext::metadata`], in bytes: Redis holds it until the journal has stored it.
pub const METADATA_BYTES_MAX: usize = 4096;

/// No answer could be given. A refusal is not an error: it is a [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Too slow: the command may still be applied.
    #[error("the quota store gave no answer within {after_ms} ms")]
    Timeout { after_ms: u128 },
    /// Not reachable, or lost before its answer: the command may have been applied.
    #[error("the quota store cannot be reached: {0}")]
    Unavailable(String),
    /// The store has another number of shards than the settings.
    #[error("the quota store has {stored} shards, the settings have {configured}: set SLUICE_SHARDS={stored}")]
    Shards { stored: u16, configured: u16 },
    /// Not decided: this server's clock is too far from the store's.
    #[error("{0}")]
    Clock(String),
    /// Not decided: the command's windows have not begun by the store's clock.
    #[error("the quota store's clock shows an earlier day than the command: nothing was done, try again")]
    NotBegun,
    /// The order is not in the store any more, and its history cannot be read.
    #[error("the order's history cannot be read: {0}")]
    History(String),
    /// Not decided: the order is not in the store any more, and its history has to be read first.
    #[error("the order's history has to be read first")]
    NeedsHistory,
    /// A value or reply of another format.
    #[error("the quota store contains an unexpected value: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether it is certain that the command was not applied.
    #[must_use]
    pub const fn is_undone(&self) -> bool {
        match self {
            Self::Clock(_) | Self::NotBegun | Self::Shards { .. } | Self::NeedsHistory | Self::History(_) => true,
            Self::Timeout { .. } | Self::Unavailable(_) | Self::Corrupt(_) => false,
        }
    }
}

impl Away for StoreError {
    fn is_away(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unavailable(_) => true,
            Self::Clock(_)
            | Self::NotBegun
            | Self::Shards { .. }
            | Self::History(_)
            | Self::NeedsHistory
            | Self::Corrupt(_) => false,
        }
    }
}

/// One atomic step per command.
pub trait Store: Send + Sync + 'static {
    /// The store's time as far as it is known, milliseconds since the epoch; commands carry it.
    fn now_ms(&self) -> i64 {
        sluice_kit::clock::now_ms()
    }

    /// How long a call may take.
    fn timeout(&self) -> Duration;

    /// Decides and applies a command, and appends its event to the journal in the same step.
    ///
    /// # Errors
    /// [`StoreError`] where no answer could be given.
    fn apply(&self, command: &Command, audit: &AuditContext) -> impl Future<Output = Result<Reply, StoreError>> + Send {
        let call = Arc::new((command.clone(), audit.clone()));
        async move { self.apply_one(&call).await }
    }

    /// [`Store::apply`] for a command that is shared already.
    ///
    /// # Errors
    /// [`StoreError`] where no answer could be given.
    fn apply_one(&self, call: &Call) -> impl Future<Output = Result<Reply, StoreError>> + Send {
        async move {
            let result = self.apply_each(std::slice::from_ref(call)).await.pop();
            result.unwrap_or_else(|| Err(StoreError::Corrupt("no reply".to_owned())))
        }
    }

    /// Decides and applies commands of any merchants in their order, each independently: a failure affects no other command.
    /// Returns one result per command.
    fn apply_each(&self, batch: &[Call]) -> impl Future<Output = Vec<Result<Reply, StoreError>>> + Send;

    /// As [`Store::apply_each`], but does not decide commands whose order's history would have to be read first: they get
    /// [`StoreError::NeedsHistory`].
    fn apply_known(&self, batch: &[Call]) -> impl Future<Output = Vec<Result<Reply, StoreError>>> + Send {
        self.apply_each(batch)
    }

    /// Decides and applies commands of one merchant in their order, all or none. Where one is refused, it has its own code, and
    /// the others have [`quota::Code::BatchRefused`].
    ///
    /// # Errors
    /// [`StoreError`] where no answer could be given.
    fn apply_all(&self, batch: &[Call]) -> impl Future<Output = Result<Vec<Reply>, StoreError>> + Send;
}
