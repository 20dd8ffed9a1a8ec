//! Stages by date, cures, probation, and what is to be paid.

use super::{billed, day, no, on, recovered, repaid};
use crate::{
    Ageing, BasisPoints, Books, Change, Event, LineHistory, Materiality, Pause, Stage, StageChange, StageEffect, Terms,
};

/// Books and pauses under their terms.
struct Line {
    terms: Terms,
    books: Books,
    pauses: Vec<Pause>,
}

impl Line {
    fn new(terms: Terms, events: Vec<Event>) -> Self {
        Self { terms, books: Books::replay(&events).unwrap(), pauses: Vec::new() }
    }

    fn pause(mut self, from: &str, to: &str) -> Self {
        let (reason, approved_by) = ("promise to pay".to_owned(), "risk-1".to_owned());
        self.pauses.push(Pause { from: day(from), to: day(to), reason, approved_by });
        self
    }

    fn history(&self) -> LineHistory<'_> {
        LineHistory { terms: &self.terms, obligations: self.books.obligations(), pauses: &self.pauses }
    }

    fn standing(&self, date: &str) -> (Stage, i64, u32) {
        let standing = self.history().standing(day(date));
        (standing.stage, standing.days_past_due, standing.cap_bp.0)
    }
}

/// January's 1,000, due on 2026-02-14, and what follows.
fn january(events: Vec<Event>) -> Line {
    let terms = Terms::default();
    let all = billed(&terms, "2026-01-01", 1_000).into_iter().chain(events).collect();
    Line::new(terms, all)
}

/// Each statement by itself: also where what is past due is not material, and not once its minimum is paid.
#[test]
fn statements_have_days_past_due_of_their_own() {
    let terms = Terms { minimum_bp: BasisPoints(5_000), ..Terms::default() };
    let february = billed(&terms, "2026-02-01", 100_000).into_iter();
    let events = billed(&terms, "2026-01-01", 1_000).into_iter().chain(february);
    let line =
        Line::new(terms, events.chain([repaid("2026-03-20", "r-1", 499), repaid("2026-03-25", "r-2", 1)]).collect());
    let line = line.pause("2026-02-20", "2026-02-24");
    let table = [
        ("2026-02-14", [0, 0]),
        ("2026-02-15", [1, 0]),
        ("2026-02-19", [5, 0]),
        ("2026-02-24", [5, 0]),
        ("2026-02-25", [6, 0]),
        ("2026-03-14", [23, 0]),
        ("2026-03-15", [24, 1]),
        ("2026-03-24", [33, 10]),
        ("2026-03-25", [0, 11]),
    ];
    for (date, expected) in table {
        let own = line.books.obligations().iter().map(|own| own.days_past_due(&line.pauses, day(date)));
        assert_eq!(own.collect::<Vec<_>>(), expected, "{date}");
    }
}

#[test]
fn stages_come_with_their_day() {
    let line = january(Vec::new());
    let table = [
        ("2026-01-15", Stage::Current, 0, 10_000),
        ("2026-02-14", Stage::Current, 0, 10_000),
        ("2026-02-15", Stage::Grace, 1, 10_000),
        ("2026-02-19", Stage::Grace, 5, 10_000),
        ("2026-02-20", Stage::Watch, 6, 7_500),
        ("2026-03-16", Stage::Watch, 30, 7_500),
        ("2026-03-17", Stage::Restricted, 31, 5_000),
        ("2026-04-15", Stage::Restricted, 60, 5_000),
        ("2026-04-16", Stage::Frozen, 61, 0),
        ("2026-05-15", Stage::Frozen, 90, 0),
        ("2026-05-16", Stage::Defaulted, 91, 0),
        ("2027-05-16", Stage::Defaulted, 456, 0),
    ];
    for (date, stage, days, cap) in table {
        assert_eq!(line.standing(date), (stage, days, cap), "{date}");
    }
    let next = line.history().next_stage_changes(day("2026-02-20"));
    let change = |on: &str, stage, days_past_due, cap| StageChange {
        on: day(on),
        stage,
        days_past_due,
        cap_bp: BasisPoints(cap),
    };
    let expected = [
        change("2026-03-17", Stage::Restricted, 31, 5_000),
        change("2026-04-16", Stage::Frozen, 61, 0),
        change("2026-05-16", Stage::Defaulted, 91, 0),
    ];
    assert_eq!(next, expected);
}

#[test]
fn a_pause_delays_the_next_stage() {
    let line = january(Vec::new()).pause("2026-02-18", "2026-02-27").pause("2026-02-25", "2026-02-27");
    assert_eq!(line.standing("2026-02-17").1, 3);
    assert_eq!(line.standing("2026-02-27"), (Stage::Grace, 3, 10_000));
    assert_eq!(line.standing("2026-03-02"), (Stage::Watch, 6, 7_500));
    assert_eq!(line.history().next_stage_changes(day("2026-02-17"))[0].on, day("2026-03-02"));
    // However long it is, what comes after it is foreseen.
    let line = january(Vec::new()).pause("2026-02-18", "2026-10-31").pause("2026-12-01", "2027-01-31");
    let last = line.history().next_stage_changes(day("2026-02-17")).last().copied();
    assert_eq!(last.map(|change| (change.stage, change.days_past_due)), Some((Stage::Defaulted, 91)));
}

/// Current as soon as it is paid; the cap rises with each cycle that is paid in full by its due date.
#[test]
fn the_cap_rises_one_step_for_each_cycle_paid() {
    let terms = Terms::default();
    let mut events = vec![repaid("2026-05-01", "a", 1_000)];
    for first_day in ["2026-02-01", "2026-03-01", "2026-04-01"] {
        events.extend(billed(&terms, first_day, 0));
    }
    events.sort_by_key(|event| event.on);
    // May's is paid in time, June's late, July's is paid in part and then in full in time.
    events.extend(billed(&terms, "2026-05-01", 500));
    events.push(repaid("2026-06-10", "b", 500));
    events.extend(billed(&terms, "2026-06-01", 500));
    events.push(repaid("2026-07-15", "c", 500));
    events.extend(billed(&terms, "2026-07-01", 500));
    events.extend([repaid("2026-08-02", "d", 499), repaid("2026-08-14", "e", 1)]);
    let line = january(events);
    let table = [
        ("2026-04-30", Stage::Frozen, 75, 0),
        // April closed on the 30th, while the line was past due, and counts for nothing.
        ("2026-05-01", Stage::Current, 0, 0),
        ("2026-06-09", Stage::Current, 0, 0),
        ("2026-06-10", Stage::Current, 0, 5_000),
        ("2026-07-14", Stage::Current, 0, 5_000),
        ("2026-07-15", Stage::Current, 0, 5_000),
        ("2026-08-13", Stage::Current, 0, 5_000),
        ("2026-08-14", Stage::Current, 0, 7_500),
    ];
    for (date, stage, days, cap) in table {
        assert_eq!(line.standing(date), (stage, days, cap), "{date}");
    }
}

/// A line that is frozen can close empty cycles only: they count, or its cap would never rise again.
#[test]
fn an_empty_cycle_counts_as_paid() {
    let terms = Terms::default();
    let mut events = vec![repaid("2026-05-01", "a", 1_000)];
    for first_day in ["2026-05-01", "2026-06-01", "2026-07-01"] {
        events.extend(billed(&terms, first_day, 0));
    }
    let line = january(events);
    let table = [("2026-05-30", 0), ("2026-05-31", 5_000), ("2026-06-30", 7_500), ("2026-07-31", 10_000)];
    for (date, cap) in table {
        assert_eq!(line.standing(date), (Stage::Current, 0, cap), "{date}");
    }
}

/// A payment in part makes the stage better, but not the cap.
#[test]
fn a_partial_cure_does_not_raise_the_cap() {
    let february = billed(&Terms::default(), "2026-02-01", 500);
    let line = january([february.to_vec(), vec![repaid("2026-03-20", "a", 1_000)]].concat());
    assert_eq!(line.standing("2026-03-19"), (Stage::Restricted, 33, 5_000));
    assert_eq!(line.standing("2026-03-20"), (Stage::Watch, 6, 5_000));
}

/// Probation begins with the cure, begins anew after more than 30 days past due, and does not end while anything is past due.
#[test]
fn default_ends_after_the_probation() {
    let line = january(vec![repaid("2026-06-01", "a", 1_000)]);
    let standing = line.history().standing(day("2026-06-01"));
    assert_eq!((standing.stage, standing.days_past_due, standing.cap_bp.0), (Stage::Defaulted, 0, 0));
    assert_eq!(standing.in_default_since, Some(day("2026-05-16")));
    assert_eq!(standing.probation_until, Some(day("2026-08-30")));
    assert!(standing.effects.contains(&StageEffect::TwoPersonsToLift));
    assert_eq!(line.standing("2026-08-29").0, Stage::Defaulted);
    let after = line.history().standing(day("2026-08-30"));
    assert_eq!((after.stage, after.in_default_since, after.probation_until), (Stage::Current, None, None));
    assert_eq!(after.left_default_on, Some(day("2026-08-30")));
    assert_eq!(line.history().next_stage_changes(day("2026-06-01"))[0].on, day("2026-08-30"));

    // June's 500, due on 2026-07-14: late by 30 days, by 31, and unpaid when the probation would end.
    let june = billed(&Terms::default(), "2026-06-01", 500).to_vec();
    let paid =
        |date| january([vec![repaid("2026-06-01", "a", 1_000)], june.clone(), vec![repaid(date, "b", 500)]].concat());
    let left = |line: &Line| line.history().standing(day("2027-06-01")).left_default_on;
    assert_eq!(left(&paid("2026-08-14")), Some(day("2026-08-30")));
    assert_eq!(left(&paid("2026-08-15")), Some(day("2026-11-13")));
    let july = billed(&Terms::default(), "2026-07-01", 500).to_vec();
    let mut late = vec![repaid("2026-06-01", "a", 1_000)];
    late.extend(july);
    late.push(repaid("2026-09-05", "b", 500));
    assert_eq!(left(&january(late)), Some(day("2026-09-05")));
}

#[test]
fn a_bounced_repayment_is_late_from_the_due_date() {
    let bounced = on("2026-04-01", Change::RepaymentReversed { repayment_no: no("a") });
    let line = january(vec![repaid("2026-02-10", "a", 1_000), bounced]);
    assert_eq!(line.standing("2026-04-01"), (Stage::Restricted, 46, 5_000));
}

#[test]
fn a_write_off_does_not_cure() {
    let line = january(vec![on("2026-06-01", Change::WrittenOff { amount: 1_000 })]);
    assert_eq!(line.standing("2026-06-02"), (Stage::Defaulted, 108, 0));
    assert_eq!(line.books.exposure(), 0);
    // A repayment waits for the next statement; a recovery is for what is written off.
    let written_off = || on("2026-06-01", Change::WrittenOff { amount: 1_000 });
    let line = january(vec![written_off(), repaid("2026-06-02", "a", 1_000)]);
    assert_eq!((line.standing("2026-06-03").1, line.books.exposure(), line.books.prepaid()), (109, 0, 1_000));
    let line = january(vec![written_off(), recovered("2026-06-02", "v", 1_000)]);
    assert_eq!((line.standing("2026-06-02").1, line.books.exposure(), line.books.prepaid()), (0, 0, 0));
}

/// Days past due by amounts and due dates: the most for which what is late so long is material.
#[test]
fn small_amounts_count_together() {
    let table = [
        // absolute and bp, amounts of January to April (due 02-14, 03-14, 04-14, 05-14), days past due on 05-04, to cure
        ((0, 100), [10, 0, 0, 0], 79, 10),
        ((50, 100), [50, 0, 0, 0], 0, 0),
        ((50, 100), [51, 0, 0, 0], 79, 1),
        // A remnant of one does not make a new debt old.
        ((50, 100), [1, 0, 500, 0], 20, 451),
        ((50, 100), [30, 30, 0, 0], 51, 10),
        ((50, 100), [30, 20, 1, 0], 20, 1),
        // Past due 30 of 3,000 and of 2,990: 1 % is exceeded by the second only.
        ((0, 100), [30, 0, 0, 2_970], 0, 0),
        ((0, 100), [30, 0, 0, 2_960], 79, 1),
        ((0, 5_000), [100, 0, 0, 40], 79, 60),
    ];
    for ((absolute, bp), amounts, days, cure) in table {
        let terms = Terms { materiality: Materiality { absolute, bp: BasisPoints(bp) }, ..Terms::default() };
        let months = ["2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01"];
        let events: Vec<Event> =
            months.iter().zip(amounts).flat_map(|(month, amount)| billed(&terms, month, amount)).collect();
        let line = Line::new(terms, events);
        let overdue = line.history().overdue(day("2026-05-04"));
        assert_eq!((overdue.days_past_due, overdue.amount_to_cure), (days, cure), "{absolute} {bp} {amounts:?}");
    }
}

/// Paying the amount cures at once, and one less does not.
#[test]
fn the_amount_to_cure_cures() {
    let terms = Terms {
        minimum_bp: BasisPoints(4_000),
        materiality: Materiality { absolute: 20, bp: BasisPoints(500) },
        ..Terms::default()
    };
    let months = [("2026-01-01", 300), ("2026-02-01", 200), ("2026-03-01", 400)];
    let events: Vec<Event> = months.iter().flat_map(|(month, amount)| billed(&terms, month, *amount)).collect();
    for (date, expected) in [("2026-02-20", 100), ("2026-03-20", 360), ("2026-05-20", 640)] {
        let line = Line::new(terms.clone(), events.iter().filter(|event| event.on <= day(date)).cloned().collect());
        let amount = line.history().overdue(day(date)).amount_to_cure;
        assert_eq!(amount, expected, "{date}");
        for (paid, cures) in [(amount, true), (amount - 1, false)] {
            let mut books = line.books.clone();
            books.apply(&repaid(date, "cure", paid)).unwrap();
            let history = LineHistory { obligations: books.obligations(), ..line.history() };
            assert_eq!(history.overdue(day(date)).days_past_due == 0, cures, "{date} {paid}");
        }
    }
}

/// 40 % of a statement is due; the rest is billed and never past due.
#[test]
fn a_statement_is_past_due_while_its_minimum_is_unpaid() {
    let terms = Terms { minimum_bp: BasisPoints(4_000), ..Terms::default() };
    let used = billed(&terms, "2026-01-01", 1_000).to_vec();
    let short = Line::new(terms.clone(), [used.clone(), vec![repaid("2026-02-10", "a", 390)]].concat());
    let overdue = short.history().overdue(day("2026-02-20"));
    assert_eq!((overdue.days_past_due, overdue.past_due, overdue.amount_to_cure), (6, 10, 4));
    let enough = Line::new(terms, [used, vec![repaid("2026-02-10", "a", 400)]].concat());
    let overdue = enough.history().overdue(day("2026-06-20"));
    assert_eq!((overdue.days_past_due, overdue.past_due, overdue.oldest_due_on), (0, 0, None));
    assert_eq!(overdue.ageing, Ageing { not_past_due: 600, ..Ageing::default() });
}

#[test]
fn ageing_has_its_buckets() {
    let line = january(billed(&Terms::default(), "2026-02-01", 200).to_vec());
    let table = [
        // A statement counts from the day on which its cycle closes.
        ("2026-01-30", [0, 0, 0, 0, 0]),
        ("2026-01-31", [1_000, 0, 0, 0, 0]),
        ("2026-02-14", [1_000, 0, 0, 0, 0]),
        ("2026-02-15", [0, 1_000, 0, 0, 0]),
        ("2026-03-16", [0, 1_200, 0, 0, 0]),
        ("2026-03-17", [0, 200, 1_000, 0, 0]),
        ("2026-04-15", [0, 0, 1_200, 0, 0]),
        ("2026-04-16", [0, 0, 200, 1_000, 0]),
        ("2026-05-15", [0, 0, 0, 1_200, 0]),
        ("2026-05-16", [0, 0, 0, 200, 1_000]),
    ];
    for (date, expected) in table {
        let own = line.history().overdue(day(date)).ageing;
        let buckets = [own.not_past_due, own.days_1_to_30, own.days_31_to_60, own.days_61_to_90, own.days_over_90];
        assert_eq!(buckets, expected, "{date}");
    }
    let oldest = line.history().overdue(day("2026-05-16")).oldest_due_on;
    assert_eq!(oldest, Some(day("2026-02-14")));
}
