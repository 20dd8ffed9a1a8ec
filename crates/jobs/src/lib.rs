//! Work without a request: ends expired holds, closes the windows and billing cycles of accounts without traffic, and finds usage
//! that is across a threshold because the limit has changed. Makes the runs of scorecards, sends the notices of dunning, and ends
//! transfers that were left half way.
//!
//! Every server sweeps, on a thread of its own that shares nothing with payments but the processor. Neither which of them is
//! first nor whether any is in time matters: the store's rule ends a hold once, and rolls windows over by itself with the next
//! command.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod apply;
mod credit;
mod dunning;
mod holds;
mod metrics;
mod orphans;
mod portfolio;
mod rights;
mod roll;
mod scorecard;
mod thresholds;
mod transfers;
mod windows;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quota::{Currency, MerchantId, Mode};
use sluice_kit::database::PgPool;
use sluice_kit::database::change::ChangeError;
use sluice_kit::shutdown::Shutdown;
use thiserror::Error;

use sluice_alerts::AlertMetrics;
use sluice_decision::decider::{Decider, InForce, Prepared};
use sluice_decision::operations::Operations;
use sluice_decision::request::{Caller, Operation, Request, Source};
use sluice_journal::HistoryStore;
use sluice_kit::clock;
use sluice_kit::database;
use sluice_kit::health::{Away, warn_unless_away};
use sluice_kit::metrics::Metrics;
use sluice_lines::CreditLines;
use sluice_policy_source::Policies;
use sluice_settings::{Live, Secret, Settings};
use sluice_store::{NO_ATTEMPT, RedisStore, RedisStoreConfig, Store, StoreError, StoreTime, Verified};

pub use credit::{CreditSweep, CreditSwept};
pub use holds::{Ended, HoldSweep};
pub use metrics::{JobMetrics, Sweep};
pub use portfolio::CreditMetrics;
pub use rights::{LOST_AFTER_MS, RightSweep, Swept};
pub use roll::Rolled;
pub use thresholds::ThresholdSweep;
pub use transfers::TransferSweep;
pub use windows::WindowSweep;

/// One for each sweep, and one beside a transfer's.
const CONNECTIONS_MAX: u32 = 6;
/// Commands of one script call, which occupies Redis for about a millisecond.
const COMMANDS_PER_CALL: usize = 50;
/// How often transfers are looked for that their caller has left half way.
const TRANSFERS_EVERY: Duration = Duration::from_secs(5);
/// How often rights are looked at.
const RIGHTS_EVERY: Duration = Duration::from_secs(10);
/// The actor in the journal.
const OPERATOR_TYPE: &str = "system";

/// Why a sweep failed. The next one starts again.
#[derive(Debug, Error)]
pub enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("postgres gave no answer: {0}")]
    Database(#[from] sluice_kit::database::Error),
    #[error("credit lines cannot be read: {0}")]
    Lines(#[from] ChangeError),
}

impl Away for SweepError {
    fn is_away(&self) -> bool {
        match self {
            Self::Store(error) => error.is_away(),
            Self::Database(error) | Self::Lines(ChangeError::Database(error)) => error.is_away(),
            Self::Lines(
                ChangeError::NotFound(_)
                | ChangeError::Conflict(_)
                | ChangeError::Invalid { .. }
                | ChangeError::FourEyes,
            ) => false,
        }
    }
}

/// The configuration of the sweeps.
#[derive(Clone, Debug)]
pub struct Config {
    pub redis_url: Secret,
    pub postgres_url: Secret,
    pub shards: u16,
    pub live: Live,
    /// Shared knowledge of Redis.
    pub verified: Verified,
    /// Redis' own, except in tests that move time.
    pub time: StoreTime,
}

impl Config {
    /// From the settings.
    #[must_use]
    pub fn new(settings: &Settings, live: Live, verified: Verified) -> Self {
        let (redis_url, postgres_url) = (settings.redis_url(), settings.postgres_url());
        Self { redis_url, postgres_url, shards: settings.shards, live, verified, time: StoreTime::Own }
    }
}

/// What the sweeps work with. Its connections belong to the runtime that it was opened in.
#[derive(Clone, Debug)]
pub struct Tools {
    decider: Decider<RedisStore>,
    /// The operations of callers, that a sweep goes on with: they need the journal, as theirs do.
    operations: Operations,
    pool: PgPool,
    job_metrics: Arc<JobMetrics>,
    alert_metrics: Arc<AlertMetrics>,
    portfolio: Arc<portfolio::Publisher>,
    shards: u16,
}

impl Tools {
    /// Prepares the connections, inside of the runtime that will use them; they are made when they are first used.
    ///
    /// # Errors
    /// An [`io::Error`] for an address that cannot be used.
    pub fn open(
        config: &Config,
        policies: Arc<Policies>,
        lines: Arc<CreditLines>,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let Config { redis_url, postgres_url, shards, live, verified, time } = config;
        let timeout = live.current().redis_timeout();
        let redis = RedisStoreConfig { url: redis_url.clone(), shards: *shards, timeout };
        let store = RedisStore::open_shared(&redis, verified.clone()).map_err(io::Error::other)?;
        let store = store.following(live.clone()).with_time(time.clone()).measured(metrics.part());
        let (store, pool) = (Arc::new(store), database::pool(postgres_url, CONNECTIONS_MAX).map_err(io::Error::other)?);
        let history = Arc::new(HistoryStore::new(Arc::clone(&store), pool.clone()));
        let operations = Decider::new(history, Arc::clone(&policies), Arc::clone(&lines), live.clone(), metrics);
        Ok(Self {
            pool,
            operations: Operations::new(operations),
            job_metrics: metrics.part(),
            alert_metrics: metrics.part(),
            portfolio: Arc::new(portfolio::Publisher::new(metrics.part())),
            decider: Decider::new(store, policies, lines, live.clone(), metrics),
            shards: *shards,
        })
    }

    fn store(&self) -> &RedisStore {
        self.decider.store()
    }

    /// The time of a round, by Redis' clock. `None` while Redis gives none, or this server's own is too far from it: the
    /// policies and alerts of the round may be of another day then.
    async fn time_to_sweep(&self, sweep: Sweep) -> Option<i64> {
        if self.store().clock().skew().is_none()
            && let Err(error) = self.store().verify().await
        {
            report(&self.job_metrics, sweep, Err(error.into()));
            return None;
        }
        self.store().clock_trouble().is_none().then(|| self.store().now_ms())
    }

    fn in_force(&self, merchant: &MerchantId, currency: Currency, now_ms: i64) -> InForce {
        self.decider.peek(merchant, currency, now_ms)
    }

    /// A command without a request.
    fn prepare(&self, request: Request, task: Task, in_force: InForce, now_ms: i64) -> Prepared {
        let caller = Caller {
            source: Source::Job,
            actor: task.actor.into(),
            operator_type: OPERATOR_TYPE,
            mode: Mode::Enforce,
            trace: None,
        };
        self.decider.prepare(Request { reason: task.reason.to_owned(), ..request }, caller, in_force, now_ms)
    }
}

/// The actor in the journal, and the reason.
#[derive(Clone, Copy, Debug)]
struct Task {
    actor: &'static str,
    reason: &'static str,
}

fn request(merchant: MerchantId, currency: Currency, operation: Operation) -> Request {
    Request::new(merchant, currency, NO_ATTEMPT, operation)
}

/// Starts the sweeps on their own thread. They end after `shutdown` becomes true (or its sender is gone), with the call at hand
/// finished.
///
/// # Errors
/// An [`io::Error`] where the thread or its runtime cannot be made, or an address cannot be used.
pub fn spawn(
    config: &Config,
    policies: Arc<Policies>,
    lines: Arc<CreditLines>,
    metrics: &Metrics,
    shutdown: Shutdown,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tools = {
        let _context = runtime.enter();
        Tools::open(config, policies, lines, metrics)?
    };
    std::thread::Builder::new().name("sweep".to_owned()).spawn(move || runtime.block_on(run(tools, shutdown)))
}

async fn run(tools: Tools, shutdown: Shutdown) {
    let holds = run_holds(tools.clone(), shutdown.clone());
    let windows = run_windows(tools.clone(), shutdown.clone());
    let thresholds = run_thresholds(tools.clone(), shutdown.clone());
    let transfers = run_transfers(tools.clone(), shutdown.clone());
    let rights = run_rights(tools.clone(), shutdown.clone());
    tokio::join!(holds, windows, thresholds, transfers, rights, run_credit(tools, shutdown));
}

async fn run_holds(tools: Tools, mut shutdown: Shutdown) {
    let mut sweep = HoldSweep::new(tools.clone());
    while !shutdown.is_requested() {
        if let Some(now_ms) = tools.time_to_sweep(Sweep::Holds).await {
            let swept = sweep.round(now_ms, &shutdown).await;
            report(&tools.job_metrics, Sweep::Holds, swept.map(drop));
        }
        let _ = shutdown.until(tools.decider.live().elapse(|now| Duration::from_millis(now.hold_sweep_ms))).await;
    }
}

async fn run_windows(tools: Tools, mut shutdown: Shutdown) {
    let sweep = WindowSweep::new(tools.clone());
    while !shutdown.is_requested() {
        if let Some(now_ms) = tools.time_to_sweep(Sweep::Windows).await {
            let swept = sweep.round(now_ms, &shutdown).await;
            report(&tools.job_metrics, Sweep::Windows, swept.map(drop));
        }
        let _ = shutdown.until(tools.decider.live().elapse(|now| Duration::from_secs(now.window_sweep_secs))).await;
    }
}

async fn run_thresholds(tools: Tools, mut shutdown: Shutdown) {
    let sweep = ThresholdSweep::new(tools.clone());
    while !shutdown.is_requested() {
        if let Some(now_ms) = tools.time_to_sweep(Sweep::Thresholds).await {
            let swept = sweep.round(now_ms, &shutdown).await;
            report(&tools.job_metrics, Sweep::Thresholds, swept.map(drop));
        }
        let _ = shutdown.until(tools.decider.live().elapse(|now| Duration::from_secs(now.threshold_sweep_secs))).await;
    }
}

async fn run_credit(tools: Tools, mut shutdown: Shutdown) {
    let sweep = CreditSweep::new(tools.clone());
    while !shutdown.is_requested() {
        if let Some(now_ms) = tools.time_to_sweep(Sweep::Credit).await {
            let swept = sweep.round(now_ms, &shutdown).await;
            report(&tools.job_metrics, Sweep::Credit, swept.map(drop));
        }
        let _ = shutdown.until(tools.decider.live().elapse(|now| Duration::from_secs(now.window_sweep_secs))).await;
    }
}

async fn run_transfers(tools: Tools, mut shutdown: Shutdown) {
    let sweep = TransferSweep::new(tools.clone());
    while !shutdown.is_requested() {
        let swept = sweep.round(&shutdown).await;
        report(&tools.job_metrics, Sweep::Transfers, swept.map(drop));
        let _ = shutdown.until(tokio::time::sleep(TRANSFERS_EVERY)).await;
    }
}

async fn run_rights(tools: Tools, mut shutdown: Shutdown) {
    let sweep = RightSweep::new(tools.clone());
    while !shutdown.is_requested() {
        if let Some(now_ms) = tools.time_to_sweep(Sweep::Rights).await {
            let swept = sweep.round(now_ms, &shutdown).await;
            report(&tools.job_metrics, Sweep::Rights, swept.map(drop));
        }
        let _ = shutdown.until(tokio::time::sleep(RIGHTS_EVERY)).await;
    }
}

fn report(job_metrics: &JobMetrics, sweep: Sweep, swept: Result<(), SweepError>) {
    match swept {
        Ok(()) => job_metrics.finished(sweep, clock::now_ms()),
        Err(error) => {
            job_metrics.failed(sweep);
            warn_unless_away!(error, sweep = sweep.into_str(), "sweep failed, trying again with the next");
        }
    }
}
