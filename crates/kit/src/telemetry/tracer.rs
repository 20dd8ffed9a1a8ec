//! Spans from their begin to the queue of the exporter. Without an exporter nothing is made here: disabled tracing costs one
//! read of an empty cell.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tokio::sync::mpsc;

use super::metrics::{Lost, TraceMetrics};
use super::sampler::Sampler;
use super::trace::{SpanId, Trace, TraceId};
use crate::clock;

pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Takes the finished spans of this process.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<Span>,
    metrics: Arc<TraceMetrics>,
}

/// A span under way.
#[derive(Debug)]
pub(super) struct Open {
    tracer: &'static Tracer,
    trace: Trace,
    started: Instant,
}

/// The data of a span besides its ids and time.
#[derive(Debug)]
pub struct SpanData<'a> {
    pub kind: Kind,
    pub name: String,
    pub attributes: Vec<KeyValue>,
    /// Spans of other traces that it concerns, too.
    pub links: Vec<Trace>,
    /// Why the work failed.
    pub error: Option<&'a str>,
}

/// Installs the tracer of the process; `false` where there is one already.
pub(super) fn install(tracer: Tracer) -> bool {
    TRACER.set(tracer).is_ok()
}

/// The tracer, where spans are exported.
pub(super) fn installed() -> Option<&'static Tracer> {
    TRACER.get()
}

/// A span below the caller's one. Where spans are exported, a trace without a caller begins here; elsewhere the result is the
/// caller's span.
pub fn place(caller: Option<Trace>, span: Option<SpanId>) -> Option<Trace> {
    match installed() {
        Some(tracer) => span.and_then(|span| tracer.place(caller, span)).or(caller),
        None => caller,
    }
}

/// The tracer for this span, where it is recorded.
pub fn recorded(trace: Option<Trace>) -> Option<(&'static Tracer, Trace)> {
    let trace = trace.filter(|trace| trace.sampled)?;
    installed().map(|tracer| (tracer, trace))
}

/// Begins the given span.
pub(super) fn open(trace: Option<Trace>) -> Option<Open> {
    recorded(trace).map(|(tracer, trace)| Open { tracer, trace, started: Instant::now() })
}

impl Open {
    /// Ends it.
    pub(super) fn end(self, data: SpanData<'_>) {
        self.tracer.end(self.trace, self.started.elapsed(), data);
    }
}

impl Tracer {
    pub(super) fn new(sampler: Sampler, queue: mpsc::Sender<Span>, metrics: Arc<TraceMetrics>) -> Self {
        Self { sampler, queue, metrics }
    }

    /// See [`place`]; `None` where no id can be drawn.
    pub(super) fn place(&self, caller: Option<Trace>, span: SpanId) -> Option<Trace> {
        let id = match &caller {
            Some(caller) => caller.id,
            None => TraceId::new(clock::random()?)?,
        };
        let sampled = self.sampler.samples(caller.as_ref(), id);
        Some(Trace { id, span, parent: caller.map(|caller| caller.span), sampled })
    }

    /// Whether a trace is recorded whose first span's flag is not known.
    pub(super) fn draws(&self, id: TraceId) -> bool {
        self.sampler.draws(id)
    }

    /// Takes a finished span with its duration. Where the queue is full it is lost, and counted.
    pub fn end(&self, trace: Trace, took: Duration, data: SpanData<'_>) {
        if self.queue.try_send(span(trace, took, data)).is_err() {
            self.metrics.lost(Lost::QueueFull, 1);
        }
    }
}

/// A span id of its own.
pub fn span_id() -> Option<SpanId> {
    clock::random().and_then(SpanId::new)
}

fn span(trace: Trace, took: Duration, data: SpanData<'_>) -> Span {
    let end = clock::now().timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or_default();
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let SpanData { kind, name, attributes, links, error } = data;
    let status = error.map(|error| Status { message: error.to_owned(), code: StatusCode::Error as i32 });
    Span {
        trace_id: trace.id.bytes().to_vec(),
        span_id: trace.span.bytes().to_vec(),
        parent_span_id: trace.parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(trace.sampled),
        name,
        kind: kind as i32,
        start_time_unix_nano: end.saturating_sub(took),
        end_time_unix_nano: end,
        attributes,
        links: links.iter().map(link).collect(),
        status,
        ..Span::default()
    }
}

fn link(to: &Trace) -> Link {
    let (trace_id, span_id) = (to.id.bytes().to_vec(), to.span.bytes().to_vec());
    Link { trace_id, span_id, flags: u32::from(to.sampled), ..Link::default() }
}

/// An attribute with a text.
pub fn text(key: &'static str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// An attribute with a number; one beyond the largest is shown as that.
pub(crate) fn number(key: &'static str, value: impl TryInto<i64>) -> KeyValue {
    attribute(key, Value::IntValue(value.try_into().unwrap_or(i64::MAX)))
}

/// An attribute that holds or does not.
pub fn flag(key: &'static str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

fn attribute(key: &'static str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> SpanData<'_> {
        SpanData {
            kind: Kind::Internal,
            name: name.to_owned(),
            attributes: vec![number("n", 1)],
            links: vec![],
            error: None,
        }
    }

    #[test]
    fn a_full_queue_loses_spans_and_counts_them() {
        let (queue, mut taken) = mpsc::channel(2);
        let metrics = Arc::<TraceMetrics>::default();
        let tracer = Tracer::new(Sampler::of("always_on", 1.0).unwrap(), queue, Arc::clone(&metrics));
        let trace = tracer.place(None, span_id().unwrap()).unwrap();
        for name in ["first", "second", "third", "fourth"] {
            tracer.end(trace, Duration::from_millis(3), data(name));
        }
        assert_eq!(metrics.lost_spans(), [2, 0, 0]);
        let first = taken.try_recv().unwrap();
        assert_eq!(first.end_time_unix_nano - first.start_time_unix_nano, 3_000_000);
        assert_eq!((first.name.as_str(), taken.try_recv().unwrap().name.as_str()), ("first", "second"));
        assert!(taken.try_recv().is_err());
        tracer.end(trace, Duration::ZERO, data("fifth"));
        assert_eq!(taken.try_recv().unwrap().name, "fifth");
    }

    #[test]
    fn a_span_stands_below_its_caller_or_begins_a_trace() {
        let (queue, _taken) = mpsc::channel(1);
        let tracer = Tracer::new(Sampler::of("parentbased_always_on", 1.0).unwrap(), queue, Arc::default());
        let caller = Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap();
        let own = span_id().unwrap();
        let below = tracer.place(Some(caller), own).unwrap();
        assert_eq!(below, Trace { id: caller.id, span: own, parent: Some(caller.span), sampled: false });
        let first = tracer.place(None, own).unwrap();
        assert!(first.sampled && first.parent.is_none() && first.id != caller.id);
        assert_ne!(tracer.place(None, own).unwrap().id, first.id);
    }

    #[test]
    fn without_a_tracer_the_callers_word_is_passed_on() {
        let caller = Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(place(caller, span_id()), caller);
        assert_eq!(place(None, span_id()), None);
        assert!(open(caller).is_none());
    }
}
