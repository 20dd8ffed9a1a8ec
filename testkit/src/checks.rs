//! Checks as the proxy filter sends them, for tests without a proxy.

use std::net::SocketAddr;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use proto::header;
use tonic::transport::Channel;

use crate::failure::{Failure, Result};

/// Asks for one decision; the fields are the contract's, without their prefix. Gives the code.
///
/// # Errors
/// When no answer comes, or one without a code.
pub async fn ask(server: SocketAddr, fields: &[(&str, &str)]) -> Result<String> {
    let channel = Channel::from_shared(format!("http://{server}"))?.connect().await?;
    let context_extensions =
        fields.iter().map(|(name, value)| (format!("sluice.{name}"), (*value).to_owned())).collect();
    let attributes = Some(AttributeContext { context_extensions, ..AttributeContext::default() });
    let answer = AuthorizationClient::new(channel).check(CheckRequest { attributes }).await?.into_inner();
    let headers = match answer.http_response {
        Some(HttpResponse::OkResponse(admitted)) => admitted.headers,
        Some(HttpResponse::DeniedResponse(denied)) => denied.headers,
        Some(HttpResponse::ErrorResponse(_)) | None => Vec::new(),
    };
    let code = headers.into_iter().filter_map(|option| option.header).find(|pair| pair.key == header::CODE);
    code.map(|pair| pair.value).ok_or_else(|| Failure::new("an answer without a code"))
}
