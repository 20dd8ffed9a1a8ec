//! A second implementation for comparison: it takes a day's events at once, in plain lists, and counts days one by one. It shares
//! no code with the crate.

use std::collections::BTreeSet;

use jiff::civil::Date;

/// The terms as plain numbers.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    /// Day of the month, or 0.
    pub(super) month_day: i8,
    /// Days of a cycle where there is no day of the month.
    pub(super) every: u16,
    pub(super) due_days: u16,
    pub(super) minimum_bp: i64,
    pub(super) absolute: i64,
    pub(super) relative_bp: i64,
    /// First day past due and cap of each stage; the last one is default.
    pub(super) rows: Vec<(i64, i64)>,
    pub(super) probation: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Use { held: i64, unbilled: i64 },
    Repay { name: String, amount: i64, received: Date },
    Bounce { name: String, amount: i64 },
    Credit { cycle_first_day: Date, amount: i64 },
    WriteOff { amount: i64 },
    Recover { name: String, amount: i64, received: Date },
    In { name: String, amount: i64 },
    Out { amount: i64 },
}

#[derive(Clone, Debug)]
pub(super) struct Bill {
    pub(super) first: Date,
    pub(super) closed: Date,
    pub(super) due: Date,
    pub(super) amount: i64,
    minimum: i64,
    paid: Vec<(Key, i64)>,
    /// What was given up of it, and what came back of that, with the day of receipt.
    written: i64,
    back: Vec<(Date, i64)>,
}

/// Day of receipt, kind and name: in the order in which money is used.
type Key = (Date, u8, String, Date);

#[derive(Clone, Debug)]
pub(super) struct Model {
    plain: Plain,
    pub(super) today: Date,
    cycle_first: Date,
    pub(super) held: i64,
    pub(super) unbilled: i64,
    pub(super) bills: Vec<Bill>,
    pots: Vec<(Key, i64)>,
    /// What is given up beyond every bill, and what came back beyond what was given up of the bills.
    pub(super) given_up: i64,
    returned: Vec<(Date, String, i64)>,
    /// What the store counts: each act by itself, without bills.
    pub(super) counted: i64,
    paused: BTreeSet<Date>,
    state: State,
}

#[derive(Clone, Debug, Default)]
struct State {
    worst_row: usize,
    defaulted: Option<Date>,
    calm_days: Option<i64>,
    left: Option<Date>,
    dpd: i64,
}

fn ahead(date: Date, days: u16) -> Date {
    (0..days).fold(date, |date, _| date.tomorrow().unwrap())
}

impl Bill {
    pub(super) fn unpaid(&self) -> i64 {
        self.unpaid_at(Date::MAX)
    }

    pub(super) fn written(&self) -> i64 {
        self.written - self.back.iter().map(|(_, amount)| amount).sum::<i64>()
    }

    pub(super) fn open(&self) -> i64 {
        self.amount - self.paid.iter().map(|(_, amount)| amount).sum::<i64>() - self.written
    }

    fn unpaid_at(&self, date: Date) -> i64 {
        let paid = self.paid.iter().map(|(key, amount)| (key.0, *amount));
        let until = paid.chain(self.back.iter().copied()).filter(|(received, _)| *received <= date);
        self.amount - until.map(|(_, amount)| amount).sum::<i64>()
    }

    fn short_at(&self, date: Date) -> i64 {
        (self.minimum - (self.amount - self.unpaid_at(date))).max(0)
    }

    /// The day of the payment in full, if it was in time.
    fn settled_in_time(&self) -> Option<Date> {
        if self.unpaid() > 0 {
            return None;
        }
        let mut last = self.closed;
        for received in self.paid.iter().map(|(key, _)| key.0).chain(self.back.iter().map(|own| own.0)) {
            if received > last {
                last = received;
            }
        }
        if last <= self.due { Some(last) } else { None }
    }
}

impl Model {
    pub(super) fn new(plain: Plain, opened: Date) -> Self {
        Self {
            plain,
            today: opened,
            cycle_first: opened,
            held: 0,
            unbilled: 0,
            bills: Vec::new(),
            pots: Vec::new(),
            given_up: 0,
            returned: Vec::new(),
            counted: 0,
            paused: BTreeSet::new(),
            state: State::default(),
        }
    }

    /// Goes on to the next day; `true` where a cycle closed.
    pub(super) fn tomorrow(&mut self) -> bool {
        let closed = self.today;
        self.today = self.today.tomorrow().unwrap();
        let Plain { month_day, every, due_days, minimum_bp, .. } = self.plain;
        let begins =
            if month_day > 0 { self.today.day() == month_day } else { ahead(self.cycle_first, every) == self.today };
        if begins {
            let amount = self.unbilled;
            let minimum = (amount * minimum_bp + 9_999) / 10_000;
            let due = ahead(closed, due_days);
            let (first, paid, back) = (self.cycle_first, Vec::new(), Vec::new());
            self.bills.push(Bill { first, closed, due, amount, minimum, paid, written: 0, back });
            self.unbilled = 0;
            self.cycle_first = self.today;
        }
        begins
    }

    pub(super) fn pause(&mut self, from: Date, days: u16) {
        let mut date = from;
        for _ in 0..days {
            self.paused.insert(date);
            date = date.tomorrow().unwrap();
        }
    }

    /// All events of the day, whatever their order.
    pub(super) fn end_of_day(&mut self, acts: &[Act]) {
        for act in acts {
            match act {
                Act::Use { held, unbilled } => {
                    self.held += held;
                    self.unbilled += unbilled;
                }
                Act::Out { amount } => self.unbilled += amount,
                Act::Repay { name, amount, received } => {
                    self.pots.push(((*received, 1, name.clone(), *received), *amount));
                }
                Act::In { name, amount } => self.pots.push(((self.today, 2, name.clone(), self.today), *amount)),
                Act::Credit { cycle_first_day, amount } => {
                    self.pots.push(((self.today, 0, String::new(), *cycle_first_day), *amount));
                }
                Act::WriteOff { amount } => self.given_up += amount,
                Act::Recover { name, amount, received } => self.returned.push((*received, name.clone(), *amount)),
                Act::Bounce { .. } => {}
            }
            self.counted += counted(act);
        }
        for act in acts {
            if let Act::Bounce { name, .. } = act {
                self.pots.retain(|(key, _)| !(key.1 == 1 && key.2 == *name));
                self.bills.iter_mut().for_each(|bill| bill.paid.retain(|(key, _)| !(key.1 == 1 && key.2 == *name)));
            }
        }
        self.pots.sort();
        for (key, left) in &mut self.pots {
            if key.1 == 0 && key.0 == self.today {
                pay(self.bills.iter_mut().filter(|bill| bill.first == key.3), key, left);
            }
        }
        self.pots.iter_mut().for_each(|(key, left)| pay(self.bills.iter_mut(), key, left));
        self.pots.retain(|(_, left)| *left > 0);
        for bill in &mut self.bills {
            let part = self.given_up.min(bill.open());
            bill.written += part;
            self.given_up -= part;
        }
        self.returned.sort();
        for bill in &mut self.bills {
            for (received, _, left) in &mut self.returned {
                let part = (*left).min(bill.written());
                if part > 0 {
                    bill.back.push((*received, part));
                    *left -= part;
                }
            }
        }
        self.returned.retain(|own| own.2 > 0);
    }

    pub(super) fn unapplied(&self) -> i64 {
        self.pots.iter().map(|(_, left)| left).sum::<i64>() + self.given_up
    }

    /// How many days a bill is late, counted one by one.
    fn late(&self, bill: &Bill, date: Date) -> i64 {
        let mut days = 0;
        let mut at = bill.due;
        while at < date {
            at = at.tomorrow().unwrap();
            if !self.paused.contains(&at) {
                days += 1;
            }
        }
        days
    }

    fn late_bills(&self, date: Date) -> (Vec<(i64, i64, Date)>, i64) {
        let known: Vec<&Bill> = self.bills.iter().filter(|bill| bill.closed <= date).collect();
        let total = known.iter().map(|bill| bill.unpaid_at(date)).sum();
        let short = known.iter().filter(|bill| bill.due < date && bill.short_at(date) > 0);
        let late = short.map(|bill| (self.late(bill, date), bill.short_at(date), bill.due));
        (late.filter(|(days, ..)| *days > 0).collect(), total)
    }

    fn counts(&self, short: i64, total: i64) -> bool {
        short > self.plain.absolute && short * 10_000 > total * self.plain.relative_bp
    }

    /// The most days for which the amount that has been late so long counts.
    pub(super) fn dpd(&self, date: Date) -> i64 {
        let (late, total) = self.late_bills(date);
        let since = |days: i64| late.iter().filter(|own| own.0 >= days).map(|own| own.1).sum::<i64>();
        late.iter().map(|own| own.0).filter(|days| self.counts(since(*days), total)).max().unwrap_or(0)
    }

    pub(super) fn oldest(&self) -> Option<Date> {
        self.late_bills(self.today).0.iter().map(|own| own.2).min()
    }

    pub(super) fn past_due(&self) -> i64 {
        self.late_bills(self.today).0.iter().map(|own| own.1).sum()
    }

    /// Tries amounts one by one.
    pub(super) fn cure(&self) -> i64 {
        (0..).find(|amount| self.after_paying(*amount).dpd(self.today) == 0).unwrap()
    }

    fn after_paying(&self, amount: i64) -> Self {
        let mut after = self.clone();
        let mut left = amount;
        for bill in &mut after.bills {
            let part = left.min(bill.unpaid());
            bill.back.push((self.today, part));
            left -= part;
        }
        after
    }

    /// The state at the end of the day, from that of the day before.
    pub(super) fn advance(&mut self) {
        let mut state = std::mem::take(&mut self.state);
        self.step(&mut state, self.today);
        self.state = state;
    }

    /// The state from all days anew, after something that changed a day before.
    pub(super) fn relive(&mut self, opened: Date) {
        let mut state = State::default();
        let mut date = opened;
        while date <= self.today {
            self.step(&mut state, date);
            date = date.tomorrow().unwrap();
        }
        self.state = state;
    }

    fn step(&self, state: &mut State, date: Date) {
        let rows = &self.plain.rows;
        state.dpd = self.dpd(date);
        let row = (0..rows.len()).rfind(|row| rows[*row].0 <= state.dpd).unwrap();
        state.worst_row = state.worst_row.max(row);
        if row == rows.len() - 1 && state.defaulted.is_none() {
            state.defaulted = Some(date);
            state.calm_days = None;
        }
        if state.defaulted.is_some() {
            state.calm_days = match state.calm_days {
                _ if state.dpd > 30 => None,
                None if state.dpd == 0 => Some(0),
                None => None,
                Some(days) => Some(days + 1),
            };
            if state.dpd == 0 && state.calm_days.is_some_and(|days| days >= self.plain.probation) {
                state.defaulted = None;
                state.left = Some(date);
            }
        }
        if state.dpd > 0 {
            return;
        }
        for _ in self.bills.iter().filter(|bill| bill.settled_in_time() == Some(date)) {
            let cap = rows[state.worst_row].1;
            while state.worst_row > 0 {
                state.worst_row -= 1;
                if rows[state.worst_row].1 > cap {
                    break;
                }
            }
        }
    }

    /// Row by days past due, cap, day of default, and when default was left.
    pub(super) fn standing(&self) -> (usize, i64, Option<Date>, Option<Date>) {
        let rows = &self.plain.rows;
        let state = &self.state;
        if state.defaulted.is_some() {
            return (rows.len() - 1, rows[rows.len() - 1].1, state.defaulted, state.left);
        }
        let row = (0..rows.len()).rfind(|row| rows[*row].0 <= state.dpd).unwrap();
        (row, rows[state.worst_row].1, None, state.left)
    }
}

/// What an act adds to what the store counts. Money for what was given up adds nothing: giving it up has lowered it already.
fn counted(act: &Act) -> i64 {
    match act {
        Act::Use { held, unbilled } => held + unbilled,
        Act::Out { amount } | Act::Bounce { amount, .. } => *amount,
        Act::Repay { amount, .. } | Act::Credit { amount, .. } | Act::WriteOff { amount } | Act::In { amount, .. } => {
            -amount
        }
        Act::Recover { .. } => 0,
    }
}

fn pay<'a>(bills: impl Iterator<Item = &'a mut Bill>, key: &Key, left: &mut i64) {
    for bill in bills {
        let part = (*left).min(bill.open());
        if part > 0 {
            bill.paid.push((key.clone(), part));
            *left -= part;
        }
    }
}
