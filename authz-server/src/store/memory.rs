//! The store in memory: the reference ledger behind a lock. Nothing survives the process; it is the judge of the others.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quota::{Command, Ledger, Reply};

use super::{Notes, Store, StoreError};

/// The reference ledger as a [`Store`].
#[derive(Debug)]
pub struct MemoryStore(Mutex<Ledger>);

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self(Mutex::new(Ledger::new(shards)))
    }

    /// The ledger itself, for those who check it.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // The rule does not panic half-way: a poisoned lock still guards a whole ledger.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    /// It answers at once.
    fn timeout(&self) -> Duration {
        Duration::MAX
    }

    async fn apply(&self, command: &Command, _notes: &Notes) -> Result<Reply, StoreError> {
        Ok(self.ledger().apply(command))
    }

    async fn apply_each(&self, batch: &[(Command, Notes)]) -> Vec<Result<Reply, StoreError>> {
        let mut ledger = self.ledger();
        batch.iter().map(|(command, _)| Ok(ledger.apply(command))).collect()
    }

    async fn apply_all(&self, batch: &[(Command, Notes)]) -> Result<Vec<Reply>, StoreError> {
        let commands: Vec<Command> = batch.iter().map(|(command, _)| command.clone()).collect();
        Ok(self.ledger().apply_all_or_none(&commands))
    }
}
