//! The connections of the admin port and of the probes' own, HTTP/1.1 and HTTP/2: so many at a time and of one client, and none
//! that a slow or idle client can hold open.
//!
//! Probes and metrics are answered whatever the API's callers do: on the admin port a connection without a free place gets one of a
//! reserve, where only probes are answered, and the probes' own port has connections of its own.

mod permits;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use axum::{BoxError, Router};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sluice_kit::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::audit::Client;
use super::protocol::{self, Opened, Protocol};
use super::{Admin, probes, router};
use permits::{Connection, ConnectionPermit, ConnectionPermits, Room};

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// The bounds of connections.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at a time.
    room: Room,
    /// How long a request's head may take to arrive, and how long a connection may be idle between requests.
    head: Duration,
    /// How long a client may leave written bytes unread.
    write: Duration,
    /// How long an HTTP/2 connection may be without a new request or a part of an answer; clients open another one when they need
    /// it.
    silent: Duration,
}

/// The API's; how many of them one client may have is a setting.
const BOUNDS: Bounds = Bounds {
    room: Room { all: 512, per_client: 512 },
    head: Duration::from_secs(15),
    write: Duration::from_secs(30),
    silent: Duration::from_secs(300),
};
/// Those of probes: short.
const PROBE_BOUNDS: Bounds = Bounds {
    room: Room { all: 64, per_client: 64 },
    head: Duration::from_secs(5),
    write: Duration::from_secs(5),
    silent: Duration::from_secs(5),
};
/// Those of the reserve of the admin port.
const RESERVE_BOUNDS: Bounds = Bounds { room: Room { all: 16, per_client: 16 }, ..PROBE_BOUNDS };
/// A client that is gone without closing is noticed after both; HTTP/2 only, because HTTP/1.1 has the idle bound.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that one HTTP/2 connection may have in progress.
const STREAMS_MAX: u32 = 128;
/// How long an HTTP/2 connection that accepts no more requests may take to finish those in progress, long exports among them.
const LINGER_MAX: Duration = Duration::from_secs(600);
/// How long a connection whose place was given to another one may take to close.
const LEAVE_MAX: Duration = Duration::from_millis(200);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long accepting pauses after an error such as too many open files, which an immediate retry would only repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The router of a listener's connections, and their bounds.
#[derive(Clone, Debug)]
struct Service {
    bounds: Bounds,
    places: Arc<ConnectionPermits>,
    router: Router,
}

impl Service {
    fn new(bounds: Bounds, router: Router) -> Self {
        Self { bounds, places: ConnectionPermits::new(bounds.room), router }
    }
}

/// Serves the API and probes until the stop. Requests in progress are finished; the caller of this function bounds the time.
pub async fn serve(listener: TcpListener, admin: Admin, stopped: Shutdown) {
    let room = Room { per_client: admin.connections_per_client, ..BOUNDS.room };
    let reserve = Service::new(RESERVE_BOUNDS, probes::reserve(admin.clone()));
    let api = Service::new(Bounds { room, ..BOUNDS }, router(admin));
    serve_all(listener, &[api, reserve], stopped).await;
}

/// Serves probes and metrics only, until the stop.
pub async fn serve_probes(listener: TcpListener, admin: Admin, stopped: Shutdown) {
    serve_all(listener, &[Service::new(PROBE_BOUNDS, probes::router(admin))], stopped).await;
}

/// Serves each connection by the first of the services that has a place for it.
async fn serve_all(listener: TcpListener, services: &[Service], mut stopped: Shutdown) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop_requested(&mut stopped) => break,
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let placed = services.iter().find_map(|service| Some((service, service.places.take(address)?)));
                // Without one the connection is closed.
                if let Some((service, place)) = placed {
                    connections.spawn(serve_connection(service.clone(), stream, place, stopped.clone()));
                }
            }
            Err(error) => {
                warn!(%error, "admin connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, address.ip()))
}

async fn stop_requested(stopped: &mut Shutdown) {
    // An error means that the sender is gone, which is a stop as well.
    stopped.requested().await;
}

/// Answers one connection's requests.
async fn serve_connection(service: Service, stream: TcpStream, place: ConnectionPermit, stopped: Shutdown) {
    let (bounds, connection) = (service.bounds, &place.connection);
    let opened = tokio::select! {
        opened = timeout(bounds.head, protocol::open(stream)) => opened,
        () = connection.displaced() => return,
    };
    let ended = match opened {
        Ok(Ok((Protocol::Http1, stream))) => http1(&service, stream, connection, stopped).await,
        Ok(Ok((Protocol::Http2, stream))) => http2(&service, stream, connection, stopped).await,
        Ok(Err(error)) => Err(error.into()),
        // A client that sends nothing gets no answer.
        Err(_) => Ok(()),
    };
    if let Err(error) = ended {
        debug!(error, "admin connection ended with an error");
    }
}

async fn http1(
    service: &Service,
    stream: Opened,
    place: &Arc<Connection>,
    mut stopped: Shutdown,
) -> Result<(), BoxError> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.bounds.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(bounded(service.bounds, stream), counted(service.router.clone(), Arc::clone(place)));
    tokio::pin!(connection);
    let within = tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = stop_requested(&mut stopped) => LINGER_MAX,
        () = place.displaced() => leave_within(place),
    };
    connection.as_mut().graceful_shutdown();
    timeout(within, connection).await.map_or(Ok(()), |ended| Ok(ended?))
}

async fn http2(
    service: &Service,
    stream: Opened,
    place: &Arc<Connection>,
    mut stopped: Shutdown,
) -> Result<(), BoxError> {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .serve_connection(bounded(service.bounds, stream), counted(service.router.clone(), Arc::clone(place)));
    tokio::pin!(connection);
    let within = tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = stop_requested(&mut stopped) => LINGER_MAX,
        () = place.displaced() => leave_within(place),
        () = place.silence(service.bounds.silent) => LINGER_MAX,
    };
    connection.as_mut().graceful_shutdown();
    // Requests in progress are finished, but no client holds a connection for ever by not reading an answer.
    timeout(within, connection).await.map_err(|_| "client did not read its answer")??;
    Ok(())
}

/// A request that came just before its connection's place was given away is still answered.
fn leave_within(place: &Connection) -> Duration {
    if place.is_idle() { LEAVE_MAX } else { LINGER_MAX }
}

/// Answers a connection's requests, each of which is in progress to the last byte of its answer. Parts of answers are activity,
/// too: a live stream is not idle while its client reads it.
fn counted(
    router: Router,
    place: Arc<Connection>,
) -> impl hyper::service::Service<Request<Incoming>, Response = Response, Error = Infallible, Future = Answering> {
    let service = TowerToHyperService::new(router);
    service_fn(move |mut request: Request<Incoming>| -> Answering {
        request.extensions_mut().insert(Client(place.address));
        let under_way = place.begin();
        let place = Arc::clone(&place);
        let answer = service.call(request);
        Box::pin(async move {
            let sent = move |frame| {
                let _ = &under_way;
                place.sign();
                frame
            };
            Ok(answer.await?.map(|body| Body::new(body.map_frame(sent))))
        })
    })
}

fn bounded(bounds: Bounds, stream: Opened) -> TokioIo<Pin<Box<TimeoutStream<Opened>>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(bounds.write));
    TokioIo::new(Box::pin(stream))
}

#[cfg(test)]
mod tests;
