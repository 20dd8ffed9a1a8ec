//! `/health`, `/ready`, `/ready/payments` and `/metrics`, open to every client that reaches the port: the admin port, and one of
//! their own, which answers whatever the API's callers do. Series of single merchants are shown to callers that may see all
//! merchants, or to every caller if the settings allow it.
//!
//! `/ready` is for people and deployments: 200 only while nothing is missing. With Postgres unavailable it is 503, and its
//! `payments` field shows that payments are still decided, their events waiting in Redis. `/ready/payments` is for load
//! balancers and readiness probes: a server must not be taken out of service for something that a decision does not need. Both
//! are 503 with the status `draining` from the stop signal on.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};

use super::problem::{Answer, Kind, Problem};
use super::{Admin, Permission, audit, method_not_allowed, not_found};
use sluice_kit::health::States;
use sluice_kit::metrics;

/// `Retry-After` while every connection is in use.
const NO_ROOM_RETRY_SECS: u64 = 1;

/// The body of `/ready`.
#[derive(Serialize)]
struct Readiness<'a> {
    status: &'static str,
    payments: &'static str,
    dependencies: &'a States,
}

/// The endpoints as routes.
pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/ready/payments", get(ready_for_payments))
        .route("/metrics", get(metrics_text))
}

/// The probes alone.
pub(super) fn router(admin: Admin) -> Router {
    routes().fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(admin)
}

/// The probes, on a port whose connections are all in use: everything else has to wait.
pub(super) fn reserve(admin: Admin) -> Router {
    routes().fallback(no_room).method_not_allowed_fallback(no_room).with_state(admin)
}

async fn no_room() -> Response {
    let detail = "every connection that the client or the server may have is in use";
    let problem = Problem::new(Kind::Busy).detail(detail).retry_after(NO_ROOM_RETRY_SECS);
    ([(header::CONNECTION, "close")], problem).into_response()
}

async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn ready(Shared(admin): Shared<Admin>) -> Response {
    let states = admin.health.states();
    answer(states.complete(), admin.health.is_draining(), &states)
}

async fn ready_for_payments(Shared(admin): Shared<Admin>) -> Response {
    let states = admin.health.states();
    answer(states.decides(), admin.health.is_draining(), &states)
}

async fn metrics_text(Shared(admin): Shared<Admin>, headers: HeaderMap) -> Answer<Response> {
    let all = admin.live.current().metrics_merchants || sees_merchants(&admin, &headers).await?;
    let text = admin.metrics.encode();
    let text = if all { text } else { metrics::without_merchants(&text) };
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// Whether the caller may see series of single merchants. Without a token it may not; an invalid one is refused, so that its
/// operator notices.
async fn sees_merchants(admin: &Admin, headers: &HeaderMap) -> Answer<bool> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(false);
    }
    let refused = |problem: &Problem| audit::refused(problem, "GET", "/metrics", None);
    let caller = admin.admit(headers).await.inspect_err(refused)?;
    caller.require(Permission::QuotasRead)?;
    caller.require_all_merchants()?;
    Ok(true)
}

fn answer(complete: bool, draining: bool, states: &States) -> Response {
    let (status, word) = match (draining, complete) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, true) => (StatusCode::OK, "ready"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let body = Readiness {
        status: word,
        payments: if states.decides() { "decided" } else { "not decided" },
        dependencies: states,
    };
    (status, Json(body)).into_response()
}
