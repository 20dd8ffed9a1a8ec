//! `rights`: what is outstanding in Redis, as it is listed and shown with its account, and released as the API does.

use serde_json::{Value, json};
use testkit::Result;
use testkit::api::Api;
use testkit::checks::ask;
use testkit::rights::ended_long_ago;

use crate::bench::run;

const POLICIES: &str = "version: a\ndefault: {timezone: UTC, daily_amount: 500000}\nmerchants:\n  \
    long: {trust: {above_percent: 20, share_percent: 10, ttl_ms: 60000}}\n  \
    brief: {trust: {above_percent: 20, share_percent: 10, ttl_ms: 100}}\n";
const LONG: &str = "5c1f0a90-0000-0000-0000-000000000001";
const BRIEF: &str = "5c1f0a90-0000-0000-0000-000000000002";

#[tokio::test]
async fn rights_are_listed_shown_with_their_account_and_released() -> Result<()> {
    let api = Api::start(POLICIES, &[])?;
    let (redis, postgres) = (api.redis.url(), api.postgres.url());
    let policy_file = api.dir().join("policies.yaml").display().to_string();
    let env = [
        ("REDIS_URL", redis.as_str()),
        ("DATABASE_URL", postgres.as_str()),
        ("SLUICE_POLICY_FILE", policy_file.as_str()),
    ];
    let list = |arguments: &[&str]| run(&env[..1], &[&["rights", "list"], arguments].concat());
    let ran = list(&[])?;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(3), "", "no right is outstanding\n"));
    for (merchant, right_id) in [("long", LONG), ("brief", BRIEF)] {
        let fields = [
            ("action", "consume"),
            ("merchant", merchant),
            ("currency", "USD"),
            ("order_no", "1"),
            ("attempt", &right_id.replace('-', "")),
            ("amount_minor", "100"),
            ("right_wanted", "5 5000"),
        ];
        assert_eq!(ask(api.server.grpc_address(), &fields).await?, "ADMITTED");
    }
    let all: Vec<Value> = serde_json::from_str(&list(&["--json"])?.succeeded())?;
    assert_eq!(all.len(), 2, "{all:?}");
    let own: Vec<Value> =
        serde_json::from_str(&list(&["--merchant", "long", "--currency", "USD", "--json"])?.succeeded())?;
    let rest = api.operator()?.get("/rights?merchant_id=long").await?.json();
    assert_eq!((json!(own), &own[0]["right_id"]), (rest["items"].clone(), &json!(LONG)));
    let text = list(&["--limit", "2"])?.succeeded();
    for part in ["long", "brief", LONG, "5000 in 5", "held"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    for none in [&["--orphaned"][..], &["--merchant", "long", "--currency", "EUR"], &["--merchant", "other"]] {
        assert_eq!(list(none)?.code, Some(3), "{none:?}");
    }

    let text = run(&env[..1], &["inspect", "account", "long", "USD"])?.succeeded();
    assert!(text.contains("1 outstanding: 5000 in 5 transactions left, 0 orphaned"), "{text}");
    let shown = run(&env[..1], &["inspect", "account", "long", "USD", "--json"])?.succeeded();
    let shown: Value = serde_json::from_str(&shown)?;
    let expected = json!({"outstanding": 1, "left_amount": 5000, "left_count": 5, "orphaned": 0});
    assert_eq!(shown["rights"], expected, "{shown}");

    let release = |right_id: &str, merchant: &str, more: &[&str]| {
        let arguments = ["rights", "release", right_id, "--merchant", merchant, "--currency", "USD"];
        run(&env, &[&arguments[..], more].concat())
    };
    assert_eq!(release(LONG, "long", &[])?.code, Some(2), "a reason is needed");
    assert_eq!(release("5c1f", "long", &["--reason", "r"])?.code, Some(2), "not a UUID");
    let refused = release(LONG, "long", &["--reason", "r"])?;
    assert!(refused.code == Some(1) && refused.stderr.contains("RIGHT_IN_USE"), "{refused:?}");
    ended_long_ago(&api.redis, "brief", BRIEF).await?;
    let done = release(BRIEF, "brief", &["--reason", "the proxy was replaced", "--json"])?;
    let done: Value = serde_json::from_str(&done.succeeded())?;
    assert_eq!((&done["amount"], &done["daily_used"], &done["replay"]), (&json!(5000), &json!(100), &json!(false)));
    let again = release(BRIEF, "brief", &["--reason", "again", "--as", "admin:ana"])?.succeeded();
    assert!(again.contains("no such right"), "{again}");
    let text = run(&env[..1], &["inspect", "account", "brief", "USD"])?.succeeded();
    assert!(text.contains("none outstanding"), "{text}");
    Ok(())
}
