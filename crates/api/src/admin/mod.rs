//! The admin port: probes and metrics, open to every client that reaches it, and the API of operators, merchants and other
//! programs under `/api/v1`, described at `/openapi.json` and `/swagger/index.html`; beside it the same operations as gRPC
//! ([`grpc`]).
//!
//! Every request under `/api/v1` passes the same middleware in the same order: authentication, the caller's rate, the body's
//! bound, the idempotency key. A handler takes the [`Caller`] and checks its permissions.

mod alerts;
pub(crate) mod audit;
mod authenticate;
mod body;
mod credit;
mod describe;
pub mod errors;
pub(crate) mod execute;
mod export;
mod extract;
mod grpc;
pub mod idempotency;
mod metrics;
mod non_idempotent;
pub mod openapi;
mod outcomes;
mod own;
pub mod page;
mod policies;
mod probes;
mod protocol;
mod quotas;
mod rate;
pub mod rights;
mod serve;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod tiers;
pub mod tokens;
mod trace;
pub mod usage_logs;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sluice_kit::shutdown::Shutdown;
use sqlx::PgPool;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use sluice_decision::operations::Operations;
use sluice_kit::database;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_settings::runtime::Repository;
use sluice_settings::{Live, Settings};

pub(crate) use body::{BODY_TIMEOUT, read as read_body};
pub use extract::{Json, Path, Query};
pub use metrics::ApiMetrics;
pub use serve::{serve, serve_probes};
pub use sluice_auth::problem::{self, Answer, Kind, Problem};
pub use sluice_auth::{self as auth, Auth, Caller, JwksError, Permission, Role};
use sluice_lines::TransferRepository;
use sluice_live::StreamMetrics;

/// Where the API begins.
const API: &str = "/api/v1";
/// Transfers in progress at once.
const TRANSFERS_AT_ONCE: u32 = 2;
/// How long one request may take, except its answer's body: longer than every wait for Postgres that has its own bound.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The state of the endpoints.
#[derive(Clone, Debug)]
pub struct Admin {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// Postgres; connects when first used.
    pub pool: PgPool,
    pub live: Live,
    pub operations: Operations,
    /// Settings as they are, and changes of them.
    pub settings: Repository,
    /// Number of shards that merchants fall into.
    shards: u16,
    auth: Arc<Auth>,
    rates: Arc<rate::Rates>,
    exports: export::Exports,
    streams: Arc<stream::Streams>,
    body_bytes_max: usize,
    connections_per_client: usize,
    deliverable: alerts::Deliverable,
    /// Transfers hold a connection while the store decides: theirs are not those of other callers.
    transfers: TransferRepository,
    api_metrics: Arc<ApiMetrics>,
    stream_metrics: Arc<StreamMetrics>,
}

impl Admin {
    /// Reads how callers are authenticated, and the bounds that do not change at run time.
    ///
    /// # Errors
    /// [`JwksError`] for a key file that cannot be used.
    pub fn new(
        settings: &Settings,
        live: Live,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        pool: PgPool,
        operations: Operations,
    ) -> Result<Self, JwksError> {
        let auth = Arc::new(Auth::new(settings, pool.clone())?);
        let body_bytes_max = usize::try_from(settings.admin_body_bytes_max).unwrap_or(usize::MAX);
        let connections_per_client = usize::try_from(settings.admin_connections_per_client).unwrap_or(usize::MAX);
        let deliverable = alerts::Deliverable::new(settings);
        let streams = Arc::new(stream::Streams::new(&pool));
        let transfers = TransferRepository::new(database::beside(&pool, TRANSFERS_AT_ONCE));
        let (shards, settings) = (settings.shards, Repository::new(settings, live.clone(), pool.clone(), &metrics));
        let (api_metrics, stream_metrics) = (metrics.part(), metrics.part());
        Ok(Self {
            health,
            metrics,
            pool,
            live,
            operations,
            settings,
            shards,
            auth,
            rates: Arc::default(),
            exports: export::Exports::default(),
            streams,
            body_bytes_max,
            connections_per_client,
            deliverable,
            transfers,
            api_metrics,
            stream_metrics,
        })
    }

    /// The caller, unless its rate is exceeded.
    ///
    /// # Errors
    /// As [`Auth::authenticate`], and 429.
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> Answer<Caller> {
        let caller = self.auth.authenticate(headers).await?;
        rate::take(self, &caller, 1)?;
        Ok(caller)
    }

    /// Largest body of a request.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Keeps the tokens' keys fresh and the table of idempotency keys small, until the stop.
    pub async fn housekeeping(self, stopped: Shutdown) {
        tokio::join!(
            self.auth.watch(stopped.clone()),
            idempotency::sweep(self.pool.clone(), stopped.clone()),
            self.streams.run(self.pool.clone(), stopped),
        );
    }
}

/// The operations of the API. Each part brings its routes with their description.
fn operations() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .merge(quotas::routes())
        .merge(rights::routes())
        .merge(policies::routes())
        .merge(tiers::routes())
        .merge(usage_logs::routes())
        .merge(settings::routes())
        .merge(tokens::routes())
        .merge(stream::routes())
        .merge(alerts::routes())
        .merge(outcomes::routes())
        .merge(credit::routes())
        .merge(own::routes())
}

/// The document of the whole API.
fn document() -> OpenApi {
    describe::refine(openapi::with_idempotency_key(openapi::base().nest(API, operations().into_openapi())))
}

/// The endpoints as a router; the caller binds and serves it.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .merge(probes::routes())
        .merge(SwaggerUi::new("/swagger").url("/openapi.json", document()))
        .nest(API, api(&admin).layer(from_fn(trace::trace_request)))
        .merge(grpc::routes(&admin).layer(from_fn(trace::trace_request)))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(admin)
}

/// The operations behind their middleware; the last layer runs first. Unknown paths are behind it as well.
fn api(admin: &Admin) -> Router<Admin> {
    executed(admin)
        .layer(from_fn_with_state(admin.clone(), body::middleware))
        .layer(from_fn_with_state(admin.clone(), rate::middleware))
        .layer(from_fn_with_state(admin.clone(), authenticate::middleware))
        .layer(from_fn(in_time))
        .layer(from_fn(not_kept))
        .layer(from_fn_with_state(admin.clone(), metrics::middleware))
}

/// The operations for callers that are admitted, with bodies that are in memory.
fn executed(admin: &Admin) -> Router<Admin> {
    let (operations, _) = operations().split_for_parts();
    operations
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn(in_time))
        .layer(from_fn(audit::middleware))
        .layer(from_fn_with_state(admin.clone(), idempotency::middleware))
}

/// A dependency that hangs must not block a request for ever.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Kind::NoAnswer).into_response(),
    }
}

/// Answers are private to the caller, and must not be cached.
async fn not_kept(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn not_found() -> Problem {
    Problem::new(Kind::NotFound)
}

async fn method_not_allowed() -> Problem {
    Problem::new(Kind::MethodNotAllowed)
}
