//! The server's gRPC port beside the checks: health and reflection, as orchestrators and people ask for them. And gRPC requests that
//! the filter refuses.

use std::time::Duration;

use testkit::books::seen_by;
use testkit::client::{Call, Part, Protocol};
use testkit::stack::Stack;
use testkit::{Failure, Result, Service, wait};
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::suite::{Suite, patient};

/// The service that Envoy calls.
const AUTHORIZATION: &str = "envoy.service.auth.v3.Authorization";
/// The one that the filter calls for several questions at once.
const BATCH_AUTHORIZATION: &str = "sluice.authz.v1.BatchAuthorization";
/// The server asks Redis once a second.
const SAID_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("grpc::health_follows_redis", patient(), health_follows_redis);
    suite.shared("grpc::reflection_names_the_services", reflection_names_the_services);
    suite.shared("grpc::a_refused_request_is_no_success", a_refused_request_is_no_success);
}

/// Envoy answers a gRPC request with HTTP's 200 and gRPC's own status: that of the refusal.
async fn a_refused_request_is_no_success(stack: &Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        let merchant = format!("grpc-{protocol:?}");
        let body = format!(r#"{{"merchant_id": "{merchant}", "order_no": "o", "amount": 1, "currency": "USD"}}"#);
        let call = Call::new("POST", "/v1/payments").header("content-type", "application/grpc");
        let answer = stack.send(protocol, call.part(Part::Data(body.into()))).await?;
        ensure_eq!(answer.status, 200);
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        // The filter's 415, as gRPC maps it: unknown.
        ensure_eq!(header("x-sluice-code"), Some("UNSUPPORTED_CONTENT"));
        ensure_eq!(header("grpc-status"), Some("2"), "{protocol:?}");
        ensure!(seen_by(stack, &merchant).is_empty(), "the gateway saw a refused request");
    }
    Ok(())
}

async fn channel(stack: &Stack) -> Result<Channel> {
    Ok(Channel::from_shared(format!("http://{}", stack.server.grpc_address()))?.connect().await?)
}

async fn health_follows_redis(stack: &mut Stack) -> Result<()> {
    let channel = channel(stack).await?;
    serves(&channel, ServingStatus::Serving).await?;
    stack.redis.kill()?;
    serves(&channel, ServingStatus::NotServing).await?;
    stack.redis.restart()?;
    serves(&channel, ServingStatus::Serving).await?;
    let unknown = HealthCheckRequest { service: "sluice.Unknown".to_owned() };
    let answer = HealthClient::new(channel).check(unknown).await;
    ensure_eq!(answer.err().map(|status| status.code()), Some(tonic::Code::NotFound));
    Ok(())
}

/// Waits until the server as a whole, and the service by its name, have this status.
async fn serves(channel: &Channel, expected: ServingStatus) -> Result<()> {
    for service in ["", AUTHORIZATION, BATCH_AUTHORIZATION] {
        wait::until_async(&format!("health of {service:?} being {expected:?}"), SAID_WITHIN, || async {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = HealthClient::new(channel.clone()).check(request).await?.into_inner();
            Ok((answer.status() == expected).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn reflection_names_the_services(stack: &Stack) -> Result<()> {
    let channel = channel(stack).await?;
    let MessageResponse::ListServicesResponse(list) =
        reflect(&channel, MessageRequest::ListServices(String::new())).await?
    else {
        return Err(Failure::new("no list of services"));
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    let own = [AUTHORIZATION, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", BATCH_AUTHORIZATION];
    ensure_eq!(names, own);
    for name in [AUTHORIZATION, BATCH_AUTHORIZATION] {
        let symbol = MessageRequest::FileContainingSymbol(name.to_owned());
        let MessageResponse::FileDescriptorResponse(files) = reflect(&channel, symbol).await? else {
            return Err(Failure::new(format!("no description of {name}")));
        };
        ensure!(!files.file_descriptor_proto.is_empty(), "the description of {name} is empty");
    }
    Ok(())
}

async fn reflect(channel: &Channel, message_request: MessageRequest) -> Result<MessageResponse> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await?;
    let answer: Option<ServerReflectionResponse> = answers.into_inner().message().await?;
    answer.and_then(|answer| answer.message_response).ok_or_else(|| Failure::new("reflection gave no answer"))
}
