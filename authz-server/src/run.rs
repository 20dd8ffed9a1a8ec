//! Wiring: starts every part with its share of the settings, and stops them in order.
//!
//! Decisions have a thread and a runtime of their own; the journal has another, and the admin port and the policy file
//! share a third, so that none of them makes a payment wait.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use quota::rule::{Document, RuleError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info};

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
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`] says what to mend. Redis or Postgres being away is none: the server starts, and `/ready` says so.
pub fn run(settings: &Settings) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new());
    let _log = telemetry::start(&settings.log, Arc::clone(&metrics))?;
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let source = FileSource::new(&settings.policy_file);
    let policies = Arc::new(Policies::new(source.load()?, Arc::clone(&health)));
    let rules = settings.rules_file.as_deref().map(load_rules).transpose()?;

    let decisions = runtime()?;
    let grpc = decisions.block_on(bind(settings, settings.grpc_port))?;
    let admin = decisions.block_on(bind(settings, settings.port))?.into_std()?;
    let store = decisions.block_on(async { open_store(settings) })?;
    let service =
        CheckService::new(Arc::clone(&store), Arc::clone(&policies), rules, Arc::clone(&metrics), config(settings));

    let (stop, stopped) = watch::channel(false);
    let journal =
        journal::spawn(journal::Config::new(settings), Arc::clone(&metrics), Arc::clone(&health), stopped.clone())?;
    let state = Admin { health: Arc::clone(&health), metrics };
    let background = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime()?.block_on(serve_admin(admin, state, source, policies, stopped)))?;
    let served = decisions.block_on(serve_checks(grpc, service, store, health, stop.subscribe()));
    // Whatever ended the service ends the rest; the journal stores the batch that it holds.
    let _ = stop.send(true);
    for (name, ended) in [("journal", journal.join().is_ok()), ("admin", matches!(background.join(), Ok(Ok(()))))] {
        if !ended {
            error!(thread = name, "a thread broke off");
        }
    }
    served
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

/// The admin port and the policy file.
async fn serve_admin(
    listener: std::net::TcpListener,
    state: Admin,
    source: FileSource,
    policies: Arc<Policies>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    info!(address = %listener.local_addr()?, "admin port is open");
    tokio::spawn(source.watch(policies, stopped.clone()));
    let stop = async move {
        // An error says that the sender is gone, which is an end as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, admin::router(state)).with_graceful_shutdown(stop).await
}

/// The ext_authz service with gRPC health and reflection, until a signal comes.
async fn serve_checks(
    listener: TcpListener,
    service: CheckService<RedisStore>,
    store: Arc<RedisStore>,
    health: Arc<Health>,
    stopped: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(probe(store, health, reporter, stopped));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        info!("stopping");
    };
    info!(address = %listener.local_addr()?, "ext_authz is open");
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .max_concurrent_streams(Some(STREAMS_MAX))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(incoming, stop)
        .await?;
    Ok(())
}

/// Asks Redis every second, and says what it answers in `/ready` and in gRPC health.
async fn probe(
    store: Arc<RedisStore>,
    health: Arc<Health>,
    reporter: HealthReporter,
    mut stopped: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        let status = match store.verify().await {
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
