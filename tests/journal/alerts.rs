//! `quota_alert`: each movement of usage across a threshold raises one alert or ends it, whatever is stored twice, late or
//! while Postgres is away.

use std::sync::Arc;

use quota::{
    Action, Adjust, AmountMinor, AttemptId, Change, CounterName, Limits, OnExpiry, PerPeriod, Period, Reset, Settle,
    ThresholdPolicy, Thresholds, WindowLimits,
};
use sluice_alerts::{AlertProjection, LimitsInForce};
use sluice_journal::Projection;
use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_journal::reply::Entry;
use sluice_journal::stream::EventStream;
use sluice_lines::EntryProjection;
use sluice_settings::Secret;
use sluice_store::{AuditContext, Store};
use sqlx::postgres::PgListener;
use testkit::{Failure, Result, Service};

use crate::bench::{AT_MS, Bench, SHARDS, SOON, WITHIN, entry, oversized};
use crate::engine::{Engine, audit, consume, hold, refund, settle};

pub(crate) const DAY_MS: i64 = 86_400_000;
pub(crate) const MERCHANT: &str = "m-1";

/// What a journal does, step by step.
pub(crate) struct Hand {
    stream: EventStream,
    pub(crate) log: UsageLog,
}

impl Hand {
    pub(crate) async fn open(bench: &Bench) -> Result<Self> {
        Self::under(bench, None).await
    }

    /// With these limits in force for merchants' own thresholds.
    pub(crate) async fn under(bench: &Bench, limits: Option<Arc<ThresholdPolicy>>) -> Result<Self> {
        let stream = EventStream::connect(&Secret::new(bench.redis.url()), SHARDS, "hand").await?;
        let alerts = AlertProjection::new(Arc::default(), LimitsInForce::new(move |_, _, _| limits.clone()));
        let projections: Vec<Arc<dyn Projection>> = vec![Arc::new(alerts), Arc::new(EntryProjection)];
        let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?.with_projections(projections);
        log.probe().await?;
        Ok(Self { stream, log })
    }

    /// The events since the last time.
    pub(crate) async fn read(&mut self) -> Result<Vec<Entry>> {
        let entries = self.stream.read(10_000, SOON).await?;
        self.stream.note_stored(entries.iter());
        Ok(entries)
    }

    pub(crate) async fn store(&mut self, entries: &[Entry]) -> Result<()> {
        let batch = Batch::read(entries.to_vec());
        assert!(batch.rejected.is_empty(), "{:?}", batch.rejected);
        self.log.store(&batch).await.map(drop).map_err(Failure::from)
    }

    pub(crate) async fn drain(&mut self) -> Result<()> {
        let entries = self.read().await?;
        self.store(&entries).await
    }
}

/// Every alert in its order, as in `daily_80` while it is open and `daily_80: refund` when it is over.
pub(crate) async fn alerts(bench: &Bench) -> Result<Vec<String>> {
    let pool = bench.postgres.pool().await?;
    let statement = "SELECT alert_type || coalesce(': ' || resolve_reason, '') FROM quota_alert ORDER BY alert_id";
    let alerts = sqlx::query_scalar(statement).fetch_all(&pool).await?;
    pool.close().await;
    Ok(alerts)
}

pub(crate) fn watch(limits: &Limits, percents: &[u32]) -> Result<Arc<ThresholdPolicy>> {
    Ok(Arc::new(ThresholdPolicy::new(limits, Thresholds::new(percents.iter().copied())?)))
}

pub(crate) fn minor(amount: u64) -> AmountMinor {
    AmountMinor::new(amount).unwrap_or(AmountMinor::MAX)
}

pub(crate) fn day(amount: u64) -> Limits {
    Limits::UNLIMITED.with(Period::Day, WindowLimits { amount: minor(amount), ..WindowLimits::UNLIMITED })
}

/// One step of a table: some time after the beginning, under limits, something is done to an order, and these alerts are new or have ended since.
struct Step {
    order: &'static str,
    action: Action,
    after_ms: i64,
    limits: Limits,
    percents: &'static [u32],
    news: &'static [&'static str],
}

fn step(order: &'static str, action: Action, news: &'static [&'static str]) -> Step {
    Step { order, action, after_ms: 0, limits: day(100), percents: &[80, 100], news }
}

impl Step {
    const fn after(self, after_ms: i64) -> Self {
        Self { after_ms, ..self }
    }

    const fn on(self, day: i64) -> Self {
        self.after(day * DAY_MS)
    }

    const fn under(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    const fn at(self, percents: &'static [u32]) -> Self {
        Self { percents, ..self }
    }
}

/// Does the steps one after the other; what an alert is reported as replaces what it was reported as before.
async fn check(name: &str, steps: &[Step]) -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let mut expected: Vec<String> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let at_ms = AT_MS + step.after_ms + number as i64;
        let mut command = engine.command(MERCHANT, step.order, step.action, at_ms)?;
        command.threshold_policy = Some(watch(&step.limits, step.percents)?);
        command.attempt = AttemptId::from_text(step.order);
        engine.apply(&command).await?;
        hand.drain().await?;
        for news in step.news {
            let open =
                news.split_once(": ").and_then(|(open, _)| expected.iter_mut().rev().find(|known| *known == open));
            match open {
                Some(known) => *known = (*news).to_owned(),
                None => expected.push((*news).to_owned()),
            }
        }
        let found = alerts(&bench).await?;
        assert_eq!(found, expected, "{name}, step {number}: {:?} {}", step.action, step.order);
    }
    Ok(())
}

#[tokio::test]
async fn payments_and_what_comes_back() -> Result<()> {
    let refund = |amount, number| Action::Refund(refund(amount, number));
    check(
        "payments",
        &[
            step("a", consume(79), &[]),
            step("b", consume(1), &["daily_80"]),
            step("b", consume(1), &[]),
            step("c", consume(20), &["daily_100"]),
            step("c", refund(1, "1"), &["daily_100: refund"]),
            step("c", refund(1, "1"), &[]),
            step("c", refund(19, "2"), &[]),
            step("b", refund(1, "3"), &["daily_80: refund"]),
            step("d", consume(21), &["daily_80", "daily_100"]),
            step("d", Action::VoidAttempt, &["daily_80: void", "daily_100: void"]),
            step("e", consume(121), &["daily_80", "daily_100"]),
            step("e", Action::Release(refund_of(121)), &["daily_80: release", "daily_100: release"]),
        ],
    )
    .await
}

/// The windows of one kind.
fn of(period: Period) -> PerPeriod<bool> {
    PerPeriod::from_fn(|one| one == period)
}

fn refund_of(amount: u64) -> quota::Refund {
    refund(amount, "released")
}

#[tokio::test]
async fn holds_and_captures() -> Result<()> {
    let limits = Limits { pending: minor(50), ..day(200) };
    let capture = |amount| {
        let id = quota::OperationId::of("over");
        Action::Settle(Settle {
            amount: Some(minor(amount)),
            id,
            last: true,
            over_capture_percent: 20,
            reported: false,
        })
    };
    let under = |step: Step| step.under(limits);
    check(
        "holds",
        &[
            under(step("a", hold(45, 60, OnExpiry::Void), &["pending_80"])),
            under(step("b", hold(5, 60, OnExpiry::Void), &["pending_100"])),
            under(step("b", settle(1, "1", true), &["pending_100: settle"])),
            under(step("a", Action::Void, &["pending_80: void"])),
            under(step("c", hold(50, 60, OnExpiry::Settle), &["pending_80", "pending_100"])),
            under(step("c", Action::Expire, &["pending_80: expire", "pending_100: expire"])).after(120_000),
            // A hold that is captured above itself is reported each time, and ended by hand.
            under(step("d", hold(20, 60, OnExpiry::Void), &[])).after(120_000),
            under(step("d", capture(24), &["over_capture"])).after(120_000),
            under(step("d", capture(24), &[])).after(120_000),
        ],
    )
    .await
}

#[tokio::test]
async fn corrections_and_suspensions() -> Result<()> {
    let adjust =
        |change| Action::Adjust(Adjust { counter: CounterName::Amount(Period::Day), change, expected_version: None });
    let reset = Action::Reset(Reset { windows: of(Period::Day), expected_version: None });
    check(
        "by hand",
        &[
            step("", adjust(Change::Add(minor(85))), &["daily_80"]),
            step("", adjust(Change::Set(minor(150))), &["daily_100"]),
            step("", adjust(Change::Subtract(minor(71))), &["daily_80: adjust", "daily_100: adjust"]),
            step("", adjust(Change::Set(minor(100))), &["daily_80", "daily_100"]),
            step("", Action::Suspend, &["suspended"]),
            step("", Action::Suspend, &[]),
            step("", reset, &["daily_80: reset", "daily_100: reset"]),
            step("", Action::Resume, &["suspended: resumed"]),
            step("", Action::Suspend, &["suspended"]),
            // B7: that of the merchant as a whole is another one.
            step("", Action::SuspendMerchant, &["suspended"]),
            step("", Action::SuspendMerchant, &[]),
            step("", Action::ResumeMerchant, &["suspended: resumed"]),
        ],
    )
    .await
}

#[tokio::test]
async fn windows_that_end() -> Result<()> {
    let limits =
        day(100).with(Period::Month, WindowLimits { amount: minor(200), count: minor(3), ..WindowLimits::UNLIMITED });
    let under = |step: Step| step.under(limits);
    let month = Reset { windows: of(Period::Month), expected_version: None };
    check(
        "windows",
        &[
            under(step("a", consume(100), &["daily_80", "daily_100"])),
            under(step(
                "b",
                consume(90),
                &["daily_80: window_closed", "daily_100: window_closed", "daily_80", "monthly_80"],
            ))
            .on(1),
            under(step("", Action::Roll, &["daily_80: window_closed"])).on(2),
            under(step("c", consume(1), &["monthly_count_80", "monthly_count_100"])).on(2),
            // A clock that lags does not end what the next day has begun.
            under(step("d", consume(99), &["daily_80", "daily_100", "monthly_100"])).on(2),
            under(step("e", consume(1), &[])).on(1),
            under(step(
                "",
                Action::Roll,
                &[
                    "daily_80: window_closed",
                    "daily_100: window_closed",
                    "monthly_80: window_closed",
                    "monthly_100: window_closed",
                    "monthly_count_80: window_closed",
                    "monthly_count_100: window_closed",
                ],
            ))
            .on(20),
            // F1: an account that is ahead comes back with its usage, and its alerts end with the window that it is in then.
            under(step("f", consume(100), &["daily_80", "daily_100"])).on(21),
            under(step("", Action::Reset(month), &[])).on(20),
            under(step("", Action::Roll, &["daily_80: window_closed", "daily_100: window_closed"])).on(21),
        ],
    )
    .await
}

#[tokio::test]
async fn limits_and_thresholds_that_change() -> Result<()> {
    let roll = |news| step("", Action::Roll, news);
    check(
        "limits",
        &[
            step("a", consume(60), &[]),
            roll(&[]),
            roll(&["daily_80"]).under(day(70)),
            roll(&["daily_100"]).under(day(60)),
            step("b", consume(1), &["daily_80: limit_raised", "daily_100: limit_raised"]).under(day(1_000)),
            roll(&["daily_80", "daily_100"]).under(day(0)),
            // Without a limit there is nothing to reach.
            roll(&["daily_80: limit_raised", "daily_100: limit_raised"]).under(Limits::UNLIMITED),
            roll(&["daily_60"]).at(&[60, 100]),
            roll(&["daily_60: thresholds_changed", "daily_50", "daily_61"]).at(&[50, 61]),
            // The same percentage of another list goes on.
            roll(&["daily_61: thresholds_changed"]).at(&[50, 62]),
            roll(&["daily_10"]).at(&[10, 50]),
            step("a", Action::Refund(refund(20, "1")), &["daily_50: refund", "daily_40"]).at(&[10, 40, 50]),
            roll(&["daily_10: thresholds_changed", "daily_40: thresholds_changed"]).at(&[]),
        ],
    )
    .await
}

#[tokio::test]
async fn an_alert_says_what_has_happened() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let mut listener = PgListener::connect(&bench.postgres.url()).await?;
    listener.listen("sluice_alert").await?;
    let mut command = engine.command(MERCHANT, "o-1", consume(100_000), AT_MS)?;
    command.threshold_policy = Some(watch(&day(75_000), &[80, 120])?);
    engine.store.apply(&command, &AuditContext { policy_version: "v7".into(), ..audit("proxy", "") }).await?;
    let suspend = engine.command(MERCHANT, "", Action::Suspend, AT_MS + 1)?;
    engine.store.apply(&suspend, &audit("admin:ann", "fraud")).await?;
    hand.drain().await?;
    let raised = "SELECT count(*) FROM quota_alert JOIN usage_log USING (event_id) WHERE \
        (quota_alert.merchant_id, quota_alert.currency, subject, threshold, alert_type, alert_level, window_id, current_used, max, \
            usage_percent, quota_alert.policy_version, raised_seq) = \
        ('m-1', 'USD', 'daily_amount', 120, 'daily_120', 'critical', 20261120, 100000, 75000, 133.3333, 'v7', 1) \
        AND message = 'The day''s amount has reached 120 % of its limit: 1000.00 USD of 750.00 USD, 133.3333 %' \
        AND raised_at = at AND quota_alert.shard = usage_log.shard AND resolved_at IS NULL";
    assert_eq!(bench.count(raised).await?, 1);
    let others = "SELECT count(*) FROM quota_alert WHERE (alert_type, alert_level) = ('daily_80', 'warning') \
        OR ((alert_type, alert_level, message) = ('suspended', 'critical', 'The USD account was suspended by admin:ann: fraud') \
            AND num_nulls(threshold, window_id, current_used, max, usage_percent) = 5)";
    assert_eq!((bench.count(others).await?, bench.count("SELECT count(*) FROM quota_alert").await?), (2, 3));
    let marks = "SELECT count(*) FROM quota_account WHERE alert_marks = 2 * 16 ^ 3 AND alert_list > 0";
    assert_eq!(bench.count(marks).await?, 1);

    // Each beginning and each end is announced when it is there.
    engine.grant(MERCHANT, "", Action::Resume, AT_MS + 2).await?;
    hand.drain().await?;
    let mut announced = Vec::new();
    for _ in 0..4 {
        let id: sqlx::types::Uuid = tokio::time::timeout(WITHIN, listener.recv()).await??.payload().parse()?;
        announced.push(id);
    }
    let ended = "SELECT alert_id FROM quota_alert WHERE resolved_by = 'system' AND resolve_event_id IS NOT NULL";
    let pool = bench.postgres.pool().await?;
    let ended: Vec<sqlx::types::Uuid> = sqlx::query_scalar(ended).fetch_all(&pool).await?;
    assert_eq!(ended, announced[3..]);
    assert!(announced[..3].contains(&ended[0]));
    pool.close().await;
    Ok(())
}

/// What is stored once has raised its alerts once: neither a batch that comes again raises or ends anything, nor an event that
/// comes late ends what began after it.
#[tokio::test]
async fn what_comes_again_or_late_changes_nothing() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let mut batches = Vec::new();
    for (number, (order, action, percents)) in [
        ("a", consume(85), &[80, 100][..]),
        // Another list, of which one threshold is open already.
        ("", Action::Roll, &[70, 80]),
        ("a", Action::Refund(refund(80, "1")), &[70, 80]),
        ("b", consume(90), &[70, 80]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = engine.command(MERCHANT, order, action, AT_MS + number as i64)?;
        command.threshold_policy = Some(watch(&day(100), percents)?);
        engine.apply(&command).await?;
        batches.push(hand.read().await?);
    }
    let [first, second, third, fourth] = batches.as_slice() else { panic!("four batches") };
    let after_third = ["daily_80: refund", "daily_70: refund"];
    for batch in [first, second, first, third, second, first] {
        hand.store(batch).await?;
    }
    assert_eq!(alerts(&bench).await?, after_third);
    hand.store(fourth).await?;
    let open = [&after_third[..], &["daily_70", "daily_80"]].concat();
    assert_eq!(alerts(&bench).await?, open);
    for batch in &batches {
        hand.store(batch).await?;
    }
    assert_eq!(alerts(&bench).await?, open);
    let all: Vec<Entry> = batches.concat();
    hand.store(&all).await?;
    assert_eq!(alerts(&bench).await?, open);

    let late = Bench::start()?;
    let mut hand = Hand::open(&late).await?;
    hand.store(fourth).await?;
    for batch in [third, second, first] {
        hand.store(batch).await?;
    }
    let open_at_last = "SELECT count(*) FROM quota_alert WHERE resolved_at IS NULL AND alert_type IN ('daily_70', 'daily_80') \
        AND raised_seq = 4";
    assert_eq!(late.count(open_at_last).await?, 2);
    Ok(())
}

/// A batch in which Postgres refuses an event is stored in parts, and these in their order: what it raised and ended is over.
#[tokio::test]
async fn a_bad_event_among_them_does_not_change_their_order() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    for (number, action) in [consume(85), Action::Refund(refund(80, "1")), consume(3)].into_iter().enumerate() {
        let order = if number < 2 { "a" } else { "b" };
        let mut command = engine.command(MERCHANT, order, action, AT_MS + number as i64)?;
        command.threshold_policy = Some(watch(&day(100), &[80, 100])?);
        engine.apply(&command).await?;
    }
    let mut entries = hand.read().await?;
    entries.insert(1, entry(oversized(9), 9));
    hand.store(&entries).await?;
    assert_eq!(bench.count("SELECT count(*) FROM journal_rejected").await?, 1);
    assert_eq!(alerts(&bench).await?, ["daily_80: refund"]);
    Ok(())
}

/// An alert that a person has ended by hand is not raised again while usage stays, nor ended twice.
#[tokio::test]
async fn an_end_by_hand_stays() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let mut run = async |order: &str, action, at_ms| -> Result<()> {
        let mut command = engine.command(MERCHANT, order, action, at_ms)?;
        command.threshold_policy = Some(watch(&day(100), &[80, 100])?);
        engine.apply(&command).await?;
        hand.drain().await
    };
    run("a", consume(80), AT_MS).await?;
    let by_hand = "UPDATE quota_alert SET resolved_at = now(), resolved_by = 'ann', resolve_reason = 'by_hand'";
    let pool = bench.postgres.pool().await?;
    sqlx::query(by_hand).execute(&pool).await?;
    pool.close().await;
    run("b", consume(5), AT_MS + 1).await?;
    assert_eq!(alerts(&bench).await?, ["daily_80: by_hand"]);
    run("c", consume(15), AT_MS + 2).await?;
    assert_eq!(alerts(&bench).await?, ["daily_80: by_hand", "daily_100"]);
    run("a", Action::Refund(refund(80, "1")), AT_MS + 3).await?;
    run("d", consume(60), AT_MS + 4).await?;
    assert_eq!(alerts(&bench).await?, ["daily_80: by_hand", "daily_100: refund", "daily_80"]);
    Ok(())
}

/// Nor with another list of thresholds, unless that reports something else.
#[tokio::test]
async fn an_end_by_hand_outlives_the_list_of_thresholds() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let mut run = async |order: &str, action, percents, at_ms| -> Result<()> {
        let mut command = engine.command(MERCHANT, order, action, at_ms)?;
        command.threshold_policy = Some(watch(&day(100), percents)?);
        engine.apply(&command).await?;
        hand.drain().await
    };
    run("a", consume(85), &[80, 100], AT_MS).await?;
    let pool = bench.postgres.pool().await?;
    let by_hand = "UPDATE quota_alert SET resolved_at = now(), resolved_by = 'ann', resolve_reason = 'by_hand'";
    sqlx::query(by_hand).execute(&pool).await?;
    pool.close().await;
    run("b", consume(1), &[50, 80, 90], AT_MS + 1).await?;
    assert_eq!(alerts(&bench).await?, ["daily_80: by_hand", "daily_50"]);
    run("a", Action::Refund(refund(85, "1")), &[50, 80, 90], AT_MS + 2).await?;
    run("c", consume(84), &[50, 80, 90], AT_MS + 3).await?;
    assert_eq!(alerts(&bench).await?, ["daily_80: by_hand", "daily_50: refund", "daily_50", "daily_80"]);
    // The one that a person ended has been reported again since.
    run("d", consume(1), &[80, 100], AT_MS + 4).await?;
    let expected = ["daily_80: by_hand", "daily_50: refund", "daily_50: thresholds_changed", "daily_80"];
    assert_eq!(alerts(&bench).await?, expected);
    Ok(())
}

/// Thousands of accounts cross in one batch: one statement raises their alerts, one ends them.
#[tokio::test]
async fn a_crowd_crosses_at_once() -> Result<()> {
    const ACCOUNTS: usize = 3_000;
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let watch = watch(&day(100), &[80, 100])?;
    let run = async |number: usize, order: &str, action, at_ms| -> Result<()> {
        let mut command = engine.command(&format!("m-{number}"), order, action, at_ms)?;
        command.threshold_policy = Some(Arc::clone(&watch));
        engine.apply(&command).await.map(drop)
    };
    for number in 0..ACCOUNTS {
        run(number, "a", consume(100), AT_MS).await?;
    }
    let began = std::time::Instant::now();
    hand.drain().await?;
    println!("{ACCOUNTS} accounts crossed two thresholds each, stored in {:?}", began.elapsed());
    assert_eq!(bench.count("SELECT count(*) FROM quota_alert WHERE resolved_at IS NULL").await?, 2 * ACCOUNTS as i64);
    for number in 0..ACCOUNTS {
        run(number, "a", Action::VoidAttempt, AT_MS + 1).await?;
    }
    hand.drain().await?;
    assert_eq!(
        bench.count("SELECT count(*) FROM quota_alert WHERE resolve_reason = 'void'").await?,
        2 * ACCOUNTS as i64
    );
    Ok(())
}

/// Alerts wait for Postgres with their events, and are there once when it is; a journal that dies in between leaves them to
/// the next.
#[tokio::test]
async fn alerts_wait_for_postgres_and_outlive_their_journal() -> Result<()> {
    let mut bench = Bench::start()?;
    let engine = Engine::open(&bench)?;
    let pay = async |order: &str, amount| -> Result<()> {
        let mut command = engine.command(MERCHANT, order, consume(amount), AT_MS)?;
        command.threshold_policy = Some(watch(&day(100), &[80, 100])?);
        engine.apply(&command).await.map(drop)
    };
    let journal = bench.journal("a")?;
    pay("a", 50).await?;
    bench.wait_until_drained(SHARDS).await?;
    bench.postgres.stop()?;
    pay("b", 30).await?;
    journal.wait_for_postgres(false).await?;
    bench.postgres.restart()?;
    bench.wait_until_drained(SHARDS).await?;
    assert_eq!(alerts(&bench).await?, ["daily_80"]);
    journal.stop()?;

    // One dies after its commit and before the removal, another takes its events over.
    pay("c", 20).await?;
    let mut dead = Hand::open(&bench).await?;
    dead.drain().await?;
    drop(dead);
    let journal = bench.journal("heir")?;
    bench.wait_until_drained(SHARDS).await?;
    journal.wait_for_metric("sluice_journal_duplicates_total 1").await?;
    assert_eq!(alerts(&bench).await?, ["daily_80", "daily_100"]);
    journal.stop()
}
