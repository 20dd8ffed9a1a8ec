//! The store with the journal behind it: captures, voids and refunds of orders that Redis has forgotten are decided on what
//! the journal knows of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use quota::{Action, Code, Command, Order, Record, Reply};
use sqlx::PgPool;
use tracing::warn;

use super::history::{self, HistoryError};
use crate::store::{Notes, RedisStore, Store, StoreError};

/// A [`Store`] that looks forgotten orders up. Its pool belongs to the runtime that calls.
#[derive(Debug)]
pub struct RecallingStore {
    redis: Arc<RedisStore>,
    pool: PgPool,
}

impl RecallingStore {
    /// Puts the journal's database behind a store.
    #[must_use]
    pub const fn new(redis: Arc<RedisStore>, pool: PgPool) -> Self {
        Self { redis, pool }
    }

    /// The store itself.
    #[must_use]
    pub const fn redis(&self) -> &Arc<RedisStore> {
        &self.redis
    }

    /// The command with the order's past, where it is about an order that Redis has forgotten. Between this look and the
    /// decision the order may appear in Redis: then what Redis knows goes before it.
    async fn recalled<'a>(&self, command: &'a Command) -> Result<Cow<'a, Command>, StoreError> {
        match self.past(command).await? {
            Some(order) => Ok(Cow::Owned(Command { history: Some(Box::new(order)), ..command.clone() })),
            None => Ok(Cow::Borrowed(command)),
        }
    }

    async fn past(&self, command: &Command) -> Result<Option<Order>, StoreError> {
        let Command { merchant, order_no: Some(order_no), .. } = command else { return Ok(None) };
        let (Action::Settle(_) | Action::Refund(_) | Action::Release(_) | Action::Void) = &command.action else {
            return Ok(None);
        };
        let known = self.redis.order(merchant, order_no).await?;
        if known.is_some_and(|order| !order.is_forgotten(command.now_ms / 1000)) {
            return Ok(None);
        }
        let past = history::find(&self.pool, &self.redis, merchant, order_no, command.order_ttl_secs).await;
        past.map_err(|error| {
            warn!(%merchant, %order_no, %error, "the past of an order cannot be read");
            refused(error)
        })
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
    async fn apply(&self, command: &Command, notes: &Notes) -> Result<Reply, StoreError> {
        self.redis.apply(&*self.recalled(command).await?, notes).await
    }

    /// Without `all_or_none`, a command whose order's past cannot be read is answered by itself and holds up no other.
    async fn apply_batch(&self, batch: &[(Command, Notes)], all_or_none: bool) -> Result<Vec<Reply>, StoreError> {
        let mut known = Vec::with_capacity(batch.len());
        let mut unknown = BTreeMap::new();
        for (place, (command, notes)) in batch.iter().enumerate() {
            match self.recalled(command).await {
                Ok(command) => known.push((command.into_owned(), notes.clone())),
                Err(StoreError::History(_)) if !all_or_none => drop(unknown.insert(place, undecided(command))),
                Err(error) => return Err(error),
            }
        }
        let mut replies = self.redis.apply_batch(&known, all_or_none).await?;
        for (place, reply) in unknown {
            replies.insert(place.min(replies.len()), reply);
        }
        Ok(replies)
    }
}

/// Nothing was decided and nothing done.
fn undecided(command: &Command) -> Reply {
    Reply {
        record: Record::bare(Code::StoreUnavailable),
        decision_id: command.decision_id,
        event_id: command.decision_id,
        event_seq: None,
    }
}
