//! Any sequence of commands, stored in batches of any size, some of them again: an alert is open exactly while usage is at or
//! above its threshold.

use std::collections::BTreeSet;
use std::sync::Arc;

use quota::{
    Account, Action, Adjust, AttemptId, Calendar, Change, Command, CounterName, LimitName, Limits, OnExpiry, PerPeriod,
    Period, Reset, ThresholdPolicy, WindowLimits,
};
use sluice_store::Store;
use testkit::Result;

use crate::alerts::{DAY_MS, Hand, minor, watch};
use crate::bench::{AT_MS, Bench};
use crate::engine::{Engine, audit, consume, hold, refund, settle};

const MERCHANTS: [&str; 3] = ["m-1", "m-2", "m-3"];
const COMMANDS: usize = 400;
const LISTS: [&[u32]; 5] = [&[80, 100], &[80, 100], &[50, 80, 90], &[1, 100, 150], &[]];

/// SplitMix64.
struct Random(u64);

impl Random {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// What the accounts go through.
struct Sequence {
    random: Random,
    now_ms: i64,
    number: u64,
    limits: Limits,
    threshold_policy: Arc<ThresholdPolicy>,
    percents: &'static [u32],
}

impl Sequence {
    fn new(seed: u64) -> Result<Self> {
        let (limits, percents) = (Limits::UNLIMITED, LISTS[0]);
        let watch = watch(&limits, percents)?;
        let mut sequence =
            Self { random: Random(seed), now_ms: AT_MS, number: 0, limits, threshold_policy: watch, percents };
        sequence.change_limits()?;
        Ok(sequence)
    }

    fn change_limits(&mut self) -> Result<()> {
        let mut window = |scale: u64| WindowLimits {
            amount: minor(scale * (50 + self.random.below(100))),
            count: minor(scale * (2 + self.random.below(8))),
            ..WindowLimits::UNLIMITED
        };
        let windows = PerPeriod { day: window(1), week: window(2), month: window(3), year: window(9) };
        self.limits = Limits { windows, pending: minor(self.random.below(90)) };
        self.percents = LISTS[self.random.below(LISTS.len() as u64) as usize];
        self.threshold_policy = watch(&self.limits, self.percents)?;
        Ok(())
    }

    fn command(&mut self, engine: &Engine) -> Result<Command> {
        self.number += 1;
        if self.random.below(40) == 0 {
            self.change_limits()?;
        }
        self.now_ms += match self.random.below(60) {
            0 => 8 * DAY_MS,
            1 => DAY_MS,
            _ => 1_000,
        };
        let random = &mut self.random;
        let merchant = MERCHANTS[random.below(3) as usize];
        let amount = 1 + random.below(60);
        let order = format!("o-{}", random.below(12));
        let counter = [CounterName::Amount(Period::Day), CounterName::Count(Period::Month), CounterName::Pending];
        let counter = counter[random.below(3) as usize];
        let number = self.number.to_string();
        let reset = Reset {
            windows: PerPeriod {
                day: amount.is_multiple_of(2),
                week: amount.is_multiple_of(7),
                month: amount.is_multiple_of(3),
                year: amount.is_multiple_of(5),
            },
            expected_version: None,
        };
        let (order, action) = match random.below(20) {
            0..=6 => (order, consume(amount)),
            7 | 8 => (order, hold(amount, 60, OnExpiry::Void)),
            9 => (order, settle(amount, &number, amount.is_multiple_of(2))),
            10 | 11 => (order, Action::Refund(refund(amount, &number))),
            12 => (order, Action::Release(refund(0, &number))),
            13 => (order, Action::VoidAttempt),
            14 => (order, Action::Void),
            15 => (order, Action::Expire),
            16 => (
                String::new(),
                Action::Adjust(Adjust { counter, change: Change::Set(minor(amount)), expected_version: None }),
            ),
            17 => (String::new(), Action::Reset(reset)),
            _ => (String::new(), Action::Roll),
        };
        // A clock may lag.
        let lag_ms = if random.below(10) == 0 { DAY_MS } else { 0 };
        let mut command = engine.command(merchant, &order, action, self.now_ms - lag_ms)?;
        command.attempt = AttemptId::from_text(&format!("{order}-{}", random.below(2)));
        command.threshold_policy = Some(Arc::clone(&self.threshold_policy));
        Ok(command)
    }
}

/// What is open of an account by its own figures: subject, window and threshold.
fn reached(account: &Account, limits: &Limits, percents: &[u32]) -> BTreeSet<(String, i32, i32)> {
    let mut reached = BTreeSet::new();
    for limit in ThresholdPolicy::LIMITS {
        let (window, used) = match (limit.period(), limit) {
            (Some(period), limit) if limit.is_count() => (account.of(period).id, account.of(period).count),
            (Some(period), _) => (account.of(period).id, account.of(period).amount),
            (None, _) => (0, account.pending),
        };
        let max = LimitName::max(limit, limits);
        for percent in percents {
            if used > 0 && u128::from(used) * 100 >= u128::from(max) * u128::from(*percent) {
                reached.insert((limit.as_str().to_owned(), window.cast_signed(), percent.cast_signed()));
            }
        }
    }
    reached
}

async fn open(bench: &Bench, merchant: &str) -> Result<BTreeSet<(String, i32, i32)>> {
    let pool = bench.postgres.pool().await?;
    let statement = "SELECT subject, coalesce(window_id, 0), threshold FROM quota_alert \
        WHERE merchant_id = $1 AND resolved_at IS NULL AND subject <> 'over_capture'";
    let open: Vec<(String, i32, i32)> = sqlx::query_as(statement).bind(merchant).fetch_all(&pool).await?;
    pool.close().await;
    let count = open.len();
    let open: BTreeSet<_> = open.into_iter().collect();
    assert_eq!(open.len(), count, "{merchant} has one open twice");
    Ok(open)
}

async fn run(bench: &Bench, seed: u64) -> Result<usize> {
    let (engine, mut hand) = (Engine::open(bench)?, Hand::open(bench).await?);
    let mut sequence = Sequence::new(seed)?;
    let mut stored = Vec::new();
    let mut seen = 0;
    for number in 0..COMMANDS {
        let command = sequence.command(&engine)?;
        engine.store.apply(&command, &audit("proxy", "")).await?;
        if sequence.random.below(6) > 0 && number + 1 < COMMANDS {
            continue;
        }
        let entries = hand.read().await?;
        hand.store(&entries).await?;
        stored.push(entries);
        if sequence.random.below(4) == 0 {
            let again: Vec<_> = stored.iter().rev().take(3).rev().flatten().cloned().collect();
            hand.store(&again).await?;
        }
        // What an account was not asked for since the limits changed is found by the next change of it.
        for merchant in MERCHANTS {
            let roll = engine.command(merchant, "", Action::Roll, sequence.now_ms)?;
            let roll = Command { threshold_policy: Some(Arc::clone(&sequence.threshold_policy)), ..roll };
            engine.store.apply(&roll, &audit("system:threshold", "")).await?;
        }
        hand.drain().await?;
        for merchant in MERCHANTS {
            let id = quota::MerchantId::parse(merchant)?;
            let Some(account) = engine.store.account(&id, crate::engine::usd()?).await? else { continue };
            assert_eq!(account.windows.day.id, Calendar::UTC.windows_at(sequence.now_ms).ids.day);
            let expected = reached(&account, &sequence.limits, sequence.percents);
            assert_eq!(open(bench, merchant).await?, expected, "seed {seed}, {merchant} after {number}");
            seen += expected.len();
        }
    }
    Ok(seen)
}

#[tokio::test]
async fn an_alert_is_open_exactly_while_usage_is_at_its_threshold() -> Result<()> {
    let mut ends = BTreeSet::new();
    for seed in [1, 2, 3] {
        let bench = Bench::start()?;
        let seen = run(&bench, seed).await?;
        assert!(seen > 100, "only {seen} open alerts were compared");
        let pool = bench.postgres.pool().await?;
        let statement = "SELECT DISTINCT resolve_reason FROM quota_alert WHERE resolved_at IS NOT NULL";
        ends.extend(sqlx::query_scalar::<_, String>(statement).fetch_all(&pool).await?);
        pool.close().await;
    }
    for end in ["adjust", "limit_raised", "refund", "release", "reset", "thresholds_changed", "void", "window_closed"] {
        assert!(ends.contains(end), "nothing ended by {end}: {ends:?}");
    }
    Ok(())
}
