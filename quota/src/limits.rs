//! Limits and their usage, as reported in answers.

use crate::{Code, Limits, Period, Record};

/// A limit of a policy, by the name used in answers, headers and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitName {
    DailyCount,
    MonthlyCount,
    YearlyCount,
    DailyAmount,
    MonthlyAmount,
    YearlyAmount,
    PendingAmount,
    RefundDaily,
    RefundMonthly,
}

impl LimitName {
    /// In the order of checks.
    pub const ALL: [Self; 9] = [
        Self::DailyCount,
        Self::MonthlyCount,
        Self::YearlyCount,
        Self::DailyAmount,
        Self::MonthlyAmount,
        Self::YearlyAmount,
        Self::PendingAmount,
        Self::RefundDaily,
        Self::RefundMonthly,
    ];

    /// As in `daily_amount`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DailyCount => "daily_count",
            Self::MonthlyCount => "monthly_count",
            Self::YearlyCount => "yearly_count",
            Self::DailyAmount => "daily_amount",
            Self::MonthlyAmount => "monthly_amount",
            Self::YearlyAmount => "yearly_amount",
            Self::PendingAmount => "pending_amount",
            Self::RefundDaily => "refund_daily_amount",
            Self::RefundMonthly => "refund_monthly_amount",
        }
    }

    /// The window whose end resets the limit; `None` where only captures and voids free it.
    #[must_use]
    pub const fn period(self) -> Option<Period> {
        match self {
            Self::DailyCount | Self::DailyAmount | Self::RefundDaily => Some(Period::Day),
            Self::MonthlyCount | Self::MonthlyAmount | Self::RefundMonthly => Some(Period::Month),
            Self::YearlyCount | Self::YearlyAmount => Some(Period::Year),
            Self::PendingAmount => None,
        }
    }

    /// Whether the limit bounds a number of charges, not an amount.
    #[must_use]
    pub const fn is_count(self) -> bool {
        matches!(self, Self::DailyCount | Self::MonthlyCount | Self::YearlyCount)
    }

    /// The limit's maximum.
    #[must_use]
    pub const fn max(self, limits: &Limits) -> u64 {
        match self {
            Self::DailyCount => limits.day.count.get(),
            Self::MonthlyCount => limits.month.count.get(),
            Self::YearlyCount => limits.year.count.get(),
            Self::DailyAmount => limits.day.amount.get(),
            Self::MonthlyAmount => limits.month.amount.get(),
            Self::YearlyAmount => limits.year.amount.get(),
            Self::PendingAmount => limits.pending.get(),
            Self::RefundDaily => limits.refund_daily.get(),
            Self::RefundMonthly => limits.refund_monthly.get(),
        }
    }

    /// The usage that counts against the limit, before and after a decision.
    #[must_use]
    pub const fn used(self, record: &Record) -> (u64, u64) {
        let Record { day, month, year, .. } = record;
        match self {
            Self::DailyCount => (day.count_before, day.count_after),
            Self::MonthlyCount => (month.count_before, month.count_after),
            Self::YearlyCount => (year.count_before, year.count_after),
            Self::DailyAmount => (day.amount_before, day.amount_after),
            Self::MonthlyAmount => (month.amount_before, month.amount_after),
            Self::YearlyAmount => (year.amount_before, year.amount_after),
            Self::PendingAmount => (record.pending_before, record.pending_after),
            Self::RefundDaily => (day.refunded_before, day.refunded_after),
            Self::RefundMonthly => (month.refunded_before, month.refunded_after),
        }
    }

    /// The limit of a refusal's code.
    #[must_use]
    pub fn of_code(code: Code) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.code() == code)
    }

    const fn code(self) -> Code {
        match self {
            Self::DailyCount => Code::DailyCount,
            Self::MonthlyCount => Code::MonthlyCount,
            Self::YearlyCount => Code::YearlyCount,
            Self::DailyAmount => Code::DailyAmount,
            Self::MonthlyAmount => Code::MonthlyAmount,
            Self::YearlyAmount => Code::YearlyAmount,
            Self::PendingAmount => Code::PendingAmount,
            Self::RefundDaily => Code::RefundDaily,
            Self::RefundMonthly => Code::RefundMonthly,
        }
    }
}

/// One limit around a decision. Amounts in minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitState {
    pub limit: LimitName,
    /// The window's id; 0 for a limit without one.
    pub window: u32,
    pub max: u64,
    pub before: u64,
    pub after: u64,
}

impl LimitState {
    /// The state of one limit.
    #[must_use]
    pub const fn of(limit: LimitName, limits: &Limits, record: &Record) -> Self {
        let window = match limit.period() {
            Some(period) => record.of(period).id,
            None => 0,
        };
        let (before, after) = limit.used(record);
        Self { limit, window, max: limit.max(limits), before, after }
    }

    /// The quota that is left.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.max.saturating_sub(self.after)
    }
}
