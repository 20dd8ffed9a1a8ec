//! A tiny payment gateway: it captures every payment, or fails as the request's `x-gateway` header asks, and remembers what
//! it saw.

mod behaviour;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::sync::oneshot;

pub use behaviour::HEADER;
use behaviour::{Answer, Behaviour};

use crate::failure::{Context, Failure, Result};
use crate::ports::loopback;

/// A gateway that remembers stops remembering here, so that a load test does not eat the memory.
const SEEN_MAX: usize = 200_000;

/// A request as the gateway received it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `order_no` of a JSON body.
    pub order_no: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    remembers: bool,
    seen: Mutex<Vec<Seen>>,
    count: AtomicU64,
}

/// A running gateway in a thread of its own, HTTP/1.1 and HTTP/2 without TLS on one port.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Gateway {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(loopback(0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { remembers: true, ..State::default() });
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        let run = move || {
            if let Err(failure) = serve_until(listener, served, stopped) {
                eprintln!("the gateway ended: {failure}");
            }
        };
        let thread = std::thread::Builder::new().name("gateway".to_owned()).spawn(run)?;
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything it received so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests that carried this order number.
    #[must_use]
    pub fn seen_order(&self, order_no: &str) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|request| request.order_no.as_deref() == Some(order_no)).cloned().collect()
    }

    /// Number of requests received so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.state.count.load(Ordering::Relaxed)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves on `listener` without remembering anything, until the process ends: the gateway of a load test or a container.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve_forever(listener: TcpListener) -> Result<()> {
    let (_stop, stopped) = oneshot::channel();
    serve_until(listener, Arc::default(), stopped)
}

fn serve_until(listener: TcpListener, state: Arc<State>, stopped: oneshot::Receiver<()>) -> Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).context("the gateway's listener")?;
        tokio::select! {
            failure = accept(listener, state) => Err(failure),
            _ = stopped => Ok(()),
        }
    })
}

async fn accept(listener: tokio::net::TcpListener, state: Arc<State>) -> Failure {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return error.into(),
        };
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(request, Arc::clone(&state)));
        tokio::spawn(async move {
            // Connections end in errors by design here: see `Behaviour::Reset`.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> std::result::Result<Response<Answer>, behaviour::Broken> {
    let behaviour = Behaviour::of(request.headers());
    let (head, body) = request.into_parts();
    // A gateway cannot act on a request that broke off, so it does not count as seen.
    let body = body.collect().await.map_err(|_| behaviour::Broken)?.to_bytes();
    let order_no = order_no(&body);
    state.count.fetch_add(1, Ordering::Relaxed);
    let mut tries = 1;
    if state.remembers {
        let seen = Seen {
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: head.headers,
            body,
            order_no: order_no.clone(),
        };
        let mut all = state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        tries += all.iter().filter(|earlier| order_no.is_some() && earlier.order_no == order_no).count();
        if all.len() < SEEN_MAX {
            all.push(seen);
        }
    }
    behaviour.answer(order_no.as_deref(), tries).await
}

fn order_no(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Payment {
        order_no: String,
    }
    serde_json::from_slice::<Payment>(body).ok().map(|payment| payment.order_no)
}
