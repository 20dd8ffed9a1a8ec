//! What is old goes, and nothing that is still waited for.

use serde_json::json;
use testkit::{Result, Service, ensure_eq};

use crate::bench::{Bench, DAILY_80, DAILY_100, all_to, webhook};
use crate::receiver::{Receiver, status};

#[tokio::test]
async fn what_is_old_is_removed_and_what_is_open_stays() -> Result<()> {
    let receiver = Receiver::start(|number, _| status(if number < 4 { 200 } else { 500 })).await?;
    let env = [("SLUICE_ALERT_KEEP_DAYS", "0"), ("SLUICE_ALERT_RETRY_MS", "600000")];
    let mut bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &env).await?;
    let (old, open) = (bench.raise(DAILY_100).await?, bench.raise(DAILY_80).await?);
    receiver.wait(2).await?;
    let recent = bench.raise(DAILY_100).await?;
    receiver.wait(3).await?;
    bench.resolve(old).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 4).await?;
    let waiting = bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE outcome = 'failed'", 1).await?;
    bench.server.stop()?;
    let aged = "UPDATE quota_alert SET resolved_at = now() - interval '91 days', resolved_by = 'system', \
        resolve_seen_at = now() WHERE alert_id = ANY($1)";
    sqlx::query(aged).bind(vec![old, waiting]).execute(&bench.pool).await?;
    sqlx::query(
        "UPDATE alert_message SET ended_at = now() - interval '91 days' WHERE state = 'sent' AND alert_id <> $1",
    )
    .bind(recent)
    .execute(&bench.pool)
    .await?;
    let changed = "UPDATE alert_change SET changed_at = now() - interval '91 days' WHERE alert_id = ANY($1)";
    sqlx::query(changed).bind(vec![old, open]).execute(&bench.pool).await?;
    // Kept for good.
    bench.server.restart()?;
    bench.raise(DAILY_100).await?;
    receiver.wait(6).await?;
    ensure_eq!(bench.count("SELECT count(*) FROM alert_message").await?, 6);
    bench.server.options().env.insert("SLUICE_ALERT_KEEP_DAYS".to_owned(), "90".to_owned());
    bench.server.restart()?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE ended_at < now() - interval '90 days'", 0).await?;
    bench.wait_for("SELECT count(*) FROM alert_change WHERE changed_at < now() - interval '90 days'", 0).await?;
    bench.wait_for("SELECT count(*) FROM quota_alert", 4).await?;
    let left = "SELECT alert_id, (SELECT count(*) FROM alert_message AS m WHERE m.alert_id = a.alert_id) AS messages \
        FROM quota_alert AS a WHERE alert_id = ANY (SELECT alert_id FROM quota_alert ORDER BY raised_at LIMIT 3) ORDER BY raised_at";
    let row = |id, messages: u32| json!({"alert_id": id, "messages": messages});
    ensure_eq!(bench.rows(left).await?, json!([row(open, 0), row(recent, 1), row(waiting, 1)]));
    ensure_eq!(bench.count("SELECT count(*) FROM alert_delivery").await?, 3);
    Ok(())
}
