//! `Idempotency-Key`: a POST that is sent again with the same key gets the first one's answer, and nothing is done twice.
//!
//! A key belongs to one caller with its roles and its merchant, one method and one path, for a day: a caller with the same name and
//! less authority is another caller, whose request is authorised before there is any answer to it. Postgres has the request's
//! fingerprint and, when there is one, the answer. Retryable answers, 429 and 5xx and batches with such items, are not kept: the
//! next request with the key is executed anew, and so is one whose server died. A POST without a key is not kept at all.
//!
//! Corrections by hand that name no version are the exception, because executed anew they would count twice
//! ([`super::non_idempotent`]). If the outcome of one is unknown, that answer is kept; and if the server died before it had any,
//! the key is answered with 409 until its day is over.
//!
//! The request itself runs in a task of its own, so that a caller who leaves does not stop it half-way.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{OriginalUri, Request, State};
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use sluice_kit::shutdown::Shutdown;
use sqlx::PgPool;
use tokio::time::timeout;
use tracing::{error, warn};
use uuid::Uuid;

use super::problem::{Answer, Keep, Kind, Problem};
use super::{Admin, Caller, non_idempotent};
use crate::store::idempotency_keys::{Claim, StoredKey, remove_expired};
use sluice_kit::clock;
use sluice_kit::telemetry;

/// The request's header.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of a replayed answer.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Longest key.
pub(super) const KEY_LEN_MAX: usize = 255;
/// Longest path of a request with a key, in bytes: it is part of an index entry.
const PATH_LEN_MAX: usize = 1024;
/// Largest answer that can be kept. Answers are as large as the request's bound lets them get, which is far less.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Timeout of the Postgres statements after the request.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often expired keys are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Headers that are kept with an answer.
static KEPT_HEADERS: [HeaderName; 2] = [header::CONTENT_TYPE, header::LOCATION];

/// Put into an answer's extensions by a handler whose body must not be kept as it is: what is kept instead.
#[derive(Clone, Debug)]
pub struct KeptBody(pub Bytes);

/// The middleware: runs a POST with a new key and keeps its answer; answers one with a known key.
pub(super) async fn middleware(
    State(admin): State<Admin>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let key = match read_key(request.headers()) {
        Ok(Some(key)) => key,
        Ok(None) => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    };
    let claimed = claim(&admin.pool, &caller, &uri, key, request).await;
    match claimed {
        Ok(Claimed::Ours(claim, request)) => detached(admin.pool, claim, *request, next).await,
        Ok(Claimed::Answered(response)) => response,
        Err(problem) => problem.into_response(),
    }
}

/// The result of a claim.
enum Claimed {
    Ours(Claim, Box<Request>),
    Answered(Response),
}

async fn claim(
    pool: &PgPool,
    caller: &Caller,
    uri: &axum::http::Uri,
    key: String,
    request: Request,
) -> Answer<Claimed> {
    if uri.path().len() > PATH_LEN_MAX {
        let detail = format!("a path with an Idempotency-Key may have {PATH_LEN_MAX} bytes");
        return Err(Problem::new(Kind::BadRequest).detail(detail));
    }
    let (parts, body) = request.into_parts();
    let method = &parts.method;
    // The body is in memory already.
    let body = to_bytes(body, usize::MAX).await.map_err(|error| Problem::internal("request body", &error))?;
    let claim = Claim {
        subject: owner(caller),
        path: format!("{method} {}", uri.path()),
        key,
        fingerprint: fingerprint(uri.query().unwrap_or_default(), &body),
        repeatable: !non_idempotent::is(uri.path(), &body),
        id: Uuid::from_bytes(clock::decision_id()),
    };
    if claim.take(pool).await? {
        return Ok(Claimed::Ours(claim, Box::new(Request::from_parts(parts, Body::from(body)))));
    }
    first_answer(pool, &claim).await.map(Claimed::Answered)
}

/// Runs the request to its end, whether the caller waits or not, and keeps the answer.
async fn detached(pool: PgPool, claim: Claim, request: Request, next: Next) -> Response {
    let task = tokio::spawn(telemetry::carried(async move {
        let response = next.run(request).await;
        finish(&pool, claim, response).await
    }));
    task.await.unwrap_or_else(|error| Problem::internal("an admin request's task", &error).into_response())
}

/// The answer to the key's first request.
async fn first_answer(pool: &PgPool, claim: &Claim) -> Answer<Response> {
    // No row: the first request has just been refused and has released the key.
    let Some(stored) = claim.look_up(pool).await? else { return Err(in_progress()) };
    if stored.fingerprint != claim.fingerprint {
        return Err(Problem::new(Kind::IdempotencyMismatch).detail("use a new key for another request"));
    }
    if stored.is_abandoned && !claim.repeatable {
        return Err(Problem::new(Kind::OutcomeUnknown).outcome_unknown());
    }
    replay(stored).ok_or_else(in_progress)
}

/// Keeps the answer, or releases the key if the request may be retried.
async fn finish(pool: &PgPool, claim: Claim, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let body = match to_bytes(body, ANSWER_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return Problem::internal("an answer with an idempotency key", &error).into_response(),
    };
    let kept = parts.extensions.get::<KeptBody>().map_or_else(|| body.clone(), |kept| kept.0.clone());
    let stored = async {
        if is_kept(claim.repeatable, &parts) {
            claim.keep(pool, parts.status.as_u16(), &kept_headers(&parts.headers), &kept).await
        } else {
            claim.release(pool).await
        }
    };
    match timeout(STORE_TIMEOUT, stored).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => error!(%error, path = claim.path, "answer could not be stored for its idempotency key"),
        Err(_) => error!(path = claim.path, "answer could not be stored for its idempotency key in time"),
    }
    Response::from_parts(parts, Body::from(body))
}

fn is_kept(repeatable: bool, answer: &Parts) -> bool {
    match answer.extensions.get::<Keep>() {
        Some(Keep::Always) => true,
        Some(Keep::Never) => false,
        None if repeatable => !may_be_retried(answer.status),
        // A failure that leaves open whether anything was done.
        None => answer.status != StatusCode::TOO_MANY_REQUESTS,
    }
}

/// Name and value in turn.
fn kept_headers(headers: &HeaderMap) -> Vec<&str> {
    let pairs = KEPT_HEADERS.iter().filter_map(|name| Some([name.as_str(), headers.get(name)?.to_str().ok()?]));
    pairs.flatten().collect()
}

/// The first answer again; `None` while there is none.
fn replay(stored: StoredKey) -> Option<Response> {
    let status = StatusCode::from_u16(u16::try_from(stored.status?).ok()?).ok()?;
    let mut response = (status, stored.body.unwrap_or_default()).into_response();
    let headers = response.headers_mut();
    // The default of a body of bytes; the answer's own follows.
    headers.remove(header::CONTENT_TYPE);
    for pair in stored.headers.unwrap_or_default().chunks_exact(2) {
        if let [name, value] = pair
            && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}

/// Removes expired keys, until the stop.
pub(super) async fn sweep(pool: PgPool, mut stopped: Shutdown) {
    loop {
        tokio::select! {
            () = stopped.requested() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        if let Err(error) = remove_expired(&pool, &stopped).await {
            warn!(%error, "expired idempotency keys could not be removed");
        }
    }
}

/// The owner of a key: the caller's name, roles and merchant. None of them contains a blank, so that no two owners have the same
/// text.
fn owner(caller: &Caller) -> String {
    let mut roles: Vec<&str> = caller.roles.iter().map(|role| role.into_str()).collect();
    roles.sort_unstable();
    roles.dedup();
    let merchant = caller.merchant.as_ref().map_or("", quota::MerchantId::as_str);
    format!("{} {} {merchant}", caller.subject, roles.join(","))
}

fn read_key(headers: &HeaderMap) -> Answer<Option<String>> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.as_bytes();
    let visible = (1..=KEY_LEN_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
    if !visible || values.next().is_some() {
        let detail = format!("must come once and have 1 to {KEY_LEN_MAX} visible ASCII characters");
        return Err(Problem::field("idempotency-key", detail));
    }
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// What makes two requests with one key the same: query and body. The path is part of the key.
fn fingerprint(query: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(query.as_bytes());
    // No query has a line break.
    hash.update(b"\n");
    hash.update(body);
    hash.finalize().into()
}

/// Whether a request with an answer of this status may be retried.
pub(super) fn may_be_retried(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn in_progress() -> Problem {
    Problem::new(Kind::IdempotencyInProgress).retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_visible_ascii() {
        let long = "k".repeat(KEY_LEN_MAX + 1);
        let table: &[(&[&[u8]], Result<Option<&str>, u16>)] = &[
            (&[], Ok(None)),
            (&[b"a-1"], Ok(Some("a-1"))),
            (&[&long.as_bytes()[1..]], Ok(Some(&long[1..]))),
            (&[long.as_bytes()], Err(400)),
            (&[b""], Err(400)),
            (&[b"a b"], Err(400)),
            (&["é".as_bytes()], Err(400)),
            (&[b"a", b"a"], Err(400)),
        ];
        for (values, expected) in table {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(KEY, HeaderValue::from_bytes(value).unwrap());
            }
            let key = read_key(&headers).map_err(|problem| problem.status().as_u16());
            assert_eq!(key.as_ref().map(Option::as_deref), expected.as_ref().map(|key| *key), "{values:?}");
        }
    }

    #[test]
    fn x10_a_key_has_one_owner_with_its_roles_and_merchant() {
        use crate::admin::auth::Via;
        use crate::admin::{Permission, Role};
        let caller = |name: &str, roles: &[Role], merchant: Option<&str>| Caller {
            subject: quota::ActorId::parse(name).unwrap(),
            roles: roles.to_vec(),
            merchant: merchant.map(|id| quota::MerchantId::parse(id).unwrap()),
            scopes: [Permission::QuotasRead].into_iter().collect(),
            via: Via::Jwt,
            expires_at_ms: None,
        };
        let table = [
            caller("ana", &[Role::Operator], None),
            caller("ana", &[Role::Admin], None),
            caller("ana", &[Role::Merchant], Some("m-1")),
            caller("ana", &[Role::Merchant], Some("m-2")),
            caller("ana", &[Role::Operator], Some("m-1")),
            caller("ana", &[Role::Operator, Role::Merchant], Some("m-1")),
            caller("ana,operator", &[Role::Merchant], Some("m-1")),
            caller("oleg", &[Role::Operator], None),
        ];
        let mut owners: Vec<String> = table.iter().map(owner).collect();
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(owners.len(), table.len(), "{owners:?}");
        let twice = caller("ana", &[Role::Merchant, Role::Operator, Role::Merchant], Some("m-1"));
        assert_eq!(owner(&twice), owner(&table[5]));
    }

    #[test]
    fn query_and_body_do_not_run_into_each_other() {
        assert_ne!(fingerprint("a", b"b"), fingerprint("ab", b""));
        assert_ne!(fingerprint("", b"ab"), fingerprint("a", b"b"));
        assert_eq!(fingerprint("a", b"b"), fingerprint("a", b"b"));
    }
}
