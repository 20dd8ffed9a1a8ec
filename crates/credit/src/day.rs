//! Business dates: differences in days, and ids of the form `YYYYMMDD`.

use jiff::Span;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Identifies a cycle: `YYYYMMDD` of its first day, as the ids of other windows. A later cycle has a larger id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct CycleId(pub u32);

impl CycleId {
    /// The id of the cycle that begins on a day.
    #[must_use]
    pub fn of(first_day: Date) -> Self {
        let [month, day] = [first_day.month(), first_day.day()].map(|part| u32::from(part.unsigned_abs()));
        Self((u32::from(first_day.year().unsigned_abs()) * 100 + month) * 100 + day)
    }
}

/// The number of days from one date to another: negative where the other is earlier.
pub(crate) fn days_between(from: Date, to: Date) -> i64 {
    from.duration_until(to).as_secs() / 86_400
}

/// The date so many days later. The first or last of all dates where there is none.
pub(crate) fn plus_days(date: Date, days: i64) -> Date {
    let none = if days < 0 { Date::MIN } else { Date::MAX };
    Span::new().try_days(days).ok().and_then(|span| date.checked_add(span).ok()).unwrap_or(none)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_are_counted_over_month_ends_and_leap_days() {
        let table = [
            (date(2026, 1, 31), date(2026, 2, 1), 1),
            (date(2028, 2, 28), date(2028, 3, 1), 2),
            (date(2027, 2, 28), date(2027, 3, 1), 1),
            (date(2026, 12, 31), date(2027, 1, 1), 1),
            (date(2026, 1, 1), date(2027, 1, 1), 365),
            (date(2028, 1, 1), date(2029, 1, 1), 366),
            (date(2026, 3, 1), date(2026, 3, 1), 0),
            (date(2026, 3, 1), date(2026, 2, 1), -28),
        ];
        for (from, to, days) in table {
            assert_eq!(days_between(from, to), days, "{from} {to}");
            assert_eq!(plus_days(from, days), to, "{from} {days}");
        }
        assert_eq!(plus_days(date(2026, 1, 1), i64::MAX), Date::MAX);
        assert_eq!(plus_days(date(2026, 1, 1), i64::MIN), Date::MIN);
        assert_eq!(CycleId::of(date(2026, 11, 5)), CycleId(20_261_105));
    }
}
