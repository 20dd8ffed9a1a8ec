//! The books of a line from its entries.

use jiff::civil::Date;
use quota::{OperationNo, PostingKind};
use sluice_credit::{Books, BooksError, Change, CycleId, Event, Statement, Terms};
use thiserror::Error;

use crate::{EntryKind, StoredEntry};

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

/// The books after all entries of a line that was opened on a day, in the order of the journal. An entry that contradicts those
/// before it is left out, and returned with the reason: the others count.
#[must_use]
pub fn books<'a>(
    terms: &Terms,
    opened_on: Date,
    entries: &'a [StoredEntry],
) -> (Books, Vec<(&'a StoredEntry, Unreadable)>) {
    let mut books = Books::default();
    let mut left_out = Vec::new();
    for entry in entries {
        let applied = event(terms, opened_on, entry).and_then(|event| books.apply(&event).map_err(Unreadable::from));
        if let Err(why) = applied {
            left_out.push((entry, why));
        }
    }
    (books, left_out)
}

fn event(terms: &Terms, opened_on: Date, entry: &StoredEntry) -> Result<Event, Unreadable> {
    let on = day(entry.business_day).ok_or(Unreadable::Entry("its business day is no date"))?;
    let amount = entry.amount;
    let change = match entry.kind {
        EntryKind::CycleClosed => Change::CycleClosed(statement(terms, opened_on, entry)?),
        EntryKind::Credit => Change::Credited { cycle: cycle(entry)?, amount },
        EntryKind::Posting(PostingKind::Repayment) => {
            Change::Repaid { repayment_no: number(entry)?, amount, received_on: on }
        }
        EntryKind::Posting(PostingKind::Reversal) => Change::RepaymentReversed { repayment_no: number(entry)? },
        EntryKind::Posting(PostingKind::WriteOff) => Change::WrittenOff { amount },
        EntryKind::Posting(PostingKind::TransferIn) => Change::TransferIn { transfer_no: number(entry)?, amount },
        EntryKind::Posting(PostingKind::TransferOut) => Change::TransferOut { transfer_no: number(entry)?, amount },
        EntryKind::Posting(PostingKind::Recovery) => {
            Change::Recovered { recovery_no: number(entry)?, amount, received_on: on }
        }
    };
    Ok(Event { on, change })
}

fn statement(terms: &Terms, opened_on: Date, entry: &StoredEntry) -> Result<Statement, Unreadable> {
    let first_day = day(entry.cycle).ok_or(Unreadable::Entry("its cycle begins on no date"))?;
    let cycle = terms.cycle.cycle_at(opened_on, first_day);
    let cycle = cycle.ok_or(Unreadable::Entry("its cycle began before the line was opened"))?;
    Ok(terms.statement(&cycle, entry.amount))
}

fn cycle(entry: &StoredEntry) -> Result<CycleId, Unreadable> {
    u32::try_from(entry.cycle).map(CycleId).map_err(|_| Unreadable::Entry("its cycle is negative"))
}

fn number(entry: &StoredEntry) -> Result<OperationNo, Unreadable> {
    let number = entry.posting_no.as_deref().and_then(|number| OperationNo::parse(number).ok());
    number.ok_or(Unreadable::Entry("its posting has no valid number"))
}

/// The day of an id (`YYYYMMDD`); `None` for a number that is no date.
fn day(id: i32) -> Option<Date> {
    let part = |number: i32| i8::try_from(number % 100).ok();
    Date::new(i16::try_from(id / 10_000).ok()?, part(id / 100)?, part(id)?).ok()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn entry(kind: EntryKind, cycle: i32, amount: i64, number: &str) -> StoredEntry {
        StoredEntry { kind, business_day: 20_261_201, cycle, amount, posting_no: Some(number.to_owned()) }
    }

    #[test]
    fn days_are_read() {
        assert_eq!([20_261_130, 20_280_229].map(day), [Some(date(2026, 11, 30)), Some(date(2028, 2, 29))]);
        assert_eq!([0, -1, 20_261_301, 20_270_229, i32::MAX].map(day), [None; 5]);
    }

    /// What contradicts the entries before it is left out; what follows still counts.
    #[test]
    fn contradictions_are_left_out() {
        let [repayment, write_off, recovery] =
            [PostingKind::Repayment, PostingKind::WriteOff, PostingKind::Recovery].map(EntryKind::Posting);
        let entries = [
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
        let (books, left_out) = books(&Terms::default(), date(2026, 11, 1), &entries);
        let number = |number: &str| OperationNo::parse(number).unwrap();
        let why: Vec<Unreadable> = left_out.into_iter().map(|(_, why)| why).collect();
        assert_eq!(
            why,
            [
                Unreadable::Books(BooksError::RepaymentUnknown(number("p-9"))),
                Unreadable::Entry("its cycle began before the line was opened"),
                Unreadable::Books(BooksError::RepaymentConflict(number("p-1"))),
                Unreadable::Books(BooksError::RecoveryTooLarge { amount: 6, written_off: 5 }),
            ]
        );
        let own = &books.obligations()[0];
        assert_eq!((books.billed(), own.paid(), own.written_off()), (30, 65, 5));
    }
}
