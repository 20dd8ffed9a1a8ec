//! The journal: carries every event of the Redis streams to Postgres, each stored once.
//!
//! It runs on a thread of its own and shares nothing with the payment path but the processor. Of several servers' journals
//! one reads at a time. An event is removed from Redis only after the transactions that store it and its account have been
//! committed; until then any process may die, and Postgres may be away for as long as Redis has room.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod outcomes;

mod backlog;
mod drain;
pub mod event;
pub mod history;
mod history_store;
mod metrics;
pub mod postgres;
mod projection;
pub mod reply;
pub mod stream;
pub mod usage_log;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_kit::shutdown::Shutdown;

use sluice_kit::clock;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_settings::{Live, LiveSettings, Secret, Settings};

pub use history_store::HistoryStore;
pub use metrics::JournalMetrics;
pub use projection::{AfterCommit, Projection};

/// How often the sequences are checked for gaps.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The configuration of the journal.
#[derive(Clone, Debug)]
pub struct Config {
    pub redis_url: Secret,
    pub postgres_url: Secret,
    /// Number of shards, so of streams.
    pub shards: u16,
    /// Most rows in one transaction.
    pub batch_rows_max: usize,
    /// Events that one shard may hold before charges are refused; a shard near it raises a warning.
    pub backlog_events_max: u64,
    /// How long the lease of the reading journal lasts after its last renewal.
    pub lease: Duration,
    /// How often the sequences are checked for gaps.
    pub check_interval: Duration,
    /// This process's name as a reader; no other process may have it.
    pub reader: String,
    /// The source of changed bounds while the journal runs; without it nothing changes.
    pub live: Option<Live>,
    /// Projections that are kept in step with the events.
    pub projections: Vec<Arc<dyn Projection>>,
}

impl Config {
    /// From the settings; the reader gets a name of its own.
    #[must_use]
    pub fn new(settings: &Settings, live: Live) -> Self {
        let mut config = Self {
            redis_url: settings.redis_url(),
            postgres_url: settings.postgres_url(),
            shards: settings.shards,
            batch_rows_max: 0,
            backlog_events_max: 0,
            lease: Duration::ZERO,
            check_interval: CHECK_INTERVAL,
            reader: uuid::Uuid::from_bytes(clock::decision_id()).to_string(),
            live: None,
            projections: Vec::new(),
        };
        config.take(&live.current());
        config.live = Some(live);
        config
    }

    /// Applies settings that may change while the journal runs.
    fn take(&mut self, live: &LiveSettings) {
        self.batch_rows_max = usize::try_from(live.journal_batch_rows_max).unwrap_or(usize::MAX);
        self.backlog_events_max = live.backlog_events_max;
        self.lease = live.journal_lease();
    }
}

/// Starts the journal on its own thread. It ends after `shutdown` becomes true (or its sender is gone), with the current batch
/// finished. Where it exits before, by a panic, the health of Postgres reports it: events wait in Redis from then on.
///
/// # Errors
/// An [`io::Error`] where the thread or its runtime cannot be made, or the Postgres URL cannot be read.
pub fn spawn(config: Config, metrics: &Metrics, health: Arc<Health>, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    let log = postgres::UsageLog::new(&config.postgres_url).map_err(io::Error::other)?;
    let log = log.with_projections(config.projections.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = ThreadExitGuard { health: Arc::clone(&health), shutdown: shutdown.clone() };
    let drain = drain::Drain::new(config, log, metrics.part(), health, shutdown);
    start(guard, move || runtime.block_on(drain.run()))
}

fn start(guard: ThreadExitGuard, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
        let _guard = guard;
        work();
    })
}

/// Reports when the journal's thread exits without a shutdown.
struct ThreadExitGuard {
    health: Arc<Health>,
    shutdown: Shutdown,
}

impl Drop for ThreadExitGuard {
    fn drop(&mut self) {
        if !self.shutdown.is_requested() {
            tracing::error!(
                "journal thread exited unexpectedly, events wait in redis until a server with a journal reads them"
            );
            self.health.postgres_down("the journal thread exited unexpectedly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> (ThreadExitGuard, sluice_kit::shutdown::Stop) {
        let health = Arc::new(Health::new(Arc::new(Metrics::new())));
        health.postgres_up();
        let (sender, shutdown) = sluice_kit::shutdown::channel();
        (ThreadExitGuard { health, shutdown }, sender)
    }

    #[test]
    fn a_journal_that_panics_is_noticed() {
        let (guard, _sender) = guard();
        let health = Arc::clone(&guard.health);
        let thread = start(guard, || panic!("as a defect would"));
        assert!(thread.unwrap().join().is_err());
        let state = health.states().postgres;
        assert_eq!((state.up, state.detail.as_deref()), (false, Some("the journal thread exited unexpectedly")));
    }

    #[test]
    fn an_end_that_was_asked_for_is_no_alarm() {
        let (guard, sender) = guard();
        let health = Arc::clone(&guard.health);
        sender.request();
        start(guard, || {}).unwrap().join().unwrap();
        assert!(health.states().postgres.up);

        let (guard, sender) = self::guard();
        let health = Arc::clone(&guard.health);
        drop(sender);
        start(guard, || {}).unwrap().join().unwrap();
        assert!(health.states().postgres.up);
    }
}
