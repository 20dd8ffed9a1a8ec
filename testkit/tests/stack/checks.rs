//! Checks as the proxy filter sends them, several in a call or alone, and what they are answered.

use std::collections::HashMap;

use envoy_types::pb::envoy::service::auth::v3 as native;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use prost::Message;
use proto::batch::batch_authorization_client::BatchAuthorizationClient;
use proto::batch::{BatchCheckRequest, BatchCheckResult};
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{AttributeContext, CheckRequest, CheckResponse};
use proto::{extension, header};
use testkit::{Failure, Result};
use tonic::transport::Channel;

/// A check of 1.00 for merchant `m`; the attempt is the action's own.
pub(crate) fn check(action: &str, order_no: &str) -> CheckRequest {
    let attempt = format!("{action} {order_no}");
    let extensions = [
        (extension::ACTION, action),
        (extension::MERCHANT, "m"),
        (extension::AMOUNT_MINOR, "100"),
        (extension::CURRENCY, "USD"),
        (extension::ORDER_NO, order_no),
        (extension::ATTEMPT, &attempt),
        (extension::MODE, "enforce"),
    ];
    let context_extensions: HashMap<_, _> =
        extensions.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    CheckRequest { attributes: Some(AttributeContext { context_extensions }) }
}

/// A connection of its own.
pub(crate) async fn connect(address: &str) -> Result<Channel> {
    Ok(Channel::from_shared(address.to_owned())?.connect().await?)
}

/// Asks for all checks in one call; there is a result for each.
pub(crate) async fn ask_together(channel: &Channel, checks: Vec<CheckRequest>) -> Result<Vec<BatchCheckResult>> {
    let count = checks.len();
    let checks = checks.into_iter().map(Into::into).collect();
    let answer = BatchAuthorizationClient::new(channel.clone()).batch_check(BatchCheckRequest { checks }).await?;
    let results = answer.into_inner().results;
    assert_eq!(results.len(), count);
    Ok(results)
}

/// The codes of checks in one call.
pub(crate) async fn codes(channel: &Channel, checks: Vec<CheckRequest>) -> Result<Vec<String>> {
    let results = ask_together(channel, checks).await?;
    results.iter().map(|result| result.response.as_ref().map_or_else(|| Err(no_code()), code)).collect()
}

/// The code of a check that is asked alone.
pub(crate) async fn ask_alone(channel: &Channel, check: &CheckRequest) -> Result<String> {
    let check = native::CheckRequest::decode(check.encode_to_vec().as_slice())?;
    let answer = AuthorizationClient::new(channel.clone()).check(check).await?.into_inner();
    code(&CheckResponse::decode(answer.encode_to_vec().as_slice())?)
}

fn code(response: &CheckResponse) -> Result<String> {
    let headers = match response.http_response.as_ref().ok_or_else(no_code)? {
        HttpResponse::OkResponse(admitted) => &admitted.headers,
        HttpResponse::DeniedResponse(denied) => &denied.headers,
    };
    let code = headers.iter().filter_map(|option| option.header.as_ref()).find(|pair| pair.key == header::CODE);
    code.map(|pair| pair.value.clone()).ok_or_else(no_code)
}

fn no_code() -> Failure {
    Failure::new("an answer without a code")
}
