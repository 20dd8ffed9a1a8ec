//! Cycles of repayment: which one contains a date, where it begins and ends, and when its statement is due.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::day::{days_between, plus_days};
use crate::invalid::within;
use crate::{CycleId, InvalidMember};

/// How long a cycle lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CycleRule {
    /// Cycles begin on this day of each month, 1 to 28. The first one begins when the line is opened, and may be short.
    Monthly { day: i8 },
    /// Cycles of so many days, the first one from the day on which the line is opened.
    EveryDays { days: u16 },
}

/// One cycle of a credit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// 1 for the first one.
    pub number: u32,
    pub first_day: Date,
    pub last_day: Date,
}

impl CycleRule {
    /// The last day of a month on which every month has a cycle begin.
    pub const DAY_MAX: i8 = 28;
    /// The most days of a cycle.
    pub const DAYS_MAX: u16 = 366;

    /// The cycle that contains a date; `None` before the line is opened.
    #[must_use]
    pub fn cycle_at(self, opened_on: Date, date: Date) -> Option<Cycle> {
        if date < opened_on {
            return None;
        }
        match self {
            Self::Monthly { day } => Some(monthly(day, opened_on, date)),
            Self::EveryDays { days } => Some(every_days(i64::from(days.max(1)), opened_on, date)),
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`InvalidMember`] names the one that is out of range.
    pub fn validate(self) -> Result<(), InvalidMember> {
        match self {
            Self::Monthly { day } => within("cycle.monthly.day", day.into(), 1, Self::DAY_MAX.into()),
            Self::EveryDays { days } => within("cycle.every_days.days", days.into(), 1, Self::DAYS_MAX.into()),
        }
    }
}

fn monthly(day: i8, opened_on: Date, date: Date) -> Cycle {
    let begin = month_begin(day, date);
    let months = month_number(begin) - month_number(month_begin(day, opened_on));
    let next = month_begin(day, plus_days(begin, 31));
    Cycle {
        number: u32::try_from(months).unwrap_or(0).saturating_add(1),
        first_day: begin.max(opened_on),
        last_day: plus_days(next, -1),
    }
}

/// The last such day of a month on or before a date.
fn month_begin(day: i8, date: Date) -> Date {
    let day = day.clamp(1, CycleRule::DAY_MAX);
    let month = if date.day() >= day { date } else { plus_days(date.first_of_month(), -1) };
    plus_days(month.first_of_month(), i64::from(day) - 1)
}

fn month_number(date: Date) -> i32 {
    i32::from(date.year()) * 12 + i32::from(date.month())
}

fn every_days(days: i64, opened_on: Date, date: Date) -> Cycle {
    let before = days_between(opened_on, date) / days;
    let first_day = plus_days(opened_on, before * days);
    Cycle {
        number: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1),
        first_day,
        last_day: plus_days(first_day, days - 1),
    }
}

impl Cycle {
    /// The cycle's id.
    #[must_use]
    pub fn id(&self) -> CycleId {
        CycleId::of(self.first_day)
    }

    /// The first day of the next cycle.
    #[must_use]
    pub fn next_first_day(&self) -> Date {
        plus_days(self.last_day, 1)
    }

    /// The date of the statement: the last day. It is the same however late the close is recorded.
    #[must_use]
    pub const fn closed_on(&self) -> Date {
        self.last_day
    }

    /// The date on which the statement is due.
    #[must_use]
    pub fn due_on(&self, due_days: u16) -> Date {
        plus_days(self.closed_on(), due_days.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn cycles_begin_on_their_day() {
        use CycleRule::{EveryDays, Monthly};
        let (first, fifteenth, last) = (Monthly { day: 1 }, Monthly { day: 15 }, Monthly { day: 28 });
        let (week, month) = (EveryDays { days: 7 }, EveryDays { days: 30 });
        let table = [
            // rule, opened, date, number, first and last day, due 14 days later
            (first, "2026-01-01", "2026-01-31", 1, "2026-01-01", "2026-01-31", "2026-02-14"),
            (first, "2026-01-01", "2026-02-01", 2, "2026-02-01", "2026-02-28", "2026-03-14"),
            // The first one is short.
            (first, "2026-01-20", "2026-01-20", 1, "2026-01-20", "2026-01-31", "2026-02-14"),
            (first, "2026-01-31", "2026-01-31", 1, "2026-01-31", "2026-01-31", "2026-02-14"),
            (first, "2026-01-20", "2026-02-01", 2, "2026-02-01", "2026-02-28", "2026-03-14"),
            (fifteenth, "2026-01-10", "2026-01-14", 1, "2026-01-10", "2026-01-14", "2026-01-28"),
            (fifteenth, "2026-01-10", "2026-01-15", 2, "2026-01-15", "2026-02-14", "2026-02-28"),
            (fifteenth, "2026-01-15", "2026-01-15", 1, "2026-01-15", "2026-02-14", "2026-02-28"),
            (fifteenth, "2026-01-31", "2026-02-14", 1, "2026-01-31", "2026-02-14", "2026-02-28"),
            // Leap days.
            (first, "2028-01-01", "2028-02-29", 2, "2028-02-01", "2028-02-29", "2028-03-14"),
            (last, "2028-01-28", "2028-02-28", 2, "2028-02-28", "2028-03-27", "2028-04-10"),
            (last, "2027-01-28", "2027-02-28", 2, "2027-02-28", "2027-03-27", "2027-04-10"),
            (last, "2028-02-29", "2028-03-01", 1, "2028-02-29", "2028-03-27", "2028-04-10"),
            // Year ends.
            (first, "2026-12-01", "2027-01-01", 2, "2027-01-01", "2027-01-31", "2027-02-14"),
            (fifteenth, "2026-12-20", "2027-01-14", 1, "2026-12-20", "2027-01-14", "2027-01-28"),
            (fifteenth, "2026-12-01", "2028-01-15", 15, "2028-01-15", "2028-02-14", "2028-02-28"),
            (week, "2026-12-29", "2027-01-04", 1, "2026-12-29", "2027-01-04", "2027-01-18"),
            (week, "2026-12-29", "2027-01-05", 2, "2027-01-05", "2027-01-11", "2027-01-25"),
            (month, "2028-02-10", "2028-03-11", 2, "2028-03-11", "2028-04-09", "2028-04-23"),
            (month, "2028-02-10", "2028-03-10", 1, "2028-02-10", "2028-03-10", "2028-03-24"),
        ];
        for (rule, opened, date, number, first, last, due) in table {
            let cycle = rule.cycle_at(day(opened), day(date)).unwrap();
            let got = (cycle.number, cycle.first_day, cycle.last_day, cycle.due_on(14));
            assert_eq!(got, (number, day(first), day(last), day(due)), "{rule:?} {opened} {date}");
            assert_eq!(cycle.next_first_day(), day(last).tomorrow().unwrap(), "{rule:?} {opened} {date}");
        }
        assert_eq!(week.cycle_at(day("2026-12-29"), day("2026-12-28")), None);
    }

    /// Every day of eight years is in one cycle, and cycles follow each other without a gap.
    #[test]
    fn cycles_follow_each_other() {
        let rules = [1, 2, 15, 28].map(|day| CycleRule::Monthly { day });
        let spans = [1, 7, 14, 30, 45].map(|days| CycleRule::EveryDays { days });
        for rule in rules.into_iter().chain(spans) {
            for opened in ["2026-01-01", "2026-01-31", "2028-02-29", "2026-12-31"].map(day) {
                let mut current = rule.cycle_at(opened, opened).unwrap();
                assert_eq!((current.number, current.first_day), (1, opened), "{rule:?} {opened}");
                for date in opened.series(jiff::Span::new().days(1)).take(3_000) {
                    let cycle = rule.cycle_at(opened, date).unwrap();
                    assert!((cycle.first_day..=cycle.last_day).contains(&date), "{rule:?} {opened} {date}");
                    if cycle != current {
                        assert_eq!(cycle.number, current.number + 1, "{rule:?} {opened} {date}");
                        assert_eq!(cycle.first_day, current.next_first_day(), "{rule:?} {opened} {date}");
                        assert_eq!((cycle.first_day, cycle.id() > current.id()), (date, true), "{rule:?} {date}");
                    }
                    current = cycle;
                }
            }
        }
    }
}
