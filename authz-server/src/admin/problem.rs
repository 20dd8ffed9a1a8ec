//! The one error body of the admin API: RFC 9457 problem details, the members of `proto::Problem` and, for a request that
//! cannot be read, the field at fault. Every rejection, the framework's too, leaves the server in this form.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::LimitFigures;
use quota::Code;
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

/// The `WWW-Authenticate` challenge where no credentials came (RFC 6750, section 3).
const CHALLENGE: &str = "Bearer realm=\"sluice\"";
/// The same where what came is no good.
const CHALLENGE_INVALID: &str = "Bearer realm=\"sluice\", error=\"invalid_token\"";

/// The admin API's own kinds of problem. Quota's kinds are [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request cannot be read: its syntax, a field, a parameter.
    BadRequest,
    /// No credentials came.
    Unauthenticated,
    /// The credentials are no good: malformed, forged, expired, revoked.
    InvalidToken,
    /// The caller's roles, scopes or merchant do not allow it.
    Forbidden,
    /// There is no such resource.
    NotFound,
    /// The resource does not take the method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The resource is not in a state that allows it, or exists already.
    Conflict,
    /// The resource changed since the version that the request names.
    VersionConflict,
    /// A request with this Idempotency-Key is under way.
    IdempotencyInProgress,
    /// The body is larger than the server reads.
    BodyTooLarge,
    /// The body is no JSON.
    UnsupportedMediaType,
    /// The Idempotency-Key was used for another request.
    IdempotencyMismatch,
    /// The caller asks too often.
    RateLimited,
    /// The server failed; the log says how.
    Internal,
    /// Neither a secret nor keys are configured.
    AuthNotConfigured,
    /// The keys that tokens are checked with could not be had yet.
    AuthUnavailable,
    /// Postgres gave no answer.
    DatabaseUnavailable,
    /// Something that the request needs gave no answer in time.
    NoAnswer,
    /// As many requests of this kind as the server takes are under way.
    Busy,
}

impl Kind {
    /// The stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::InvalidToken => "INVALID_TOKEN",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::Conflict => "CONFLICT",
            Self::VersionConflict => "VERSION_CONFLICT",
            Self::IdempotencyInProgress => "IDEMPOTENCY_KEY_IN_USE",
            Self::BodyTooLarge => "BODY_TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_CONTENT",
            Self::IdempotencyMismatch => "IDEMPOTENCY_KEY_REUSED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Internal => "INTERNAL",
            Self::AuthNotConfigured => "AUTH_NOT_CONFIGURED",
            Self::AuthUnavailable => "AUTH_UNAVAILABLE",
            Self::DatabaseUnavailable => "DATABASE_UNAVAILABLE",
            Self::NoAnswer => "NO_ANSWER",
            Self::Busy => "BUSY",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict | Self::VersionConflict | Self::IdempotencyInProgress => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::AuthNotConfigured
            | Self::AuthUnavailable
            | Self::DatabaseUnavailable
            | Self::NoAnswer
            | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A sentence that is safe to show to any caller.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request cannot be read.",
            Self::Unauthenticated => "The request has no bearer token.",
            Self::InvalidToken => "The bearer token is not accepted.",
            Self::Forbidden => "The caller may not do this.",
            Self::NotFound => "There is no such resource.",
            Self::MethodNotAllowed => "The resource does not take this method.",
            Self::RequestTimeout => "The request's body did not arrive in time.",
            Self::Conflict => "The resource's state does not allow this.",
            Self::VersionConflict => "The resource was changed by someone else.",
            Self::IdempotencyInProgress => "A request with this Idempotency-Key is under way.",
            Self::BodyTooLarge => "The body is too large.",
            Self::UnsupportedMediaType => "The body's media type is not supported.",
            Self::IdempotencyMismatch => "The Idempotency-Key was used for another request.",
            Self::RateLimited => "The caller asks too often.",
            Self::Internal => "The server failed.",
            Self::AuthNotConfigured => "No authentication is configured: set JWT_SECRET or SLUICE_JWT_JWKS.",
            Self::AuthUnavailable => "The keys that tokens are checked with cannot be had.",
            Self::DatabaseUnavailable => "The database gave no answer in time.",
            Self::NoAnswer => "The server gave no answer in time.",
            Self::Busy => "The server is busy with requests of this kind.",
        }
    }

    /// The challenge that an answer with status 401 must carry.
    const fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated => Some(CHALLENGE),
            Self::InvalidToken => Some(CHALLENGE_INVALID),
            Self::BadRequest
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::Conflict
            | Self::VersionConflict
            | Self::IdempotencyInProgress
            | Self::BodyTooLarge
            | Self::UnsupportedMediaType
            | Self::IdempotencyMismatch
            | Self::RateLimited
            | Self::Internal
            | Self::AuthNotConfigured
            | Self::AuthUnavailable
            | Self::DatabaseUnavailable
            | Self::NoAnswer
            | Self::Busy => None,
        }
    }
}

/// An answer that is no success: RFC 9457 problem details.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A URN that names the kind of problem by its code.
    #[serde(rename = "type")]
    #[schema(example = "urn:sluice:problem:bad_request")]
    kind: String,
    /// The kind of problem in one sentence.
    title: &'static str,
    /// The HTTP status of the answer.
    #[schema(example = 400)]
    status: u16,
    /// Stable, made for programs.
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
    limit: Option<LimitFigures>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The binding limit's figures. Amounts are in minor units.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes proto::LimitFigures, a type of another crate, to the document")]
struct ProblemLimit {
    #[schema(example = "daily_amount")]
    name: String,
    max: u64,
    used: u64,
    remaining: u64,
    /// RFC 3339 in UTC; absent for a limit that time does not lift.
    resets_at: Option<String>,
}

/// What a [`Problem`] says beside its code and status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) title: &'static str,
    pub(crate) detail: Option<&'a str>,
    pub(crate) field: Option<&'a str>,
    pub(crate) decision_id: Option<&'a str>,
    pub(crate) limit: Option<&'a LimitFigures>,
    pub(crate) retry_after_secs: Option<u64>,
}

/// What a handler gives: an answer, or a problem.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    /// A problem of the API's own kinds.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let problem = Self::build(kind.as_str(), kind.title(), kind.status());
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
        Self { field: Some(field.into()), ..Self::new(Kind::BadRequest).detail(detail) }
    }

    /// A failure of the server. The log has the error; the caller learns only that there was one.
    #[must_use]
    pub fn internal(what: &'static str, error: &dyn std::fmt::Display) -> Self {
        error!(what, %error, "an admin request failed");
        Self::new(Kind::Internal)
    }

    /// Adds what is particular to the request.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Names the field or parameter at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds the decision's id.
    #[must_use]
    pub fn decision(mut self, id: impl Into<String>) -> Self {
        self.decision_id = Some(id.into());
        self
    }

    /// Adds the figures of the limit that bound.
    #[must_use]
    pub fn limit(mut self, limit: LimitFigures) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(self, secs: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(secs))
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What the problem says, for answers of another form than HTTP's.
    pub(crate) fn parts(&self) -> Parts<'_> {
        let retry_after = self.headers.iter().find(|(name, _)| name == header::RETRY_AFTER);
        Parts {
            title: self.title,
            detail: self.detail.as_deref(),
            field: self.field.as_deref(),
            decision_id: self.decision_id.as_deref(),
            limit: self.limit.as_ref(),
            retry_after_secs: retry_after.and_then(|(_, secs)| secs.to_str().ok()?.parse().ok()),
        }
    }

    fn build(code: &'static str, title: &'static str, status: StatusCode) -> Self {
        Self {
            kind: format!("urn:sluice:problem:{}", code.to_ascii_lowercase()),
            title,
            status: status.as_u16(),
            code,
            detail: None,
            field: None,
            decision_id: None,
            limit: None,
            headers: Vec::new(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (self.status(), [(header::CONTENT_TYPE, proto::PROBLEM_CONTENT_TYPE)], body).into_response();
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<sqlx::Error> for Problem {
    /// Postgres being away is said; any other error of it is the server's own fault.
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                error!(%error, "an admin request failed: no answer from postgres");
                Self::new(Kind::DatabaseUnavailable).retry_after(DATABASE_RETRY_SECS)
            }
            sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| passes(&code)) => {
                error!(%error, "an admin request failed: postgres does not serve it now");
                Self::new(Kind::DatabaseUnavailable).retry_after(DATABASE_RETRY_SECS)
            }
            _ => Self::internal("postgres", &error),
        }
    }
}

/// When to ask again after Postgres gave no answer.
const DATABASE_RETRY_SECS: u64 = 5;

/// The table is not there yet: the migrations have not run.
const NO_TABLE: &str = "42P01";

/// SQLSTATE classes of what passes by itself: connections (08), resources (53), an operator's intervention, a timeout and
/// a start among them (57); and a lock that could not be had (55P03), a deadlock or a serialisation failure (40).
fn passes(code: &str) -> bool {
    code == NO_TABLE || ["08", "53", "57", "55", "40"].into_iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
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
