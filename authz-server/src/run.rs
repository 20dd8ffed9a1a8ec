//! Wiring: starts every part with its share of the settings, and stops them in order.
//!
//! Decisions have a thread and a runtime of their own; the journal and the sweeps have one each, and the admin port and
//! the sources of policies and settings share another, so that none of them makes a payment wait.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use quota::rule::{Document, RuleError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::admin::{self, Admin, JwksError};
use crate::check::CheckService;
use crate::database;
use crate::health::Health;
use crate::journal;
use crate::metrics::Metrics;
use crate::operations::Operations;
use crate::policy::{self, Policies, PolicyStartError};
use crate::settings::runtime::{self, Source};
use crate::settings::{Live, Settings, SettingsError};
use crate::store::{RedisStore, RedisStoreConfig, StoreError};
use crate::sweep;
use crate::telemetry::{self, LogControl, TelemetryError};

/// How often Redis is asked whether it is there.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop waits for connections that stay open, and again for work under way.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How long the start waits for the first reading of changed settings; without it those of file and environment count.
const FIRST_SETTINGS_MAX: Duration = Duration::from_secs(2);
/// Connections to Postgres that the admin API may use at a time.
const ADMIN_CONNECTIONS_MAX: u32 = 8;
/// A proxy that is gone without a word is noticed after both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one proxy connection may have open: more than Envoy's own bound of requests at a time.
const STREAMS_MAX: u32 = 4096;

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
    Postgres(#[from] sqlx::Error),
    #[error("{address} cannot be bound: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    #[error("gRPC ended: {0}")]
    Grpc(#[from] tonic::transport::Error),
    #[error("gRPC reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the {0} thread ended before its time: see the log")]
    BrokeOff(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT, or until a part ends that must not.
///
/// # Errors
/// [`RunError`] says what to mend. Redis or Postgres being away is none: the server starts, and `/ready` says so.
pub fn run(settings: &Settings) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new());
    let (_log, log) = telemetry::start(&settings.log, Arc::clone(&metrics))?;
    let live = Live::fixed(settings);
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let aside = runtime()?;
    let (policies, sources) = aside.block_on(policy::open(settings, &live, &health))?;
    let rules = settings.rules_file.as_deref().map(load_rules).transpose()?;
    let deadlines = Deadlines::of(rules.as_ref());

    let decisions = runtime()?;
    let grpc = decisions.block_on(bind(settings, settings.grpc_port))?;
    let admin = decisions.block_on(bind(settings, settings.port))?.into_std()?;
    let store = decisions.block_on(async { open_store(settings, &live) })?;
    let service =
        CheckService::new(Arc::clone(&store), Arc::clone(&policies), rules, Arc::clone(&metrics), live.clone());

    // First no more decisions are taken, then the journal stores what it holds and the admin port closes.
    let (stop_checks, checks_stopped) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let journal =
        journal::spawn(journal::Config::new(settings, live.clone()), Arc::clone(&metrics), Arc::clone(&health), stopped.clone())?;
    let sweep = sweep::Config::new(settings, live.clone());
    let sweep = sweep::spawn(&sweep, Arc::clone(&policies), Arc::clone(&metrics), stopped.clone())?;
    let (first_read, first_settings) = oneshot::channel();
    let follow = Follow { settings: settings.clone(), live: live.clone(), metrics: Arc::clone(&metrics), first_read };
    let state = open_admin(&aside, settings, live.clone(), Arc::clone(&health), metrics, Arc::clone(&policies))?;
    let admin = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || aside.block_on(serve_admin(admin, state, sources, policies, follow, stopped)))?;
    let journal = guarded("journal", &stop_checks, move || journal.join().is_ok())?;
    let sweep = guarded("sweep", &stop_checks, move || sweep.join().is_ok())?;
    let admin = guarded("admin", &stop_checks, move || matches!(admin.join(), Ok(Ok(()))))?;
    decisions.block_on(async { timeout(FIRST_SETTINGS_MAX, first_settings).await.map(drop) }).unwrap_or_default();
    decisions.spawn(hand_on(live, deadlines, log));
    let served = decisions.block_on(serve_checks(grpc, service, store, health, stop_checks, checks_stopped));
    let _ = stop.send(true);
    let ended = [("journal", journal), ("sweep", sweep), ("admin", admin)].map(|(name, guard)| (name, guard.join().unwrap_or(false)));
    served?;
    ended.into_iter().find(|(_, well)| !well).map_or(Ok(()), |(name, _)| Err(RunError::BrokeOff(name)))
}

/// Waits for a thread's end on another one. Without that part the server is not whole, so all of it stops: better
/// restarted by whoever watches it than refusing or losing something unnoticed.
fn guarded(
    name: &'static str,
    stop: &watch::Sender<bool>,
    join: impl FnOnce() -> bool + Send + 'static,
) -> io::Result<JoinHandle<bool>> {
    let stop = stop.clone();
    thread::Builder::new().name(format!("{name}-guard")).spawn(move || {
        let well = join();
        if !stop.send_replace(true) || !well {
            error!(thread = name, "a thread ended that must not");
            return false;
        }
        true
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// What the admin port works with. Its connections to Redis and Postgres belong to the runtime that serves it.
fn open_admin(
    aside: &Runtime,
    settings: &Settings,
    live: Live,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    policies: Arc<Policies>,
) -> Result<Admin, RunError> {
    let _context = aside.enter();
    let pool = database::pool(&settings.postgres_url(), ADMIN_CONNECTIONS_MAX)?;
    let store = open_store(settings, &live)?;
    let operations =
        Operations::new(store, policies, pool.clone(), live.clone(), Arc::clone(&metrics), settings.shards);
    Ok(Admin::new(settings, live, health, metrics, pool, operations)?)
}

fn load_rules(path: &Path) -> Result<Document, RunError> {
    let text = std::fs::read(path).map_err(|error| RunError::RulesFile { path: path.to_owned(), error })?;
    Document::from_json(&text).map_err(|error| RunError::Rules { path: path.to_owned(), error })
}

fn open_store(settings: &Settings, live: &Live) -> Result<Arc<RedisStore>, StoreError> {
    let (shards, timeout) = (settings.shards, live.current().redis_timeout());
    let config = RedisStoreConfig { url: settings.redis_url(), shards, timeout };
    RedisStore::open(&config).map(|store| Arc::new(store.following(live.clone())))
}

async fn bind(settings: &Settings, port: u16) -> Result<TcpListener, RunError> {
    let address = SocketAddr::new(settings.bind, port);
    TcpListener::bind(address).await.map_err(|error| RunError::Bind { address, error })
}

/// How long the proxy waits for an answer, by the name of the rule.
struct Deadlines(Vec<(String, u64)>);

impl Deadlines {
    fn of(rules: Option<&Document>) -> Self {
        let rules = rules.map(|rules| rules.rules.rules()).unwrap_or_default();
        Self(rules.iter().map(|rule| (rule.name.clone(), u64::from(rule.timeout_ms))).collect())
    }

    /// A decision must be told before the proxy has given up on it.
    fn warn(&self, check_timeout_ms: u64) {
        for (rule, timeout_ms) in self.0.iter().filter(|(_, timeout_ms)| *timeout_ms <= check_timeout_ms) {
            warn!(rule, timeout_ms, check_timeout_ms, "the rule's timeout must be above SLUICE_CHECK_TIMEOUT_MS");
        }
    }
}

/// Hands changed settings to the parts that do not read them at each use.
async fn hand_on(live: Live, deadlines: Deadlines, log: LogControl) {
    let mut changes = live.subscribe();
    let mut check_timeout_ms = 0;
    loop {
        let now = Arc::clone(&changes.borrow_and_update());
        if let Err(error) = log.set(&now.log) {
            warn!(%error, "the log goes on as before");
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
struct Follow {
    settings: Settings,
    live: Live,
    metrics: Arc<Metrics>,
    /// Told, or dropped where nothing changes, when the first reading is over.
    first_read: oneshot::Sender<()>,
}

impl Follow {
    fn start(self, stopped: watch::Receiver<bool>) -> io::Result<()> {
        let Self { settings, live, metrics, first_read } = self;
        let refresh = Duration::from_secs(settings.config_refresh_secs);
        match Source::of(&settings).map_err(io::Error::other)? {
            Some(source) => drop(tokio::spawn(runtime::follow(source, refresh, live, metrics, stopped, first_read))),
            // What never changes is never out of date.
            None => metrics.settings_read(0, 0),
        }
        Ok(())
    }
}

/// The admin port, and what keeps policies and settings up to date.
async fn serve_admin(
    listener: std::net::TcpListener,
    state: Admin,
    sources: policy::Sources,
    policies: Arc<Policies>,
    follow: Follow,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    follow.start(stopped.clone())?;
    info!(address = %listener.local_addr()?, "admin port is open");
    sources.spawn(&policies, &stopped);
    tokio::spawn(state.clone().housekeeping(stopped.clone()));
    let served = admin::serve(listener, admin::router(state), stopped.clone());
    tokio::select! {
        result = served => result,
        // A caller that holds its connection open holds up nobody.
        () = bounded_stop(&mut stopped) => Ok(()),
    }
}

/// Ends some time after the stop was asked for.
async fn bounded_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
    tokio::time::sleep(STOP_MAX).await;
}

/// The ext_authz service with gRPC health and reflection, until it is told to stop by a signal or by `stop`.
async fn serve_checks(
    listener: TcpListener,
    service: CheckService<RedisStore>,
    store: Arc<RedisStore>,
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(probe(store, health, reporter, stopped.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    tokio::spawn(stop_at_signal(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, stop));
    info!(address = %listener.local_addr()?, "ext_authz is open");
    let tasks = service.tasks();
    let mut asked = stopped.clone();
    let served = Server::builder()
        .max_concurrent_streams(Some(STREAMS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            let _ = asked.wait_for(|stop| *stop).await;
        });
    tokio::select! {
        result = served => result?,
        () = bounded_stop(&mut stopped) => warn!("a connection was still open at the stop"),
    }
    // Decisions whose callers went away, and voids.
    tasks.close();
    if timeout(STOP_MAX, tasks.wait()).await.is_err() {
        warn!(tasks = tasks.len(), "decisions or voids were still under way at the stop");
    }
    Ok(())
}

async fn stop_at_signal(mut terminated: Signal, mut interrupted: Signal, stop: watch::Sender<bool>) {
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    info!("stopping");
    stop.send_replace(true);
}

/// Asks Redis every second, and says what it answers in `/ready` and in gRPC health.
async fn probe(
    store: Arc<RedisStore>,
    health: Arc<Health>,
    reporter: HealthReporter,
    mut stopped: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    let mut served = false;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        let answer = store.verify().await;
        if answer.is_ok() && !served {
            store.warn_of_eviction().await;
        }
        served = answer.is_ok();
        let status = match answer {
            Ok(()) => {
                health.redis_up();
                ServingStatus::Serving
            }
            Err(error) => {
                health.redis_down(error.to_string());
                ServingStatus::NotServing
            }
        };
        for name in ["", <AuthorizationServer<CheckService<RedisStore>> as NamedService>::NAME] {
            reporter.set_service_status(name, status).await;
        }
    }
}
