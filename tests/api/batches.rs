//! Many operations in one request: each by itself, or all or none.

use serde_json::{Value, json};
use testkit::Result;
use testkit::api::{Api, expect};

use crate::charges::{account, charge};
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("batches::every_operation_has_its_own_answer", each_by_itself);
    suite.add("batches::an_atomic_batch_leaves_nothing_where_one_is_refused", all_or_none);
    suite.add("batches::a_thousand_operations_fit_and_no_more", a_thousand);
}

fn with_action(action: &str, mut body: Value) -> Value {
    body["action"] = action.into();
    body
}

fn consume(merchant: &str, order_no: &str, amount: u64) -> Value {
    with_action("consume", charge(merchant, order_no, amount))
}

async fn each_by_itself(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "batched";
    let of = |action: &str, more: Value| {
        let mut body = with_action(action, json!({"merchant_id": m, "currency": "USD"}));
        body.as_object_mut().into_iter().for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
        body
    };
    let steps = [
        (of("initialize", json!({})), 200, "APPLIED", 0),
        (of("check", json!({"amount": 500})), 200, "ADMITTED", 0),
        (consume(m, "1", 500), 200, "ADMITTED", 500),
        (consume(m, "1", 501), 409, "IDEMPOTENCY_CONFLICT", 0),
        (with_action("hold", charge(m, "2", 700)), 200, "ADMITTED", 1_200),
        (of("settle", json!({"order_no": "2", "amount": 600})), 200, "APPLIED", 1_100),
        (with_action("hold", charge(m, "3", 900)), 200, "ADMITTED", 2_000),
        (of("void", json!({"order_no": "3"})), 200, "VOIDED", 1_100),
        (of("refund", json!({"order_no": "1", "refund_no": "r1", "amount": 100})), 200, "APPLIED", 1_000),
        (of("release", json!({"order_no": "2"})), 200, "APPLIED", 400),
        (
            of("adjust", json!({"counter": "daily_used", "operation": "add", "amount": 1, "reason": "r"})),
            200,
            "APPLIED",
            401,
        ),
        (of("suspend", json!({"reason": "r"})), 200, "APPLIED", 401),
        (consume(m, "4", 500), 403, "SUSPENDED", 0),
        (of("resume", json!({"reason": "r"})), 200, "APPLIED", 401),
        (consume(m, "1", 501), 409, "ORDER_CLOSED", 0),
        (of("void", json!({"order_no": "unknown"})), 404, "ORDER_UNKNOWN", 0),
        (consume("limited-batch", "1", 1_000_001), 403, "ABOVE_SINGLE_MAX", 0),
        (consume("other-batch", "1", 800), 200, "ADMITTED", 800),
        (of("reset", json!({"window": "all", "reason": "r"})), 200, "APPLIED", 0),
    ];
    let operations: Vec<&Value> = steps.iter().map(|(operation, ..)| operation).collect();
    let answer = ana.post("/quotas/batch", &json!({"operations": operations})).await?;
    let body = expect(&answer, 207, &json!({"succeeded": 14, "failed": 5}));
    let results = body["results"].as_array().cloned().unwrap_or_default();
    assert_eq!(results.len(), steps.len());
    for ((operation, status, code, used), result) in steps.iter().zip(&results) {
        let expected = match (*status, operation["action"].as_str()) {
            (200, Some("check")) => json!({"status": 200, "check": {"allowed": true, "code": code}}),
            (200, _) => json!({"status": 200, "operation": {"success": true, "code": code, "daily_used": used}}),
            _ => json!({"status": status, "problem": {"code": code, "status": status}}),
        };
        assert_eq!(testkit::api::differences("", result, &expected), [""; 0], "{operation}: {result}");
    }
    expect(
        &ana.post("/quotas/batch", &json!({"operations": [consume(m, "5", 500)]})).await?,
        200,
        &json!({"failed": 0}),
    );
    Ok(())
}

async fn all_or_none(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "atomic";
    let operations = [consume(m, "1", 500), consume(m, "2", 600), consume(m, "3", 1_000_001), consume(m, "4", 700)];
    let answer = ana.post("/quotas/batch", &json!({"atomic": true, "operations": operations})).await?;
    let codes = ["BATCH_REFUSED", "BATCH_REFUSED", "ABOVE_SINGLE_MAX", "BATCH_REFUSED"];
    let results: Vec<Value> = codes.iter().map(|code| json!({"problem": {"code": code}})).collect();
    let body = answer.json();
    assert_eq!((answer.status, &body["succeeded"], &body["failed"]), (409, &json!(0), &json!(4)), "{body}");
    assert_eq!(testkit::api::differences("", &body["results"], &Value::Array(results)), [""; 0], "{body}");
    assert_eq!(ana.get("/quotas/merchant/atomic").await?.status, 404, "nothing was done");

    let operations = [consume(m, "1", 500), consume(m, "2", 600), consume(m, "4", 700)];
    for replay in [false, true] {
        let answer = ana.post("/quotas/batch", &json!({"atomic": true, "operations": operations})).await?;
        let body = expect(&answer, 200, &json!({"succeeded": 3, "failed": 0}));
        for result in body["results"].as_array().into_iter().flatten() {
            assert_eq!(result["operation"]["replay"], replay, "{result}");
        }
    }
    account(&ana, m, &json!({"daily_used": 1_800, "transactions_today": 3, "version": 3})).await?;
    let of_two = json!({"atomic": true, "operations": [consume(m, "5", 500), consume("atomic-2", "5", 500)]});
    expect(&ana.post("/quotas/batch", &of_two).await?, 400, &json!({"field": "operations[1].merchant_id"}));
    let slip = json!({"operations": [consume(m, "6", 500), consume(m, "7", 0)]});
    expect(
        &ana.post("/quotas/batch", &slip).await?,
        400,
        &json!({"code": "BAD_AMOUNT", "field": "operations[1].amount"}),
    );
    account(&ana, m, &json!({"version": 3})).await
}

async fn a_thousand(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    // Two hundred merchants, who fall into all shards; each one's five orders in their order.
    let operations: Vec<Value> =
        (0..1_000).map(|n| consume(&format!("many-{}", n % 200), &format!("{}", n / 200), 100)).collect();
    let answer = ana.post("/quotas/batch", &json!({"operations": operations})).await?;
    let body = expect(&answer, 200, &json!({"succeeded": 1_000, "failed": 0}));
    for (n, result) in body["results"].as_array().into_iter().flatten().enumerate() {
        let done = &result["operation"];
        let expected = json!({"merchant_id": format!("many-{}", n % 200), "daily_used": 100 * (n / 200 + 1)});
        assert_eq!(testkit::api::differences("", done, &expected), [""; 0], "{n}: {done}");
    }
    let mut more = operations;
    more.push(consume("many-0", "more", 100));
    expect(&ana.post("/quotas/batch", &json!({"operations": more})).await?, 400, &json!({"field": "operations"}));
    account(&ana, "many-0", &json!({"daily_used": 500, "transactions_today": 5})).await
}
