//! The table of limits, and their usage as reported in answers.

use crate::{Account, AmountMinor, Code, Limits, Period, Record};

/// What a limit bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// The number of charges in a window.
    Count(Period),
    /// The amount of charges in a window.
    Amount(Period),
    /// The unsettled amount of open holds.
    Pending,
    /// The amount of refunds in a window.
    Refunded(Period),
}

/// The table of limits: calls `$then!` with one row for each, in the order of checks, and with the arguments given.
///
/// A row has the variant of [`LimitName`] (and of [`Code`](crate::Code)), the name in policy files, answers and logs, the
/// column and API member of stored policies, what it bounds, its place in
/// [`ThresholdLevels`](crate::ThresholdLevels) (stored: places are never given to another limit; `none` for a limit without
/// thresholds), the name of its alerts, and its title.
#[macro_export]
macro_rules! for_each_limit {
    ($then:ident!($($arguments:tt)*)) => {
        $then! {
            [
                { DailyCount, daily_count, max_transactions_daily, Count(Day), level 0, "daily_count",
                    "The day's number of payments" }
                { WeeklyCount, weekly_count, max_transactions_weekly, Count(Week), level 7, "weekly_count",
                    "The week's number of payments" }
                { MonthlyCount, monthly_count, max_transactions_monthly, Count(Month), level 1, "monthly_count",
                    "The month's number of payments" }
                { YearlyCount, yearly_count, max_transactions_yearly, Count(Year), level 2, "yearly_count",
                    "The year's number of payments" }
                { DailyAmount, daily_amount, daily_limit, Amount(Day), level 3, "daily", "The day's amount" }
                { WeeklyAmount, weekly_amount, weekly_limit, Amount(Week), level 8, "weekly", "The week's amount" }
                { MonthlyAmount, monthly_amount, monthly_limit, Amount(Month), level 4, "monthly", "The month's amount" }
                { YearlyAmount, yearly_amount, yearly_limit, Amount(Year), level 5, "yearly", "The year's amount" }
                { PendingAmount, pending_amount, max_pending_amount, Pending, level 6, "pending",
                    "The pending amount" }
                { RefundDaily, refund_daily_amount, max_refund_daily, Refunded(Day), none, "refund_daily",
                    "The day's refunds" }
                { RefundMonthly, refund_monthly_amount, max_refund_monthly, Refunded(Month), none, "refund_monthly",
                    "The month's refunds" }
            ]
            $($arguments)*
        }
    };
}

/// Declares [`LimitName`] from the table.
macro_rules! limit_name {
    ([$({
        $variant:ident, $name:ident, $column:ident, $kind:ident $(($period:ident))?, $level:ident $($place:literal)?,
        $alert:literal, $title:literal
    })+]) => {
        /// A limit of a policy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum LimitName {
            $($variant,)+
        }

        impl LimitName {
            /// In the order of checks.
            pub const ALL: [Self; [$($title),+].len()] = [$(Self::$variant),+];

            /// The name in policy files, answers, headers and logs, as in `daily_amount`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($name),)+ }
            }

            /// The column and API member of stored policies, as in `daily_limit`.
            #[must_use]
            pub const fn column(self) -> &'static str {
                match self { $(Self::$variant => stringify!($column),)+ }
            }

            /// The name of its alerts, as in `daily`.
            #[must_use]
            pub const fn alert(self) -> &'static str {
                match self { $(Self::$variant => $alert,)+ }
            }

            /// What it bounds, in words, as in `The day's amount`.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// What it bounds.
            #[must_use]
            pub const fn kind(self) -> LimitKind {
                match self { $(Self::$variant => LimitKind::$kind $((Period::$period))?,)+ }
            }

            /// The code of refusals by it.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$variant,)+ }
            }

            /// Its place in [`ThresholdLevels`](crate::ThresholdLevels); `None` for a limit without thresholds.
            pub(crate) const fn place(self) -> Option<usize> {
                match self { $(Self::$variant => limit_name!(@$level $($place)?),)+ }
            }
        }
    };
    (@level $place:literal) => { Some($place) };
    (@none) => { None };
}

for_each_limit!(limit_name!());

impl LimitName {
    /// The window whose end resets the limit; `None` where only captures and voids free it.
    #[must_use]
    pub const fn period(self) -> Option<Period> {
        match self.kind() {
            LimitKind::Count(period) | LimitKind::Amount(period) | LimitKind::Refunded(period) => Some(period),
            LimitKind::Pending => None,
        }
    }

    /// Whether the limit bounds a number of charges, not an amount.
    #[must_use]
    pub const fn is_count(self) -> bool {
        matches!(self.kind(), LimitKind::Count(_))
    }

    /// Whether every charge counts against it: the others concern holds and refunds.
    #[must_use]
    pub const fn is_of_charges(self) -> bool {
        matches!(self.kind(), LimitKind::Count(_) | LimitKind::Amount(_))
    }

    /// The limit's maximum.
    #[must_use]
    pub const fn max(self, limits: &Limits) -> u64 {
        match self.kind() {
            LimitKind::Count(period) => limits.of(period).count.get(),
            LimitKind::Amount(period) => limits.of(period).amount.get(),
            LimitKind::Refunded(period) => limits.of(period).refunded.get(),
            LimitKind::Pending => limits.pending.get(),
        }
    }

    /// The limit's maximum, to change it.
    #[must_use]
    pub const fn max_mut(self, limits: &mut Limits) -> &mut AmountMinor {
        match self.kind() {
            LimitKind::Count(period) => &mut limits.windows.of_mut(period).count,
            LimitKind::Amount(period) => &mut limits.windows.of_mut(period).amount,
            LimitKind::Refunded(period) => &mut limits.windows.of_mut(period).refunded,
            LimitKind::Pending => &mut limits.pending,
        }
    }

    /// The usage of an account that counts against the limit.
    #[must_use]
    pub const fn used_of(self, account: &Account) -> u64 {
        match self.kind() {
            LimitKind::Count(period) => account.of(period).count,
            LimitKind::Amount(period) => account.of(period).amount,
            LimitKind::Refunded(period) => account.of(period).refunded,
            LimitKind::Pending => account.pending,
        }
    }

    /// The usage that counts against the limit, before and after a decision.
    #[must_use]
    pub const fn used(self, record: &Record) -> (u64, u64) {
        match self.kind() {
            LimitKind::Count(period) => (record.of(period).count_before, record.of(period).count_after),
            LimitKind::Amount(period) => (record.of(period).amount_before, record.of(period).amount_after),
            LimitKind::Refunded(period) => (record.of(period).refunded_before, record.of(period).refunded_after),
            LimitKind::Pending => (record.pending_before, record.pending_after),
        }
    }

    /// Reads the name back; `None` for anything else.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.as_str() == name)
    }

    /// The limit of a refusal's code.
    #[must_use]
    pub fn of_code(code: Code) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.code() == code)
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
