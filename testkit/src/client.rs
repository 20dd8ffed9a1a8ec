//! HTTP clients with full control over a request: its parts and their timing, trailers, leaving in the middle.

mod call;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub use call::{Aborted, Call, CallBody, Part, Payment};

use crate::failure::{Context, Failure, Result};

/// Longer than every deadline on the way; a request that takes this long hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// With prior knowledge, without TLS.
    Http2,
}

impl Protocol {
    /// Both, for tests that run over each.
    pub const BOTH: [Self; 2] = [Self::Http1, Self::Http2];
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of a refusal (a problem body's `code`), or an empty text.
    #[must_use]
    pub fn code(&self) -> String {
        self.json().get("code").and_then(|code| code.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

enum Sender {
    Http1(http1::SendRequest<CallBody>),
    Http2(http2::SendRequest<CallBody>),
}

/// One connection, kept alive between calls; dropping it closes it at once.
pub struct Client {
    address: SocketAddr,
    protocol: Protocol,
    sender: Sender,
    driver: JoinHandle<()>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).field("protocol", &self.protocol).finish()
    }
}

impl Client {
    /// Opens a connection.
    ///
    /// # Errors
    /// When no server listens, or it speaks something else.
    pub async fn connect(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        let (sender, driver) = open(address, protocol).await.context(format!("connecting to {address}"))?;
        Ok(Self { address, protocol, sender, driver })
    }

    /// Sends a call and reads the whole answer. A connection that the other side has closed is opened anew before sending;
    /// nothing is ever sent twice.
    ///
    /// # Errors
    /// When the connection breaks or no answer comes within 30 seconds.
    pub async fn send(&mut self, call: Call) -> Result<Answer> {
        let answered = tokio::time::timeout(ANSWER_WITHIN, self.exchange(call)).await;
        answered.map_err(|_| Failure::new(format!("no answer within {ANSWER_WITHIN:?}")))?
    }

    async fn exchange(&mut self, call: Call) -> Result<Answer> {
        if self.make_ready().await.is_err() {
            self.driver.abort();
            (self.sender, self.driver) = open(self.address, self.protocol).await?;
            self.make_ready().await?;
        }
        let request = call.into_request(self.address, self.protocol)?;
        let response = match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await?,
            Sender::Http2(sender) => sender.send_request(request).await?,
        };
        read(response).await
    }

    async fn make_ready(&mut self) -> hyper::Result<()> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens a connection, sends one call over it and closes it.
///
/// # Errors
/// Those of [`Client::connect`] and [`Client::send`].
pub async fn send_once(address: SocketAddr, protocol: Protocol, call: Call) -> Result<Answer> {
    Client::connect(address, protocol).await?.send(call).await
}

async fn open(address: SocketAddr, protocol: Protocol) -> Result<(Sender, JoinHandle<()>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(stream);
    Ok(match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(stream).await?;
            (Sender::Http1(sender), tokio::spawn(async move { drop(connection.await) }))
        }
        Protocol::Http2 => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
        }
    })
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("reading the answer's body")?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
}
