//! Summaries of a line: what it comes to on a date, and the inputs of a scorecard that follow from its statements and payments.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::Serialize;
use utoipa::ToSchema;

use crate::day::{days_between, plus_days};
use crate::scorecard::ratio_bp;
use crate::{Books, Feature, Inputs, LineHistory, Obligation, Overdue, Source, Standing};

/// The months that inputs look back, in days.
const LOOK_BACK_DAYS: i64 = 365;
/// The cycles that inputs look back.
const LOOK_BACK_CYCLES: usize = 3;
/// Days past due that [`Feature::TimesOver30Dpd`] counts.
const LATE_DPD: i64 = 30;

/// What a line comes to. Amounts are minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LineSummary {
    pub held: i64,
    pub unbilled: i64,
    /// Billed, and neither paid nor written off.
    pub billed: i64,
    pub unapplied: i64,
    /// Of what is billed, and not recovered.
    pub written_off: i64,
    pub exposure: i64,
    pub prepaid: i64,
    /// Obligations of which something is open.
    pub open_obligations: usize,
    pub overdue: Overdue,
    pub standing: Standing,
}

impl LineHistory<'_> {
    /// The line on a date: its books, what is past due, and its standing.
    #[must_use]
    pub fn summary(&self, books: &Books, date: Date) -> LineSummary {
        LineSummary {
            held: books.held(),
            unbilled: books.unbilled(),
            billed: books.billed(),
            unapplied: books.unapplied(),
            written_off: books.obligations().iter().map(Obligation::written_off).sum(),
            exposure: books.exposure(),
            prepaid: books.prepaid(),
            open_obligations: books.obligations().iter().filter(|own| own.open() > 0).count(),
            overdue: self.overdue(date),
            standing: self.standing(date),
        }
    }

    /// The inputs of a scorecard about payment history and days past due. Behaviour, downgrades and disputes are the caller's to
    /// add. An input is missing where there is nothing to take it from.
    #[must_use]
    pub fn payment_inputs(&self, opened_on: Date, limit: i64, date: Date) -> Inputs {
        let mut inputs = Inputs::default();
        inputs.set(Feature::MonthsOpen, months(opened_on, date));
        let mut set = |feature, value: Option<i64>| {
            if let Some(value) = value {
                inputs.set(feature, value);
            }
        };
        let last = self.last_cycles(date);
        set(Feature::CyclesPaidInFullInRow, self.paid_in_full_in_row(date));
        set(Feature::MeanDaysToPay, self.mean_days_to_pay(date));
        set(Feature::UtilisationBp, utilisation_bp(&last, limit));
        set(Feature::RepaymentsInThreeCycles, (!last.is_empty()).then(|| repayments(&last)));
        set(Feature::RepaidRatioBp, ratio_bp(sum(&last, Obligation::paid), sum(&last, |own| own.statement.amount)));
        let late = self.lateness(date);
        set(Feature::WorstDpd, Some(late.worst_dpd));
        set(Feature::TimesOver30Dpd, Some(late.times_late));
        set(Feature::DunningLevel, Some(self.steps_after_due(late.worst_dpd)));
        inputs
    }

    /// The last cycles that closed, newest first.
    fn last_cycles(&self, date: Date) -> Vec<&Obligation> {
        let closed = self.obligations.iter().rev().filter(|own| own.statement.closed_on <= date);
        closed.take(LOOK_BACK_CYCLES).collect()
    }

    /// Those that are not due and not paid say nothing yet; none where no other has closed.
    fn paid_in_full_in_row(&self, date: Date) -> Option<i64> {
        let closed = self.obligations.iter().rev().filter(|own| own.statement.closed_on <= date);
        let in_time = |own: &Obligation| own.paid_in_time_on().is_some_and(|paid| paid <= date);
        let mut decided = closed.filter(|own| in_time(own) || own.statement.due_on < date).peekable();
        decided.peek()?;
        i64::try_from(decided.take_while(|own| in_time(own)).count()).ok()
    }

    /// From the close to the payment in full, over the look-back; none where nothing was paid in full.
    fn mean_days_to_pay(&self, date: Date) -> Option<i64> {
        let begin = plus_days(date, -LOOK_BACK_DAYS);
        let billed = self.obligations.iter().filter(|own| own.statement.amount > 0);
        let paid = billed.filter_map(|own| own.paid_in_full_on().map(|paid| (own.statement.closed_on, paid)));
        let days: Vec<i64> = paid
            .filter(|(_, paid)| (begin..=date).contains(paid))
            .map(|(closed, paid)| days_between(closed, paid))
            .collect();
        days.iter().sum::<i64>().checked_div(i64::try_from(days.len()).ok()?)
    }

    fn lateness(&self, date: Date) -> Lateness {
        let begin = plus_days(date, -LOOK_BACK_DAYS);
        let mut late = Lateness::default();
        let mut before = 0;
        for (day, days_past_due) in self.daily_days_past_due(date) {
            if day > begin {
                late.worst_dpd = late.worst_dpd.max(days_past_due);
                late.times_late += i64::from(before <= LATE_DPD && days_past_due > LATE_DPD);
            }
            before = days_past_due;
        }
        late
    }

    fn steps_after_due(&self, days_past_due: i64) -> i64 {
        let reached = self.terms.dunning.0.iter().filter(|step| (1..=days_past_due).contains(&i64::from(step.day)));
        i64::try_from(reached.count()).unwrap_or(i64::MAX)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Lateness {
    worst_dpd: i64,
    /// How often the days past due came to more than [`LATE_DPD`].
    times_late: i64,
}

/// Whole months from one date to another.
fn months(from: Date, to: Date) -> i64 {
    let number = |date: Date| i64::from(date.year()) * 12 + i64::from(date.month());
    let begun = number(to) - number(from);
    (begun - i64::from(to.day() < from.day())).max(0)
}

fn sum(of: &[&Obligation], amount: impl Fn(&Obligation) -> i64) -> i64 {
    of.iter().fold(0, |sum, own| sum.saturating_add(amount(own)))
}

/// The mean amount of cycles, of the limit.
fn utilisation_bp(cycles: &[&Obligation], limit: i64) -> Option<i64> {
    let count = i64::try_from(cycles.len()).ok()?;
    ratio_bp(sum(cycles, |own| own.statement.amount), limit.saturating_mul(count))
}

/// How many repayments paid these cycles.
fn repayments(cycles: &[&Obligation]) -> i64 {
    let sources = cycles.iter().flat_map(|own| own.allocations()).map(|allocation| &allocation.source);
    let repayments: BTreeSet<_> = sources.filter(|source| matches!(source, Source::Repayment(_))).collect();
    i64::try_from(repayments.len()).unwrap_or(i64::MAX)
}
