//! A transfer whose sender has no policy.

use serde_json::json;
use testkit::Result;
use testkit::api::{Api, expect};

const POLICIES: &str = "version: some\nmerchants:\n  with-policy: {timezone: UTC, daily_amount: 1000}\n";

/// No payment of it is admitted, and it gives nothing away: the transfer is refused before it is recorded.
#[tokio::test]
async fn a_sender_without_a_policy_is_refused_at_once() -> Result<()> {
    let api = Api::start(POLICIES, &[])?;
    let (oleg, ana) = (api.operator()?, api.admin()?);
    for merchant in ["with-policy", "without-policy"] {
        let line = json!({"line": {"merchant_id": merchant, "currency": "USD", "limit_base": 1_000}});
        expect(&oleg.post("/credit-lines", &line).await?, 201, &json!({}));
        for step in ["approve", "activate"] {
            let path = format!("/credit-lines/{merchant}/USD/{step}");
            expect(&ana.post(&path, &json!({})).await?, 200, &json!({}));
        }
    }
    let transfer = json!({"transfer_no": "t-1", "from_merchant_id": "without-policy", "to_merchant_id": "with-policy",
        "currency": "USD", "amount": 10});
    let refused = json!({"code": "POLICY_MISSING", "field": "from_merchant_id"});
    expect(&oleg.post("/transfers", &transfer).await?, 403, &refused);
    expect(&oleg.get("/transfers/t-1").await?, 404, &json!({"code": "NOT_FOUND"}));
    Ok(())
}
