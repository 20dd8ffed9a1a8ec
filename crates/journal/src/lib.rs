//! The journal: carries every event of the Redis streams to Postgres, each stored once.
//!
//! It runs on a thread of its own and shares nothing with the payment path but the processor. Of several servers' journals
//! one reads at a time. An event is removed from Redis only after the transactions that store it and its account have been
//! committed; until then any process may die, and Postgres may be away for as long as Redis has room.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod outcomes;

mod backlog;
mod backoff;
mod drain;
pub mod event;
pub mod history;
pub mod postgres;
mod projection;
mod recall;
pub mod reply;
pub mod stream;
pub mod usage_log;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use sluice_kit::clock;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_settings::{Live, LiveSettings, Secret, Settings};

pub use projection::{AfterCommit, Projection};
pub use recall::RecallingStore;

/// How often the sequences are checked for gaps.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What the journal needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub redis_url: Secret,
    pub postgres_url: Secret,
    /// Number of shards, so of streams.
    pub shards: u16,
    /// Most rows in one transaction.
    pub batch_rows_max: usize,
    /// Events that one shard may hold before charges are refused; a shard that comes near it is warned of.
    pub backlog_events_max: u64,
    /// How long the lease of the one journal that reads lasts after its last sign of life.
    pub lease: Duration,
    /// How often the sequences are checked for gaps.
    pub check_interval: Duration,
    /// This process's name as the one that reads; no other process may have it.
    pub reader: String,
    /// Where changes of the bounds come from while the journal runs; without it nothing changes.
    pub live: Option<Live>,
    /// What is kept in step with the events.
    pub projections: Vec<Arc<dyn Projection>>,
}

impl Config {
    /// Takes what the settings say; the reader gets a name of its own.
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

    /// Takes over what may change while the journal runs.
    fn take(&mut self, live: &LiveSettings) {
        self.batch_rows_max = usize::try_from(live.journal_batch_rows_max).unwrap_or(usize::MAX);
        self.backlog_events_max = live.backlog_events_max;
        self.lease = live.journal_claim_idle();
    }
}

/// Starts the journal on its own thread. It ends after `shutdown` becomes true (or its sender is gone), with the batch at
/// hand finished. Where it ends before, by a panic, the health of Postgres says so: events wait in Redis from then on.
///
/// # Errors
/// An [`io::Error`] where the thread or its runtime cannot be made, or the Postgres URL cannot be read.
pub fn spawn(
    config: Config,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let log = postgres::UsageLog::new(&config.postgres_url).map_err(io::Error::other)?;
    let log = log.with_projections(config.projections.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watchman = Watchman { health: Arc::clone(&health), shutdown: shutdown.clone() };
    let drain = drain::Drain::new(config, log, metrics, health, shutdown);
    start(watchman, move || runtime.block_on(drain.run()))
}

fn start(watchman: Watchman, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
        let _watchman = watchman;
        work();
    })
}

/// Tells when the journal's thread ends though nobody asked for it.
struct Watchman {
    health: Arc<Health>,
    shutdown: watch::Receiver<bool>,
}

impl Drop for Watchman {
    fn drop(&mut self) {
        let asked = *self.shutdown.borrow() || self.shutdown.has_changed().is_err();
        if !asked {
            tracing::error!("the journal has stopped, events wait in redis until a server with a journal reads them");
            self.health.postgres_down("the journal has stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchman() -> (Watchman, watch::Sender<bool>) {
        let health = Arc::new(Health::new(Arc::new(Metrics::new())));
        health.postgres_up();
        let (sender, shutdown) = watch::channel(false);
        (Watchman { health, shutdown }, sender)
    }

    #[test]
    fn a_journal_that_panics_is_noticed() {
        let (watchman, _sender) = watchman();
        let health = Arc::clone(&watchman.health);
        let thread = start(watchman, || panic!("as a defect would"));
        assert!(thread.unwrap().join().is_err());
        let state = health.states().postgres;
        assert_eq!((state.up, state.detail.as_deref()), (false, Some("the journal has stopped")));
    }

    #[test]
    fn an_end_that_was_asked_for_is_no_alarm() {
        let (watchman, sender) = watchman();
        let health = Arc::clone(&watchman.health);
        sender.send(true).unwrap();
        start(watchman, || {}).unwrap().join().unwrap();
        assert!(health.states().postgres.up);

        let (watchman, sender) = self::watchman();
        let health = Arc::clone(&watchman.health);
        drop(sender);
        start(watchman, || {}).unwrap().join().unwrap();
        assert!(health.states().postgres.up);
    }
}
