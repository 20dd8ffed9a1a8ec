//! The server with its stores, callers of `quota.v1.QuotaService`, and what they ask.

use std::time::{SystemTime, UNIX_EPOCH};

use proto::quota_v1::batch_operation::Operation;
use proto::quota_v1::batch_result::Result as Outcome;
use proto::quota_v1::credit_service_client::CreditServiceClient;
use proto::quota_v1::merchant_service_client::MerchantServiceClient;
use proto::quota_v1::quota_service_client::QuotaServiceClient;
use proto::quota_v1::{
    BatchOperation, BatchRequest, CheckRequest, CheckResponse, ConsumeRequest, HoldRequest, OperationResponse,
};
use testkit::api::{Api, Caller};
use testkit::{Context, Failure, Result};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Every limit that the tables meet. The zone is one in which no day ends while a test runs.
const POLICIES: &str = "
version: grpc
default:
  timezone: ZONE
  single_min: 100
  single_max: 1000000
  daily_amount: 5000000
merchants:
  small: {daily_amount: 1500}
  race: {daily_amount: 5000}
  counted: {daily_count: 1}
  choosy: {allowed_channels: [card], allowed_currencies: [USD]}
  holding: {pending_amount: 1500}
  refunding: {refund_daily_amount: 500}
  weighed: {daily_amount: 1000, weight_bp: 5000}
  by-rest: &trusting {trust: {above_percent: 20, share_percent: 5, ttl_ms: 2000}}
  by-grpc: *trusting
  trusted: {trust: {above_percent: 20, share_percent: 10, ttl_ms: 60000}}
  briefly-trusted: {trust: {above_percent: 20, share_percent: 10, ttl_ms: 100}}
  by-channel: {channels: {wallet: {over_capture_percent: 10, refund_daily_amount: 500}}}
";

/// Starts everything.
pub(crate) fn start(env: &[(&str, &str)]) -> Result<Api> {
    Api::start(&POLICIES.replace("ZONE", &zone_at_noon()?), env)
}

/// A zone of whole hours in which it is about noon.
fn zone_at_noon() -> Result<String> {
    let hour = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 3600 % 24;
    // The sign of these names is the other way round: Etc/GMT-3 is three hours ahead of UTC.
    Ok(if hour > 12 { format!("Etc/GMT+{}", hour - 12) } else { format!("Etc/GMT-{}", 12 - hour) })
}

/// Puts the caller's token into every call.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub(crate) type Client = QuotaServiceClient<InterceptedService<Channel, Bearer>>;

/// A connection of its own to the admin port.
pub(crate) async fn channel(api: &Api) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", api.server.admin_address()))?;
    endpoint.connect().await.context("connecting to the admin port")
}

/// The service as a caller sees it.
pub(crate) async fn client(api: &Api, caller: &Caller) -> Result<Client> {
    client_on(channel(api).await?, Some(caller.token()))
}

pub(crate) fn client_on(channel: Channel, token: Option<&str>) -> Result<Client> {
    Ok(QuotaServiceClient::with_interceptor(channel, bearer(token)?))
}

pub(crate) type CreditClient = CreditServiceClient<InterceptedService<Channel, Bearer>>;

/// The service of credit lines as a caller sees it.
pub(crate) fn credit_client_on(channel: Channel, token: Option<&str>) -> Result<CreditClient> {
    Ok(CreditServiceClient::with_interceptor(channel, bearer(token)?))
}

pub(crate) type MerchantClient = MerchantServiceClient<InterceptedService<Channel, Bearer>>;

/// The service of merchants as a caller sees it.
pub(crate) fn merchant_client_on(channel: Channel, token: Option<&str>) -> Result<MerchantClient> {
    Ok(MerchantServiceClient::with_interceptor(channel, bearer(token)?))
}

fn bearer(token: Option<&str>) -> Result<Bearer> {
    Ok(Bearer(token.map(|token| format!("Bearer {token}").parse()).transpose()?))
}

/// An answer of either kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Operation(OperationResponse),
    Check(CheckResponse),
}

/// Asks for an operation by its own method.
pub(crate) async fn ask(client: &mut Client, operation: Operation) -> std::result::Result<Answer, Status> {
    let operated = |response: tonic::Response<OperationResponse>| Answer::Operation(response.into_inner());
    match operation {
        Operation::Check(message) => client.check(message).await.map(|response| Answer::Check(response.into_inner())),
        Operation::Consume(message) => client.consume(message).await.map(operated),
        Operation::Hold(message) => client.hold(message).await.map(operated),
        Operation::Settle(message) => client.settle(message).await.map(operated),
        Operation::Void(message) => client.void(message).await.map(operated),
        Operation::ExtendHold(message) => client.extend_hold(message).await.map(operated),
        Operation::Release(message) => client.release(message).await.map(operated),
        Operation::Refund(message) => client.refund(message).await.map(operated),
        Operation::Adjust(message) => client.adjust(message).await.map(operated),
        Operation::Reset(message) => client.reset(message).await.map(operated),
        Operation::Suspend(message) => client.suspend(message).await.map(operated),
        Operation::Resume(message) => client.resume(message).await.map(operated),
        Operation::Initialize(message) => client.initialize(message).await.map(operated),
        Operation::ReleaseRight(message) => client.release_right(message).await.map(operated),
    }
}

/// Asks for an operation that takes effect.
pub(crate) async fn done(client: &mut Client, operation: Operation) -> Result<OperationResponse> {
    let what = format!("{operation:?}");
    match ask(client, operation).await.map_err(|status| Failure::new(format!("{what}: {status:?}")))? {
        Answer::Operation(response) => Ok(response),
        Answer::Check(response) => Err(Failure::new(format!("{what}: {response:?}"))),
    }
}

/// Asks for operations in one call.
pub(crate) async fn batch(
    client: &mut Client,
    operations: Vec<Operation>,
    atomic: bool,
) -> std::result::Result<Vec<Outcome>, Status> {
    let operations: Vec<_> =
        operations.into_iter().map(|operation| BatchOperation { operation: Some(operation) }).collect();
    let asked = operations.len();
    let response = client.batch(BatchRequest { operations, atomic }).await?.into_inner();
    let outcomes: Vec<Outcome> = response.results.into_iter().filter_map(|result| result.result).collect();
    let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Refusal(_))).count();
    assert_eq!(outcomes.len(), asked);
    assert_eq!(usize::try_from(response.failed), Ok(failed));
    assert_eq!(usize::try_from(response.succeeded), Ok(asked - failed));
    Ok(outcomes)
}

pub(crate) fn check(merchant: &str, amount: i64) -> Operation {
    Operation::Check(CheckRequest { merchant_id: merchant.to_owned(), currency: usd(), amount, channel: None })
}

pub(crate) fn consume(merchant: &str, order_no: &str, amount: i64) -> Operation {
    Operation::Consume(consume_request(merchant, order_no, amount))
}

pub(crate) fn consume_request(merchant: &str, order_no: &str, amount: i64) -> ConsumeRequest {
    ConsumeRequest {
        merchant_id: merchant.to_owned(),
        currency: usd(),
        order_no: order_no.to_owned(),
        amount,
        ..ConsumeRequest::default()
    }
}

pub(crate) fn hold(merchant: &str, order_no: &str, amount: i64) -> Operation {
    Operation::Hold(HoldRequest {
        merchant_id: merchant.to_owned(),
        currency: usd(),
        order_no: order_no.to_owned(),
        amount,
        ..HoldRequest::default()
    })
}

pub(crate) fn usd() -> String {
    "USD".to_owned()
}
