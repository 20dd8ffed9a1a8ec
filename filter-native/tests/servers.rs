//! The client's connections, against servers that answer, refuse or hang: when they are made, waited for and closed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_filter_native::client::grpc::{DEADLINE_EXCEEDED, OK, UNAVAILABLE};
use sluice_filter_native::client::{CONNECT_TIMEOUT, Clients, Server};
use sluice_filter_native::engine::{Call, Message};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Answers every call of every connection. Returns when the first connection ends.
async fn serve(listener: TcpListener) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let answer = http::Response::builder().header("grpc-status", "0").body(()).unwrap();
        respond.send_response(answer, true).unwrap();
    }
}

async fn listen() -> (TcpListener, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::Tcp(listener.local_addr().unwrap().to_string());
    (listener, server)
}

fn call(name: &Arc<str>, timeout_ms: u32) -> Call {
    Call {
        token: 1,
        cluster: Arc::clone(name),
        method: filter::wire::CHECK,
        message: vec![0],
        timeout_ms,
        answer_bytes_max: 100,
    }
}

async fn answer(answers: &mut UnboundedReceiver<Message>) -> u32 {
    match answers.recv().await {
        Some(Message::Answer { grpc_status, .. }) => grpc_status,
        other => panic!("{other:?}"),
    }
}

fn clients() -> (Clients, UnboundedReceiver<Message>) {
    let (sender, answers) = unbounded_channel();
    (Clients::new(sender), answers)
}

/// A connection that takes longer than the call that wanted it is made all the same.
#[tokio::test]
async fn a_call_that_ends_leaves_its_connection_in_the_making() {
    let (listener, server) = listen().await;
    let (mut clients, mut answers) = clients();
    let name = Arc::from("one");
    clients.open(&name, vec![server]);
    clients.start(call(&name, 0));
    assert_eq!(answer(&mut answers).await, DEADLINE_EXCEEDED);
    let (stream, _) = listener.accept().await.unwrap();
    assert!(h2::server::handshake(stream).await.is_ok(), "the client speaks HTTP/2 on it");
}

/// A server whose connection hangs costs the calls nothing where another one is there.
#[tokio::test]
async fn a_server_that_hangs_is_no_wait_for_the_others() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Further connections than these two hang: nothing accepts them.
    let full = socket.listen(1).unwrap();
    let place = full.local_addr().unwrap();
    let _waiting = [TcpStream::connect(place).await.unwrap(), TcpStream::connect(place).await.unwrap()];
    let (listener, good) = listen().await;
    let server = tokio::spawn(serve(listener));
    let (mut clients, mut answers) = clients();
    let name = Arc::from("two");
    clients.open(&name, vec![Server::Tcp(place.to_string()), good]);
    let begun = Instant::now();
    for _ in 0..4 {
        clients.start(call(&name, 5_000));
        assert_eq!(answer(&mut answers).await, OK);
    }
    assert!(begun.elapsed() < CONNECT_TIMEOUT, "{:?}", begun.elapsed());
    server.abort();
}

#[tokio::test]
async fn a_server_that_refuses_fails_its_calls_at_once() {
    let (listener, server) = listen().await;
    drop(listener);
    let (mut clients, mut answers) = clients();
    let name = Arc::from("none");
    clients.open(&name, vec![server]);
    let begun = Instant::now();
    for _ in 0..3 {
        clients.start(call(&name, 5_000));
        assert_eq!(answer(&mut answers).await, UNAVAILABLE);
    }
    assert!(begun.elapsed() < CONNECT_TIMEOUT, "{:?}", begun.elapsed());
}

/// A configuration that is validated only makes no connection, and what nothing names any more is closed.
#[tokio::test]
async fn servers_are_connected_with_the_first_call_and_closed_after_the_last() {
    let ((first, one), (second, two)) = (listen().await, listen().await);
    let (mut clients, mut answers) = clients();
    let name = Arc::from("two");
    clients.open(&name, vec![one, two]);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    for listener in [&first, &second] {
        assert!(timeout(Duration::ZERO, listener.accept()).await.is_err(), "nothing was called");
    }
    let servers = [tokio::spawn(serve(first)), tokio::spawn(serve(second))];
    clients.start(call(&name, 5_000));
    assert_eq!(answer(&mut answers).await, OK);
    clients.end_unused();
    clients.start(call(&name, 5_000));
    assert_eq!(answer(&mut answers).await, OK);
    drop(name);
    clients.end_unused();
    assert_eq!(format!("{clients:?}"), "Clients { clusters: [], .. }");
    for server in servers {
        server.await.unwrap();
    }
}
