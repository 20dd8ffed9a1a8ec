//! A credit line as people and programs read it: its version in force, and what it comes to today.

use jiff::civil::Date;
use serde::Serialize;
use sluice_credit::{Bands, Grade, LineHistory, Overdue, StageChange, Standing, StatementTerms};
use utoipa::ToSchema;

use crate::record::written_off;
use crate::{CreditLine, LineRecord, LineState, LineUsage};

/// A credit line with what it comes to today.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineView {
    /// The version in force, or that was last; where none was yet, the draft.
    pub line: CreditLine,
    /// The next version, where one is drafted or approved.
    pub pending: Option<CreditLine>,
    /// The line today; null where it was never in force.
    pub today: Option<LineToday>,
}

/// A billing cycle.
#[derive(Debug, Serialize, ToSchema)]
pub struct CycleView {
    /// 1 for the first one of the line.
    pub number: u32,
    #[schema(value_type = String, format = Date)]
    pub first_day: Date,
    /// The day of the statement.
    #[schema(value_type = String, format = Date)]
    pub last_day: Date,
}

/// What a line comes to today. Amounts are minor units.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineToday {
    /// The account's business day.
    #[schema(value_type = String, format = Date)]
    pub date: Date,
    pub cycle: CycleView,
    pub grade: Grade,
    /// What the statement of the cycle is made by, if it closes with this grade: the line's terms, or those of the grade.
    pub statement_terms: StatementTerms,
    /// The limit in force: the base times the grade's multiplier, below the stage's cap, or the override.
    pub limit: i64,
    pub is_limit_overridden: bool,
    /// Held + unbilled + open statements - repayments that are not applied; below zero where more was repaid than is owed.
    pub exposure: i64,
    /// What the line still takes.
    pub available: i64,
    /// Open holds of the account.
    pub held: u64,
    /// Charged and captured in the cycle, less what was returned of it.
    pub unbilled: u64,
    /// Of statements, neither paid nor written off.
    pub billed: i64,
    /// Repayments that no statement has taken yet.
    pub unapplied: i64,
    /// Written off, and not recovered.
    pub written_off: i64,
    pub overdue: Overdue,
    pub standing: Standing,
    /// When the stage or the cap will change if nothing is paid.
    pub next_stage_changes: Vec<StageChange>,
}

impl LineView {
    /// The line by its latest version and its record.
    #[must_use]
    pub fn of(latest: CreditLine, record: &LineRecord, today: Option<LineToday>) -> Self {
        let Some(line) = record.line() else { return Self { line: latest, pending: None, today: None } };
        let pending = Some(latest).filter(|latest| matches!(latest.state, LineState::Draft | LineState::Approved));
        Self { line: line.clone(), pending, today }
    }
}

impl LineToday {
    /// The line on a day; `None` where it was not in force yet.
    #[must_use]
    pub fn of(record: &LineRecord, bands: &Bands, usage: LineUsage, date: Date) -> Option<Self> {
        let (books, _) = record.books();
        let day = record.on(&books, bands, date)?;
        let history = LineHistory { terms: &day.terms, obligations: books.obligations(), pauses: &record.pauses };
        Some(Self {
            date,
            cycle: CycleView { number: day.cycle.number, first_day: day.cycle.first_day, last_day: day.cycle.last_day },
            grade: day.grade,
            statement_terms: record.statement_terms(date)?,
            limit: day.limit.limit,
            is_limit_overridden: day.limit.is_overridden,
            exposure: usage.exposure,
            available: day.available(usage.exposure),
            held: usage.held,
            unbilled: usage.unbilled_in(day.cycle.id().0),
            billed: books.billed(),
            unapplied: books.unapplied(),
            written_off: written_off(&books),
            next_stage_changes: history.next_stage_changes(date),
            overdue: day.overdue,
            standing: day.standing,
        })
    }
}
