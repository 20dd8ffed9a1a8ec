//! The decisions' port: ext_authz, gRPC health and reflection, until the stop.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use super::{RunError, STOP_MAX, bounded_stop, guarded};
use crate::check::CheckService;
use crate::health::Health;
use crate::journal::RecallingStore;

/// How often Redis is asked whether it is there.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A proxy that is gone without a word is noticed after both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one proxy connection may have open: more than Envoy's own bound of requests at a time.
const STREAMS_MAX: u32 = 4096;

/// One thread's part of the decisions' port. What it holds belongs to its runtime.
pub(super) struct Worker {
    pub runtime: Runtime,
    pub listener: std::net::TcpListener,
    pub store: Arc<RecallingStore>,
    pub service: CheckService<RecallingStore>,
}

impl Worker {
    /// Decides until the stop, and some time longer what is under way then.
    fn run(self, routes: Routes, mut stopped: watch::Receiver<bool>) -> Result<(), RunError> {
        let Self { runtime, listener, service, .. } = self;
        let tasks = service.tasks();
        runtime.block_on(async {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
            let mut asked = stopped.clone();
            let (checks, batches) = service.into_servers();
            let served = Server::builder()
                .max_concurrent_streams(Some(STREAMS_MAX))
                .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
                .add_routes(routes.add_service(checks).add_service(batches))
                .serve_with_incoming_shutdown(incoming, async move {
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
        })
    }
}

/// The ext_authz services with gRPC health and reflection, until they are told to stop by a signal or by `stop`. The first
/// worker works here, the others on threads of their own.
pub(super) fn serve(
    first: Worker,
    others: Vec<Worker>,
    health: Arc<Health>,
    stop: &watch::Sender<bool>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let routes = Routes::new(health_service).add_service(reflection);
    let entered = first.runtime.enter();
    tokio::spawn(probe(Arc::clone(&first.store), health, reporter, stopped.clone()));
    let (terminated, interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(stop_at_signal(terminated, interrupted, stop.clone()));
    drop(entered);
    info!(address = %first.listener.local_addr()?, threads = others.len() + 1, "ext_authz is open");
    let mut guards = Vec::with_capacity(others.len());
    for (worker, number) in others.into_iter().zip(2..) {
        let (routes, stopped) = (routes.clone(), stopped.clone());
        let thread =
            thread::Builder::new().name(format!("decide-{number}")).spawn(move || worker.run(routes, stopped))?;
        guards.push(guarded("decisions", stop, move || matches!(thread.join(), Ok(Ok(()))))?);
    }
    first.run(routes, stopped.clone())?;
    let ended_well = guards.into_iter().all(|guard| guard.join().unwrap_or(false));
    if ended_well { Ok(()) } else { Err(RunError::BrokeOff("decisions")) }
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
    store: Arc<RecallingStore>,
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
        let answer = store.redis().verify().await;
        if answer.is_ok() && !served {
            store.redis().warn_of_eviction().await;
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
        for name in ["", <AuthorizationServer<CheckService<RecallingStore>> as NamedService>::NAME] {
            reporter.set_service_status(name, status).await;
        }
    }
}
