use std::net::SocketAddr;
use std::sync::Mutex;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

/// How the collector answers.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Takes,
    /// All of a call except so many.
    Rejects(i64),
    Fails,
}

#[derive(Clone)]
struct Collector {
    manner: Manner,
    calls: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.calls.lock().unwrap().push(request.into_inner());
        match self.manner {
            Manner::Takes => Ok(Response::new(ExportTraceServiceResponse::default())),
            Manner::Rejects(rejected_spans) => {
                let partial_success = Some(ExportTracePartialSuccess { rejected_spans, ..Default::default() });
                Ok(Response::new(ExportTraceServiceResponse { partial_success }))
            }
            Manner::Fails => Err(Status::resource_exhausted("no room")),
        }
    }
}

/// A collector on a thread that ends with the test process.
fn collect(manner: Manner) -> (SocketAddr, Collector) {
    let collector = Collector { manner, calls: Arc::default() };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let service = TraceServiceServer::new(collector.clone());
    std::thread::spawn(move || {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
    });
    (address, collector)
}

fn export(address: SocketAddr, spans: usize) -> Arc<TraceMetrics> {
    let metrics = Arc::<TraceMetrics>::default();
    let url = HttpUrl::parse(&format!("http://{address}")).unwrap();
    let (queue, guard) = start(&url, "sluice", Arc::clone(&metrics)).unwrap();
    for number in 0..spans {
        queue.try_send(Span { name: number.to_string(), ..Span::default() }).unwrap();
    }
    // Pending spans at the stop are sent, and the end is reported.
    guard.stop.cancel();
    assert_eq!(guard.ended.recv_timeout(DEADLINE), Err(sync_mpsc::RecvTimeoutError::Disconnected));
    metrics
}

#[test]
fn every_span_is_taken_or_counted_as_lost() {
    for (manner, exported, expected_lost) in [
        (Manner::Takes, 1_300, [0, 0, 0]),
        (Manner::Rejects(100), 1_000, [0, 0, 300]),
        // More than were sent, and none at all, which no collector should report.
        (Manner::Rejects(i64::MAX), 0, [0, 0, 1_300]),
        (Manner::Rejects(-1), 1_300, [0, 0, 0]),
        (Manner::Fails, 0, [0, 1_300, 0]),
    ] {
        let (address, collector) = collect(manner);
        let metrics = export(address, 1_300);
        assert_eq!((metrics.exported.get(), metrics.lost_spans()), (exported, expected_lost.to_vec()), "{manner:?}");
        let calls = collector.calls.lock().unwrap();
        let spans = |call: &ExportTraceServiceRequest| call.resource_spans[0].scope_spans[0].spans.clone();
        assert!(calls.iter().all(|call| spans(call).len() <= CALL_SPANS_MAX), "{manner:?}");
        let names: Vec<String> = calls.iter().flat_map(spans).map(|span| span.name).collect();
        assert_eq!(names, (0..1_300).map(|number| number.to_string()).collect::<Vec<_>>());
        let resource = calls[0].resource_spans[0].resource.as_ref().unwrap();
        assert_eq!(resource.attributes[0], text("service.name", "sluice"));
    }
}

#[test]
fn a_collector_that_is_away_loses_spans_only() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let metrics = export(address, 10);
    assert_eq!((metrics.exported.get(), metrics.lost_spans()), (0, vec![0, 10, 0]));
}
