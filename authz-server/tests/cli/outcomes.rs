//! `outcomes`: what the gateway left open is listed from Postgres, and resolved as the API does it.

use std::time::Duration;

use serde_json::Value;
use testkit::api::Api;
use testkit::checks::ask;
use testkit::{Result, wait};

use crate::bench::run;

const POLICIES: &str = "version: a\ndefault: {timezone: UTC, daily_amount: 50000}\n";
const STORED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn x2_unknown_outcomes_are_listed_and_resolved() -> Result<()> {
    let api = Api::start(POLICIES, &[])?;
    let (redis, postgres) = (api.redis.url(), api.postgres.url());
    let policy_file = api.dir().join("policies.yaml").display().to_string();
    let env = [
        ("REDIS_URL", redis.as_str()),
        ("DATABASE_URL", postgres.as_str()),
        ("SLUICE_POLICY_FILE", policy_file.as_str()),
    ];
    for (order, action, more) in [
        ("1", "consume", None),
        ("2", "consume", None),
        ("1", "unknown", Some("status_406")),
        ("2", "unknown", Some("flag_UC")),
    ] {
        let mut fields = vec![
            ("action", action),
            ("merchant", "shop"),
            ("currency", "USD"),
            ("order_no", order),
            ("attempt", "a"),
            ("amount_minor", "500"),
        ];
        fields.extend(more.into_iter().flat_map(|reason| [("outcome_of", "consume"), ("reason", reason)]));
        ask(api.server.grpc_address(), &fields).await?;
    }
    let list = |arguments: &[&str]| run(&env, &[&["outcomes", "list", "--json"], arguments].concat());
    let items = wait::until("both outcomes in the list", STORED_WITHIN, || {
        let printed = list(&["--merchant", "shop"])?;
        let items: Vec<Value> = serde_json::from_str(&printed.stdout).unwrap_or_default();
        Ok((items.len() == 2).then_some(items))
    })?;
    assert_eq!((&items[0]["order_no"], &items[0]["reason"]), (&"1".into(), &"status_406".into()));
    assert_eq!(list(&["--merchant", "other"])?.code, Some(3));
    assert_eq!(list(&["--older-than-secs", "3600"])?.code, Some(3));
    let id = |at: usize| items[at]["outcome_id"].as_str().unwrap_or_default().to_owned();
    let resolve =
        |at: usize, word: &str, more: &[&str]| run(&env, &[&["outcomes", "resolve", &id(at), word][..], more].concat());
    assert_eq!(resolve(0, "not_made", &[])?.code, Some(2), "a reason is needed");
    let text = resolve(0, "not_made", &["--reason", "not in the report", "--as", "admin:ana"])?.succeeded();
    assert!(text.contains("not_made") && text.contains("status_406"), "{text}");
    resolve(0, "not_made", &["--reason", "again"])?.succeeded();
    assert_eq!(resolve(0, "made", &["--reason", "no"])?.code, Some(1), "it was resolved otherwise");
    let done: Value = serde_json::from_str(&resolve(1, "made", &["--reason", "paid", "--json"])?.succeeded())?;
    assert_eq!((&done[0]["resolution"], &done[0]["resolved_by"]), (&"made".into(), &"admin:cli".into()));
    let account = api.operator()?.get("/quotas/merchant/shop/currency/USD").await?.json();
    assert_eq!(account["daily_used"], 500, "{account}");
    assert_eq!(list(&[])?.code, Some(3), "nothing is open");
    assert_eq!(resolve(0, "gone", &["--reason", "x"])?.code, Some(2));
    Ok(())
}
