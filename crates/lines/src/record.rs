//! What Postgres has of a line, and the line that follows from it.

use std::collections::HashMap;

use chrono::{DateTime, Datelike as _, Utc};
use jiff::civil::Date;
use quota::{Currency, MerchantId, OperationNo, PostingKind};
use serde::Deserialize;
use sluice_credit::{
    Bands, Books, BooksError, Change, CycleId, Event, Grade, GradeOverride, GradeRecord, GradeTerms, LimitFactors,
    LineHistory, Obligation, Pause, Schedule, Statement, StatementTerms, grade_in_force,
};
use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

use crate::day::day_of;
use crate::grade::{self, GradeKind, GradeRow};
use crate::line::schedule;
use crate::{CreditDay, CreditLine, EntryKind};

/// Names a line: that of a merchant in a currency.
pub type LineKey = (MerchantId, Currency);

/// One statement sees one state of all tables. The rows of each line come in their order.
const STATEMENT: &str = "\
    WITH given AS (SELECT * FROM UNNEST($1::text[], $2::text[]) AS given (merchant_id, currency)) \
    SELECT kind, found.merchant_id, found.currency, body FROM ( \
        SELECT 1 AS place, version::bigint AS number, 'line' AS kind, merchant_id, currency, to_jsonb(row)::text AS body \
            FROM credit_line AS row NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM given) AS given \
            WHERE activated_on IS NOT NULL AND line_id = (SELECT line_id FROM credit_line AS last \
                WHERE (last.merchant_id, last.currency) = (row.merchant_id, row.currency) AND last.activated_on IS NOT NULL \
                ORDER BY last.created_at DESC LIMIT 1) \
        UNION ALL SELECT 2, cycle, 'statement', merchant_id, currency, to_jsonb(row)::text \
            FROM credit_statement AS row NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM given) AS given \
        UNION ALL SELECT 3, entry_id, 'entry', merchant_id, currency, to_jsonb(row)::text \
            FROM credit_entry AS row NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM given) AS given \
        UNION ALL SELECT 4, pause_id, 'pause', merchant_id, currency, to_jsonb(row)::text \
            FROM credit_pause AS row NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM given) AS given \
        UNION ALL SELECT 5, grade_id, 'grade', merchant_id, currency, (to_jsonb(row) - 'run')::text \
            FROM credit_grade AS row NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM given) AS given \
    ) AS found ORDER BY place, number";

/// An entry of a line's books, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StoredEntry {
    pub entry_id: i64,
    pub event_id: Uuid,
    pub kind: EntryKind,
    pub at: DateTime<Utc>,
    /// The merchant's business day, `YYYYMMDD`.
    pub business_day: u32,
    /// The cycle that closed, or in which a charge was billed that is given back.
    pub cycle: u32,
    /// In minor units.
    pub amount: i64,
    /// The number of a posting, among those of its kind.
    pub posting_no: Option<String>,
    /// The day on which money was received, where it is not the business day.
    pub value_day: Option<u32>,
}

/// Everything that Postgres has of a line.
#[derive(Clone, Debug, Default)]
pub struct LineRecord {
    /// The versions that were ever in force, of the line that was opened last, oldest first.
    pub versions: Vec<CreditLine>,
    pub statements: Vec<Statement>,
    /// In the order of the journal.
    pub entries: Vec<StoredEntry>,
    pub pauses: Vec<Pause>,
    /// Oldest first.
    pub grades: Vec<GradeRow>,
}

/// Why an entry is not in the books.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// It contradicts the entries before it.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// No event can have made it.
    #[error("the entry is not valid: {0}")]
    Entry(&'static str),
}

/// Reads lines, each with all that belongs to it. A key without rows has an empty record, one with a row of another form none.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn read(
    connection: &mut PgConnection,
    keys: &[LineKey],
) -> Result<HashMap<LineKey, LineRecord>, sqlx::Error> {
    let mut records: HashMap<LineKey, LineRecord> =
        keys.iter().map(|key| (key.clone(), LineRecord::default())).collect();
    let merchants: Vec<&str> = keys.iter().map(|(merchant, _)| merchant.as_str()).collect();
    let currencies: Vec<&str> = keys.iter().map(|(_, currency)| currency.code()).collect();
    let rows: Vec<(String, String, String, String)> =
        sqlx::query_as(STATEMENT).bind(merchants).bind(currencies).fetch_all(connection).await?;
    for (kind, merchant, currency, body) in rows {
        let Some(key) = MerchantId::parse(&merchant).ok().zip(Currency::parse(&currency).ok()) else { continue };
        let added = records.get_mut(&key).map_or(Ok(()), |record| record.add(&kind, &body));
        if let Err(error) = added {
            // As of a later release. The other lines count.
            tracing::error!(merchant, currency, kind, %error, "a credit line cannot be read: what was read before counts");
            records.remove(&key);
        }
    }
    Ok(records)
}

/// A pause as it is stored.
#[derive(Deserialize)]
struct StoredPause {
    from_day: Date,
    to_day: Date,
    reason: String,
    approved_by: String,
}

/// A statement as it is stored.
#[derive(Deserialize)]
struct StoredStatement {
    number: u32,
    cycle: u32,
    first_day: Date,
    closed_on: Date,
    due_on: Date,
    amount: i64,
    minimum: i64,
}

impl LineRecord {
    fn add(&mut self, kind: &str, body: &str) -> Result<(), serde_json::Error> {
        match kind {
            "line" => self.versions.push(serde_json::from_str(body)?),
            "statement" => {
                let StoredStatement { number, cycle, first_day, closed_on, due_on, amount, minimum } =
                    serde_json::from_str(body)?;
                let cycle = CycleId(cycle);
                self.statements.push(Statement { number, cycle, first_day, closed_on, due_on, amount, minimum });
            }
            "entry" => self.entries.push(serde_json::from_str(body)?),
            "pause" => {
                let StoredPause { from_day, to_day, reason, approved_by } = serde_json::from_str(body)?;
                self.pauses.push(Pause { from: from_day, to: to_day, reason, approved_by });
            }
            _ => self.grades.push(serde_json::from_str(body)?),
        }
        Ok(())
    }

    /// The version in force, or that was last; `None` where the account never had a line.
    #[must_use]
    pub fn line(&self) -> Option<&CreditLine> {
        self.versions.last()
    }

    /// The day on which the line was first put in force here. It may have been opened before, in another system.
    #[must_use]
    pub fn active_from(&self) -> Option<Date> {
        self.versions.first().and_then(|first| first.activated_on)
    }

    /// The cycles of the line.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        schedule(self.versions.iter())
    }

    /// Whether a billing cycle before that of a date has not closed. The account has been in the cycle of the day on which it last
    /// closed one; before the first close in that of the opening. Cycles in between have no statement.
    #[must_use]
    pub fn has_cycle_to_close(&self, date: Date) -> bool {
        let Some(schedule) = self.schedule() else { return false };
        let Some((current, _)) = schedule.cycle_at(date) else { return false };
        let last = self.entries.iter().rev().find(|entry| entry.kind == EntryKind::CycleClosed);
        let since = match last {
            Some(entry) => day_of(entry.business_day),
            None => self.active_from(),
        };
        let stored = since.and_then(|since| schedule.cycle_at(since));
        stored.is_none_or(|(stored, _)| stored.first_day < current.first_day)
    }

    /// What stages and notices are computed from; `None` where the account never had a line.
    #[must_use]
    pub fn history<'a>(&'a self, books: &'a Books) -> Option<LineHistory<'a>> {
        let terms = &self.line()?.terms;
        Some(LineHistory { terms, obligations: books.obligations(), pauses: &self.pauses })
    }

    /// The books after all entries. An entry that contradicts those before it is left out, and returned with the reason: the
    /// others count.
    #[must_use]
    pub fn books(&self) -> (Books, Vec<(&StoredEntry, Unreadable)>) {
        let mut books = Books::default();
        let mut left_out = Vec::new();
        for entry in &self.entries {
            let applied = self.event(entry).and_then(|event| books.apply(&event).map_err(Unreadable::from));
            if let Err(why) = applied {
                left_out.push((entry, why));
            }
        }
        (books, left_out)
    }

    /// Whether a posting is in the books.
    #[must_use]
    pub fn has_posting(&self, kind: PostingKind, number: &str) -> bool {
        let is_it =
            |entry: &StoredEntry| entry.kind == EntryKind::Posting(kind) && entry.posting_no.as_deref() == Some(number);
        self.entries.iter().any(is_it)
    }

    /// Checks that a recovery is of no more than what is written off; one that is recorded already is repeated.
    ///
    /// # Errors
    /// What is wrong with the amount.
    pub fn check_recovery(&self, number: &str, amount: i64) -> Result<(), String> {
        let written_off = written_off(&self.books().0);
        if amount <= written_off || self.has_posting(PostingKind::Recovery, number) {
            return Ok(());
        }
        Err(format!("is more than what is written off and not recovered: give at most {written_off}"))
    }

    fn event(&self, entry: &StoredEntry) -> Result<Event, Unreadable> {
        // Without a policy an account has no windows, and no business day: what happened counts on the day in UTC.
        let at = entry.at;
        let utc =
            || Date::new(i16::try_from(at.year()).ok()?, at.month().try_into().ok()?, at.day().try_into().ok()?).ok();
        let on = day_of(entry.business_day).or_else(utc).ok_or(Unreadable::Entry("its business day is no date"))?;
        let amount = entry.amount;
        let received_on = entry.value_day.and_then(day_of).unwrap_or(on);
        let change = match entry.kind {
            EntryKind::CycleClosed => Change::CycleClosed(self.statement_of(entry)?),
            EntryKind::Posting(PostingKind::Opening) => Change::BroughtForward(self.statement_of(entry)?),
            EntryKind::Credit => Change::Credited { cycle: CycleId(entry.cycle), amount },
            EntryKind::Posting(PostingKind::Repayment) => {
                Change::Repaid { repayment_no: number(entry)?, amount, received_on }
            }
            EntryKind::Posting(PostingKind::Reversal) => Change::RepaymentReversed { repayment_no: number(entry)? },
            EntryKind::Posting(PostingKind::WriteOff) => Change::WrittenOff { amount },
            EntryKind::Posting(PostingKind::TransferIn) => Change::TransferIn { transfer_no: number(entry)?, amount },
            EntryKind::Posting(PostingKind::Recovery) => {
                Change::Recovered { recovery_no: number(entry)?, amount, received_on }
            }
            EntryKind::Posting(PostingKind::TransferOut) => Change::TransferOut { transfer_no: number(entry)?, amount },
        };
        Ok(Event { on, change })
    }

    fn statement_of(&self, entry: &StoredEntry) -> Result<Statement, Unreadable> {
        let statement = self.statements.iter().find(|own| own.cycle.0 == entry.cycle);
        statement.copied().ok_or(Unreadable::Entry("its cycle has no statement"))
    }

    /// The grade that was last decided, and since when it is that.
    #[must_use]
    pub fn decided_grade(&self) -> Option<GradeRecord> {
        let decided = self.grades.iter().rev().find(|row| row.kind != GradeKind::Override);
        decided.map(|row| GradeRecord { grade: row.grade, changed_on: row.changed_on })
    }

    /// The override that is in force on a day: the one that was asked for last.
    #[must_use]
    pub fn grade_override(&self, date: Date) -> Option<GradeOverride> {
        self.grades.iter().rev().find_map(|row| row.override_on(date))
    }

    /// The grade in force on a day.
    #[must_use]
    pub fn grade(&self, date: Date) -> Grade {
        let opened_with = self.line().map_or(Grade::E, |line| line.grade);
        let decided = self.decided_grade().map_or(opened_with, |decided| decided.grade);
        grade_in_force(decided, self.grade_override(date).as_ref(), date)
    }

    /// The terms of statements that the grade decides on a day, as they were copied into its decision.
    pub(crate) fn grade_terms(&self, date: Date) -> GradeTerms {
        grade::terms_on(&self.grades, date)
    }

    /// What a cycle's statement is made by if it closes on a day; `None` where the account never had a line.
    #[must_use]
    pub fn statement_terms(&self, date: Date) -> Option<StatementTerms> {
        let opened_on = self.line()?.opened_on?;
        let schedule = self.schedule()?;
        let (_, terms) = schedule.cycle_at(date.max(opened_on))?;
        Some(terms.with_grade(self.grade_terms(date)))
    }

    /// The line on a day, by its books; `None` where the account has none yet on that day.
    #[must_use]
    pub fn on(&self, books: &Books, bands: &Bands, date: Date) -> Option<CreditDay> {
        let line = self.line()?;
        // A clock that is behind may show the day before the opening, on which the first cycle's terms count.
        let (cycle, _) =
            self.schedule()?.cycle_at(date.max(line.opened_on?)).map(|(cycle, terms)| (cycle, terms.clone()))?;
        let grade = self.grade(date);
        let band = bands.of_grade(grade)?.clone();
        let history = self.history(books)?;
        let standing = history.standing(date);
        let factors = LimitFactors {
            limit_base: line.limit_base,
            multiplier_bp: band.multiplier_bp,
            cap_bp: standing.cap_bp,
            overridden: line.overridden(),
        };
        Some(CreditDay {
            date,
            cycle,
            terms: line.terms.clone(),
            grade,
            band,
            limit: factors.limit_on(date),
            overdue: history.overdue(date),
            standing,
            is_over: line.is_over(date),
        })
    }
}

/// What the statements of a line have lost, and not recovered.
pub(crate) fn written_off(books: &Books) -> i64 {
    books.obligations().iter().map(Obligation::written_off).sum()
}

fn number(entry: &StoredEntry) -> Result<OperationNo, Unreadable> {
    let number = entry.posting_no.as_deref().and_then(|number| OperationNo::parse(number).ok());
    number.ok_or(Unreadable::Entry("its posting has no valid number"))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn entry(kind: EntryKind, cycle: u32, amount: i64, number: &str) -> StoredEntry {
        StoredEntry {
            entry_id: 0,
            event_id: Uuid::nil(),
            kind,
            at: DateTime::UNIX_EPOCH,
            business_day: 20_261_201,
            cycle,
            amount,
            posting_no: Some(number.to_owned()),
            value_day: None,
        }
    }

    /// What contradicts the entries before it is left out; what follows still counts.
    #[test]
    fn contradictions_are_left_out() {
        let [repayment, write_off, recovery] =
            [PostingKind::Repayment, PostingKind::WriteOff, PostingKind::Recovery].map(EntryKind::Posting);
        let statement = Statement {
            number: 1,
            cycle: CycleId(20_261_101),
            first_day: date(2026, 11, 1),
            closed_on: date(2026, 11, 30),
            due_on: date(2026, 12, 14),
            amount: 100,
            minimum: 100,
        };
        let entries = vec![
            entry(EntryKind::CycleClosed, 20_261_101, 100, ""),
            entry(EntryKind::Posting(PostingKind::Reversal), 0, 30, "p-9"),
            entry(EntryKind::CycleClosed, 20_251_101, 100, ""),
            entry(repayment, 0, 40, "p-1"),
            entry(repayment, 0, 41, "p-1"),
            entry(repayment, 0, 10, "p-2"),
            entry(write_off, 0, 20, "w-1"),
            entry(recovery, 0, 15, "v-1"),
            entry(recovery, 0, 6, "v-2"),
        ];
        let record = LineRecord { statements: vec![statement], entries, ..LineRecord::default() };
        let (books, left_out) = record.books();
        let number = |number: &str| OperationNo::parse(number).unwrap();
        let why: Vec<Unreadable> = left_out.into_iter().map(|(_, why)| why).collect();
        assert_eq!(
            why,
            [
                Unreadable::Books(BooksError::RepaymentUnknown(number("p-9"))),
                Unreadable::Entry("its cycle has no statement"),
                Unreadable::Books(BooksError::RepaymentConflict(number("p-1"))),
                Unreadable::Books(BooksError::RecoveryTooLarge { amount: 6, written_off: 5 }),
            ]
        );
        let own = &books.obligations()[0];
        assert_eq!((books.billed(), own.paid(), own.written_off()), (30, 65, 5));
    }
}
