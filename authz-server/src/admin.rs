//! The admin port: `/health`, `/ready`, `/ready/payments` and `/metrics`.
//!
//! `/ready` is for people and deployments: 200 only while nothing is missing. With Postgres away it is 503, and its
//! `payments` field says that payments are still decided, their events waiting in Redis. `/ready/payments` is for load
//! balancers and readiness probes: a server must not be taken out of service for something that a decision does not need.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};

use crate::health::{Health, States};
use crate::metrics::{self, Metrics};

/// What the endpoints read.
#[derive(Clone, Debug)]
pub struct Admin {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
}

/// The body of `/ready`.
#[derive(Serialize)]
struct Readiness<'a> {
    status: &'static str,
    payments: &'static str,
    dependencies: &'a States,
}

/// The endpoints as a router; the caller binds and serves it.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/ready/payments", get(ready_for_payments))
        .route("/metrics", get(figures))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(admin)
}

async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn ready(Shared(admin): Shared<Admin>) -> Response {
    let states = admin.health.states();
    answer(states.complete(), &states)
}

async fn ready_for_payments(Shared(admin): Shared<Admin>) -> Response {
    let states = admin.health.states();
    answer(states.decides(), &states)
}

async fn figures(Shared(admin): Shared<Admin>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], admin.metrics.encode()).into_response()
}

async fn not_found(uri: Uri) -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", "There is no such resource.", &uri)
}

async fn method_not_allowed(uri: Uri) -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The resource does not take this method.", &uri)
}

fn answer(ready: bool, states: &States) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Readiness {
        status: if ready { "ready" } else { "not ready" },
        payments: if states.decides() { "decided" } else { "not decided" },
        dependencies: states,
    };
    (status, Json(body)).into_response()
}

fn problem(status: StatusCode, kind: &str, title: &str, uri: &Uri) -> Response {
    let body = json!({
        "type": format!("urn:sluice:problem:{kind}"),
        "title": title,
        "status": status.as_u16(),
        "instance": uri.path(),
    });
    (status, [(header::CONTENT_TYPE, proto::PROBLEM_CONTENT_TYPE)], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The status and body of one request, through a real socket.
    async fn get(admin: &Admin, request: &str) -> (u16, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, router(admin.clone())).into_future());
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        server.abort();
        let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
        (status, reply)
    }

    fn admin() -> Admin {
        let metrics = Arc::new(Metrics::new());
        Admin { health: Arc::new(Health::new(Arc::clone(&metrics))), metrics }
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let admin = admin();
        type Step = (fn(&Health), u16, u16, &'static [&'static str]);
        let table: &[Step] = &[
            (
                |_| {},
                503,
                503,
                &["\"redis\":{\"up\":false,\"detail\":\"not reached yet\"}", "\"payments\":\"not decided\""],
            ),
            (|health| health.redis_up(), 503, 503, &["\"redis\":{\"up\":true}"]),
            (
                |health| health.policy_active("v1"),
                503,
                200,
                &["\"payments\":\"decided\"", "\"postgres\":{\"up\":false"],
            ),
            (|health| health.postgres_up(), 200, 200, &["\"status\":\"ready\""]),
            (|health| health.postgres_down("refused"), 503, 200, &["\"detail\":\"refused\""]),
            (|health| health.redis_down("timeout"), 503, 503, &["\"detail\":\"timeout\""]),
        ];
        for (step, (change, ready, payments, parts)) in table.iter().enumerate() {
            change(&admin.health);
            let (status, body) = get(&admin, "GET /ready").await;
            assert_eq!(status, *ready, "step {step}: {body}");
            assert_eq!(get(&admin, "GET /ready/payments").await.0, *payments, "step {step}");
            for part in *parts {
                assert!(body.contains(part), "step {step}: {body}");
            }
        }
    }

    #[tokio::test]
    async fn the_other_endpoints_answer() {
        let admin = admin();
        assert!(get(&admin, "GET /health").await.1.contains("{\"status\":\"ok\"}"));
        let (status, figures) = get(&admin, "GET /metrics").await;
        assert!(status == 200 && figures.contains("sluice_enforcement_active 0"), "{figures}");
        let (status, problem) = get(&admin, "GET /nothing").await;
        assert!(status == 404 && problem.contains("application/problem+json"), "{problem}");
        let (status, problem) = get(&admin, "POST /health").await;
        assert!(status == 405 && problem.contains("application/problem+json"), "{problem}");
    }
}
