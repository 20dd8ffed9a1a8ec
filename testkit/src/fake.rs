//! A decision server that answers by a script: rightly, wrongly, late or never, one check at a time or a batch of them.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use proto::batch::{BatchCheckRequest, BatchCheckResponse, BatchCheckResult};
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{CheckRequest, CheckResponse, HeaderValue as Pair, HeaderValueOption, OkHttpResponse, RpcStatus};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::failure::Result;
use crate::ports::loopback;

/// One question: the extensions of the check.
pub type Asked = HashMap<String, String>;

/// The path of a call.
const BATCH_PATH: &str = "/sluice.authz.v1.BatchAuthorization/BatchCheck";
/// Envoy's health checks, which are no questions: the server serves.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";
const SERVING: [u8; 2] = [8, 1];
/// A gRPC frame begins with a flag and the length of its message.
const FRAME_HEAD_BYTES: usize = 5;

/// How the proxy asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `Authorization/Check`.
    Check,
    /// `BatchAuthorization/BatchCheck`.
    BatchCheck,
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counts from 0 in the order of arrival.
    pub number: u64,
    pub method: Method,
    /// One for a check; as many as came for a batch.
    pub questions: Vec<Asked>,
}

/// What one question is answered.
#[derive(Clone, Debug)]
pub enum Verdict {
    Response(CheckResponse),
    /// It failed with this gRPC status.
    Status(u32),
}

/// What a call is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// One for each question, or too few or too many. A check is answered the first one.
    Verdicts(Vec<Verdict>),
    /// A frame with these bytes, which says that it has `length`.
    Frame { bytes: Bytes, length: u32 },
    /// The call fails with this status.
    Status(u32),
    /// As a web server answers that knows no gRPC.
    NoGrpc,
    /// The connection ends instead.
    HangUp,
    /// The connection is asked to end with what is under way, and the call is answered so.
    GoAway(Vec<Verdict>),
}

/// What the server says on each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    #[default]
    Http2,
    Http1,
    /// Connections end as soon as they are made.
    Nothing,
}

/// Answers calls. The future ends with its call where the proxy does not wait for the answer.
pub trait Script: Send + Sync + 'static {
    /// The answer to one call.
    fn reply(&self, call: Call) -> impl Future<Output = Reply> + Send;
}

/// A running server, ended when dropped.
#[derive(Debug)]
pub struct FakeServer<S> {
    address: SocketAddr,
    script: Arc<S>,
    speaks: watch::Sender<Speaks>,
    accepting: JoinHandle<()>,
}

impl<S: Script> FakeServer<S> {
    /// Listens on a free loopback port, within a runtime.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(script: S) -> Result<Self> {
        let listener = TcpListener::bind(loopback(0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (script, speaks) = (Arc::new(script), watch::Sender::new(Speaks::Http2));
        let (calls, served, protocol) = (Arc::<AtomicU64>::default(), Arc::clone(&script), speaks.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let connection = Connection {
                    script: Arc::clone(&served),
                    calls: Arc::clone(&calls),
                    hang_up: Notify::new(),
                    go_away: Notify::new(),
                };
                tokio::spawn(Arc::new(connection).serve(TokioIo::new(stream), protocol.subscribe()));
            }
        });
        Ok(Self { address, script, speaks, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What answers.
    #[must_use]
    pub fn script(&self) -> &S {
        &self.script
    }

    /// Changes what is spoken; open connections end, so that the next question meets the change.
    pub fn speaks(&self, speaks: Speaks) {
        self.speaks.send_replace(speaks);
    }
}

impl<S> Drop for FakeServer<S> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Connection<S> {
    script: Arc<S>,
    calls: Arc<AtomicU64>,
    hang_up: Notify,
    go_away: Notify,
}

type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

impl<S: Script> Connection<S> {
    async fn serve(self: Arc<Self>, stream: TokioIo<tokio::net::TcpStream>, mut changes: watch::Receiver<Speaks>) {
        let speaks = *changes.borrow_and_update();
        let own = Arc::clone(&self);
        let service = service_fn(move |request| Arc::clone(&own).answer(request));
        // Connections end in errors by design here.
        match speaks {
            Speaks::Nothing => {}
            Speaks::Http1 => tokio::select! {
                _ = changes.changed() => {}
                () = self.hang_up.notified() => {}
                _ = http1::Builder::new().serve_connection(stream, service) => {}
            },
            Speaks::Http2 => {
                let mut serving = pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service));
                loop {
                    tokio::select! {
                        _ = changes.changed() => return,
                        () = self.hang_up.notified() => return,
                        () = self.go_away.notified() => serving.as_mut().graceful_shutdown(),
                        _ = serving.as_mut() => return,
                    }
                }
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> std::result::Result<Answer, hyper::Error> {
        if request.uri().path() == HEALTH_PATH {
            return Ok(framed(&SERVING, 2));
        }
        let method = if request.uri().path() == BATCH_PATH { Method::BatchCheck } else { Method::Check };
        let body = request.into_body().collect().await?.to_bytes();
        let questions = questions(method, body.get(FRAME_HEAD_BYTES..).unwrap_or_default());
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(match self.script.reply(Call { number, method, questions }).await {
            Reply::Verdicts(verdicts) => answered(method, verdicts),
            Reply::Frame { bytes, length } => framed(&bytes, length),
            Reply::Status(status) => failing(status),
            Reply::NoGrpc => no_grpc(),
            Reply::HangUp => {
                self.hang_up.notify_one();
                std::future::pending().await
            }
            Reply::GoAway(verdicts) => {
                self.go_away.notify_one();
                answered(method, verdicts)
            }
        })
    }
}

/// What cannot be read counts as asked without anything in it.
fn questions(method: Method, message: &[u8]) -> Vec<Asked> {
    let extensions = |check: CheckRequest| check.attributes.unwrap_or_default().context_extensions;
    match method {
        Method::Check => vec![extensions(CheckRequest::decode(message).unwrap_or_default())],
        Method::BatchCheck => {
            let batch = BatchCheckRequest::decode(message).unwrap_or_default();
            batch.checks.into_iter().map(|check| extensions(check.into())).collect()
        }
    }
}

fn answered(method: Method, verdicts: Vec<Verdict>) -> Answer {
    match method {
        Method::BatchCheck => message(&BatchCheckResponse { results: verdicts.into_iter().map(result).collect() }),
        Method::Check => match verdicts.into_iter().next() {
            Some(Verdict::Response(response)) => message(&response),
            Some(Verdict::Status(status)) => failing(status),
            // A call that succeeds without a message.
            None => failing(0),
        },
    }
}

fn result(verdict: Verdict) -> BatchCheckResult {
    match verdict {
        Verdict::Response(response) => BatchCheckResult { grpc_status: 0, response: Some(response) },
        Verdict::Status(grpc_status) => BatchCheckResult { grpc_status, response: None },
    }
}

/// An answer that allows, with these headers for the gateway.
#[must_use]
pub fn allowing(headers: &[(&str, &str)]) -> CheckResponse {
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers: options(headers) })),
        ..CheckResponse::default()
    }
}

/// Headers as an answer carries them.
#[must_use]
pub fn options(headers: &[(&str, &str)]) -> Vec<HeaderValueOption> {
    let pair = |(key, value): &(&str, &str)| Pair { key: (*key).to_owned(), value: (*value).to_owned() };
    headers.iter().map(|header| HeaderValueOption { header: Some(pair(header)) }).collect()
}

fn message(message: &impl Message) -> Answer {
    let bytes = message.encode_to_vec();
    framed(&bytes, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

/// A gRPC message with the length that its frame says, and status 0 in the trailers.
fn framed(bytes: &[u8], length: u32) -> Answer {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put(bytes);
    let trailers = HeaderMap::from_iter([grpc_status(0)]);
    grpc(Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed())
}

fn failing(status: u32) -> Answer {
    let mut response = grpc(Empty::new().boxed());
    response.headers_mut().extend([grpc_status(status)]);
    response
}

fn grpc(body: BoxBody<Bytes, std::convert::Infallible>) -> Answer {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn no_grpc() -> Answer {
    let mut response = Response::new(Full::from("<html>").boxed());
    *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn grpc_status(status: u32) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static("grpc-status"), HeaderValue::from(status))
}
