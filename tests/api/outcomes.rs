//! Unknown outcomes: what the proxy reports is listed, and settled by the gateway's later word or by hand.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, Caller, expect};
use testkit::checks::ask;
use testkit::{Result, wait};

use crate::suite::Suite;

/// The journal stores what was reported.
const STORED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn add(suite: &mut Suite) {
    suite.add("outcomes::x2_an_unknown_charge_is_listed_and_resolved_by_hand", charges_by_hand);
    suite.add("outcomes::x2_unknown_captures_refunds_and_voids_are_resolved_by_hand", operations_by_hand);
    suite.add("outcomes::x2_a_retry_or_a_later_operation_settles_it", settled_later);
    suite.add("outcomes::what_is_no_request_is_refused", no_requests);
}

/// A check of 5.00 by an attempt, with more fields.
async fn check(
    api: &Api,
    merchant: &str,
    order: &str,
    action: &str,
    attempt: &str,
    more: &[(&str, &str)],
) -> Result<String> {
    let mut fields = vec![
        ("action", action),
        ("merchant", merchant),
        ("currency", "USD"),
        ("order_no", order),
        ("attempt", attempt),
        ("amount_minor", "500"),
    ];
    fields.retain(|(name, _)| !more.iter().any(|(own, _)| own == name));
    fields.extend(more.iter().copied().filter(|(_, value)| !value.is_empty()));
    ask(api.server.grpc_address(), &fields).await
}

/// The merchant's unknown outcomes, once there are so many.
async fn listed(caller: &Caller, merchant: &str, count: usize) -> Result<Vec<Value>> {
    let path = format!("/outcomes/unknown?merchant_id={merchant}");
    wait::until_async(&format!("{count} unknown outcomes of {merchant}"), STORED_WITHIN, || async {
        let body = expect(&caller.get(&path).await?, 200, &json!({}));
        let items = body["items"].as_array().cloned().unwrap_or_default();
        Ok((items.len() == count).then_some(items))
    })
    .await
}

async fn resolved(caller: &Caller, item: &Value, outcome: &str) -> Result<Value> {
    let path = format!("/outcomes/{}/resolve", item["outcome_id"].as_str().unwrap_or_default());
    let body = json!({"outcome": outcome, "reason": "asked the gateway"});
    let answer = caller.post(&path, &body).await?;
    Ok(expect(&answer, 200, &json!({"outcome": {"resolution": outcome, "note": "asked the gateway"}})))
}

async fn used(caller: &Caller, merchant: &str) -> Result<(Value, Value)> {
    let account = caller.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?.json();
    Ok((account["daily_used"].clone(), account["pending_amount"].clone()))
}

async fn charges_by_hand(api: &Api) -> Result<()> {
    let (ana, m) = (api.admin()?, "unknown-charges");
    for order in ["1", "2"] {
        assert_eq!(check(api, m, order, "consume", "a", &[]).await?, "ADMITTED");
        // Reported again, it is one outcome.
        for _ in 0..2 {
            let said = [("outcome_of", "consume"), ("reason", "status_503")];
            assert_eq!(check(api, m, order, "unknown", "a", &said).await?, "APPLIED");
        }
    }
    assert_eq!(check(api, m, "none", "unknown", "a", &[("outcome_of", "consume")]).await?, "ORDER_UNKNOWN");
    let items = listed(&ana, m, 2).await?;
    let first = json!({"merchant_id": m, "currency": "USD", "order_no": "1", "operation": "consume", "amount": 500,
        "reason": "status_503", "resolved_at": null});
    assert!(testkit::api::differences("", &items[0], &first).is_empty(), "{items:?}");
    // A merchant sees its own, and resolves none.
    assert_eq!(listed(&api.merchant(m)?, m, 2).await?.len(), 2);
    let other = api.merchant("unknown-other")?;
    assert_eq!(other.get(&format!("/outcomes/unknown?merchant_id={m}")).await?.status, 403);
    let path = format!("/outcomes/{}/resolve", items[0]["outcome_id"].as_str().unwrap_or_default());
    let body = json!({"outcome": "made", "reason": "x"});
    assert_eq!(api.merchant(m)?.post(&path, &body).await?.status, 403);
    assert_eq!(used(&ana, m).await?, (json!(1000), json!(0)));

    let answer = resolved(&ana, &items[0], "not_made").await?;
    assert_eq!(answer["operation"]["code"], "VOIDED", "{answer}");
    assert_eq!(answer["outcome"]["resolved_by"], "ana", "{answer}");
    assert_eq!(used(&ana, m).await?, (json!(500), json!(0)));
    let again = resolved(&ana, &items[0], "not_made").await?;
    assert_eq!(again["outcome"], answer["outcome"]);
    assert_eq!(ana.post(&path, &body).await?.status, 409);
    // The order may be charged again, and is then another outcome.
    assert_eq!(check(api, m, "1", "consume", "b", &[]).await?, "ADMITTED");
    assert_eq!(
        check(api, m, "1", "unknown", "b", &[("outcome_of", "consume"), ("reason", "flag_UC")]).await?,
        "APPLIED"
    );
    let items = listed(&ana, m, 2).await?;
    assert_eq!((&items[1]["order_no"], &items[1]["reason"]), (&json!("1"), &json!("flag_UC")));

    let answer = resolved(&ana, &items[0], "made").await?;
    assert_eq!(answer["operation"]["code"], "APPLIED", "{answer}");
    assert_eq!(used(&ana, m).await?, (json!(1000), json!(0)));
    assert_eq!(listed(&ana, m, 1).await?, items[1..]);
    let all = ana.get(&format!("/outcomes/unknown?merchant_id={m}&resolved=true&limit=2")).await?.json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2), "{all}");
    assert!(all["next_cursor"].is_string(), "{all}");
    let counted =
        api.server.metric("sluice_unknown_outcomes_total", &["operation=\"charge\"", "reason=\"status_5xx\""])?;
    assert!(counted >= 2.0, "{counted}");
    Ok(())
}

async fn operations_by_hand(api: &Api) -> Result<()> {
    let (ana, m) = (api.admin()?, "unknown-operations");
    for order in ["captured", "not-captured", "voided", "not-voided"] {
        assert_eq!(check(api, m, order, "hold", "a", &[]).await?, "ADMITTED");
    }
    assert_eq!(check(api, m, "refunded", "consume", "a", &[]).await?, "ADMITTED");
    assert_eq!(check(api, m, "not-refunded", "consume", "a", &[]).await?, "ADMITTED");
    let capture = [
        ("outcome_of", "settle"),
        ("reason", "status_502"),
        ("operation_no", "c-1"),
        ("final", "0"),
        ("amount_minor", "200"),
    ];
    let void = [("outcome_of", "void_order"), ("reason", "status_502"), ("amount_minor", "")];
    let refund = [("operation_no", "r-1"), ("amount_minor", "300"), ("stage", "reserve")];
    let unrefunded =
        [("outcome_of", "refund"), ("reason", "flag_UT"), ("operation_no", "r-1"), ("amount_minor", "300")];
    for order in ["captured", "not-captured"] {
        assert_eq!(check(api, m, order, "unknown", "b", &capture).await?, "APPLIED");
    }
    for order in ["voided", "not-voided"] {
        assert_eq!(check(api, m, order, "unknown", "b", &void).await?, "APPLIED");
    }
    for order in ["refunded", "not-refunded"] {
        assert_eq!(check(api, m, order, "refund", "b", &refund).await?, "APPLIED");
        // Tried again by another attempt, which takes the reservation over.
        assert_eq!(check(api, m, order, "refund", "c", &refund).await?, "APPLIED");
        assert_eq!(check(api, m, order, "unknown", "b", &unrefunded).await?, "APPLIED");
        assert_eq!(check(api, m, order, "unknown", "c", &unrefunded).await?, "APPLIED");
    }
    let items = listed(&ana, m, 6).await?;
    let of = |order: &str| items.iter().find(|item| item["order_no"] == order).cloned().unwrap_or_default();
    assert_eq!((&of("captured")["operation"], &of("captured")["operation_no"]), (&json!("settle"), &json!("c-1")));
    assert_eq!(used(&ana, m).await?, (json!(3000), json!(2000)));
    // What is done, and the day's use and what is pending after it.
    for (order, outcome, code, used_then) in [
        ("captured", "made", json!("APPLIED"), (3000, 1800)),
        ("not-captured", "not_made", Value::Null, (3000, 1800)),
        ("voided", "made", json!("VOIDED"), (2500, 1300)),
        ("not-voided", "not_made", Value::Null, (2500, 1300)),
        ("refunded", "made", json!("APPLIED"), (2200, 1300)),
        ("not-refunded", "not_made", json!("APPLIED"), (2200, 1300)),
    ] {
        let answer = resolved(&ana, &of(order), outcome).await?;
        assert_eq!(answer["operation"]["code"], code, "{order}: {answer}");
        assert_eq!(used(&ana, m).await?, (json!(used_then.0), json!(used_then.1)), "{order}");
        resolved(&ana, &of(order), outcome).await?;
    }
    listed(&ana, m, 0).await.map(drop)
}

/// By the proxy's next words, and by what callers do through the API.
async fn settled_later(api: &Api) -> Result<()> {
    let (ana, m) = (api.admin()?, "unknown-later");
    let left_open = [("outcome_of", "hold"), ("reason", "retried")];
    let orders = ["retried", "captured", "voided", "released", "refused"];
    for order in orders {
        assert_eq!(check(api, m, order, "hold", "a", &[]).await?, "ADMITTED");
        assert_eq!(check(api, m, order, "unknown", "a", &left_open).await?, "APPLIED");
    }
    listed(&ana, m, orders.len()).await?;
    // The retry of one succeeds, that of another is refused, which says nothing of the first attempt.
    for order in ["retried", "refused"] {
        assert_eq!(check(api, m, order, "hold", "b", &[]).await?, "ADMITTED");
    }
    assert_eq!(check(api, m, "retried", "made", "b", &[]).await?, "APPLIED");
    assert_eq!(check(api, m, "refused", "void", "b", &[]).await?, "ATTEMPT_RELEASED");
    assert_eq!(check(api, m, "captured", "settle", "c", &[("amount_minor", "")]).await?, "APPLIED");
    assert_eq!(check(api, m, "voided", "void_order", "d", &[("amount_minor", "")]).await?, "VOIDED");
    let order = json!({"merchant_id": m, "currency": "USD", "order_no": "released"});
    expect(&ana.post("/quotas/release", &order).await?, 200, &json!({"success": true}));
    let open = listed(&ana, m, 1).await?;
    assert_eq!(open[0]["order_no"], "refused");
    let all = ana.get(&format!("/outcomes/unknown?merchant_id={m}&resolved=true")).await?.json();
    let closed = |order: &str| {
        let mut items = all["items"].as_array().into_iter().flatten();
        let item = items.find(|item| item["order_no"] == order).cloned().unwrap_or_default();
        (item["resolution"].clone(), item["resolved_by"].clone())
    };
    assert_eq!(closed("retried"), (json!("made"), json!("proxy")));
    assert_eq!(closed("captured"), (json!("made"), json!("proxy")));
    assert_eq!(closed("voided"), (json!("made"), json!("proxy")));
    assert_eq!(closed("released"), (json!("not_made"), json!("ana")));
    // A report that comes late reports nothing.
    assert_eq!(check(api, m, "retried", "unknown", "a", &left_open).await?, "APPLIED");
    listed(&ana, m, 1).await.map(drop)
}

async fn no_requests(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    for (query, field) in [
        ("operation=pay", "operation"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
        ("older_than_secs=999999999", "older_than_secs"),
    ] {
        let answer = ana.get(&format!("/outcomes/unknown?{query}")).await?;
        assert_eq!(answer.status, 400, "{query}");
        assert!(String::from_utf8_lossy(&answer.body).contains(field), "{query}");
    }
    let path = "/outcomes/0193f0e4-7b1c-7f00-8000-000000000001/resolve";
    for body in [
        json!({"outcome": "made"}),
        json!({"outcome": "perhaps", "reason": "x"}),
        json!({"outcome": "made", "reason": " "}),
    ] {
        assert_eq!(ana.post(path, &body).await?.status, 400, "{body}");
    }
    let sound = json!({"outcome": "made", "reason": "x"});
    assert_eq!(ana.post(path, &sound).await?.status, 404);
    // What is asked of the server without sense is refused whole.
    for fields in [&[("outcome_of", "pay")][..], &[], &[("outcome_of", "refund")]] {
        assert_eq!(check(api, "m", "o", "unknown", "a", fields).await?, "BAD_REQUEST", "{fields:?}");
    }
    Ok(())
}
