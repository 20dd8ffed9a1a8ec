//! Simulated days: one row a day, and what changes the outcome.

use chrono::DateTime;
use quota::PostingKind;
use sluice_credit::{BasisPoints, CycleId, Grade, LimitOverride, Pause, Stage};
use uuid::Uuid;

use super::*;
use crate::run::tests::row as decision;
use crate::{CreditLine, EntryKind, GradeKind, GradeRow, LineState, StoredEntry};

const JANUARY: u32 = 20_260_101;
/// What January has charged by the day of [`today`].
const USAGE: LineUsage = LineUsage { cycle: JANUARY, exposure: 1_000, unbilled: 1_000, held: 0 };

pub(crate) fn day(text: &str) -> Date {
    text.parse().unwrap()
}

fn today() -> Date {
    day("2026-01-20")
}

/// A line of 10,000 with the default terms, open since the first of January.
pub(crate) fn line() -> CreditLine {
    CreditLine {
        line_id: Uuid::nil(),
        version: 1,
        merchant_id: "shop".to_owned(),
        currency: "USD".to_owned(),
        limit_base: 10_000,
        grade: Grade::B,
        terms: Terms::default(),
        override_limit: None,
        override_until: None,
        expires_on: None,
        taken_over_from: None,
        state: LineState::Active,
        opened_on: Some(day("2026-01-01")),
        activated_on: Some(day("2026-01-01")),
        closed_on: None,
        created_by: "user:ana".to_owned(),
        created_at: DateTime::UNIX_EPOCH,
        edited_by: vec!["user:ana".to_owned()],
        updated_at: DateTime::UNIX_EPOCH,
        approved_by: Some("user:ben".to_owned()),
        approved_at: None,
        metadata: None,
        remarks: None,
        revision: 1,
    }
}

fn record(line: CreditLine) -> LineRecord {
    LineRecord { versions: vec![line], ..LineRecord::default() }
}

pub(crate) fn entry(kind: EntryKind, cycle: u32, amount: i64) -> StoredEntry {
    StoredEntry {
        entry_id: 0,
        event_id: Uuid::nil(),
        kind,
        at: DateTime::UNIX_EPOCH,
        business_day: 20_260_110,
        cycle,
        amount,
        posting_no: Some("p-1".to_owned()),
        value_day: None,
    }
}

fn simulate(record: &LineRecord, usage: LineUsage, date: &str) -> Simulation {
    let basis = SimulationBasis { today: today(), usage, sent: &BTreeSet::new() };
    record.simulate(&Bands::default(), basis, day(date)).unwrap()
}

/// The statement is due on 2026-02-14.
#[test]
fn each_stage_has_its_days() {
    use Stage::{Current, Defaulted, Frozen, Grace, Restricted, Watch};
    let record = record(line());
    let table = [
        // day, whether the cycle has closed, stage, days past due, limit, amount to cure, changes and notices until then
        ("2026-01-20", false, Current, 0, 10_000, 0, 0, 0),
        ("2026-01-30", false, Current, 0, 10_000, 0, 0, 0),
        ("2026-01-31", true, Current, 0, 10_000, 0, 0, 0),
        ("2026-02-11", true, Current, 0, 10_000, 0, 0, 1),
        ("2026-02-14", true, Current, 0, 10_000, 0, 0, 2),
        ("2026-02-15", true, Grace, 1, 10_000, 1_000, 1, 3),
        ("2026-02-19", true, Grace, 5, 10_000, 1_000, 1, 3),
        ("2026-02-20", true, Watch, 6, 7_500, 1_000, 2, 3),
        ("2026-03-16", true, Watch, 30, 7_500, 1_000, 2, 6),
        ("2026-03-17", true, Restricted, 31, 5_000, 1_000, 3, 6),
        ("2026-04-15", true, Restricted, 60, 5_000, 1_000, 3, 8),
        ("2026-04-16", true, Frozen, 61, 0, 1_000, 4, 8),
        ("2026-05-15", true, Frozen, 90, 0, 1_000, 4, 9),
        ("2026-05-16", true, Defaulted, 91, 0, 1_000, 5, 9),
        ("2027-01-20", true, Defaulted, 340, 0, 1_000, 5, 9),
    ];
    for (date, is_closed, stage, days_past_due, limit, amount_to_cure, changes, notices) in table {
        let found = simulate(&record, USAGE, date);
        let at = (found.standing.stage, found.standing.days_past_due, found.limit, found.overdue.amount_to_cure);
        assert_eq!(at, (stage, days_past_due, limit, amount_to_cure), "{date}");
        assert_eq!((found.stage_changes.len(), found.notices.len()), (changes, notices), "{date}");
        assert_eq!(found.exposure, 1_000, "{date}");
        assert_eq!(found.available, (limit - 1_000).max(0), "{date}");
        let statement = found.statement.map(|own| (own.number, own.amount, own.minimum, own.closed_on, own.due_on));
        let expected = (1, 1_000, 1_000, day("2026-01-31"), day("2026-02-14"));
        assert_eq!(statement, is_closed.then_some(expected), "{date}");
    }
    let found = simulate(&record, USAGE, "2026-05-16");
    let changes: Vec<(Date, Stage)> = found.stage_changes.iter().map(|change| (change.on, change.stage)).collect();
    let expected = [
        ("2026-02-15", Grace),
        ("2026-02-20", Watch),
        ("2026-03-17", Restricted),
        ("2026-04-16", Frozen),
        ("2026-05-16", Defaulted),
    ];
    assert_eq!(changes, expected.map(|(on, stage)| (day(on), stage)));
    let notices: Vec<(Date, i16)> = found.notices.iter().map(|notice| (notice.on, notice.step.day)).collect();
    let expected = [
        ("2026-02-11", -3),
        ("2026-02-14", 0),
        ("2026-02-15", 1),
        ("2026-02-21", 7),
        ("2026-02-28", 14),
        ("2026-03-16", 30),
        ("2026-03-31", 45),
        ("2026-04-15", 60),
        ("2026-05-15", 90),
    ];
    assert_eq!(notices, expected.map(|(on, step)| (day(on), step)));
}

/// Each row changes the record or the usage; the day is one on which the plain line is in `watch`.
#[test]
fn what_else_counts_is_counted() {
    type Row = (&'static str, LineRecord, LineUsage, (Stage, i64, i64, i64), Option<(u32, i64)>);
    let statement = |number, cycle, first_day, closed_on, due_on, amount| Statement {
        number,
        cycle: CycleId(cycle),
        first_day: day(first_day),
        closed_on: day(closed_on),
        due_on: day(due_on),
        amount,
        minimum: amount,
    };
    let prepaid = entry(EntryKind::Posting(PostingKind::Repayment), 0, 1_500);
    let (own, may) = (line(), day("2026-05-31"));
    let december = statement(7, 20_251_201, "2025-12-01", "2025-12-31", "2026-01-14", 400);
    let january = statement(1, JANUARY, "2026-01-01", "2026-01-31", "2026-02-14", 1_000);
    let closed = |own: Statement| LineRecord {
        statements: vec![own],
        entries: vec![entry(EntryKind::CycleClosed, own.cycle.0, own.amount)],
        ..record(line())
    };
    let pause = Pause {
        from: day("2026-02-15"),
        to: day("2026-02-24"),
        reason: "pays in March".to_owned(),
        approved_by: "user:ben".to_owned(),
    };
    let by_hand = LimitOverride { limit: 20_000, expires_on: may };
    let overridden =
        CreditLine { override_limit: Some(by_hand.limit), override_until: Some(by_hand.expires_on), ..own.clone() };
    let over = LineUsage { exposure: -500, ..USAGE };
    let table: [Row; 9] = [
        ("nothing else", record(own.clone()), USAGE, (Stage::Watch, 10, 7_500, 6_500), Some((1, 1_000))),
        (
            "money in advance pays the statement",
            LineRecord { entries: vec![prepaid], ..record(own.clone()) },
            over,
            (Stage::Current, 0, 10_000, 10_500),
            Some((1, 1_000)),
        ),
        (
            "an older statement is due for longer",
            closed(december),
            USAGE,
            (Stage::Restricted, 41, 5_000, 4_000),
            Some((8, 1_000)),
        ),
        ("the journal has closed the cycle already", closed(january), USAGE, (Stage::Watch, 10, 7_500, 6_500), None),
        (
            "a pause is not counted",
            LineRecord { pauses: vec![pause], ..record(own.clone()) },
            USAGE,
            (Stage::Current, 0, 10_000, 9_000),
            Some((1, 1_000)),
        ),
        ("the limit is set by hand", record(overridden), USAGE, (Stage::Watch, 10, 20_000, 19_000), Some((1, 1_000))),
        (
            "the line has expired",
            record(CreditLine { expires_on: Some(day("2026-02-01")), ..own.clone() }),
            USAGE,
            (Stage::Watch, 10, 7_500, 0),
            Some((1, 1_000)),
        ),
        (
            "nothing was charged",
            record(own.clone()),
            LineUsage::default(),
            (Stage::Current, 0, 10_000, 10_000),
            Some((1, 0)),
        ),
        (
            "the cycle is of a line before",
            record(CreditLine { opened_on: Some(day("2026-01-15")), ..own }),
            USAGE,
            (Stage::Watch, 10, 7_500, 6_500),
            Some((1, 1_000)),
        ),
    ];
    for (name, record, usage, expected, statement) in table {
        let found = simulate(&record, usage, "2026-02-24");
        let at = (found.standing.stage, found.standing.days_past_due, found.limit, found.available);
        assert_eq!(at, expected, "{name}");
        assert_eq!(found.statement.map(|own| (own.number, own.amount)), statement, "{name}");
    }
}

/// Cycles that close with nothing to pay count as paid in time: each lifts a cap that is left from before by one step.
#[test]
fn later_cycles_close_with_nothing() {
    let own = CreditLine { opened_on: Some(day("2025-11-01")), activated_on: Some(day("2025-11-01")), ..line() };
    let november = Statement {
        number: 1,
        cycle: CycleId(20_251_101),
        first_day: day("2025-11-01"),
        closed_on: day("2025-11-30"),
        due_on: day("2025-12-14"),
        amount: 400,
        minimum: 400,
    };
    let paid = StoredEntry { business_day: 20_260_118, ..entry(EntryKind::Posting(PostingKind::Repayment), 0, 400) };
    let closed = StoredEntry { business_day: 20_251_201, ..entry(EntryKind::CycleClosed, 20_251_101, 400) };
    let record = LineRecord { statements: vec![november], entries: vec![closed, paid], ..record(own) };
    // Paid 35 days past due: the stage is `current`, and the cap is that of `restricted`.
    let usage = LineUsage { cycle: JANUARY, ..LineUsage::default() };
    for (date, limit) in [("2026-01-20", 5_000), ("2026-01-31", 7_500), ("2026-02-28", 10_000), ("2026-06-30", 10_000)]
    {
        let found = simulate(&record, usage, date);
        assert_eq!((found.standing.stage, found.limit), (Stage::Current, limit), "{date}");
    }
}

/// What was sent is not sent again; what is due and was not sent is.
#[test]
fn notices_that_were_sent_are_left_out() {
    let record = record(line());
    let step = |step| NoticeKey { obligation: CycleId(JANUARY), step };
    for (sent, expected) in [(vec![], vec![-3, 0, 1]), (vec![-3, 1], vec![0])] {
        let sent: BTreeSet<NoticeKey> = sent.into_iter().map(step).collect();
        let basis = SimulationBasis { today: today(), usage: USAGE, sent: &sent };
        let found = record.simulate(&Bands::default(), basis, day("2026-02-15")).unwrap();
        assert_eq!(found.notices.iter().map(|notice| notice.step.day).collect::<Vec<_>>(), expected);
    }
}

/// The statement is made by the grade's terms, as they were copied into the decision, up to the last day of an override.
#[test]
fn the_grade_decides_the_statement() {
    let decided = |due_days, minimum_bp: Option<u32>| GradeRow {
        due_days,
        minimum_bp: minimum_bp.map(BasisPoints),
        ..decision((1, "2026-01-01", None, Stage::Current, Grade::D))
    };
    let by_hand = |expires_on: &str| GradeRow {
        kind: GradeKind::Override,
        approved_by: Some("user:ben".to_owned()),
        expires_on: Some(day(expires_on)),
        ..decided(Some(30), None)
    };
    let table = [
        (vec![decided(None, None)], "2026-02-14", 1_000),
        (vec![decided(Some(7), None)], "2026-02-07", 1_000),
        (vec![decided(Some(7), Some(2_500))], "2026-02-07", 250),
        (vec![decided(Some(7), Some(2_500)), by_hand("2026-01-31")], "2026-03-02", 1_000),
        (vec![decided(Some(7), Some(2_500)), by_hand("2026-01-30")], "2026-02-07", 250),
    ];
    for (grades, due_on, minimum) in table {
        let record = LineRecord { grades, ..record(line()) };
        let found = simulate(&record, USAGE, "2026-02-01").statement.map(|own| (own.due_on, own.minimum));
        assert_eq!(found, Some((day(due_on), minimum)));
        let terms = record.statement_terms(day("2026-01-31")).map(|terms| terms.due_days);
        assert_eq!(terms.map(|days| crate::activity::plus_days(day("2026-01-31"), days.into())), Some(day(due_on)));
    }
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let bands = Bands::default();
    let (first, last) = (today(), day("2036-01-18"));
    let basis = SimulationBasis { today: first, usage: USAGE, sent: &BTreeSet::new() };
    let record = record(line());
    for text in ["2026-01-19", "2036-01-19"] {
        let error = record.simulate(&bands, basis, day(text)).unwrap_err();
        assert_eq!(error, SimulationError::Date { date: day(text), first, last });
    }
    assert_eq!(record.simulate(&bands, basis, last).unwrap().standing.stage, Stage::Defaulted);
    let none = LineRecord::default().simulate(&bands, basis, last);
    assert_eq!(none.unwrap_err(), SimulationError::NoLine);
}
