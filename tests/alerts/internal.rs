//! Messages do not go where only the server itself can: by address, by name, or by redirect.

use serde_json::{Value, json};
use testkit::{Result, ensure, ensure_eq};

use crate::bench::{Bench, DAILY_100, all_to, webhook};
use crate::receiver::{Receiver, Reply, redirect, status};

/// What a redirect may not lead to; the port is that of the server which must not be reached.
const FORBIDDEN: [&str; 9] = [
    "http://127.0.0.2:PORT/hook",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:PORT/hook",
    "http://[::ffff:127.0.0.2]:PORT/hook",
    "http://2130706434:PORT/hook",
    "http://0:PORT/hook",
    "//127.0.0.2:PORT/hook",
    "ftp://127.0.0.1/hook",
    "http://user:password@127.0.0.1:PORT/hook",
];

#[tokio::test]
async fn what_is_not_allowed_is_not_reached() -> Result<()> {
    let inside = Receiver::start_at("127.0.0.2:0", |_, _| status(200)).await?;
    let port = inside.base().rsplit(':').next().unwrap_or_default().to_owned();
    let mut channels = vec![webhook("direct", &inside.url())];
    let mut outside = Vec::new();
    for (number, target) in FORBIDDEN.iter().enumerate() {
        let target = target.replace("PORT", &port);
        let receiver = Receiver::start(move |_, _| redirect(307, &target)).await?;
        channels.push(webhook(&format!("redirect-{number}"), &receiver.url()));
        outside.push(receiver);
    }
    let bench = Bench::start(all_to(&channels), &[("SLUICE_ALERT_RETRY_MS", "600000")]).await?;
    bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE outcome = 'failed'", 10).await?;
    ensure_eq!(inside.got().len(), 0);
    for receiver in &outside {
        ensure_eq!(receiver.got().len(), 1);
    }
    let errors = bench
        .rows("SELECT channel_id, error FROM alert_delivery JOIN alert_message USING (message_id) ORDER BY channel_id")
        .await?;
    let errors: Vec<&str> = errors.as_array().into_iter().flatten().filter_map(|row| row["error"].as_str()).collect();
    let named = |words: &str| errors.iter().filter(|error| error.contains(words)).count();
    ensure_eq!(
        (named("SLUICE_ALERT_ALLOW_NETWORKS"), named("leads to a URL that cannot be used")),
        (8, 2),
        "{errors:#?}"
    );
    ensure_eq!(named("password"), 0, "{errors:#?}");
    Ok(())
}

#[tokio::test]
async fn merchants_do_not_reach_the_operators_networks_nor_learn_their_addresses() -> Result<()> {
    let inside = Receiver::start(|_, _| Reply::Whole(200, String::new(), "inside".to_owned())).await?;
    let named = inside.url().replace("127.0.0.1", "localhost");
    let loopback = "127.0.0.0/8,::1/128";
    let env = [("SLUICE_ALERT_ALLOW_NETWORKS", loopback), ("SLUICE_ALERT_MERCHANT_NETWORKS", "")];
    let bench = Bench::start(all_to(&[webhook("ops", &named)]), &env).await?;
    bench.set("merchant:M-1", all_to(&[webhook("own", &named)])).await?;
    bench.raise(DAILY_100).await?;
    let sent = "SELECT count(*) FROM alert_message WHERE state = 'sent' AND scope = 'operators'";
    bench.wait_for(sent, 1).await?;
    let refused = "SELECT count(DISTINCT message_id) FROM alert_delivery WHERE outcome = 'failed'";
    bench.wait_for(refused, 1).await?;
    ensure_eq!(inside.got().len(), 1);
    let tries = bench.rows("SELECT DISTINCT error, response FROM alert_delivery WHERE outcome = 'failed'").await?;
    let error = "localhost is not on the public internet: allow its address by SLUICE_ALERT_MERCHANT_NETWORKS";
    ensure_eq!(tries, json!([{"error": error, "response": null}]));
    let says = |line: &Value| {
        line.to_string().contains("SLUICE_ALERT_MERCHANT_NETWORKS") && line.to_string().contains("address")
    };
    // Operators find the address in the log.
    bench.server.logged(says).map(drop)
}

#[tokio::test]
async fn redirects_are_followed_three_times_with_the_same_message() -> Result<()> {
    let last = Receiver::start(|_, _| status(200)).await?;
    let hop = |target: String| Receiver::start(move |number, _| redirect([301, 302, 307, 308][number % 4], &target));
    let third = hop(last.url()).await?;
    let second = hop(third.url()).await?;
    let first = hop(second.url()).await?;
    let before = hop(first.url()).await?;
    let channels = [webhook("three", &first.url()), webhook("four", &before.url())];
    let bench = Bench::start(all_to(&channels), &[("SLUICE_ALERT_RETRY_MS", "600000")]).await?;
    bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery", 2).await?;
    let got = last.got();
    ensure_eq!(got.len(), 1);
    let sent = bench.rows("SELECT message_id FROM alert_message WHERE state = 'sent' AND channel_id = 'three'").await?;
    ensure_eq!(sent[0]["message_id"], Value::from(got[0].header("webhook-id")));
    ensure!(got[0].line.starts_with("POST ") && got[0].json()["type"] == "quota_alert.raised", "{got:?}");
    let many = "SELECT count(*) FROM alert_delivery WHERE outcome = 'failed' AND error LIKE '%one too many'";
    ensure_eq!(bench.count(many).await?, 1);
    Ok(())
}
