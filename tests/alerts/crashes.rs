//! Servers that die, and several of them: each receiver is notified of everything, and twice only where no server can
//! know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Result, Service, ensure, ensure_eq};

use crate::bench::{Bench, DAILY_100, all_to, webhook};
use crate::receiver::{Receiver, Reply, status};

/// The session of the notifier that leads, which has the lock.
macro_rules! leader {
    () => {
        "pg_locks WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32 | objid::bigint) = x'51756f746105'::bigint"
    };
}

#[tokio::test]
async fn killed_between_sending_and_recording_it_sends_again_under_the_same_id() -> Result<()> {
    let server = Arc::new(AtomicU32::new(0));
    let victim = Arc::clone(&server);
    let receiver = Receiver::start(move |number, _| {
        if number > 0 {
            return status(200);
        }
        let pid = i32::try_from(victim.load(Ordering::SeqCst)).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        Reply::Hang
    })
    .await?;
    let mut bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    server.store(bench.server.pid(), Ordering::SeqCst);
    bench.raise(DAILY_100).await?;
    receiver.wait(1).await?;
    testkit::wait::until("the server is dead", crate::bench::WITHIN, || {
        Ok((!bench.server.process().is_running()).then_some(()))
    })?;
    ensure_eq!(bench.count("SELECT count(*) FROM alert_delivery").await?, 0);
    bench.server.restart()?;
    let got = receiver.wait(2).await?;
    ensure_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    ensure_eq!(got[0].body, got[1].body);
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent' AND attempts = 2", 1).await?;
    ensure_eq!(bench.count("SELECT count(*) FROM alert_delivery WHERE attempt = 2").await?, 1);
    Ok(())
}

#[tokio::test]
async fn of_two_servers_one_notifies_and_the_other_takes_over() -> Result<()> {
    const ALERTS: usize = 20;
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let mut bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    let mut another = bench.another(&[])?;
    for _ in 0..ALERTS {
        bench.raise(DAILY_100).await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 20).await?;
    let mut ids: Vec<_> = receiver.got().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    ensure_eq!((ids.len(), receiver.got().len()), (ALERTS, ALERTS));
    let sent = |server: &testkit::server::Server| server.metric("sluice_alert_deliveries_total", &["outcome=\"sent\""]);
    let mut counts = [sent(&bench.server)?, sent(&another)?];
    let first_leads = counts[0] > 0.0;
    counts.sort_by(f64::total_cmp);
    ensure_eq!(counts, [0.0, 20.0]);
    if first_leads {
        bench.server.kill()?
    } else {
        another.kill()?
    };
    bench.raise(DAILY_100).await?;
    receiver.wait(ALERTS + 1).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 21).await?;
    ensure_eq!(receiver.got().len(), ALERTS + 1);
    Ok(())
}

#[tokio::test]
async fn what_happened_while_no_server_was_there_is_sent_later() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let mut bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    bench.server.stop()?;
    let id = bench.raise(DAILY_100).await?;
    bench.resolve(id).await?;
    bench.server.restart()?;
    let got = receiver.wait(2).await?;
    let types: Vec<_> = got.iter().map(|one| one.json()["type"].clone()).collect();
    ensure!(types == ["quota_alert.raised", "quota_alert.resolved"], "{types:?}");
    Ok(())
}

#[tokio::test]
async fn a_lost_notification_and_a_lost_session_lose_nothing() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &[]).await?;
    bench.raise(DAILY_100).await?;
    receiver.wait(1).await?;
    // Every session of the server, and the lock with it.
    bench
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE pid <> pg_backend_pid() AND application_name = 'sluice-server'",
        )
        .await?;
    bench.raise(DAILY_100).await?;
    receiver.wait(2).await?;
    bench
        .sql(
            "INSERT INTO quota_alert (alert_id, subject, alert_type, alert_level, message, raised_at) \
        VALUES (gen_random_uuid(), 'drift', 'drift', 'critical', 'the books do not agree', now())",
        )
        .await?;
    let got = receiver.wait(3).await?;
    ensure_eq!(got[2].json()["data"]["merchant_id"], serde_json::Value::Null);
    Ok(())
}

/// Postgres lets no session in for so long: more than the notifier waits before it looks whether its session is well.
const NO_SESSION_IN: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn who_loses_the_session_in_its_sleep_leads_no_more() -> Result<()> {
    let receiver = Receiver::start(|_, _| status(200)).await?;
    // The end of a session is logged at debug: it is part of an outage, which is reported once.
    let env = [("SLUICE_LOG", "info,sluice_alerts::notifier=debug")];
    let mut bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &env).await?;
    let _another = bench.another(&[])?;
    bench.raise(DAILY_100).await?;
    receiver.wait(1).await?;
    let postmaster = i32::try_from(bench.postgres.process().pid()).ok().and_then(Pid::from_raw);
    let postmaster = postmaster.ok_or_else(|| testkit::Failure::new("Postgres has no number"))?;
    // The session that has the lock ends, and a new one cannot be had at once.
    kill_process(postmaster, Signal::STOP)?;
    let ended = bench.sql(concat!("SELECT pg_terminate_backend(pid) FROM ", leader!())).await?;
    tokio::time::sleep(NO_SESSION_IN).await;
    kill_process(postmaster, Signal::CONT)?;
    ensure_eq!(ended, 1);
    testkit::wait::until("the end of its lead", crate::bench::WITHIN, || {
        let ended = |line: &serde_json::Value| line.to_string().contains("notifier session ended");
        Ok(bench.server.log_lines().iter().any(ended).then_some(()))
    })?;
    bench.raise(DAILY_100).await?;
    receiver.wait(2).await.map(drop)
}

#[tokio::test]
async fn of_two_that_lead_one_takes_a_message() -> Result<()> {
    let receiver = Receiver::start(|number, _| status(if number == 0 { 500 } else { 200 })).await?;
    let env = [("SLUICE_ALERT_RETRY_MS", "600000")];
    let bench = Bench::start(all_to(&[webhook("hook", &receiver.url())]), &env).await?;
    let _another = bench.another(&env)?;
    bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery", 1).await?;
    // No server can claim it although it is due; the session of the one that tries ends meanwhile, and the other tries
    // as well.
    bench.sql("UPDATE alert_message SET next_try_at = now() + interval '300 milliseconds'").await?;
    let mut holding = bench.pool.begin().await?;
    sqlx::query("SELECT 1 FROM alert_message FOR UPDATE").execute(&mut *holding).await?;
    let claiming =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%alert_message%'";
    bench.wait_for(claiming, 1).await?;
    bench.sql(concat!("SELECT pg_terminate_backend(pid) FROM ", leader!())).await?;
    bench.wait_for(claiming, 2).await?;
    holding.rollback().await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 1).await?;
    bench.wait_for(claiming, 0).await?;
    bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 2).await?;
    ensure_eq!(receiver.got().len(), 3);
    ensure_eq!(bench.count("SELECT max(attempts)::bigint FROM alert_message").await?, 2);
    Ok(())
}

#[tokio::test]
async fn sessions_notice_who_is_gone() -> Result<()> {
    let postgres = testkit::postgres::Postgres::start()?;
    let pool = sluice_kit::database::pool(&sluice_settings::Secret::new(postgres.url()), 1)?;
    let settings = "SELECT array[current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'), \
        current_setting('tcp_keepalives_count'), current_setting('tcp_user_timeout')]";
    // As the socket has them.
    let found: Vec<String> = sqlx::query_scalar(settings).fetch_one(&pool).await?;
    ensure_eq!(found, ["5", "5", "3", "15000"]);
    Ok(())
}
