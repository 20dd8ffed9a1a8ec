//! Pauses: promises to pay, during which days past due are not counted. They are only ever added.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::InvalidMember;
use crate::day::{days_between, plus_days};
use crate::invalid::ensure;

/// A promise to pay that a person accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The first day that is not counted.
    #[schema(value_type = String, format = Date)]
    pub from: Date,
    /// The last day that is not counted.
    #[schema(value_type = String, format = Date)]
    pub to: Date,
    pub reason: String,
    /// Who accepted it.
    pub approved_by: String,
}

impl Pause {
    /// The longest pause, in days.
    pub const DAYS_MAX: i64 = 366;
    /// The longest reason, in bytes.
    pub const REASON_LEN_MAX: usize = 500;

    /// Checks the members.
    ///
    /// # Errors
    /// [`InvalidMember`] names the one that cannot be used.
    pub fn validate(&self) -> Result<(), InvalidMember> {
        ensure(self.from <= self.to, "to", format!("is before `from`: give {} or later", self.from))?;
        let days = days_between(self.from, self.to).saturating_add(1);
        ensure(days <= Self::DAYS_MAX, "to", format!("makes a pause of {days} days: give at most {}", Self::DAYS_MAX))?;
        ensure(!self.reason.trim().is_empty(), "reason", "is empty: say what was promised")?;
        let len = self.reason.len();
        let problem = format!("has {len} bytes: give at most {}", Self::REASON_LEN_MAX);
        ensure(len <= Self::REASON_LEN_MAX, "reason", problem)?;
        ensure(!self.approved_by.trim().is_empty(), "approved_by", "is empty: name the person who accepted it")
    }
}

/// The days that pauses cover, each day once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PausedDays {
    /// First and last days, in order, with at least one other day between two of them.
    ranges: Vec<(Date, Date)>,
}

impl PausedDays {
    pub(crate) fn new(pauses: &[Pause]) -> Self {
        let mut sorted: Vec<(Date, Date)> = pauses.iter().map(|pause| (pause.from, pause.to)).collect();
        sorted.retain(|(from, to)| from <= to);
        sorted.sort_unstable();
        let mut ranges: Vec<(Date, Date)> = Vec::with_capacity(sorted.len());
        for (from, to) in sorted {
            match ranges.last_mut() {
                Some((_, end)) if from <= plus_days(*end, 1) => *end = to.max(*end),
                Some(_) | None => ranges.push((from, to)),
            }
        }
        Self { ranges }
    }

    pub(crate) fn contain(&self, date: Date) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&date))
    }

    /// How many of the days after one date and up to another are paused.
    fn count(&self, after: Date, until: Date) -> i64 {
        let first = plus_days(after, 1);
        let days =
            |(from, to): &(Date, Date)| days_between((*from).max(first), (*to).min(until)).saturating_add(1).max(0);
        self.ranges.iter().map(days).sum()
    }

    /// The days past due of something due on a date: 0 up to the due date.
    pub(crate) fn days_past_due(&self, due_on: Date, date: Date) -> i64 {
        (days_between(due_on, date) - self.count(due_on, date)).max(0)
    }

    /// The day on which something has so many days past due; before the due date the day as it is. Where that day is paused, the
    /// first one after the pause.
    pub(crate) fn day_of(&self, due_on: Date, days: i64) -> Date {
        let mut date = plus_days(due_on, days);
        for (from, to) in &self.ranges {
            let first = if days > 0 { (*from).max(plus_days(due_on, 1)) } else { (*from).max(date) };
            if first <= date && first <= *to {
                date = plus_days(date, days_between(first, *to).saturating_add(1));
            }
        }
        date
    }

    /// Days on which a pause begins or has ended.
    pub(crate) fn edges(&self) -> impl Iterator<Item = Date> {
        self.ranges.iter().flat_map(|(from, to)| [*from, plus_days(*to, 1)])
    }

    /// The number of paused days.
    pub(crate) fn total(&self) -> i64 {
        self.ranges.iter().map(|(from, to)| days_between(*from, *to).saturating_add(1)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn pause((from, to): &(&str, &str)) -> Pause {
        Pause { from: day(from), to: day(to), reason: "promise to pay".to_owned(), approved_by: "risk-1".to_owned() }
    }

    #[test]
    fn paused_days_count_once() {
        let twice = [("2026-03-05", "2026-03-10"), ("2026-03-08", "2026-03-12")];
        let apart = [("2026-03-20", "2026-03-21"), ("2026-03-01", "2026-03-02")];
        let within = [("2026-03-03", "2026-03-31"), ("2026-03-05", "2026-03-06")];
        let next = [("2026-03-05", "2026-03-06"), ("2026-03-07", "2026-03-08")];
        let at_its_end = [("2026-03-05", "2026-03-08"), ("2026-03-08", "2026-03-10")];
        let over_due = [("2026-02-20", "2026-03-02")];
        let table: [(&[(&str, &str)], &str, i64); 14] = [
            (&[], "2026-02-27", 0),
            (&[], "2026-03-01", 0),
            (&[], "2026-03-31", 30),
            (&twice, "2026-03-04", 3),
            (&twice, "2026-03-09", 3),
            (&twice, "2026-03-12", 3),
            (&twice, "2026-03-13", 4),
            (&apart, "2026-03-31", 27),
            (&within, "2026-03-31", 1),
            (&within, "2026-04-01", 2),
            (&next, "2026-03-09", 4),
            (&at_its_end, "2026-03-11", 4),
            (&over_due, "2026-03-02", 0),
            (&over_due, "2026-03-03", 1),
        ];
        for (pauses, date, days) in table {
            let paused = PausedDays::new(&pauses.iter().map(pause).collect::<Vec<_>>());
            assert_eq!(paused.days_past_due(day("2026-03-01"), day(date)), days, "{pauses:?} {date}");
        }
    }

    /// The day of a number of days past due has that number, and is not paused.
    #[test]
    fn days_past_due_are_reached_on_their_day() {
        let sets: [&[(&str, &str)]; 4] = [
            &[],
            &[("2026-03-01", "2026-03-01")],
            &[("2026-02-20", "2026-03-04"), ("2026-03-06", "2026-03-09")],
            &[("2026-03-05", "2026-03-10"), ("2026-03-08", "2026-03-12"), ("2026-03-14", "2026-04-20")],
        ];
        for pauses in sets {
            let paused = PausedDays::new(&pauses.iter().map(pause).collect::<Vec<_>>());
            let due = day("2026-03-01");
            for days in 1..100 {
                let reached = paused.day_of(due, days);
                assert_eq!(paused.days_past_due(due, reached), days, "{pauses:?} {days}");
                assert_eq!(paused.days_past_due(due, plus_days(reached, -1)), days - 1, "{pauses:?} {days}");
            }
            for days in -20..=0 {
                let reached = paused.day_of(due, days);
                let expected = (0..).map(|more| plus_days(due, days + more)).find(|date| !paused.contain(*date));
                assert_eq!(Some(reached), expected, "{pauses:?} {days}");
            }
        }
    }

    #[test]
    fn a_pause_says_what_is_wrong_with_it() {
        let good = pause(&("2026-03-01", "2026-03-10"));
        let table = [
            (Pause { to: day("2026-02-28"), ..good.clone() }, "`to` is before `from`: give 2026-03-01 or later"),
            (Pause { to: day("2027-03-02"), ..good.clone() }, "`to` makes a pause of 367 days: give at most 366"),
            (Pause { reason: " ".to_owned(), ..good.clone() }, "`reason` is empty: say what was promised"),
            (
                Pause { approved_by: String::new(), ..good.clone() },
                "`approved_by` is empty: name the person who accepted it",
            ),
        ];
        assert_eq!(good.validate(), Ok(()));
        for (pause, problem) in table {
            assert_eq!(pause.validate().unwrap_err().to_string(), problem);
        }
    }
}
