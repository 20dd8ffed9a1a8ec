//! What a line will come to on a later day if nothing is paid and nothing more is charged: the open cycle closes into a statement,
//! and days past due, stage, limit and notices follow.

use std::collections::BTreeSet;

use jiff::Span;
use jiff::civil::Date;
use serde::Serialize;
use sluice_credit::{
    Bands, Books, BooksError, Change, DunningState, Event, Grade, LineHistory, Notice, NoticeKey, Overdue, Schedule,
    StageChange, Standing, Statement, Terms,
};
use thiserror::Error;

use crate::statement::cycle_terms;
use crate::{CreditDay, LineRecord, LineUsage};

/// A line on a later day. Amounts are minor units.
#[derive(Clone, Debug, Serialize)]
pub struct Simulation {
    /// The account's business day.
    pub today: Date,
    /// The day that is simulated.
    pub date: Date,
    /// The statement that the open cycle closes into; none where it is still open on the day.
    pub statement: Option<Statement>,
    pub grade: Grade,
    /// The limit in force on the day.
    pub limit: i64,
    pub is_limit_overridden: bool,
    /// The exposure of today: nothing is paid, and holds stay open.
    pub exposure: i64,
    /// What the line takes on the day.
    pub available: i64,
    pub overdue: Overdue,
    pub standing: Standing,
    /// Each day from today to the day on which the stage or the cap changes.
    pub stage_changes: Vec<StageChange>,
    /// The notices of dunning from today to the day, each with its day. What was sent before is not repeated.
    pub notices: Vec<Notice>,
}

/// What is known of an account today beside its record.
#[derive(Clone, Copy, Debug)]
pub struct SimulationBasis<'a> {
    /// The account's business day.
    pub today: Date,
    /// What Redis has of the account.
    pub usage: LineUsage,
    /// The notices of dunning that were sent.
    pub sent: &'a BTreeSet<NoticeKey>,
}

/// Why there is no simulation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SimulationError {
    #[error("the account has no credit line that was ever in force")]
    NoLine,
    #[error("{date} is not a day to simulate: give one from {first} to {last}")]
    Date { date: Date, first: Date, last: Date },
    #[error("the open cycle cannot be closed: {0}")]
    Books(#[from] BooksError),
}

impl LineRecord {
    /// The line on `date`.
    ///
    /// # Errors
    /// [`SimulationError`]; the last day is [`Terms::DAYS_MAX`] days away.
    pub fn simulate(
        &self,
        bands: &Bands,
        basis: SimulationBasis<'_>,
        date: Date,
    ) -> Result<Simulation, SimulationError> {
        let SimulationBasis { today, usage, sent } = basis;
        let last = today.saturating_add(Span::new().days(Terms::DAYS_MAX));
        if !(today..=last).contains(&date) {
            return Err(SimulationError::Date { date, first: today, last });
        }
        let (mut books, _) = self.books();
        let statement = self.close_cycles(&mut books, usage, today, date)?;
        let day = self.on(&books, bands, date).ok_or(SimulationError::NoLine)?;
        let history = LineHistory { terms: &day.terms, obligations: books.obligations(), pauses: &self.pauses };
        let mut stage_changes = history.stage_changes(date);
        stage_changes.retain(|change| change.on >= today);
        let state = DunningState { active_from: self.active_from(), sent };
        let mut notices = history.dunning_calendar(today, state);
        notices.retain(|notice| notice.on <= date);
        let available = day.available(usage.exposure);
        let CreditDay { grade, limit, overdue, standing, .. } = day;
        Ok(Simulation {
            today,
            date,
            statement,
            grade,
            limit: limit.limit,
            is_limit_overridden: limit.is_overridden,
            exposure: usage.exposure,
            available,
            overdue,
            standing,
            stage_changes,
            notices,
        })
    }

    /// Closes the open cycle with what is unbilled, and each later one with nothing, as the journal would do on the day after its
    /// last one. Returns the statement of the open one.
    fn close_cycles(
        &self,
        books: &mut Books,
        usage: LineUsage,
        today: Date,
        date: Date,
    ) -> Result<Option<Statement>, BooksError> {
        let (Some(schedule), Some(opened_on)) = (self.schedule(), self.line().and_then(|line| line.opened_on)) else {
            return Ok(None);
        };
        let open = match usage.cycle {
            0 => schedule.cycle_at(today).map(|(cycle, _)| cycle.id().0),
            cycle => Some(cycle),
        };
        let schedules = [(opened_on, schedule)];
        let mut number = self.statements.iter().map(|own| own.number).max().unwrap_or_default();
        let mut of_open_cycle = None;
        let mut next = open;
        while let Some(cycle) = next {
            let amount = if next == open { i64::try_from(usage.unbilled).unwrap_or(i64::MAX) } else { 0 };
            let found = cycle_terms(&schedules, cycle).filter(|(cycle, _)| cycle.closed_on() <= date);
            let Some((cycle, terms)) = found else { break };
            let statement = terms.with_grade(self.grade_terms(cycle.closed_on())).statement(&cycle, amount);
            if !self.statements.iter().any(|own| own.cycle == statement.cycle) {
                number = number.saturating_add(1);
                let statement = Statement { number, ..statement };
                books.apply(&Event { on: day_after(statement.closed_on), change: Change::CycleClosed(statement) })?;
                of_open_cycle = of_open_cycle.or(Some(statement).filter(|_| next == open));
            }
            next = cycle_after(&schedules, &statement);
        }
        Ok(of_open_cycle)
    }
}

/// The cycle that follows a statement, by the schedule of a line and the day of its opening.
fn cycle_after([(opened_on, schedule)]: &[(Date, Schedule); 1], statement: &Statement) -> Option<u32> {
    let day = if statement.first_day < *opened_on { *opened_on } else { day_after(statement.closed_on) };
    let (cycle, _) = schedule.cycle_at(day)?;
    Some(cycle.id()).filter(|id| *id > statement.cycle).map(|id| id.0)
}

fn day_after(date: Date) -> Date {
    date.saturating_add(Span::new().days(1))
}

#[cfg(test)]
pub(crate) mod tests;
