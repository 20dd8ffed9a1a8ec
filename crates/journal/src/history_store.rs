//! The store with the journal behind it: captures, voids and refunds of orders that Redis has evicted are decided on their
//! history in the journal.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quota::{Action, Command, Mark, Order, Reply, Resolution, Subject};
use sqlx::PgPool;
use uuid::Uuid;

use super::history::{self, HistoryError};
use sluice_kit::health::warn_unless_away;
use sluice_kit::telemetry::trace_id;
use sluice_store::{AuditContext, Call, GroupCommit, RedisStore, Store, StoreError};

/// A [`Store`] that looks up evicted orders. Its pool belongs to the runtime that calls.
#[derive(Debug)]
pub struct HistoryStore {
    redis: Arc<RedisStore>,
    /// The same store; callers share its calls.
    shared: GroupCommit<RedisStore>,
    pool: PgPool,
}

impl HistoryStore {
    /// Puts the journal's database behind a store.
    #[must_use]
    pub fn new(redis: Arc<RedisStore>, pool: PgPool) -> Self {
        Self { shared: GroupCommit::new(Arc::clone(&redis)), redis, pool }
    }

    /// The store itself.
    #[must_use]
    pub const fn redis(&self) -> &Arc<RedisStore> {
        &self.redis
    }

    /// The command with the order's history, where Redis has evicted the order. The order may appear in Redis before the
    /// decision: then Redis' value is used.
    async fn with_history(&self, call: &Call) -> Result<Call, StoreError> {
        let (command, audit) = &**call;
        Ok(match self.history_of(command, audit).await? {
            Some(order) => Arc::new((Command { history: Some(Box::new(order)), ..command.clone() }, audit.clone())),
            None => Arc::clone(call),
        })
    }

    async fn history_of(&self, command: &Command, audit: &AuditContext) -> Result<Option<Order>, StoreError> {
        let Command { merchant, order_no: Some(order_no), .. } = command else { return Ok(None) };
        let found = match command.action.posting() {
            // Redis forgets a posting as it does an order; its entry is never removed.
            Some(kind) => {
                let ttl_secs = command.order_ttl_secs;
                history::posting(&self.pool, &self.redis, merchant, (kind, order_no), ttl_secs).await
            }
            None if self.is_evicted(command).await? => {
                history::find(&self.pool, &self.redis, merchant, order_no, command.order_ttl_secs).await
            }
            None => return Ok(None),
        };
        found.map_err(|error| {
            let decision_id = Uuid::from_bytes(command.decision_id);
            let trace_id = trace_id(audit.trace);
            warn_unless_away!(error, %decision_id, %merchant, %order_no, trace_id, "order history cannot be read");
            refused(error)
        })
    }

    /// Whether the decision needs an order that Redis does not have.
    async fn is_evicted(&self, command: &Command) -> Result<bool, StoreError> {
        let Command { merchant, order_no: Some(order_no), .. } = command else { return Ok(false) };
        if !may_need_history(command) {
            return Ok(false);
        }
        let order = self.redis.order(merchant, order_no).await?;
        Ok(order.is_none_or(|order| order.is_forgotten(command.now_ms / 1000)))
    }

    /// Sends the commands that are known; the errors keep their place.
    async fn apply_those(&self, known: Vec<Result<Call, StoreError>>) -> Vec<Result<Reply, StoreError>> {
        let batch: Vec<Call> = known.iter().flatten().cloned().collect();
        let mut replies = self.shared.apply_each(&batch).await.into_iter();
        let missing = || Err(StoreError::Corrupt("no reply".to_owned()));
        known.into_iter().map(|known| known.and_then(|_| replies.next().unwrap_or_else(missing))).collect()
    }
}

/// Whether a command is decided on its order's history, where Redis does not have the order.
const fn may_need_history(command: &Command) -> bool {
    match command.action {
        Action::Settle(_) | Action::Refund(_) | Action::Release(_) | Action::Void | Action::ExtendHold { .. } => true,
        Action::Resolve(Resolution::NotMade) => true,
        // Marking a charge as unknown, and reporting that it was made, follow its attempt.
        Action::MarkUnknown(Mark { subject, .. }) => !matches!(subject, Subject::Charge),
        Action::Resolve(Resolution::Made)
        | Action::Consume(_)
        | Action::Hold(..)
        | Action::VoidAttempt
        | Action::Expire
        | Action::Adjust(_)
        | Action::Reset(_)
        | Action::Suspend
        | Action::Resume
        | Action::SuspendMerchant
        | Action::ResumeMerchant
        | Action::Initialize
        // Its entry is looked for whatever the store has.
        | Action::Post(_)
        // A charge, for which no order is looked up.
        | Action::Report(_)
        | Action::Grant(_)
        | Action::ReleaseRight(_)
        | Action::OrphanRight(_)
        | Action::Roll => false,
    }
}

/// The reason for callers: the texts of the database are for the log.
fn refused(error: HistoryError) -> StoreError {
    match error {
        HistoryError::Store(error) => error,
        HistoryError::Database(_) => StoreError::History("the journal's database gave no answer".to_owned()),
        HistoryError::Corrupt(_) => StoreError::History("the usage log cannot be read as its history".to_owned()),
        error @ (HistoryError::Behind { .. } | HistoryError::Gap | HistoryError::Long) => {
            StoreError::History(error.to_string())
        }
    }
}

impl Store for HistoryStore {
    fn timeout(&self) -> Duration {
        self.redis.timeout()
    }

    fn now_ms(&self) -> i64 {
        self.redis.now_ms()
    }

    /// A command whose order history cannot be read is answered by itself and delays no other.
    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        let mut known = Vec::with_capacity(batch.len());
        for call in batch {
            known.push(self.with_history(call).await);
        }
        self.apply_those(known).await
    }

    async fn apply_known(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        if !batch.iter().any(|call| may_need_history(&call.0)) {
            return self.shared.apply_each(batch).await;
        }
        let known = batch.iter().map(async |call| match self.is_evicted(&call.0).await? {
            true => Err(StoreError::NeedsHistory),
            false => Ok(Arc::clone(call)),
        });
        self.apply_those(join_all(known).await).await
    }

    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        let mut known = Vec::with_capacity(batch.len());
        for call in batch {
            known.push(self.with_history(call).await?);
        }
        self.redis.apply_all(&known).await
    }
}
