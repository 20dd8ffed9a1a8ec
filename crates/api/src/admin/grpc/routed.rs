//! Services whose methods are operations of REST, answered by REST's own routes with their checks, their audit and their idempotency
//! keys. So no rule can hold over one of them and not over the other.

use axum::Router;
use axum::http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Request;

use super::{GrpcResult, rest, status};
use crate::admin::{API, Admin, executed};

/// The operations of REST without the middleware that admits callers, which gRPC has of its own.
#[derive(Clone, Debug)]
pub(super) struct Routed {
    operations: Router,
}

/// What a method is in REST.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub method: Method,
    /// With its parameters, as in `/transfers/{transfer_no}`.
    pub path: &'static str,
    /// The member that is the body, where it is one of them. The others are the query then.
    pub body: Option<&'static str>,
}

impl Routed {
    pub(super) fn new(admin: &Admin) -> Self {
        Self { operations: Router::new().nest(API, executed(admin)).with_state(admin.clone()) }
    }

    pub(super) async fn answer<Q: Serialize, A: DeserializeOwned>(
        &self,
        route: Route,
        request: Request<Q>,
    ) -> GrpcResult<A> {
        let (metadata, extensions, message) = request.into_parts();
        let request = rest::request(route, &message, &metadata.into_headers(), &extensions);
        let request = request.map_err(|problem| status::of(&problem))?;
        rest::answer(self.operations.clone(), request).await
    }
}

/// Declares a service: what each method is in REST. The path takes the members that it names. The others are the query of what has
/// no body, and the body of what has one; where `body` names a member, this is the body and the rest is the query.
macro_rules! routed_service {
    ($service:ident: $($verb:ident $path:literal $(body $body:ident)?
        => $name:ident($request:ident) -> $response:ident;)+) => {
        #[tonic::async_trait]
        impl $service for crate::admin::grpc::routed::Routed {
            $(
                async fn $name(
                    &self,
                    request: tonic::Request<proto::quota_v1::$request>,
                ) -> crate::admin::grpc::GrpcResult<proto::quota_v1::$response> {
                    let body = [$(stringify!($body))?].first().copied();
                    let route = crate::admin::grpc::routed::Route { method: axum::http::Method::$verb, path: $path, body };
                    self.answer(route, request).await
                }
            )+
        }
    };
}

pub(super) use routed_service;
