//! The one error body of the admin API: RFC 9457 problem details, the members of `proto::Problem` and, for a request that
//! cannot be read, the field at fault. Every rejection, the framework's too, leaves the server in this form.

mod database;
mod kind;

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::{CreditStanding, LimitUsage, RefusalDetails};
use quota::Code;
use serde::Serialize;
use tracing::error;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

pub use kind::Kind;

/// What to do if a change may have been made that would count twice if it were made again.
const OUTCOME_UNKNOWN: &str =
    "it may have been done: read the account, then send it with expected_version and a new key";

/// Put into an answer's extensions if its status does not decide whether it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A retry could do twice what may be done once.
    Always,
    /// A part of the request has to be retried.
    Never,
}

/// An answer that is no success. Boxed, so that results stay small.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Details>);

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        Details::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        Details::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Details::schemas(schemas);
    }
}

/// An answer that is no success: RFC 9457 problem details.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
struct Details {
    /// A URN that names the kind of problem by its code; docs/errors.md has them all.
    #[serde(rename = "type")]
    #[schema(example = "urn:sluice:problem:bad_request")]
    kind: String,
    /// The kind of problem in one sentence.
    title: &'static str,
    /// The HTTP status of the answer.
    #[schema(example = 400)]
    status: u16,
    /// Stable, made for programs; docs/errors.md says what each means and whether to ask again.
    #[schema(value_type = String, example = "BAD_REQUEST")]
    code: &'static str,
    /// What is particular to this request, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The field or parameter at fault, as in `limits[2].daily`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The decision's id, where there was a decision; its usage log row has the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    /// The limit that bound, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemLimit>)]
    limit: Option<LimitUsage>,
    /// The credit line that refused, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemCredit>)]
    credit: Option<CreditStanding>,
    /// What stands in the way, where it is no limit with figures; each code has its own members.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemDetails>)]
    details: Option<RefusalDetails>,
    /// Credit line and details together.
    #[serde(skip)]
    refusal: Option<RefusalDetails>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
    #[serde(skip)]
    outcome_unknown: bool,
}

/// The binding limit's figures. Amounts are in minor units.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes proto::LimitUsage, a type of another crate, to the document")]
struct ProblemLimit {
    #[schema(example = "daily_amount")]
    name: String,
    max: u64,
    used: u64,
    remaining: u64,
    /// RFC 3339 in UTC; absent for a limit that time does not lift.
    resets_at: Option<String>,
}

/// How a credit line stands that refused. Amounts are in minor units.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes proto::CreditStanding, a type of another crate, to the document")]
struct ProblemCredit {
    /// The limit in force.
    limit: u64,
    /// Held + unbilled + open statements - repayments that are not applied; below zero where more was repaid than is owed.
    exposure: i64,
    available: u64,
    #[schema(example = "watch")]
    stage: String,
    days_past_due: u32,
    /// The due date of the oldest statement that is past due.
    #[schema(format = Date)]
    oldest_due_on: Option<String>,
    /// The least repayment after which nothing material is past due, and the refused payment is within the limit.
    amount_to_cure: u64,
    /// When the line was last read, where the server cannot read it at present.
    read_at: Option<String>,
}

/// Details of a refusal beside its code. Amounts are in minor units.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes proto::RefusalDetails, a type of another crate, to the document")]
struct ProblemDetails {
    /// BELOW_SINGLE_MIN: the minimum for one payment.
    single_min: Option<u64>,
    /// ABOVE_SINGLE_MAX: the maximum for one payment.
    single_max: Option<u64>,
    /// CHANNEL_NOT_ALLOWED: the allowed channels, the first 20 of them.
    allowed_channels: Option<Vec<String>>,
    /// CURRENCY_NOT_ALLOWED: the allowed currencies, the first 20 of them.
    allowed_currencies: Option<Vec<String>>,
    /// How many more are allowed.
    allowed_more: Option<u64>,
    /// IDEMPOTENCY_CONFLICT: amount and currency of the first request under this number.
    first_amount: Option<u64>,
    #[schema(example = "USD")]
    first_currency: Option<String>,
    /// BAD_AMOUNT of a correction: the counter, what it holds, and what it would become.
    #[schema(example = "daily_used")]
    counter: Option<String>,
    value: Option<u64>,
    would_be: Option<i64>,
    /// SUSPENDED: `account`, or `merchant` where the merchant is suspended as a whole.
    suspended: Option<String>,
    /// A limit of a window or of open holds, where payments have a weight: what the payment counts in place of its amount.
    counted_amount: Option<u64>,
}

/// The parts of a [`Problem`].
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub code: &'a str,
    /// The HTTP status.
    pub status: u16,
    pub title: &'a str,
    pub detail: Option<&'a str>,
    pub field: Option<&'a str>,
    pub decision_id: Option<&'a str>,
    pub limit: Option<&'a LimitUsage>,
    pub details: Option<&'a RefusalDetails>,
    pub retry_after_secs: Option<u64>,
}

/// What a handler returns: an answer, or a problem.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    /// A problem of the API's own kinds.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let problem = Self::build(kind.into_str(), kind.title(), kind.status());
        match kind.challenge() {
            Some(challenge) => problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
            None => problem,
        }
    }

    /// A refusal by quota: the status, code and title that the proxy answers with.
    #[must_use]
    pub fn quota(code: Code) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::build(code.as_str(), code.title(), status)
    }

    /// A request whose field or parameter is at fault.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest).detail(detail).at(field)
    }

    /// A failure of the server. The log has the error; the caller gets no details.
    #[must_use]
    pub fn internal(what: &'static str, error: &dyn std::fmt::Display) -> Self {
        error!(what, %error, "admin request failed");
        Self::new(Kind::Internal)
    }

    /// Adds what is particular to the request.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Names the field or parameter at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Adds the decision's id.
    #[must_use]
    pub fn decision(mut self, id: impl Into<String>) -> Self {
        self.0.decision_id = Some(id.into());
        self
    }

    /// Adds the usage of the binding limit.
    #[must_use]
    pub fn limit(mut self, limit: LimitUsage) -> Self {
        self.0.limit = Some(limit);
        self
    }

    /// Adds the details of the refusal.
    #[must_use]
    pub fn refusal(mut self, details: RefusalDetails) -> Self {
        let mut rest = details.clone();
        self.0.credit = rest.credit.take();
        self.0.details = Some(rest).filter(|rest| *rest != RefusalDetails::default());
        self.0.refusal = Some(details);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(self, secs: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(secs))
    }

    /// Adds that it is unknown whether something was done that must not be done again.
    #[must_use]
    pub fn outcome_unknown(mut self) -> Self {
        self.0.outcome_unknown = true;
        self.detail(OUTCOME_UNKNOWN)
    }

    /// Whether [`Problem::outcome_unknown`] was set.
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The problem's parts, for answers of another protocol than HTTP.
    pub fn parts(&self) -> Parts<'_> {
        let retry_after = self.0.headers.iter().find(|(name, _)| name == header::RETRY_AFTER);
        Parts {
            code: self.0.code,
            status: self.0.status,
            title: self.0.title,
            detail: self.0.detail.as_deref(),
            field: self.0.field.as_deref(),
            decision_id: self.0.decision_id.as_deref(),
            limit: self.0.limit.as_ref(),
            details: self.0.refusal.as_ref(),
            retry_after_secs: retry_after.and_then(|(_, secs)| secs.to_str().ok()?.parse().ok()),
        }
    }

    fn build(code: &'static str, title: &'static str, status: StatusCode) -> Self {
        Self(Box::new(Details {
            kind: format!("urn:sluice:problem:{}", code.to_ascii_lowercase()),
            title,
            status: status.as_u16(),
            code,
            detail: None,
            field: None,
            decision_id: None,
            limit: None,
            credit: None,
            details: None,
            refusal: None,
            headers: Vec::new(),
            outcome_unknown: false,
        }))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (self.status(), [(header::CONTENT_TYPE, proto::PROBLEM_CONTENT_TYPE)], body).into_response();
        if self.0.outcome_unknown {
            response.extensions_mut().insert(Keep::Always);
        }
        for (name, value) in self.0.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::kind::CHALLENGE_INVALID;
    use super::*;

    #[test]
    fn a_problem_is_problem_json_with_its_status_and_headers() {
        let response = Problem::new(Kind::InvalidToken).detail("expired").into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::CONTENT_TYPE], proto::PROBLEM_CONTENT_TYPE);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], CHALLENGE_INVALID);
        let response = Problem::new(Kind::RateLimited).retry_after(7).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::RETRY_AFTER]),
            (429, &"7".parse().unwrap())
        );
    }

    #[test]
    fn quota_refusals_are_those_of_the_proxy() {
        for code in Code::ALL {
            let problem = Problem::quota(code);
            let proxy = proto::Problem::new(code, None);
            let members = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(members(&serde_json::to_string(&problem).unwrap()), members(&proxy.to_json()));
        }
    }
}
