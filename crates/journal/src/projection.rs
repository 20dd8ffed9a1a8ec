//! Projections of the journal's events besides the usage log.

use std::collections::HashSet;
use std::fmt::Debug;

use futures_util::future::BoxFuture;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::event::Event;

/// Keeps tables of its own in step with the journal's events, in the transaction that stores them: what it writes is there exactly
/// where the events are.
pub trait Projection: Debug + Send + Sync + 'static {
    /// Takes the events of one transaction, in the order of their streams. `new` has the ids of those that were not stored
    /// before; without it all are new. The result is executed when the transaction is committed.
    ///
    /// # Errors
    /// [`sqlx::Error`]; nothing of the transaction is kept.
    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
        new: Option<&'a HashSet<Uuid>>,
    ) -> BoxFuture<'a, Result<AfterCommit, sqlx::Error>>;
}

/// Work for when a transaction is committed.
pub type AfterCommit = Box<dyn FnOnce() + Send>;
