//! `Idempotency-Key`: what was done once is answered again, and never done again.

use std::time::Duration;

use serde_json::json;
use testkit::api::secret;
use testkit::client::{Answer, Call, Client, Part, Protocol};
use testkit::{Result, wait};

use crate::bench::{Bench, WITHIN, ask, field, token};

const TOKENS: &str = "/api/v1/access-tokens";
const MADE: &str = "SELECT count(*) FROM access_token";

fn make(name: &str, key: &str) -> Call {
    Call::post_json(TOKENS, json!({"name": name, "role": "operator"}).to_string()).header("idempotency-key", key)
}

fn replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer() -> Result<()> {
    let bench = Bench::start()?;
    let (admin, server) = (token("admin")?, &bench.server);
    let first = ask(server, make("a", "k-1"), &admin).await?;
    let again = ask(server, make("a", "k-1"), &admin).await?;
    assert_eq!((first.status, replayed(&first)), (201, false), "{}", first.json());
    assert_eq!((again.status, replayed(&again)), (201, true), "{}", again.json());
    for header in ["content-type", "location"] {
        assert!(first.header(header).is_some() && first.header(header) == again.header(header), "{header}");
    }
    // The same but for the token itself, which is shown once and kept nowhere.
    assert_eq!(first.json()["access_token"], again.json()["access_token"]);
    assert!(!field(&first, "/token").is_empty() && again.json().get("token").is_none());
    let kept = "SELECT count(*) FROM idempotency_key WHERE convert_from(body, 'UTF8') LIKE '%slc\\_%'";
    assert_eq!((bench.count(MADE).await?, bench.count(kept).await?), (1, 0));

    // A refusal is an answer, too.
    for replay in [false, true] {
        let answer = ask(server, make("", "k-2"), &admin).await?;
        assert_eq!((answer.status, replayed(&answer)), (400, replay));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    Ok(())
}

#[tokio::test]
async fn a_key_is_one_callers_for_one_request() -> Result<()> {
    let bench = Bench::start()?;
    let (admin, server) = (token("admin")?, &bench.server);
    let other = crate::keys::Signer::secret(secret())
        .sign(&crate::keys::with(crate::keys::claims("admin"), json!({"sub": "admin-2"})))?;
    let made = ask(server, make("a", "k-1"), &admin).await?;
    assert_eq!(made.status, 201);
    // Another body, or another query, under the same key.
    let other_query = Call { path: format!("{TOKENS}?x=1"), ..make("a", "k-1") };
    for call in [make("b", "k-1"), other_query] {
        let answer = ask(server, call, &admin).await?;
        assert_eq!((answer.status, answer.code().as_str()), (422, "IDEMPOTENCY_KEY_REUSED"), "{}", answer.json());
    }
    // The same key of someone else, and for something else.
    let rotate = format!("{TOKENS}/{}/rotate", field(&made, "/access_token/id"));
    for (call, token) in
        [(make("b", "k-1"), &other), (Call::new("POST", &rotate).header("idempotency-key", "k-1"), &admin)]
    {
        let answer = ask(server, call, token).await?;
        assert_eq!((answer.status, replayed(&answer)), (201, false), "{}", answer.json());
    }
    let long = "k".repeat(256);
    for key in ["", "a b", "\u{e9}", &long] {
        let answer = ask(server, make("a", key), &admin).await?;
        assert_eq!((answer.status, field(&answer, "/field").as_str()), (400, "idempotency-key"), "{key}");
    }
    let twice = make("a", "k-3").header("idempotency-key", "k-4");
    assert_eq!(ask(server, twice, &admin).await?.status, 400);
    assert_eq!(bench.count(MADE).await?, 3);
    Ok(())
}

/// Tokens are inserted when no session holds the advisory lock 1. The wait outlasts the session's lock and statement
/// timeouts, so that a slow machine changes nothing.
const INSERTS_WAIT: &str = "CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        SET LOCAL lock_timeout = 0; \
        BEGIN PERFORM pg_advisory_xact_lock(1); \
        EXCEPTION WHEN query_canceled THEN PERFORM pg_advisory_xact_lock(1); END; \
        RETURN NEW; END $$; \
    CREATE TRIGGER wait_for_lock BEFORE INSERT ON access_token FOR EACH ROW EXECUTE FUNCTION wait_for_lock()";

/// The first request waits at a lock. Meanwhile its key is in use; and its caller leaves, which stops nothing.
#[tokio::test]
async fn a_request_under_way_is_not_done_twice_nor_left_half_way() -> Result<()> {
    let bench = Bench::start()?;
    let (admin, server) = (token("admin")?, &bench.server);
    let pool = bench.pool().await?;
    sqlx::raw_sql(INSERTS_WAIT).execute(&pool).await?;
    let mut lock = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *lock).await?;
    let call = make("a", "k-1").header("authorization", &format!("Bearer {admin}"));
    let mut leaving = Client::connect(server.admin_address(), Protocol::Http1).await?;
    {
        let sending = leaving.send(call);
        let claimed = wait::until_async("the claim", WITHIN, || async {
            let claimed = "SELECT count(*) FROM idempotency_key WHERE status IS NULL";
            Ok((bench.count(claimed).await? == 1).then_some(()))
        });
        tokio::select! {
            answer = sending => panic!("answered while it must wait: {answer:?}"),
            claimed = claimed => claimed?,
        }
        let meanwhile = ask(server, make("a", "k-1"), &admin).await?;
        assert_eq!((meanwhile.status, meanwhile.code().as_str()), (409, "IDEMPOTENCY_KEY_IN_USE"));
        assert_eq!(meanwhile.header("retry-after"), Some("1"));
    }
    drop(leaving);
    lock.rollback().await?;
    bench.wait_for("SELECT count(*) FROM idempotency_key WHERE status = 201", 1).await?;
    let answer = ask(server, make("a", "k-1"), &admin).await?;
    assert_eq!((answer.status, replayed(&answer), bench.count(MADE).await?), (201, true, 1));
    Ok(())
}

/// Postgres gives up waiting for the lock: that answer asks for another try, which is done anew.
#[tokio::test]
async fn an_answer_that_asks_for_another_try_is_not_kept() -> Result<()> {
    let bench = Bench::start()?;
    let (admin, server) = (token("admin")?, &bench.server);
    let pool = bench.pool().await?;
    let mut lock = pool.begin().await?;
    sqlx::query("LOCK TABLE access_token IN EXCLUSIVE MODE").execute(&mut *lock).await?;
    let refused = ask(server, make("a", "k-1"), &admin).await?;
    assert_eq!((refused.status, refused.code().as_str()), (503, "DATABASE_UNAVAILABLE"), "{}", refused.json());
    lock.rollback().await?;
    assert_eq!(bench.count("SELECT count(*) FROM idempotency_key").await?, 0);
    let answer = ask(server, make("a", "k-1"), &admin).await?;
    assert_eq!((answer.status, replayed(&answer)), (201, false));
    Ok(())
}

/// Keys end after a day; one whose server died without an answer is free again after a minute, for the same request.
#[tokio::test]
async fn keys_end() -> Result<()> {
    let bench = Bench::start()?;
    let (admin, server) = (token("admin")?, &bench.server);
    let pool = bench.pool().await?;
    assert_eq!(ask(server, make("a", "k-1"), &admin).await?.status, 201);
    sqlx::query("UPDATE idempotency_key SET claimed_at = now() - interval '25 hours'").execute(&pool).await?;
    let answer = ask(server, make("b", "k-1"), &admin).await?;
    assert_eq!((answer.status, replayed(&answer)), (201, false));

    let died = "UPDATE idempotency_key SET status = NULL, claimed_at = now() - interval '59 seconds'";
    sqlx::query(died).execute(&pool).await?;
    assert_eq!(ask(server, make("b", "k-1"), &admin).await?.status, 409);
    let died = "UPDATE idempotency_key SET claimed_at = now() - interval '61 seconds'";
    sqlx::query(died).execute(&pool).await?;
    assert_eq!(ask(server, make("c", "k-1"), &admin).await?.status, 422);
    let answer = ask(server, make("b", "k-1"), &admin).await?;
    assert_eq!((answer.status, replayed(&answer)), (201, false));
    Ok(())
}

/// Without Postgres it is unknown whether a key was used: the request is refused, not risked.
#[tokio::test]
async fn without_the_database_a_key_cannot_be_honoured() -> Result<()> {
    use testkit::Service;
    let mut bench = Bench::start()?;
    let admin = token("admin")?;
    bench.postgres.stop()?;
    let answer = ask(&bench.server, make("a", "k-1"), &admin).await?;
    assert_eq!((answer.status, answer.code().as_str()), (503, "DATABASE_UNAVAILABLE"), "{}", answer.json());
    bench.postgres.restart()?;
    let answer = wait::until_async("the database's return", WITHIN, || async {
        Ok(Some(ask(&bench.server, make("a", "k-1"), &admin).await?).filter(|answer| answer.status != 503))
    });
    assert_eq!((answer.await?.status, bench.count(MADE).await?), (201, 1));
    // A body that breaks off claims nothing.
    let broken = make("b", "k-2").part(Part::Pause(Duration::from_millis(1))).part(Part::Abort);
    assert!(ask(&bench.server, broken, &admin).await.is_err());
    assert_eq!(bench.count("SELECT count(*) FROM idempotency_key").await?, 1);
    Ok(())
}

/// X10: who comes with the same name and key, and with less authority, is authorised before there is any answer.
#[tokio::test]
async fn x10_a_lesser_role_never_sees_an_operators_answer() -> Result<()> {
    let bench = Bench::start()?;
    let signed = |role: &str, merchant: Option<&str>| {
        let claims = crate::keys::with(crate::keys::claims(role), json!({"sub": "ana", "merchant_id": merchant}));
        crate::keys::Signer::secret(secret()).sign(&claims)
    };
    let charge = json!({"merchant_id": "merchant-001", "currency": "USD", "order_no": "A", "amount": 5_000});
    let check = json!({"merchant_id": "merchant-001", "currency": "USD", "amount": 5_000});
    let table = [
        ("operator", None, 200, false, 200),
        ("operator", None, 200, true, 200),
        ("merchant", Some("merchant-001"), 403, false, 200),
        ("merchant", Some("merchant-002"), 403, false, 403),
        ("operator", Some("merchant-002"), 403, false, 403),
        ("operator", Some("merchant-001"), 200, false, 200),
        ("admin", None, 200, false, 200),
        ("operator", None, 200, true, 200),
        ("root", None, 403, false, 403),
    ];
    for (row, (role, merchant, charged, again, checked)) in table.into_iter().enumerate() {
        let token = signed(role, merchant)?;
        let post = |path: &str, body: &serde_json::Value| {
            let call = Call::post_json(path, body.to_string()).header("idempotency-key", "k-1");
            ask(&bench.server, call, &token)
        };
        let answer = post("/api/v1/quotas/consume", &charge).await?;
        let what = format!("row {row}: {role} of {merchant:?}: {}", answer.json());
        assert_eq!((answer.status, replayed(&answer)), (charged, again), "{what}");
        if charged == 403 {
            assert_eq!(answer.code(), "FORBIDDEN", "{what}");
        }
        // The same key on another path, which a merchant may ask for itself.
        assert_eq!(post("/api/v1/quotas/check", &check).await?.status, checked, "{what}");
    }
    Ok(())
}
