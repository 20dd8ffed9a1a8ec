//! Rights that have not ended: listed for who may see their account, and released when they are over.

use serde_json::{Value, json};
use testkit::Result;
use testkit::api::{Api, Caller, expect};
use testkit::checks::ask;
use testkit::rights::ended_long_ago;

use crate::charges::account;
use crate::suite::Suite;

const FIRST: &str = "5c1f0a90-0000-0000-0000-000000000001";
const SECOND: &str = "5c1f0a90-0000-0000-0000-000000000002";
const THIRD: &str = "5c1f0a90-0000-0000-0000-000000000003";
const FOURTH: &str = "5c1f0a90-0000-0000-0000-000000000004";

pub(crate) fn add(suite: &mut Suite) {
    suite.add("rights::each_caller_sees_those_that_it_may", listed);
    suite.add("rights::one_is_released_when_it_is_over", released);
}

/// A payment of 100 whose sender gets a right to five more, of 5000 together. The right has the attempt's id.
async fn granted(api: &Api, merchant: &str, right_id: &str) -> Result<()> {
    let fields = [
        ("action", "consume"),
        ("merchant", merchant),
        ("currency", "USD"),
        ("order_no", right_id),
        ("attempt", &right_id.replace('-', "")),
        ("amount_minor", "100"),
        ("right_wanted", "5 5000"),
    ];
    assert_eq!(ask(api.server.grpc_address(), &fields).await?, "ADMITTED");
    Ok(())
}

async fn items(caller: &Caller, query: &str) -> Result<Vec<Value>> {
    let page = expect(&caller.get(&format!("/rights{query}")).await?, 200, &json!({}));
    Ok(page["items"].as_array().cloned().unwrap_or_default())
}

fn release(merchant: &str, right_id: &str) -> Value {
    json!({"merchant_id": merchant, "currency": "USD", "right_id": right_id, "reason": "a test"})
}

async fn listed(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    for (merchant, right_id) in [("trusted", FIRST), ("trusted-2", SECOND)] {
        granted(api, merchant, right_id).await?;
    }
    let own = items(&oleg, "?merchant_id=trusted").await?;
    let expected = json!({"right_id": FIRST, "merchant_id": "trusted", "currency": "USD", "granted_amount": 5000,
        "granted_count": 5, "left_amount": 5000, "left_count": 5, "orphaned": false});
    assert_eq!(own.len(), 1, "{own:?}");
    let differs = |(name, value): (&String, &Value)| own[0][name] != *value;
    assert!(!expected.as_object().into_iter().flatten().any(differs), "{own:?}");
    let until: chrono::DateTime<chrono::Utc> = own[0]["until"].as_str().unwrap_or_default().parse()?;
    assert!(until > chrono::Utc::now(), "{own:?}");
    assert!(own[0]["day"].as_u64().is_some_and(|day| day > 20_200_000) && own[0]["decision_id"].is_string());
    for (query, expected) in [("currency=USD&orphaned=false&limit=1", 1), ("currency=EUR", 0), ("orphaned=true", 0)] {
        assert_eq!(items(&oleg, &format!("?merchant_id=trusted&{query}")).await?.len(), expected, "{query}");
    }
    // All of them, page by page.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = expect(&oleg.get(&format!("/rights?limit=1{cursor}")).await?, 200, &json!({}));
        let items = page["items"].as_array().cloned().unwrap_or_default();
        assert!(items.len() <= 1, "{page}");
        seen.extend(items.iter().map(|item| item["right_id"].as_str().unwrap_or_default().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    for right_id in [FIRST, SECOND] {
        assert_eq!(seen.iter().filter(|seen| *seen == right_id).count(), 1, "{seen:?}");
    }
    for (query, field) in [
        ("limit=501", "limit"),
        ("limit=0", "limit"),
        ("cursor=e30", "cursor"),
        ("currency=usd", "currency"),
        ("merchant_id=a:b", "merchant_id"),
        ("orphaned=maybe", "orphaned"),
    ] {
        expect(&oleg.get(&format!("/rights?{query}")).await?, 400, &json!({"field": field}));
    }
    // A merchant has its own ones, and may release none.
    let shop = api.merchant("trusted")?;
    assert_eq!(items(&shop, "").await?, own);
    assert_eq!(items(&shop, "?merchant_id=trusted").await?, own);
    let forbidden = json!({"code": "FORBIDDEN"});
    expect(&shop.get("/rights?merchant_id=trusted-2").await?, 403, &forbidden);
    expect(&shop.post("/quotas/release-right", &release("trusted", FIRST)).await?, 403, &forbidden);
    assert_eq!(items(&api.merchant("untrusted")?, "").await?, Vec::<Value>::new());
    Ok(())
}

async fn released(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    granted(api, "trusted-3", FOURTH).await?;
    let in_use = oleg.post("/quotas/release-right", &release("trusted-3", FOURTH)).await?;
    expect(&in_use, 409, &json!({"code": "RIGHT_IN_USE"}));
    account(&oleg, "trusted-3", &json!({"daily_used": 5100, "transactions_today": 6})).await?;

    let m = "briefly-trusted";
    granted(api, m, THIRD).await?;
    account(&oleg, m, &json!({"daily_used": 5100, "transactions_today": 6})).await?;
    let in_use = oleg.post("/quotas/release-right", &release(m, THIRD)).await?;
    expect(&in_use, 409, &json!({"code": "RIGHT_IN_USE"}));
    ended_long_ago(&api.redis, m, THIRD).await?;
    let answer = oleg.post("/quotas/release-right", &release(m, THIRD)).await?;
    let counters = json!({"daily_used": 100, "transactions_today": 1});
    let done = expect(&answer, 200, &json!({"code": "APPLIED", "replay": false, "amount": 5000, "daily_used": 100}));
    account(&oleg, m, &counters).await?;
    assert_eq!(items(&oleg, &format!("?merchant_id={m}")).await?, Vec::<Value>::new());
    // What is not there any more is not given back twice; the same of a right that never was.
    for right_id in [THIRD, SECOND] {
        let answer = oleg.post("/quotas/release-right", &release(m, right_id)).await?;
        expect(&answer, 200, &json!({"code": "APPLIED", "replay": true, "version": done["version"]}));
        account(&oleg, m, &counters).await?;
    }
    let unreadable = oleg.post("/quotas/release-right", &release(m, "5c1f")).await?;
    expect(&unreadable, 400, &json!({"field": "right_id"}));
    Ok(())
}
