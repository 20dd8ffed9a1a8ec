//! Alerts that no payment begins or ends: limits move, policies go, Redis loses its counters, and a sweep finds it.

use quota::{Action, Limits, OnExpiry};
use sluice_jobs::Rolled;
use sqlx::AssertSqlSafe;
use testkit::{Result, wait};

use crate::alerts::{DAY_MS, Hand, MERCHANT, alerts, day, minor, watch};
use crate::bench::{AT_MS, Bench, SHARDS, WITHIN};
use crate::engine::{Engine, consume, hold};
use crate::sweeps::Sweeper;

const LIMIT: &str = "version: \"1\"\ndefault: {timezone: UTC, daily_amount: 1000}\n";

/// Limits and thresholds move without a payment: the sweep finds whose usage is across, also of who is suspended.
#[tokio::test]
async fn the_sweep_finds_what_no_payment_has() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    for (merchant, amount) in [("m-1", 600), ("m-2", 850), ("m-3", 100), ("m-4", 600)] {
        let mut command = engine.command(merchant, "a", consume(amount), AT_MS)?;
        command.threshold_policy = Some(watch(&day(1_000), &[80, 100])?);
        engine.apply(&command).await?;
    }
    engine.grant("m-4", "", Action::Suspend, AT_MS).await?;
    bench.wait_until_drained(SHARDS).await?;
    let mut found = alerts(&bench).await?;
    found.sort();
    assert_eq!(found, ["daily_80", "suspended"]);
    let lowered = LIMIT.replace("1000", "700");
    let table = [
        (LIMIT.to_owned(), 0, &["daily_80", "suspended"][..]),
        // m-1 and the suspended m-4 at 85.7 %, m-2 above its limit.
        (lowered.clone(), 3, &["daily_80", "suspended", "daily_80", "daily_80", "daily_100"]),
        (lowered, 0, &["daily_80", "suspended", "daily_80", "daily_80", "daily_100"]),
        (
            LIMIT.replace("1000", "10000"),
            3,
            &[
                "daily_80: limit_raised",
                "suspended",
                "daily_80: limit_raised",
                "daily_80: limit_raised",
                "daily_100: limit_raised",
            ],
        ),
    ];
    for (policies, accounts, expected) in &table {
        let sweeper = Sweeper::open(&bench, policies)?;
        assert_eq!(sweeper.thresholds(AT_MS + 1_000).await?, Rolled::Accounts(*accounts), "{policies}");
        assert!(sweeper.metrics.encode().contains(&format!("sluice_thresholds_swept_total {accounts}")));
        bench.wait_until_drained(SHARDS).await?;
        let mut found = alerts(&bench).await?;
        let mut expected: Vec<String> = expected.iter().map(|alert| (*alert).to_owned()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{policies}");
    }
    let swept = "SELECT count(*) FROM usage_log WHERE action_type = 'roll' AND order_no IS NULL \
        AND (operator_id, operator_type, reason) = ('system:threshold', 'system', 'threshold_crossed')";
    assert_eq!(bench.count(swept).await?, 6);
    // A day that is over is not looked at: closing it is another sweep's.
    let sweeper = Sweeper::open(&bench, &LIMIT.replace("1000", "10"))?;
    assert_eq!(sweeper.thresholds(AT_MS + DAY_MS).await?, Rolled::Accounts(0));
    journal.stop()
}

const OTHER_MERCHANT: &str = "version: \"1\"\nmerchants:\n  m-x: {timezone: UTC, daily_amount: 1}\n";

/// An account whose policy is gone has no limit that it could be near.
#[tokio::test]
async fn without_a_policy_alerts_end() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let mut command = engine.command(MERCHANT, "a", consume(90), AT_MS)?;
    command.threshold_policy = Some(watch(&day(100), &[80, 100])?);
    engine.apply(&command).await?;
    hand.drain().await?;
    assert_eq!(alerts(&bench).await?, ["daily_80"]);
    let sweeper = Sweeper::open(&bench, OTHER_MERCHANT)?;
    for accounts in [1, 0] {
        assert_eq!(sweeper.thresholds(AT_MS + 1_000).await?, Rolled::Accounts(accounts));
        hand.drain().await?;
        assert_eq!(alerts(&bench).await?, ["daily_80: limit_raised"]);
    }
    Ok(())
}

/// Redis comes back empty: what is open ends with the sweep where the account has moved on, and is raised anew where
/// usage crosses again.
#[tokio::test]
async fn alerts_do_not_outlive_lost_counters() -> Result<()> {
    let mut bench = Bench::start()?;
    let limits = Limits { pending: minor(100), ..day(100) };
    let policies = "version: \"1\"\ndefault: {timezone: UTC, daily_amount: 100, pending_amount: 100}\n";
    let later_ms = AT_MS + 600_000;
    let pay = async |bench: &Bench, merchant: &str, order: &str, action, at_ms| -> Result<()> {
        let engine = Engine::open(bench)?;
        let mut command = engine.command(merchant, order, action, at_ms)?;
        command.threshold_policy = Some(watch(&limits, &[80, 100])?);
        engine.apply(&command).await.map(drop)
    };
    let drain = async |bench: &Bench| -> Result<()> { Hand::open(bench).await?.drain().await };
    // Numbers of events before the loss are beyond those after it.
    for number in 0..20 {
        pay(&bench, MERCHANT, &format!("small-{number}"), consume(1), AT_MS).await?;
    }
    for (merchant, action) in
        [("m-1", consume(65)), ("m-2", consume(90)), ("m-3", hold(100, 86_400, OnExpiry::Void)), ("m-4", consume(85))]
    {
        pay(&bench, merchant, "a", action, AT_MS + 1).await?;
    }
    pay(&bench, "m-4", "", Action::Suspend, AT_MS + 2).await?;
    drain(&bench).await?;
    let of = async |bench: &Bench, merchant: &str| -> Result<Vec<String>> {
        let pool = bench.postgres.pool().await?;
        let statement = "SELECT alert_type || coalesce(': ' || resolve_reason, '') FROM quota_alert WHERE merchant_id = $1 \
            ORDER BY alert_id";
        let alerts = sqlx::query_scalar(statement).bind(merchant).fetch_all(&pool).await?;
        pool.close().await;
        Ok(alerts)
    };
    let sweep = async |bench: &Bench, at_ms| Sweeper::open(bench, policies)?.thresholds(at_ms).await;
    // As long as all is well nothing ends.
    assert_eq!(sweep(&bench, AT_MS + 3).await?, Rolled::Accounts(0));
    assert_eq!(of(&bench, "m-3").await?, ["daily_80", "daily_100", "pending_80", "pending_100"]);
    assert_eq!(of(&bench, "m-4").await?, ["daily_80", "suspended"]);

    bench.redis.restart_empty()?;
    // m-1 crosses again, m-2 has not moved, m-3 and m-4 are used a little.
    pay(&bench, "m-1", "b", consume(95), later_ms).await?;
    pay(&bench, "m-3", "b", consume(5), later_ms).await?;
    pay(&bench, "m-4", "b", consume(5), later_ms).await?;
    drain(&bench).await?;
    assert_eq!(of(&bench, "m-1").await?, ["daily_80: counters_lost", "daily_80"]);
    sweep(&bench, later_ms + 1).await?;
    drain(&bench).await?;
    assert_eq!(of(&bench, "m-1").await?, ["daily_80: counters_lost", "daily_80"]);
    assert_eq!(of(&bench, "m-2").await?, ["daily_80"]);
    let lost = ["daily_80", "daily_100", "pending_80", "pending_100"].map(|alert| format!("{alert}: counters_lost"));
    assert_eq!(of(&bench, "m-3").await?, lost);
    assert_eq!(of(&bench, "m-4").await?, ["daily_80: counters_lost", "suspended: counters_lost"]);
    // No operation comes to close the day of m-2.
    sweep(&bench, AT_MS + 3 * DAY_MS).await?;
    assert_eq!(of(&bench, "m-2").await?, ["daily_80"]);
    sweep(&bench, AT_MS + 4 * DAY_MS).await?;
    assert_eq!(of(&bench, "m-2").await?, ["daily_80: window_closed"]);
    Ok(())
}

/// While one server sweeps another one leaves it alone; what is across a threshold is reported once.
#[tokio::test]
async fn one_server_sweeps_thresholds_at_a_time() -> Result<()> {
    const ACCOUNTS: u64 = 1_200;
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    for number in 0..ACCOUNTS {
        engine.grant(&format!("m-{number}"), "a", consume(900), AT_MS).await?;
    }
    bench.wait_until_drained(SHARDS).await?;
    let sweeper = Sweeper::open(&bench, LIMIT)?;
    let pool = bench.postgres.pool().await?;
    let mut other = pool.acquire().await?;
    for (turn, swept) in [("lock", Rolled::ByAnother), ("unlock", Rolled::Accounts(ACCOUNTS))] {
        let statement = format!("SELECT pg_advisory_{turn}($1)");
        sqlx::query(AssertSqlSafe(statement)).bind(0x51_75_6f_74_61_06_i64).execute(&mut *other).await?;
        assert_eq!(sweeper.thresholds(AT_MS + 1).await?, swept);
    }
    bench.wait_until_drained(SHARDS).await?;
    let once = "SELECT count(*) FROM quota_alert WHERE alert_type = 'daily_80' AND resolved_at IS NULL";
    wait::until_async("the alerts", WITHIN, || async {
        Ok((bench.count(once).await? == ACCOUNTS.cast_signed()).then_some(()))
    })
    .await?;
    assert_eq!(bench.count("SELECT count(*) FROM quota_alert").await?, ACCOUNTS.cast_signed());
    journal.stop()
}
