//! The decisions' port: ext_authz, gRPC health and reflection, until the stop.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use futures_util::future::OptionFuture;
use futures_util::stream::{self, Stream};
use proto::batch::batch_authorization_server::BatchAuthorizationServer;
use sluice_kit::shutdown::{Shutdown, Stop};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use super::{RunError, STOP_MAX, bounded_stop, guarded};
use sluice_ext_authz::CheckService;
use sluice_journal::HistoryStore;
use sluice_kit::health::Health;
use sluice_settings::Settings;
use sluice_store::RedisStore;

/// How often Redis is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A proxy that vanished is detected after both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one proxy connection may have open: more than Envoy's own bound of requests at a time.
const STREAMS_MAX: u32 = 4096;

type Service = CheckService<HistoryStore>;

/// One thread's part of the decisions' port. What it holds belongs to its runtime.
pub(super) struct Worker {
    pub runtime: Runtime,
    pub listener: std::net::TcpListener,
    pub socket: Option<std::os::unix::net::UnixListener>,
    pub store: Arc<HistoryStore>,
    pub service: Service,
}

impl Worker {
    /// Decides until the stop, and some time longer what is under way then.
    fn run(self, routes: Routes, mut stopped: Shutdown) -> Result<(), RunError> {
        let Self { runtime, listener, socket, service, .. } = self;
        let tasks = service.tasks();
        runtime.block_on(async {
            let (checks, batches) = service.into_servers();
            let routes = routes.add_service(checks).add_service(batches);
            let server = || {
                Server::builder()
                    .max_concurrent_streams(Some(STREAMS_MAX))
                    .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                    .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
                    .add_routes(routes.clone())
            };
            let stop = || {
                let mut stopped = stopped.clone();
                async move { stopped.requested().await }
            };
            let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
            let on_port = server().serve_with_incoming_shutdown(incoming, stop());
            let socket = socket.map(UnixListener::from_std).transpose()?;
            let on_socket = socket.map(|socket| server().serve_with_incoming_shutdown(accepted(socket), stop()));
            let on_socket = OptionFuture::from(on_socket);
            let served = async { tokio::try_join!(on_port, async { on_socket.await.transpose() }) };
            tokio::select! {
                result = served => result.map(drop)?,
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

/// The connections of a Unix socket.
fn accepted(socket: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::poll_fn(move |context| socket.poll_accept(context).map_ok(|(connection, _)| connection).map(Some))
}

/// The ext_authz services with gRPC health and reflection, until a signal or `stop` ends them. The first worker works here,
/// the others on threads of their own.
pub(super) fn serve(
    first: Worker,
    others: Vec<Worker>,
    health: Arc<Health>,
    settings: &Settings,
    stop: &Stop,
    stopped: &Shutdown,
) -> Result<(), RunError> {
    let (drain, allow_eviction) = (settings.drain(), settings.redis_allow_eviction);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let routes = Routes::new(health_service).add_service(reflection);
    let entered = first.runtime.enter();
    let store = Arc::clone(&first.store);
    tokio::spawn(probe(store, allow_eviction, Arc::clone(&health), reporter, stopped.clone()));
    let (terminated, interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(stop_at_signal(terminated, interrupted, drain, health, stop.clone()));
    drop(entered);
    info!(address = %first.listener.local_addr()?, threads = others.len() + 1, "ext_authz is open");
    let others = others.into_iter().map(|worker| {
        let (routes, stopped) = (routes.clone(), stopped.clone());
        move || worker.run(routes, stopped)
    });
    together(|| first.run(routes.clone(), stopped.clone()), others, stop)
}

/// Runs the first here and the others on threads of their own until all of them have ended. The end of one stops all.
fn together<F: FnOnce() -> Result<(), RunError> + Send + 'static>(
    first: impl FnOnce() -> Result<(), RunError>,
    others: impl Iterator<Item = F>,
    stop: &Stop,
) -> Result<(), RunError> {
    let mut guards = Vec::new();
    let started = others.zip(2..).try_for_each(|(run, number)| {
        let run = move || run().inspect_err(|error| error!(%error, "decision thread failed"));
        let thread = thread::Builder::new().name(format!("decide-{number}")).spawn(run)?;
        guards.push(guarded("decisions", stop, move || matches!(thread.join(), Ok(Ok(()))))?);
        Ok(())
    });
    let result = started.and_then(|()| first());
    stop.request();
    let ended: Vec<bool> = guards.into_iter().map(|guard| guard.join().unwrap_or(false)).collect();
    result?;
    if ended.into_iter().all(|well| well) { Ok(()) } else { Err(RunError::ThreadExited("decisions")) }
}

/// SIGTERM takes the server out of service first, and lets it decide until every client has noticed. SIGINT, and a second signal,
/// stop it at once.
async fn stop_at_signal(
    mut terminated: Signal,
    mut interrupted: Signal,
    drain: Duration,
    health: Arc<Health>,
    stop: Stop,
) {
    let is_to_drain = tokio::select! {
        _ = terminated.recv() => !drain.is_zero(),
        _ = interrupted.recv() => false,
    };
    health.drain();
    if is_to_drain {
        info!(drain_ms = drain.as_millis(), "draining: no longer ready for payments, deciding those that still come");
        tokio::select! {
            () = tokio::time::sleep(drain) => {}
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    }
    info!("stopping");
    stop.request();
}

/// Probes Redis every second, and reports the result in `/ready` and in gRPC health.
async fn probe(
    store: Arc<HistoryStore>,
    allow_eviction: bool,
    health: Arc<Health>,
    reporter: HealthReporter,
    mut stopped: Shutdown,
) {
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    let mut drained = false;
    loop {
        tokio::select! {
            () = stopped.requested() => return,
            _ = ticks.tick() => {}
            () = health.until_draining(), if !drained => {}
        }
        if !drained && health.is_draining() {
            drained = true;
            report(&reporter, ServingStatus::NotServing).await;
        }
        let mut answer = store.redis().verify().await;
        if answer.is_ok() {
            answer = store.redis().check_retention(allow_eviction).await;
        }
        let served = answer.is_ok();
        match answer {
            Ok(()) => health.redis_up(),
            Err(error) => health.redis_down(error.to_string()),
        }
        let is_right = compare_clocks(store.redis(), &health);
        let serves = served && is_right && !health.is_draining();
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        report(&reporter, status).await;
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in ["", AuthorizationServer::<Service>::NAME, BatchAuthorizationServer::<Service>::NAME] {
        reporter.set_service_status(name, status).await;
    }
}

/// Reports the last comparison of this server's clock with Redis'; returns whether the clock is right.
fn compare_clocks(store: &RedisStore, health: &Health) -> bool {
    let Some(skew) = store.clock().skew() else { return true };
    let problem = store.clock_trouble();
    let is_right = problem.is_none();
    health.clock_compared(skew.ahead_ms(), problem);
    is_right
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_end_of_one_stops_all_and_is_waited_for() {
        for failing in 0..3 {
            let (stop, stopped) = sluice_kit::shutdown::channel();
            let ended = Arc::new(AtomicUsize::new(0));
            let run = |number| {
                let (mut stopped, ended) = (stopped.clone(), Arc::clone(&ended));
                move || {
                    if number != failing {
                        let runtime = super::super::runtime()?;
                        runtime.block_on(async { stopped.requested().await });
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                    if number == failing { Err(RunError::ThreadExited("one")) } else { Ok(()) }
                }
            };
            let result = together(run(0), [run(1), run(2)].into_iter(), &stop);
            let expected = if failing == 0 { "one" } else { "decisions" };
            assert!(matches!(result, Err(RunError::ThreadExited(name)) if name == expected), "{failing}: {result:?}");
            assert_eq!(ended.load(Ordering::SeqCst), 3, "{failing}");
        }
    }
}
