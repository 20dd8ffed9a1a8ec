//! The state of one (merchant, currency): its windows, what is pending, its pace and whether it is suspended.

use crate::{
    AmountMinor, ClosedCycle, Code, CreditTerms, CreditUsage, LimitKind, LimitName, Limits, PerPeriod, Period, Share,
    ThresholdLevels, WindowIds, WindowUsage,
};

/// First epoch of a window that an account was moved back into. The account's version selects the epoch from here on, so that it
/// differs from the one the window had before, unless the window was reset as often.
pub const BROUGHT_BACK_EPOCH: u8 = 128;
/// Number of such epochs.
pub const BROUGHT_BACK_EPOCHS: u64 = 100;

/// What a window has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The window's id, see [`WindowIds`].
    pub id: u32,
    /// Number of resets of the window, modulo 256. A charge made before a reset is not returned to the window after it.
    pub epoch: u8,
    /// Consumed amount in minor units.
    pub amount: u64,
    /// Number of charges.
    pub count: u64,
    /// Amount of the refunds made in the window, whenever their charges were made.
    pub refunded: u64,
}

impl Counter {
    /// The counter as of window `id`: empty in a later window. An earlier window is treated as the stored one, so that a
    /// lagging clock never reopens a closed window.
    fn rolled(self, id: u32) -> Self {
        if id > self.id { Self { id, ..Self::default() } } else { self }
    }

    const fn is(&self, origin: Origin) -> bool {
        self.id == origin.id && self.epoch == origin.epoch
    }

    const fn usage(self, after: Self) -> WindowUsage {
        WindowUsage {
            id: after.id,
            epoch: after.epoch,
            amount_before: self.amount,
            amount_after: after.amount,
            count_before: self.count,
            count_after: after.count,
            refunded_before: self.refunded,
            refunded_after: after.refunded,
        }
    }
}

/// One window at the time of a charge or refund.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub id: u32,
    pub epoch: u8,
}

/// The windows that a charge or refund was counted in.
pub type Origins = PerPeriod<Origin>;

/// The final counters of a closed window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedWindow {
    pub period: Period,
    pub counter: Counter,
}

/// The state of one (merchant, currency).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub windows: PerPeriod<Counter>,
    /// The amount of open holds that is not settled yet; part of the consumed amounts.
    pub pending: u64,
    /// The pace's theoretical arrival time, microseconds since the epoch.
    pub paced_until_us: u64,
    /// Milliseconds since the epoch; 0 where the account is not suspended.
    pub suspended_at_ms: u64,
    /// Number of changes so far.
    pub version: u64,
    /// Thresholds that usage had reached at the last change.
    pub levels: ThresholdLevels,
    /// What it uses of its credit line; `None` where no command has had one.
    pub credit: Option<CreditUsage>,
}

impl Account {
    /// The counter of one kind of window.
    #[must_use]
    pub const fn of(&self, period: Period) -> &Counter {
        self.windows.of(period)
    }

    pub(crate) const fn of_mut(&mut self, period: Period) -> &mut Counter {
        self.windows.of_mut(period)
    }

    /// The account as of the given windows.
    #[must_use]
    pub fn rolled(self, ids: WindowIds) -> Self {
        let windows = PerPeriod::from_fn(|period| self.of(period).rolled(*ids.ids.of(period)));
        let mut rolled = Self { windows, ..self };
        for period in Period::ALL {
            if rolled.of(period).id != self.of(period).id {
                rolled.levels = rolled.levels.without(period);
            }
        }
        rolled
    }

    /// The account as of the credit line's billing cycle. With the first command that has a line it begins to keep the exposure.
    #[must_use]
    pub(crate) fn with_credit(self, terms: Option<&CreditTerms>) -> Self {
        let credit = match terms {
            Some(terms) => Some(self.credit.unwrap_or_default().rolled(terms.cycle)),
            None => self.credit,
        };
        Self { credit, ..self }
    }

    /// Moves an account that is in windows that have not begun yet into the given ones. What was counted since stays counted.
    /// Earlier charges and refunds belong to another epoch or window, so returning them takes nothing out of it.
    pub(crate) fn brought_back(self, ids: WindowIds) -> Self {
        let epoch = u8::try_from(self.version % BROUGHT_BACK_EPOCHS).unwrap_or_default() + BROUGHT_BACK_EPOCH;
        let back = |counter: Counter, id| if counter.id > id { Counter { id, epoch, ..counter } } else { counter };
        Self { windows: PerPeriod::from_fn(|period| back(*self.of(period), *ids.ids.of(period))), ..self }
    }

    /// The windows of `stored` that are closed in `self`, with their final counters.
    pub(crate) fn closed_since(&self, stored: &Self) -> Vec<ClosedWindow> {
        let over = |period: &Period| stored.of(*period).id != 0 && self.of(*period).id > stored.of(*period).id;
        let closed = |period| ClosedWindow { period, counter: *stored.of(period) };
        Period::ALL.into_iter().filter(over).map(closed).collect()
    }

    /// The billing cycle of `stored` that is closed in `self`.
    pub(crate) fn closed_cycle_since(&self, stored: &Self) -> Option<ClosedCycle> {
        let (before, after) = stored.credit.zip(self.credit)?;
        let is_closed = before.cycle != 0 && after.cycle > before.cycle;
        is_closed.then_some(ClosedCycle { cycle: before.cycle, amount: before.unbilled })
    }

    pub(crate) fn origins(&self) -> Origins {
        self.windows.map(|counter| Origin { id: counter.id, epoch: counter.epoch })
    }

    /// The first window limit that a charge would break, in the order of codes.
    pub(crate) fn breaks(&self, counted: u64, limits: &Limits) -> Option<Code> {
        let broken = |limit: &LimitName| match limit.kind() {
            LimitKind::Count(period) => over(self.of(period).count, 1, limits.of(period).count),
            LimitKind::Amount(period) => over(self.of(period).amount, counted, limits.of(period).amount),
            LimitKind::Pending | LimitKind::Refunded(_) => false,
        };
        LimitName::ALL.into_iter().find(broken).map(LimitName::code)
    }

    /// Counts a charge in every window.
    pub(crate) fn charge(&mut self, counted: u64) {
        self.consume(counted);
        Period::ALL.into_iter().for_each(|period| self.of_mut(period).count += 1);
    }

    /// Adds to what every window has consumed.
    pub(crate) fn consume(&mut self, amount: u64) {
        Period::ALL.into_iter().for_each(|period| self.of_mut(period).amount += amount);
    }

    /// Whether every window can count this much more.
    pub(crate) fn holds(&self, more: u64) -> bool {
        Period::ALL.into_iter().all(|period| !over(self.of(period).amount, more, AmountMinor::MAX))
    }

    /// Counts a right in every window.
    pub(crate) fn set_aside(&mut self, share: Share) {
        self.consume(share.amount);
        Period::ALL.into_iter().for_each(|period| self.of_mut(period).count += share.count);
    }

    /// Counts a charge that was made without a decision, whatever is left: as far as counters go.
    pub(crate) fn charge_anyway(&mut self, counted: u64) {
        for period in Period::ALL {
            let counter = self.of_mut(period);
            counter.amount = (counter.amount + counted).min(AmountMinor::MAX.get());
            counter.count = (counter.count + 1).min(AmountMinor::MAX.get());
        }
    }

    /// Takes an amount, and with `charge` the charge itself, out of the windows it was counted in, if they are still open.
    pub(crate) fn give_back(&mut self, amount: u64, charge: bool, counted: &Origins) {
        self.give_back_share(Share { amount, count: u64::from(charge) }, counted);
    }

    /// Takes what a right has left out of the windows it was counted in, if they are still open.
    pub(crate) fn give_back_share(&mut self, share: Share, counted: &Origins) {
        for period in Period::ALL {
            let counter = self.of_mut(period);
            if counter.is(*counted.of(period)) {
                counter.amount = counter.amount.saturating_sub(share.amount);
                counter.count = counter.count.saturating_sub(share.count);
            }
        }
    }

    /// Counts a refund in every window.
    pub(crate) fn refund(&mut self, amount: u64) {
        Period::ALL.into_iter().for_each(|period| self.of_mut(period).refunded += amount);
    }

    /// Takes a refund out of the counters it was counted in, if their windows are still open.
    pub(crate) fn unrefund(&mut self, amount: u64, counted: &Origins) {
        for period in Period::ALL {
            let counter = self.of_mut(period);
            if counter.is(*counted.of(period)) {
                counter.refunded = counter.refunded.saturating_sub(amount);
            }
        }
    }

    pub(crate) fn usage(&self, after: &Self) -> PerPeriod<WindowUsage> {
        PerPeriod::from_fn(|period| self.of(period).usage(*after.of(period)))
    }
}

/// Whether `used + more` is above `max`.
pub(crate) const fn over(used: u64, more: u64, max: AmountMinor) -> bool {
    more > max.get() || used > max.get() - more
}
