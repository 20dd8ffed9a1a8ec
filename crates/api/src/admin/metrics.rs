//! The API's own metrics: its requests by route and status, and their duration.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::Admin;
use sluice_kit::metrics::Part;

/// The route of a path that no route matches: paths that callers make up must not become labels.
const NO_ROUTE: &str = "none";
/// Methods that routes have; any other is counted as one.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// From a millisecond to half a minute.
const FIRST_SECS: f64 = 0.001;
const FACTOR: f64 = 2.0;
const BUCKETS: u16 = 16;

/// Counts requests.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: Family<[(&'static str, String); 3], Counter>,
    seconds: Histogram,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self { requests: Family::default(), seconds: Histogram::new(exponential_buckets(FIRST_SECS, FACTOR, BUCKETS)) }
    }
}

impl Part for ApiMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("sluice_admin_requests", "Requests to the API by route and status", self.requests.clone());
        registry.register("sluice_admin_request_seconds", "Duration of requests to the API", self.seconds.clone());
    }
}

/// Counts a request when its answer begins.
pub(super) async fn middleware(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let method = METHODS.into_iter().find(|method| *method == request.method().as_str()).unwrap_or("other");
    let response = next.run(request).await;
    let metrics = &admin.api_metrics;
    let status = response.status().as_u16().to_string();
    metrics.requests.get_or_create(&[("method", method.to_owned()), ("route", route), ("status", status)]).inc();
    metrics.seconds.observe(started.elapsed().as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_shown() {
        let (metrics, mut registry) = (ApiMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let labels = [("method", "GET".to_owned()), ("route", NO_ROUTE.to_owned()), ("status", "404".to_owned())];
        metrics.requests.get_or_create(&labels).inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains(r#"sluice_admin_requests_total{method="GET",route="none",status="404"} 1"#), "{text}");
    }
}
