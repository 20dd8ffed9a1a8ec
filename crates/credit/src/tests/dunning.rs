//! Which notices are sent, when, and what stops them.

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::{billed, day, repaid};
use crate::{
    Books, CycleId, DunningState, Event, LineHistory, Notice, NoticeKey, NoticeKind, Pause, Recipient, Terms,
    day::plus_days,
};

const JANUARY: CycleId = CycleId(20_260_101);

struct Line {
    terms: Terms,
    books: Books,
    pauses: Vec<Pause>,
    active_from: Option<Date>,
    sent: BTreeSet<NoticeKey>,
}

impl Line {
    /// January's 1,000, due on 2026-02-14, and what follows.
    fn new(events: Vec<Event>) -> Self {
        let terms = Terms::default();
        let all: Vec<Event> = billed(&terms, "2026-01-01", 1_000).into_iter().chain(events).collect();
        Self {
            terms,
            books: Books::replay(&all).unwrap(),
            pauses: Vec::new(),
            active_from: Some(day("2026-01-01")),
            sent: BTreeSet::new(),
        }
    }

    fn pause(mut self, from: &str, to: &str) -> Self {
        let (reason, approved_by) = ("promise to pay".to_owned(), "risk-1".to_owned());
        self.pauses.push(Pause { from: day(from), to: day(to), reason, approved_by });
        self
    }

    fn history(&self) -> LineHistory<'_> {
        LineHistory { terms: &self.terms, obligations: self.books.obligations(), pauses: &self.pauses }
    }

    fn state(&self) -> DunningState<'_> {
        DunningState { active_from: self.active_from, sent: &self.sent }
    }

    fn due(&self, date: &str) -> Vec<i16> {
        steps(&self.history().notices_due(day(date), self.state()))
    }

    /// Sends what is due, each day from one to another, and returns the days and steps.
    fn live(&mut self, from: &str, days: i64) -> Vec<(Date, i16)> {
        let mut all = Vec::new();
        for date in (0..days).map(|number| plus_days(day(from), number)) {
            for notice in self.history().notices_due(date, self.state()) {
                assert!(self.sent.insert(notice.key), "{notice:?} is sent twice");
                all.push((date, notice.step.day));
            }
        }
        all
    }

    fn calendar(&self, date: &str) -> Vec<(Date, i16)> {
        let calendar = self.history().dunning_calendar(day(date), self.state());
        calendar.iter().map(|notice| (notice.on, notice.step.day)).collect()
    }
}

fn steps(notices: &[Notice]) -> Vec<i16> {
    notices.iter().map(|notice| notice.step.day).collect()
}

/// Days relative to the due date, 2026-02-14, with their texts.
const DAYS: [(&str, i16); 9] = [
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

#[test]
fn each_step_is_sent_once_on_its_day() {
    let expected = DAYS.map(|(date, step)| (day(date), step));
    let mut line = Line::new(Vec::new());
    assert_eq!(line.calendar("2026-02-01"), expected);
    // What is due and was not sent stands first, on the date itself.
    let late = line.calendar("2026-03-20");
    assert_eq!(late.first(), Some(&(day("2026-03-20"), 30)));
    assert_eq!(late.get(1..), Some(&expected[6..]));
    assert_eq!(line.live("2026-01-01", 400), expected);
    assert_eq!(line.live("2026-01-01", 400), []);
}

#[test]
fn a_notice_says_what_it_is_about() {
    let line = Line::new(vec![repaid("2026-02-12", "a", 300)]);
    let notices = line.history().notices_due(day("2026-03-16"), line.state());
    let formal = &notices[0];
    assert_eq!(formal.key, NoticeKey { obligation: JANUARY, step: 30 });
    assert_eq!((formal.on, formal.due_on, formal.amount), (day("2026-03-16"), day("2026-02-14"), 700));
    assert_eq!((formal.step.kind, formal.step.template.as_str()), (NoticeKind::Formal, "formal_demand"));
    assert_eq!(formal.step.recipients, BTreeSet::from([Recipient::Merchant, Recipient::Operators]));
}

#[test]
fn payment_stops_notices() {
    let mut line = Line::new(vec![repaid("2026-02-22", "a", 999), repaid("2026-03-20", "b", 1)]);
    // After all but one is paid, what is past due is not material.
    let materiality = crate::Materiality { absolute: 5, ..line.terms.materiality };
    line.terms.materiality = materiality;
    assert_eq!(
        line.live("2026-02-01", 100),
        DAYS[..4].iter().map(|(date, step)| (day(date), *step)).collect::<Vec<_>>()
    );
    assert_eq!(line.calendar("2026-04-01"), []);
}

/// Days past due do not grow in a pause, so later steps come later; a reminder that falls into it comes after it.
#[test]
fn a_pause_delays_notices() {
    let mut line = Line::new(Vec::new()).pause("2026-02-18", "2026-02-27");
    let expected: Vec<_> =
        DAYS.iter().map(|(date, step)| (plus_days(day(date), if *step > 3 { 10 } else { 0 }), *step)).collect();
    assert_eq!(line.calendar("2026-02-01"), expected);
    assert_eq!(line.live("2026-02-01", 400), expected);
    let early = Line::new(Vec::new()).pause("2026-02-10", "2026-02-12");
    assert_eq!((early.due("2026-02-12"), early.due("2026-02-13")), (vec![], vec![-3]));
    // Over the due date: only the last step that was reached.
    let over = Line::new(Vec::new()).pause("2026-02-10", "2026-02-14");
    assert_eq!((over.due("2026-02-14"), over.due("2026-02-15")), (vec![], vec![1]));
}

#[test]
fn nothing_is_sent_before_activation() {
    let mut line = Line::new(Vec::new());
    line.active_from = None;
    assert_eq!((line.due("2026-03-16"), line.calendar("2026-02-01")), (vec![], vec![]));
    line.active_from = Some(day("2026-03-17"));
    assert_eq!(line.due("2026-03-17"), [] as [i16; 0]);
    assert_eq!(line.live("2026-03-17", 400), [6, 7, 8].map(|at: usize| (day(DAYS[at].0), DAYS[at].1)));
}

/// A step of a day before the close is none: the statement itself comes later.
#[test]
fn no_step_is_older_than_its_statement() {
    let mut line = Line::new(Vec::new());
    line.terms.due_days = 1;
    let all: Vec<Event> = billed(&line.terms, "2026-01-01", 1_000).to_vec();
    line.books = Books::replay(&all).unwrap();
    assert_eq!((line.due("2026-01-31"), line.due("2026-02-01")), (vec![], vec![0]));
}

/// Nothing is sent in a pause, also what could have been sent before it.
#[test]
fn nothing_is_sent_in_a_pause() {
    let line = Line::new(Vec::new()).pause("2026-03-20", "2026-03-25");
    let due = ["2026-03-19", "2026-03-20", "2026-03-25", "2026-03-26"].map(|date| line.due(date));
    assert_eq!(due, [vec![30], vec![], vec![], vec![30]]);
}

/// After an outage reminders that a later step has overtaken are left out. Formal and final demands are not.
#[test]
fn demands_are_always_sent() {
    let table: [(&str, &[i16]); 6] = [
        ("2026-02-15", &[1]),
        ("2026-03-01", &[14]),
        ("2026-03-20", &[30]),
        ("2026-04-01", &[30, 45]),
        ("2026-04-20", &[30, 60]),
        ("2026-06-01", &[30, 60, 90]),
    ];
    for (date, expected) in table {
        assert_eq!(Line::new(Vec::new()).due(date), expected, "{date}");
    }
}

/// Each obligation has notices of its own, the oldest first.
#[test]
fn obligations_have_their_own_notices() {
    let february = billed(&Terms::default(), "2026-02-01", 500).to_vec();
    let mut line = Line::new(february);
    let all = line.live("2026-02-01", 400);
    assert_eq!(all.len(), 2 * DAYS.len());
    assert!(all.contains(&(day("2026-03-14"), 0)) && all.contains(&(day("2026-06-12"), 90)));
    let mut fresh = Line::new(billed(&Terms::default(), "2026-02-01", 500).to_vec());
    fresh.sent.extend(line.sent.iter().filter(|key| key.obligation == JANUARY));
    assert_eq!(fresh.due("2026-06-01"), [30, 60]);
    // What is not billed yet has none, and what is paid has none.
    let paid = Line::new(vec![repaid("2026-02-01", "a", 1_000)]);
    assert_eq!(paid.calendar("2026-01-01"), []);
}

/// The calendar is what is sent if nothing is paid, whatever the pauses.
#[test]
fn the_calendar_is_what_is_sent() {
    let spans = [("2026-02-05", "2026-02-13"), ("2026-02-14", "2026-02-20"), ("2026-03-01", "2026-04-30")];
    for set in 0..8_usize {
        let mut line = Line::new(billed(&Terms::default(), "2026-02-01", 500).to_vec());
        for (at, (from, to)) in spans.iter().enumerate() {
            if set & (1 << at) != 0 {
                line = line.pause(from, to);
            }
        }
        let calendar = line.calendar("2026-02-10");
        let mut sent = line.live("2026-02-10", 500);
        sent.sort_unstable();
        let mut expected = calendar.clone();
        expected.sort_unstable();
        assert_eq!(sent, expected, "{set}");
    }
}
