//! Wiring: starts every part with its share of the settings, and stops them in order.
//!
//! Decisions have a thread and a runtime of their own; the journal has another, and the admin port and the policy file
//! share a third, so that none of them makes a payment wait.

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
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::admin::{self, Admin};
use crate::check::{CheckConfig, CheckService};
use crate::health::Health;
use crate::journal;
use crate::metrics::Metrics;
use crate::policy::{FileSource, Policies, SourceError};
use crate::settings::{Settings, SettingsError};
use crate::store::{RedisStore, RedisStoreConfig, StoreError};
use crate::telemetry::{self, TelemetryError};

/// How often Redis is asked whether it is there.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop waits for connections that stay open, and again for work under way.
const STOP_MAX: Duration = Duration::from_secs(3);
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
    Policy(#[from] SourceError),
    #[error("the rules file {path} cannot be read: {error}")]
    RulesFile { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Rules { path: PathBuf, error: RuleError },
    #[error(transparent)]
    Store(#[from] StoreError),
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
    let _log = telemetry::start(&settings.log, Arc::clone(&metrics))?;
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let source = FileSource::new(&settings.policy_file);
    let (book, text) = source.load()?;
    let policies = Arc::new(Policies::new(book, Arc::clone(&health)));
    let rules = settings.rules_file.as_deref().map(load_rules).transpose()?;
    rules.iter().for_each(|rules| warn_of_deadlines(rules, settings));

    let decisions = runtime()?;
    let grpc = decisions.block_on(bind(settings, settings.grpc_port))?;
    let admin = decisions.block_on(bind(settings, settings.port))?.into_std()?;
    let store = decisions.block_on(async { open_store(settings) })?;
    let service =
        CheckService::new(Arc::clone(&store), Arc::clone(&policies), rules, Arc::clone(&metrics), config(settings));

    // First no more decisions are taken, then the journal stores what it holds and the admin port closes.
    let (stop_checks, checks_stopped) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let journal =
        journal::spawn(journal::Config::new(settings), Arc::clone(&metrics), Arc::clone(&health), stopped.clone())?;
    let state = Admin { health: Arc::clone(&health), metrics };
    let admin = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime()?.block_on(serve_admin(admin, state, source, text, policies, stopped)))?;
    let journal = guarded("journal", &stop_checks, move || journal.join().is_ok())?;
    let admin = guarded("admin", &stop_checks, move || matches!(admin.join(), Ok(Ok(()))))?;
    let served = decisions.block_on(serve_checks(grpc, service, store, health, stop_checks, checks_stopped));
    let _ = stop.send(true);
    let ended = [("journal", journal), ("admin", admin)].map(|(name, guard)| (name, guard.join().unwrap_or(false)));
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

fn load_rules(path: &Path) -> Result<Document, RunError> {
    let text = std::fs::read(path).map_err(|error| RunError::RulesFile { path: path.to_owned(), error })?;
    Document::from_json(&text).map_err(|error| RunError::Rules { path: path.to_owned(), error })
}

fn open_store(settings: &Settings) -> Result<Arc<RedisStore>, StoreError> {
    let (shards, timeout) = (settings.shards, settings.redis_timeout());
    RedisStore::open(&RedisStoreConfig { url: settings.redis_url(), shards, timeout }).map(Arc::new)
}

fn config(settings: &Settings) -> CheckConfig {
    let bounded = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    CheckConfig {
        timeout: settings.check_timeout(),
        order_ttl_secs: bounded(settings.order_ttl_secs),
        backlog_max: bounded(settings.backlog_events_max),
    }
}

async fn bind(settings: &Settings, port: u16) -> Result<TcpListener, RunError> {
    let address = SocketAddr::new(settings.bind, port);
    TcpListener::bind(address).await.map_err(|error| RunError::Bind { address, error })
}

/// A decision must be told before the proxy has given up on it.
fn warn_of_deadlines(rules: &Document, settings: &Settings) {
    let check_timeout_ms = settings.check_timeout_ms;
    for rule in rules.rules.rules().iter().filter(|rule| u64::from(rule.timeout_ms) <= check_timeout_ms) {
        let (rule, timeout_ms) = (&rule.name, rule.timeout_ms);
        warn!(rule, timeout_ms, check_timeout_ms, "the rule's timeout must be above SLUICE_CHECK_TIMEOUT_MS");
    }
}

/// The admin port and the policy file, whose text was `text`.
async fn serve_admin(
    listener: std::net::TcpListener,
    state: Admin,
    source: FileSource,
    text: String,
    policies: Arc<Policies>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    info!(address = %listener.local_addr()?, "admin port is open");
    tokio::spawn(source.watch(text, policies, stopped.clone()));
    let mut asked = stopped.clone();
    let stop = async move {
        // An error says that the sender is gone, which is an end as well.
        let _ = asked.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, admin::router(state)).with_graceful_shutdown(stop).into_future();
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
