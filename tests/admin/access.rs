//! Access tokens: made, shown once, used, narrowed, rotated, revoked, expired.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::api::secret;
use testkit::client::Call;
use testkit::{Failure, Result, Service, wait};

use crate::bench::{Bench, WITHIN, ask, field, token};
use crate::keys::sha256;

const TOKENS: &str = "/api/v1/access-tokens";
const STATS: &str = "/api/v1/usage-logs/stats";

/// What may be posted there, by a caller that may post it.
fn body(path: &str) -> Value {
    match path {
        "/api/v1/limit-policies" => json!({"policy": {"daily_limit": 5_000}}),
        "/api/v1/policy-overrides" => json!({"merchant_id": "m-1", "daily_limit": 9_000, "reason": "a sale",
            "effective_date": "2090-01-01T00:00:00Z", "expiry_date": "2090-01-02T00:00:00Z"}),
        _ => json!({"name": "n", "role": "operator"}),
    }
}

/// Makes a token: its text and its id.
async fn make(bench: &Bench, new: &Value) -> Result<(String, String)> {
    let answer = bench.post(TOKENS, &token("admin")?, new).await?;
    if answer.status != 201 {
        return Err(Failure::new(format!("{new}: {}", answer.json())));
    }
    Ok((field(&answer, "/token"), field(&answer, "/access_token/id")))
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_as_a_hash() -> Result<()> {
    let bench = Bench::start()?;
    let admin = token("admin")?;
    let (text, id) = make(&bench, &json!({"name": "reports", "role": "operator"})).await?;
    assert!(text.starts_with("slc_") && text.len() == 47, "{text}");
    assert_eq!(bench.get(STATS, &text).await?.status, 200);

    let listed = bench.get(TOKENS, &admin).await?;
    assert_eq!(field(&listed, "/items/0/id"), id);
    assert_eq!(field(&listed, "/items/0/created_by"), "admin-1");
    assert!(!String::from_utf8_lossy(&listed.body).contains(&text));
    let pool = bench.pool().await?;
    let hash: Vec<u8> = sqlx::query_scalar("SELECT secret_hash FROM access_token").fetch_one(&pool).await?;
    assert_eq!(hash, sha256(&text));
    let row: String = sqlx::query_scalar("SELECT to_jsonb(t)::text FROM access_token t").fetch_one(&pool).await?;
    assert!(!row.contains(&text) && !row.contains(&text[4..]), "{row}");
    assert!(bench.server.log_lines().iter().all(|line| !line.to_string().contains(&text)));

    // Its use is on record, some time after.
    bench.wait_for("SELECT count(*) FROM access_token WHERE last_used_at > created_at", 1).await?;
    Ok(())
}

#[tokio::test]
async fn a_token_does_what_its_scope_says() -> Result<()> {
    let bench = Bench::start()?;
    let operator = make(&bench, &json!({"name": "a", "role": "operator"})).await?.0;
    let checker = make(&bench, &json!({"name": "b", "role": "operator", "permissions": ["quotas:check"]})).await?.0;
    let own = make(&bench, &json!({"name": "c", "role": "merchant", "merchant_id": "m-1"})).await?.0;
    let admin = make(&bench, &json!({"name": "d", "role": "admin"})).await?.0;
    let table = [
        (&operator, "GET", STATS, 200),
        (&operator, "GET", TOKENS, 403),
        (&checker, "GET", STATS, 403),
        (&own, "GET", "/api/v1/usage-logs/merchant/m-1", 200),
        (&own, "GET", "/api/v1/usage-logs/merchant/m-2", 403),
        (&admin, "GET", STATS, 200),
        // No token makes tokens, an administrator's neither.
        (&admin, "GET", TOKENS, 403),
        (&admin, "POST", TOKENS, 403),
        // Nor drafts what its maker could then approve as another person.
        (&admin, "GET", "/api/v1/limit-policies", 200),
        (&admin, "POST", "/api/v1/limit-policies", 403),
        (&operator, "POST", "/api/v1/limit-policies", 403),
        (&admin, "POST", "/api/v1/policy-overrides", 403),
    ];
    for (token, method, path, status) in table {
        let call = match method {
            "POST" => Call::post_json(path, body(path).to_string()),
            method => Call::new(method, path),
        };
        let answer = ask(&bench.server, call, token).await?;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.json());
    }
    for (new, field_name) in [
        (json!({"name": "", "role": "admin"}), "name"),
        (json!({"name": "n", "role": "root"}), "role"),
        (json!({"name": "n", "role": "merchant"}), "merchant_id"),
        (json!({"name": "n", "role": "admin", "permissions": ["tokens:manage"]}), "permissions"),
        (json!({"name": "n", "role": "admin", "permissions": ["policies:write"]}), "permissions"),
        (json!({"name": "n", "role": "admin", "permissions": ["payments:make"]}), "permissions[0]"),
        (json!({"name": "n", "role": "admin", "created_by": "me"}), "created_by"),
        (json!({"name": "n", "role": "admin", "expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"name": "n", "role": "admin", "expires_at": 5}), "expires_at"),
    ] {
        let answer = bench.post(TOKENS, &token("admin")?, &new).await?;
        assert_eq!((answer.status, field(&answer, "/field").as_str()), (400, field_name), "{}", answer.json());
    }
    assert_eq!(bench.count("SELECT count(*) FROM access_token").await?, 4);
    Ok(())
}

/// At once where it was revoked, within a second elsewhere.
#[tokio::test]
async fn a_revoked_token_is_refused_everywhere() -> Result<()> {
    let bench = Bench::start()?;
    let other = bench.another(&[("JWT_SECRET", secret())])?;
    let admin = token("admin")?;
    let (text, id) = make(&bench, &json!({"name": "a", "role": "operator"})).await?;
    let path = format!("{TOKENS}/{id}");
    for server in [&bench.server, &other] {
        assert_eq!(ask(server, Call::new("GET", STATS), &text).await?.status, 200);
    }
    assert_eq!(bench.delete(&path, &admin).await?.status, 204);
    let revoked_at = Instant::now();
    assert_eq!(bench.get(STATS, &text).await?.status, 401);
    wait::until_async("the other server's refusal", WITHIN, || async {
        Ok((ask(&other, Call::new("GET", STATS), &text).await?.status == 401).then_some(()))
    })
    .await?;
    assert!(revoked_at.elapsed() < Duration::from_secs(1), "{:?}", revoked_at.elapsed());

    // Again changes nothing, nor does it for what never was.
    let audit = "SELECT count(*) FROM access_token WHERE revoked_by = 'admin-1' AND revoked_at IS NOT NULL";
    assert_eq!((bench.delete(&path, &admin).await?.status, bench.count(audit).await?), (204, 1));
    let nothing = format!("{TOKENS}/00000000-0000-0000-0000-000000000001");
    assert_eq!(bench.delete(&nothing, &admin).await?.status, 404);
    assert_eq!(bench.post(&format!("{path}/rotate"), &admin, &Value::Null).await?.code(), "CONFLICT");
    Ok(())
}

#[tokio::test]
async fn a_rotated_token_gives_way_to_one_like_it() -> Result<()> {
    let bench = Bench::start()?;
    let admin = token("admin")?;
    let new = json!({"name": "a", "role": "merchant", "merchant_id": "m-1", "permissions": ["quotas:read"],
        "expires_at": "2099-01-01T00:00:00Z"});
    let (old, id) = make(&bench, &new).await?;
    assert_eq!(bench.get(STATS, &old).await?.status, 200);
    let answer = ask(&bench.server, Call::new("POST", &format!("{TOKENS}/{id}/rotate")), &admin).await?;
    assert_eq!(answer.status, 201, "{}", answer.json());
    let fresh = field(&answer, "/token");
    assert_eq!(bench.get(STATS, &old).await?.status, 401);
    assert_eq!(field(&bench.get(STATS, &fresh).await?, "/merchant_id"), "m-1");
    assert_eq!(field(&answer, "/access_token/replaces"), id);
    for (pointer, value) in [("name", "a"), ("role", "merchant"), ("permissions/0", "quotas:read")] {
        assert_eq!(field(&answer, &format!("/access_token/{pointer}")), value);
    }
    assert_eq!(field(&answer, "/access_token/expires_at"), "2099-01-01T00:00:00Z");
    assert_eq!(ask(&bench.server, Call::new("POST", &format!("{TOKENS}/{id}/rotate")), &admin).await?.status, 409);
    Ok(())
}

#[tokio::test]
async fn an_expired_token_is_refused() -> Result<()> {
    let bench = Bench::start()?;
    let (text, _) =
        make(&bench, &json!({"name": "a", "role": "operator", "expires_at": "2099-01-01T00:00:00Z"})).await?;
    assert_eq!(bench.get(STATS, &text).await?.status, 200);
    let pool = bench.pool().await?;
    sqlx::query("UPDATE access_token SET expires_at = now() - interval '1 second'").execute(&pool).await?;
    // What this server remembers of it ends within a second.
    wait::until_async("the refusal", Duration::from_secs(2), || async {
        Ok(Some(bench.get(STATS, &text).await?).filter(|answer| answer.status == 401))
    })
    .await?;
    let listed = |query: &'static str| bench_list(&bench, query);
    assert_eq!((listed("?active=true").await?, listed("?active=false").await?, listed("").await?), (0, 1, 1));
    Ok(())
}

async fn bench_list(bench: &Bench, query: &str) -> Result<usize> {
    let answer = bench.get(&format!("{TOKENS}{query}"), &token("admin")?).await?;
    Ok(answer.json().pointer("/items").and_then(Value::as_array).map_or(usize::MAX, Vec::len))
}

#[tokio::test]
async fn tokens_are_listed_in_pages() -> Result<()> {
    let bench = Bench::start()?;
    let admin = token("admin")?;
    let mut made = Vec::new();
    for name in 0..5 {
        made.push(make(&bench, &json!({"name": name.to_string(), "role": "operator"})).await?.1);
    }
    made.reverse();
    let (mut seen, mut path) = (Vec::new(), format!("{TOKENS}?limit=2"));
    loop {
        let page = bench.get(&path, &admin).await?;
        seen.extend(page.json().pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default());
        let cursor = field(&page, "/next_cursor");
        if cursor.is_empty() {
            break;
        }
        path = format!("{TOKENS}?limit=2&cursor={cursor}");
    }
    let seen: Vec<_> = seen.iter().filter_map(|item| item.get("id")?.as_str().map(str::to_owned)).collect();
    assert_eq!(seen, made);
    for query in ["?limit=0", "?limit=201", "?limit=x", "?cursor=x", "?page=2", "?active=1"] {
        let answer = bench.get(&format!("{TOKENS}{query}"), &admin).await?;
        assert_eq!(answer.status, 400, "{query}: {}", answer.json());
    }
    Ok(())
}

/// What only begins like a token is refused without asking anybody, the database neither.
#[tokio::test]
async fn a_text_that_is_no_token_is_not_looked_up() -> Result<()> {
    let mut bench = Bench::start()?;
    let (text, _) = make(&bench, &json!({"name": "a", "role": "operator"})).await?;
    bench.postgres.stop()?;
    let unknown = format!("slc_{}", "A".repeat(43));
    for (text, status) in [("slc_", 401), (&text[..46], 401), (&format!("{text}A"), 401), (&unknown, 503)] {
        let answer = bench.get(STATS, text).await?;
        assert_eq!(answer.status, status, "{text}: {}", answer.json());
    }
    Ok(())
}
