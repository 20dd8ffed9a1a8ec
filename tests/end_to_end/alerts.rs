//! Alerts end to end: payments through Envoy cross thresholds, each reported once, whichever part dies; and operators
//! are notified of parts that are away.

use std::time::Duration;

use testkit::books::settles_at;
use testkit::client::{Payment, Protocol};
use testkit::policies;
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, Service, wait};

use crate::suite::{Suite, patient};

const CLIENTS: u64 = 64;
const AMOUNT: u64 = 1_000;
/// How long an alert may take to be there.
const WITHIN: Duration = Duration::from_secs(60);
/// The smallest bound of events that may wait for the journal.
const BACKLOG: u64 = 1_000;

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("alerts::a_crowd_crosses_each_threshold_once", crossed(), a_crowd_crosses);
    suite.owned("alerts::they_outlive_a_server_that_is_killed", crossed(), the_server_is_killed);
    suite.owned("alerts::operators_are_notified_of_parts_that_are_away", watched(), parts_are_away);
}

/// Merchants whose day has room for so many payments.
fn document(version: &str, payments: u64) -> String {
    let merchant =
        |protocol: Protocol, round| format!("crowd-{protocol:?}-{round}: {{daily_amount: {}}}", payments * AMOUNT);
    let merchants = Protocol::BOTH.into_iter().flat_map(|protocol| (0..3).map(move |round| merchant(protocol, round)));
    policies::with(version, &merchants.collect::<Vec<_>>().join("\n"))
}

fn crossed() -> StackOptions {
    let mut options = StackOptions { policies: Some(document("v1", 60)), ..patient() };
    options.server_env.insert("SLUICE_THRESHOLD_SWEEP_SECS".to_owned(), "10".to_owned());
    options
}

fn watched() -> StackOptions {
    let mut options = patient();
    let env = [("SLUICE_DEGRADED_STORE_SECS", "1".to_owned()), ("SLUICE_BACKLOG_EVENTS_MAX", BACKLOG.to_string())];
    options.server_env.extend(env.map(|(name, value)| (name.to_owned(), value)));
    options
}

/// The alerts of a merchant, or of operators where none is named, oldest first: type, level and how it ended.
async fn alerts(stack: &Stack, merchant: Option<&str>) -> Result<Vec<(String, String, Option<String>)>> {
    let pool = stack.postgres.pool().await?;
    let statement = "SELECT alert_type, alert_level, resolve_reason FROM quota_alert \
        WHERE merchant_id IS NOT DISTINCT FROM $1 ORDER BY raised_at, threshold, alert_id";
    let found = sqlx::query_as(statement).bind(merchant).fetch_all(&pool).await;
    pool.close().await;
    Ok(found?)
}

async fn reported(stack: &Stack, merchant: Option<&str>, expected: &[(&str, &str, Option<&str>)]) -> Result<()> {
    let owned = |text: &str| text.to_owned();
    let expected: Vec<_> =
        expected.iter().map(|(kind, level, end)| (owned(kind), owned(level), end.map(owned))).collect();
    let waited = wait::until_async("the alerts", WITHIN, || async {
        Ok(alerts(stack, merchant).await.ok().filter(|found| *found == expected).map(drop))
    });
    match waited.await {
        Ok(()) => Ok(()),
        Err(failure) => {
            let last = alerts(stack, merchant).await;
            Err(failure.while_doing(format!("waiting for {expected:?} of {merchant:?}, last {last:?}")))
        }
    }
}

const BOTH: [(&str, &str, Option<&str>); 2] = [("daily_80", "warning", None), ("daily_100", "critical", None)];

/// 64 clients pay at once; gives how many payments were admitted.
async fn pay_at_once(stack: &Stack, protocol: Protocol, merchant: &str) -> Result<u64> {
    let mut running = Vec::new();
    for number in 0..CLIENTS {
        let mut client = stack.client(protocol).await?;
        let payment = Payment::new(merchant, &format!("{merchant}-{number}"), AMOUNT);
        running.push(tokio::spawn(async move { Ok::<_, Failure>(client.send(payment.call()).await?.status) }));
    }
    let mut admitted = 0;
    for running in running {
        admitted += u64::from(running.await?? == 200);
    }
    Ok(admitted)
}

/// Sixty-four payments at once cross 80 and 100 %: each is reported once, and ends once when the limits are raised.
async fn a_crowd_crosses(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        for round in 0..3 {
            let merchant = format!("crowd-{protocol:?}-{round}");
            ensure_eq!(pay_at_once(stack, protocol, &merchant).await?, 60);
            settles_at(stack, &merchant, (60 * AMOUNT, 60)).await?;
            reported(stack, Some(&merchant), &BOTH).await?;
        }
    }
    let pool = stack.postgres.pool().await?;
    let exact = "SELECT count(*) FROM quota_alert WHERE usage_percent = threshold AND resolved_at IS NULL \
        AND current_used * 100 = max * threshold AND policy_version IS NOT NULL \
        AND event_id IN (SELECT event_id FROM usage_log WHERE code = 'ADMITTED')";
    let exact: i64 = sqlx::query_scalar(exact).fetch_one(&pool).await?;
    pool.close().await;
    ensure_eq!(exact, 12, "each is reported at the payment that reached it");

    // No payment shows that the limits are raised: the sweep does.
    stack.replace_policies(&document("v2", 600))?;
    for protocol in Protocol::BOTH {
        for round in 0..3 {
            let ended = BOTH.map(|(kind, level, _)| (kind, level, Some("limit_raised")));
            reported(stack, Some(&format!("crowd-{protocol:?}-{round}")), &ended).await?;
        }
    }
    Ok(())
}

/// The server dies between payments and their journal, again and again: what was crossed is reported once all the same.
async fn the_server_is_killed(stack: &mut Stack) -> Result<()> {
    for round in 0..3 {
        let merchant = format!("crowd-Http1-{round}");
        for number in 0..60 {
            let payment = Payment::new(&merchant, &format!("{merchant}-{number}"), AMOUNT);
            ensure_eq!(stack.send(Protocol::Http1, payment.call()).await?.status, 200, "payment {number}");
            if number == 47 || number == 59 {
                stack.server.kill()?;
                stack.server.restart()?;
            }
        }
        reported(stack, Some(&merchant), &BOTH).await?;
    }
    Ok(())
}

/// Redis is away for longer than operators wait, Postgres for longer than events have room.
async fn parts_are_away(stack: &mut Stack) -> Result<()> {
    const STORE: (&str, &str) = ("degraded_store", "critical");
    stack.redis.kill()?;
    reported(stack, None, &[(STORE.0, STORE.1, None)]).await?;
    stack.redis.restart()?;
    let over = (STORE.0, STORE.1, Some("recovered"));
    reported(stack, None, &[over]).await?;

    stack.postgres.kill()?;
    let mut client = stack.client(Protocol::Http1).await?;
    for number in 0..BACKLOG * 9 / 10 {
        let payment = Payment::new("roomy", &format!("roomy-{number}"), 100);
        ensure_eq!(client.send(payment.call()).await?.status, 200, "payment {number}");
    }
    wait::until_async("the warning", WITHIN, || async {
        Ok(stack.server.log_lines().iter().any(|line| line.to_string().contains("near its bound")).then_some(()))
    })
    .await?;
    stack.postgres.restart()?;
    reported(stack, None, &[over, ("journal_backlog", "critical", Some("recovered"))]).await
}
