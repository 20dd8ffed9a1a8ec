//! Servers that messages are sent to: they answer by a script, rightly, wrongly, slowly or never.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use testkit::{Result, wait};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::bench::WITHIN;

/// How long a slow one takes for a byte.
const DRIP_INTERVAL: Duration = Duration::from_millis(20);

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) line: String,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What it says.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole answer: status, more header lines, body.
    Whole(u16, String, String),
    /// Nothing, and the connection stays open.
    Hang,
    /// A head that never ends, byte by byte.
    Drip,
    /// A body that never ends, byte by byte.
    DripBody,
    /// More than anybody wants to read.
    Flood,
    /// The connection ends.
    HangUp,
}

/// A whole answer without a body.
pub(crate) fn status(status: u16) -> Reply {
    Reply::Whole(status, String::new(), String::new())
}

/// A redirect.
pub(crate) fn redirect(code: u16, location: &str) -> Reply {
    Reply::Whole(code, format!("location: {location}\r\n"), String::new())
}

type Script = dyn Fn(usize, &Got) -> Reply + Send + Sync;

/// A running server, ended when dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Answers by a script, which is given the number of the request, from 0.
    pub(crate) async fn start(script: impl Fn(usize, &Got) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// The same on an address of loopback.
    pub(crate) async fn start_at(
        address: &str,
        script: impl Fn(usize, &Got) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let got = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let task = tokio::spawn(serve(listener, Arc::clone(&got), script));
        Ok(Self { address, got, task })
    }

    /// As in `http://127.0.0.1:15001/hook`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many requests, and gives them.
    pub(crate) async fn wait(&self, count: usize) -> Result<Vec<Got>> {
        let what = format!("{count} requests at {}", self.address);
        wait::until_async(&what, WITHIN, || async { Ok(Some(self.got()).filter(|got| got.len() >= count)) }).await
    }
}

async fn serve(listener: TcpListener, got: Arc<Mutex<Vec<Got>>>, script: Arc<Script>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (got, script) = (Arc::clone(&got), Arc::clone(&script));
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let Some(request) = read(&mut stream).await else { return };
            let number = {
                let mut all = got.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(request.clone());
                all.len() - 1
            };
            let _ = answer(stream.get_mut(), script(number, &request)).await;
        });
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Got> {
    let mut got = Got::default();
    stream.read_line(&mut got.line).await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        got.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; got.header("content-length").parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    got.body = String::from_utf8(body).ok()?;
    Some(got)
}

async fn answer(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Whole(status, headers, body) => {
            let head = format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            stream.flush().await
        }
        Reply::Hang => std::future::pending().await,
        Reply::Drip => drip(stream, b"HTTP/1.1 200 OK\r\nx-slow: ").await,
        Reply::DripBody => drip(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await,
        Reply::Flood => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-large: ").await?;
            loop {
                stream.write_all(&[b'x'; 8192]).await?;
            }
        }
        Reply::HangUp => Ok(()),
    }
}

async fn drip(stream: &mut TcpStream, head: &[u8]) -> std::io::Result<()> {
    stream.write_all(head).await?;
    loop {
        stream.write_all(b"x").await?;
        tokio::time::sleep(DRIP_INTERVAL).await;
    }
}
