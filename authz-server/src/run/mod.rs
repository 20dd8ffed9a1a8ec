//! Wiring: starts every part with its share of the settings, and stops them in order.
//!
//! Each thread of the decisions has a runtime of its own, and so have the journal and the sweeps; the admin port and the
//! sources of policies and settings share another, so that none of them makes a payment wait.

mod background;
mod checks;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quota::{Currency, MerchantId};
use sluice_kit::shutdown::{self, Shutdown, Stop};
use sluice_rules::{Document, RuleError};
use thiserror::Error;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};

use sluice_alerts::monitor::Monitor;
use sluice_alerts::{AlertMetrics, AlertProjection, LimitsInForce, notifier};
use sluice_api::admin::{self, JwksError};
use sluice_decision::decider::Decider;
use sluice_ext_authz::CheckService;
use sluice_journal::HistoryStore;
use sluice_journal::outcomes;
use sluice_journal::postgres::UsageLog;
use sluice_kit::database;
use sluice_kit::health::{Addresses, Health};
use sluice_kit::metrics::Metrics;
use sluice_kit::telemetry::{self, TelemetryError};
use sluice_lines::{EntryProjection, Follower};
use sluice_policy_source::zones::metrics::ZoneMetrics;
use sluice_policy_source::{Policies, PolicyStartError};
use sluice_settings::{HttpUrl, Live, Settings, SettingsError};
use sluice_store::{RedisMetrics, RedisStore, RedisStoreConfig, StoreError, Verified};

/// How long a stop waits for connections that stay open, and again for work under way.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How long the start waits for the first read of changed settings; without it those of file and environment count.
const FIRST_SETTINGS_MAX: Duration = Duration::from_secs(2);
/// How long the start waits for the credit lines; a server starts without Postgres.
const FIRST_LINES_MAX: Duration = Duration::from_secs(3);
/// How long the start waits for the migrations; longer ones are the journal's.
const FIRST_MIGRATION_MAX: Duration = Duration::from_secs(10);
/// Connections that may wait to be accepted.
const ACCEPT_QUEUE: u32 = 1024;
/// Connections to Postgres that the decisions of one thread may use, for orders that Redis has evicted.
const CHECK_CONNECTIONS_MAX: u32 = 2;

/// Why the server did not start, or stopped.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Policy(#[from] PolicyStartError),
    #[error("the rules file {path} cannot be read: {error}")]
    RulesFile { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Rules { path: PathBuf, error: RuleError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("SLUICE_JWT_JWKS: {0}")]
    Jwks(#[from] JwksError),
    #[error("the address of postgres cannot be read: {0}")]
    Postgres(#[from] sluice_kit::database::Error),
    #[error("{address} cannot be bound: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    #[error("SLUICE_GRPC_SOCKET: {path} cannot be bound: {error}")]
    Socket { path: PathBuf, error: io::Error },
    #[error("gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    #[error("gRPC reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the {0} thread exited unexpectedly: see the log")]
    ThreadExited(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT, or until a part exits unexpectedly.
///
/// # Errors
/// [`RunError`] names what to fix. An unavailable Redis or Postgres is none: the server starts, and `/ready` reports it.
pub fn run(settings: &Settings) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new());
    let (_log, log) = telemetry::start(&settings.log, &metrics)?;
    register_parts(&metrics);
    let spans = settings.otlp_endpoint.as_ref().map(|collector| {
        let (service_name, sampler) = (settings.otel_service_name.as_str(), settings.sampler());
        telemetry::export_spans(&telemetry::Export { collector, service_name, sampler }, &metrics)
    });
    let _spans = spans.transpose()?;
    let live = Live::fixed(settings);
    let health = Arc::new(Health::at(settings.addresses(), Arc::clone(&metrics)));
    let background_runtime = runtime()?;
    background_runtime.block_on(migrate(settings, &health));
    let (policies, sources) = background_runtime.block_on(sluice_policy_source::open(settings, &live, &health))?;
    let (lines, follower) = background_runtime.block_on(async {
        let (lines, follower) = Follower::open(&settings.postgres_url(), &metrics)?;
        follower.first_reading(FIRST_LINES_MAX).await;
        Ok::<_, RunError>((lines, follower))
    })?;
    let rules = settings.rules_file.as_deref().map(load_rules).transpose()?;
    let deadlines = background::Deadlines::of(rules.as_ref());
    rules.iter().for_each(sluice_ext_authz::warn_of_actions);

    let verified = Verified::default();
    let ((listener, more), admin, probes) = background_runtime.block_on(async { bind_all(settings) })?;
    let (admin_address, grpc_address) = (admin.local_addr()?, listener.local_addr()?);
    let (socket_file, socket) = settings.grpc_socket.as_deref().map(socket::bind).transpose()?.unzip();
    let worker = |listener| {
        let socket = socket.as_ref().map(UnixListener::try_clone).transpose()?;
        let runtime = runtime()?;
        let store = runtime
            .block_on(async { open_store(settings, &live, verified.clone(), &metrics, CHECK_CONNECTIONS_MAX) })?;
        let (policies, lines) = (Arc::clone(&policies), Arc::clone(&lines));
        let decider = Decider::new(Arc::clone(&store), policies, lines, live.clone(), &metrics);
        let service = CheckService::new(decider, rules.clone());
        Ok::<_, RunError>(checks::Worker { runtime, listener, socket, store, service })
    };
    let first = worker(listener)?;
    let workers = more.into_iter().map(worker).collect::<Result<Vec<_>, _>>()?;
    // It is open as long as a worker has it: at the stop a connection must be refused, and not wait.
    drop(socket);

    // First no more decisions are taken, then the journal stores what it holds and the admin port closes.
    let (stop_checks, checks_stopped) = shutdown::channel();
    let (stop, stopped) = shutdown::channel();
    let alerts = AlertProjection::new(metrics.part(), limits_in_force(&policies));
    let journal = sluice_journal::spawn(
        sluice_journal::Config {
            projections: vec![Arc::new(alerts), Arc::new(EntryProjection)],
            ..sluice_journal::Config::new(settings, live.clone())
        },
        &metrics,
        Arc::clone(&health),
        stopped.clone(),
    )?;
    let sweep = sluice_jobs::Config::new(settings, live.clone(), verified.clone());
    let sweep = sluice_jobs::spawn(&sweep, Arc::clone(&policies), Arc::clone(&lines), &metrics, stopped.clone())?;
    let notifier = notifier::spawn(notifier::Config::new(settings, live.clone()), &metrics, stopped.clone())?;
    let clock = verified.clock().clone();
    let monitor = background_runtime
        .block_on(async { Monitor::open(&settings.postgres_url(), Arc::clone(&health), live.clone(), clock) })?;
    background_runtime.spawn(monitor.run(stopped.clone()));
    let (first_read, first_settings) = oneshot::channel();
    let follow = background::Follow {
        settings: settings.clone(),
        live: live.clone(),
        metrics: Arc::clone(&metrics),
        first_read,
    };
    let state = background_runtime.block_on(async {
        let known = background::Known { policies: Arc::clone(&policies), lines };
        background::open(settings, live.clone(), verified.clone(), Arc::clone(&health), metrics, known)
    })?;
    let probes =
        probes.map(|listener| background::spawn_probes(listener, state.clone(), stopped.clone())).transpose()?;
    let admin = thread::Builder::new().name("admin".to_owned()).spawn(move || {
        background_runtime.block_on(background::serve(admin, state, (sources, follower), policies, follow, stopped))
    })?;
    let journal = guarded("journal", &stop_checks, move || journal.join().is_ok())?;
    let notifier = guarded("notifier", &stop_checks, move || notifier.join().is_ok())?;
    let sweep = guarded("sweep", &stop_checks, move || sweep.join().is_ok())?;
    let admin = guarded("admin", &stop_checks, move || matches!(admin.join(), Ok(Ok(()))))?;
    let probes = probes
        .map(|probes| guarded("probes", &stop_checks, move || matches!(probes.join(), Ok(Ok(())))))
        .transpose()?;
    first.runtime.block_on(async { timeout(FIRST_SETTINGS_MAX, first_settings).await.map(drop) }).unwrap_or_default();
    first.runtime.spawn(background::apply_changes(live, deadlines, log));
    log_start(settings, admin_address, grpc_address, workers.len() + 1);
    let served = checks::serve(first, workers, health, settings, &stop_checks, &checks_stopped);
    drop(socket_file);
    stop.request();
    let guards = [("journal", journal), ("sweep", sweep), ("notifier", notifier), ("admin", admin)];
    let guards = guards.into_iter().chain(probes.map(|probes| ("probes", probes)));
    let ended: Vec<_> = guards.map(|(name, guard)| (name, guard.join().unwrap_or(false))).collect();
    served?;
    ended.into_iter().find(|(_, well)| !well).map_or(Ok(()), |(name, _)| Err(RunError::ThreadExited(name)))
}

/// The limits of accounts, for merchants' own thresholds.
fn limits_in_force(policies: &Arc<Policies>) -> LimitsInForce {
    let policies = Arc::clone(policies);
    LimitsInForce::new(move |merchant, currency, at_ms| {
        let (merchant, currency) = (MerchantId::parse(merchant).ok()?, Currency::parse(currency).ok()?);
        policies.peek(&merchant, currency, None, at_ms)?.threshold_policy.clone()
    })
}

/// Creates the tables before anything reads them. Where that fails now, the journal does it when Postgres is available.
async fn migrate(settings: &Settings, health: &Health) {
    let migrated = async {
        let mut log = UsageLog::new(&settings.postgres_url())?;
        log.probe().await
    };
    match timeout(FIRST_MIGRATION_MAX, migrated).await {
        Ok(Ok(())) => health.postgres_up(),
        Ok(Err(error)) => health.postgres_down(error.to_string()),
        Err(_) => health.postgres_down("no answer in time"),
    }
}

/// Logs once what this server is, where it listens and what it works with.
fn log_start(settings: &Settings, admin: SocketAddr, grpc: SocketAddr, threads: usize) {
    let Addresses { redis, postgres, policy_service } = settings.addresses();
    let address = |url: Option<&HttpUrl>| url.map(|url| url.as_str().to_owned());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        %admin,
        %grpc,
        grpc_socket = settings.grpc_socket.as_ref().map(|path| path.display().to_string()),
        threads,
        redis,
        postgres,
        schema_version = UsageLog::schema_version(),
        policy_file = settings.policy_file.as_ref().map(|path| path.display().to_string()),
        policy_service = Some(policy_service).filter(|address| !address.is_empty()),
        config_service = address(settings.config_service_url.as_ref()),
        collector = address(settings.otlp_endpoint.as_ref()),
        settings = settings.named().join(" "),
        "server started"
    );
}

/// Waits for a thread's end on another one. Without that part the server is incomplete, so all of it stops: a restart by its
/// supervisor is better than refusing or losing something unnoticed.
fn guarded(
    name: &'static str,
    stop: &Stop,
    join: impl FnOnce() -> bool + Send + 'static,
) -> io::Result<JoinHandle<bool>> {
    let stop = stop.clone();
    thread::Builder::new().name(format!("{name}-guard")).spawn(move || {
        let well = join();
        if !stop.request() || !well {
            error!(thread = name, "worker thread exited unexpectedly");
            return false;
        }
        true
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn load_rules(path: &Path) -> Result<Document, RunError> {
    let text = std::fs::read(path).map_err(|error| RunError::RulesFile { path: path.to_owned(), error })?;
    Document::from_json(&text).map_err(|error| RunError::Rules { path: path.to_owned(), error })
}

/// Registers the metrics of every part, so that all of them are exposed whatever is configured.
fn register_parts(metrics: &Metrics) {
    drop(metrics.part::<admin::ApiMetrics>());
    drop(metrics.part::<AlertMetrics>());
    drop(metrics.part::<sluice_decision::DecisionMetrics>());
    drop(metrics.part::<sluice_journal::JournalMetrics>());
    drop(metrics.part::<sluice_live::StreamMetrics>());
    drop(metrics.part::<notifier::NotifierMetrics>());
    drop(metrics.part::<outcomes::OutcomeMetrics>());
    drop(metrics.part::<sluice_policy_source::metrics::PolicyMetrics>());
    drop(metrics.part::<RedisMetrics>());
    drop(metrics.part::<sluice_settings::runtime::SettingsMetrics>());
    drop(metrics.part::<sluice_jobs::JobMetrics>());
    drop(metrics.part::<sluice_lines::LineMetrics>());
    drop(metrics.part::<telemetry::TraceMetrics>());
    drop(metrics.part::<ZoneMetrics>());
}

/// The store that decisions are made in. Its connections belong to the runtime that calls.
fn open_store(
    settings: &Settings,
    live: &Live,
    verified: Verified,
    metrics: &Metrics,
    connections_max: u32,
) -> Result<Arc<HistoryStore>, RunError> {
    let (shards, timeout) = (settings.shards, live.current().redis_timeout());
    let redis = RedisStoreConfig { url: settings.redis_url(), shards, timeout };
    let redis = RedisStore::open_shared(&redis, verified)?;
    let pool = database::pool(&settings.postgres_url(), connections_max)?;
    let redis = redis.following(live.clone()).measured(metrics.part());
    Ok(Arc::new(HistoryStore::new(Arc::new(redis), pool)))
}

/// The decisions' port, the admin port and that of the probes, bound inside of a runtime.
fn bind_all(
    settings: &Settings,
) -> Result<((TcpListener, Vec<TcpListener>), TcpListener, Option<TcpListener>), RunError> {
    let admin = bind(SocketAddr::new(settings.bind, settings.port), false)?;
    Ok((bind_shared(settings)?, admin, bind_probes(settings)?))
}

/// The probes' port. A default port that cannot be bound does not prevent the start: the admin port answers the probes, too.
fn bind_probes(settings: &Settings) -> Result<Option<TcpListener>, RunError> {
    let Some(port) = settings.probe_port.get() else { return Ok(None) };
    match bind(SocketAddr::new(settings.bind, port), false) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.is_set("SLUICE_PROBE_PORT") => Err(error),
        Err(error) => {
            warn!(%error, "probes are answered on the admin port only: set SLUICE_PROBE_PORT to a free port, or to off");
            Ok(None)
        }
    }
}

/// A listener on the decisions' port for each of its threads.
fn bind_shared(settings: &Settings) -> Result<(TcpListener, Vec<TcpListener>), RunError> {
    let address = SocketAddr::new(settings.grpc_bind, settings.grpc_port);
    if !address.ip().to_canonical().is_loopback() {
        warn!(%address, "the ext_authz port takes charges and refunds without authentication: let only envoy reach it");
    }
    let alone = bind(address, false)?;
    if settings.grpc_threads <= 1 {
        return Ok((alone, Vec::new()));
    }
    // Listeners that share a port share it with any other process of the user that does the same: a second server must not
    // start unnoticed. So the port is bound exclusively first.
    let address = alone.local_addr()?;
    drop(alone);
    let others = (1..settings.grpc_threads).map(|_| bind(address, true)).collect::<Result<_, _>>()?;
    Ok((bind(address, true)?, others))
}

fn bind(address: SocketAddr, shared: bool) -> Result<TcpListener, RunError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        socket.listen(ACCEPT_QUEUE)?.into_std()
    };
    bound().map_err(|error| RunError::Bind { address, error })
}

/// Ends some time after the stop was requested.
async fn bounded_stop(stopped: &mut Shutdown) {
    stopped.requested().await;
    tokio::time::sleep(STOP_MAX).await;
}
