//! The journal: carries every event of the Redis streams to Postgres, each stored once.
//!
//! It runs on a thread of its own and shares nothing with the payment path but the processor. An event is acknowledged,
//! and removed from Redis, only after the transaction that stores it has been committed; until then any process may die,
//! and Postgres may be away for as long as Redis has room.

mod backoff;
mod drain;
pub mod event;
pub mod postgres;
pub mod reply;
pub mod stream;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::settings::{Secret, Settings};

/// How often the sequences are checked for gaps.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// After how long an idle consumer with nothing pending counts as gone.
const CONSUMER_IDLE: Duration = Duration::from_secs(3600);

/// What the journal needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub redis_url: Secret,
    pub postgres_url: Secret,
    /// Number of shards, so of streams.
    pub shards: u16,
    /// Most rows in one transaction.
    pub batch_rows_max: usize,
    /// After how long another consumer's entries are taken over.
    pub claim_idle: Duration,
    /// How often the sequences are checked for gaps.
    pub check_interval: Duration,
    /// After how long an idle consumer with nothing pending is removed.
    pub consumer_idle: Duration,
    /// This process's name in the consumer group; no other process may have it.
    pub consumer: String,
}

impl Config {
    /// Takes what the settings say; the consumer gets a name of its own.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            redis_url: settings.redis_url(),
            postgres_url: settings.postgres_url(),
            shards: settings.shards,
            batch_rows_max: usize::try_from(settings.journal_batch_rows_max).unwrap_or(usize::MAX),
            claim_idle: settings.journal_claim_idle(),
            check_interval: CHECK_INTERVAL,
            consumer_idle: CONSUMER_IDLE,
            consumer: uuid::Uuid::from_bytes(clock::decision_id()).to_string(),
        }
    }
}

/// Starts the journal on its own thread. It ends after `shutdown` becomes true (or its sender is gone), with the batch at
/// hand finished.
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let drain = drain::Drain::new(config, log, metrics, health, shutdown);
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || runtime.block_on(drain.run()))
}
