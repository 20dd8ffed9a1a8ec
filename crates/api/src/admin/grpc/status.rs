//! Refusals as gRPC statuses, with the standard details: google.rpc.ErrorInfo, RetryInfo and BadRequest.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::RETRY_AFTER;
use proto::quota_v1 as pb;
use proto::{CreditStanding, LimitUsage, RefusalDetails};
use quota::Code as Quota;
use serde::Deserialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::answer::{duration, number, timestamp};
use crate::admin::Problem;
use sluice_auth::problem::Parts;
use sluice_store::refusal::{self, DOMAIN};

/// The status of a problem.
pub(super) fn of(problem: &Problem) -> Status {
    of_parts(&problem.parts())
}

fn of_parts(parts: &Parts<'_>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(parts.code, DOMAIN, metadata(parts));
    if let Some(secs) = parts.retry_after_secs {
        details.set_retry_info(Some(Duration::from_secs(secs)));
    }
    if let Some(field) = parts.field {
        details.add_bad_request_violation(field, parts.detail.unwrap_or(parts.title));
    }
    Status::with_error_details(of_code(parts.code, parts.status), message(parts), details)
}

/// A problem that REST answered with.
#[derive(Debug, Deserialize)]
struct Answered {
    code: String,
    status: u16,
    title: String,
    detail: Option<String>,
    field: Option<String>,
    decision_id: Option<String>,
    limit: Option<LimitUsage>,
    credit: Option<CreditStanding>,
    details: Option<RefusalDetails>,
}

/// The status of an answer of REST that is no success.
pub(super) fn of_answer(headers: &HeaderMap, body: &[u8]) -> Status {
    let answered = match serde_json::from_slice::<Answered>(body) {
        Ok(answered) => answered,
        Err(error) => return of(&Problem::internal("a problem", &error)),
    };
    let Answered { credit, details, .. } = &answered;
    let details = RefusalDetails { credit: credit.clone(), ..details.clone().unwrap_or_default() };
    of_parts(&Parts {
        code: &answered.code,
        status: answered.status,
        title: &answered.title,
        detail: answered.detail.as_deref(),
        field: answered.field.as_deref(),
        decision_id: answered.decision_id.as_deref(),
        limit: answered.limit.as_ref(),
        details: Some(&details),
        retry_after_secs: headers.get(RETRY_AFTER).and_then(|secs| secs.to_str().ok()?.parse().ok()),
    })
}

/// The same for an operation of a batch.
pub(super) fn refusal(problem: &Problem) -> pb::Refusal {
    let parts = problem.parts();
    pb::Refusal {
        status: i32::from(of_code(parts.code, parts.status)),
        reason: parts.code.to_owned(),
        message: message(&parts),
        decision_id: parts.decision_id.map(str::to_owned),
        limit: parts.limit.map(limit),
        retry_after: parts.retry_after_secs.map(|secs| duration(secs.saturating_mul(1000))),
        details: parts.details.map(refusal::members).unwrap_or_default(),
    }
}

fn limit(usage: &LimitUsage) -> pb::Limit {
    let resets_at = usage.resets_at.as_deref().and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok());
    pb::Limit {
        name: usage.name.clone(),
        max: number(usage.max),
        used: number(usage.used),
        remaining: number(usage.remaining),
        resets_at: resets_at.map(|at| timestamp(at.to_utc())),
        exhausted_at: None,
    }
}

fn message(parts: &Parts<'_>) -> String {
    match (parts.field, parts.detail) {
        (Some(field), Some(detail)) => format!("{} {field}: {detail}", parts.title),
        (None, Some(detail)) => format!("{} {detail}", parts.title),
        (_, None) => parts.title.to_owned(),
    }
}

fn metadata(parts: &Parts<'_>) -> HashMap<String, String> {
    let mut metadata = HashMap::new();
    let mut put = |name: &str, value: String| drop(metadata.insert(name.to_owned(), value));
    if let Some(id) = parts.decision_id {
        put("decision_id", id.to_owned());
    }
    if let Some(limit) = parts.limit {
        put("limit_name", limit.name.clone());
        put("limit_max", limit.max.to_string());
        put("limit_used", limit.used.to_string());
        put("limit_remaining", limit.remaining.to_string());
        if let Some(at) = &limit.resets_at {
            put("limit_resets_at", at.clone());
        }
    }
    metadata.extend(parts.details.map(refusal::members).unwrap_or_default());
    metadata
}

/// The status of a problem's code.
fn of_code(code: &str, http_status: u16) -> Code {
    Quota::parse(code).map_or_else(|| of_http(http_status), of_quota)
}

/// The same by its name in the protocol, as in `RESOURCE_EXHAUSTED`.
pub(crate) fn name_of(code: &str, http_status: u16) -> String {
    let name = format!("{:?}", of_code(code, http_status));
    let is_inner = |place: usize, letter: char| place > 0 && letter.is_ascii_uppercase();
    name.char_indices().fold(String::new(), |mut text, (place, letter)| {
        text.extend(is_inner(place, letter).then_some('_'));
        text.push(letter.to_ascii_uppercase());
        text
    })
}

/// The table of quota's codes. Time lifts RESOURCE_EXHAUSTED; only a change lifts FAILED_PRECONDITION.
const fn of_quota(code: Quota) -> Code {
    match code {
        Quota::Admitted | Quota::Voided | Quota::AttemptReleased | Quota::Tombstoned | Quota::Applied => Code::Ok,
        Quota::BadRequest | Quota::BadAmount | Quota::BodyTooLarge | Quota::UnsupportedContent => Code::InvalidArgument,
        Quota::PolicyMissing
        | Quota::MerchantUnknown
        | Quota::ChannelNotAllowed
        | Quota::CurrencyNotAllowed
        | Quota::BelowSingleMin
        | Quota::AboveSingleMax
        | Quota::CreditFrozen
        | Quota::CreditChannel
        | Quota::CreditRestricted
        | Quota::CreditExhausted
        | Quota::Suspended
        | Quota::RefundExceedsOrder
        | Quota::CaptureExceedsHold
        | Quota::OrderClosed
        | Quota::OrderFull
        | Quota::RightRefused
        | Quota::RightInUse => Code::FailedPrecondition,
        Quota::DailyCount
        | Quota::WeeklyCount
        | Quota::MonthlyCount
        | Quota::YearlyCount
        | Quota::DailyAmount
        | Quota::WeeklyAmount
        | Quota::MonthlyAmount
        | Quota::YearlyAmount
        | Quota::PendingAmount
        | Quota::Throttled
        | Quota::RefundDaily
        | Quota::RefundMonthly => Code::ResourceExhausted,
        Quota::OrderUnknown => Code::NotFound,
        Quota::IdempotencyConflict | Quota::ReplayRefused => Code::AlreadyExists,
        Quota::AttemptVoided | Quota::VersionConflict | Quota::BatchRefused => Code::Aborted,
        Quota::StoreUnavailable | Quota::BacklogFull | Quota::AuthzUnavailable | Quota::CreditUnknown => {
            Code::Unavailable
        }
    }
}

/// The admin API's own kinds of problem, by their HTTP status.
const fn of_http(status: u16) -> Code {
    match status {
        400 | 413 | 415 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 => Code::Unimplemented,
        408 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Kind;

    /// Every refusal has the gRPC status of its HTTP status, and only a success has none.
    #[test]
    fn codes_have_the_status_of_their_kind() {
        for quota in Quota::ALL {
            let expected: &[Code] = match quota.http_status() {
                200 => &[Code::Ok],
                400 | 413 | 415 => &[Code::InvalidArgument],
                403 => &[Code::FailedPrecondition],
                404 => &[Code::NotFound],
                409 => &[Code::AlreadyExists, Code::FailedPrecondition, Code::Aborted],
                429 => &[Code::ResourceExhausted],
                503 => &[Code::Unavailable],
                other => panic!("{quota:?} has the new status {other}: add its gRPC status here"),
            };
            assert!(expected.contains(&of_quota(quota)), "{quota:?}");
        }
    }

    #[test]
    fn problems_of_the_api_have_statuses() {
        let table = [
            (Kind::BadRequest, Code::InvalidArgument),
            (Kind::Unauthenticated, Code::Unauthenticated),
            (Kind::InvalidToken, Code::Unauthenticated),
            (Kind::Forbidden, Code::PermissionDenied),
            (Kind::NotFound, Code::NotFound),
            (Kind::MethodNotAllowed, Code::Unimplemented),
            (Kind::RequestTimeout, Code::DeadlineExceeded),
            (Kind::BodyTooLarge, Code::InvalidArgument),
            (Kind::RateLimited, Code::ResourceExhausted),
            (Kind::Internal, Code::Internal),
            (Kind::AuthNotConfigured, Code::Unavailable),
            (Kind::NoAnswer, Code::Unavailable),
        ];
        for (kind, code) in table {
            assert_eq!(of(&Problem::new(kind)).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn details_are_the_standard_ones() {
        let usage = LimitUsage {
            name: "daily_amount".to_owned(),
            max: 100,
            used: 90,
            remaining: 10,
            resets_at: Some("2026-11-23T00:00:00Z".to_owned()),
        };
        let problem = Problem::quota(Quota::DailyAmount).decision("an-id").limit(usage).retry_after(7);
        let status = of(&problem);
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, Quota::DailyAmount.title()));
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DAILY_AMOUNT", "sluice"));
        let of = |name: &str| info.metadata.get(name).map(String::as_str);
        assert_eq!((of("decision_id"), of("limit_name")), (Some("an-id"), Some("daily_amount")));
        assert_eq!((of("limit_remaining"), of("limit_resets_at")), (Some("10"), Some("2026-11-23T00:00:00Z")));
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
        let refusal = refusal(&problem);
        assert_eq!((refusal.status, refusal.reason.as_str()), (8, "DAILY_AMOUNT"));
        assert_eq!(refusal.limit.unwrap().resets_at.unwrap().seconds, 1_795_392_000);

        let status = super::of(&Problem::field("amount", "must be more than 0"));
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!((violation.field.as_str(), violation.description.as_str()), ("amount", "must be more than 0"));
        assert_eq!(status.message(), "The request cannot be read. amount: must be more than 0");
    }
}
