use super::*;
use crate::{Period, WindowIds, WindowLimits};

const TRUST: Trust = Trust { above_percent: 20, share_percent: 5, ttl_ms: 2_000 };

fn limits(amount: u64, count: u64) -> Limits {
    let max = |value| AmountMinor::new(value).unwrap();
    Limits::UNLIMITED
        .with(Period::Day, WindowLimits { amount: max(amount), count: max(count), ..WindowLimits::UNLIMITED })
}

fn used(amount: u64, count: u64) -> Account {
    let mut account = Account::default();
    account.consume(amount);
    account.windows.day.count = count;
    account
}

#[test]
fn a_right_is_a_part_of_what_is_left_and_smaller_near_the_threshold() {
    // Of 10,000 by amount and 1,000 by number: used, and the right.
    let share = |amount, count| Some(Share { amount, count });
    let table = [
        ((0, 0), share(500, 50)),
        ((4_000, 400), share(300, 30)),
        ((7_000, 0), share(150, 50)),
        ((7_800, 0), share(100, 50)),
        ((7_900, 0), share(50, 50)),
        ((7_998, 0), share(1, 50)),
        ((7_999, 0), None),
        ((8_000, 0), None),
        ((0, 798), share(500, 1)),
        ((0, 799), None),
        ((10_001, 0), None),
    ];
    for ((amount, count), expected) in table {
        let granted = TRUST.grantable(&used(amount, count), &limits(10_000, 1_000));
        assert_eq!(granted, expected, "{amount} {count}");
    }
}

#[test]
fn every_limit_bounds_a_right() {
    for period in Period::ALL {
        let mut account = Account::default();
        account.windows.of_mut(period).amount = 900;
        let max = WindowLimits { amount: AmountMinor::new(1_000).unwrap(), ..WindowLimits::UNLIMITED };
        assert_eq!(TRUST.grantable(&account, &Limits::UNLIMITED.with(period, max)), None, "{period:?}");
        let unlimited = TRUST.grantable(&account, &Limits::UNLIMITED).unwrap();
        assert!(unlimited.amount > 1 << 48 && unlimited.count > 1 << 48, "{unlimited:?}");
    }
}

#[test]
fn a_holder_takes_what_is_left_until_the_end() {
    let amount = |value| AmountMinor::new(value).unwrap();
    let mut right = HeldRight::new(Share { amount: 10, count: 3 }, 1_000);
    assert!(right.take(amount(6), 0) && !right.take(amount(5), 0));
    assert!(right.take(amount(4), 999) && !right.take(amount(1), 999));
    assert!(right.take(amount(0), 999) && !right.take(amount(0), 999), "a payment of nothing is one");
    assert_eq!(right.left(), Share::default());
    let mut right = HeldRight::new(Share { amount: 10, count: 3 }, 1_000);
    assert!(!right.take(amount(1), 1_000) && right.is_over(1_000));
    assert_eq!(right.left(), Share { amount: 10, count: 3 }, "it can still be returned");
}

/// Steps of an hour; a right lasts for one of them.
const HOURS_OF_A_DAY: u64 = 24;
const LIMIT: u64 = 1_000_000;
const AMOUNT_MAX: u64 = 1_000;
/// What is requested each hour, all holders together: a third more than the limit in a day.
const REQUESTED: u64 = LIMIT * 4 / 3 / HOURS_OF_A_DAY;

/// What came of a simulation.
#[derive(Debug, Default)]
struct Tally {
    days: u64,
    admitted: u64,
    by_right: u64,
    /// The most that was admitted in a day.
    most: u64,
    /// Refused although holders had rights that nothing was taken from.
    shortfall: u64,
    /// Set aside for holders that were lost.
    orphaned: u64,
}

struct Simulation {
    account: Account,
    limits: Limits,
    held: Vec<Option<HeldRight>>,
    /// How much each holder requests of all, in parts of the sum.
    weights: Vec<u64>,
    /// What each holder requested in the last hour.
    requested: Vec<u64>,
    seed: u64,
    tally: Tally,
}

impl Simulation {
    fn new(holders: u16, skewed: bool) -> Self {
        let weights = (1..=u64::from(holders)).map(|number| if skewed { 1_000 / number } else { 1_000 });
        Self {
            account: Account::default(),
            limits: limits(LIMIT, 1_000_000),
            held: vec![None; holders.into()],
            weights: weights.collect(),
            requested: vec![0; holders.into()],
            seed: 0x5eed ^ u64::from(holders),
            tally: Tally::default(),
        }
    }

    fn chance(&mut self, of: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % of
    }

    fn day(&mut self, day: u32) {
        self.account = self.account.rolled(WindowIds { ids: crate::PerPeriod::all(day), since_ms: 0, until_ms: 0 });
        let before = self.tally.admitted;
        for hour in 0..HOURS_OF_A_DAY {
            self.hour(hour);
        }
        // A right never outlives its window.
        self.held.fill(None);
        self.tally.most = self.tally.most.max(self.tally.admitted - before);
        self.tally.days += 1;
    }

    fn hour(&mut self, hour: u64) {
        for holder in 0..self.held.len() {
            self.release(holder, hour);
        }
        let mut left: Vec<u64> = self.requested.iter_mut().map(std::mem::take).collect();
        let sum: u64 = self.weights.iter().sum();
        for (own, weight) in left.iter_mut().zip(&self.weights) {
            *own = REQUESTED * weight / sum;
        }
        // Payments of all holders in turn, as long as they request something.
        while left.iter().any(|left| *left > 0) {
            for (holder, left) in left.iter_mut().enumerate().filter(|(_, left)| **left > 0) {
                let amount = 1 + self.chance(AMOUNT_MAX);
                *left = left.saturating_sub(amount);
                self.requested[holder] += amount;
                self.pay(holder, AmountMinor::new(amount).unwrap(), hour);
            }
        }
        // Now and then a holder is lost, with all that it was granted.
        let unlucky = self.chance(1_000);
        if let Some(right) =
            usize::try_from(unlucky).ok().and_then(|holder| self.held.get_mut(holder)).and_then(Option::take)
        {
            self.tally.orphaned += right.left().amount;
        }
    }

    fn pay(&mut self, holder: usize, amount: AmountMinor, hour: u64) {
        if self.held[holder].as_mut().is_some_and(|right| right.take(amount, hour)) {
            self.tally.admitted += amount.get();
            self.tally.by_right += amount.get();
        } else if self.account.breaks(amount.get(), &self.limits).is_some() {
            let idle = self.held.iter().flatten().map(|right| right.left().amount).max().unwrap_or_default();
            self.tally.shortfall += if idle >= amount.get() { amount.get() } else { 0 };
        } else {
            self.account.charge(amount.get());
            self.tally.admitted += amount.get();
            self.release(holder, u64::MAX);
            self.grant(holder, hour);
        }
    }

    /// What is left of a right that has ended goes back.
    fn release(&mut self, holder: usize, now: u64) {
        if let Some(right) = self.held[holder].take_if(|right| right.is_over(now)) {
            let counted = self.account.origins();
            self.account.give_back_share(right.left(), &counted);
        }
    }

    fn grant(&mut self, holder: usize, hour: u64) {
        let wanted = Share { amount: self.requested[holder].max(AMOUNT_MAX) * 2, count: 100 };
        if let Some(largest) = TRUST.grantable(&self.account, &self.limits) {
            let granted = largest.min(wanted);
            self.account.set_aside(granted);
            self.held[holder] = Some(HeldRight::new(granted, hour + 1));
        }
    }
}

/// However many holders there are, how unequal they are and how many of them are lost: nothing is exceeded, nearly all of the limit is used,
/// and nothing is refused that a right of another holder would have covered. A million hours in all.
#[test]
fn a_million_hours_of_holders() {
    for (holders, skewed) in [(1, false), (4, false), (4, true), (32, false), (32, true)] {
        let mut simulation = Simulation::new(holders, skewed);
        (1..=1_000_000 / 5 / 24).for_each(|day| simulation.day(day));
        let tally = simulation.tally;
        let used = tally.admitted as f64 / (tally.days * LIMIT) as f64;
        let by_right = tally.by_right as f64 / tally.admitted as f64;
        println!("{holders} holders, skewed {skewed}: {used:.4} used, {by_right:.2} of it by rights, {tally:?}");
        assert!(tally.most <= LIMIT, "{tally:?}");
        assert!(used >= 0.97, "{holders} holders, skewed {skewed}: {used}");
        assert_eq!(tally.shortfall, 0, "{holders} holders, skewed {skewed}");
        assert!(by_right > 0.25 && tally.orphaned > 0, "{holders} holders, skewed {skewed}: {by_right} {tally:?}");
    }
}
