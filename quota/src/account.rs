//! The state of one (merchant, currency): its windows, what is pending, its pace and whether it is suspended.

use crate::{AmountMinor, Code, Limits, Marks, Period, WindowFigures, WindowIds};

/// A window that an account was brought back into has an epoch from this on, by the account's version: none that the window had
/// when it was left, unless it was reset as often before.
const BROUGHT_BACK_EPOCH: u8 = 128;
/// So many epochs are there.
const BROUGHT_BACK_EPOCHS: u64 = 100;

/// What a window has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The window's id, see [`WindowIds`].
    pub id: u32,
    /// How often the window was reset, modulo 256: a charge of before a reset is not returned into what came after it.
    pub epoch: u8,
    /// Consumed amount in minor units.
    pub amount: u64,
    /// Number of charges.
    pub count: u64,
    /// Amount of the refunds made in the window, whenever their charges were.
    pub refunded: u64,
}

impl Counter {
    /// The counter as of window `id`: empty once the window has moved on. An earlier window counts as the stored one,
    /// so that a lagging clock never reopens a closed window.
    fn rolled(self, id: u32) -> Self {
        if id > self.id { Self { id, ..Self::default() } } else { self }
    }

    const fn is(&self, origin: Origin) -> bool {
        self.id == origin.id && self.epoch == origin.epoch
    }

    const fn figures(self, after: Self) -> WindowFigures {
        WindowFigures {
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    pub day: Origin,
    pub month: Origin,
    pub year: Origin,
}

impl Origins {
    const fn of(&self, period: Period) -> Origin {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
            Period::Year => self.year,
        }
    }
}

/// The last figures of a window that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedWindow {
    pub period: Period,
    pub counter: Counter,
}

/// The state of one (merchant, currency).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub day: Counter,
    pub month: Counter,
    pub year: Counter,
    /// What open holds have not settled yet; part of the consumed amounts.
    pub pending: u64,
    /// The pace's theoretical arrival time, microseconds since the epoch.
    pub paced_until_us: u64,
    /// Milliseconds since the epoch; 0 where the account is not suspended.
    pub suspended_at_ms: u64,
    /// Number of changes so far.
    pub version: u64,
    /// Thresholds that usage has reached, as of the last change.
    pub marks: Marks,
}

impl Account {
    /// The counter of one kind of window.
    #[must_use]
    pub const fn of(&self, period: Period) -> &Counter {
        match period {
            Period::Day => &self.day,
            Period::Month => &self.month,
            Period::Year => &self.year,
        }
    }

    pub(crate) const fn of_mut(&mut self, period: Period) -> &mut Counter {
        match period {
            Period::Day => &mut self.day,
            Period::Month => &mut self.month,
            Period::Year => &mut self.year,
        }
    }

    /// The account as of the given windows.
    #[must_use]
    pub fn rolled(self, ids: WindowIds) -> Self {
        let (day, month, year) = (self.day.rolled(ids.day), self.month.rolled(ids.month), self.year.rolled(ids.year));
        let mut rolled = Self { day, month, year, ..self };
        for period in Period::ALL {
            if rolled.of(period).id != self.of(period).id {
                rolled.marks = rolled.marks.without(period);
            }
        }
        rolled
    }

    /// The account, which is in windows that have not begun yet, in the given ones. What was counted since stays counted, as it
    /// is of now. Charges and refunds of before are of another epoch or window, so that their return takes nothing out of it.
    pub(crate) fn brought_back(self, ids: WindowIds) -> Self {
        let epoch = u8::try_from(self.version % BROUGHT_BACK_EPOCHS).unwrap_or_default() + BROUGHT_BACK_EPOCH;
        let back = |counter: Counter, id| if counter.id > id { Counter { id, epoch, ..counter } } else { counter };
        let (day, month, year) = (back(self.day, ids.day), back(self.month, ids.month), back(self.year, ids.year));
        Self { day, month, year, ..self }
    }

    /// The windows of `stored` that are over in `self`, with their last figures.
    pub(crate) fn closed_since(&self, stored: &Self) -> Vec<ClosedWindow> {
        let over = |period: &Period| stored.of(*period).id != 0 && self.of(*period).id > stored.of(*period).id;
        let closed = |period| ClosedWindow { period, counter: *stored.of(period) };
        Period::ALL.into_iter().filter(over).map(closed).collect()
    }

    pub(crate) fn origins(&self) -> Origins {
        let origin = |period| Origin { id: self.of(period).id, epoch: self.of(period).epoch };
        Origins { day: origin(Period::Day), month: origin(Period::Month), year: origin(Period::Year) }
    }

    /// The first window limit that a charge would break, in the order of codes.
    pub(crate) fn breaks(&self, amount: AmountMinor, limits: &Limits) -> Option<Code> {
        let count = |period| over(self.of(period).count, 1, limits.of(period).count);
        let sum = |period| over(self.of(period).amount, amount.get(), limits.of(period).amount);
        let checks: [(bool, Code); 6] = [
            (count(Period::Day), Code::DailyCount),
            (count(Period::Month), Code::MonthlyCount),
            (count(Period::Year), Code::YearlyCount),
            (sum(Period::Day), Code::DailyAmount),
            (sum(Period::Month), Code::MonthlyAmount),
            (sum(Period::Year), Code::YearlyAmount),
        ];
        checks.into_iter().find_map(|(broken, code)| broken.then_some(code))
    }

    /// Counts a charge in every window.
    pub(crate) fn charge(&mut self, amount: AmountMinor) {
        self.consume(amount.get());
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

    /// Takes an amount, and with `charge` the charge itself, out of the windows it was counted in, as far as they are still
    /// open.
    pub(crate) fn give_back(&mut self, amount: u64, charge: bool, counted: &Origins) {
        for period in Period::ALL {
            let counter = self.of_mut(period);
            if counter.is(counted.of(period)) {
                counter.amount = counter.amount.saturating_sub(amount);
                counter.count = counter.count.saturating_sub(u64::from(charge));
            }
        }
    }

    /// Counts a refund in every window.
    pub(crate) fn refund(&mut self, amount: u64) {
        Period::ALL.into_iter().for_each(|period| self.of_mut(period).refunded += amount);
    }

    /// Takes a refund out of the figures it was counted in, as far as their windows are still open.
    pub(crate) fn unrefund(&mut self, amount: u64, counted: &Origins) {
        for period in Period::ALL {
            let counter = self.of_mut(period);
            if counter.is(counted.of(period)) {
                counter.refunded = counter.refunded.saturating_sub(amount);
            }
        }
    }

    pub(crate) const fn figures(&self, after: &Self) -> (WindowFigures, WindowFigures, WindowFigures) {
        (self.day.figures(after.day), self.month.figures(after.month), self.year.figures(after.year))
    }
}

/// Whether `used` and `more` together are above `max`.
pub(crate) const fn over(used: u64, more: u64, max: AmountMinor) -> bool {
    more > max.get() || used > max.get() - more
}
