//! The webhook, judged by the reference library of Standard Webhooks.

use std::process::Command;

use serde_json::{Value, json};
use testkit::process::run;
use testkit::{Result, dirs, ensure, ensure_eq, tools};

use crate::bench::{Bench, DAILY_80, DAILY_100, SECRET, all_to, webhook};
use crate::receiver::{Got, Receiver, status};

/// The secret that a rotation brings.
const NEW_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// A secret that was given to no one.
const FOREIGN_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What the library says to each message with a secret: whether it is from who has it.
fn verified(bench: &Bench, messages: &[(&str, &Got)]) -> Result<Vec<bool>> {
    let python = tools::python("alerts-python", &dirs::workspace().join("tests/alerts/requirements.txt"))?;
    let given: Vec<Value> = messages
        .iter()
        .map(|(secret, got)| json!({"secret": secret, "headers": got.headers, "body": got.body}))
        .collect();
    let file = bench.dir.join("messages.json");
    std::fs::write(&file, Value::from(given).to_string())?;
    let printed = run(Command::new(python).arg(dirs::workspace().join("tests/alerts/verify.py")).arg(&file))?;
    Ok(serde_json::from_str(&printed)?)
}

#[tokio::test]
async fn the_reference_library_verifies_raised_and_resolved() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(204)).await?;
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    let id = bench.raise(DAILY_80).await?;
    receiver.wait(1).await?;
    bench.resolve(id).await?;
    let got = receiver.wait(2).await?;
    let mut forged = got[0].clone();
    forged.body = forged.body.replace("M-1", "M-2");
    let said = verified(&bench, &[(SECRET, &got[0]), (SECRET, &got[1]), (SECRET, &forged), (NEW_SECRET, &got[0])])?;
    ensure_eq!(said, [true, true, false, false]);
    let (raised, resolved) = (got[0].json(), got[1].json());
    let of = |body: &Value, name: &str| body["data"][name].clone();
    ensure_eq!((&raised["type"], &resolved["type"]), (&json!("quota_alert.raised"), &json!("quota_alert.resolved")));
    ensure_eq!(of(&raised, "alert_id"), json!(id));
    ensure_eq!((of(&raised, "current_used"), of(&raised, "limit")), (json!(8000), json!(10_000)));
    ensure_eq!(of(&raised, "usage_percent"), json!(80.12));
    ensure_eq!((of(&raised, "is_resolved"), of(&resolved, "is_resolved")), (json!(false), json!(true)));
    ensure_eq!(of(&resolved, "resolve_reason"), json!("refund"));
    ensure!(got[0].header("webhook-id") != got[1].header("webhook-id"), "{got:?}");
    ensure!(got[0].header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{got:?}");
    let rows = "SELECT m.kind, m.state, m.attempts, d.outcome, d.status, d.attempt, d.next_try_at \
        FROM alert_message AS m JOIN alert_delivery AS d USING (message_id) ORDER BY m.created_at";
    bench.wait_for("SELECT count(*) FROM alert_delivery", 2).await?;
    let row = |kind| {
        json!({"kind": kind, "state": "sent", "attempts": 1, "outcome": "sent", "status": 204, "attempt": 1,
            "next_try_at": null})
    };
    ensure_eq!(bench.rows(rows).await?, json!([row("raised"), row("resolved")]));
    ensure_eq!(
        bench.server.metric("sluice_alert_deliveries_total", &["channel=\"webhook\"", "outcome=\"sent\""])?,
        2.0
    );
    Ok(())
}

#[tokio::test]
async fn every_secret_of_a_rotation_signs_and_none_is_sent() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let mut channel = webhook("hook", &receiver.url());
    channel["secrets"] = json!([NEW_SECRET, SECRET]);
    let bench = Bench::start(all_to(&[channel]), &[]).await?;
    bench.raise(DAILY_100).await?;
    let got = receiver.wait(1).await?;
    let said = verified(&bench, &[(NEW_SECRET, &got[0]), (SECRET, &got[0]), (FOREIGN_SECRET, &got[0])])?;
    ensure_eq!(said, [true, true, false]);
    let all = format!("{got:?}{}", std::fs::read_to_string(bench.dir.join("server.log"))?);
    for secret in [SECRET, NEW_SECRET] {
        ensure!(!all.contains(secret.trim_start_matches("whsec_")), "{all}");
    }
    Ok(())
}
