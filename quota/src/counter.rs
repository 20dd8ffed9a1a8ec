//! The counters of an account, in one table.

use crate::{Account, Period};

/// The table of counters: calls `$then!` with one row for each, in the order of answers, and with the arguments given.
///
/// A row has the name in answers (in the API and in gRPC), the same as a variant, what it counts, and its number in packed
/// commands, which never changes.
#[macro_export]
macro_rules! for_each_counter {
    ($then:ident!($($arguments:tt)*)) => {
        $then! {
            [
                { daily_used, DailyUsed, Amount(Day), 0, "Consumed in the day." }
                { weekly_used, WeeklyUsed, Amount(Week), 10, "Consumed in the week." }
                { monthly_used, MonthlyUsed, Amount(Month), 1, "Consumed in the month." }
                { yearly_used, YearlyUsed, Amount(Year), 2, "Consumed in the year." }
                { pending_amount, PendingAmount, Pending, 9, "What open holds have not settled; part of what is used." }
                { refunded_today, RefundedToday, Refunded(Day), 6, "Refunds made in the day." }
                { refunded_week, RefundedWeek, Refunded(Week), 12, "Refunds made in the week." }
                { refunded_month, RefundedMonth, Refunded(Month), 7, "Refunds made in the month." }
                { refunded_year, RefundedYear, Refunded(Year), 8, "Refunds made in the year." }
                { transactions_today, TransactionsToday, Count(Day), 3, "Number of charges in the day." }
                { transactions_week, TransactionsWeek, Count(Week), 11, "Number of charges in the week." }
                { transactions_month, TransactionsMonth, Count(Month), 4, "Number of charges in the month." }
                { transactions_year, TransactionsYear, Count(Year), 5, "Number of charges in the year." }
            ]
            $($arguments)*
        }
    };
}

/// A counter that can be corrected by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterName {
    Amount(Period),
    Count(Period),
    Refunded(Period),
    Pending,
}

/// Declares what the table says of a counter.
macro_rules! counter_names {
    ([$({ $name:ident, $variant:ident, $kind:ident $(($period:ident))?, $number:literal, $doc:literal })+]) => {
        impl CounterName {
            /// Every counter, in the order of answers.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$kind $((Period::$period))?),+];

            /// The counter's name in answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind $((Period::$period))? => stringify!($name),)+ }
            }

            /// The number in packed commands.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$kind $((Period::$period))? => $number,)+ }
            }
        }
    };
}

for_each_counter!(counter_names!());

impl CounterName {
    /// Reads the name back; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| counter.as_str() == text)
    }

    /// The counter's value in an account.
    #[must_use]
    pub const fn of(self, account: &Account) -> u64 {
        match self {
            Self::Amount(period) => account.of(period).amount,
            Self::Count(period) => account.of(period).count,
            Self::Refunded(period) => account.of(period).refunded,
            Self::Pending => account.pending,
        }
    }

    /// The same, to change it.
    pub(crate) const fn of_mut(self, account: &mut Account) -> &mut u64 {
        match self {
            Self::Amount(period) => &mut account.of_mut(period).amount,
            Self::Count(period) => &mut account.of_mut(period).count,
            Self::Refunded(period) => &mut account.of_mut(period).refunded,
            Self::Pending => &mut account.pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_of_counters_are_theirs_alone() {
        let numbers: BTreeSet<u8> = CounterName::ALL.map(CounterName::number).into();
        assert_eq!(numbers.into_iter().collect::<Vec<_>>(), (0..13).collect::<Vec<u8>>());
    }
}
