//! The admin port's connections: so many at a time, and none that a slow or silent client can hold open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

/// What connections may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Most connections at a time. More wait in the listener's queue.
    connections: u16,
    /// How long a request's head may take to arrive, and how long a connection may be silent between requests.
    head: Duration,
    /// How long a client may leave written bytes untaken.
    write: Duration,
}

const BOUNDS: Bounds = Bounds { connections: 512, head: Duration::from_secs(15), write: Duration::from_secs(30) };
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
    mut stopped: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(bounds.write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection to the admin port ended with an error");
    }
    drop(permit);
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
        let (address, ..) = start(Bounds { connections: 8, head: SHORT, write: LONG }).await;
        for start in [&b""[..], b"GET / HT", &REQUEST[..REQUEST.len() - 2]] {
            let mut stream = request(address, start).await;
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply).await.unwrap();
            assert!(!reply.starts_with(b"HTTP/1.1 200"), "{start:?}");
        }
        // Silence after an answer ends a connection just so.
        let mut stream = request(address, REQUEST).await;
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        assert_eq!(answer(&mut stream).await, "");
    }

    #[tokio::test]
    async fn whoever_reads_no_answer_is_not_waited_for() {
        let (address, stop, server) = start(Bounds { connections: 8, head: LONG, write: SHORT }).await;
        let stream = request(address, b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
        stop.send(true).unwrap();
        // The answer has no end, so that only the unread bytes end it.
        server.await.unwrap();
        drop(stream);
    }

    #[tokio::test]
    async fn so_many_connections_at_a_time_and_no_more() {
        let (address, stop, server) = start(Bounds { connections: 2, head: LONG, write: LONG }).await;
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
}
