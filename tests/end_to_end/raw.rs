//! HTTP/1.1 as bytes on a connection, for what no well-behaved client sends: pipelined payments, a body that is asked for, and
//! requests whose length can be read in two ways.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::books::{books_agree, seen_by, settles_at};
use testkit::client::Payment;
use testkit::policies::SINGLE_MAX;
use testkit::stack::Stack;
use testkit::{Failure, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::suite::Suite;

/// Longer than any answer takes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn add(suite: &mut Suite) {
    suite.shared("raw::pipelined_payments_are_each_decided", pipelined_payments);
    suite.shared("raw::a_body_that_is_asked_for", a_body_that_is_asked_for);
    suite.shared("raw::a_length_that_can_be_read_in_two_ways", two_lengths);
    suite.shared("raw::a_client_that_leaves_in_its_body", leaves_in_its_body);
}

pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self(TcpStream::connect(address).await?))
    }

    async fn write(&mut self, text: &str) -> Result<()> {
        self.write_bytes(text.as_bytes()).await
    }

    pub(crate) async fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all(bytes).await?)
    }

    /// Reads the head of an answer.
    pub(crate) async fn read_answer(&mut self) -> Result<String> {
        self.read_until("\r\n\r\n", 1).await
    }

    /// Reads until the text has been seen so often, or the other side closes.
    async fn read_until(&mut self, text: &str, times: usize) -> Result<String> {
        let mut all = Vec::new();
        loop {
            let seen = String::from_utf8_lossy(&all).into_owned();
            if seen.matches(text).count() >= times {
                return Ok(seen);
            }
            let read = timeout(ANSWERED_WITHIN, self.0.read_buf(&mut all)).await;
            if read.map_err(|_| Failure::new(format!("no {text:?} in {seen:?}")))?? == 0 {
                return Ok(seen);
            }
        }
    }
}

/// The head of a payment with more header lines.
fn head(path: &str, lines: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: payments\r\ncontent-type: application/json\r\n{lines}\r\n")
}

fn whole(path: &str, body: &str) -> String {
    head(path, &format!("content-length: {}\r\n", body.len())) + body
}

/// Three payments in one write: what stands behind a decided one is decided as well.
async fn pipelined_payments(stack: &Stack) -> Result<()> {
    let merchant = "pipelined";
    let pay = |number: u32, cents: u64| {
        whole("/v1/payments", &Payment::new(merchant, &format!("{merchant}-{number}"), cents).body())
    };
    let mut connection = Connection::open(stack.envoy.address()).await?;
    connection.write(&[pay(1, 6_000), pay(2, SINGLE_MAX + 1), pay(3, 1_000)].concat()).await?;
    let answers = connection.read_until("HTTP/1.1 ", 3).await?;
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
    ensure_eq!(statuses, ["200", "403", "200"], "{answers}");
    ensure_eq!(seen_by(stack, merchant).len(), 2);
    settles_at(stack, merchant, (7_000, 2)).await?;
    books_agree(stack, merchant).await.map(drop)
}

/// A client that sends its body only when it is asked to go on: the filter must not wait for the body before that.
async fn a_body_that_is_asked_for(stack: &Stack) -> Result<()> {
    for (number, cents, status) in [(1, 6_000, "HTTP/1.1 200"), (2, SINGLE_MAX + 1, "HTTP/1.1 403")] {
        let merchant = format!("asked{number}");
        let body = Payment::new(&merchant, &format!("{merchant}-1"), cents).body();
        let mut connection = Connection::open(stack.envoy.address()).await?;
        let lines = format!("content-length: {}\r\nexpect: 100-continue\r\n", body.len());
        connection.write(&head("/v1/payments", &lines)).await?;
        let asked = connection.read_until("HTTP/1.1 100", 1).await?;
        ensure!(asked.contains("HTTP/1.1 100"), "{asked}");
        connection.write(&body).await?;
        let answer = connection.read_until(status, 1).await?;
        ensure!(answer.contains(status), "{answer}");
        books_agree(stack, &merchant).await?;
    }
    Ok(())
}

/// Both a length and chunks, two lengths, and a strange coding: none of them carries a payment past its decision.
async fn two_lengths(stack: &Stack) -> Result<()> {
    let merchant = "smuggled";
    let hidden = whole("/v1/payments", &Payment::new(merchant, &format!("{merchant}-1"), SINGLE_MAX + 1).body());
    let outer = Payment::new("smuggler", "smuggler-1", 6_000).body();
    let length = outer.len();
    let both = format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n");
    let tables = [
        head("/v1/statements", &both) + "0\r\n\r\n" + &hidden,
        head("/v1/statements", &format!("content-length: 4\r\ncontent-length: {}\r\n", hidden.len())) + &hidden,
        head("/v1/statements", "transfer-encoding: chunked, identity\r\n") + "0\r\n\r\n" + &hidden,
        head("/v1/statements", "transfer-encoding:\u{b}chunked\r\n") + "0\r\n\r\n" + &hidden,
        head("/v1/statements", "content-length: +0\r\n") + &hidden,
        head("/v1/statements", "content-length : 0\r\n") + &hidden,
    ];
    for request in tables {
        let mut connection = Connection::open(stack.envoy.address()).await?;
        connection.write(&request).await?;
        let answer = connection.read_until("HTTP/1.1 ", 2).await?;
        let refused = ["HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 501"].iter().any(|status| answer.contains(status));
        ensure!(refused, "{request}\n\n{answer}");
        let seen = seen_by(stack, merchant);
        ensure!(seen.is_empty(), "{request}\n\nthe gateway saw {seen:?}");
    }
    Ok(())
}

/// A connection that ends in the middle of a body was no payment.
async fn leaves_in_its_body(stack: &Stack) -> Result<()> {
    let merchant = "halfway";
    let body = Payment::new(merchant, &format!("{merchant}-1"), 6_000).body();
    let request = whole("/v1/payments", &body);
    let (before, _) = request.split_at(request.len() - 1);
    let mut connection = Connection::open(stack.envoy.address()).await?;
    connection.write(before).await?;
    drop(connection);
    // The same order again is the first that is decided.
    let answer =
        stack.send(testkit::client::Protocol::Http1, Payment::new(merchant, &format!("{merchant}-1"), 7_000).call());
    ensure_eq!(answer.await?.status, 200);
    settles_at(stack, merchant, (7_000, 1)).await?;
    ensure_eq!(seen_by(stack, merchant).len(), 1);
    ensure_eq!(books_agree(stack, merchant).await?.len(), 1);
    Ok(())
}
