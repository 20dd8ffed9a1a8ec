//! The export of spans to a collector: OTLP over gRPC, on a thread of its own behind a bounded queue. A batch that the
//! collector does not take in time is lost and counted: no caller waits for it, and nothing is kept for later.

use std::io;
use std::sync::{Arc, mpsc as sync_mpsc};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tracing::{info, warn};

use super::metrics::{Lost, TraceMetrics};
use super::tracer::text;
use crate::http::HttpUrl;

/// Spans that may wait: some tenths of a second of payments at full load, some 4 MB.
const WAITING_SPANS_MAX: usize = 8192;
/// Most spans in one call.
const CALL_SPANS_MAX: usize = 512;
/// How long spans accumulate: the thread is woken once for all of them.
const LINGER: Duration = Duration::from_millis(100);
/// How long the collector may take for one call, connecting included.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A collector that vanished silently is noticed after both. An idle connection is not pinged: many collectors take that for an
/// attack.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long shutdown waits for the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends pending spans when it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    stop: CancellationToken,
    ended: sync_mpsc::Receiver<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.cancel();
        // An error means that the thread has ended.
        let _ = self.ended.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Starts the thread.
pub(super) fn start(
    collector: &HttpUrl,
    service_name: &str,
    metrics: Arc<TraceMetrics>,
) -> Result<(mpsc::Sender<Span>, Guard), io::Error> {
    let endpoint = endpoint(collector).map_err(io::Error::other)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (queue, waiting) = mpsc::channel(WAITING_SPANS_MAX);
    let (tell_end, ended) = sync_mpsc::channel();
    let stop = CancellationToken::new();
    let resource = resource(service_name);
    let stopped = stop.clone();
    std::thread::Builder::new().name("otlp".to_owned()).spawn(move || {
        runtime.block_on(async {
            // A channel belongs to the runtime that it is made in.
            let client = TraceServiceClient::new(endpoint.connect_lazy());
            Exporter { client, resource, waiting, metrics, fails: false }.run(stopped).await;
        });
        drop(tell_end);
    })?;
    Ok((queue, Guard { stop, ended }))
}

fn endpoint(collector: &HttpUrl) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(collector.as_str().to_owned())?
        .connect_timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    if collector.as_str().starts_with("https://") {
        endpoint.tls_config(ClientTlsConfig::new().with_native_roots())
    } else {
        Ok(endpoint)
    }
}

/// The resource of the spans (OpenTelemetry semantic conventions, service).
fn resource(service_name: &str) -> Resource {
    let attributes = vec![text("service.name", service_name), text("service.version", env!("CARGO_PKG_VERSION"))];
    Resource { attributes, ..Resource::default() }
}

struct Exporter {
    client: TraceServiceClient<Channel>,
    resource: Resource,
    waiting: mpsc::Receiver<Span>,
    metrics: Arc<TraceMetrics>,
    /// The last call failed.
    fails: bool,
}

impl Exporter {
    /// Sends until the stop, and then the pending spans.
    async fn run(mut self, stop: CancellationToken) {
        let mut spans = Vec::new();
        loop {
            tokio::select! {
                span = self.waiting.recv() => spans.extend(span),
                () = stop.cancelled() => {}
            }
            // Waking this thread costs the task that ends a span: once in a while is enough.
            let _ = timeout(LINGER, stop.cancelled()).await;
            while self.take(&mut spans) {
                self.send(std::mem::take(&mut spans)).await;
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// Fills the next call; `false` where there is nothing for it.
    fn take(&mut self, spans: &mut Vec<Span>) -> bool {
        while spans.len() < CALL_SPANS_MAX
            && let Ok(span) = self.waiting.try_recv()
        {
            spans.push(span);
        }
        !spans.is_empty()
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let scope = InstrumentationScope { name: env!("CARGO_PKG_NAME").to_owned(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let call = self.client.export(ExportTraceServiceRequest { resource_spans });
        let problem = match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(answer)) => {
                let rejected = answer.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
                let rejected = u64::try_from(rejected).unwrap_or(0).min(count);
                self.metrics.exported.inc_by(count - rejected);
                self.metrics.lost(Lost::Rejected, rejected);
                None
            }
            Ok(Err(status)) => Some(format!("{:?}: {}", status.code(), status.message())),
            Err(_) => Some(format!("no answer within {} ms", CALL_TIMEOUT.as_millis())),
        };
        if problem.is_some() {
            self.metrics.lost(Lost::Unsent, count);
        }
        match (std::mem::replace(&mut self.fails, problem.is_some()), problem) {
            (false, Some(problem)) => warn!(problem, "the collector takes no spans, they are dropped and counted"),
            (true, None) => info!("the collector takes spans again"),
            (false, None) | (true, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
