//! Holds that end with their time and windows that are closed without traffic, against real Redis and Postgres: once,
//! however many servers sweep and whatever else happens to the order.

use std::sync::Arc;

use quota::{Action, Code, OnExpiry};
use sluice_jobs::{
    Config, CreditSweep, CreditSwept, Ended, HoldSweep, Rolled, ThresholdSweep, Tools, TransferSweep, WindowSweep,
};
use sluice_kit::clock;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_kit::shutdown::{self, Shutdown, Stop};
use sluice_lines::CreditLines;
use sluice_policy::PolicyBook;
use sluice_policy_source::Policies;
use sluice_policy_source::zones::Zones;
use sluice_settings::{Live, Secret, Settings};
use sluice_store::{StoreTime, Verified, keys};
use testkit::{Failure, Result, wait};

use crate::bench::{AT_MS, Bench, SHARDS, WITHIN};
use crate::engine::{Engine, ORDER_TTL_SECS, consume, hold, settle};

const DAY_MS: i64 = 86_400_000;
const POLICIES: &str = "version: \"1\"\ndefault: {timezone: UTC, daily_amount: 1000000000}\n\
    merchants:\n  m-west: {timezone: America/New_York}\n  m-night: {cutoff_hour: 6}\n";

/// What one server sweeps with.
pub(crate) struct Sweeper {
    tools: Tools,
    pub(crate) metrics: Arc<Metrics>,
    shutdown: Shutdown,
    _running: Stop,
}

impl Sweeper {
    pub(crate) fn open(bench: &Bench, policies: &str) -> Result<Self> {
        Self::open_with(bench, policies, CreditLines::none())
    }

    /// One that knows credit lines.
    pub(crate) fn open_with(bench: &Bench, policies: &str, lines: Arc<CreditLines>) -> Result<Self> {
        let (config, policies, metrics) = parts(bench, policies)?;
        let (running, shutdown) = shutdown::channel();
        let tools = Tools::open(&config, policies, lines, &metrics)?;
        Ok(Self { tools, metrics, shutdown, _running: running })
    }

    pub(crate) async fn holds(&self, now_ms: i64) -> Result<Ended> {
        Ok(HoldSweep::new(self.tools.clone()).round(now_ms, &self.shutdown).await?)
    }

    pub(crate) async fn thresholds(&self, now_ms: i64) -> Result<Rolled> {
        Ok(ThresholdSweep::new(self.tools.clone()).round(now_ms, &self.shutdown).await?)
    }

    pub(crate) async fn windows(&self, now_ms: i64) -> Result<Rolled> {
        Ok(WindowSweep::new(self.tools.clone()).round(now_ms, &self.shutdown).await?)
    }

    pub(crate) async fn credit(&self, now_ms: i64) -> Result<CreditSwept> {
        Ok(CreditSweep::new(self.tools.clone()).round(now_ms, &self.shutdown).await?)
    }

    pub(crate) async fn transfers(&self) -> Result<u64> {
        Ok(TransferSweep::new(self.tools.clone()).round(&self.shutdown).await?)
    }
}

fn parts(bench: &Bench, policies: &str) -> Result<(Config, Arc<Policies>, Arc<Metrics>)> {
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let policies = Arc::new(Policies::new(PolicyBook::from_yaml(policies, &Zones::compiled_in())?, health));
    let env = [
        ("SLUICE_POLICY_FILE", "policies.yaml".to_owned()),
        ("SLUICE_HOLD_SWEEP_MS", "100".to_owned()),
        ("SLUICE_WINDOW_SWEEP_SECS", "10".to_owned()),
        ("SLUICE_REDIS_TIMEOUT_MS", "9000".to_owned()),
        ("SLUICE_CHECK_TIMEOUT_MS", "10000".to_owned()),
        ("SLUICE_ORDER_TTL_SECS", ORDER_TTL_SECS.to_string()),
    ];
    let settings = Settings::load(env.into_iter().map(|(name, value)| (name.to_owned(), value)), None)?;
    let config = Config {
        redis_url: Secret::new(bench.redis.url()),
        postgres_url: Secret::new(bench.postgres.url()),
        shards: SHARDS,
        live: Live::fixed(&settings),
        verified: Verified::default(),
        time: StoreTime::OfCommands,
    };
    Ok((config, policies, metrics))
}

/// Members of all shards' sets of open holds.
async fn open_holds(bench: &Bench) -> Result<u64> {
    let mut connection = bench.connection().await?;
    let mut open = 0;
    for shard in 0..SHARDS {
        open += redis::cmd("ZCARD").arg(keys::expiry(shard)).query_async::<u64>(&mut connection).await?;
    }
    Ok(open)
}

#[tokio::test]
async fn a_hold_ends_with_its_time_in_its_own_way() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal, sweeper) = (Engine::open(&bench)?, bench.journal("a")?, Sweeper::open(&bench, POLICIES)?);
    engine.grant("m-1", "voids", hold(100, 60, OnExpiry::Void), AT_MS).await?;
    engine.grant("m-1", "settles", hold(40, 60, OnExpiry::Settle), AT_MS).await?;
    engine.grant("m-1", "half", hold(10, 60, OnExpiry::Void), AT_MS).await?;
    engine.grant("m-1", "half", settle(4, "c-1", false), AT_MS).await?;
    engine.grant("m-1", "later", hold(1, 61, OnExpiry::Void), AT_MS).await?;
    assert_eq!(sweeper.holds(AT_MS + 59_999).await?, Ended::default());
    assert_eq!(sweeper.holds(AT_MS + 60_000).await?, Ended { voided: 2, settled: 1 });
    assert_eq!(sweeper.holds(AT_MS + 60_000).await?, Ended::default());
    let account = engine.account("m-1").await?;
    assert_eq!((account.windows.day.amount, account.windows.day.count, account.pending), (45, 3, 1));
    assert_eq!(open_holds(&bench).await?, 1);
    bench.wait_until_drained(SHARDS).await?;
    let rows = "SELECT count(*) FROM usage_log WHERE action_type = 'expire' AND attempt IS NULL AND operator_type = 'system' \
        AND (operator_id, reason) = ('system:expiry', 'hold_expired') AND policy_version IS NOT NULL AND (order_no, code, \
            order_state, amount) IN (('voids', 'VOIDED', 'voided', 100), ('settles', 'APPLIED', 'settled', 40), \
            ('half', 'VOIDED', 'settled', 6))";
    assert_eq!(bench.count(rows).await?, 3);
    let text = sweeper.metrics.encode();
    for line in [
        "sluice_holds_expired_total{how=\"voided\"} 2",
        "sluice_holds_expired_total{how=\"settled\"} 1",
        "quota_operations_total{action=\"expire\",code=\"VOIDED\"} 2",
        "sluice_hold_sweep_lag_seconds 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    journal.stop()
}

/// Two servers sweep while captures and voids come for the same holds: each hold ends once, and the counters are what the
/// journal says.
#[tokio::test]
async fn expiry_capture_and_void_race_and_one_wins() -> Result<()> {
    const HOLDS: usize = 400;
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    let (one, two) = (Sweeper::open(&bench, POLICIES)?, Sweeper::open(&bench, POLICIES)?);
    for number in 0..HOLDS {
        let on_expiry = if number % 3 == 0 { OnExpiry::Settle } else { OnExpiry::Void };
        let merchant = format!("m-{}", number % 5);
        engine.grant(&merchant, &format!("o-{number}"), hold(10, 60, on_expiry), AT_MS).await?;
    }
    let now_ms = AT_MS + 60_000;
    let others = async {
        let mut won = 0;
        for number in (0..HOLDS).rev() {
            let action = if number % 2 == 0 { settle(7, "c", true) } else { Action::Void };
            let reply = engine.run(&format!("m-{}", number % 5), &format!("o-{number}"), action, now_ms).await?;
            match (reply.record.code, reply.record.replay) {
                (Code::Applied | Code::Voided, false) => won += 1,
                // Too late: the sweep ended it.
                (Code::OrderClosed, _) | (Code::Voided, true) => {}
                (code, _) => return Err(Failure::new(format!("o-{number}: {}", code.as_str()))),
            }
        }
        Ok::<_, Failure>(won)
    };
    let (won, first, second) = tokio::join!(others, one.holds(now_ms), two.holds(now_ms));
    let (won, first, second) = (won?, first?, second?);
    let swept = first.voided + first.settled + second.voided + second.settled;
    println!("captures and voids won {won}, the sweeps {first:?} and {second:?}");
    assert_eq!(won + swept, HOLDS as u64);
    assert_eq!(open_holds(&bench).await?, 0);
    bench.wait_until_drained(SHARDS).await?;
    let ends = "SELECT count(*) FROM (SELECT order_no FROM usage_log WHERE success AND NOT replay \
        AND action_type IN ('settle', 'void', 'expire') GROUP BY order_no HAVING count(*) = 1) AS once";
    assert_eq!(bench.count(ends).await?, HOLDS as i64);
    for number in 0..5 {
        let account = engine.account(&format!("m-{number}")).await?;
        let pool = bench.postgres.pool().await?;
        let sums = "SELECT sum(yearly_used_after - yearly_used_before)::bigint, \
                sum(yearly_count_after - yearly_count_before)::bigint, sum(pending_after - pending_before)::bigint \
            FROM usage_log WHERE merchant_id = $1";
        let sums: (i64, i64, i64) = sqlx::query_as(sums).bind(format!("m-{number}")).fetch_one(&pool).await?;
        pool.close().await;
        let counters = (account.windows.year.amount, account.windows.year.count, account.pending);
        assert_eq!((sums.0.unsigned_abs(), sums.1.unsigned_abs(), sums.2.unsigned_abs()), counters);
        assert_eq!(account.pending, 0);
    }
    journal.stop()
}

/// More holds of one shard than one call takes, and more than were due when the sweep began.
#[tokio::test]
async fn a_crowd_of_holds_is_ended_in_one_round() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, sweeper) = (Engine::open(&bench)?, Sweeper::open(&bench, POLICIES)?);
    for number in 0..120 {
        engine.grant("m-1", &format!("o-{number}"), hold(1, 60, OnExpiry::Void), AT_MS + number).await?;
    }
    assert_eq!(sweeper.holds(AT_MS + 1_000_000).await?, Ended { voided: 120, settled: 0 });
    assert!(sweeper.metrics.encode().contains("sluice_hold_sweep_lag_seconds 940"));
    Ok(())
}

/// No server swept for longer than orders are remembered: the hold's quota is returned from what the journal knows.
#[tokio::test]
async fn a_forgotten_hold_is_ended_from_the_journal() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, sweeper) = (Engine::open(&bench)?, Sweeper::open(&bench, POLICIES)?);
    engine.grant("m-1", "o-1", hold(100, 60, OnExpiry::Void), AT_MS).await?;
    engine.grant("m-1", "o-1", settle(30, "c-1", false), AT_MS).await?;
    engine.forget(&bench, "m-1", "o-1").await?;
    let after = AT_MS + 60_000 + i64::from(ORDER_TTL_SECS) * 1000;
    // The journal has not stored the hold yet.
    assert_eq!(sweeper.holds(after).await?, Ended::default());
    assert_eq!(open_holds(&bench).await?, 1);
    let journal = bench.journal("a")?;
    bench.wait_until_drained(SHARDS).await?;
    assert_eq!(sweeper.holds(after).await?, Ended { voided: 1, settled: 0 });
    let account = engine.account("m-1").await?;
    assert_eq!((account.windows.day.amount, account.pending, open_holds(&bench).await?), (30, 0, 0));
    // A member of the set whose order is unknown is taken out.
    let shard = quota::shard_of(&quota::MerchantId::parse("m-9")?, SHARDS);
    let member = redis::cmd("ZADD").arg(keys::expiry(shard)).arg(1).arg("m-9:USD:unknown").to_owned();
    member.query_async::<()>(&mut bench.connection().await?).await?;
    assert_eq!(sweeper.holds(after).await?, Ended::default());
    assert_eq!(open_holds(&bench).await?, 0);
    journal.stop()
}

/// Holds that cannot be ended yet are more than one call takes, and are due before one that can: it ends all the same.
#[tokio::test]
async fn holds_that_cannot_be_ended_do_not_hold_up_the_others() -> Result<()> {
    const LOST: u64 = 60;
    let bench = Bench::start()?;
    let (engine, sweeper) = (Engine::open(&bench)?, Sweeper::open(&bench, POLICIES)?);
    let journal = bench.journal("a")?;
    for number in 0..LOST {
        engine.grant("m-1", &format!("lost-{number}"), hold(1, 60, OnExpiry::Void), AT_MS).await?;
    }
    bench.wait_until_drained(SHARDS).await?;
    journal.stop()?;
    for number in 0..LOST {
        engine.forget(&bench, "m-1", &format!("lost-{number}")).await?;
    }
    // An event of the shard that never came may be any order's: none that was forgotten is exact.
    let gap = "INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq) VALUES ($1, 'missing', 1000, 1000)";
    let shard = quota::shard_of(&quota::MerchantId::parse("m-1")?, SHARDS);
    let pool = bench.postgres.pool().await?;
    sqlx::query(gap).bind(i32::from(shard)).execute(&pool).await?;
    // None of the store's: not text, of no order, of another shard, at no whole second.
    let elsewhere = (2..).map(|number| format!("m-{number}"));
    let is_elsewhere =
        |name: &String| quota::MerchantId::parse(name).is_ok_and(|id| quota::shard_of(&id, SHARDS) != shard);
    let elsewhere =
        elsewhere.take(100).find(is_elsewhere).ok_or_else(|| Failure::new("all merchants are of one shard"))?;
    let mut foreign = redis::cmd("ZADD");
    foreign.arg(keys::expiry(shard)).arg(1).arg(&[0xff_u8, 0xfe]).arg(2).arg("malformed").arg(3);
    foreign.arg(format!("{elsewhere}:USD:o-1")).arg("4.5").arg("m-1:USD:o-1");
    foreign.query_async::<()>(&mut bench.connection().await?).await?;
    for number in 0..3 {
        engine.grant("m-1", &format!("good-{number}"), hold(1, 60, OnExpiry::Void), AT_MS + 1_000).await?;
    }
    assert_eq!(sweeper.holds(AT_MS + 61_000).await?, Ended { voided: 3, settled: 0 });
    assert_eq!(open_holds(&bench).await?, LOST + 4);
    sqlx::query("UPDATE journal_anomaly SET resolved_at = now()").execute(&pool).await?;
    pool.close().await;
    assert_eq!(sweeper.holds(AT_MS + 61_000).await?, Ended { voided: LOST, settled: 0 });
    assert_eq!(open_holds(&bench).await?, 4);
    Ok(())
}

/// More members stand in the way than one round sees: the next one goes on behind them, and the one after it begins anew.
#[tokio::test]
async fn a_round_goes_on_where_the_last_one_left_off() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, sweeper) = (Engine::open(&bench)?, Sweeper::open(&bench, POLICIES)?);
    let shard = quota::shard_of(&quota::MerchantId::parse("m-1")?, SHARDS);
    let mut foreign = redis::cmd("ZADD");
    foreign.arg(keys::expiry(shard));
    for number in 0..2_000 {
        foreign.arg(1).arg(format!("foreign-{number}"));
    }
    foreign.query_async::<()>(&mut bench.connection().await?).await?;
    engine.grant("m-1", "behind", hold(1, 60, OnExpiry::Void), AT_MS).await?;
    let mut sweep = HoldSweep::new(sweeper.tools.clone());
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(sweep.round(AT_MS + 60_000, &sweeper.shutdown).await?.voided);
    }
    assert_eq!(ended, [0, 1, 0]);
    let member = redis::cmd("ZREMRANGEBYSCORE").arg(keys::expiry(shard)).arg(1).arg(1).to_owned();
    member.query_async::<()>(&mut bench.connection().await?).await?;
    engine.grant("m-1", "in-front", hold(1, 60, OnExpiry::Void), AT_MS).await?;
    ended.clear();
    for _ in 0..2 {
        ended.push(sweep.round(AT_MS + 60_000, &sweeper.shutdown).await?.voided);
    }
    assert_eq!(ended.iter().sum::<u64>(), 1);
    Ok(())
}

/// Puts values into accounts' keys that are not the store's: of an unknown format, and cut off.
async fn spoil_accounts(bench: &Bench, merchants: &[&str]) -> Result<()> {
    for (number, merchant) in merchants.iter().enumerate() {
        let merchant = quota::MerchantId::parse(merchant)?;
        let key = keys::account(quota::shard_of(&merchant, SHARDS), &merchant, crate::engine::usd()?);
        let value: &[u8] = if number % 2 == 0 { b"garbage" } else { b"\x02cut" };
        redis::cmd("SET").arg(key).arg(value).query_async::<()>(&mut bench.connection().await?).await?;
    }
    Ok(())
}

/// The commands of one call fail together where one account's value is not the store's: the others' holds end all the same.
#[tokio::test]
async fn spoilt_accounts_do_not_hold_up_the_others_holds() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, sweeper) = (Engine::open(&bench)?, Sweeper::open(&bench, POLICIES)?);
    for number in 0..40 {
        engine.grant(&format!("m-{number}"), "o-1", hold(1, 60, OnExpiry::Void), AT_MS).await?;
    }
    spoil_accounts(&bench, &["m-0", "m-1", "m-2", "m-3", "m-4", "m-5"]).await?;
    for _ in 0..2 {
        let Err(failure) = sweeper.holds(AT_MS + 100_000).await else { panic!("the failures are reported") };
        assert!(failure.to_string().contains("an unexpected value"), "{failure}");
        assert_eq!(open_holds(&bench).await?, 6);
    }
    assert!(sweeper.metrics.encode().contains("sluice_holds_expired_total{how=\"voided\"} 34"));
    Ok(())
}

/// Nor do they keep the windows of others, and of later ones, from being closed.
#[tokio::test]
async fn spoilt_accounts_do_not_hold_up_the_others_windows() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal, sweeper) = (Engine::open(&bench)?, bench.journal("a")?, Sweeper::open(&bench, POLICIES)?);
    for number in 0..40 {
        engine.grant(&format!("m-{number}"), "o-1", consume(1), AT_MS).await?;
    }
    bench.wait_until_drained(SHARDS).await?;
    spoil_accounts(&bench, &["m-0", "m-1", "m-2", "m-3", "m-4", "m-5"]).await?;
    for _ in 0..2 {
        let Err(failure) = sweeper.windows(AT_MS + DAY_MS).await else { panic!("the failures are reported") };
        assert!(failure.to_string().contains("an unexpected value"), "{failure}");
        bench.wait_until_drained(SHARDS).await?;
        assert_eq!(bench.count("SELECT count(*) FROM quota_window").await?, 34);
    }
    assert!(sweeper.metrics.encode().contains("sluice_windows_closed_total 34"));
    journal.stop()
}

#[tokio::test]
async fn windows_of_idle_accounts_are_closed() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal, sweeper) = (Engine::open(&bench)?, bench.journal("a")?, Sweeper::open(&bench, POLICIES)?);
    engine.grant("m-1", "o-1", consume(100), AT_MS).await?;
    engine.grant("m-2", "o-1", consume(7), AT_MS).await?;
    bench.wait_until_drained(SHARDS).await?;
    // 2026-11-20: closed with the first millisecond of the next day, and only once.
    let days = [
        (1_795_219_199_999, 0, 0, "the day is not over"),
        (1_795_219_200_000, 2, 2, "the day is over"),
        (1_795_219_200_000 + DAY_MS, 0, 2, "nothing was counted since"),
        (1_795_219_200_000 + 2 * DAY_MS, 2, 6, "the week is over, and the day that was opened then"),
        (1_795_219_200_000 + 5 * DAY_MS, 0, 6, "nothing was counted since"),
        (1_796_083_200_000, 2, 12, "the month is over, and the day and the week that were opened then"),
        (1_798_761_600_000, 2, 20, "the year is over, with all that was opened then"),
        (1_798_761_600_000 + 400 * DAY_MS, 0, 20, "nothing is open"),
    ];
    for (now_ms, accounts, rows, why) in days {
        assert_eq!(sweeper.windows(now_ms).await?, Rolled::Accounts(accounts), "{why}");
        bench.wait_until_drained(SHARDS).await?;
        assert_eq!(bench.count("SELECT count(*) FROM quota_window").await?, rows, "{why}");
    }
    let figures = "SELECT count(*) FROM quota_window WHERE (merchant_id, period, window_id, amount, count) IN \
        (('m-1', 'day', 20261120, 100, 1), ('m-1', 'week', 20261116, 100, 1), ('m-1', 'month', 202611, 100, 1), ('m-1', 'year', 2026, 100, 1))";
    assert_eq!(bench.count(figures).await?, 4);
    let events = "SELECT count(*) FROM usage_log WHERE action_type = 'roll' AND code = 'APPLIED' AND order_no IS NULL \
        AND (operator_id, operator_type, reason) = ('system:window', 'system', 'window_closed')";
    assert_eq!(bench.count(events).await?, 8);
    assert!(sweeper.metrics.encode().contains("sluice_windows_closed_total 8"));
    journal.stop()
}

/// The account's own calendar says when its day is over.
#[tokio::test]
async fn a_window_is_closed_by_the_merchants_calendar() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal, sweeper) = (Engine::open(&bench)?, bench.journal("a")?, Sweeper::open(&bench, POLICIES)?);
    // All at 2026-11-20 12:00 UTC, which is that day for each of them.
    let noon_ms = 1_795_176_000_000;
    for merchant in ["m-1", "m-night", "m-west"] {
        engine.grant(merchant, "o-1", consume(1), noon_ms).await?;
    }
    bench.wait_until_drained(SHARDS).await?;
    let hour_ms = DAY_MS / 24;
    let closed = "SELECT count(*) FROM quota_window WHERE window_id = 20261120 AND merchant_id = ANY(string_to_array(";
    for (hours, merchants) in [(12, "'m-1'"), (17, "'m-1,m-west'"), (18, "'m-1,m-west,m-night'")] {
        assert_eq!(sweeper.windows(noon_ms + hours * hour_ms - 1).await?, Rolled::Accounts(0), "{merchants}");
        assert_eq!(sweeper.windows(noon_ms + hours * hour_ms).await?, Rolled::Accounts(1), "{merchants}");
        bench.wait_until_drained(SHARDS).await?;
        let pool = bench.postgres.pool().await?;
        let statement = format!("{closed}{merchants}, ','))");
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&pool).await?;
        assert_eq!(found, merchants.split(',').count() as i64, "{merchants}");
    }
    journal.stop()
}

#[tokio::test]
async fn one_server_closes_windows_at_a_time() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    for number in 0..300 {
        engine.grant(&format!("m-{number}"), "o-1", consume(1), AT_MS).await?;
    }
    bench.wait_until_drained(SHARDS).await?;
    let (one, two) = (Sweeper::open(&bench, POLICIES)?, Sweeper::open(&bench, POLICIES)?);
    let next_day = AT_MS + DAY_MS;
    let (first, second) = tokio::join!(one.windows(next_day), two.windows(next_day));
    let closed = [first?, second?].map(|closed| match closed {
        Rolled::Accounts(accounts) => accounts,
        Rolled::ByAnother => 0,
    });
    assert_eq!(closed.iter().sum::<u64>(), 300);
    bench.wait_until_drained(SHARDS).await?;
    assert_eq!(bench.count("SELECT count(*) FROM quota_window").await?, 300);
    assert_eq!(two.windows(next_day).await?, Rolled::Accounts(0), "the lock went with the round");
    // Without a policy there is no calendar by which a day could be over.
    engine.grant("m-1", "o-2", consume(1), next_day).await?;
    bench.wait_until_drained(SHARDS).await?;
    let other = Sweeper::open(&bench, "version: \"1\"\nmerchants:\n  m-x: {timezone: UTC, daily_amount: 1}\n")?;
    assert_eq!(other.windows(next_day + 9 * DAY_MS).await?, Rolled::Accounts(0));
    journal.stop()
}

/// As the server runs them: on their thread, by the clock, from the start until they are stopped.
#[tokio::test]
async fn the_sweeps_run_until_they_are_stopped() -> Result<()> {
    let mut bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    let now_ms = clock::now_ms();
    engine.grant("m-1", "o-1", hold(5, 60, OnExpiry::Void), now_ms - 3 * DAY_MS).await?;
    bench.wait_until_drained(SHARDS).await?;
    let (config, policies, metrics) = parts(&bench, POLICIES)?;
    let (stop, shutdown) = shutdown::channel();
    let thread = sluice_jobs::spawn(&config, policies, CreditLines::none(), &metrics, shutdown)?;
    bench.wait_for("SELECT count(*) FROM usage_log WHERE action_type = 'expire'", 1).await?;
    bench.wait_for("SELECT count(*) FROM quota_window WHERE period = 'day' AND merchant_id = 'm-1'", 1).await?;
    // Redis away is a sweep that failed, not the end of all.
    let failed = "sluice_sweep_errors_total{sweep=\"holds\"}";
    testkit::Service::stop(&mut bench.redis)?;
    wait::until_async("a failed sweep", WITHIN, || async { Ok(metrics.encode().contains(failed).then_some(())) })
        .await?;
    testkit::Service::restart(&mut bench.redis)?;
    let engine = Engine::open(&bench)?;
    // An event of half a day ago comes behind none of now: whether a history is complete is read off the first that waits.
    bench.wait_until_drained(SHARDS).await?;
    engine.grant("m-1", "o-2", hold(5, 60, OnExpiry::Void), clock::now_ms() - DAY_MS / 2).await?;
    bench.wait_for("SELECT count(*) FROM usage_log WHERE action_type = 'expire'", 2).await?;
    stop.request();
    thread.join().map_err(|_| Failure::new("the sweeps panicked"))?;
    journal.stop()
}
