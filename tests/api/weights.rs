//! Weights: answers, refusals and the usage log have the amount and what counts of it, and what is returned is what was counted.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, expect};
use testkit::{Result, wait};

use crate::accounts::REPORTED_WITHIN;
use crate::charges::{charge, question};
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("weights::what_counts_stands_beside_the_amount", both_figures);
    suite.add("weights::q4_what_is_returned_is_what_was_counted", what_is_returned);
    suite.add("weights::policies_of_the_api_weigh_payments", policies_of_the_api);
}

fn by_channel(merchant: &str, order_no: &str, amount: u64, channel: &str) -> Value {
    let mut body = charge(merchant, order_no, amount);
    body["channel"] = channel.into();
    body
}

async fn both_figures(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    // (channel, amount, used afterwards, what counts, and why)
    let table = [
        ("card", 101, 127, Some((127, 12_500, 0))),
        ("transfer", 300, 227, Some((100, 3_333, 0))),
        ("voucher", 5_000, 527, Some((300, 0, 300))),
        ("other", 400, 927, None),
    ];
    for (channel, amount, used, weighed) in table {
        let counted = json!(weighed.map(|(counted, ..)| counted));
        let order_no = format!("weighed-{channel}");
        let body = by_channel("weighed", &order_no, amount, channel);
        for replay in [false, true] {
            let members = json!({"amount": amount, "daily_used": used, "replay": replay});
            let answer = expect(&ana.post("/quotas/consume", &body).await?, 200, &members);
            assert_eq!(answer["counted_amount"], counted, "{answer}");
        }
        let row = logged(api, &order_no).await?;
        let figures = [&row["counted_amount"], &row["weight_bp"], &row["units_per_payment"]];
        let (bp, units) = (json!(weighed.map(|(_, bp, _)| bp)), json!(weighed.map(|(.., units)| units)));
        assert_eq!((&row["amount"], figures), (&json!(amount), [&counted, &bp, &units]), "{row}");
    }

    let mut asked = question("weighed", 100);
    asked["channel"] = "transfer".into();
    let answer = json!({"allowed": true, "counted_amount": 34, "remaining_daily": 39, "fits": 2});
    expect(&ana.post("/quotas/check", &asked).await?, 200, &answer);
    let details = json!({"counted_amount": 125});
    let refused = json!({"code": "DAILY_AMOUNT", "details": details, "limit": {"used": 927, "remaining": 73},
        "detail": "The payment counts 125 minor units of USD against the limits."});
    expect(&ana.post("/quotas/consume", &by_channel("weighed", "weighed-refused", 100, "card")).await?, 429, &refused);
    let row = logged(api, "weighed-refused").await?;
    assert_eq!((&row["counted_amount"], &row["failure_details"]), (&json!(125), &details), "{row}");
    Ok(())
}

/// The first row of an order's usage log.
async fn logged(api: &Api, order_no: &str) -> Result<Value> {
    let ana = api.admin()?;
    wait::until_async("the usage log's row", REPORTED_WITHIN, || async {
        let rows = ana.get(&format!("/usage-logs/order/{order_no}")).await?.json();
        Ok(rows["items"].as_array().and_then(|rows| rows.first().cloned()))
    })
    .await
}

async fn what_is_returned(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let merchant = "weighed-returns";
    let refund = |order: &str, number: &str, amount: u64| {
        let mut body = charge(merchant, order, amount);
        body["refund_no"] = number.into();
        body
    };
    expect(
        &ana.post("/quotas/consume", &by_channel(merchant, "a", 301, "transfer")).await?,
        200,
        &json!({"daily_used": 101}),
    );
    let returned = json!({"amount": 101, "counted_amount": 34, "daily_used": 67});
    expect(&ana.post("/quotas/refund", &refund("a", "r1", 101)).await?, 200, &returned);
    let returned = json!({"amount": 200, "counted_amount": 67, "daily_used": 0});
    expect(&ana.post("/quotas/refund", &refund("a", "r2", 200)).await?, 200, &returned);

    expect(
        &ana.post("/quotas/consume", &by_channel(merchant, "b", 500, "voucher")).await?,
        200,
        &json!({"daily_used": 300}),
    );
    let returned = json!({"amount": 499, "counted_amount": 0, "daily_used": 300});
    expect(&ana.post("/quotas/refund", &refund("b", "r1", 499)).await?, 200, &returned);
    let returned = json!({"amount": 1, "counted_amount": 300, "daily_used": 0});
    expect(&ana.post("/quotas/refund", &refund("b", "r2", 1)).await?, 200, &returned);

    let held = json!({"counted_amount": 125, "daily_used": 125, "pending_amount": 125});
    expect(&ana.post("/quotas/hold", &by_channel(merchant, "c", 100, "card")).await?, 200, &held);
    let mut capture = charge(merchant, "c", 60);
    (capture["capture_no"], capture["final"]) = ("1".into(), true.into());
    let captured = json!({"amount": 60, "counted_amount": 75, "daily_used": 75, "pending_amount": 0});
    expect(&ana.post("/quotas/settle", &capture).await?, 200, &captured);
    Ok(())
}

async fn policies_of_the_api(api: &Api) -> Result<()> {
    let (ana, boss) = (api.admin()?, api.caller(json!({"sub": "boss", "role": "admin"}))?);
    let draft = |members: Value| {
        let mut policy = json!({"merchant_id": "weighed-in-postgres", "channel": "card"});
        policy
            .as_object_mut()
            .into_iter()
            .for_each(|policy| policy.extend(members.as_object().cloned().unwrap_or_default()));
        json!({"policy": policy, "reason": "a new contract"})
    };
    for (members, field) in [
        (json!({"weight_bp": 1_000_001}), "weight_bp"),
        (json!({"units_per_payment": 9_007_199_254_740_992_u64}), "units_per_payment"),
        (json!({"weight_bp": 5_000, "units_per_payment": 1}), "units_per_payment"),
    ] {
        let problem =
            expect(&ana.post("/limit-policies", &draft(members)).await?, 400, &json!({"code": "BAD_REQUEST"}));
        assert!(problem["field"].as_str().is_some_and(|name| name.ends_with(field)), "{field}: {problem}");
    }
    let made = ana.post("/limit-policies", &draft(json!({"units_per_payment": 25}))).await?;
    let made = expect(&made, 201, &json!({"units_per_payment": 25, "weight_bp": null}));
    let path = format!("/limit-policies/{}", made["policy_id"].as_str().unwrap_or_default());
    let why = json!({"reason": "as agreed"});
    for step in ["approve", "activate"] {
        expect(&boss.post(&format!("{path}/{step}"), &why).await?, 200, &json!({}));
    }
    wait::until_async("the policy in force", Duration::from_secs(10), || async {
        let asked = "/limit-policies/effective?merchant_id=weighed-in-postgres&channel=card";
        let policy = ana.get(asked).await?.json();
        Ok((policy["units_per_payment"] == 25 && policy["weight_bp"].is_null()).then_some(()))
    })
    .await?;
    let counted = json!({"counted_amount": 25, "daily_used": 25});
    expect(&ana.post("/quotas/consume", &by_channel("weighed-in-postgres", "1", 700, "card")).await?, 200, &counted);
    let other = ana.get("/limit-policies/effective?merchant_id=weighed-in-postgres&channel=wallet").await?.json();
    assert_eq!((&other["weight_bp"], &other["units_per_payment"]), (&json!(10_000), &Value::Null), "{other}");
    Ok(())
}
