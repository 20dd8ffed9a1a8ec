//! The middleware that authenticates callers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Admin, audit};

/// The middleware around the API: admits authenticated callers, and puts the [`Caller`] into the request.
pub(super) async fn middleware(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    match admin.auth.authenticate(request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => {
            let client = request.extensions().get().copied();
            audit::refused(&problem, request.method().as_str(), request.uri().path(), client);
            problem.into_response()
        }
    }
}
