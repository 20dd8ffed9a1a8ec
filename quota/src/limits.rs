//! Limits as figures: what an answer tells of each of them.

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
}

impl LimitName {
    /// In the order of checks.
    pub const ALL: [Self; 6] = [
        Self::DailyCount,
        Self::MonthlyCount,
        Self::YearlyCount,
        Self::DailyAmount,
        Self::MonthlyAmount,
        Self::YearlyAmount,
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
        }
    }

    /// The window that lifts the limit.
    #[must_use]
    pub const fn period(self) -> Period {
        match self {
            Self::DailyCount | Self::DailyAmount => Period::Day,
            Self::MonthlyCount | Self::MonthlyAmount => Period::Month,
            Self::YearlyCount | Self::YearlyAmount => Period::Year,
        }
    }

    /// The limit that a refusal's code names.
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
        }
    }

    const fn counts(self) -> bool {
        matches!(self, Self::DailyCount | Self::MonthlyCount | Self::YearlyCount)
    }
}

/// One limit around a decision. Amounts in minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    pub limit: LimitName,
    /// The window's id.
    pub window: u32,
    pub max: u64,
    pub before: u64,
    pub after: u64,
}

impl Figures {
    /// The figures of one limit.
    #[must_use]
    pub const fn of(limit: LimitName, limits: &Limits, record: &Record) -> Self {
        let window = record.of(limit.period());
        let max = limits.of(limit.period());
        if limit.counts() {
            let (before, after) = (window.count_before, window.count_after);
            Self { limit, window: window.id, max: max.count.get(), before, after }
        } else {
            let (before, after) = (window.amount_before, window.amount_after);
            Self { limit, window: window.id, max: max.amount.get(), before, after }
        }
    }

    /// What may still be consumed.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.max.saturating_sub(self.after)
    }
}
