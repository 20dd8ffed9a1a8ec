//! How a decision is returned: to Envoy as a check response, to the caller as headers and a problem body.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use prost::Message;
use proto::{LimitUsage, PROBLEM_CONTENT_TYPE, Problem, RefusalDetails, envoy, header, right};
use quota::{AmountMinor, Calendar, Code, Currency, LimitName, LimitState, Limits, MerchantId, Mode, OrderNo, Record};
use sluice_rules::Salvaged;
use tonic::Code as RpcCode;
use tonic_types::pb::ErrorInfo;
use uuid::Uuid;

use sluice_store::refusal;

/// The type of [`ErrorInfo`] among a status' details.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// The limit that refused a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub state: LimitState,
    /// When the window ends, in milliseconds since the epoch; `None` if captures and voids lift the limit, not time.
    pub resets_at_ms: Option<i64>,
    /// Whole seconds from the decision until then, rounded up, at least one.
    pub retry_after_secs: Option<u64>,
}

impl Binding {
    /// The limit named by the record's code, if any.
    pub(super) fn of(record: &Record, limits: &Limits, calendar: &Calendar, now_ms: i64) -> Option<Self> {
        let state = LimitState::of(LimitName::of_code(record.code)?, limits, record);
        let resets_at_ms = state.limit.period().and_then(|period| calendar.ends_at_ms(period, state.window));
        let wait_ms = resets_at_ms.map(|at| u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0));
        Some(Self { state, resets_at_ms, retry_after_secs: wait_ms.map(|wait| wait.div_ceil(1000).max(1)) })
    }
}

/// The payment that an answer is about, for the access log of a route that uses Envoy's native filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub rule: Option<String>,
    pub action: Option<&'static str>,
    pub attempt: Option<String>,
    pub known: Salvaged,
}

/// The answer to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub code: Code,
    pub mode: Mode,
    pub replay: bool,
    /// Absent if nothing was decided: the request could not be read, or the store gave no answer.
    pub decision_id: Option<Uuid>,
    pub detail: Option<String>,
    /// The details of a refusal beside its code.
    pub refusal: Option<RefusalDetails>,
    /// Milliseconds: the delay of an admitted charge, or the time after which a throttled one may be retried.
    pub wait_ms: u64,
    pub binding: Option<Binding>,
    /// Of the policy that decided; empty if none did.
    pub policy_version: Arc<str>,
    /// The answer to a holder that asked for a right, as far as it is known.
    pub right: Option<right::Answer>,
    /// Empty for the proxy filter, which knows it.
    pub subject: Subject,
}

impl Answer {
    /// Nothing was decided because the store gave no answer.
    pub(super) fn without_decision(mode: Mode) -> Self {
        Self::bare(Code::StoreUnavailable, mode)
    }

    /// A code, and nothing decided.
    pub(super) fn bare(code: Code, mode: Mode) -> Self {
        Self {
            code,
            mode,
            replay: false,
            decision_id: None,
            detail: None,
            refusal: None,
            wait_ms: 0,
            binding: None,
            policy_version: Arc::default(),
            right: None,
            subject: Subject::default(),
        }
    }

    /// The one place where a mode turns a refusal into a pass.
    fn lets_through(&self) -> bool {
        self.code.http_status() == 200 || self.mode == Mode::Shadow
    }

    /// The response for Envoy and the proxy filter. Envoy's `native` filter gets all that the access log shows; the proxy filter
    /// writes its own record, with the members that only the server knows.
    pub(super) fn to_check_response(&self, native: bool) -> CheckResponse {
        let (rpc_code, response) = if self.lets_through() {
            (RpcCode::Ok, HttpResponse::OkResponse(self.passed()))
        } else {
            (self.rpc_code(), HttpResponse::DeniedResponse(self.denied()))
        };
        CheckResponse {
            status: Some(RpcStatus {
                code: rpc_code as i32,
                message: self.code.as_str().to_owned(),
                details: self.refusal.iter().map(|details| self.error_info(details)).collect(),
            }),
            dynamic_metadata: Some(if native { self.metadata() } else { Struct { fields: self.decided().collect() } }),
            http_response: Some(response),
        }
    }

    /// The same for the proxy filter, without what it does not use.
    pub(super) fn to_filter_response(&self) -> envoy::CheckResponse {
        let (rpc_code, response) = if self.lets_through() {
            let headers = self.own_headers().map(filter_option).collect();
            (RpcCode::Ok, envoy::check_response::HttpResponse::OkResponse(envoy::OkHttpResponse { headers }))
        } else {
            let denied = envoy::DeniedHttpResponse {
                status: Some(envoy::HttpStatus { code: i32::from(self.code.http_status()) }),
                headers: self.refusal_headers().map(filter_option).collect(),
                body: self.problem().to_json(),
            };
            (self.rpc_code(), envoy::check_response::HttpResponse::DeniedResponse(denied))
        };
        // The code is among the headers.
        let status = envoy::RpcStatus { code: rpc_code as i32, message: String::new() };
        let dynamic_metadata = Struct { fields: self.decided().collect() }.encode_to_vec();
        envoy::CheckResponse { status: Some(status), http_response: Some(response), dynamic_metadata }
    }

    /// The refusal details as gRPC's standard detail, as the API answers them.
    fn error_info(&self, details: &RefusalDetails) -> Any {
        let metadata = refusal::members(details);
        let reason = self.code.as_str().to_owned();
        let info = ErrorInfo { reason, domain: refusal::DOMAIN.to_owned(), metadata };
        Any { type_url: ERROR_INFO.to_owned(), value: info.encode_to_vec() }
    }

    fn rpc_code(&self) -> RpcCode {
        match self.code.http_status() {
            429 => RpcCode::ResourceExhausted,
            503 => RpcCode::Unavailable,
            400 | 413 | 415 => RpcCode::InvalidArgument,
            _ => RpcCode::PermissionDenied,
        }
    }

    fn passed(&self) -> OkHttpResponse {
        let headers = self.own_headers().map(|(key, value)| option(key, value)).collect::<Vec<_>>();
        // Our header names must not carry a client's values: those set are overwritten, the others removed.
        let unset =
            [header::CODE, header::DECISION_ID, header::REPLAY, header::DELAY_MS, header::RIGHT].into_iter().filter(
                |name| !headers.iter().any(|option| option.header.as_ref().is_some_and(|header| header.key == *name)),
            );
        let headers_to_remove = unset.map(str::to_owned).collect();
        OkHttpResponse { headers, headers_to_remove, ..OkHttpResponse::default() }
    }

    fn denied(&self) -> DeniedHttpResponse {
        let headers = self.refusal_headers().map(|(key, value)| option(key, value)).collect();
        DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(self.code.http_status()) }),
            headers,
            body: self.problem().to_json(),
        }
    }

    fn refusal_headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let content_type = std::iter::once(("content-type", PROBLEM_CONTENT_TYPE.to_owned()));
        content_type.chain(self.own_headers()).chain(self.limit_headers())
    }

    fn own_headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let code = (header::CODE, self.code.as_str().to_owned());
        let id = self.decision_id.map(|id| (header::DECISION_ID, id.to_string()));
        let replay = self.replay.then(|| (header::REPLAY, "true".to_owned()));
        let waits = self.code == Code::Admitted && self.wait_ms > 0;
        let delay = waits.then(|| (header::DELAY_MS, self.wait_ms.to_string()));
        let right = self.right.as_ref().map(|right| (header::RIGHT, right.to_text()));
        std::iter::once(code).chain(id).chain(replay).chain(delay).chain(right)
    }

    fn limit_headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let unavailable = (self.code.http_status() == 503).then_some(1);
        let turn = (self.code == Code::Throttled).then(|| self.wait_ms.div_ceil(1000).max(1));
        let seconds = self.binding.and_then(|binding| binding.retry_after_secs).or(turn).or(unavailable);
        let retry_after = seconds.map(|seconds| (header::RETRY_AFTER, seconds.to_string()));
        let limits = self.binding.map(|Binding { state, retry_after_secs, .. }| {
            let name = state.limit.as_str();
            let window = state.limit.period().map(|period| format!(";w={}", period.nominal_secs())).unwrap_or_default();
            let reset = retry_after_secs.map(|seconds| format!(";t={seconds}")).unwrap_or_default();
            [
                (header::RATE_LIMIT_POLICY, format!("\"{name}\";q={}{window}", state.max)),
                (header::RATE_LIMIT, format!("\"{name}\";r={}{reset}", state.remaining())),
            ]
        });
        retry_after.into_iter().chain(limits.into_iter().flatten())
    }

    fn problem(&self) -> Problem {
        let mut problem = Problem::new(self.code, self.detail.clone());
        problem.decision_id = self.decision_id.map(|id| id.to_string());
        if let Some(details) = &self.refusal {
            problem = problem.with_details(details.clone());
        }
        problem.limit = self.binding.map(|Binding { state, resets_at_ms, .. }| LimitUsage {
            name: state.limit.as_str().to_owned(),
            max: state.max,
            used: state.before,
            remaining: state.remaining(),
            resets_at: resets_at_ms
                .and_then(DateTime::from_timestamp_millis)
                .map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        });
        problem
    }

    /// For the access log of a route that uses Envoy's native filter: the members that the proxy filter writes, as far as they
    /// are known before the gateway is called.
    fn metadata(&self) -> Struct {
        let Subject { rule, action, attempt, known } = &self.subject;
        let outcome = if self.lets_through() { "forwarded" } else { "refused" };
        let texts = [
            ("outcome", Some(outcome)),
            ("code", Some(self.code.as_str())),
            ("mode", Some(self.mode.as_str())),
            ("rule", rule.as_deref()),
            ("action", *action),
            ("attempt", attempt.as_deref()),
            ("merchant", known.merchant.as_ref().map(MerchantId::as_str)),
            ("order", known.order_no.as_ref().map(OrderNo::as_str)),
            ("currency", known.currency.as_ref().map(|currency| Currency::code(*currency))),
            ("detail", self.detail.as_deref()),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some(text(name, value?.to_owned())));
        let id = self.decision_id.map(|id| text("decision_id", id.to_string()));
        let amount = known.amount.map(|amount| member("amount_minor", Kind::NumberValue(number(amount))));
        let replay = self.replay.then(|| member("replay", Kind::BoolValue(true)));
        Struct { fields: texts.chain(id).chain(amount).chain(replay).chain(self.decided()).collect() }
    }

    /// What only the server knows of a decision.
    fn decided(&self) -> impl Iterator<Item = (String, Value)> {
        let version =
            (!self.policy_version.is_empty()).then(|| text("policy_version", self.policy_version.as_ref().to_owned()));
        let limit = self.binding.map(|binding| text("limit", binding.state.limit.as_str().to_owned()));
        version.into_iter().chain(limit)
    }
}

fn member(name: &str, kind: Kind) -> (String, Value) {
    (name.to_owned(), Value { kind: Some(kind) })
}

fn text(name: &str, value: String) -> (String, Value) {
    member(name, Kind::StringValue(value))
}

/// Exact: every amount is below 2^53.
fn number(amount: AmountMinor) -> f64 {
    amount.get() as f64
}

fn filter_option((key, value): (&str, String)) -> envoy::HeaderValueOption {
    envoy::HeaderValueOption { header: Some(envoy::HeaderValue { key: key.to_owned(), value }) }
}

fn option(key: &str, value: String) -> HeaderValueOption {
    let header = HeaderValue { key: key.to_owned(), value, raw_value: vec![] };
    HeaderValueOption {
        header: Some(header),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    }
}

#[cfg(test)]
mod tests;
