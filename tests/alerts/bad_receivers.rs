//! Receivers that fail, hang, answer slowly or never end: each costs its own messages only.

use std::time::Duration;

use serde_json::json;
use testkit::{Result, ensure, ensure_eq};

use crate::bench::{Bench, DAILY_100, all_to, items, webhook};
use crate::receiver::{Receiver, Reply, status};

#[tokio::test]
async fn a_message_is_tried_until_it_is_taken_under_one_id() -> Result<()> {
    let replies = |number| match number {
        0 => status(500),
        1 => Reply::HangUp,
        2 => Reply::Drip,
        3 => Reply::Flood,
        4 => status(400),
        5 => Reply::Hang,
        _ => Reply::DripBody,
    };
    let receiver = Receiver::start(move |number, _| replies(number)).await?;
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    bench.raise(DAILY_100).await?;
    let got = receiver.wait(7).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 1).await?;
    ensure!(got.iter().all(|one| one.header("webhook-id") == got[0].header("webhook-id")), "{got:?}");
    ensure!(got.iter().all(|one| one.body == got[0].body), "{got:?}");
    let tries = bench
        .rows(
            "SELECT attempt, outcome, status, error, next_try_at IS NOT NULL AS again FROM alert_delivery \
        ORDER BY attempt",
        )
        .await?;
    let tries = items(&tries);
    let expected = [
        ("failed", Some(500), "status 500"),
        ("failed", None, "127.0.0.1:"),
        ("failed", None, "no answer within 1500 ms"),
        ("failed", None, "127.0.0.1:"),
        ("failed", Some(400), "status 400"),
        ("failed", None, "no answer within 1500 ms"),
        ("sent", Some(200), ""),
    ];
    ensure_eq!(tries.len(), expected.len(), "{tries:#?}");
    for (number, (found, (outcome, status, error))) in tries.iter().zip(expected).enumerate() {
        let again = outcome == "failed";
        let is = (&found["attempt"], &found["outcome"], &found["status"], &found["again"]);
        ensure_eq!(is, (&json!(number + 1), &json!(outcome), &json!(status), &json!(again)), "{found}");
        ensure!(found["error"].as_str().unwrap_or_default().contains(error), "{found}");
    }
    Ok(())
}

#[tokio::test]
async fn one_that_hangs_holds_up_no_other() -> Result<()> {
    let hangs = Receiver::start(|_, _| Reply::Hang).await?;
    let takes = Receiver::start(|_, _| status(200)).await?;
    let channels = [webhook("hangs", &hangs.url()), webhook("takes", &takes.url())];
    let bench = Bench::start(all_to(&channels), &[("SLUICE_ALERT_TIMEOUT_MS", "60000")]).await?;
    for _ in 0..5 {
        bench.raise(DAILY_100).await?;
    }
    takes.wait(5).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent' AND channel_id = 'takes'", 5).await?;
    // The others are still at their first try, and no more than a channel's share of them.
    ensure_eq!(hangs.wait(2).await?.len(), 2);
    ensure_eq!(
        bench
            .count(
                "SELECT count(*) FROM alert_delivery AS d JOIN alert_message USING (message_id) \
        WHERE channel_id = 'hangs'"
            )
            .await?,
        0
    );
    Ok(())
}

#[tokio::test]
async fn who_is_gone_for_good_is_asked_no_more() -> Result<()> {
    let receiver = Receiver::start(|_, _| Reply::Whole(410, String::new(), "never again".to_owned())).await?;
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'dead' AND ended_at IS NOT NULL", 1).await?;
    let tries = bench.rows("SELECT outcome, status, response, next_try_at FROM alert_delivery").await?;
    let expected = json!([{"outcome": "failed", "status": 410, "response": "never again", "next_try_at": null}]);
    ensure_eq!(tries, expected);
    ensure_eq!(bench.server.metric("sluice_alert_messages_dead_total", &["channel=\"webhook\""])?, 1.0);
    Ok(())
}

#[tokio::test]
async fn who_names_a_time_is_not_asked_before() -> Result<()> {
    let date = (chrono::Utc::now() + Duration::from_secs(7200)).format("%a, %d %b %Y %H:%M:%S GMT");
    let later = [format!("retry-after: {date}\r\n"), "retry-after: 1800\r\n".to_owned()];
    let receiver = Receiver::start(move |number, _| match later.get(number) {
        Some(header) => Reply::Whole(503, header.clone(), String::new()),
        None => status(200),
    })
    .await?;
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    bench.raise(DAILY_100).await?;
    let put_off = [
        // An hour of it is heeded, so that no message has only one try.
        "SELECT count(*) FROM alert_message \
            WHERE attempts = 1 AND next_try_at BETWEEN now() + interval '50 minutes' AND now() + interval '61 minutes'",
        "SELECT count(*) FROM alert_message \
            WHERE attempts = 2 AND next_try_at BETWEEN now() + interval '25 minutes' AND now() + interval '31 minutes'",
    ];
    for query in put_off {
        bench.wait_for(query, 1).await?;
        bench.sql("UPDATE alert_message SET next_try_at = now()").await?;
        bench.wake().await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent' AND attempts = 3", 1).await?;
    Ok(())
}

#[tokio::test]
async fn after_its_time_a_message_is_dead_until_a_caller_asks_for_it() -> Result<()> {
    let receiver = Receiver::start(|number, _| status(if number < 3 { 500 } else { 200 })).await?;
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[("SLUICE_ALERT_RETRY_MS", "1000")]).await?;
    let alert = bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE next_try_at IS NOT NULL", 1).await?;
    // It has been tried often, and now ends with its day after one more.
    bench
        .sql("UPDATE alert_message SET attempts = 20, next_try_at = now(), give_up_at = now() + interval '5 seconds'")
        .await?;
    bench.wake().await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'dead' AND attempts = 21", 1).await?;
    let message = bench.rows("SELECT message_id FROM alert_message").await?;
    let message: uuid::Uuid = serde_json::from_value(message[0]["message_id"].clone())?;
    bench.again(message).await?;
    // The waits begin anew: another would be an hour at least.
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent' AND by_hand IS NULL", 1).await?;
    let tries = bench.rows("SELECT attempt, outcome, by_hand FROM alert_delivery ORDER BY attempt").await?;
    let row = |attempt: u32, outcome: &str, by_hand: Option<&str>| json!({"attempt": attempt, "outcome": outcome, "by_hand": by_hand});
    let expected =
        [row(1, "failed", None), row(21, "failed", None), row(22, "failed", Some("ana")), row(23, "sent", None)];
    ensure_eq!(tries, json!(expected), "{alert}");
    let got = receiver.got();
    ensure!(got.iter().all(|one| one.header("webhook-id") == got[0].header("webhook-id")), "{got:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_overdue_is_given_up_without_a_try() -> Result<()> {
    let hangs = Receiver::start(|_, _| Reply::Hang).await?;
    let channel = webhook("hangs", &hangs.url());
    let bench = Bench::start(all_to(&[channel]), &[("SLUICE_ALERT_TIMEOUT_MS", "60000")]).await?;
    for _ in 0..2 {
        bench.raise(DAILY_100).await?;
    }
    hangs.wait(2).await?;
    for _ in 0..10 {
        bench.raise(DAILY_100).await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE attempts = 0", 10).await?;
    bench.sql("UPDATE alert_message SET give_up_at = now()").await?;
    bench.wake().await?;
    let dead = "SELECT count(*) FROM alert_message WHERE state = 'dead' AND attempts = 0 AND ended_at IS NOT NULL";
    bench.wait_for(dead, 10).await?;
    // The two under way have their try.
    ensure_eq!(bench.count("SELECT count(*) FROM alert_message WHERE state = 'pending' AND attempts = 1").await?, 2);
    ensure_eq!(bench.server.metric("sluice_alert_messages_dead_total", &["channel=\"webhook\""])?, 10.0);
    Ok(())
}

#[tokio::test]
async fn a_merchants_receivers_have_a_share_of_the_tries() -> Result<()> {
    let hangs = Receiver::start(|_, _| Reply::Hang).await?;
    let takes = Receiver::start(|_, _| status(200)).await?;
    let env = [("SLUICE_ALERT_TIMEOUT_MS", "60000")];
    let bench = Bench::start(all_to(&[webhook("takes", &takes.url())]), &env).await?;
    let hanging: Vec<_> = (0..10).map(|number| webhook(&format!("hangs-{number}"), &hangs.url())).collect();
    bench.set("merchant:M-1", all_to(&hanging)).await?;
    for number in 1..=3 {
        bench.raise(DAILY_100).await?;
        takes.wait(number).await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 3).await?;
    ensure_eq!(hangs.wait(8).await?.len(), 8);
    ensure_eq!(bench.count("SELECT count(*) FROM alert_message WHERE attempts = 0").await?, 22);
    Ok(())
}
