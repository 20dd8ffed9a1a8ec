//! The cycles of a line over the versions of its terms: when each version takes effect, and which cycle contains a day.
//!
//! A running cycle ends as announced. A version that was activated during a cycle takes effect on the first day after it, and its
//! cycles begin there, as if the line were opened on that day: the first one may be short. The day of opening, too, is a day of the
//! first cycle: a version that is activated on it, after the one that the line was opened with, takes effect with the second one.

use jiff::civil::Date;

use crate::{Cycle, Terms};

/// A version of a line's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermsVersion {
    pub activated_on: Date,
    pub terms: Terms,
}

/// The cycles of one line, numbered from its opening on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// In the order of their first days. Each but the first begins where a cycle of the one before ends.
    spans: Vec<Span>,
}

/// The cycles of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    first_day: Date,
    /// How many cycles the line had before.
    cycles_before: u32,
    terms: Terms,
}

impl Span {
    fn cycle_at(&self, date: Date) -> Option<Cycle> {
        let cycle = self.terms.cycle.cycle_at(self.first_day, date)?;
        Some(Cycle { number: cycle.number.saturating_add(self.cycles_before), ..cycle })
    }
}

impl Schedule {
    /// The schedule of a line that was opened on a day, with the versions of its terms in the order of their activation. The line
    /// is opened with the last version that was activated before that day, or with the first one.
    #[must_use]
    pub fn new(opened_on: Date, versions: impl IntoIterator<Item = TermsVersion>) -> Self {
        let mut schedule = Self { spans: Vec::new() };
        let mut latest = Date::MIN;
        for TermsVersion { activated_on, terms } in versions {
            latest = latest.max(activated_on);
            let (first_day, cycles_before) = schedule.next_begin(latest).unwrap_or((opened_on, 0));
            // Of versions that would take effect on one day, the last one does.
            schedule.spans.retain(|span| span.first_day < first_day);
            schedule.spans.push(Span { first_day, cycles_before, terms });
        }
        schedule
    }

    /// The first day after the cycle that contains a date, and how many cycles are before that day; `None` before the opening.
    fn next_begin(&self, date: Date) -> Option<(Date, u32)> {
        let (cycle, _) = self.cycle_at(date)?;
        Some((cycle.next_first_day(), cycle.number))
    }

    /// The cycle that contains a date, and its terms; `None` before the line is opened.
    #[must_use]
    pub fn cycle_at(&self, date: Date) -> Option<(Cycle, &Terms)> {
        let span = self.spans.iter().rfind(|span| span.first_day <= date)?;
        span.cycle_at(date).map(|cycle| (cycle, &span.terms))
    }

    /// The cycle that begins on a day, and its terms; `None` where none does.
    #[must_use]
    pub fn cycle_from(&self, first_day: Date) -> Option<(Cycle, &Terms)> {
        self.cycle_at(first_day).filter(|(cycle, _)| cycle.first_day == first_day)
    }
}
