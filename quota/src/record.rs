//! The figures of one decision: what each counter held before and after it, and how the order stands.

use crate::{Code, Currency, Marks, OrderState, Period};

/// One window of an account, before and after a command. Amounts in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowFigures {
    /// The window's id: `YYYYMMDD` for a day, `YYYYMM` for a month, `YYYY` for a year.
    pub id: u32,
    /// How often the window was reset, modulo 256; after the command.
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

/// The order after a command. All zero where the command was about none, or about an unknown one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderFigures {
    pub state: OrderState,
    /// When a hold ends by itself, seconds since the epoch.
    pub hold_until_secs: u32,
    pub amount: u64,
    /// Captured of a hold.
    pub settled: u64,
    /// Refunded, and reserved for refunds.
    pub refunded: u64,
}

/// What an order, or a capture or refund of it, was taken with at first, where a command asks for something else under the same
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    pub amount: u64,
    pub currency: Currency,
}

/// What a store decided: the answer's code and every counter around it. This is what the Redis script replies and what
/// it appends to the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub code: Code,
    /// An earlier command did this already; this one changed no counter.
    pub replay: bool,
    pub day: WindowFigures,
    pub month: WindowFigures,
    pub year: WindowFigures,
    /// What open holds have not settled.
    pub pending_before: u64,
    pub pending_after: u64,
    /// The amount that the command moved, or would have: that of the command, or all that was left where it named none.
    pub amount: u64,
    /// Milliseconds: how long the proxy holds an admitted charge back, or after which time one that was refused with
    /// [`Code::Throttled`] may come again.
    pub wait_ms: u64,
    pub order: OrderFigures,
    /// With [`Code::IdempotencyConflict`] what the command conflicts with.
    pub first: Option<First>,
    /// An outcome of the order was unknown before the command, or had been.
    pub was_unknown: bool,
    /// Milliseconds since the epoch; 0 where the account is not suspended. After a command about a merchant as a whole it is the
    /// merchant's, as is the number of changes.
    pub suspended_at_ms: u64,
    /// Whether the merchant is suspended as a whole.
    pub merchant_suspended: bool,
    /// Number of changes of the account so far.
    pub version: u64,
    /// Thresholds that the account's usage has reached.
    pub marks: Marks,
}

impl Record {
    /// A code without figures.
    #[must_use]
    pub fn bare(code: Code) -> Self {
        Self {
            code,
            replay: false,
            day: WindowFigures::default(),
            month: WindowFigures::default(),
            year: WindowFigures::default(),
            pending_before: 0,
            pending_after: 0,
            amount: 0,
            wait_ms: 0,
            order: OrderFigures::default(),
            first: None,
            was_unknown: false,
            suspended_at_ms: 0,
            merchant_suspended: false,
            version: 0,
            marks: Marks::default(),
        }
    }

    /// Whether the order's captures are together more than its hold was.
    #[must_use]
    pub fn is_over_captured(&self) -> bool {
        self.order.settled > self.order.amount
    }

    /// The figures of one kind of window.
    #[must_use]
    pub const fn of(&self, period: Period) -> WindowFigures {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
            Period::Year => self.year,
        }
    }
}
