//! The admin API's own kinds of problem: one table to the stable code, the status and the title.

use axum::http::StatusCode;
use strum::{IntoStaticStr, VariantArray};

/// The `WWW-Authenticate` challenge if there are no credentials (RFC 6750, section 3).
const CHALLENGE: &str = "Bearer realm=\"sluice\"";
/// The same for invalid credentials.
pub(super) const CHALLENGE_INVALID: &str = "Bearer realm=\"sluice\", error=\"invalid_token\"";

/// The admin API's own kinds of problem, by their status. Their words are stable codes. Quota's kinds are [`quota::Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// The request cannot be read: its syntax, a field, a parameter.
    BadRequest,
    /// No credentials came.
    Unauthenticated,
    /// The credentials are invalid: malformed, forged, expired, revoked.
    InvalidToken,
    /// The caller's roles, scopes or merchant do not allow it.
    Forbidden,
    /// There is no such resource.
    NotFound,
    /// The resource does not support the method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The resource is not in a state that allows it, or exists already.
    Conflict,
    /// The resource changed since the version that the request names.
    VersionConflict,
    /// A request with this Idempotency-Key is in progress.
    #[strum(serialize = "IDEMPOTENCY_KEY_IN_USE")]
    IdempotencyInProgress,
    /// It is unknown whether the first request with this Idempotency-Key was executed, and it must not be executed again.
    OutcomeUnknown,
    /// The body is larger than the server reads.
    BodyTooLarge,
    /// The body is not JSON.
    #[strum(serialize = "UNSUPPORTED_CONTENT")]
    UnsupportedMediaType,
    /// The Idempotency-Key was used for another request.
    #[strum(serialize = "IDEMPOTENCY_KEY_REUSED")]
    IdempotencyMismatch,
    /// The caller sends too many requests.
    RateLimited,
    /// The server failed; the log has the error.
    Internal,
    /// Neither a secret nor keys are configured.
    AuthNotConfigured,
    /// The keys that tokens are verified with are not available yet.
    AuthUnavailable,
    /// Postgres gave no answer.
    DatabaseUnavailable,
    /// Something that the request needs gave no answer in time.
    NoAnswer,
    /// As many requests of this kind as the server accepts are in progress.
    Busy,
}

impl Kind {
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
            Self::Conflict | Self::VersionConflict | Self::IdempotencyInProgress | Self::OutcomeUnknown => {
                StatusCode::CONFLICT
            }
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
            Self::OutcomeUnknown => "It is not known whether the first request with this Idempotency-Key was done.",
            Self::BodyTooLarge => "The body is too large.",
            Self::UnsupportedMediaType => "The body's media type is not supported.",
            Self::IdempotencyMismatch => "The Idempotency-Key was used for another request.",
            Self::RateLimited => "The caller sends too many requests.",
            Self::Internal => "The server failed.",
            Self::AuthNotConfigured => "No authentication is configured: set JWT_SECRET or SLUICE_JWT_JWKS.",
            Self::AuthUnavailable => "The keys that tokens are checked with cannot be had.",
            Self::DatabaseUnavailable => "The database cannot be used now.",
            Self::NoAnswer => "The server gave no answer in time.",
            Self::Busy => "The server is busy with requests of this kind.",
        }
    }

    /// The challenge that an answer with status 401 must carry.
    pub(super) const fn challenge(self) -> Option<&'static str> {
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
            | Self::OutcomeUnknown
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
