//! Who is notified of what: the operators' settings and each merchant's, as they are when it happens.

use serde_json::{Value, json};
use testkit::{Result, ensure_eq};

use crate::bench::{Bench, DAILY_80, DAILY_100, Raise, all_to, webhook};
use crate::receiver::{Got, Receiver, status};

const OTHER_MERCHANT: Raise = Raise { merchant: "M-2", ..DAILY_100 };

fn notified(got: &[Got]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |got: &Got| (text(&got.json()["data"]["merchant_id"]), text(&got.json()["data"]["alert_type"]));
    let mut pairs: Vec<_> = got.iter().map(one).collect();
    pairs.sort();
    pairs
}

#[tokio::test]
async fn each_scope_is_notified_of_what_its_routes_take() -> Result<()> {
    let operators = Receiver::start(|_, _| status(200)).await?;
    let merchant = Receiver::start(|_, _| status(200)).await?;
    let settings = json!({"channels": [webhook("ops", &operators.url())],
        "routes": [{"levels": ["critical"], "resolved": false, "channels": ["ops"]}]});
    let bench = Bench::start(settings, &[]).await?;
    bench.set("merchant:M-1", all_to(&[webhook("own", &merchant.url())])).await?;
    bench.raise(DAILY_80).await?;
    let ended = bench.raise(DAILY_100).await?;
    bench.raise(OTHER_MERCHANT).await?;
    merchant.wait(2).await?;
    operators.wait(2).await?;
    bench.resolve(ended).await?;
    merchant.wait(3).await?;
    let pair = |merchant: &str, alert_type: &str| (merchant.to_owned(), alert_type.to_owned());
    ensure_eq!(notified(&operators.got()), [pair("M-1", "daily_100"), pair("M-2", "daily_100")]);
    let own = [pair("M-1", "daily_100"), pair("M-1", "daily_100"), pair("M-1", "daily_80")];
    ensure_eq!(notified(&merchant.got()), own);
    // Each change of each alert was looked at once, whichever scopes were notified.
    ensure_eq!(bench.count("SELECT count(*) FROM alert_message").await?, 5);
    let unseen = "SELECT count(*) FROM quota_alert \
        WHERE raise_seen_at IS NULL OR (resolved_at IS NOT NULL AND resolve_seen_at IS NULL)";
    ensure_eq!(bench.count(unseen).await?, 0);
    Ok(())
}

#[tokio::test]
async fn new_settings_send_nothing_old_and_a_channel_that_is_gone_ends_its_messages() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(500)).await?;
    let late = Receiver::start(|_, _| status(200)).await?;
    let bench = Bench::start(all_to(&[webhook("first", &receiver.url())]), &[]).await?;
    bench.raise(DAILY_100).await?;
    receiver.wait(1).await?;
    bench.set("operators", all_to(&[webhook("second", &late.url())])).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'dead'", 1).await?;
    let errors = "SELECT count(*) FROM alert_delivery WHERE error LIKE 'the channel is no longer in the settings%'";
    ensure_eq!(bench.count(errors).await?, 1);
    bench.raise(OTHER_MERCHANT).await?;
    let got = late.wait(1).await?;
    ensure_eq!(notified(&got), [("M-2".to_owned(), "daily_100".to_owned())]);
    Ok(())
}

#[tokio::test]
async fn settings_that_cannot_be_read_hold_up_no_other_scope_and_send_when_they_are_mended() -> Result<()> {
    let operators = Receiver::start(|_, _| status(200)).await?;
    let merchant = Receiver::start(|number, _| status(if number == 0 { 500 } else { 200 })).await?;
    let env = [("SLUICE_ALERT_RETRY_MS", "1000")];
    let bench = Bench::start(all_to(&[webhook("ops", &operators.url())]), &env).await?;
    let own = all_to(&[webhook("own", &merchant.url())]);
    bench.set("merchant:M-1", own.clone()).await?;
    bench.raise(DAILY_80).await?;
    // It was not taken at first, and waits when the settings break.
    merchant.wait(1).await?;
    bench.set("merchant:M-1", json!({"channels": "from another time"})).await?;
    let held_up = "SELECT count(*) FROM alert_delivery WHERE error LIKE 'the settings cannot be read%'";
    testkit::wait::until_async("a try that fails", crate::bench::WITHIN, || async {
        Ok((bench.count(held_up).await? > 0).then_some(()))
    })
    .await?;
    for alert in [DAILY_100, OTHER_MERCHANT] {
        bench.raise(alert).await?;
    }
    operators.wait(3).await?;
    ensure_eq!(bench.count("SELECT count(*) FROM quota_alert WHERE raise_seen_at IS NULL").await?, 1);
    bench.set("merchant:M-1", own).await?;
    bench.wake().await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent' AND scope = 'merchant:M-1'", 2).await?;
    bench.wait_for("SELECT count(*) FROM quota_alert WHERE raise_seen_at IS NULL", 0).await?;
    ensure_eq!((operators.got().len(), merchant.got().len()), (3, 3));
    Ok(())
}

/// The whole way: a payment crosses its limit, and a person is notified of it, once, and of its end.
#[tokio::test]
async fn a_payment_that_crosses_is_reported_and_so_is_its_refund() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let api = testkit::api::Api::start(
        &testkit::policies::document(),
        &[("SLUICE_ALERT_MERCHANT_NETWORKS", "127.0.0.1/32")],
    )?;
    let pool = api.postgres.pool().await?;
    sqlx::query(
        "INSERT INTO alert_settings (scope, document, updated_by) VALUES ('merchant:M-1', $1::text::jsonb, 'test')",
    )
    .bind(all_to(&[webhook("own", &receiver.url())]).to_string())
    .execute(&pool)
    .await?;
    let caller = api.operator()?;
    let payment = |order: &str, amount: u64| json!({"merchant_id": "M-1", "order_no": order, "amount": amount, "currency": "USD"});
    for (order, amount) in [("O-1", 7_000), ("O-2", 5_001), ("O-3", 500)] {
        testkit::api::expect(
            &caller.post("/quotas/consume", &payment(order, amount)).await?,
            200,
            &json!({"success": true}),
        );
    }
    let raised = receiver.wait(1).await?[0].json();
    ensure_eq!((&raised["type"], &raised["data"]["alert_type"]), (&json!("quota_alert.raised"), &json!("daily_80")));
    ensure_eq!(raised["data"]["current_used"], 12_001);
    let mut refund = payment("O-1", 7_000);
    refund["refund_no"] = "R-1".into();
    testkit::api::expect(&caller.post("/quotas/refund", &refund).await?, 200, &json!({"success": true}));
    let got = receiver.wait(2).await?;
    let resolved = got[1].json();
    ensure_eq!(
        (&resolved["type"], &resolved["data"]["alert_id"]),
        (&json!("quota_alert.resolved"), &raised["data"]["alert_id"])
    );
    ensure_eq!(resolved["data"]["resolve_reason"], "refund");
    Ok(())
}
