//! The filter's part of Envoy's protocol and the whole protocol are one on the wire: what one writes the other reads, both ways.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as whole;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use proto::envoy as part;
use testkit::Result;

use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("contract::questions", async || questions());
    suite.alone("contract::admissions", async || admissions());
    suite.alone("contract::refusals", async || refusals());
}

fn extensions() -> HashMap<String, String> {
    let pairs =
        [("sluice.action", "consume"), ("sluice.merchant", "m-1"), ("sluice.order_no", "Bestellung-Ü"), ("", "")];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn questions() -> Result<()> {
    let ours = part::CheckRequest { attributes: Some(part::AttributeContext { context_extensions: extensions() }) };
    let mut theirs = whole::CheckRequest {
        attributes: Some(whole::AttributeContext { context_extensions: extensions(), ..Default::default() }),
    };
    ensure_eq!(whole::CheckRequest::decode(ours.encode_to_vec().as_slice())?, theirs);
    // What the part does not know it skips.
    if let Some(attributes) = &mut theirs.attributes {
        attributes.request = Some(whole::attribute_context::Request {
            http: Some(whole::attribute_context::HttpRequest { path: "/v1/payments".to_owned(), ..Default::default() }),
            ..Default::default()
        });
    }
    ensure_eq!(part::CheckRequest::decode(theirs.encode_to_vec().as_slice())?, ours);
    Ok(())
}

const HEADERS: [(&str, &str); 2] = [("x-sluice-code", "ADMITTED"), ("x-sluice-decision-id", "0190-…")];

fn our_headers() -> Vec<part::HeaderValueOption> {
    let header = |(key, value): (&str, &str)| part::HeaderValue { key: key.to_owned(), value: value.to_owned() };
    HEADERS.map(|pair| part::HeaderValueOption { header: Some(header(pair)) }).into()
}

fn their_headers(append_action: i32) -> Vec<core::HeaderValueOption> {
    let header = |(key, value): (&str, &str)| core::HeaderValue {
        key: key.to_owned(),
        value: value.to_owned(),
        ..Default::default()
    };
    let option = |pair| core::HeaderValueOption { header: Some(header(pair)), append_action, ..Default::default() };
    HEADERS.map(option).into()
}

fn admissions() -> Result<()> {
    let ours = part::CheckResponse {
        status: Some(part::RpcStatus::default()),
        http_response: Some(part::check_response::HttpResponse::OkResponse(part::OkHttpResponse {
            headers: our_headers(),
        })),
        dynamic_metadata: Vec::new(),
    };
    let theirs = |append_action, headers_to_remove: Vec<String>, dynamic_metadata| whole::CheckResponse {
        status: Some(Status::default()),
        http_response: Some(whole::check_response::HttpResponse::OkResponse(whole::OkHttpResponse {
            headers: their_headers(append_action),
            headers_to_remove,
            ..Default::default()
        })),
        dynamic_metadata,
    };
    ensure_eq!(whole::CheckResponse::decode(ours.encode_to_vec().as_slice())?, theirs(0, Vec::new(), None));
    let value = Value { kind: Some(Kind::StringValue("ADMITTED".to_owned())) };
    let metadata = Struct { fields: HashMap::from([("code".to_owned(), value)]) };
    let full = theirs(2, vec!["x-sluice-replay".to_owned()], Some(metadata.clone()));
    let ours = part::CheckResponse { dynamic_metadata: metadata.encode_to_vec(), ..ours };
    ensure_eq!(part::CheckResponse::decode(full.encode_to_vec().as_slice())?, ours);
    Ok(())
}

fn refusals() -> Result<()> {
    let body = r#"{"code":"DAILY_AMOUNT"}"#.to_owned();
    let ours = part::CheckResponse {
        status: Some(part::RpcStatus { code: 8, message: "DAILY_AMOUNT".to_owned() }),
        http_response: Some(part::check_response::HttpResponse::DeniedResponse(part::DeniedHttpResponse {
            status: Some(part::HttpStatus { code: 429 }),
            headers: our_headers(),
            body: body.clone(),
        })),
        dynamic_metadata: Vec::new(),
    };
    let theirs = whole::CheckResponse {
        status: Some(Status { code: 8, message: "DAILY_AMOUNT".to_owned(), details: Vec::new() }),
        http_response: Some(whole::check_response::HttpResponse::DeniedResponse(whole::DeniedHttpResponse {
            status: Some(HttpStatus { code: 429 }),
            headers: their_headers(0),
            body,
        })),
        dynamic_metadata: None,
    };
    ensure_eq!(whole::CheckResponse::decode(ours.encode_to_vec().as_slice())?, theirs);
    ensure_eq!(part::CheckResponse::decode(theirs.encode_to_vec().as_slice())?, ours);
    Ok(())
}
