//! Which run is due: by the statements, the runs that were made, and the stage of the day.

use chrono::DateTime;
use sluice_credit::{Grade, Stage, Terms};

use super::*;
use crate::EntryKind;
use crate::simulation::tests::{day, entry, line};

/// A decision: its id, its day, the cycle of a close, the stage and the grade.
pub(crate) type Decision<'a> = (i64, &'a str, Option<u32>, Stage, Grade);

const JANUARY: u32 = 20_260_101;
const FEBRUARY: u32 = 20_260_201;
const OPENING: Decision<'_> = (1, "2026-01-01", None, Stage::Current, Grade::B);

pub(crate) fn row((grade_id, on, cycle, stage, grade): Decision<'_>) -> GradeRow {
    let is_run = grade_id > 1;
    GradeRow {
        grade_id,
        kind: if is_run { GradeKind::Scorecard } else { GradeKind::Opening },
        grade,
        on_day: day(on),
        changed_on: day(on),
        reason: None,
        expires_on: None,
        requested_by: ACTOR.to_owned(),
        approved_by: None,
        approved_at: None,
        approved_on: None,
        due_days: None,
        minimum_bp: None,
        is_close: cycle.is_some(),
        scorecard: None,
        score: None,
        cycle: cycle.map(CycleId),
        stage: is_run.then_some(stage),
        days_past_due: None,
        run: None,
        created_at: DateTime::UNIX_EPOCH,
    }
}

/// A line of months with statements of 1,000 for the cycles given, due 14 days after their last day.
fn record(closed: &[u32], decisions: &[Decision<'_>]) -> LineRecord {
    let mut record = LineRecord { versions: vec![line()], ..LineRecord::default() };
    for (cycle, number) in closed.iter().zip(1..) {
        let first_day = crate::day_of(*cycle).unwrap();
        let found = Terms::default().cycle.cycle_at(first_day, first_day).unwrap();
        let statement = Terms::default().statement(&found, 1_000);
        record.statements.push(sluice_credit::Statement { number, ..statement });
        record.entries.push(entry(EntryKind::CycleClosed, *cycle, 1_000));
    }
    record.grades = decisions.iter().copied().map(row).collect();
    record
}

/// January's statement is due on 2026-02-14, February's on 2026-03-14.
#[test]
fn closes_come_first_then_the_stage() {
    use Stage::{Current, Grace, Watch};
    let close = |on, cycle| Some((on, Some(cycle)));
    let of_january = (2, "2026-02-01", Some(JANUARY), Current, Grade::C);
    let table: [(&[u32], &[Decision<'_>], &str, Option<(&str, Option<u32>)>); 11] = [
        (&[], &[OPENING], "2026-01-20", None),
        (&[], &[], "2026-01-20", None),
        (&[JANUARY], &[OPENING], "2026-02-01", close("2026-02-01", JANUARY)),
        // Late: it is of its day.
        (&[JANUARY], &[OPENING], "2026-02-20", close("2026-02-01", JANUARY)),
        (&[JANUARY], &[OPENING, of_january], "2026-02-14", None),
        (&[JANUARY], &[OPENING, of_january], "2026-02-15", Some(("2026-02-15", None))),
        (&[JANUARY], &[OPENING, of_january, (3, "2026-02-15", None, Grace, Grade::C)], "2026-02-19", None),
        // Two stages passed meanwhile: that of today counts.
        (&[JANUARY], &[OPENING, of_january], "2026-02-20", Some(("2026-02-20", None))),
        // No run is of a day before the last one's.
        (
            &[JANUARY, FEBRUARY],
            &[OPENING, of_january, (3, "2026-03-02", None, Watch, Grade::C)],
            "2026-03-05",
            close("2026-03-02", FEBRUARY),
        ),
        (&[JANUARY, FEBRUARY], &[OPENING], "2026-03-05", close("2026-02-01", JANUARY)),
        // Of a line before this one.
        (&[JANUARY], &[(1, "2026-02-05", None, Current, Grade::B)], "2026-02-05", None),
    ];
    for (closed, decisions, today, expected) in table {
        let record = record(closed, decisions);
        let found = record.due_run(&record.books().0, day(today));
        let last = decisions.last().map_or(0, |last| last.0);
        let expected = expected.map(|(on, cycle)| DueRun { on: day(on), cycle: cycle.map(CycleId), follows: last });
        assert_eq!(found, expected, "{closed:?} {decisions:?} {today}");
        let mut closed_line = record.clone();
        closed_line.versions[0].state = LineState::Closed;
        assert_eq!(closed_line.due_run(&record.books().0, day(today)), None, "{today}");
        assert_eq!(closed_line.next_run(day(today)), None, "{today}");
    }
}

#[test]
fn the_next_run_is_known() {
    let of_january = (2, "2026-02-01", Some(JANUARY), Stage::Current, Grade::C);
    let table: [(&[u32], &[Decision<'_>], &str, (&str, bool)); 5] = [
        (&[], &[OPENING], "2026-01-20", ("2026-02-01", true)),
        // Due already: with the next sweep.
        (&[JANUARY], &[OPENING], "2026-02-03", ("2026-02-03", true)),
        (&[JANUARY], &[OPENING, of_january], "2026-02-03", ("2026-02-15", false)),
        (
            &[JANUARY],
            &[OPENING, of_january, (3, "2026-02-15", None, Stage::Grace, Grade::C)],
            "2026-02-15",
            ("2026-02-20", false),
        ),
        (
            &[JANUARY],
            &[OPENING, of_january, (3, "2026-02-20", None, Stage::Watch, Grade::C)],
            "2026-02-25",
            ("2026-03-01", true),
        ),
    ];
    for (closed, decisions, today, (on, is_close)) in table {
        let found = record(closed, decisions).next_run(day(today));
        assert_eq!(found, Some(NextRun { on: day(on), is_close }), "{decisions:?} {today}");
    }
}

/// Falls of a year; neither rises nor the grade that another line ended with.
#[test]
fn downgrades_are_those_of_a_year() {
    let run = |id, on, grade| (id, on, None, Stage::Current, grade);
    let grades = [
        run(1, "2025-01-01", Grade::A),
        run(2, "2025-06-10", Grade::C),
        run(3, "2025-06-11", Grade::D),
        run(4, "2025-12-01", Grade::C),
        run(5, "2026-01-01", Grade::E),
    ];
    let reopened = [&grades[..], &[run(1, "2026-02-01", Grade::B)]].concat();
    let table = [
        (&grades[..], "2026-06-10", 2),
        (&grades[..], "2026-06-11", 1),
        (&grades[..4], "2026-06-10", 1),
        (&reopened[..], "2026-06-10", 0),
    ];
    for (decisions, on, expected) in table {
        assert_eq!(record(&[], decisions).downgrades(day(on)), expected, "{decisions:?} {on}");
    }
}

/// The days of a line that was taken over are those since it was put in force here: before, its payments were elsewhere.
#[test]
fn the_behaviour_of_a_line_begins_where_it_was_put_in_force() {
    let amounts = ["2026-06-01", "2026-06-02", "2026-06-03", "2026-06-04"].map(|on| (crate::id_of(day(on)), 100, 1));
    let activity = serde_json::json!({"rows": 4, "first_day": 20_260_601, "charges": 4, "refused": 0, "holds": 0,
        "expired_holds": 0, "gateway_failed": 0, "hours": [400], "days": amounts, "disputes": 0});
    let activity: Activity = serde_json::from_value(activity).unwrap();
    for (active_from, opened_on, is_even) in [
        ("2026-06-01", "2026-06-01", true),
        ("2026-06-01", "2024-01-15", true),
        ("2026-05-01", "2024-01-15", false),
        ("2026-05-01", "2026-05-01", false),
    ] {
        let mut record = record(&[], &[OPENING]);
        record.versions[0].activated_on = Some(day(active_from));
        let history = record.history(&record.books().0).map(|history| {
            let inputs = record.inputs(&history, day(opened_on), &activity, day("2026-06-05"));
            inputs.0.get(&Feature::DailyAmountVolatilityBp).copied()
        });
        assert_eq!(history.flatten() == Some(0), is_even, "{active_from} {opened_on}: {history:?}");
    }
}
