//! `Idempotency-Key` where another try is not the same: corrections by hand that count as often as they are done, and batches
//! of which a part waits for another try.

use serde_json::{Value, json};
use sluice_kit::shutdown;
use testkit::api::secret;
use testkit::client::{Answer, Call};
use testkit::{Result, Service, wait};

use crate::bench::{Bench, WITHIN, ask, field, token};

const ADJUST: &str = "/api/v1/quotas/adjust";
const BATCH: &str = "/api/v1/quotas/batch";
const ACCOUNT: &str = "/api/v1/quotas/merchant/m-1/currency/USD";
const KEYS: &str = "SELECT count(*) FROM idempotency_key";

/// A server that soon gives up a store without an answer.
fn prompt() -> Result<Bench> {
    Bench::with(&[("JWT_SECRET", secret()), ("SLUICE_REDIS_TIMEOUT_MS", "1000"), ("SLUICE_CHECK_TIMEOUT_MS", "1100")])
}

fn adjust(version: Option<u64>) -> Value {
    let mut body = json!({"merchant_id": "m-1", "currency": "USD", "counter": "daily_used", "operation": "add",
        "amount": 7, "reason": "found"});
    if let Some(version) = version {
        body["expected_version"] = version.into();
    }
    body
}

fn keyed(path: &str, body: &Value, key: &str) -> Call {
    Call::post_json(path, body.to_string()).header("idempotency-key", key)
}

fn consume(order_no: &str) -> Value {
    json!({"action": "consume", "merchant_id": "merchant-001", "currency": "USD", "order_no": order_no, "amount": 1_000_000})
}

fn replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

async fn daily_used(bench: &Bench, admin: &str) -> Result<String> {
    Ok(field(&bench.get(ACCOUNT, admin).await?, "/daily_used"))
}

/// The store hangs, does the correction when it goes on, and its answer is lost: the key does not do it a second time.
#[tokio::test]
async fn a_correction_whose_answer_was_lost_is_not_done_twice() -> Result<()> {
    let mut bench = prompt()?;
    let admin = token("admin")?;
    let made = ask(&bench.server, keyed(ADJUST, &adjust(None), "k-0"), &admin).await?;
    assert_eq!((made.status, daily_used(&bench, &admin).await?.as_str()), (200, "7"), "{}", made.json());

    bench.redis.pause()?;
    let mut whole = adjust(None);
    whole["action"] = "adjust".into();
    let atomic = json!({"operations": [whole], "atomic": true});
    let each = json!({"operations": [whole]});
    let lost = [(ADJUST, adjust(None), "k-1"), (BATCH, atomic, "k-2"), (BATCH, each, "k-3")];
    for (path, body, key) in &lost {
        let answer = ask(&bench.server, keyed(path, body, key), &admin).await?;
        assert!([503, 207].contains(&answer.status), "{}", answer.json());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("STORE_UNAVAILABLE") && text.contains("expected_version and a new key"), "{text}");
    }
    bench.redis.resume()?;
    let before = wait::until_async("the store's return", WITHIN, || async {
        Ok(Some(daily_used(&bench, &admin).await?).filter(|used| !used.is_empty()))
    })
    .await?;
    for (path, body, key) in &lost {
        let answer = ask(&bench.server, keyed(path, body, key), &admin).await?;
        assert!(replayed(&answer), "{key}: {}", answer.json());
    }
    assert_eq!(daily_used(&bench, &admin).await?, before);

    // As the answer says: look, and ask with the version.
    let version = bench.get(ACCOUNT, &admin).await?.json()["version"].as_u64();
    for replay in [false, true] {
        let answer = ask(&bench.server, keyed(ADJUST, &adjust(version), "k-4"), &admin).await?;
        assert_eq!((answer.status, replayed(&answer)), (200, replay), "{}", answer.json());
    }
    Ok(())
}

/// With a version, and for every other operation, another try is safe: it is done anew.
#[tokio::test]
async fn what_may_be_done_again_is_done_again() -> Result<()> {
    let mut bench = prompt()?;
    let admin = token("admin")?;
    let order = json!({"merchant_id": "m-1", "currency": "USD", "order_no": "1", "amount": 500});
    let calls = [("/api/v1/quotas/consume", order, "k-1"), (ADJUST, adjust(Some(1)), "k-2")];
    bench.redis.stop()?;
    for (path, body, key) in &calls {
        let answer = ask(&bench.server, keyed(path, body, key), &admin).await?;
        assert_eq!((answer.status, answer.code().as_str()), (503, "STORE_UNAVAILABLE"), "{}", answer.json());
    }
    assert_eq!(bench.count(KEYS).await?, 0);
    bench.redis.restart()?;
    for (path, body, key) in &calls {
        let answer = wait::until_async("the store's return", WITHIN, || async {
            Ok(Some(ask(&bench.server, keyed(path, body, key), &admin).await?).filter(|answer| answer.status != 503))
        })
        .await?;
        assert_eq!((answer.status, replayed(&answer)), (200, false), "{}", answer.json());
    }
    Ok(())
}

/// A server that died before it had an answer leaves a key: another request is done anew, a correction never.
#[tokio::test]
async fn a_correction_that_ended_without_a_word_is_not_done_again() -> Result<()> {
    let bench = Bench::start()?;
    let (admin, pool) = (token("admin")?, bench.pool().await?);
    let mut operation = adjust(None);
    operation["action"] = "adjust".into();
    let unsafe_calls = [
        (ADJUST, adjust(None)),
        ("/api/v1/quotas/reset", json!({"merchant_id": "m-1", "currency": "USD", "window": "all", "reason": "r"})),
        (BATCH, json!({"operations": [operation]})),
    ];
    for (path, body) in &unsafe_calls {
        assert_eq!(ask(&bench.server, keyed(path, body, "k-1"), &admin).await?.status, 200);
    }
    let (used, version) = {
        let account = bench.get(ACCOUNT, &admin).await?;
        (field(&account, "/daily_used"), account.json()["version"].as_u64())
    };
    assert_eq!(ask(&bench.server, keyed(ADJUST, &adjust(version), "k-2"), &admin).await?.status, 200);
    let died = "UPDATE idempotency_key SET status = NULL, claimed_at = now() - interval '61 seconds'";
    sqlx::query(died).execute(&pool).await?;
    for (path, body) in &unsafe_calls {
        let answer = ask(&bench.server, keyed(path, body, "k-1"), &admin).await?;
        assert_eq!((answer.status, answer.code().as_str()), (409, "OUTCOME_UNKNOWN"), "{path}: {}", answer.json());
    }
    // Done anew, and the version says that it was done.
    let answer = ask(&bench.server, keyed(ADJUST, &adjust(version), "k-2"), &admin).await?;
    assert_eq!((answer.status, answer.code().as_str()), (409, "VERSION_CONFLICT"), "{}", answer.json());
    assert_ne!(daily_used(&bench, &admin).await?, used, "the first one with a version was done");
    Ok(())
}

/// merchant-001 may consume five times so much in a day.
#[tokio::test]
async fn a_batch_with_items_for_another_try_is_not_kept() -> Result<()> {
    let bench = Bench::start()?;
    let admin = token("admin")?;
    let six: Vec<Value> = ["1", "2", "3", "4", "5", "6"].map(consume).into();
    let each = json!({"operations": six});
    let atomic = json!({"operations": [consume("7"), consume("8")], "atomic": true});
    for _ in 0..2 {
        for (body, key, status) in [(&each, "k-1", 207), (&atomic, "k-2", 409)] {
            let answer = ask(&bench.server, keyed(BATCH, body, key), &admin).await?;
            assert_eq!((answer.status, replayed(&answer)), (status, false), "{}", answer.json());
            assert!(String::from_utf8_lossy(&answer.body).contains("DAILY_AMOUNT"), "{}", answer.json());
        }
    }
    assert_eq!(bench.count(KEYS).await?, 0);
    // Refusals that stay are kept.
    let mut small = consume("9");
    small["amount"] = 1.into();
    let refused = json!({"operations": [small]});
    for replay in [false, true] {
        let answer = ask(&bench.server, keyed(BATCH, &refused, "k-3"), &admin).await?;
        assert_eq!((answer.status, replayed(&answer)), (207, replay), "{}", answer.json());
    }
    // A correction that was done beside them must not be done again.
    let mut operation = adjust(None);
    operation["action"] = "adjust".into();
    let mixed = json!({"operations": [operation, consume("6")]});
    for replay in [false, true] {
        let answer = ask(&bench.server, keyed(BATCH, &mixed, "k-4"), &admin).await?;
        assert_eq!((answer.status, replayed(&answer)), (207, replay), "{}", answer.json());
    }
    assert_eq!(daily_used(&bench, &admin).await?, "7");
    Ok(())
}

/// More keys than one statement removes.
#[tokio::test]
async fn all_keys_that_are_over_are_removed() -> Result<()> {
    let bench = Bench::start()?;
    let pool = bench.pool().await?;
    let insert = "INSERT INTO idempotency_key (subject, path, key, fingerprint, claim, claimed_at) \
        SELECT 's', '/p', n::text, sha256('x'), gen_random_uuid(), now() - n * interval '1 day' + interval '1 hour' \
        FROM generate_series(1, 20001) AS n";
    sqlx::query(insert).execute(&pool).await?;
    let (_stop, stopped) = shutdown::channel();
    sluice_api::store::idempotency_keys::remove_expired(&pool, &stopped).await?;
    assert_eq!(bench.count(KEYS).await?, 1);
    Ok(())
}
