//! The store in memory: the reference ledger behind a lock. Nothing survives the process; other stores are compared with it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quota::{Command, Ledger, NotBegun, Reply};

use super::{Call, Store, StoreError, StoreTime};
use sluice_kit::clock;

/// The reference ledger as a [`Store`].
#[derive(Debug)]
pub struct MemoryStore {
    ledger: Mutex<Ledger>,
    time: StoreTime,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self { ledger: Mutex::new(Ledger::new(shards)), time: StoreTime::OfCommands }
    }

    /// With another clock than each command's time.
    #[must_use]
    pub fn with_time(mut self, time: StoreTime) -> Self {
        self.time = time;
        self
    }

    /// The ledger itself, for checks.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // The rule does not panic half-way: a poisoned lock still guards a consistent ledger.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    /// It answers at once.
    fn timeout(&self) -> Duration {
        Duration::MAX
    }

    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        batch.iter().map(|call| self.applied(&call.0)).collect()
    }

    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        let commands: Vec<Command> = batch.iter().map(|call| call.0.clone()).collect();
        match self.store_ms() {
            Some(store_ms) => self.ledger().apply_all_or_none_at(&commands, store_ms).map_err(not_begun),
            None => Ok(self.ledger().apply_all_or_none(&commands)),
        }
    }
}

impl MemoryStore {
    fn applied(&self, command: &Command) -> Result<Reply, StoreError> {
        match self.store_ms() {
            Some(store_ms) => self.ledger().apply_at(command, store_ms).map_err(not_begun),
            None => Ok(self.ledger().apply(command)),
        }
    }

    fn store_ms(&self) -> Option<i64> {
        match &self.time {
            StoreTime::Own => Some(clock::now_ms()),
            StoreTime::OfCommands => None,
            StoreTime::At(now_ms) => Some(now_ms.load(Ordering::SeqCst)),
        }
    }
}

fn not_begun(_: NotBegun) -> StoreError {
    StoreError::NotBegun
}
