//! Statements that are open in the system that a line is taken over from.

use std::collections::BTreeMap;

use jiff::civil::Date;
use quota::{AmountMinor, Currency, OrderNo};
use serde::Deserialize;
use sluice_credit::CycleId;
use utoipa::ToSchema;

use crate::LineRecord;

/// Most statements that are taken over at once: ten years of months.
pub const OBLIGATIONS_MAX: usize = 120;
/// Most days from the close of a cycle to its due date.
const DUE_DAYS_MAX: i32 = 3_650;

/// A statement that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenObligation {
    /// The last day of its cycle. A cycle is taken over once.
    #[schema(value_type = String, format = Date)]
    pub closed_on: Date,
    /// As the terms have it where none is given.
    #[schema(value_type = Option<String>, format = Date)]
    pub due_on: Option<Date>,
    /// What is open of it, minor units.
    #[schema(example = 250_000, minimum = 1)]
    pub amount: i64,
}

/// The posting that takes a statement over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub number: OrderNo,
    pub amount: AmountMinor,
    pub due_on: Date,
}

/// Why statements cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpeningError {
    /// As in `obligations[2].closed_on`; empty where it is the line itself.
    pub field: String,
    pub problem: String,
    pub is_amount: bool,
}

/// The number of the posting that takes a statement over: a merchant's lines in two currencies have cycles of the same days.
fn number(currency: Currency, cycle: CycleId) -> String {
    format!("{currency}-{}", cycle.0)
}

/// The cycle of such a number.
pub(crate) fn cycle_of(number: &str) -> Option<u32> {
    number.split_once('-').and_then(|(_, cycle)| cycle.parse().ok())
}

impl LineRecord {
    /// The postings that take statements over, the oldest first, where all can be: each is of a cycle that was over when the line
    /// was put in force here.
    ///
    /// # Errors
    /// [`OpeningError`] names the first member that is wrong.
    pub fn openings(&self, currency: Currency, given: &[OpenObligation]) -> Result<Vec<Opening>, OpeningError> {
        let error = |field: String, problem: String| OpeningError { field, problem, is_amount: false };
        if self.line().is_none_or(|line| line.taken_over_from.is_none()) {
            let problem = "the line was opened here: only one with `taken_over_from` has statements of another system";
            return Err(error(String::new(), problem.to_owned()));
        }
        if given.is_empty() || given.len() > OBLIGATIONS_MAX {
            let problem = format!("must hold 1 to {OBLIGATIONS_MAX} statements, it has {}", given.len());
            return Err(error("obligations".to_owned(), problem));
        }
        let schedule = self.schedule();
        let mut openings = BTreeMap::new();
        for (place, one) in given.iter().enumerate() {
            let at = |member: &str| format!("obligations[{place}].{member}");
            let found = schedule.as_ref().and_then(|schedule| schedule.cycle_at(one.closed_on));
            let is_past = self.active_from().is_some_and(|from| one.closed_on < from);
            let Some((cycle, terms)) = found.filter(|(cycle, _)| is_past && cycle.closed_on() == one.closed_on) else {
                let problem = "must be the last day of a cycle that was over when the line was put in force here";
                return Err(error(at("closed_on"), problem.to_owned()));
            };
            let due_on = one.due_on.unwrap_or_else(|| cycle.due_on(terms.due_days));
            let days = due_on.since(one.closed_on).map_or(-1, |span| span.get_days());
            if !(0..=DUE_DAYS_MAX).contains(&days) {
                return Err(error(at("due_on"), format!("must be 0 to {DUE_DAYS_MAX} days after `closed_on`")));
            }
            let amount = u64::try_from(one.amount).ok().filter(|minor| *minor > 0).and_then(AmountMinor::new);
            let Some(amount) = amount else {
                let problem = format!("must be 1 to {} minor units", AmountMinor::MAX);
                return Err(OpeningError { field: at("amount"), problem, is_amount: true });
            };
            let number = OrderNo::parse(&number(currency, cycle.id()));
            let number = number.map_err(|invalid| error(at("closed_on"), invalid.to_string()))?;
            if openings.insert(one.closed_on, Opening { number, amount, due_on }).is_some() {
                return Err(error(at("closed_on"), "is given twice: a cycle has one statement".to_owned()));
            }
        }
        Ok(openings.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::tests::{day, line};
    use crate::{CreditLine, LineState};

    /// A line of months, opened elsewhere in January 2024, put in force here in October 2026, and changed in December.
    fn taken_over() -> LineRecord {
        let opened_on = Some(day("2024-01-15"));
        let version = |version, state, activated_on| CreditLine {
            version,
            state,
            taken_over_from: opened_on,
            opened_on,
            activated_on: Some(day(activated_on)),
            ..line()
        };
        let versions = vec![version(1, LineState::Replaced, "2026-10-01"), version(2, LineState::Active, "2026-12-10")];
        LineRecord { versions, ..LineRecord::default() }
    }

    /// What closed before the line was first in force here is of the other system, and nothing after it, whatever was changed since.
    #[test]
    fn statements_are_of_cycles_before_the_line_was_in_force_here() {
        let record = taken_over();
        let usd = Currency::parse("USD").unwrap();
        for (closed_on, is_taken) in [
            ("2023-12-31", false),
            ("2024-01-31", true),
            ("2026-08-31", true),
            ("2026-09-29", false),
            ("2026-09-30", true),
            ("2026-10-31", false),
            ("2026-11-30", false),
            ("2026-12-31", false),
        ] {
            let given = [OpenObligation { closed_on: day(closed_on), due_on: None, amount: 5 }];
            let refused = record.openings(usd, &given).map(|openings| openings.len()).map_err(|error| error.field);
            let expected = if is_taken { Ok(1) } else { Err("obligations[0].closed_on".to_owned()) };
            assert_eq!(refused, expected, "{closed_on}");
        }
        // One in force since the middle of a cycle: that cycle is closed here.
        let mut record = taken_over();
        record.versions[0].activated_on = Some(day("2026-10-15"));
        for (closed_on, is_taken) in [("2026-09-30", true), ("2026-10-31", false)] {
            let given = [OpenObligation { closed_on: day(closed_on), due_on: None, amount: 5 }];
            assert_eq!(record.openings(usd, &given).is_ok(), is_taken, "{closed_on}");
        }
    }

    /// Cycles of the other system are not closed here.
    #[test]
    fn the_first_cycle_to_close_is_the_one_in_which_the_line_was_put_in_force() {
        let record = taken_over();
        for (today, is_due) in
            [("2026-10-01", false), ("2026-10-31", false), ("2026-11-01", true), ("2026-12-31", true)]
        {
            assert_eq!(record.has_cycle_to_close(day(today)), is_due, "{today}");
        }
    }
}
