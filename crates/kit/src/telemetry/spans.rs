//! The name and attributes of each kind of span. Names of attributes are those of OpenTelemetry's semantic conventions where
//! they have one, else our own.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use uuid::Uuid;

use super::trace::{SpanId, Trace, TraceId};
use super::tracer::{self, Kind, Open, SpanData, Tracer, number, text};

/// A decision's span below the caller's one, or without a caller in a new trace where spans are exported.
#[must_use]
pub fn of_decision(caller: Option<Trace>, decision_id: [u8; 16]) -> Option<Trace> {
    tracer::place(caller, SpanId::of_decision(decision_id))
}

/// The span of a decision that was requested once more, under another id.
#[must_use]
pub fn under(trace: Option<Trace>, event_id: [u8; 16]) -> Option<Trace> {
    trace.map(|trace| Trace { span: SpanId::of_decision(event_id).unwrap_or(trace.span), ..trace })
}

/// A call of the script under way. The commands of many payments share it: each recorded one gets a span of it, so that its
/// trace is complete.
#[derive(Debug)]
pub struct ScriptCall(Option<(&'static Tracer, Instant)>);

impl ScriptCall {
    pub fn begin() -> Self {
        Self(tracer::installed().map(|tracer| (tracer, Instant::now())))
    }

    /// Ends it for the commands with these spans.
    pub fn end(self, traces: impl ExactSizeIterator<Item = Option<Trace>>, error: Option<&dyn std::fmt::Display>) {
        let Some((tracer, started)) = self.0 else { return };
        let (took, count) = (started.elapsed(), traces.len());
        let error = error.map(ToString::to_string);
        for caller in traces.flatten().filter(|caller| caller.sampled) {
            let Some(trace) = tracer::span_id().and_then(|span| tracer.place(Some(caller), span)) else { return };
            let attributes = vec![
                text("db.system.name", "redis"),
                text("db.operation.name", "EVALSHA"),
                number("sluice.batch_size", count),
            ];
            let (name, links) = ("EVALSHA".to_owned(), Vec::new());
            let data = SpanData { kind: Kind::Client, name, attributes, links, error: error.as_deref() };
            tracer.end(trace, took, data);
        }
    }
}

/// A transaction of the journal under way: its events are of many traces, so it is one of its own with links to them.
#[derive(Debug)]
pub struct JournalStore(Option<Open>);

impl JournalStore {
    /// Most decisions that one is linked to.
    const LINKS_MAX: usize = 128;

    pub fn begin() -> Self {
        Self(tracer::open(tracer::place(None, tracer::span_id())))
    }

    /// Ends it; these events, each with its trace id, were given to Postgres.
    pub fn end<'a>(
        self,
        events: impl ExactSizeIterator<Item = (Uuid, Option<&'a str>)>,
        error: Option<&dyn std::fmt::Display>,
    ) {
        let Some(open) = self.0 else { return };
        let error = error.map(ToString::to_string);
        let attributes = vec![text("db.system.name", "postgresql"), number("sluice.batch_size", events.len())];
        let decisions = events.filter_map(|(event_id, trace_id)| earlier_decision(trace_id, Some(event_id)));
        let links = decisions.filter(|decision| decision.sampled).take(Self::LINKS_MAX).collect();
        let name = "store events".to_owned();
        open.end(SpanData { kind: Kind::Client, name, attributes, links, error: error.as_deref() });
    }
}

/// The span of an earlier decision, here or on another server: `trace_id` (32 hexadecimal digits) and id of its event. Whether
/// it is recorded was not kept, so the trace's id decides.
fn earlier_decision(trace_id: Option<&str>, event_id: Option<Uuid>) -> Option<Trace> {
    let id = trace_id.and_then(TraceId::parse)?;
    let span = SpanId::of_decision(event_id?.into_bytes())?;
    let sampled = tracer::installed().is_some_and(|tracer| tracer.draws(id));
    Some(Trace { id, span, parent: None, sampled })
}

/// A delivery attempt of a message, in the trace of its alert's cause.
#[derive(Debug)]
pub struct Delivery {
    /// The span that the receiver gets.
    trace: Option<Trace>,
    open: Option<Open>,
}

/// The result of a delivery attempt.
#[derive(Debug)]
pub struct Delivered<'a> {
    /// As in `webhook`.
    pub channel_kind: &'a str,
    pub message_id: Uuid,
    /// The number of the attempt, from 1.
    pub attempt: i32,
    /// The receiver's status, where it answered.
    pub status: Option<u16>,
    /// Why it counts as failed.
    pub error: Option<&'a str>,
}

impl Delivery {
    /// Begins it below the decision that raised the alert: `trace_id` (32 hexadecimal digits) and `event_id` of `quota_alert`.
    #[must_use]
    pub fn begin(trace_id: Option<&str>, event_id: Option<Uuid>) -> Self {
        let trace = tracer::place(earlier_decision(trace_id, event_id), tracer::span_id());
        Self { trace, open: tracer::open(trace) }
    }

    /// The header `traceparent` for the receiver, where there is a trace.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.trace.map(|trace| trace.traceparent())
    }

    /// Ends it.
    pub fn end(self, delivered: &Delivered<'_>) {
        let Some(open) = self.open else { return };
        let Delivered { channel_kind, message_id, attempt, status, error } = *delivered;
        let mut attributes = vec![
            text("sluice.channel_kind", channel_kind),
            text("sluice.message_id", message_id),
            number("sluice.attempt", attempt),
        ];
        attributes.extend(status.map(|status| number("sluice.response_status", status)));
        let name = format!("deliver {channel_kind}");
        open.end(SpanData { kind: Kind::Client, name, attributes, links: Vec::new(), error });
    }
}

/// A request to the API was answered.
pub fn request(
    (tracer, trace): (&'static Tracer, Trace),
    took: Duration,
    method: &Method,
    route: Option<String>,
    status: StatusCode,
) {
    let mut attributes: Vec<KeyValue> =
        vec![text("http.request.method", method.as_str()), number("http.response.status_code", status.as_u16())];
    // A path that no route matches may be anything.
    let name = route.as_ref().map_or_else(|| method.to_string(), |route| format!("{method} {route}"));
    attributes.extend(route.map(|route| text("http.route", route)));
    let error = status.is_server_error().then(|| status.to_string());
    tracer.end(
        trace,
        took,
        SpanData { kind: Kind::Server, name, attributes, links: Vec::new(), error: error.as_deref() },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_was_asked_for_again_has_the_span_that_its_event_names() {
        let trace = Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let again = under(trace, [9; 16]).unwrap();
        assert_eq!(Some(again.span), SpanId::of_decision([9; 16]));
        assert_eq!(Some(again.id), trace.map(|trace| trace.id));
        assert_eq!(under(None, [9; 16]), None);
    }
}
