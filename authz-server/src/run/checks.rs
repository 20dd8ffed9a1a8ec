//! The decisions' port: ext_authz, gRPC health and reflection, until the stop.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use super::{RunError, STOP_MAX, bounded_stop};
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

/// The ext_authz service with gRPC health and reflection, until it is told to stop by a signal or by `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    service: CheckService<RecallingStore>,
    store: Arc<RecallingStore>,
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
