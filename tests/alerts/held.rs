//! What is held back: by the rate limit, and by routes that gather a digest.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_alerts::notice::Change;
use sluice_alerts::rate::{Allowance, Bound, Counted, Notification, Rate};
use sluice_settings::Secret;
use testkit::redis::Redis;
use testkit::{Result, ensure, ensure_eq};
use uuid::Uuid;

use crate::bench::{Bench, DAILY_80, DAILY_100, Raise, all_to, items, webhook};
use crate::receiver::{Got, Receiver, status};

const MONTHLY_80: Raise = Raise { alert_type: "monthly_80", ..DAILY_80 };
const OTHER_MERCHANT: Raise = Raise { merchant: "M-2", ..DAILY_80 };

fn types(got: &[Got]) -> Vec<Value> {
    got.iter().map(|one| one.json()["type"].clone()).collect()
}

fn notification(number: usize) -> Notification<'static> {
    Notification { alert: Uuid::from_u128(number as u128), change: Change::Raised, channel: "a" }
}

#[tokio::test]
async fn of_64_at_once_as_many_pass_as_may() -> Result<()> {
    const START_MS: i64 = 1_000_000;
    let redis = Redis::start()?;
    let rate = Rate::open(&Secret::new(redis.url()), Duration::from_secs(5))?;
    let bound = Bound { notifications_max: 2, period: Duration::from_secs(600) };
    let counted = Counted { scope: "operators", merchant: "M-1", alert_type: "daily_80" };
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let rate = rate.clone();
            tokio::spawn(async move { (number, rate.take(counted, notification(number), bound, START_MS).await) })
        })
        .collect();
    let mut granted = Vec::new();
    for task in tasks {
        let (number, allowance) = task.await?;
        match allowance? {
            Allowance::Granted => granted.push(number),
            Allowance::Held { until_ms } => ensure_eq!(until_ms, START_MS + 600_000),
        }
    }
    ensure_eq!(granted.len(), 2);
    let other = |channel| Notification { channel, ..notification(granted[0]) };
    let newcomer = notification(1000);
    let ask = |notification, now_ms| rate.take(counted, notification, bound, now_ms);
    // The same change on another channel is no further notification, and neither is a repetition.
    ensure_eq!(ask(other("b"), START_MS + 1).await?, Allowance::Granted);
    ensure_eq!(ask(other("a"), START_MS + 1).await?, Allowance::Granted);
    // What one channel could not send counts as long as the other did.
    rate.give_back(counted, other("a")).await?;
    ensure!(ask(newcomer, START_MS + 2).await? != Allowance::Granted, "a notification that one channel sent counts");
    rate.give_back(counted, other("b")).await?;
    ensure_eq!(ask(newcomer, START_MS + 2).await?, Allowance::Granted);
    // The period slides: the first ones count no more after it, the newcomer does.
    ensure!(ask(notification(1001), START_MS + 599_999).await? != Allowance::Granted, "the period is not over");
    ensure_eq!(ask(notification(1001), START_MS + 600_000).await?, Allowance::Granted);
    ensure_eq!(ask(notification(1002), START_MS + 600_001).await?, Allowance::Held { until_ms: START_MS + 600_002 });
    // Others have their own.
    for counted in [
        Counted { merchant: "M-2", ..counted },
        Counted { alert_type: "daily_100", ..counted },
        Counted { scope: "merchant:M-1", ..counted },
    ] {
        ensure_eq!(rate.take(counted, notification(7), bound, START_MS + 600_001).await?, Allowance::Granted);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_too_much_is_summed_up_and_critical_ones_pass() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let bench =
        Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[("SLUICE_ALERT_RATE_SECS", "3600")]).await?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.raise(DAILY_80).await?);
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held' AND held_by = 'limit'", 3).await?;
    ensure_eq!(receiver.got().len(), 2);
    for passing in [MONTHLY_80, OTHER_MERCHANT, DAILY_100, DAILY_100, DAILY_100] {
        bench.raise(passing).await?;
    }
    receiver.wait(7).await?;
    // The end of an alert that was not sent is held with it.
    let held: Uuid = sqlx::query_scalar("SELECT alert_id FROM alert_message WHERE state = 'held' LIMIT 1")
        .fetch_one(&bench.pool)
        .await?;
    bench.resolve(held).await?;
    bench
        .wait_for("SELECT count(*) FROM alert_message WHERE state = 'held' AND held_by = 'limit' AND attempts = 0", 4)
        .await?;
    ensure_eq!(
        bench
            .count(
                "SELECT count(*) FROM alert_message \
        WHERE state = 'held' AND next_try_at <= now() + interval '59 minutes'"
            )
            .await?,
        0
    );
    // The hour is over.
    bench.sql("UPDATE alert_message SET next_try_at = now() WHERE state = 'held' AND kind = 'resolved'").await?;
    let got = receiver.wait(8).await?;
    let digest = got[7].json();
    ensure_eq!(digest["type"], "quota_alert.digest");
    ensure_eq!((&digest["data"]["count"], &digest["data"]["left_out"]), (&json!(4), &json!(0)));
    let mut changes: Vec<(String, String)> = Vec::new();
    for one in items(&digest["data"]["alerts"]) {
        changes.push((one["change"].to_string(), one["alert_id"].as_str().unwrap_or_default().to_owned()));
    }
    ensure!(changes.contains(&("\"resolved\"".to_owned(), held.to_string())), "{changes:?}");
    ensure_eq!(
        changes
            .iter()
            .filter(|(change, id)| change == "\"raised\"" && ids.iter().any(|one| one.to_string() == *id))
            .count(),
        3
    );
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 12).await?;
    ensure_eq!(
        bench
            .count("SELECT count(*) FROM alert_message AS m JOIN alert_message AS d ON d.message_id = m.digest_id")
            .await?,
        4
    );
    ensure_eq!(receiver.got().len(), 8);
    Ok(())
}

#[tokio::test]
async fn what_could_not_be_sent_does_not_count() -> Result<()> {
    let receiver = Receiver::start(|number, _| status(if number < 2 { 410 } else { 200 })).await?;
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    for _ in 0..2 {
        bench.raise(DAILY_80).await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'dead'", 2).await?;
    for _ in 0..3 {
        bench.raise(DAILY_80).await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held'", 1).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 2).await
}

#[tokio::test]
async fn without_redis_messages_pass() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let mut bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    testkit::Service::kill(&mut bench.redis)?;
    for _ in 0..3 {
        bench.raise(DAILY_80).await?;
    }
    receiver.wait(3).await.map(drop)
}

#[tokio::test]
async fn a_route_may_gather_a_digest() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let channel = webhook("hook", &receiver.url());
    let settings = json!({"channels": [channel], "digest_minutes": 30,
        "routes": [{"channels": ["hook"], "delivery": "digest"}]});
    let bench = Bench::start(settings, &[]).await?;
    let ids = [bench.raise(DAILY_80).await?, bench.raise(DAILY_100).await?];
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held' AND held_by = 'route'", 2).await?;
    bench.sql("UPDATE alert_message SET next_try_at = next_try_at - interval '10 minutes'").await?;
    // What comes later goes along with the first.
    let late = bench.raise(DAILY_80).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held'", 3).await?;
    ensure_eq!(
        bench.count("SELECT count(*) FROM alert_message WHERE next_try_at > now() + interval '20 minutes'").await?,
        0
    );
    ensure_eq!(receiver.got().len(), 0);
    bench.sql("UPDATE alert_message SET next_try_at = now() - interval '1 second'").await?;
    bench.wake().await?;
    let got = receiver.wait(1).await?;
    let data = &got[0].json()["data"];
    let named: Vec<_> = items(&data["alerts"]).iter().map(|one| one["alert_id"].clone()).collect();
    // The gravest comes first.
    ensure_eq!(named, [json!(ids[1]), json!(ids[0]), json!(late)]);
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 4).await?;
    ensure_eq!(types(&receiver.got()), ["quota_alert.digest"]);
    Ok(())
}

#[tokio::test]
async fn what_was_summed_up_and_is_sent_again_can_be_held_again() -> Result<()> {
    // The digest is taken; what is sent again by hand is not, and the limit holds it.
    let receiver = Receiver::start(|number, _| status(if number == 3 { 500 } else { 200 })).await?;
    let env = [("SLUICE_ALERT_RATE_SECS", "3600"), ("SLUICE_ALERT_RETRY_MS", "50")];
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &env).await?;
    for _ in 0..3 {
        bench.raise(DAILY_80).await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held'", 1).await?;
    bench.sql("UPDATE alert_message SET next_try_at = now() WHERE state = 'held'").await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 4).await?;
    let again: Uuid = sqlx::query_scalar("SELECT message_id FROM alert_message WHERE digest_id IS NOT NULL")
        .fetch_one(&bench.pool)
        .await?;
    bench.again(again).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held'", 1).await?;
    bench.sql("UPDATE alert_message SET next_try_at = now() WHERE state = 'held'").await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 5).await?;
    let got = receiver.wait(5).await?;
    ensure_eq!(types(&got)[2..], ["quota_alert.digest", "quota_alert.raised", "quota_alert.digest"]);
    Ok(())
}

#[tokio::test]
async fn an_end_waits_for_the_digest_that_has_its_beginning() -> Result<()> {
    let receiver = Receiver::start(|number, _| status(if number == 0 { 500 } else { 200 })).await?;
    let at_once = all_to(&[webhook("hook", &receiver.url())]);
    let mut later = at_once.clone();
    later["routes"][0]["delivery"] = "digest".into();
    let bench = Bench::start(later, &[("SLUICE_ALERT_RETRY_MS", "600000")]).await?;
    let id = bench.raise(DAILY_80).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held'", 1).await?;
    bench.sql("UPDATE alert_message SET next_try_at = now()").await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE status = 500", 1).await?;
    bench.set("operators", at_once).await?;
    bench.resolve(id).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE kind = 'resolved'", 1).await?;
    // What comes after it is sent, so the end has had its turn.
    bench.raise(OTHER_MERCHANT).await?;
    let got = receiver.wait(2).await?;
    ensure_eq!(types(&got), ["quota_alert.digest", "quota_alert.raised"]);
    bench.sql("UPDATE alert_message SET next_try_at = now() WHERE kind = 'digest'").await?;
    bench.wake().await?;
    let got = receiver.wait(4).await?;
    ensure_eq!(types(&got)[2..], ["quota_alert.digest", "quota_alert.resolved"]);
    Ok(())
}
