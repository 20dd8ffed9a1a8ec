//! A collector of OpenTelemetry: a real gRPC server of OTLP that keeps what it is sent, or never answers.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use testkit::{Failure, Result, wait};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Spans are sent every tenth of a second.
const SENT_WITHIN: Duration = Duration::from_secs(30);

/// What it does with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    Takes,
    Hangs,
}

#[derive(Clone)]
struct Service {
    manner: Manner,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    calls: AtomicU64,
    spans: Mutex<Vec<Span>>,
}

/// A running collector in a thread of its own.
pub(crate) struct Collector {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> std::result::Result<Response<ExportTraceServiceResponse>, Status> {
        self.state.calls.fetch_add(1, Ordering::Relaxed);
        if let Manner::Hangs = self.manner {
            std::future::pending::<()>().await;
        }
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let mut spans = self.state.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) fn start(manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let service = TraceServiceServer::new(Service { manner, state: Arc::clone(&state) });
        let (stop, stopped) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            let served = runtime.block_on(async {
                let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
                tokio::select! {
                    served = Server::builder().add_service(service).serve_with_incoming(incoming) => Ok(served?),
                    _ = stopped => Ok::<_, Failure>(()),
                }
            });
            if let Err(failure) = served {
                eprintln!("the collector ended: {failure}");
            }
        });
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls that have begun.
    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// The spans of a trace so far.
    pub(crate) fn trace(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| hex(&span.trace_id) == trace_id);
        spans
    }

    /// The one span of this name in a trace, once it is there.
    pub(crate) fn span(&self, trace_id: &str, name: &str) -> Result<Span> {
        wait::until(&format!("{name} in trace {trace_id}"), SENT_WITHIN, || {
            let mut named = self.trace(trace_id);
            named.retain(|span| span.name == name);
            ensure!(named.len() <= 1, "{named:#?}");
            Ok(named.pop())
        })
    }

    /// A span of this name that has a link to the other, once there is one.
    pub(crate) fn linked(&self, name: &str, to: &Span) -> Result<Span> {
        wait::until(&format!("a span {name} with a link to {}", hex(&to.span_id)), SENT_WITHIN, || {
            let is_linked = |span: &Span| {
                span.name == name
                    && span.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&to.trace_id, &to.span_id))
            };
            Ok(self.spans().into_iter().find(is_linked))
        })
    }

    fn spans(&self) -> Vec<Span> {
        self.state.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute of a span as text; empty where it has none.
pub(crate) fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        _ => String::new(),
    }
}
