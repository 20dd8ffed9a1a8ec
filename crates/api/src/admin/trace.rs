//! The middleware that answers a request within its caller's trace.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use sluice_kit::telemetry::{Trace, spans, tracer, within};

/// The header of a caller's span.
const TRACEPARENT: &str = "traceparent";

/// Answers a request within its caller's trace, or within a new one if spans are exported.
pub(super) async fn trace_request(request: Request, next: Next) -> Response {
    let trace = tracer::place(caller(request.headers()), tracer::span_id());
    let Some(span) = tracer::recorded(trace) else { return within(trace, next.run(request)).await };
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = within(trace, next.run(request)).await;
    spans::request(span, started.elapsed(), &method, route, response.status());
    response
}

/// A header that comes twice is ignored.
fn caller(headers: &HeaderMap) -> Option<Trace> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    Trace::parse(value.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn one_header_names_the_caller() {
        let headers = |values: &[&'static str]| {
            values.iter().map(|value| (TRACEPARENT.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let traced = Trace::parse(CALLER);
        assert!(traced.is_some());
        for (values, expected) in
            [(&[CALLER][..], traced), (&[], None), (&["malformed"], None), (&[CALLER, CALLER], None)]
        {
            assert_eq!(caller(&headers(values)), expected, "{values:?}");
        }
    }
}
