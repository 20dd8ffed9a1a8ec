use super::*;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use sluice_kit::shutdown::{self, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

const fn places(all: usize) -> Room {
    Room { all, per_client: all }
}

/// A server that answers `/`, and without end `/endless`.
async fn start(bounds: Bounds) -> (std::net::SocketAddr, Stop, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = || async {
        Body::from_stream(stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 64 * 1024]))))
    };
    let router = Router::new().route("/", get(|| async { "ok" })).route("/endless", get(endless));
    let (stop, stopped) = shutdown::channel();
    let services = [Service::new(bounds, router)];
    (address, stop, tokio::spawn(async move { serve_all(listener, &services, stopped).await }))
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
    let (address, _stop, _server) = start(Bounds { room: places(8), head: SHORT, write: LONG, ..BOUNDS }).await;
    for start in [&b""[..], b"GET / HT", &REQUEST[..REQUEST.len() - 2]] {
        let mut stream = request(address, start).await;
        let mut reply = Vec::new();
        // Bytes that the server did not read make its end a reset.
        let _ = stream.read_to_end(&mut reply).await;
        assert!(!reply.starts_with(b"HTTP/1.1 200"), "{start:?}");
    }
    // Idle time after an answer ends a connection as well.
    let mut stream = request(address, REQUEST).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(answer(&mut stream).await, "");
}

#[tokio::test]
async fn whoever_reads_no_answer_is_not_waited_for() {
    let (address, stop, server) = start(Bounds { room: places(8), head: LONG, write: SHORT, ..BOUNDS }).await;
    let mut stream = request(address, b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    stop.request();
    // The answer has no end, so that only the unread bytes end it.
    server.await.unwrap();
    drop(stream);
}

/// X10: an idle connection makes room; one in use does not.
#[tokio::test]
async fn x10_so_many_connections_at_a_time_and_no_more() {
    let (address, stop, server) = start(Bounds { room: places(2), head: LONG, write: LONG, ..BOUNDS }).await;
    let mut open = [request(address, REQUEST).await, request(address, REQUEST).await];
    for stream in &mut open {
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
    }
    let mut third = request(address, REQUEST).await;
    assert!(answer(&mut third).await.starts_with("HTTP/1.1 200"));
    assert_eq!(answer(&mut open[0]).await, "", "the one that was idle longest");
    // With an answer in progress on each, there is no room.
    for stream in [&mut open[1], &mut third] {
        stream.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
    }
    let mut fourth = TcpStream::connect(address).await.unwrap();
    assert_eq!(fourth.read(&mut [0]).await.unwrap_or(0), 0, "it was answered");
    drop((open, third));
    stop.request();
    server.await.unwrap();
}

/// X10: 600 connections that send nothing, or an incomplete request, block no client.
#[tokio::test]
async fn x10_idle_connections_keep_no_one_out() {
    let (address, _stop, _server) = start(Bounds { room: Room { all: 64, per_client: 16 }, ..BOUNDS }).await;
    let mut held = Vec::new();
    for place in 0..600 {
        let begin: &[u8] = if place % 2 == 0 { b"" } else { b"GET / HT" };
        held.push(request(address, begin).await);
    }
    let mut one_more = request(address, REQUEST).await;
    assert!(answer(&mut one_more).await.starts_with("HTTP/1.1 200"));
    drop(held);
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
    let bounds = Bounds { room: places(8), head: LONG, write: LONG, silent: SHORT };
    let (address, _stop, _server) = start(bounds).await;
    let (mut sender, ended) = http2_client(address).await;
    let http2 = Request::get(format!("http://{address}/")).body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(http2).await.unwrap().status(), 200);
    ended.await.unwrap().unwrap();
    let mut http1 = request(address, REQUEST).await;
    assert!(answer(&mut http1).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn http2_goes_on_while_an_answer_does() {
    let bounds = Bounds { room: places(8), head: LONG, write: LONG, silent: Duration::from_millis(500) };
    let (address, _stop, _server) = start(bounds).await;
    let (mut sender, _ended) = http2_client(address).await;
    let request = |path| Request::get(format!("http://{address}{path}")).body(Body::empty()).unwrap();
    let mut endless = sender.send_request(request("/endless")).await.unwrap();
    let started = tokio::time::Instant::now();
    while started.elapsed() < 3 * bounds.silent {
        endless.body_mut().frame().await.unwrap().unwrap();
    }
    // A connection that has to close accepts no more requests.
    sender.ready().await.unwrap();
    assert_eq!(sender.send_request(request("/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn http2_ends_at_the_stop() {
    let (address, stop, server) = start(Bounds { room: places(8), head: LONG, write: LONG, silent: LONG }).await;
    let (mut sender, ended) = http2_client(address).await;
    let request = Request::get(format!("http://{address}/")).body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    stop.request();
    server.await.unwrap();
    ended.await.unwrap().unwrap();
}
