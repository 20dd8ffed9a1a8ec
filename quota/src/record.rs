//! The figures of one decision: what each window held before and after it.

use crate::{Code, Period};

/// One window of an account, before and after a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowFigures {
    /// The window's id: `YYYYMMDD` for a day, `YYYYMM` for a month, `YYYY` for a year.
    pub id: u32,
    /// Consumed amount in minor units.
    pub amount_before: u64,
    pub amount_after: u64,
    /// Number of charges.
    pub count_before: u64,
    pub count_after: u64,
}

/// What a store decided: the answer's code and every counter around it. This is what the Redis script replies and what
/// it appends to the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub code: Code,
    /// The order was charged by an earlier command; this one changed no counter.
    pub replay: bool,
    pub day: WindowFigures,
    pub month: WindowFigures,
    pub year: WindowFigures,
    /// Number of changes of the account so far.
    pub version: u64,
}

impl Record {
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
