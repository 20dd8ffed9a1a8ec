//! A client of server-sent events, as browsers have one: it reads when it is asked to, and remembers the last id.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::api::ROOT;
use crate::client::Answer;
use crate::failure::{Context, Failure, Result};

/// Longer than any wait of a test's server.
const FRAME_WITHIN: Duration = Duration::from_secs(30);
/// Receive buffer of a client that shall not read ahead, in bytes.
const NARROW_BYTES: u32 = 4096;

/// An event, or a heartbeat where there is none in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Event { name: String, data: Value },
    Beat,
}

/// An open stream.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    text: String,
    last_id: Option<String>,
    /// How many ids came.
    pub ids: usize,
    pub headers: HeaderMap,
    driver: JoinHandle<()>,
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// How to open one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `Last-Event-ID`.
    pub last_id: Option<&'a str>,
    /// With so small a buffer that the client's system takes little that it does not read.
    pub narrow: bool,
}

impl EventStream {
    /// Opens the stream at a path after `/api/v1`, with a bearer token.
    ///
    /// # Errors
    /// When the server does not answer, or answers with something else than a stream.
    pub async fn open(address: SocketAddr, token: &str, path: &str, options: Options<'_>) -> Result<Self> {
        match Self::ask(address, token, path, options).await? {
            Ok(stream) => Ok(stream),
            Err(answer) => Err(Failure::new(format!("{path}: {} {}", answer.status, answer.json()))),
        }
    }

    /// The same, where an answer that is no stream is none of the errors.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn ask(
        address: SocketAddr,
        token: &str,
        path: &str,
        options: Options<'_>,
    ) -> Result<std::result::Result<Self, Answer>> {
        let socket = TcpSocket::new_v4()?;
        if options.narrow {
            socket.set_recv_buffer_size(NARROW_BYTES)?;
        }
        let stream = socket.connect(address).await.context("opening a stream")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::get(format!("{ROOT}{path}")).header("host", address.to_string());
        request = request.header("authorization", format!("Bearer {token}"));
        if let Some(id) = options.last_id {
            request = request.header("last-event-id", id);
        }
        let (head, mut body) = sender.send_request(request.body(Empty::<Bytes>::new())?).await?.into_parts();
        if head.status != 200 {
            let body = (&mut body).collect().await?.to_bytes();
            return Ok(Err(Answer { status: head.status.as_u16(), headers: head.headers, body }));
        }
        let last_id = options.last_id.map(str::to_owned);
        Ok(Ok(Self { body, text: String::new(), last_id, ids: 0, headers: head.headers, driver }))
    }

    /// The last id that came, to go on from.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next event; heartbeats are passed over. `None` at the end.
    ///
    /// # Errors
    /// When none comes within half a minute, or what comes is no event.
    pub async fn event(&mut self) -> Result<Option<(String, Value)>> {
        loop {
            match self.frame().await? {
                Some(Frame::Event { name, data }) => return Ok(Some((name, data))),
                Some(Frame::Beat) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next so many events.
    ///
    /// # Errors
    /// As [`EventStream::event`], and where the stream ends before.
    pub async fn events(&mut self, count: usize) -> Result<Vec<(String, Value)>> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let event = self.event().await?;
            events.push(event.ok_or_else(|| Failure::new(format!("the stream ended after {events:?}")))?);
        }
        Ok(events)
    }

    /// The next frame. `None` at the end, also where the connection broke.
    ///
    /// # Errors
    /// When none comes within half a minute, or what comes is no event.
    pub async fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let frame: String = self.text.drain(..end + 2).collect();
                return self.read(&frame).map(Some);
            }
            let next = tokio::time::timeout(FRAME_WITHIN, self.body.frame()).await;
            match next.map_err(|_| Failure::new(format!("nothing came within {FRAME_WITHIN:?}")))? {
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.text.push_str(std::str::from_utf8(&bytes).context("a stream's text")?);
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }

    fn read(&mut self, frame: &str) -> Result<Frame> {
        let (mut name, mut data) = ("message".to_owned(), String::new());
        for line in frame.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "id" => (self.last_id, self.ids) = (Some(value.to_owned()), self.ids + 1),
                "data" => data.push_str(value),
                "retry" => {}
                field => return Err(Failure::new(format!("{field} is no field of an event: {frame}"))),
            }
        }
        if data.is_empty() {
            return Ok(Frame::Beat);
        }
        Ok(Frame::Event { name, data: serde_json::from_str(&data).context("an event's data")? })
    }
}
