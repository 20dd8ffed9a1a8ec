//! The store with the journal behind it: captures, voids and refunds of orders that Redis has forgotten are decided on what
//! the journal knows of them.

use std::borrow::Cow;
use std::sync::Arc;

use quota::{Action, Command, Order, Reply};
use sqlx::PgPool;

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
        if known.is_some_and(|order| i64::from(order.expires_at_secs) > command.now_ms / 1000) {
            return Ok(None);
        }
        let past = history::find(&self.pool, &self.redis, merchant, order_no, command.order_ttl_secs).await;
        past.map_err(|error| match error {
            HistoryError::Store(error) => error,
            error => StoreError::History(error.to_string()),
        })
    }
}

impl Store for RecallingStore {
    async fn apply(&self, command: &Command, notes: &Notes) -> Result<Reply, StoreError> {
        self.redis.apply(&*self.recalled(command).await?, notes).await
    }

    async fn apply_batch(&self, batch: &[(Command, Notes)], all_or_none: bool) -> Result<Vec<Reply>, StoreError> {
        let mut recalled = Vec::with_capacity(batch.len());
        for (command, notes) in batch {
            recalled.push((self.recalled(command).await?.into_owned(), notes.clone()));
        }
        self.redis.apply_batch(&recalled, all_or_none).await
    }
}
