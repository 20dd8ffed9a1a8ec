//! The API's own metrics: its requests by route and status, and their duration.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::Admin;

/// The route of a path that no route matches: paths that callers make up must not become labels.
const NO_ROUTE: &str = "none";
/// Methods that routes have; any other is counted as one.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// Buckets: a millisecond, doubling, up to half a minute.
const FIRST_SECS: f64 = 0.001;
const BUCKETS: u16 = 16;

sluice_kit::metrics! {
    /// Metrics of requests to the API.
    pub struct ApiMetrics {
        requests: Counter["method", "route", "status"] = "sluice_admin_requests",
            "Requests to the API by route and status";
        seconds: Histogram(FIRST_SECS, BUCKETS) = "sluice_admin_request_seconds", "Duration of requests to the API";
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
    metrics.requests.of([method.to_owned(), route, status]).inc();
    metrics.seconds.observe(started.elapsed().as_secs_f64());
    response
}
