//! Amounts and limits of generated commands, near to what would just fit.

use quota::{
    Account, Action, Adjust, AmountMinor, Change, CounterName, Limits, Pace, PerPeriod, Period, Reset, ThresholdPolicy,
    Thresholds, WindowLimits,
};

use testkit::random::Random;

pub(crate) const MAX: u64 = AmountMinor::MAX.get();

/// An amount, as large as one may be at most.
pub(crate) fn amount(minor: u64) -> AmountMinor {
    AmountMinor::new(minor.min(MAX)).unwrap()
}

pub(crate) fn limits(random: &mut Random, scale: u64) -> Limits {
    Limits { windows: PerPeriod::from_fn(|_| window_limits(random, scale)), pending: limit(random, scale) }
}

fn window_limits(random: &mut Random, scale: u64) -> WindowLimits {
    WindowLimits { amount: limit(random, scale), count: limit(random, 40), ..WindowLimits::UNLIMITED }
}

fn limit(random: &mut Random, scale: u64) -> AmountMinor {
    amount(match random.below(12) {
        0 => 0,
        1..=7 => MAX,
        8 => scale,
        _ => random.below(scale + 1),
    })
}

pub(crate) fn charge_amount(random: &mut Random, account: &Account, limits: &Limits, scale: u64) -> AmountMinor {
    let left = |period| limits.of(period).amount.get().saturating_sub(account.of(period).amount);
    let [day, week, month, year] = Period::ALL.map(left);
    let near = random.pick(&[day, week, month, year, limits.pending.get().saturating_sub(account.pending)]);
    amount(match random.below(12) {
        0..=2 => random.near(near),
        3..=9 => random.below(scale / 8 + 2),
        10 if random.one_in(3) => MAX - random.below(3),
        _ => random.below(3),
    })
}

/// Limits under which some usage is at, just above or just below a threshold.
pub(crate) fn watch(random: &mut Random, account: &Account, scale: u64) -> Option<ThresholdPolicy> {
    let lists: [&[u32]; 6] =
        [&[80, 100], &[80, 100], &[1], &[50, 80, 100, 150, 1_000], &[], &[3, 10, 30, 33, 50, 66, 70, 99]];
    let thresholds = Thresholds::new(random.pick(&lists).iter().copied()).unwrap();
    let mut max = |used: u64, scale: u64| {
        let percent = thresholds.percents().first().map_or(100, |percent| u64::from(*percent));
        let meets = u64::try_from(u128::from(used) * 100 / u128::from(percent)).unwrap_or(MAX).min(MAX);
        amount(match random.below(6) {
            0 | 1 => MAX,
            2 => random.near(used),
            3 | 4 => random.near(meets),
            _ => random.below(scale + 1),
        })
    };
    let mut window = |period| {
        let counter = account.of(period);
        WindowLimits { amount: max(counter.amount, scale), count: max(counter.count, 40), ..WindowLimits::UNLIMITED }
    };
    let windows = PerPeriod::from_fn(&mut window);
    let limits = Limits { windows, pending: max(account.pending, scale) };
    let mut maxima = *ThresholdPolicy::new(&limits, thresholds).maxima();
    // Often there is one limit only, so that what it reaches is all that is reached.
    if random.one_in(3) {
        let only = random.below(maxima.len() as u64) as usize;
        maxima.iter_mut().enumerate().filter(|(place, _)| *place != only).for_each(|(_, max)| *max = AmountMinor::MAX);
    }
    random.percent(90).then(|| ThresholdPolicy::of(maxima, thresholds))
}

/// A pace of any kind, with ceilings at or above the limits.
pub(crate) fn pace(random: &mut Random, limits: &Limits, scale: u64) -> Pace {
    let interval_us = random.pick(&[1, 999, 1_001, 250_000, 8_571_428, 60_000_000, 60_000_000, 60_000_000]);
    let mut raised = |max: AmountMinor| match random.below(3) {
        0 => max,
        1 => amount(max.get() + random.below(scale + 1)),
        _ => AmountMinor::MAX,
    };
    let window = |limits: &WindowLimits| WindowLimits {
        amount: raised(limits.amount),
        count: raised(limits.count),
        ..WindowLimits::UNLIMITED
    };
    let ceiling = Limits { windows: limits.windows.map(window), ..Limits::UNLIMITED };
    Pace {
        interval_us,
        tolerance_us: u64::from(interval_us) * random.below(4) + random.below(2),
        delay_ms_max: random.pick(&[0, 1, 1_500, 30_000]),
        ceiling,
    }
}

/// Limits of a refund of about `minor`, now and then just enough or just not.
pub(crate) fn refund_limits(random: &mut Random, account: &Account, minor: u64) -> (AmountMinor, AmountMinor) {
    let mut limit = |refunded: u64| match random.below(8) {
        0 => random.near(refunded.saturating_add(minor)),
        1 => random.below(3),
        _ => MAX,
    };
    (amount(limit(account.windows.day.refunded)), amount(limit(account.windows.month.refunded)))
}

pub(crate) fn account_action(random: &mut Random, account: &Account, scale: u64) -> Action {
    let suspended = account.suspended_at_ms > 0;
    match random.below(20) {
        0..=4 => Action::Adjust(adjust(random, account, scale)),
        5..=9 => Action::Reset(reset(random, account)),
        // Not for long: a suspended account takes no charge.
        10 => Action::Suspend,
        11..=14 if suspended => Action::Resume,
        11 => Action::Resume,
        12..=15 => Action::Initialize,
        _ => Action::Roll,
    }
}

fn adjust(random: &mut Random, account: &Account, scale: u64) -> Adjust {
    let counter = random.pick(&CounterName::ALL);
    let value = counter.of(account);
    let minor = match random.below(8) {
        0 => random.near(value),
        1 => random.near(MAX - value),
        2 => 0,
        _ => random.below(scale / 8 + 2),
    };
    let change = match random.below(3) {
        0 => Change::Add(amount(minor)),
        1 => Change::Subtract(amount(minor)),
        _ => Change::Set(amount(minor)),
    };
    Adjust { counter, change, expected_version: version(random, account) }
}

fn version(random: &mut Random, account: &Account) -> Option<u64> {
    match random.below(4) {
        0 => Some(account.version),
        1 => Some(random.near(account.version)),
        _ => None,
    }
}

fn reset(random: &mut Random, account: &Account) -> Reset {
    let bits = random.below(16);
    let windows = PerPeriod::from_fn(|period| bits >> period.number() & 1 == 1);
    Reset { windows, expected_version: version(random, account) }
}

pub(crate) const fn reset_of_day() -> Action {
    let windows = PerPeriod { day: true, week: false, month: false, year: false };
    Action::Reset(Reset { windows, expected_version: None })
}
