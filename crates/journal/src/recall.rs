//! The store with the journal behind it: captures, voids and refunds of orders that Redis has forgotten are decided on what
//! the journal knows of them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quota::{Action, Command, Mark, Order, Reply, Resolution, Subject};
use sqlx::PgPool;
use uuid::Uuid;

use super::history::{self, HistoryError};
use sluice_kit::health::warn_unless_away;
use sluice_kit::telemetry::trace_id;
use sluice_store::{GroupCommit, Notes, RedisStore, Store, StoreError};

/// A [`Store`] that looks forgotten orders up. Its pool belongs to the runtime that calls.
#[derive(Debug)]
pub struct RecallingStore {
    redis: Arc<RedisStore>,
    /// The same store; callers share its calls.
    shared: GroupCommit<RedisStore>,
    pool: PgPool,
}

impl RecallingStore {
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

    /// The command with the order's past, where it is about an order that Redis has forgotten. Between this look and the
    /// decision the order may appear in Redis: then what Redis knows goes before it.
    async fn recalled<'a>(&self, command: &'a Command, notes: &Notes) -> Result<Cow<'a, Command>, StoreError> {
        match self.past(command, notes).await? {
            Some(order) => Ok(Cow::Owned(Command { history: Some(Box::new(order)), ..command.clone() })),
            None => Ok(Cow::Borrowed(command)),
        }
    }

    async fn past(&self, command: &Command, notes: &Notes) -> Result<Option<Order>, StoreError> {
        let Command { merchant, order_no: Some(order_no), .. } = command else { return Ok(None) };
        if !self.is_forgotten(command).await? {
            return Ok(None);
        }
        let past = history::find(&self.pool, &self.redis, merchant, order_no, command.order_ttl_secs).await;
        past.map_err(|error| {
            let decision_id = Uuid::from_bytes(command.decision_id);
            let trace_id = trace_id(notes.trace);
            warn_unless_away!(error, %decision_id, %merchant, %order_no, trace_id, "the past of an order cannot be read");
            refused(error)
        })
    }

    /// Whether the command is about an order of which Redis does not have what it decides on.
    async fn is_forgotten(&self, command: &Command) -> Result<bool, StoreError> {
        let Command { merchant, order_no: Some(order_no), .. } = command else { return Ok(false) };
        if !may_need_past(command) {
            return Ok(false);
        }
        let order = self.redis.order(merchant, order_no).await?;
        Ok(order.is_none_or(|order| order.is_forgotten(command.now_ms / 1000)))
    }

    /// Asks for the commands that are known; what stands in the place of the others is theirs.
    async fn apply_those(&self, known: Vec<Result<(Command, Notes), StoreError>>) -> Vec<Result<Reply, StoreError>> {
        let batch: Vec<(Command, Notes)> = known.iter().flatten().cloned().collect();
        let mut replies = self.shared.apply_each(&batch).await.into_iter();
        let missing = || Err(StoreError::Corrupt("no reply".to_owned()));
        known.into_iter().map(|known| known.and_then(|_| replies.next().unwrap_or_else(missing))).collect()
    }
}

/// Whether a command is decided on its order's past, where Redis does not have the order.
const fn may_need_past(command: &Command) -> bool {
    match command.action {
        Action::Settle(_) | Action::Refund(_) | Action::Release(_) | Action::Void => true,
        Action::Resolve(Resolution::NotMade) => true,
        // A charge's mark, and the word that it was made, follow its attempt.
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
        | Action::Roll => false,
    }
}

/// The reason as callers may read it: the texts of the database are for the log.
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

impl Store for RecallingStore {
    fn timeout(&self) -> Duration {
        self.redis.timeout()
    }

    fn now_ms(&self) -> i64 {
        self.redis.now_ms()
    }

    async fn apply(&self, command: &Command, notes: &Notes) -> Result<Reply, StoreError> {
        self.shared.apply(&*self.recalled(command, notes).await?, notes).await
    }

    /// A command whose order's past cannot be read is answered by itself and holds up no other.
    async fn apply_each(&self, batch: &[(Command, Notes)]) -> Vec<Result<Reply, StoreError>> {
        let mut known = Vec::with_capacity(batch.len());
        for (command, notes) in batch {
            known.push(self.recalled(command, notes).await.map(|command| (command.into_owned(), notes.clone())));
        }
        self.apply_those(known).await
    }

    async fn apply_known(&self, batch: &[(Command, Notes)]) -> Vec<Result<Reply, StoreError>> {
        if !batch.iter().any(|(command, _)| may_need_past(command)) {
            return self.shared.apply_each(batch).await;
        }
        let known = batch.iter().map(async |(command, notes)| match self.is_forgotten(command).await? {
            true => Err(StoreError::NeedsPast),
            false => Ok((command.clone(), notes.clone())),
        });
        self.apply_those(join_all(known).await).await
    }

    async fn apply_all(&self, batch: &[(Command, Notes)]) -> Result<Vec<Reply>, StoreError> {
        let mut known = Vec::with_capacity(batch.len());
        for (command, notes) in batch {
            known.push((self.recalled(command, notes).await?.into_owned(), notes.clone()));
        }
        self.redis.apply_all(&known).await
    }
}
