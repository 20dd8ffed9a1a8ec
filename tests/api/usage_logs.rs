//! The usage log over the API: every decision, by merchant and by order, and its totals.

use serde_json::{Value, json};
use testkit::api::{Api, Caller, expect};
use testkit::{Result, wait};

use crate::accounts::REPORTED_WITHIN;
use crate::charges::charge;
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("usage_logs::every_decision_is_logged_with_its_figures", figures);
    suite.add("usage_logs::rows_are_found_by_order_and_filtered", filters);
    suite.add("usage_logs::stats_count_decisions", stats);
}

/// A merchant's rows, the newest first, when there are so many.
pub(crate) async fn of_merchant(caller: &Caller, merchant: &str, query: &str, rows: usize) -> Result<Vec<Value>> {
    rows_at(caller, &format!("/usage-logs/merchant/{merchant}{query}"), rows).await
}

/// An order's rows, the newest first, when there are so many.
pub(crate) async fn of_order(caller: &Caller, merchant: &str, order_no: &str, rows: usize) -> Result<Vec<Value>> {
    rows_at(caller, &format!("/usage-logs/order/{order_no}?merchant_id={merchant}"), rows).await
}

async fn rows_at(caller: &Caller, path: &str, rows: usize) -> Result<Vec<Value>> {
    wait::until_async(&format!("{rows} rows of {path}"), REPORTED_WITHIN, || async {
        let page = expect(&caller.get(path).await?, 200, &json!({}));
        let items = page["items"].as_array().cloned().unwrap_or_default();
        Ok(Some(items).filter(|items| items.len() == rows))
    })
    .await
}

async fn figures(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "logged";
    let mut first = charge(m, "1", 5_000);
    first["payment_no"] = "P-1".into();
    first["remarks"] = "by phone".into();
    first["metadata"] = json!({"shop": "Östersund", "items": [1, 2]});
    let consumed = expect(&ana.post("/quotas/consume", &first).await?, 200, &json!({"success": true}));
    let refused = expect(
        &ana.post("/quotas/consume", &charge(m, "2", 1_000_001)).await?,
        403,
        &json!({"code": "ABOVE_SINGLE_MAX"}),
    );
    expect(&ana.post("/quotas/hold", &charge(m, "3", 700)).await?, 200, &json!({"success": true}));
    let settle = json!({"merchant_id": m, "currency": "USD", "order_no": "3", "amount": 600, "capture_no": "c1"});
    expect(&ana.post("/quotas/settle", &settle).await?, 200, &json!({"success": true}));
    let refund = json!({"merchant_id": m, "currency": "USD", "order_no": "1", "amount": 1_000, "refund_no": "r1"});
    let refunded = expect(&ana.post("/quotas/refund", &refund).await?, 200, &json!({"success": true}));
    let rows = of_merchant(&ana, m, "", 5).await?;
    let by = |row: Value| {
        let mut row = row;
        row["merchant_id"] = m.into();
        row["currency"] = "USD".into();
        row["operator_id"] = "ana".into();
        row["operator_type"] = "admin".into();
        row
    };
    let expected = [
        by(
            json!({"action_type": "refund", "refund_no": "r1", "order_no": "1", "amount": 1_000, "code": "APPLIED", "success": true,
            "daily_before": 5_600, "daily_after": 4_600, "daily_refunded_before": 0, "daily_refunded_after": 1_000,
            "event_id": refunded["decision_id"]}),
        ),
        by(
            json!({"action_type": "settle", "capture_no": "c1", "amount": 600, "daily_before": 5_700, "daily_after": 5_600,
            "pending_before": 700, "pending_after": 0, "order_state": "settled", "order_settled": 600}),
        ),
        by(
            json!({"action_type": "hold", "amount": 700, "daily_before": 5_000, "daily_after": 5_700, "pending_after": 700}),
        ),
        by(json!({"action_type": "consume", "order_no": "2", "success": false, "code": "ABOVE_SINGLE_MAX",
            "failure_reason": "ABOVE_SINGLE_MAX", "daily_before": 5_000, "daily_after": 5_000, "event_id": refused["decision_id"]})),
        by(json!({"action_type": "consume", "order_no": "1", "payment_no": "P-1", "amount": 5_000, "success": true,
            "failure_reason": null, "daily_before": 0, "daily_after": 5_000, "monthly_before": 0, "monthly_after": 5_000,
            "yearly_before": 0, "yearly_after": 5_000, "remarks": "by phone", "metadata": {"shop": "Östersund", "items": [1, 2]},
            "event_id": consumed["decision_id"]})),
    ];
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(testkit::api::differences("", row, expected), [""; 0], "{row}");
    }
    Ok(())
}

async fn filters(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "filtered";
    for (order_no, amount) in [("F-1", 500), ("F-2", 600), ("F-3", 99)] {
        ana.post("/quotas/consume", &charge(m, order_no, amount)).await?;
    }
    expect(&ana.post("/quotas/release", &charge(m, "F-1", 500)).await?, 200, &json!({"success": true}));
    let all = of_merchant(&ana, m, "", 4).await?;
    // Two rows may be of one millisecond, so how many are of before is counted.
    let between = all[2]["at"].as_str().unwrap_or_default();
    let later = all.iter().filter(|row| time(row) >= time(&all[2])).count();
    let cases = [
        ("?action=consume".to_owned(), 3),
        ("?action=release".to_owned(), 1),
        ("?success=false".to_owned(), 1),
        ("?code=BELOW_SINGLE_MIN".to_owned(), 1),
        ("?order_no=F-1".to_owned(), 2),
        ("?currency=EUR".to_owned(), 0),
        (format!("?from={between}"), later),
        (format!("?to={between}"), all.len() - later),
    ];
    for (query, rows) in cases {
        of_merchant(&ana, m, &query, rows).await.map_err(|failure| failure.while_doing(&query))?;
    }
    let of_one = of_order(&ana, m, "F-1", 2).await?;
    let actions: Vec<&Value> = of_one.iter().map(|row| &row["action_type"]).collect();
    assert_eq!(actions, ["release", "consume"]);
    // A merchant finds its own order, and not another merchant's of the same number.
    assert_eq!(rows_at(&api.merchant(m)?, "/usage-logs/order/F-1", 2).await?.len(), 2);
    assert_eq!(rows_at(&api.merchant("another")?, "/usage-logs/order/F-1", 0).await?.len(), 0);
    for query in
        ["?action=nonsense", "?code=NONSENSE", "?from=yesterday", "?success=1", "?merchant_id=filtered", "?x=1"]
    {
        expect(&ana.get(&format!("/usage-logs/merchant/{m}{query}")).await?, 400, &json!({"code": "BAD_REQUEST"}));
    }
    Ok(())
}

/// When a row's command was taken.
fn time(row: &Value) -> Option<chrono::DateTime<chrono::FixedOffset>> {
    chrono::DateTime::parse_from_rfc3339(row["at"].as_str()?).ok()
}

async fn stats(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "counted";
    for (order_no, amount) in [("1", 500), ("2", 600), ("3", 99)] {
        ana.post("/quotas/consume", &charge(m, order_no, amount)).await?;
    }
    of_merchant(&ana, m, "", 3).await?;
    let answer = ana.get("/usage-logs/stats?merchant_id=counted").await?;
    let stats = expect(&answer, 200, &json!({"merchant_id": m, "total": 3, "succeeded": 2, "failed": 1}));
    assert_eq!(stats["items"].as_array().map(Vec::len), Some(2), "{stats}");
    Ok(())
}
