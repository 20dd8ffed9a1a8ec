//! What servers answer and are asked, and what both hosts record.

use std::collections::BTreeMap;

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value as StructValue};
use prost::Message;
use proto::batch::{BatchCheckRequest, BatchCheckResponse, BatchCheckResult};
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus, OkHttpResponse,
    RpcStatus,
};

/// A gRPC call that the filter made.
#[derive(Clone, Debug)]
pub(crate) struct GrpcCall {
    pub(crate) token: u32,
    pub(crate) cluster: String,
    pub(crate) path: String,
    pub(crate) message: Vec<u8>,
    pub(crate) timeout_ms: u32,
}

/// An answer that the filter gave in the gateway's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalReply {
    pub(crate) status: u32,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// What a host holds for one stream.
#[derive(Debug, Default)]
pub(crate) struct HostStream {
    pub(crate) request_headers: Vec<(String, Vec<u8>)>,
    pub(crate) request_trailers: Vec<(String, Vec<u8>)>,
    pub(crate) response_status: Option<String>,
    pub(crate) response_headers: Vec<(String, Vec<u8>)>,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    pub(crate) body: Vec<u8>,
    /// The last hook has paused the request; of the native host only.
    pub(crate) paused: bool,
    pub(crate) resumed: bool,
    pub(crate) reset: bool,
    pub(crate) reply: Option<LocalReply>,
    pub(crate) state: Option<Vec<u8>>,
}

impl HostStream {
    /// A stream with these headers whose route says nothing of a mode.
    pub(crate) fn of(headers: &[(&str, &str)]) -> Self {
        let request_headers = headers.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec())).collect();
        Self { request_headers, ..Self::default() }
    }

    pub(crate) fn set_mode(&mut self, mode: &str) {
        let path = "xds.route_metadata.filter_metadata.sluice.mode".to_owned();
        self.properties.insert(path, mode.as_bytes().to_vec());
    }

    /// What the proxy knows of the stream's end.
    pub(crate) fn ends(&mut self, status: Option<u16>, flags: u64) {
        self.properties.insert("response.flags".into(), flags.to_le_bytes().to_vec());
        if let Some(status) = status {
            self.properties.insert("response.code".into(), u64::from(status).to_le_bytes().to_vec());
        }
    }

    /// The status that a client gets, if the gateway's answer is a success.
    pub(crate) fn status(&self) -> Option<u16> {
        u16::try_from(self.reply.as_ref().map_or(200, |reply| reply.status)).ok()
    }

    /// What the access log shows.
    pub(crate) fn shown(&self) -> serde_json::Value {
        self.state.as_deref().map_or(serde_json::Value::Null, shown)
    }
}

/// The one call among those.
pub(crate) fn one_call(mut calls: Vec<GrpcCall>) -> GrpcCall {
    assert_eq!(calls.len(), 1, "{calls:?}");
    calls.remove(0)
}

/// An object of the access log as JSON.
fn shown(object: &[u8]) -> serde_json::Value {
    let object = Struct::decode(object).unwrap();
    object.fields.into_iter().map(|(name, value)| (name, json(value))).collect()
}

fn json(value: StructValue) -> serde_json::Value {
    match value.kind.unwrap() {
        Kind::StringValue(text) => text.into(),
        Kind::NumberValue(number) => number.into(),
        Kind::BoolValue(flag) => flag.into(),
        other => panic!("{other:?} in an access log's object"),
    }
}

/// What a question asks, by the last part of each key.
pub(crate) fn question(call: &GrpcCall) -> BTreeMap<String, String> {
    assert_eq!(call.path, "envoy.service.auth.v3.Authorization/Check");
    assert_eq!(call.cluster, "sluice_authz");
    fields(CheckRequest::decode(call.message.as_slice()).unwrap())
}

/// What the questions of a batch ask, in their order.
pub(crate) fn questions(call: &GrpcCall) -> Vec<BTreeMap<String, String>> {
    assert_eq!(call.path, "sluice.authz.v1.BatchAuthorization/BatchCheck");
    assert_eq!(call.cluster, "sluice_authz");
    let checks = BatchCheckRequest::decode(call.message.as_slice()).unwrap().checks;
    assert!((2..=32).contains(&checks.len()), "{}", checks.len());
    checks.into_iter().map(|check| fields(check.into())).collect()
}

fn fields(request: CheckRequest) -> BTreeMap<String, String> {
    let extensions = request.attributes.unwrap().context_extensions;
    extensions.into_iter().map(|(key, value)| (key.trim_start_matches("sluice.").to_owned(), value)).collect()
}

/// The answers to the questions of a batch; [`Answer::Failed`] is the status of one of them.
pub(crate) fn batch(answers: &[Answer]) -> Answer {
    let result = |answer: &Answer| match answer {
        Answer::Bytes(bytes) => {
            BatchCheckResult { grpc_status: 0, response: Some(CheckResponse::decode(bytes.as_slice()).unwrap()) }
        }
        Answer::Failed(grpc_status) => BatchCheckResult { grpc_status: *grpc_status, response: None },
    };
    Answer::Bytes(BatchCheckResponse { results: answers.iter().map(result).collect() }.encode_to_vec())
}

/// An answer of the server.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Bytes(Vec<u8>),
    Failed(u32),
}

fn options(headers: &[(&str, &str)]) -> Vec<HeaderValueOption> {
    let pair = |(key, value): &(&str, &str)| HeaderValue { key: (*key).into(), value: (*value).into() };
    headers.iter().map(|header| HeaderValueOption { header: Some(pair(header)) }).collect()
}

pub(crate) fn encoded(status: Option<i32>, http_response: Option<HttpResponse>) -> Answer {
    let status = status.map(|code| RpcStatus { code, message: String::new() });
    Answer::Bytes(CheckResponse { status, http_response, ..CheckResponse::default() }.encode_to_vec())
}

pub(crate) fn ok(headers: &[(&str, &str)]) -> Option<HttpResponse> {
    Some(HttpResponse::OkResponse(OkHttpResponse { headers: options(headers) }))
}

pub(crate) fn denied(status: i32, headers: &[(&str, &str)], body: &str) -> Option<HttpResponse> {
    let status = Some(HttpStatus { code: status });
    Some(HttpResponse::DeniedResponse(DeniedHttpResponse { status, headers: options(headers), body: body.into() }))
}

/// An answer that lets the payment on with this code.
pub(crate) fn passes(code: &str) -> Answer {
    encoded(Some(0), ok(&[("x-sluice-code", code), ("x-sluice-decision-id", "d-1"), ("x-sluice-replay", "false")]))
}

/// An answer that lets the payment on after a while.
pub(crate) fn delays(delay_ms: u32) -> Answer {
    let delay_ms = delay_ms.to_string();
    encoded(Some(0), ok(&[("x-sluice-code", "ADMITTED"), ("x-sluice-delay-ms", &delay_ms)]))
}

/// What the server says where its store gave no answer.
pub(crate) fn store_away() -> Answer {
    let headers = [("x-sluice-code", "STORE_UNAVAILABLE"), ("retry-after", "1")];
    encoded(Some(14), denied(503, &headers, "{\"code\":\"STORE_UNAVAILABLE\"}"))
}

/// A refusal for the daily amount.
pub(crate) fn refuses() -> Answer {
    let headers = [("X-Sluice-Code", "DAILY_AMOUNT"), ("retry-after", "60"), ("x-sluice-decision-id", "d-2")];
    encoded(Some(7), denied(429, &headers, "{\"code\":\"DAILY_AMOUNT\"}"))
}
