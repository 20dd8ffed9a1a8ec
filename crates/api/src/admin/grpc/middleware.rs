//! The middleware of gRPC on the admin port: as for REST and in the same order, authentication, the caller's rate and the body's
//! bound. A refused caller gets a gRPC status.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::status;
use crate::admin::{Admin, Answer, BODY_TIMEOUT, Kind, Problem, REQUEST_TIMEOUT, audit, read_body};

/// The media type of gRPC, and the beginning of those with an encoding of their own (as in `application/grpc+proto`).
const GRPC: &str = "application/grpc";
/// A message begins with its compression flag and its length.
const FRAME_HEAD_BYTES: usize = 5;

/// Admits calls of one message each.
pub(super) async fn unary(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if !is_grpc(&request) {
        return no_grpc();
    }
    let pass = async {
        let request = known(&admin, request).await?;
        let (parts, body) = request.into_parts();
        let bytes_max = admin.body_bytes_max().saturating_add(FRAME_HEAD_BYTES);
        let body = read_body(body, bytes_max, BODY_TIMEOUT).await?;
        Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
    };
    // A dependency that hangs must not block a call for ever.
    match timeout(REQUEST_TIMEOUT, pass).await {
        Ok(answer) => answer.unwrap_or_else(|problem: Problem| refused(&problem)),
        Err(_) => refused(&Problem::new(Kind::NoAnswer)),
    }
}

/// Admits streaming calls.
pub(super) async fn streaming(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if !is_grpc(&request) {
        return no_grpc();
    }
    match timeout(REQUEST_TIMEOUT, known(&admin, request)).await {
        Ok(Ok(request)) => next.run(request).await,
        Ok(Err(problem)) => refused(&problem),
        Err(_) => refused(&Problem::new(Kind::NoAnswer)),
    }
}

/// The request with its caller in it.
async fn known(admin: &Admin, mut request: Request) -> Answer<Request> {
    let caller = admin.admit(request.headers()).await.inspect_err(|problem| {
        let client = request.extensions().get().copied();
        audit::refused(problem, request.method().as_str(), request.uri().path(), client);
    })?;
    request.extensions_mut().insert(caller);
    Ok(request)
}

fn is_grpc(request: &Request) -> bool {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let rest = media_type.and_then(|media_type| media_type.strip_prefix(GRPC));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// A request that is not gRPC gets an HTTP answer.
fn no_grpc() -> Response {
    let problem = Problem::new(Kind::UnsupportedMediaType);
    problem.detail(format!("this is a gRPC method: send {GRPC} over HTTP/2")).into_response()
}

fn refused(problem: &Problem) -> Response {
    status::of(problem).into_http()
}
