//! The worked example of the merchant-quota API, and the examples of docs/api.md as they stand there.

use serde_json::json;
use testkit::Result;
use testkit::api::{Api, expect};

use crate::charges::{charge, question};
use crate::policies;
use crate::readme;
use crate::suite::Suite;

/// What the issue asks the examples to show.
const SHOWN: [&str; 14] = [
    "/limit-policies/effective",
    "/quotas/check",
    "/quotas/consume",
    "/quotas/release",
    "/quotas/hold",
    "/quotas/settle",
    "/quotas/refund",
    "/quotas/adjust",
    "/quotas/reset",
    "/quotas/merchant/",
    "/quotas/stats",
    "/usage-logs/merchant/",
    "/usage-logs/order/",
    "/usage-logs/stats",
];

pub(crate) fn add(suite: &mut Suite) {
    suite.add("example::the_worked_example_of_the_merchant_quota_api", worked_example);
    suite.alone("example::the_documented_examples_work_as_they_are_written", shown);
}

async fn worked_example(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let policy = ana.get("/limit-policies/effective?merchant_id=worked-example").await?;
    expect(&policy, 200, &json!({"daily_limit": 5_000_000, "single_max": 1_000_000}));
    let checked = json!({"allowed": true, "remaining_daily": 4_950_000});
    expect(&ana.post("/quotas/check", &question("worked-example", 50_000)).await?, 200, &checked);
    let body = charge("worked-example", "ORDER-001", 50_000);
    expect(&ana.post("/quotas/consume", &body).await?, 200, &json!({"success": true, "daily_used": 50_000}));
    expect(&ana.post("/quotas/release", &body).await?, 200, &json!({"success": true, "daily_used": 0}));
    Ok(())
}

async fn shown() -> Result<()> {
    let examples = readme::examples(&readme::section()?)?;
    for path in SHOWN {
        assert!(examples.iter().any(|example| example.call.path.starts_with(path)), "docs/api.md does not show {path}");
    }
    // The document's limits are those of the policy document that is shipped.
    let api = Api::start(&policies::shipped()?, &[])?;
    let ana = api.admin()?;
    readme::send(&ana, examples).await
}
