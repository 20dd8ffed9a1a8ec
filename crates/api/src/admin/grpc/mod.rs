//! `quota.v1.QuotaService` on the admin port: the operations of REST as gRPC, by the same path, for the same callers.
//!
//! `gate` lets callers in, `request` reads messages, `answer` writes them, `status` says no.

mod answer;
mod gate;
mod request;
mod status;

use axum::Router;
use axum::middleware::from_fn_with_state;
use proto::quota_v1 as pb;
use proto::quota_v1::quota_service_server::{QuotaService, QuotaServiceServer};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};

use crate::admin::{Admin, Caller, Kind, Problem, operate};
use request::Asks;
use sluice_decision::decider::Decision;
use sluice_decision::operations::{self, Invalid};
pub(super) use status::name_of as status_of;

/// Where gRPC reflection is found, in the version that clients ask for first.
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";

/// The service and its reflection, behind their gates. Reflection is asked and answered in one stream, so that it has no whole
/// body to wait for; like the service it answers only callers that are known.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(admin: &Admin) -> Router<S> {
    let service =
        QuotaServiceServer::new(Quotas { admin: admin.clone() }).max_decoding_message_size(admin.body_bytes_max());
    let name = <QuotaServiceServer<Quotas> as NamedService>::NAME;
    let mut router = Router::new()
        .route_service(&format!("/{name}/{{method}}"), service)
        .layer(from_fn_with_state(admin.clone(), gate::unary));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::QUOTA_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => {
            let reflection = Router::new()
                .route_service(&format!("/{REFLECTION}/{{method}}"), reflection)
                .layer(from_fn_with_state(admin.clone(), gate::streaming));
            router = router.merge(reflection);
        }
        Err(error) => tracing::error!(%error, "the admin port has no gRPC reflection"),
    }
    router
}

#[derive(Clone, Debug)]
struct Quotas {
    admin: Admin,
}

type Told<T> = Result<Response<T>, Status>;

impl Quotas {
    async fn execute<M: Asks>(&self, request: Request<M>) -> Result<Decision, Status> {
        let (caller, message) = opened(request)?;
        let done = operate::execute(&self.admin, &caller, message.request()).await;
        done.map_err(|problem| status::of(&problem))
    }

    async fn operate<M: Asks>(&self, request: Request<M>) -> Told<pb::OperationResponse> {
        let done = self.execute(request).await?;
        Ok(Response::new(answer::operation(&done)))
    }
}

/// The message and who sent it.
fn opened<M>(request: Request<M>) -> Result<(Caller, M), Status> {
    let (_, extensions, message) = request.into_parts();
    let caller = extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| status::of(&Problem::new(Kind::Unauthenticated)))?;
    Ok((caller, message))
}

#[tonic::async_trait]
impl QuotaService for Quotas {
    async fn check(&self, request: Request<pb::CheckRequest>) -> Told<pb::CheckResponse> {
        let done = self.execute(request).await?;
        Ok(Response::new(answer::check(&done)))
    }

    async fn consume(&self, request: Request<pb::ConsumeRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn hold(&self, request: Request<pb::HoldRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn settle(&self, request: Request<pb::SettleRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn void(&self, request: Request<pb::VoidRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn refund(&self, request: Request<pb::RefundRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn adjust(&self, request: Request<pb::AdjustRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn reset(&self, request: Request<pb::ResetRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn suspend(&self, request: Request<pb::SuspendRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn resume(&self, request: Request<pb::ResumeRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn initialize(&self, request: Request<pb::InitializeRequest>) -> Told<pb::OperationResponse> {
        self.operate(request).await
    }

    async fn batch(&self, request: Request<pb::BatchRequest>) -> Told<pb::BatchResponse> {
        let (caller, pb::BatchRequest { operations, atomic }) = opened(request)?;
        let requests =
            operations.into_iter().map(|operation| -> Result<operations::Request, Invalid> { operation.request() });
        let outcomes = operate::batch(&self.admin, &caller, requests, atomic).await;
        let outcomes = outcomes.map_err(|problem| status::of(&problem))?;
        Ok(Response::new(answer::batch(outcomes)))
    }

    async fn get_account(&self, request: Request<pb::GetAccountRequest>) -> Told<pb::Account> {
        let (caller, asked) = opened(request)?;
        let account = operate::account(&self.admin, &caller, &asked.merchant_id, &asked.currency).await;
        Ok(Response::new(answer::account(account.map_err(|problem| status::of(&problem))?)))
    }

    async fn list_accounts(&self, request: Request<pb::ListAccountsRequest>) -> Told<pb::ListAccountsResponse> {
        let (caller, asked) = opened(request)?;
        let accounts = operate::accounts(&self.admin, &caller, &asked.merchant_id).await;
        Ok(Response::new(answer::accounts(accounts.map_err(|problem| status::of(&problem))?)))
    }
}
