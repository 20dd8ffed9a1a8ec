//! A decision server that answers wrongly, late or never, as it is told, and remembers what it was asked; and an Envoy that
//! asks it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use e2e::client::{Answer, Call, Protocol, send_once};
use e2e::dirs::RunDir;
use e2e::envoy::{Envoy, EnvoyConfig};
use e2e::gateway::Gateway;
use e2e::stack::StackOptions;
use e2e::{Failure, Result, build};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue as Pair, HeaderValueOption};
use proto::envoy::{HttpStatus, OkHttpResponse, RpcStatus};
use proto::{extension, header};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// As a sound server: every charge is admitted, every void is taken.
    Admitted,
    /// A whole frame whose bytes are no message.
    Garbage,
    /// A frame that promises more bytes than come.
    HalfFrame,
    /// An answer with nothing in it.
    Nothing,
    /// It allows and names no code.
    NoCode,
    /// It allows and names a code that does not exist.
    UnknownCode,
    /// It allows with the code of a refusal.
    AllowsRefusal,
    /// It allows by its status and refuses by its body.
    Contradicts,
    /// The call fails with this status.
    Status(u32),
    /// It answers as a web server does that knows no gRPC.
    NoGrpc,
    /// It reads the question and says nothing.
    Silent,
    /// It ends the connection instead of answering.
    HangsUp,
    /// It speaks HTTP/1.1 only.
    Http1,
}

/// One question: the extensions of the check.
pub(crate) type Asked = HashMap<String, String>;

struct State {
    says: watch::Sender<Says>,
    asked: Mutex<Vec<Asked>>,
}

/// A running server, ended when dropped.
pub(crate) struct FakeServer {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl FakeServer {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let state = Arc::new(State { says: watch::Sender::new(Says::Admitted), asked: Mutex::default() });
        let served = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(TokioIo::new(stream), Arc::clone(&served)));
            }
        });
        Ok(Self { address, state, accepting })
    }

    /// Changes the answers; open connections end, so that the next question meets the change.
    pub(crate) fn says(&self, says: Says) {
        self.state.says.send_replace(says);
    }

    /// Everything it was asked so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The attempts that were to be charged, or taken back, so far.
    pub(crate) fn attempts(&self, action: &str) -> Vec<String> {
        let of_action = |asked: &Asked| asked.get(extension::ACTION).is_some_and(|own| own == action);
        let asked = self.asked().into_iter().filter(of_action);
        asked.filter_map(|mut asked| asked.remove(extension::ATTEMPT)).collect()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(stream: TokioIo<tokio::net::TcpStream>, state: Arc<State>) {
    let mut changes = state.says.subscribe();
    let says = *changes.borrow_and_update();
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    // Connections end in errors by design here.
    tokio::select! {
        _ = changes.changed() => {}
        _ = async {
            match says {
                Says::HangsUp => {}
                Says::Http1 => drop(http1::Builder::new().serve_connection(stream, service).await),
                _ => drop(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await),
            }
        } => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> std::result::Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let asked = body.get(5..).and_then(|message| CheckRequest::decode(message).ok()).unwrap_or_default();
    let extensions = asked.attributes.unwrap_or_default().context_extensions;
    let voids = extensions.get(extension::ACTION).is_some_and(|action| action == extension::ACTION_VOID);
    let says = *state.says.borrow();
    state.asked.lock().unwrap_or_else(PoisonError::into_inner).push(extensions);
    Ok(match says {
        Says::Admitted => message(&allowing(Some(if voids { "VOIDED" } else { "ADMITTED" }))),
        Says::Garbage => framed(b"\xff\xff\xff\xff\xff", 5),
        Says::HalfFrame => framed(b"\x0a", 50),
        Says::Nothing => message(&CheckResponse::default()),
        Says::NoCode => message(&allowing(None)),
        Says::UnknownCode => message(&allowing(Some("SURE"))),
        Says::AllowsRefusal => message(&allowing(Some("DAILY_AMOUNT"))),
        Says::Contradicts => message(&contradicting()),
        Says::Status(status) => failing(status),
        Says::NoGrpc => no_grpc(),
        Says::Silent | Says::HangsUp | Says::Http1 => std::future::pending().await,
    })
}

fn allowing(code: Option<&str>) -> CheckResponse {
    let pair = |code: &str| Pair { key: header::CODE.to_owned(), value: code.to_owned() };
    let headers = code.map(|code| HeaderValueOption { header: Some(pair(code)) }).into_iter().collect();
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers })),
    }
}

fn contradicting() -> CheckResponse {
    let denied = DeniedHttpResponse { status: Some(HttpStatus { code: 403 }), ..DeniedHttpResponse::default() };
    CheckResponse { status: Some(RpcStatus::default()), http_response: Some(HttpResponse::DeniedResponse(denied)) }
}

fn message(response: &CheckResponse) -> Response<BoxBody<Bytes, Infallible>> {
    let bytes = response.encode_to_vec();
    framed(&bytes, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

/// A gRPC message with the length that its frame says, and status 0 in the trailers.
fn framed(bytes: &[u8], length: u32) -> Response<BoxBody<Bytes, Infallible>> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put(bytes);
    let trailers = HeaderMap::from_iter([grpc_status(0)]);
    grpc(Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed())
}

fn failing(status: u32) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = grpc(Empty::new().boxed());
    response.headers_mut().extend([grpc_status(status)]);
    response
}

fn grpc(body: BoxBody<Bytes, Infallible>) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn no_grpc() -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::from("<html>").boxed());
    *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn grpc_status(status: u32) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static("grpc-status"), HeaderValue::from(status))
}

/// Envoy with the shipped configuration and a lenient route, in front of a gateway, that asks a fake server.
pub(crate) struct Rig {
    pub(crate) envoy: Envoy,
    pub(crate) gateway: Gateway,
    pub(crate) server: FakeServer,
    dir: Arc<RunDir>,
}

/// The path of the rule whose payments go on when the server gives no answer.
pub(crate) const LENIENT: &str = "/v1/lenient/payments";

impl Rig {
    /// `change` may change the configuration further.
    pub(crate) fn start(change: impl FnOnce(&mut EnvoyConfig) -> Result<()>) -> Result<Self> {
        let dir = RunDir::new("rig")?;
        let (gateway, server) = (Gateway::start()?, FakeServer::start()?);
        let mut config = EnvoyConfig::shipped(&build::filter_wasm()?)?;
        config.set_cluster("gateway", gateway.address())?;
        config.set_cluster("sluice_authz", server.address)?;
        config.set_plugin(&lenient_plugin()?)?;
        change(&mut config)?;
        let envoy = Envoy::start_in(Arc::clone(&dir), config).inspect_err(|_| dir.keep())?;
        Ok(Self { envoy, gateway, server, dir })
    }

    pub(crate) async fn send(&self, protocol: Protocol, call: Call) -> Result<Answer> {
        send_once(self.envoy.address(), protocol, call).await
    }

    /// Keeps the logs where a scenario fails.
    pub(crate) fn keep(&self) {
        self.dir.keep();
    }
}

/// The shipped plugin configuration with one more rule, whose `on_error` is `allow`.
pub(crate) fn lenient_plugin() -> Result<serde_json::Value> {
    let mut plugin = StackOptions::shipped_plugin()?;
    let rules = plugin.get_mut("rules").and_then(serde_json::Value::as_array_mut);
    let rules = rules.ok_or_else(|| Failure::new("the shipped configuration has no rules"))?;
    let mut rule = rules.first().cloned().ok_or_else(|| Failure::new("the shipped configuration has no rule"))?;
    rule["name"] = "lenient-payments".into();
    rule["match"]["path"] = LENIENT.into();
    rule["on_error"] = "allow".into();
    rules.push(rule);
    Ok(plugin)
}
