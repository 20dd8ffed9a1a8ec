//! Cycles over versions of the terms: tables, and that every day is in one cycle whatever is activated when.

use jiff::civil::Date;
use proptest::{collection, prelude::*, sample};

use super::day;
use crate::CycleRule::{self, EveryDays, Monthly};
use crate::{Cycle, Schedule, Terms, TermsVersion};

const FIRST: CycleRule = Monthly { day: 1 };
const FIFTEENTH: CycleRule = Monthly { day: 15 };
const LAST: CycleRule = Monthly { day: 28 };
const THIRTY: CycleRule = EveryDays { days: 30 };
const WEEK: CycleRule = EveryDays { days: 7 };

/// Versions that differ in their due days: 1 for the first one.
fn versions<'a>(versions: impl IntoIterator<Item = &'a (Date, CycleRule)>) -> Vec<TermsVersion> {
    let version = |(due_days, (activated_on, cycle)): (u16, &(Date, CycleRule))| TermsVersion {
        activated_on: *activated_on,
        terms: Terms { cycle: *cycle, due_days, ..Terms::default() },
    };
    (1..).zip(versions).map(version).collect()
}

/// Each row: the day of opening, versions with the day of their activation, and cycles by a day in them: number, first and last
/// day, and the version's number.
#[test]
fn a_version_takes_effect_after_the_running_cycle() {
    type Row = (
        &'static str,
        &'static str,
        Vec<(&'static str, CycleRule)>,
        Vec<(&'static str, u32, &'static str, &'static str, u16)>,
    );
    let table: [Row; 13] = [
        (
            "one version",
            "2026-01-20",
            vec![("2026-01-20", FIRST)],
            vec![("2026-01-20", 1, "2026-01-20", "2026-01-31", 1), ("2027-01-31", 13, "2027-01-01", "2027-01-31", 1)],
        ),
        (
            "from the first to the fifteenth: a short cycle between them",
            "2026-01-01",
            vec![("2026-01-01", FIRST), ("2026-03-10", FIFTEENTH)],
            vec![
                ("2026-03-31", 3, "2026-03-01", "2026-03-31", 1),
                ("2026-04-01", 4, "2026-04-01", "2026-04-14", 2),
                ("2026-04-15", 5, "2026-04-15", "2026-05-14", 2),
            ],
        ),
        (
            "from months to thirty days",
            "2026-01-01",
            vec![("2026-01-01", FIRST), ("2026-01-02", THIRTY)],
            vec![
                ("2026-01-31", 1, "2026-01-01", "2026-01-31", 1),
                ("2026-02-01", 2, "2026-02-01", "2026-03-02", 2),
                ("2026-03-03", 3, "2026-03-03", "2026-04-01", 2),
            ],
        ),
        (
            "from thirty days to months",
            "2026-01-10",
            vec![("2026-01-10", THIRTY), ("2026-02-20", FIRST)],
            vec![
                ("2026-03-10", 2, "2026-02-09", "2026-03-10", 1),
                ("2026-03-11", 3, "2026-03-11", "2026-03-31", 2),
                ("2026-04-01", 4, "2026-04-01", "2026-04-30", 2),
            ],
        ),
        (
            "of two in one cycle the last one counts",
            "2026-01-01",
            vec![("2026-01-01", FIRST), ("2026-02-03", WEEK), ("2026-02-20", FIFTEENTH)],
            vec![
                ("2026-02-28", 2, "2026-02-01", "2026-02-28", 1),
                ("2026-03-01", 3, "2026-03-01", "2026-03-14", 3),
                ("2026-03-15", 4, "2026-03-15", "2026-04-14", 3),
            ],
        ),
        (
            "also where it is the one in force",
            "2026-01-01",
            vec![("2026-01-01", FIRST), ("2026-02-03", WEEK), ("2026-02-03", FIRST)],
            vec![("2026-03-31", 3, "2026-03-01", "2026-03-31", 3), ("2026-04-01", 4, "2026-04-01", "2026-04-30", 3)],
        ),
        (
            "on the first day of a cycle: after it",
            "2026-01-01",
            vec![("2026-01-01", FIRST), ("2026-02-01", THIRTY)],
            vec![("2026-02-28", 2, "2026-02-01", "2026-02-28", 1), ("2026-03-01", 3, "2026-03-01", "2026-03-30", 2)],
        ),
        (
            "on the last day of a cycle: on the next one",
            "2026-01-01",
            vec![("2026-01-01", FIRST), ("2026-02-28", THIRTY)],
            vec![("2026-02-28", 2, "2026-02-01", "2026-02-28", 1), ("2026-03-01", 3, "2026-03-01", "2026-03-30", 2)],
        ),
        (
            "on the day of opening: after the first cycle",
            "2026-01-31",
            vec![("2026-01-31", FIRST), ("2026-01-31", THIRTY)],
            vec![("2026-01-31", 1, "2026-01-31", "2026-01-31", 1), ("2026-02-01", 2, "2026-02-01", "2026-03-02", 2)],
        ),
        (
            "before the opening: the last one",
            "2026-02-01",
            vec![("2026-01-01", FIRST), ("2026-01-10", THIRTY), ("2026-02-01", WEEK)],
            vec![("2026-02-01", 1, "2026-02-01", "2026-03-02", 2), ("2026-03-03", 2, "2026-03-03", "2026-03-09", 3)],
        ),
        (
            "one after the other",
            "2026-01-01",
            vec![("2026-01-01", WEEK), ("2026-01-05", FIFTEENTH), ("2026-01-08", WEEK), ("2026-01-15", THIRTY)],
            vec![
                ("2026-01-07", 1, "2026-01-01", "2026-01-07", 1),
                ("2026-01-08", 2, "2026-01-08", "2026-01-14", 2),
                ("2026-01-21", 3, "2026-01-15", "2026-01-21", 3),
                ("2026-01-22", 4, "2026-01-22", "2026-02-20", 4),
            ],
        ),
        (
            "on a leap day",
            "2028-02-01",
            vec![("2028-02-01", FIRST), ("2028-02-29", LAST)],
            vec![
                ("2028-02-29", 1, "2028-02-01", "2028-02-29", 1),
                ("2028-03-01", 2, "2028-03-01", "2028-03-27", 2),
                ("2028-03-28", 3, "2028-03-28", "2028-04-27", 2),
            ],
        ),
        (
            "opened on a leap day",
            "2028-02-29",
            vec![("2028-02-29", LAST), ("2028-03-27", THIRTY)],
            vec![("2028-03-27", 1, "2028-02-29", "2028-03-27", 1), ("2028-03-28", 2, "2028-03-28", "2028-04-26", 2)],
        ),
    ];
    for (name, opened, given, cycles) in table {
        let given: Vec<_> = given.into_iter().map(|(date, rule)| (day(date), rule)).collect();
        let schedule = Schedule::new(day(opened), versions(&given));
        for (date, number, first, last, version) in cycles {
            let expected = Cycle { number, first_day: day(first), last_day: day(last) };
            let got = |found: Option<(Cycle, &Terms)>| found.map(|(cycle, terms)| (cycle, terms.due_days));
            assert_eq!(got(schedule.cycle_at(day(date))), Some((expected, version)), "{name}: {date}");
            assert_eq!(got(schedule.cycle_from(day(first))), Some((expected, version)), "{name}: {first}");
            let is_first = date == first;
            assert_eq!(schedule.cycle_from(day(date)).is_some(), is_first, "{name}: {date}");
        }
        assert_eq!(schedule.cycle_at(day(opened).yesterday().unwrap()), None, "{name}");
    }
    assert_eq!(Schedule::new(day("2026-01-01"), []).cycle_at(day("2026-01-01")), None);
}

/// Whether a cycle ends where its rule says, from the day on which it begins.
fn ends_by_rule(rule: CycleRule, cycle: &Cycle) -> bool {
    let next = cycle.last_day.tomorrow().unwrap();
    match rule {
        Monthly { day } => {
            let mut within = cycle.first_day.series(jiff::Span::new().days(1)).skip(1).take_while(|date| *date < next);
            next.day() == day && within.all(|date| date.day() != day)
        }
        EveryDays { days } => cycle.first_day.until(next).unwrap().get_days() == i32::from(days),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    /// Every day from the opening on is in one cycle; cycles follow each other without a gap, numbered one by one, each under the
    /// last version that was activated before it began.
    #[test]
    fn every_day_is_in_one_cycle(
        opened in sample::select(["2026-01-01", "2026-01-31", "2027-12-31", "2028-02-29"].map(day).to_vec()),
        first in (sample::select([-9, 0].to_vec()), 0..6_usize),
        later in collection::vec((prop_oneof![Just(0_i64), 1..5_i64, 5..120_i64], 0..6_usize), 0..12),
    ) {
        let rules = [FIRST, FIFTEENTH, LAST, THIRTY, WEEK, EveryDays { days: 1 }];
        let mut date = opened;
        let given: Vec<(Date, CycleRule)> = std::iter::once(first).chain(later).map(|(days, rule)| {
            date = crate::day::plus_days(date, days);
            (date, rules[rule])
        }).collect();
        let schedule = Schedule::new(opened, versions(&given));
        let mut current: Option<Cycle> = None;
        for date in opened.series(jiff::Span::new().days(1)).take(1_500) {
            let (cycle, terms) = schedule.cycle_at(date).unwrap();
            prop_assert!((cycle.first_day..=cycle.last_day).contains(&date), "{date}: {cycle:?}");
            if current == Some(cycle) {
                prop_assert_eq!(schedule.cycle_from(date), None);
                continue;
            }
            let before = current.map_or((0, opened), |before| (before.number, before.next_first_day()));
            prop_assert_eq!((cycle.number, cycle.first_day, date), (before.0 + 1, before.1, before.1));
            prop_assert_eq!(schedule.cycle_from(date), Some((cycle, terms)));
            let version = given.iter().rposition(|(activated_on, _)| *activated_on < date).unwrap_or(0);
            prop_assert_eq!((usize::from(terms.due_days), terms.cycle), (version + 1, given[version].1), "{}", date);
            prop_assert!(ends_by_rule(terms.cycle, &cycle), "{cycle:?} {:?}", terms.cycle);
            current = Some(cycle);
        }
    }
}
