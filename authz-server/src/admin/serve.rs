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

/// Most connections at a time. More wait in the listener's queue.
const CONNECTIONS_MAX: usize = 512;
/// How long a request's head may take to arrive, and how long a connection may be silent between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may leave written bytes untaken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long accepting rests after an error such as too many open files, which another try at once would only repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the stop. Requests under way are finished; whoever calls bounds how long that may take.
///
/// # Errors
/// None at present: a connection's error ends that connection only.
pub async fn serve(listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = told_to_stop(&mut stopped) => break,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                tokio::spawn(converse(stream, router.clone(), stopped.clone(), permit));
            }
            Err(error) => {
                warn!(%error, "a connection to the admin port could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Every connection gives its permit back at its end.
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    drop(room.acquire_many(all).await);
    Ok(())
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
    stream: TcpStream,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
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
