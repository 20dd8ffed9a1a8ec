//! Generated lives of years: charges, missed dues, pauses, partial and bounced repayments, refunds across cycles, transfers,
//! write-offs and recoveries. Each day is compared with the model, and each day's events are applied in another order too.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use proptest::{collection, sample};

use super::model::{Act, Model, Plain};
use super::{day, no};
use crate::{
    BasisPoints, BookAccount, Books, BooksError, Change, CycleRule, Event, LineHistory, Materiality, Obligation, Pause,
    Posting, Stage, StageTable, Terms,
};

/// Sums of amounts, by account.
type Balances = BTreeMap<BookAccount, i64>;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Charge(i64),
    Hold(i64),
    Capture,
    Release,
    RefundOpen(i64),
    Repay(i64, u8),
    PayAll(u8),
    RepayAgain(usize),
    Bounce(usize),
    Credit(usize, i64),
    WriteOff(i64),
    Recover(i64, u8),
    RecoverAll(u8),
    TransferIn(i64),
    TransferOut(i64),
    Pause(i8, u16),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0..400_i64).prop_map(Deed::Charge),
        2 => (0..300_i64).prop_map(Deed::Hold),
        1 => Just(Deed::Capture),
        1 => Just(Deed::Release),
        1 => (0..100_i64).prop_map(Deed::RefundOpen),
        3 => (0..500_i64, 0..6_u8).prop_map(|(amount, back)| Deed::Repay(amount, back)),
        5 => (0..3_u8).prop_map(Deed::PayAll),
        1 => (0..40_usize).prop_map(Deed::RepayAgain),
        1 => (0..40_usize).prop_map(Deed::Bounce),
        1 => (0..40_usize, 0..200_i64).prop_map(|(cycle, amount)| Deed::Credit(cycle, amount)),
        2 => (0..300_i64).prop_map(Deed::WriteOff),
        1 => (0..300_i64, 0..6_u8).prop_map(|(amount, back)| Deed::Recover(amount, back)),
        1 => (0..3_u8).prop_map(Deed::RecoverAll),
        1 => (0..200_i64).prop_map(Deed::TransferIn),
        1 => (0..200_i64).prop_map(Deed::TransferOut),
        1 => (-10..15_i8, 0..30_u16).prop_map(|(from, days)| Deed::Pause(from, days)),
    ]
}

fn terms(number: usize) -> Terms {
    let base = Terms::default();
    let materiality = Materiality { absolute: 50, bp: BasisPoints(100) };
    match number {
        0 => base,
        1 => Terms { cycle: CycleRule::Monthly { day: 28 }, due_days: 30, materiality, ..base },
        2 => Terms { cycle: CycleRule::EveryDays { days: 30 }, minimum_bp: BasisPoints(2_500), due_days: 7, ..base },
        3 => Terms {
            cycle: CycleRule::EveryDays { days: 14 },
            due_days: 0,
            probation_days: 45,
            materiality: Materiality { absolute: 100, bp: BasisPoints(3_000) },
            ..base
        },
        _ => {
            let mut stages = StageTable::default();
            stages.0.retain(|row| row.stage != Stage::Grace && row.stage != Stage::Restricted);
            stages.0[1].from_dpd = 1;
            stages.0[2].from_dpd = 20;
            stages.0[3].from_dpd = 41;
            let cycle = CycleRule::Monthly { day: 15 };
            Terms { cycle, grace_days: 0, default_after_days: 40, probation_days: 60, stages, materiality, ..base }
        }
    }
}

fn plain(terms: &Terms) -> Plain {
    let (month_day, every) = match terms.cycle {
        CycleRule::Monthly { day } => (day, 0),
        CycleRule::EveryDays { days } => (0, days),
    };
    Plain {
        month_day,
        every,
        due_days: terms.due_days,
        minimum_bp: terms.minimum_bp.0.into(),
        absolute: terms.materiality.absolute,
        relative_bp: terms.materiality.bp.0.into(),
        rows: terms.stages.0.iter().map(|row| (row.from_dpd.into(), row.cap_bp.0.into())).collect(),
        probation: terms.probation_days.into(),
    }
}

/// A line that lives by both.
struct Life {
    terms: Terms,
    opened: Date,
    books: Books,
    shuffled: Books,
    model: Model,
    events: Vec<Event>,
    posted: Balances,
    pauses: Vec<Pause>,
    repayments: Vec<(String, i64, Date, bool)>,
    recoverable: i64,
    number: usize,
}

impl Life {
    fn new(terms: Terms, opened: Date) -> Self {
        let model = Model::new(plain(&terms), opened);
        Self {
            terms,
            opened,
            books: Books::default(),
            shuffled: Books::default(),
            model,
            events: Vec::new(),
            posted: Balances::new(),
            pauses: Vec::new(),
            repayments: Vec::new(),
            recoverable: 0,
            number: 0,
        }
    }

    fn apply(&mut self, change: Change) -> Event {
        let event = Event { on: self.model.today, change };
        let postings = self.books.apply(&event).unwrap();
        assert_eq!(postings.iter().map(|posting| posting.amount).sum::<i64>(), 0, "{event:?}: {postings:?}");
        for Posting { account, amount } in postings {
            *self.posted.entry(account).or_default() += amount;
        }
        self.events.push(event.clone());
        event
    }

    fn name(&mut self) -> String {
        self.number += 1;
        format!("n{:04}", self.number)
    }

    /// What a deed comes to today: an event and what the model is given; `true` where days before may change.
    fn act(&mut self, deed: Deed) -> (Option<Change>, Option<Act>, bool) {
        let usage = |held: i64, unbilled: i64| {
            (Some(Change::Usage { held, unbilled }), Some(Act::Use { held, unbilled }), false)
        };
        match deed {
            Deed::Charge(amount) => usage(0, amount),
            Deed::Hold(amount) => usage(amount, 0),
            Deed::Capture => usage(-self.books.held(), self.books.held()),
            Deed::Release => usage(-(self.books.held() / 2), 0),
            Deed::RefundOpen(amount) => usage(0, -amount.min(self.books.unbilled().max(0))),
            Deed::Repay(amount, back) => self.repay(amount, back),
            Deed::PayAll(back) => self.repay(self.books.billed(), back),
            Deed::RepayAgain(number) => {
                let Some((name, amount, received_on, _)) = self.known(number) else { return (None, None, false) };
                let repayment_no = no(&name);
                (Some(Change::Repaid { repayment_no, amount, received_on }), None, false)
            }
            Deed::Bounce(number) => {
                let Some((name, amount, ..)) = self.known(number) else { return (None, None, false) };
                let own = self.repayments.iter_mut().find(|own| own.0 == name).unwrap();
                let is_repeated = std::mem::replace(&mut own.3, true);
                let act = (!is_repeated).then(|| Act::Bounce { name: name.clone(), amount });
                (Some(Change::RepaymentReversed { repayment_no: no(&name) }), act, true)
            }
            Deed::Credit(number, amount) => {
                let len = self.books.obligations().len().max(1);
                let Some(own) = self.books.obligations().get(number % len) else { return (None, None, false) };
                let (cycle, cycle_first_day) = (own.statement.cycle, own.statement.first_day);
                (Some(Change::Credited { cycle, amount }), Some(Act::Credit { cycle_first_day, amount }), false)
            }
            Deed::WriteOff(amount) => {
                self.recoverable += amount;
                (Some(Change::WrittenOff { amount }), Some(Act::WriteOff { amount }), false)
            }
            Deed::Recover(amount, back) => self.recover(amount, back),
            Deed::RecoverAll(back) => self.recover(self.recoverable, back),
            Deed::TransferIn(amount) => {
                let name = self.name();
                (Some(Change::TransferIn { transfer_no: no(&name), amount }), Some(Act::In { name, amount }), false)
            }
            Deed::TransferOut(amount) => {
                let transfer_no = no(&self.name());
                (Some(Change::TransferOut { transfer_no, amount }), Some(Act::Out { amount }), false)
            }
            Deed::Pause(from, days) => {
                let from = crate::day::plus_days(self.model.today, from.into());
                self.model.pause(from, days);
                let to = crate::day::plus_days(from, i64::from(days) - 1);
                self.pauses.push(Pause { from, to, reason: "promise".to_owned(), approved_by: "risk".to_owned() });
                (None, None, true)
            }
        }
    }

    fn known(&self, number: usize) -> Option<(String, i64, Date, bool)> {
        self.repayments.get(number % self.repayments.len().max(1)).cloned()
    }

    fn repay(&mut self, amount: i64, back: u8) -> (Option<Change>, Option<Act>, bool) {
        let name = self.name();
        let received_on = crate::day::plus_days(self.model.today, -i64::from(back));
        self.repayments.push((name.clone(), amount, received_on, false));
        let change = Change::Repaid { repayment_no: no(&name), amount, received_on };
        (Some(change), Some(Act::Repay { name, amount, received: received_on }), back > 0)
    }

    /// More than was written off is refused.
    fn recover(&mut self, amount: i64, back: u8) -> (Option<Change>, Option<Act>, bool) {
        let name = self.name();
        let received_on = crate::day::plus_days(self.model.today, -i64::from(back));
        let change = Change::Recovered { recovery_no: no(&name), amount, received_on };
        assert_eq!(self.books.recoverable(), self.recoverable, "{}", self.model.today);
        if amount > self.recoverable {
            let written_off = self.recoverable;
            let refused = self.books.clone().apply(&Event { on: self.model.today, change });
            assert_eq!(refused, Err(BooksError::RecoveryTooLarge { amount, written_off }));
            return (None, None, false);
        }
        self.recoverable -= amount;
        (Some(change), Some(Act::Recover { name, amount, received: received_on }), back > 0)
    }

    /// One day: its close, its deeds, and the comparison.
    fn live(&mut self, deeds: &[Deed], is_first: bool) {
        let yesterday = self.model.today;
        let closes = !is_first && self.model.tomorrow();
        let mut is_relived = closes;
        let mut today = Vec::new();
        if closes {
            let cycle = self.terms.cycle.cycle_at(self.opened, yesterday).unwrap();
            assert_eq!((cycle.closed_on(), cycle.next_first_day()), (yesterday, self.model.today));
            let statement = self.terms.statement(&cycle, self.books.unbilled());
            today.push(self.apply(Change::CycleClosed(statement)));
        }
        let mut acts = Vec::new();
        for deed in deeds {
            let (change, act, changes_history) = self.act(*deed);
            is_relived |= changes_history;
            today.extend(change.map(|change| self.apply(change)));
            acts.extend(act);
        }
        self.model.end_of_day(&acts);
        if is_relived {
            self.model.relive(self.opened)
        } else {
            self.model.advance()
        }
        self.shuffle(today);
        self.compare();
    }

    /// Applies the day's events in another order, except that a repayment comes before its reversal, and a write-off before its
    /// recovery.
    fn shuffle(&mut self, mut today: Vec<Event>) {
        let turn = self.number % today.len().max(1);
        today.rotate_left(turn);
        today.reverse();
        today.sort_by_key(|event| matches!(event.change, Change::RepaymentReversed { .. } | Change::Recovered { .. }));
        for event in &today {
            self.shuffled.apply(event).unwrap();
        }
        assert_eq!(self.shuffled, self.books, "the order within {} matters", self.model.today);
    }

    fn compare(&self) {
        let (books, model, today) = (&self.books, &self.model, self.model.today);
        let bills: Vec<_> = model
            .bills
            .iter()
            .map(|bill| (bill.first, bill.due, bill.amount, bill.open(), bill.unpaid(), bill.written()))
            .collect();
        let own: Vec<_> = books
            .obligations()
            .iter()
            .map(|own| {
                (
                    own.statement.first_day,
                    own.statement.due_on,
                    own.statement.amount,
                    own.open(),
                    own.unpaid(),
                    own.written_off(),
                )
            })
            .collect();
        assert_eq!(own, bills, "{today}");
        assert_eq!(
            (books.held(), books.unbilled(), books.unapplied()),
            (model.held, model.unbilled, model.unapplied()),
            "{today}"
        );
        let net = model.held + model.unbilled - model.unapplied() + bills.iter().map(|bill| bill.3).sum::<i64>();
        assert_eq!((books.net(), books.exposure() - books.prepaid()), (net, net), "{today}");
        assert_eq!(books.net(), model.counted, "the store counts another exposure, {today}");
        assert!(books.exposure() == 0 || books.prepaid() == 0, "{today}");
        self.compare_standing();
    }

    fn compare_standing(&self) {
        let (model, today) = (&self.model, self.model.today);
        let history = LineHistory { terms: &self.terms, obligations: self.books.obligations(), pauses: &self.pauses };
        let overdue = history.overdue(today);
        let got = (overdue.days_past_due, overdue.oldest_due_on, overdue.past_due);
        assert_eq!(got, (model.dpd(today), model.oldest(), model.past_due()), "{today}");
        let unpaid: i64 = model.bills.iter().map(|bill| bill.unpaid()).sum();
        assert_eq!(overdue.ageing.total(), unpaid, "{today}");
        if today.day() % 8 == 0 {
            assert_eq!(overdue.amount_to_cure, model.cure(), "{today}");
        }
        let standing = history.standing(today);
        let (row, cap, defaulted, left) = model.standing();
        let stage = self.terms.stages.0[row].stage;
        let got = (standing.stage, i64::from(standing.cap_bp.0), standing.in_default_since, standing.left_default_on);
        assert_eq!(got, (stage, cap, defaulted, left), "{today}");
    }

    fn end(&self) {
        assert_eq!(Books::replay(&self.events).unwrap(), self.books);
        // Delivered twice, an event with a number of its own changes nothing.
        let mut again = self.books.clone();
        let numbered = |event: &&Event| match event.change {
            Change::Repaid { .. } | Change::RepaymentReversed { .. } | Change::CycleClosed(_) => true,
            Change::Recovered { .. } => true,
            Change::BroughtForward(_) => unreachable!("no life begins elsewhere"),
            Change::TransferIn { .. } | Change::TransferOut { .. } => true,
            Change::Usage { .. } | Change::Credited { .. } | Change::WrittenOff { .. } => false,
        };
        for event in self.events.iter().filter(numbered) {
            assert_eq!(again.apply(event), Ok(Vec::new()), "{event:?}");
        }
        assert_eq!(again, self.books);
        let balances = self.books.balances();
        assert_eq!(balances.values().sum::<i64>(), 0);
        let posted = |account: &BookAccount| self.posted.get(account).copied().unwrap_or(0);
        assert!(
            balances.iter().all(|(account, balance)| posted(account) == *balance),
            "{balances:?} {:?}",
            self.posted
        );
    }
}

/// What the lives have seen, so that a generator that avoids the hard cases is noticed.
#[derive(Debug, Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    fn see(&mut self, life: &Life) {
        let history = LineHistory { terms: &life.terms, obligations: life.books.obligations(), pauses: &life.pauses };
        let standing = history.standing(life.model.today);
        self.0.insert(format!("stage {}", standing.stage.as_str()));
        let is_cured = standing.stage == Stage::Current;
        let own = life.books.obligations();
        let facts = [
            ("a cap after the cure", is_cured && standing.cap_bp < BasisPoints::FULL),
            ("a probation", standing.probation_until.is_some()),
            ("the end of a default", standing.left_default_on.is_some()),
            ("a prepaid line", life.books.prepaid() > 0),
            ("money that waits", life.books.unapplied() > 0),
            ("a write-off", own.iter().any(|own| own.written_off() > 0)),
            ("a write-off that waits", life.model.given_up > 0),
            ("a recovery", own.iter().flat_map(Obligation::allocations).any(|own| own.source.is_recovery())),
            ("a credit to an obligation", own.iter().any(|own| own.credited() > 0)),
            ("past due and not material", {
                let overdue = history.overdue(life.model.today);
                overdue.past_due > 0 && overdue.days_past_due == 0
            }),
        ];
        self.0.extend(facts.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name.to_owned()));
    }
}

fn live(number: usize, opened: Date, deeds: &[(u8, Deed)], seen: &mut Seen) {
    let terms = terms(number);
    terms.validate().unwrap();
    let mut life = Life::new(terms, opened);
    let mut is_first = true;
    let mut today: Vec<Deed> = Vec::new();
    let end = [(150, Deed::Charge(0))];
    for (days, deed) in deeds.iter().chain(&end) {
        for day in 0..*days {
            life.live(&today, is_first);
            (is_first, today) = (false, Vec::new());
            if day % 9 == 0 {
                seen.see(&life);
            }
        }
        today.push(*deed);
    }
    life.end();
}

#[test]
fn every_day_of_a_life_is_that_of_the_model() {
    let gaps = prop_oneof![2 => Just(0_u8), 3 => 1..6_u8, 2 => 6..40_u8];
    let opened = sample::select(["2026-01-01", "2027-10-31", "2028-02-29", "2026-12-15"].map(day).to_vec());
    let lives = (0..5_usize, opened, collection::vec((gaps, deed()), 1..60));
    let config = ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() };
    let seen = RefCell::new(Seen::default());
    let one = |(number, opened, deeds): (usize, Date, Vec<(u8, Deed)>)| {
        live(number, opened, &deeds, &mut seen.borrow_mut());
        Ok(())
    };
    // The same lives each time, so that what they have seen does not depend on luck.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&lives, one) {
        panic!("{failure}");
    }
    let seen = seen.into_inner().0;
    assert_eq!(seen.len(), Stage::ALL.len() + 10, "{seen:?}");
}
