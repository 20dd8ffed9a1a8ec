//! What runs beside decisions on a runtime of its own: the admin port, and what keeps policies and settings up to date.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sluice_kit::shutdown::Shutdown;
use sluice_rules::Document;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{RunError, bounded_stop, open_store};
use sluice_api::admin::{self, Admin};
use sluice_decision::decider::Decider;
use sluice_decision::operations::Operations;
use sluice_kit::database;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_kit::telemetry::LogControl;
use sluice_lines::{CreditLines, Follower};
use sluice_live::Usage;
use sluice_policy_source::Policies;
use sluice_settings::runtime::{self, SettingsMetrics, Source};
use sluice_settings::{Live, Settings};
use sluice_store::Verified;

/// Connections to Postgres that the admin API may use at a time.
const ADMIN_CONNECTIONS_MAX: u32 = 8;
/// The same for orders that Redis has evicted.
const HISTORY_CONNECTIONS_MAX: u32 = 4;

/// What is in force, by the sources.
pub(super) struct Known {
    pub policies: Arc<Policies>,
    pub lines: Arc<CreditLines>,
}

/// What the admin port works with. Its connections belong to the runtime that calls.
pub(super) fn open(
    settings: &Settings,
    live: Live,
    verified: Verified,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    Known { policies, lines }: Known,
) -> Result<Admin, RunError> {
    let pool = database::pool(&settings.postgres_url(), ADMIN_CONNECTIONS_MAX)?;
    let store = open_store(settings, &live, verified, &metrics, HISTORY_CONNECTIONS_MAX)?;
    let operations = Operations::new(Decider::new(store, policies, lines, live.clone(), &metrics));
    Ok(Admin::new(settings, live, health, metrics, pool, operations)?)
}

/// The admin port, and what keeps policies and settings up to date.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    state: Admin,
    (sources, follower): (sluice_policy_source::Sources, Follower),
    policies: Arc<Policies>,
    follow: Follow,
    mut stopped: Shutdown,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    follow.start(stopped.clone())?;
    info!(address = %listener.local_addr()?, "admin port is open");
    sources.spawn(&policies, &stopped);
    tokio::spawn(follower.run(stopped.clone()));
    let (pool, live) = (state.pool.clone(), state.live.clone());
    let clock = state.operations.clock().clone();
    let usage = Usage::new(pool, Arc::clone(&policies), &state.metrics, live, clock);
    tokio::spawn(usage.run(stopped.clone()));
    tokio::spawn(state.clone().housekeeping(stopped.clone()));
    tokio::select! {
        () = admin::serve(listener, state, stopped.clone()) => {}
        // A connection that a caller holds open does not delay the stop.
        () = bounded_stop(&mut stopped) => {}
    }
    Ok(())
}

/// Answers probes on a thread of their own, so that they never wait for the API.
pub(super) fn spawn_probes(
    listener: std::net::TcpListener,
    state: Admin,
    mut stopped: Shutdown,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let runtime = super::runtime()?;
    let serve = async move {
        let listener = TcpListener::from_std(listener)?;
        info!(address = %listener.local_addr()?, "the probes' port is open");
        tokio::select! {
            () = admin::serve_probes(listener, state, stopped.clone()) => {}
            () = bounded_stop(&mut stopped) => {}
        }
        Ok(())
    };
    thread::Builder::new().name("probes".to_owned()).spawn(move || runtime.block_on(serve))
}

/// How long the proxy waits for an answer, by the name of the rule.
pub(super) struct Deadlines(Vec<(String, u64)>);

impl Deadlines {
    pub(super) fn of(rules: Option<&Document>) -> Self {
        let rules = rules.map(|rules| rules.rules.rules()).unwrap_or_default();
        Self(rules.iter().map(|rule| (rule.name.clone(), u64::from(rule.timeout_ms))).collect())
    }

    /// A decision must be sent before the proxy has given up on it.
    fn warn(&self, check_timeout_ms: u64) {
        for (rule, timeout_ms) in self.0.iter().filter(|(_, timeout_ms)| *timeout_ms <= check_timeout_ms) {
            warn!(rule, timeout_ms, check_timeout_ms, "the rule's timeout must be above SLUICE_CHECK_TIMEOUT_MS");
        }
    }
}

/// Applies changed settings to the parts that do not read them at each use.
pub(super) async fn apply_changes(live: Live, deadlines: Deadlines, log: LogControl) {
    let mut changes = live.subscribe();
    let mut check_timeout_ms = 0;
    loop {
        let now = Arc::clone(&changes.borrow_and_update());
        if let Err(error) = log.set(&now.log) {
            warn!(%error, "log settings not applied, the log stays as it was");
        }
        if std::mem::replace(&mut check_timeout_ms, now.check_timeout_ms) != now.check_timeout_ms {
            deadlines.warn(check_timeout_ms);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What keeps the settings up to date.
pub(super) struct Follow {
    pub settings: Settings,
    pub live: Live,
    pub metrics: Arc<Metrics>,
    /// Sent, or dropped where nothing changes, when the first read is over.
    pub first_read: oneshot::Sender<()>,
}

impl Follow {
    fn start(self, stopped: Shutdown) -> io::Result<()> {
        let Self { settings, live, metrics, first_read } = self;
        let refresh = Duration::from_secs(settings.config_refresh_secs);
        match Source::of(&settings).map_err(io::Error::other)? {
            Some(source) => {
                drop(tokio::spawn(runtime::follow(source, refresh, live, metrics.part(), stopped, first_read)))
            }
            // What never changes is never out of date.
            None => metrics.part::<SettingsMetrics>().read(0, 0),
        }
        Ok(())
    }
}
