//! The record of one decision: each counter before and after it, and the state of the order.

use crate::{Code, CreditRecord, Currency, OrderState, PerPeriod, Period, ThresholdLevels, Weighed};

/// One window of an account, before and after a command. Amounts in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowUsage {
    /// The window's id: `YYYYMMDD` for a day, that of the first day for a week, `YYYYMM` for a month, `YYYY` for a year. 0 for the
    /// week of an account that was stored before weeks were counted.
    pub id: u32,
    /// Number of resets of the window, modulo 256; after the command.
    pub epoch: u8,
    pub amount_before: u64,
    pub amount_after: u64,
    /// Number of charges.
    pub count_before: u64,
    pub count_after: u64,
    /// Amount of refunds made in the window.
    pub refunded_before: u64,
    pub refunded_after: u64,
}

/// The order after a command. All zero where the command concerned no order, or an unknown one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderSummary {
    pub state: OrderState,
    /// When a hold expires, seconds since the epoch.
    pub hold_until_secs: u32,
    pub amount: u64,
    /// Captured of a hold.
    pub settled: u64,
    /// Refunded, and reserved for refunds.
    pub refunded: u64,
}

/// The amount and currency of the first request for an order, capture or refund, where a later command with the same number
/// differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    pub amount: u64,
    pub currency: Currency,
}

/// A store's decision: the answer's code and every counter before and after it. The Redis script returns it and appends it
/// to the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub code: Code,
    /// A repetition of an earlier command; this one changed no counter.
    pub replay: bool,
    pub windows: PerPeriod<WindowUsage>,
    /// The unsettled amount of open holds.
    pub pending_before: u64,
    pub pending_after: u64,
    /// The amount that the command moved, or would have moved: the command's own, or all that was left where it had none.
    pub amount: u64,
    /// What the amount counts against the amount limits, consumed or returned, where that is another figure. `None` also for a
    /// command that neither consumes nor returns quota, and for one that repeats a capture, void or refund.
    pub weighed: Option<Weighed>,
    /// Milliseconds: how long the proxy delays an admitted charge, or after which time a charge that was refused with
    /// [`Code::Throttled`] may be retried.
    pub wait_ms: u64,
    pub order: OrderSummary,
    /// With [`Code::IdempotencyConflict`]: the first request that the command conflicts with.
    pub first: Option<First>,
    /// An outcome of the order was unknown before the command, or had been unknown.
    pub was_unknown: bool,
    /// Milliseconds since the epoch; 0 where the account is not suspended. After a command about a merchant as a whole, this and
    /// the version are the merchant's.
    pub suspended_at_ms: u64,
    /// Whether the merchant is suspended as a whole.
    pub merchant_suspended: bool,
    /// Number of changes of the account so far.
    pub version: u64,
    /// Thresholds that the account's usage has reached.
    pub levels: ThresholdLevels,
    /// What the account uses of its credit line; `None` for one without it.
    pub credit: Option<CreditRecord>,
}

impl Record {
    /// A code without counters.
    #[must_use]
    pub fn bare(code: Code) -> Self {
        Self {
            code,
            replay: false,
            windows: PerPeriod::default(),
            pending_before: 0,
            pending_after: 0,
            amount: 0,
            weighed: None,
            wait_ms: 0,
            order: OrderSummary::default(),
            first: None,
            was_unknown: false,
            suspended_at_ms: 0,
            merchant_suspended: false,
            version: 0,
            levels: ThresholdLevels::default(),
            credit: None,
        }
    }

    /// What the amount counts against the amount limits.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.weighed.map_or(self.amount, |weighed| weighed.counted)
    }

    /// Whether the sum of the order's captures exceeds its hold.
    #[must_use]
    pub fn is_over_captured(&self) -> bool {
        self.order.settled > self.order.amount
    }

    /// The usage of one kind of window.
    #[must_use]
    pub const fn of(&self, period: Period) -> WindowUsage {
        *self.windows.of(period)
    }
}
