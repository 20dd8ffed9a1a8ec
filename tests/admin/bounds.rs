//! What is read, and how much of it; how often a caller may ask.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use testkit::Result;
use testkit::api::secret;
use testkit::client::{Call, Part, Protocol, send_once};

use crate::bench::{Bench, ask, field, token};
use crate::keys::{Signer, claims, with};

const BATCH: &str = "/api/v1/quotas/batch";
const TOKENS: &str = "/api/v1/access-tokens";

fn cursor(place: &serde_json::Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(place.to_string())
}

/// A policy that is good but for these fields.
fn policy(more: serde_json::Value) -> Call {
    let mut body = json!({"policy": {"daily_limit": 5_000}});
    if let (Some(policy), serde_json::Value::Object(more)) = (body["policy"].as_object_mut(), more) {
        policy.extend(more);
    }
    Call::post_json("/api/v1/limit-policies", body.to_string())
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_as_a_problem() -> Result<()> {
    let bench = Bench::with(&[("JWT_SECRET", secret()), ("SLUICE_ADMIN_BODY_BYTES_MAX", "1024")])?;
    let admin = token("admin")?;
    let text = |body: &str| Call::post_json(TOKENS, body.to_owned());
    let json = |body: serde_json::Value| text(&body.to_string());
    let plain = |kind: &str| Call::new("POST", TOKENS).header("content-type", kind).part(Part::Data("{}".into()));
    let large = json!({"name": "x".repeat(1024), "role": "admin"}).to_string();
    let (half, rest) = large.split_at(512);
    let chunks = text(half).part(Part::Data(rest.to_owned().into()));
    let get = |path: &str| Call::new("GET", path);
    // Some 190,000 years from now, in microseconds.
    let far_off = json!([6_000_000_000_000_000_000_i64, "00000000-0000-0000-0000-000000000000"]);
    let table = [
        // No body is an empty object, which lacks what is needed.
        (text(""), 400, "BAD_REQUEST", "name"),
        (text("{"), 400, "BAD_REQUEST", ""),
        (text("[]"), 400, "BAD_REQUEST", ""),
        (text("{\"name\":\"a\",\"role\":\"admin\"} x"), 400, "BAD_REQUEST", ""),
        (text("{\"name\":\"a\",\"name\":\"b\",\"role\":\"admin\"}"), 400, "BAD_REQUEST", "name"),
        (json(json!({"name": "a"})), 400, "BAD_REQUEST", "role"),
        (json(json!({"name": 1, "role": "admin"})), 400, "BAD_REQUEST", "name"),
        (json(json!({"name": "a", "role": "admin", "more": 1})), 400, "BAD_REQUEST", "more"),
        (json(json!({"name": "a", "role": "operator", "permissions": ["x"]})), 400, "BAD_REQUEST", "permissions[0]"),
        (plain("text/plain"), 415, "UNSUPPORTED_CONTENT", ""),
        (plain("application/jsonx"), 415, "UNSUPPORTED_CONTENT", ""),
        (Call::new("POST", TOKENS), 400, "BAD_REQUEST", "name"),
        (text(&large), 413, "BODY_TOO_LARGE", ""),
        (chunks, 413, "BODY_TOO_LARGE", ""),
        (get("/api/v1/access-tokens?limit=201"), 400, "BAD_REQUEST", "limit"),
        (get("/api/v1/access-tokens?limit=-1"), 400, "BAD_REQUEST", "limit"),
        (get("/api/v1/access-tokens?limit=1&limit=1"), 400, "BAD_REQUEST", "limit"),
        (get("/api/v1/access-tokens?unknown=1"), 400, "BAD_REQUEST", "unknown"),
        (Call::new("DELETE", "/api/v1/access-tokens/x"), 400, "BAD_REQUEST", "id"),
        (get("/api/v1/usage-logs/merchant/%FF"), 400, "BAD_REQUEST", "merchant_id"),
        (get("/api/v1/usage-logs/merchant/a%20b"), 400, "BAD_REQUEST", "merchant_id"),
        (get("/api/v1/usage-logs/merchant/m?from=yesterday"), 400, "BAD_REQUEST", "from"),
        (get("/api/v1/usage-logs/merchant/m?code=X"), 400, "BAD_REQUEST", "code"),
        (get("/api/v1/usage-logs/merchant/m?currency=XXXX"), 400, "BAD_REQUEST", "currency"),
        (get("/api/v1/usage-logs/merchant/m?action=steal"), 400, "BAD_REQUEST", "action"),
        (get("/api/v1/usage-logs/merchant/m?format=xml"), 400, "BAD_REQUEST", "format"),
        (get("/api/v1/usage-logs/merchant/m?merchant_id=n"), 400, "BAD_REQUEST", "merchant_id"),
        (get("/api/v1/usage-logs/merchant/m?format=csv&limit=5"), 400, "BAD_REQUEST", "limit"),
        (get("/api/v1/usage-logs/stats?from=2020-01-01T00:00:00Z"), 400, "BAD_REQUEST", "from"),
        (get("/api/v1/usage-logs/stats?from=-0001-01-01T00:00:00Z"), 400, "BAD_REQUEST", "from"),
        (get("/api/v1/usage-logs/stats?to=%2B200000-01-01T00:00:00Z"), 400, "BAD_REQUEST", "to"),
        (get("/api/v1/usage-logs/merchant/m?from=0000-12-31T00:00:00Z"), 400, "BAD_REQUEST", "from"),
        (get("/api/v1/usage-logs/merchant/m?to=%2B10000-01-01T00:00:00Z"), 400, "BAD_REQUEST", "to"),
        (get(&format!("/api/v1/usage-logs/merchant/m?cursor={}", cursor(&far_off))), 400, "BAD_REQUEST", "cursor"),
        (get(&format!("/api/v1/access-tokens?cursor={}", cursor(&far_off))), 400, "BAD_REQUEST", "cursor"),
        (get(&format!("/api/v1/quotas/list?cursor={}", cursor(&json!(["m\0", "USD"])))), 400, "BAD_REQUEST", "cursor"),
        (get("/api/v1/settings/history?key=%00"), 400, "BAD_REQUEST", "key"),
        (get("/api/v1/settings/history?key=a%20b"), 400, "BAD_REQUEST", "key"),
        (get("/api/v1/limit-policies?merchant_id=a%00"), 400, "BAD_REQUEST", "merchant_id"),
        (policy(json!({"metadata": {"a": ["x\0"]}})), 400, "BAD_REQUEST", "policy.metadata.a[0]"),
        (policy(json!({"remarks": "\0"})), 400, "BAD_REQUEST", "policy.remarks"),
        (policy(json!({"effective_date": "0000-01-01T00:00:00Z"})), 400, "BAD_REQUEST", "effective_date"),
        (policy(json!({"expiry_date": "+262000-01-01T00:00:00Z"})), 400, "BAD_REQUEST", "expiry_date"),
        (
            json(json!({"name": "a", "role": "admin", "expires_at": "+262000-01-01T00:00:00Z"})),
            400,
            "BAD_REQUEST",
            "expires_at",
        ),
        (get("/api/v1/nothing"), 404, "NOT_FOUND", ""),
        (Call::new("PATCH", TOKENS), 405, "METHOD_NOT_ALLOWED", ""),
    ];
    for (call, status, code, name) in table {
        let what = format!("{call:?}");
        let answer = ask(&bench.server, call, &admin).await?;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {}", answer.json());
        assert_eq!(field(&answer, "/field"), name, "{what}: {}", answer.json());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
        assert_eq!(field(&answer, "/status"), status.to_string(), "{what}");
    }
    assert_eq!(bench.count("SELECT count(*) FROM access_token").await?, 0);
    // A head without end is not read, and the server is still there.
    let endless = Call::new("GET", TOKENS).header("x-long", &"x".repeat(128 * 1024));
    let answer = ask(&bench.server, endless, &admin).await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
    assert_eq!(ask(&bench.server, get(TOKENS), &admin).await?.status, 200);
    Ok(())
}

/// A batch is as many requests as it has operations, however it comes out.
#[tokio::test]
async fn a_batch_counts_as_its_operations() -> Result<()> {
    let bench = Bench::with(&[("JWT_SECRET", secret()), ("SLUICE_ADMIN_RATE_PER_MINUTE", "10")])?;
    let admin = token("admin")?;
    let check = json!({"action": "check", "merchant_id": "m", "currency": "USD", "amount": 500});
    let batch = |count: usize| json!({"operations": vec![check.clone(); count]});
    let answer = bench.post(BATCH, &admin, &batch(11)).await?;
    assert_eq!((answer.status, field(&answer, "/field").as_str()), (400, "operations"), "{}", answer.json());
    let statuses = [(8, 200), (2, 429)];
    for (count, status) in statuses {
        let answer = bench.post(BATCH, &admin, &batch(count)).await?;
        assert_eq!(answer.status, status, "{count}: {}", answer.json());
    }
    Ok(())
}

#[tokio::test]
async fn the_answer_to_a_caller_that_asks_too_often_states_when_to_come_back() -> Result<()> {
    let bench = Bench::with(&[("JWT_SECRET", secret()), ("SLUICE_ADMIN_RATE_PER_MINUTE", "3")])?;
    let admin = token("admin")?;
    for _ in 0..3 {
        assert_eq!(bench.get(TOKENS, &admin).await?.status, 200);
    }
    let answer = bench.get(TOKENS, &admin).await?;
    assert_eq!((answer.status, answer.code().as_str()), (429, "RATE_LIMITED"), "{}", answer.json());
    let secs: u64 = answer.header("retry-after").unwrap_or_default().parse()?;
    assert!((1..=20).contains(&secs), "{secs}");
    // Another token of the same subject is the same caller; another subject is another.
    let again = Signer::secret(secret()).sign(&with(claims("admin"), json!({"jti": "2"})))?;
    assert_eq!(bench.get(TOKENS, &again).await?.status, 429);
    let other = Signer::secret(secret()).sign(&with(claims("admin"), json!({"sub": "admin-2"})))?;
    assert_eq!(bench.get(TOKENS, &other).await?.status, 200);
    // What is open to all has no caller.
    let health = send_once(bench.server.admin_address(), Protocol::Http1, Call::new("GET", "/health")).await?;
    assert_eq!(health.status, 200);
    Ok(())
}
