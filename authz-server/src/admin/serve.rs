//! The admin port's connections, HTTP/1.1 and HTTP/2: so many at a time, and none that a slow or silent client can hold open.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::{BoxError, Router};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

use super::protocol::{self, Opened, Protocol};

/// What connections may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Most connections at a time. More wait in the listener's queue.
    connections: u16,
    /// How long a request's head may take to arrive, and how long a connection may be silent between requests.
    head: Duration,
    /// How long a client may leave written bytes untaken.
    write: Duration,
    /// How long an HTTP/2 connection may be without a new request or a part of an answer; clients make another one when they
    /// need it.
    silent: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 512,
    head: Duration::from_secs(15),
    write: Duration::from_secs(30),
    silent: Duration::from_secs(300),
};
/// A client that is gone without a word is noticed after both; HTTP/2 only, because HTTP/1.1 has the bound of silence.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 128;
/// How long an HTTP/2 connection that takes no more requests may take to finish those under way, long exports among them.
const LINGER_MAX: Duration = Duration::from_secs(600);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long accepting rests after an error such as too many open files, which another try at once would only repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the stop. Requests under way are finished; whoever calls bounds how long that may take.
pub async fn serve(listener: TcpListener, router: Router, stopped: watch::Receiver<bool>) {
    serve_within(BOUNDS, listener, router, stopped).await;
}

async fn serve_within(bounds: Bounds, listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(usize::from(bounds.connections)));
    loop {
        let accepted = tokio::select! {
            () = told_to_stop(&mut stopped) => break,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                tokio::spawn(converse(bounds, stream, router.clone(), stopped.clone(), permit));
            }
            Err(error) => {
                warn!(%error, "a connection to the admin port could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Every connection gives its permit back at its end.
    drop(room.acquire_many(u32::from(bounds.connections)).await);
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which is an end as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Answers one connection's requests.
async fn converse(
    bounds: Bounds,
    stream: TcpStream,
    router: Router,
    stopped: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let ended = match timeout(bounds.head, protocol::open(stream)).await {
        Ok(Ok((Protocol::Http1, stream))) => http1(bounds, stream, router, stopped).await,
        Ok(Ok((Protocol::Http2, stream))) => http2(bounds, stream, router, stopped).await,
        Ok(Err(error)) => Err(error.into()),
        // A client that says nothing is not told anything either.
        Err(_) => Ok(()),
    };
    if let Err(error) = ended {
        debug!(error, "a connection to the admin port ended with an error");
    }
    drop(permit);
}

async fn http1(
    bounds: Bounds,
    stream: Opened,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(bounded(bounds, stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    Ok(ended?)
}

async fn http2(
    bounds: Bounds,
    stream: Opened,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    // Parts of answers count, too: a live stream is no silence while its client takes it.
    let signs = Arc::new(AtomicU64::new(0));
    let service = TowerToHyperService::new(router);
    let counted = service_fn(|request: Request<Incoming>| {
        let signs = Arc::clone(&signs);
        signs.fetch_add(1, Ordering::Relaxed);
        let answer = service.call(request);
        async move {
            Ok::<_, Infallible>(answer.await?.map(|body| {
                body.map_frame(move |frame| {
                    signs.fetch_add(1, Ordering::Relaxed);
                    frame
                })
            }))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .serve_connection(bounded(bounds, stream), counted);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = told_to_stop(&mut stopped) => {}
        () = silence(bounds.silent, &signs) => {}
    }
    connection.as_mut().graceful_shutdown();
    // What is under way is finished, but nobody holds a connection for ever by not reading an answer.
    timeout(LINGER_MAX, connection).await.map_err(|_| "a client did not take its answer")??;
    Ok(())
}

/// Ends when there was no sign of life for that long.
async fn silence(silent: Duration, signs: &AtomicU64) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(silent).await;
        let now = signs.load(Ordering::Relaxed);
        if std::mem::replace(&mut seen, now) == now {
            return;
        }
    }
}

fn bounded(bounds: Bounds, stream: Opened) -> TokioIo<Pin<Box<TimeoutStream<Opened>>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(bounds.write));
    TokioIo::new(Box::pin(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A server that answers `/`, and without end `/endless`.
    async fn start(bounds: Bounds) -> (std::net::SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endless = || async {
            Body::from_stream(stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 64 * 1024]))))
        };
        let router = Router::new().route("/", get(|| async { "ok" })).route("/endless", get(endless));
        let (stop, stopped) = watch::channel(false);
        (address, stop, tokio::spawn(serve_within(bounds, listener, router, stopped)))
    }

    async fn request(address: std::net::SocketAddr, text: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text).await.unwrap();
        stream
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut reply = [0; 1024];
        let length = stream.read(&mut reply).await.unwrap();
        String::from_utf8_lossy(&reply[..length]).into_owned()
    }

    #[tokio::test]
    async fn whoever_sends_no_request_is_not_waited_for() {
        let (address, _stop, _server) = start(Bounds { connections: 8, head: SHORT, write: LONG, ..BOUNDS }).await;
        for start in [&b""[..], b"GET / HT", &REQUEST[..REQUEST.len() - 2]] {
            let mut stream = request(address, start).await;
            let mut reply = Vec::new();
            // Bytes that the server did not read make its end a reset.
            let _ = stream.read_to_end(&mut reply).await;
            assert!(!reply.starts_with(b"HTTP/1.1 200"), "{start:?}");
        }
        // Silence after an answer ends a connection just so.
        let mut stream = request(address, REQUEST).await;
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        assert_eq!(answer(&mut stream).await, "");
    }

    #[tokio::test]
    async fn whoever_reads_no_answer_is_not_waited_for() {
        let (address, stop, server) = start(Bounds { connections: 8, head: LONG, write: SHORT, ..BOUNDS }).await;
        let mut stream = request(address, b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        stop.send(true).unwrap();
        // The answer has no end, so that only the unread bytes end it.
        server.await.unwrap();
        drop(stream);
    }

    #[tokio::test]
    async fn so_many_connections_at_a_time_and_no_more() {
        let (address, stop, server) = start(Bounds { connections: 2, head: LONG, write: LONG, ..BOUNDS }).await;
        let mut open = [request(address, REQUEST).await, request(address, REQUEST).await];
        for stream in &mut open {
            assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
        }
        let mut third = request(address, REQUEST).await;
        assert!(tokio::time::timeout(SHORT, answer(&mut third)).await.is_err(), "it was answered");
        drop(open);
        assert!(answer(&mut third).await.starts_with("HTTP/1.1 200"));
        // At the stop, a connection without a request ends.
        stop.send(true).unwrap();
        server.await.unwrap();
        assert_eq!(answer(&mut third).await, "");
    }

    /// A client's HTTP/2 connection, and its end.
    async fn http2_client(
        address: std::net::SocketAddr,
    ) -> (hyper::client::conn::http2::SendRequest<Body>, tokio::task::JoinHandle<hyper::Result<()>>) {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        (sender, tokio::spawn(connection))
    }

    #[tokio::test]
    async fn http2_is_served_beside_http1_and_ends_in_silence() {
        let bounds = Bounds { connections: 8, head: LONG, write: LONG, silent: SHORT };
        let (address, _stop, _server) = start(bounds).await;
        let (mut sender, ended) = http2_client(address).await;
        let asked = Request::get(format!("http://{address}/")).body(Body::empty()).unwrap();
        assert_eq!(sender.send_request(asked).await.unwrap().status(), 200);
        ended.await.unwrap().unwrap();
        let mut http1 = request(address, REQUEST).await;
        assert!(answer(&mut http1).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn http2_goes_on_while_an_answer_does() {
        let bounds = Bounds { connections: 8, head: LONG, write: LONG, silent: Duration::from_millis(500) };
        let (address, _stop, _server) = start(bounds).await;
        let (mut sender, _ended) = http2_client(address).await;
        let ask = |path| Request::get(format!("http://{address}{path}")).body(Body::empty()).unwrap();
        let mut endless = sender.send_request(ask("/endless")).await.unwrap();
        let started = tokio::time::Instant::now();
        while started.elapsed() < 3 * bounds.silent {
            endless.body_mut().frame().await.unwrap().unwrap();
        }
        // A connection that is told to go takes no more requests.
        sender.ready().await.unwrap();
        assert_eq!(sender.send_request(ask("/")).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn http2_ends_at_the_stop() {
        let (address, stop, server) = start(Bounds { connections: 8, head: LONG, write: LONG, silent: LONG }).await;
        let (mut sender, ended) = http2_client(address).await;
        let asked = Request::get(format!("http://{address}/")).body(Body::empty()).unwrap();
        assert_eq!(sender.send_request(asked).await.unwrap().status(), 200);
        stop.send(true).unwrap();
        server.await.unwrap();
        ended.await.unwrap().unwrap();
    }
}
