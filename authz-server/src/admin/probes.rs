//! `/health`, `/ready`, `/ready/payments` and `/metrics`, open to whoever reaches the port.
//!
//! `/ready` is for people and deployments: 200 only while nothing is missing. With Postgres away it is 503, and its
//! `payments` field says that payments are still decided, their events waiting in Redis. `/ready/payments` is for load
//! balancers and readiness probes: a server must not be taken out of service for something that a decision does not need. Both are
//! 503 with the status `draining` from the time that the server is told to stop.

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};

use super::Admin;
use crate::health::States;
use crate::metrics;

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
        .route("/metrics", get(figures))
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

async fn figures(Shared(admin): Shared<Admin>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], admin.metrics.encode()).into_response()
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
