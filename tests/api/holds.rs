//! Holds, captures, voids, refunds and releases.

use serde_json::{Value, json};
use testkit::Result;
use testkit::api::{Api, Caller, expect};

use crate::charges::{account, charge};
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("holds::a_hold_is_captured_in_parts_and_refunded", captured_in_parts);
    suite.add("holds::a_capture_may_exceed_its_hold_by_the_policys_percentage", beyond_the_hold);
    suite.add("holds::an_operation_on_an_order_is_under_its_channels_policy", under_the_channels_policy);
    suite.add("holds::a_void_returns_what_is_held", voids);
    suite.add("holds::a_release_is_a_void_or_a_refund", releases);
    suite.add("holds::an_order_that_was_never_charged_is_unknown", unknown_orders);
    suite.add("holds::a_hold_that_is_due_ends_by_itself", expiry);
    suite.add("holds::a_hold_may_be_extended", extension);
}

/// One operation on an order, with what more it says.
async fn on(
    caller: &Caller,
    operation: &str,
    merchant: &str,
    order_no: &str,
    more: Value,
) -> Result<testkit::client::Answer> {
    let mut body = json!({"merchant_id": merchant, "currency": "USD", "order_no": order_no});
    body.as_object_mut().into_iter().for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
    caller.post(&format!("/quotas/{operation}"), &body).await
}

async fn captured_in_parts(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "in-parts";
    let held = expect(
        &ana.post("/quotas/hold", &charge(m, "1", 10_000)).await?,
        200,
        &json!({"code": "ADMITTED", "daily_used": 10_000, "pending_amount": 10_000,
            "order": {"state": "held", "amount": 10_000, "settled": 0, "refunded": 0}}),
    );
    assert!(held["order"]["hold_until"].is_string(), "{held}");
    expect(
        &on(&ana, "refund", m, "1", json!({"refund_no": "r0", "amount": 1})).await?,
        403,
        &json!({"code": "REFUND_EXCEEDS_ORDER"}),
    );

    let part = json!({"capture_no": "c1", "amount": 3_000, "final": false});
    let first = expect(
        &on(&ana, "settle", m, "1", part.clone()).await?,
        200,
        &json!({"code": "APPLIED", "amount": 3_000, "daily_used": 10_000, "pending_amount": 7_000,
            "order": {"state": "held", "settled": 3_000}}),
    );
    let again =
        expect(&on(&ana, "settle", m, "1", part).await?, 200, &json!({"replay": true, "pending_amount": 7_000}));
    assert_eq!(again["decision_id"], first["decision_id"]);
    let other = json!({"capture_no": "c1", "amount": 3_001, "final": false});
    expect(&on(&ana, "settle", m, "1", other).await?, 409, &json!({"code": "IDEMPOTENCY_CONFLICT"}));
    let refund = json!({"refund_no": "r1", "amount": 1_000});
    expect(
        &on(&ana, "refund", m, "1", refund.clone()).await?,
        200,
        &json!({"daily_used": 9_000, "refunded_today": 1_000, "pending_amount": 7_000, "order": {"refunded": 1_000}}),
    );
    expect(
        &on(&ana, "settle", m, "1", json!({"capture_no": "c2", "amount": 4_000})).await?,
        200,
        &json!({"daily_used": 6_000, "pending_amount": 0, "order": {"state": "settled", "settled": 7_000, "hold_until": null}}),
    );
    expect(&on(&ana, "settle", m, "1", json!({"capture_no": "c3"})).await?, 409, &json!({"code": "ORDER_CLOSED"}));
    expect(&on(&ana, "void", m, "1", json!({})).await?, 409, &json!({"code": "ORDER_CLOSED"}));
    expect(&on(&ana, "refund", m, "1", refund).await?, 200, &json!({"replay": true, "daily_used": 6_000}));
    expect(
        &on(&ana, "refund", m, "1", json!({"refund_no": "r2", "amount": 6_001})).await?,
        403,
        &json!({"code": "REFUND_EXCEEDS_ORDER"}),
    );
    expect(
        &on(&ana, "refund", m, "1", json!({"refund_no": "r2"})).await?,
        200,
        &json!({"amount": 6_000, "daily_used": 0, "refunded_today": 7_000, "refunded_month": 7_000, "refunded_year": 7_000}),
    );
    expect(
        &on(&ana, "refund", m, "1", json!({"refund_no": "r3"})).await?,
        403,
        &json!({"code": "REFUND_EXCEEDS_ORDER"}),
    );
    account(
        &ana,
        m,
        &json!({"daily_used": 0, "monthly_used": 0, "yearly_used": 0, "pending_amount": 0, "transactions_today": 1}),
    )
    .await
}

async fn beyond_the_hold(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "second-thoughts";
    for order_no in ["1", "2"] {
        expect(&ana.post("/quotas/hold", &charge(m, order_no, 10_000)).await?, 200, &json!({"code": "ADMITTED"}));
    }
    expect(
        &on(&ana, "settle", m, "1", json!({"amount": 11_001})).await?,
        403,
        &json!({"code": "CAPTURE_EXCEEDS_HOLD"}),
    );
    account(&ana, m, &json!({"daily_used": 20_000, "pending_amount": 20_000})).await?;
    expect(
        &on(&ana, "settle", m, "1", json!({"amount": 11_000})).await?,
        200,
        &json!({"daily_used": 21_000, "pending_amount": 10_000}),
    );
    expect(
        &on(&ana, "settle", m, "2", json!({})).await?,
        200,
        &json!({"amount": 10_000, "daily_used": 21_000, "pending_amount": 0}),
    );
    Ok(())
}

async fn under_the_channels_policy(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "by-channel";
    let wallet = |mut body: Value| {
        body["channel"] = "wallet".into();
        body
    };
    for order_no in ["1", "2"] {
        let held = ana.post("/quotas/hold", &wallet(charge(m, order_no, 10_000))).await?;
        expect(&held, 200, &json!({"code": "ADMITTED"}));
    }
    let more = json!({"amount": 11_000});
    expect(&on(&ana, "settle", m, "1", more.clone()).await?, 403, &json!({"code": "CAPTURE_EXCEEDS_HOLD"}));
    expect(&on(&ana, "settle", m, "1", wallet(more)).await?, 200, &json!({"code": "APPLIED", "amount": 11_000}));
    for (operation, other) in [
        ("settle", json!({"channel": "no channel"})),
        ("void", json!({"channel": ""})),
        ("release", json!({"channel": "no channel"})),
        ("refund", json!({"channel": "no channel", "refund_no": "r0"})),
    ] {
        expect(&on(&ana, operation, m, "1", other).await?, 400, &json!({"field": "channel"}));
    }
    let returned = |number: &str, amount: u64| json!({"refund_no": number, "amount": amount});
    for operation in ["refund", "release"] {
        let answer = on(&ana, operation, m, "1", wallet(returned("r1", 501))).await?;
        expect(&answer, 429, &json!({"code": "REFUND_DAILY"}));
    }
    expect(&on(&ana, "refund", m, "1", wallet(returned("r1", 300))).await?, 200, &json!({"refunded_today": 300}));
    expect(&on(&ana, "release", m, "1", wallet(returned("r2", 200))).await?, 200, &json!({"refunded_today": 500}));
    let spent = on(&ana, "refund", m, "1", wallet(returned("r3", 1))).await?;
    expect(&spent, 429, &json!({"code": "REFUND_DAILY"}));
    expect(&on(&ana, "refund", m, "1", returned("r3", 600)).await?, 200, &json!({"refunded_today": 1_100}));
    expect(&on(&ana, "void", m, "2", wallet(json!({}))).await?, 200, &json!({"code": "VOIDED"}));
    let logged = crate::usage_logs::of_order(&ana, m, "2", 2).await?;
    assert!(logged.iter().all(|row| row["channel"] == "wallet"), "{logged:?}");
    Ok(())
}

async fn voids(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "voided";
    expect(&ana.post("/quotas/hold", &charge(m, "1", 10_000)).await?, 200, &json!({"pending_amount": 10_000}));
    expect(
        &on(&ana, "void", m, "1", json!({"remarks": "the customer left"})).await?,
        200,
        &json!({"code": "VOIDED", "daily_used": 0, "monthly_used": 0, "pending_amount": 0, "transactions_today": 0,
            "order": {"state": "voided"}}),
    );
    expect(&on(&ana, "void", m, "1", json!({})).await?, 200, &json!({"replay": true, "daily_used": 0}));
    expect(&ana.post("/quotas/hold", &charge(m, "1", 10_000)).await?, 409, &json!({"code": "ORDER_CLOSED"}));
    expect(&on(&ana, "settle", m, "1", json!({})).await?, 409, &json!({"code": "ORDER_CLOSED"}));
    account(&ana, m, &json!({"daily_used": 0, "pending_amount": 0, "refunded_today": 0})).await
}

async fn releases(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "released";
    expect(&ana.post("/quotas/consume", &charge(m, "charged", 5_000)).await?, 200, &json!({"daily_used": 5_000}));
    expect(&ana.post("/quotas/hold", &charge(m, "held", 7_000)).await?, 200, &json!({"daily_used": 12_000}));
    let refunded = json!({"code": "APPLIED", "daily_used": 7_000, "refunded_today": 5_000});
    expect(&ana.post("/quotas/release", &charge(m, "charged", 5_000)).await?, 200, &refunded);
    let voided = json!({"code": "VOIDED", "daily_used": 0, "pending_amount": 0, "refunded_today": 5_000});
    expect(&on(&ana, "release", m, "held", json!({})).await?, 200, &voided);
    for order_no in ["charged", "held"] {
        expect(&on(&ana, "release", m, order_no, json!({})).await?, 200, &json!({"replay": true, "daily_used": 0}));
    }
    // In parts, distinguished by their numbers.
    expect(&ana.post("/quotas/consume", &charge(m, "parts", 5_000)).await?, 200, &json!({"daily_used": 5_000}));
    for (number, amount, used) in [("r1", 2_000, 3_000), ("r2", 3_000, 0)] {
        let part = json!({"refund_no": number, "amount": amount});
        expect(&on(&ana, "release", m, "parts", part).await?, 200, &json!({"daily_used": used, "replay": false}));
    }
    let more = json!({"refund_no": "r3", "amount": 1});
    expect(&on(&ana, "release", m, "parts", more).await?, 403, &json!({"code": "REFUND_EXCEEDS_ORDER"}));
    x5_no_charge_after(&ana, m, &[("charged", 5_000), ("held", 7_000), ("parts", 5_000)]).await?;
    account(&ana, m, &json!({"daily_used": 0, "monthly_used": 0, "yearly_used": 0, "refunded_today": 10_000})).await
}

/// X5: what gave back takes no charge, by itself, in a batch, in one that is done as a whole, and as a question.
async fn x5_no_charge_after(ana: &Caller, m: &str, orders: &[(&str, u64)]) -> Result<()> {
    for (order_no, amount) in orders {
        let closed = json!({"code": "ORDER_CLOSED"});
        for path in ["/quotas/consume", "/quotas/hold"] {
            expect(&ana.post(path, &charge(m, order_no, *amount)).await?, 409, &closed);
        }
        let mut operation = charge(m, order_no, *amount);
        operation["action"] = "consume".into();
        for (atomic, status) in [(false, 207), (true, 409)] {
            let batch = json!({"atomic": atomic, "operations": [operation]});
            let body = ana.post("/quotas/batch", &batch).await?;
            assert_eq!((body.status, &body.json()["results"][0]["problem"]["code"]), (status, &closed["code"]));
        }
    }
    Ok(())
}

async fn unknown_orders(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "forgetful";
    expect(&ana.post("/quotas/consume", &charge(m, "known", 5_000)).await?, 200, &json!({"daily_used": 5_000}));
    for (operation, more) in
        [("settle", json!({})), ("void", json!({})), ("release", json!({})), ("refund", json!({"refund_no": "r"}))]
    {
        let problem = expect(&on(&ana, operation, m, "unknown", more).await?, 404, &json!({"code": "ORDER_UNKNOWN"}));
        assert!(problem["decision_id"].is_string(), "{operation}: {problem}");
    }
    account(&ana, m, &json!({"daily_used": 5_000, "version": 1})).await
}

/// The policy gives holds their time, and the order states when it is over. What happens then is decided by tables that
/// have time as a parameter, and swept in real servers by the journal's tests.
async fn expiry(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let held =
        expect(&ana.post("/quotas/hold", &charge("short-holds", "1", 5_000)).await?, 200, &json!({"code": "ADMITTED"}));
    let until = held["order"]["hold_until"].as_str().unwrap_or_default();
    let until = chrono::DateTime::parse_from_rfc3339(until)?;
    let logged = crate::usage_logs::of_order(&ana, "short-holds", "1", 1).await?;
    let at = chrono::DateTime::parse_from_rfc3339(logged[0]["at"].as_str().unwrap_or_default())?;
    assert_eq!((until - at).num_seconds(), 60 - i64::from(at.timestamp_subsec_millis() > 0), "{held} {logged:?}");
    Ok(())
}

/// An extension moves the end of a hold and nothing else; each is one row of the usage log.
async fn extension(api: &Api) -> Result<()> {
    let ana = api.operator()?;
    let m = "extended";
    let held = expect(&ana.post("/quotas/hold", &charge(m, "1", 5_000)).await?, 200, &json!({"code": "ADMITTED"}));
    let until = chrono::DateTime::parse_from_rfc3339(held["order"]["hold_until"].as_str().unwrap_or_default())?;
    let later = (until + chrono::Duration::days(3)).to_rfc3339();
    let extend = |hold_until: &str| json!({"hold_until": hold_until, "remarks": "delivery is late"});
    let first = expect(
        &on(&ana, "extend-hold", m, "1", extend(&later)).await?,
        200,
        &json!({"code": "APPLIED", "replay": false, "amount": 5_000, "daily_used": 5_000, "pending_amount": 5_000,
            "version": held["version"], "order": {"state": "held"}}),
    );
    let extended = first["order"]["hold_until"].as_str().unwrap_or_default();
    assert_eq!(chrono::DateTime::parse_from_rfc3339(extended)?, until + chrono::Duration::days(3));
    // The same again, and an earlier end, change nothing.
    for hold_until in [&later, &until.to_rfc3339()] {
        expect(
            &on(&ana, "extend-hold", m, "1", extend(hold_until)).await?,
            200,
            &json!({"replay": true, "order": {"hold_until": extended}}),
        );
    }
    let logged = crate::usage_logs::of_order(&ana, m, "1", 2).await?;
    let row = logged.iter().find(|row| row["action_type"] == "extend_hold").unwrap_or(&Value::Null);
    assert_eq!((&row["code"], &row["remarks"]), (&json!("APPLIED"), &json!("delivery is late")), "{logged:?}");

    let over = (chrono::Utc::now() + chrono::Duration::days(401)).to_rfc3339();
    for hold_until in ["2020-01-01T00:00:00Z", &over, "tomorrow"] {
        let problem = on(&ana, "extend-hold", m, "1", extend(hold_until)).await?;
        expect(&problem, 400, &json!({"code": "BAD_REQUEST", "field": "hold_until"}));
    }
    expect(&on(&ana, "void", m, "1", json!({})).await?, 200, &json!({"daily_used": 0}));
    expect(&on(&ana, "extend-hold", m, "1", extend(&later)).await?, 409, &json!({"code": "ORDER_CLOSED"}));
    expect(&on(&ana, "extend-hold", m, "2", extend(&later)).await?, 404, &json!({"code": "ORDER_UNKNOWN"}));
    let atomic = json!({"operations": [
        {"action": "hold", "merchant_id": m, "currency": "USD", "order_no": "3", "amount": 1_000},
        {"action": "extend_hold", "merchant_id": m, "currency": "USD", "order_no": "3", "hold_until": later},
    ], "atomic": true});
    expect(&ana.post("/quotas/batch", &atomic).await?, 200, &json!({"succeeded": 2, "failed": 0}));
    Ok(())
}
