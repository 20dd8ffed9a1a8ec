//! Log lines about people: who changed what by hand, and who was refused access. They have a target of their own, which a global
//! level does not switch off. The effect of a change on quota is in its decision's line; the effect on policies and settings is in
//! their histories.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{OriginalUri, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tracing::{info, warn};

use super::problem::Problem;
use super::{API, Caller};
use sluice_kit::telemetry::AUDIT;

/// Operations on quota that people do; the others are payments, whose decisions are logged.
const BY_HAND: [&str; 6] = ["adjust", "reset", "suspend", "resume", "initialize", "release-right"];
/// Members that are, or may hold, a secret.
const SECRETS: [&str; 4] = ["secrets", "token", "device_key", "url"];
/// The replacement of a secret.
const REDACTED: &str = "[redacted]";
/// Longest logged part of a request, in bytes.
const REQUEST_BYTES_MAX: usize = 2048;
/// Refused credentials that are logged in a second; the next line has the number of the others.
const REFUSALS_PER_SECOND: u32 = 10;

/// The address that a request came from. Put into its extensions by its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub IpAddr);

/// The middleware: logs a change by hand, whatever its result.
pub(super) async fn middleware(
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    if !is_by_hand(request.method(), uri.path()) {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let client = request.extensions().get::<Client>().map(|Client(address)| address.to_string());
    let (parts, body) = request.into_parts();
    // The body is in memory already.
    let body = match to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => return Problem::internal("request body", &error).into_response(),
    };
    let logged = shown(&body);
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let roles = caller.roles.iter().map(|role| role.into_str()).collect::<Vec<_>>().join(",");
    info!(
        target: AUDIT,
        actor = %caller.subject,
        roles,
        merchant = caller.merchant.as_ref().map(quota::MerchantId::as_str),
        client,
        method = method.as_str(),
        path = uri.path(),
        request = logged,
        status = response.status().as_u16(),
        "change by hand"
    );
    response
}

fn is_by_hand(method: &Method, path: &str) -> bool {
    let Some(path) = path.strip_prefix(API) else { return false };
    if method == Method::GET || method == Method::HEAD {
        return false;
    }
    path.strip_prefix("/quotas/").is_none_or(|operation| BY_HAND.contains(&operation))
}

/// A request without secrets, and not too long.
fn shown(body: &[u8]) -> Option<String> {
    let mut value = serde_json::from_slice::<Value>(body).ok()?;
    redact(&mut value);
    let mut text = value.to_string();
    if text.len() > REQUEST_BYTES_MAX {
        let end = (0..=REQUEST_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    Some(text)
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| {
            if SECRETS.contains(&name.as_str()) { *value = Value::from(REDACTED) } else { redact(value) }
        }),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Logs that credentials were refused, without them and not too often: a caller that guesses tokens must not fill the log.
pub(crate) fn refused(problem: &Problem, method: &str, path: &str, client: Option<Client>) {
    if !matches!(problem.status().as_u16(), 401 | 403) {
        return;
    }
    let Some(unlogged) = admit(&LOGGED, Instant::now()) else { return };
    let client = client.map(|Client(address)| address.to_string());
    let (problem, reason) = (problem.code(), problem.parts().detail);
    warn!(target: AUDIT, problem, reason, client, method, path, unlogged, "credentials refused");
}

/// Lines of this second, and those left out since the last one.
#[derive(Debug, Default)]
struct Logged {
    second: Option<Instant>,
    lines: u32,
    unlogged: u64,
}

static LOGGED: Mutex<Logged> = Mutex::new(Logged { second: None, lines: 0, unlogged: 0 });

/// Whether a line may be logged now: how many were left out before it.
fn admit(logged: &Mutex<Logged>, now: Instant) -> Option<u64> {
    let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
    let since = logged.second.map(|second| now.saturating_duration_since(second));
    if since.is_none_or(|since| since >= Duration::from_secs(1)) {
        (logged.second, logged.lines) = (Some(now), 0);
    }
    if logged.lines >= REFUSALS_PER_SECOND {
        logged.unlogged += 1;
        return None;
    }
    logged.lines += 1;
    Some(std::mem::take(&mut logged.unlogged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_by_hand_are_known_by_method_and_path() {
        for (method, path, expected) in [
            (Method::POST, "/api/v1/quotas/adjust", true),
            (Method::POST, "/api/v1/quotas/suspend", true),
            (Method::POST, "/api/v1/quotas/consume", false),
            (Method::POST, "/api/v1/quotas/batch", false),
            (Method::PUT, "/api/v1/limit-policies/1", true),
            (Method::PATCH, "/api/v1/settings", true),
            (Method::DELETE, "/api/v1/access-tokens/1", true),
            (Method::GET, "/api/v1/settings", false),
            (Method::POST, "/metrics", false),
        ] {
            assert_eq!(is_by_hand(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_request_is_shown_without_secrets_and_not_too_long() {
        let body = br#"{"channels":[{"id":"a","url":"https://hunter2","secrets":["hunter2"]},{"device_key":"hunter2","token":"hunter2"}],"reason":"x"}"#;
        let text = shown(body).unwrap();
        assert!(
            !text.contains("hunter2") && text.contains(r#""id":"a""#) && text.contains(r#""reason":"x""#),
            "{text}"
        );
        let long = format!(r#"{{"reason":"{}"}}"#, "\u{6771}".repeat(4000));
        assert!(shown(long.as_bytes()).unwrap().len() <= REQUEST_BYTES_MAX + '…'.len_utf8());
        assert_eq!((shown(b""), shown(b"{")), (None, None));
    }

    #[test]
    fn refusals_beyond_so_many_in_a_second_are_counted() {
        let (logged, start) = (Mutex::default(), Instant::now());
        for _ in 0..REFUSALS_PER_SECOND {
            assert_eq!(admit(&logged, start), Some(0));
        }
        assert_eq!((admit(&logged, start), admit(&logged, start)), (None, None));
        let later = start + Duration::from_secs(1);
        assert_eq!((admit(&logged, later), admit(&logged, later)), (Some(2), Some(0)));
    }
}
