//! Suites of the whole crate: the tables of the design, the books' invariants, and generated lives beside an independent model.

mod behaviour;
mod books;
mod dunning;
mod life;
mod model;
mod schedule;
mod scorecard;
mod standing;
mod tables;

use jiff::civil::Date;
use quota::OperationNo;

use crate::{Change, Event, Terms};

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

fn no(text: &str) -> OperationNo {
    OperationNo::parse(text).unwrap()
}

/// An event on a day.
fn on(date: &str, change: Change) -> Event {
    Event { on: day(date), change }
}

fn repaid(date: &str, repayment_no: &str, amount: i64) -> Event {
    on(date, Change::Repaid { repayment_no: no(repayment_no), amount, received_on: day(date) })
}

fn recovered(date: &str, recovery_no: &str, amount: i64) -> Event {
    on(date, Change::Recovered { recovery_no: no(recovery_no), amount, received_on: day(date) })
}

/// What the line opened on 2026-01-01 uses in a cycle, and the close of that cycle on the day after it.
fn billed(terms: &Terms, first_day: &str, amount: i64) -> [Event; 2] {
    let cycle = terms.cycle.cycle_at(day("2026-01-01"), day(first_day)).unwrap();
    [
        Event { on: cycle.first_day, change: Change::Usage { held: 0, unbilled: amount } },
        Event { on: cycle.next_first_day(), change: Change::CycleClosed(terms.statement(&cycle, amount)) },
    ]
}
