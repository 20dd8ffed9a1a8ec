//! `quota.v1.QuotaService`, `quota.v1.CreditService` and `quota.v1.MerchantService` on the admin port: the operations of REST as gRPC,
//! by the same path, for the same callers.
//!
//! `middleware` admits callers and `status` maps refusals. Of quotas, `request` reads messages and `answer` writes them; `credit`
//! and `merchant` pass messages to the routes of REST, which `routed` and `rest` do for any of them.

mod answer;
mod credit;
mod merchant;
mod middleware;
mod request;
mod rest;
mod routed;
mod status;

use axum::Router;
use axum::middleware::from_fn_with_state;
use proto::quota_v1 as pb;
use proto::quota_v1::credit_service_server::CreditServiceServer;
use proto::quota_v1::merchant_service_server::MerchantServiceServer;
use proto::quota_v1::quota_service_server::{QuotaService, QuotaServiceServer};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};

use crate::admin::{Admin, Caller, Kind, Problem, execute, rights};
use answer::AnswerMessage;
use request::OperationMessage;
use routed::Routed;
pub(super) use status::name_of as status_of;

/// The gRPC reflection service, in the version that clients request first.
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";

/// The services and their reflection, behind their middleware. Reflection is one stream of requests and answers, so it has no
/// whole body to wait for; like the services it answers only authenticated callers.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(admin: &Admin) -> Router<S> {
    let bytes_max = admin.body_bytes_max();
    let quotas = QuotaServiceServer::new(Quotas { admin: admin.clone() }).max_decoding_message_size(bytes_max);
    let routed = Routed::new(admin);
    let credit = CreditServiceServer::new(routed.clone()).max_decoding_message_size(bytes_max);
    let merchants = MerchantServiceServer::new(routed).max_decoding_message_size(bytes_max);
    let mut router = Router::new()
        .route_service(&methods_of(&quotas), quotas)
        .route_service(&methods_of(&credit), credit)
        .route_service(&methods_of(&merchants), merchants)
        .layer(from_fn_with_state(admin.clone(), middleware::unary));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::QUOTA_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => {
            let reflection = Router::new()
                .route_service(&format!("/{REFLECTION}/{{method}}"), reflection)
                .layer(from_fn_with_state(admin.clone(), middleware::streaming));
            router = router.merge(reflection);
        }
        Err(error) => tracing::error!(%error, "grpc reflection is not available on the admin port"),
    }
    router
}

/// The paths of a service.
fn methods_of<T: NamedService>(_: &T) -> String {
    format!("/{}/{{method}}", T::NAME)
}

#[derive(Clone, Debug)]
struct Quotas {
    admin: Admin,
}

type GrpcResult<T> = Result<Response<T>, Status>;

/// The message and who sent it.
fn opened<M>(request: Request<M>) -> Result<(Caller, M), Status> {
    let (_, extensions, message) = request.into_parts();
    let caller = extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| status::of(&Problem::new(Kind::Unauthenticated)))?;
    Ok((caller, message))
}

impl Quotas {
    async fn execute<M: OperationMessage, A: AnswerMessage>(&self, request: Request<M>) -> GrpcResult<A> {
        let (caller, message) = opened(request)?;
        let done = execute::execute(&self.admin, &caller, message.requested()).await;
        Ok(Response::new(A::of(&done.map_err(|problem| status::of(&problem))?)))
    }
}

/// Declares the service from the table of operations: a method for each, and those that are not one operation.
macro_rules! quota_service {
    ([$({
        $name:ident, $variant:ident($body:ident), $permission:ident, $repetition:ident, $summary:literal,
        rest$rest:tt, grpc[$message:ident -> $response:ident]
    })+]) => {
        #[tonic::async_trait]
        impl QuotaService for Quotas {
            $(
                async fn $name(&self, request: Request<pb::$message>) -> GrpcResult<pb::$response> {
                    self.execute(request).await
                }
            )+

            async fn batch(&self, request: Request<pb::BatchRequest>) -> GrpcResult<pb::BatchResponse> {
                let (caller, pb::BatchRequest { operations, atomic }) = opened(request)?;
                let operations = operations.into_iter().map(OperationMessage::requested);
                let outcome = execute::batch(&self.admin, &caller, operations, atomic).await;
                Ok(Response::new(answer::batch(&outcome.map_err(|problem| status::of(&problem))?.results)))
            }

            async fn get_account(&self, request: Request<pb::GetAccountRequest>) -> GrpcResult<pb::Account> {
                let (caller, message) = opened(request)?;
                let account = execute::account(&self.admin, &caller, &message.merchant_id, &message.currency).await;
                Ok(Response::new(answer::account(account.map_err(|problem| status::of(&problem))?)))
            }

            async fn list_accounts(
                &self,
                request: Request<pb::ListAccountsRequest>,
            ) -> GrpcResult<pb::ListAccountsResponse> {
                let (caller, message) = opened(request)?;
                let accounts = execute::accounts(&self.admin, &caller, &message.merchant_id).await;
                Ok(Response::new(answer::accounts(accounts.map_err(|problem| status::of(&problem))?)))
            }

            async fn list_rights(&self, request: Request<pb::ListRightsRequest>) -> GrpcResult<pb::ListRightsResponse> {
                let (caller, message) = opened(request)?;
                let page = rights::read(&self.admin, &caller, request::rights(message)).await;
                Ok(Response::new(answer::rights(page.map_err(|problem| status::of(&problem))?)))
            }
        }
    };
}

sluice_decision::for_each_operation!(quota_service!());
