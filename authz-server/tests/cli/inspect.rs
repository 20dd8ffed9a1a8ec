//! `inspect`: what Redis holds, decoded, as a server has left it; it changes nothing, and says where nothing is.

use redis::AsyncCommands as _;
use serde_json::{Value, json};
use testkit::Result;
use testkit::api::Api;
use testkit::redis::Redis;

use crate::bench::run;

const POLICIES: &str = "version: a\ndefault: {timezone: UTC, daily_amount: 50000}\n";

/// Everything that is stored, by key.
async fn contents(redis: &Redis) -> Result<Vec<(String, Option<Vec<u8>>)>> {
    let mut connection = redis.connection().await?;
    let mut keys: Vec<String> = connection.keys("*").await?;
    keys.sort_unstable();
    let mut found = Vec::new();
    for key in keys {
        found.push((key.clone(), redis::cmd("DUMP").arg(&key).query_async(&mut connection).await?));
    }
    Ok(found)
}

#[tokio::test]
async fn accounts_and_orders_are_shown_as_they_are_stored() -> Result<()> {
    let api = Api::start(POLICIES, &[])?;
    let operator = api.operator()?;
    let charge = |order_no: &str, amount: u64| json!({"merchant_id": "shop", "currency": "USD", "order_no": order_no, "amount": amount});
    for (path, body) in [
        ("/quotas/consume", charge("A", 5000)),
        ("/quotas/hold", charge("B", 4000)),
        (
            "/quotas/settle",
            json!({"merchant_id": "shop", "currency": "USD", "order_no": "B", "amount": 1500, "capture_no": "C-1", "final": false}),
        ),
        (
            "/quotas/refund",
            json!({"merchant_id": "shop", "currency": "USD", "order_no": "A", "amount": 700, "refund_no": "R-1"}),
        ),
        ("/quotas/suspend", json!({"merchant_id": "shop", "currency": "USD", "reason": "a test"})),
        ("/quotas/suspend", json!({"merchant_id": "shop", "reason": "a test of all"})),
    ] {
        let answer = operator.post(path, &body).await?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
    }
    let url = api.redis.url();
    // Nothing but what it needs: no policy, no secret, no database.
    let env = [("REDIS_URL", url.as_str())];
    let read = |arguments: &[&str]| -> Result<Value> {
        let json = run(&env, &[&["inspect"], arguments, &["--json"]].concat())?.succeeded();
        Ok(serde_json::from_str(&json)?)
    };
    let account = read(&["account", "shop", "USD"])?;
    assert_eq!(account["found"], true);
    assert_eq!((&account["merchant_id"], &account["currency"]), (&json!("shop"), &json!("USD")));
    let day = &account["windows"]["day"];
    assert_eq!((&day["amount"], &day["transactions"], &day["refunded"]), (&json!(8300), &json!(2), &json!(700)));
    assert_eq!((&account["pending_amount"], &account["version"]), (&json!(2500), &json!(5)));
    assert!(account["suspended_at"].is_string() && account["merchant_suspended_at"].is_string(), "{account}");
    let merchant = read(&["merchant", "shop"])?;
    assert_eq!((&merchant["merchant_id"], &merchant["version"]), (&json!("shop"), &json!(1)));
    assert_eq!(merchant["suspended_at"], account["merchant_suspended_at"]);
    assert!(merchant["key"].as_str().is_some_and(|key| key.ends_with(":m:shop")), "{merchant}");
    assert!(account["key"].as_str().is_some_and(|key| key.ends_with(":a:shop:USD")), "{account}");

    let order = read(&["order", "shop", "B"])?;
    assert_eq!((&order["state"], &order["amount"], &order["captured"]), (&json!("held"), &json!(4000), &json!(1500)));
    assert_eq!((&order["held"], &order["on_expiry"], &order["expired"]), (&json!(2500), &json!("void"), &json!(false)));
    assert_eq!((&order["operations"][0]["kind"], &order["operations"][0]["amount"]), (&json!("capture"), &json!(1500)));
    assert_eq!(order["live_attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(order["closed"], json!(false));
    assert_eq!(read(&["order", "shop", "A"])?["closed"], json!(true));
    assert_eq!(order["charged_in"]["day"]["window"], day["window"]);

    let text = run(&env, &["inspect", "account", "shop", "USD"])?.succeeded();
    for part in ["used 8300 in 2 transactions, refunded 700", "since 20", "2500", "minor units", ":a:shop:USD"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let text = run(&env, &["inspect", "order", "shop", "A"])?.succeeded();
    for part in ["charged", "refund ", "700, decision ", ":o:shop:A", "no charge of this order is admitted"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn where_nothing_is_it_says_so_and_leaves_nothing() -> Result<()> {
    let redis = Redis::start()?;
    let url = redis.url();
    let env = [("REDIS_URL", url.as_str())];
    for (arguments, key) in
        [(["account", "shop", "USD"], ":a:shop:USD"), (["order", "shop", "ORDER-1"], ":o:shop:ORDER-1")]
    {
        let ran = run(&env, &[&["inspect"], &arguments[..]].concat())?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{ran:?}");
        assert!(ran.stderr.contains("nothing is stored at ") && ran.stderr.contains(key), "{ran:?}");
        let ran = run(&env, &[&["inspect"], &arguments[..], &["--json"]].concat())?;
        let document: Value = serde_json::from_str(&ran.stdout)?;
        assert_eq!((ran.code, &document["found"], ran.stderr.as_str()), (Some(3), &json!(false), ""), "{ran:?}");
    }
    assert_eq!(contents(&redis).await?, []);

    // What another number of shards has put elsewhere is not said to be missing.
    let mut connection = redis.connection().await?;
    let _: () = connection.set("sluice:shards", 8).await?;
    let before = contents(&redis).await?;
    let ran = run(&env, &["inspect", "account", "shop", "USD"])?;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("set SLUICE_SHARDS=8"), "{ran:?}");
    let ran = run(&[env[0], ("SLUICE_SHARDS", "8")], &["inspect", "account", "shop", "USD"])?;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    // A value that is none of ours is neither shown nor touched.
    let place = ran.stderr.split(' ').find(|word| word.starts_with("sluice:")).unwrap_or_default().to_owned();
    let _: () = connection.set(&place, "something else").await?;
    let ran = run(&[env[0], ("SLUICE_SHARDS", "8")], &["inspect", "account", "shop", "USD"])?;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.stderr.contains("an unexpected value"), "{ran:?}");
    assert_eq!(contents(&redis).await?.len(), before.len() + 1);
    Ok(())
}

#[test]
fn what_it_cannot_do_it_says_without_secrets() -> Result<()> {
    let away = ("REDIS_URL", "redis://operator:hunter2@127.0.0.1:1/");
    let table: &[(&[(&str, &str)], &[&str], i32, &str)] = &[
        (&[away], &["inspect", "account", "shop", "USD"], 1, "the quota store cannot be reached"),
        (&[away], &["inspect", "order", "shop", "A"], 1, "the quota store cannot be reached"),
        (&[("REDIS_URL", "http://hunter2@host/")], &["inspect", "order", "shop", "A"], 1, "REDIS_URL"),
        (&[away, ("SLUICE_SHARDS", "0")], &["inspect", "order", "shop", "A"], 1, "SLUICE_SHARDS is '0'"),
        (&[away], &["inspect", "account", "shop", "usd!"], 2, "<CURRENCY>"),
        (&[away], &["inspect", "account", "a b", "USD"], 2, "<MERCHANT>"),
        (&[away], &["inspect", "order", "shop"], 2, "<ORDER_NO>"),
    ];
    for (env, arguments, code, part) in table {
        let ran = run(env, arguments)?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(*code), ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(part) && !ran.stderr.contains("hunter2"), "{arguments:?}: {ran:?}");
    }
    Ok(())
}
