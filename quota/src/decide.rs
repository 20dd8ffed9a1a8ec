//! The decision rule: what a command makes of an account and an order.
//!
//! This is one of two implementations; the other is the Redis script, which the differential suite holds to this one.

use crate::{
    AmountMinor, AttemptId, Channel, Code, Currency, Limits, MerchantId, OrderNo, PaymentNo, Period, Record,
    WindowFigures, WindowIds,
};

/// Attempts that an order remembers by name, live ones and voided ones each.
///
/// An order with more live attempts than this is *pinned*: its charge is never returned by voids any more. Past this many
/// voided attempts the oldest is forgotten. Both err to the side of quota consumed.
pub const ATTEMPTS_MAX: usize = 32;

/// What a window has consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The window's id, see [`WindowIds`].
    pub id: u32,
    pub amount: u64,
    pub count: u64,
}

impl Counter {
    /// The counter as of window `id`: empty once the window has moved on. An earlier window counts as the stored one,
    /// so that a lagging clock never reopens a closed window.
    fn rolled(self, id: u32) -> Self {
        if id > self.id { Self { id, amount: 0, count: 0 } } else { self }
    }

    const fn figures(self, after: Self) -> WindowFigures {
        WindowFigures {
            id: self.id,
            amount_before: self.amount,
            amount_after: after.amount,
            count_before: self.count,
            count_after: after.count,
        }
    }
}

/// The state of one (merchant, currency).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub day: Counter,
    pub month: Counter,
    pub year: Counter,
    /// Number of changes so far.
    pub version: u64,
}

impl Account {
    const fn of(&self, period: Period) -> Counter {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
            Period::Year => self.year,
        }
    }

    fn rolled(self, ids: WindowIds) -> Self {
        Self {
            day: self.day.rolled(ids.day),
            month: self.month.rolled(ids.month),
            year: self.year.rolled(ids.year),
            version: self.version,
        }
    }

    /// The first limit that a charge would break, in the order of codes.
    fn breaks(&self, amount: AmountMinor, limits: &Limits) -> Option<Code> {
        let over = |used: u64, more: u64, max: AmountMinor| more > max.get() || used > max.get() - more;
        let count = |period| over(self.of(period).count, 1, limits.of(period).count);
        let sum = |period| over(self.of(period).amount, amount.get(), limits.of(period).amount);
        let checks: [(bool, Code); 6] = [
            (count(Period::Day), Code::DailyCount),
            (count(Period::Month), Code::MonthlyCount),
            (count(Period::Year), Code::YearlyCount),
            (sum(Period::Day), Code::DailyAmount),
            (sum(Period::Month), Code::MonthlyAmount),
            (sum(Period::Year), Code::YearlyAmount),
        ];
        checks.into_iter().find_map(|(broken, code)| broken.then_some(code))
    }

    fn consumed(self, amount: AmountMinor) -> Self {
        let add = |counter: Counter| Counter {
            id: counter.id,
            amount: counter.amount + amount.get(),
            count: counter.count + 1,
        };
        Self { day: add(self.day), month: add(self.month), year: add(self.year), version: self.version + 1 }
    }

    /// Takes a charge out of the windows it went into, as far as they are still open.
    fn returned(self, amount: AmountMinor, charged_in: WindowIds) -> Self {
        let take = |counter: Counter, id: u32| {
            if counter.id == id {
                Counter {
                    id,
                    amount: counter.amount.saturating_sub(amount.get()),
                    count: counter.count.saturating_sub(1),
                }
            } else {
                counter
            }
        };
        Self {
            day: take(self.day, charged_in.day),
            month: take(self.month, charged_in.month),
            year: take(self.year, charged_in.year),
            version: self.version + 1,
        }
    }

    const fn ids(&self) -> WindowIds {
        WindowIds { day: self.day.id, month: self.month.id, year: self.year.id }
    }

    fn record(&self, after: &Self, code: Code, replay: bool) -> Record {
        Record {
            code,
            replay,
            day: self.day.figures(after.day),
            month: self.month.figures(after.month),
            year: self.year.figures(after.year),
            version: after.version,
        }
    }
}

/// What is remembered of one (merchant, order number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub currency: Currency,
    /// Consumed amount; zero for an order that was never charged.
    pub amount: AmountMinor,
    /// The windows that the charge went into.
    pub windows: WindowIds,
    /// The charge is consumed and not returned.
    pub charged: bool,
    /// More live attempts came than are remembered.
    pub pinned: bool,
    /// Admitted and not voided, oldest first.
    pub live: Vec<AttemptId>,
    /// Voided, or to be refused should they still arrive; oldest first.
    pub voided: Vec<AttemptId>,
    /// The decision that charged the order, which replays are answered with.
    pub decision_id: [u8; 16],
    /// Seconds since the epoch from which on the order counts as unknown.
    pub expires_at_secs: u32,
}

/// One command to a store, with everything that the rule needs: time, windows and limits are given, never looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub merchant: MerchantId,
    pub currency: Currency,
    pub order_no: OrderNo,
    pub attempt: AttemptId,
    pub action: Action,
    /// UUIDv7 of this decision and of its event.
    pub decision_id: [u8; 16],
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// The windows of `now_ms` in the policy's calendar.
    pub windows: WindowIds,
    /// How long the order is remembered from now on.
    pub order_ttl_secs: u32,
    /// Events that may wait in the journal's stream before new charges are refused.
    pub backlog_max: u32,
    /// For the journal only.
    pub payment_no: Option<PaymentNo>,
    /// For the journal only: the policy's word on it is in [`Consume::refusal`].
    pub channel: Option<Channel>,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Consume(Consume),
    /// Take the attempt back.
    Void,
}

/// A charge and the limits in force for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consume {
    pub amount: AmountMinor,
    pub limits: Limits,
    /// The code with which the policy refuses the charge whatever was consumed before. A replay goes before it.
    pub refusal: Option<Code>,
}

/// What becomes of a command: the new state where it changes, and whether the journal hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub record: Record,
    /// The decision that the caller is told: the first one's where the answer repeats it.
    pub decision_id: [u8; 16],
    pub account: Option<Account>,
    pub order: Option<Order>,
    pub journal: bool,
}

/// A store's answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub record: Record,
    /// See [`Outcome::decision_id`].
    pub decision_id: [u8; 16],
    /// This command's own id, which its event has.
    pub event_id: [u8; 16],
    /// The event's number within its shard, from 1 without gaps; `None` where nothing was journalled.
    pub event_seq: Option<u64>,
}

/// Applies the rule. `backlog` is the number of events that wait in the shard's stream.
#[must_use]
pub fn decide(account: Option<&Account>, order: Option<&Order>, backlog: u64, command: &Command) -> Outcome {
    let account = account.copied().unwrap_or_default().rolled(command.windows);
    let order = order.filter(|order| i64::from(order.expires_at_secs) > now_secs(command));
    match &command.action {
        Action::Consume(consume) => consumed(&account, order, backlog, consume, command),
        Action::Void => void(&account, order, command),
    }
}

fn consumed(account: &Account, order: Option<&Order>, backlog: u64, consume: &Consume, command: &Command) -> Outcome {
    let charged = order.filter(|order| order.charged);
    let same = charged.filter(|order| order.amount == consume.amount && order.currency == command.currency);
    if let Some(order) = same.filter(|order| order.live.contains(&command.attempt)) {
        // The very attempt again: it is told what it was told, even when no more events are taken.
        return Outcome { journal: false, ..replayed(account, order, command) };
    }
    if backlog >= u64::from(command.backlog_max) {
        return Outcome { journal: false, ..unchanged(account, command, Code::BacklogFull) };
    }
    if order.is_some_and(|order| order.voided.contains(&command.attempt)) {
        return unchanged(account, command, Code::AttemptVoided);
    }
    match (same, charged) {
        (Some(order), _) => Outcome { order: Some(joined(order, command)), ..replayed(account, order, command) },
        (None, Some(_)) => unchanged(account, command, Code::IdempotencyConflict),
        (None, None) => charge(account, order, consume, command),
    }
}

fn charge(account: &Account, order: Option<&Order>, consume: &Consume, command: &Command) -> Outcome {
    if let Some(code) = consume.refusal.or_else(|| account.breaks(consume.amount, &consume.limits)) {
        return unchanged(account, command, code);
    }
    let after = account.consumed(consume.amount);
    let order = Order {
        currency: command.currency,
        amount: consume.amount,
        windows: account.ids(),
        charged: true,
        pinned: false,
        live: vec![command.attempt],
        voided: order.map(|order| order.voided.clone()).unwrap_or_default(),
        decision_id: command.decision_id,
        expires_at_secs: expires_at_secs(command),
    };
    Outcome {
        record: account.record(&after, Code::Admitted, false),
        decision_id: command.decision_id,
        account: Some(after),
        order: Some(order),
        journal: true,
    }
}

/// An answer that repeats the order's first one and changes no counter.
fn replayed(account: &Account, order: &Order, command: &Command) -> Outcome {
    let record = account.record(account, Code::Admitted, true);
    Outcome { record, decision_id: order.decision_id, ..unchanged(account, command, Code::Admitted) }
}

/// The order with another live attempt.
fn joined(order: &Order, command: &Command) -> Order {
    let mut order = order.clone();
    order.expires_at_secs = expires_at_secs(command);
    if order.live.len() < ATTEMPTS_MAX {
        order.live.push(command.attempt);
    } else {
        order.pinned = true;
    }
    order
}

fn void(account: &Account, order: Option<&Order>, command: &Command) -> Outcome {
    let Some(order) = order else {
        let order = Order {
            currency: command.currency,
            amount: AmountMinor::ZERO,
            windows: WindowIds::default(),
            charged: false,
            pinned: false,
            live: Vec::new(),
            voided: vec![command.attempt],
            decision_id: command.decision_id,
            expires_at_secs: expires_at_secs(command),
        };
        return Outcome { order: Some(order), ..unchanged(account, command, Code::Tombstoned) };
    };
    if order.voided.contains(&command.attempt) {
        let code = if order.charged { Code::AttemptReleased } else { Code::Voided };
        let record = account.record(account, code, true);
        return Outcome { record, journal: false, ..unchanged(account, command, code) };
    }
    if order.charged && order.currency != command.currency && order.live.contains(&command.attempt) {
        return unchanged(account, command, Code::IdempotencyConflict);
    }
    let mut next = order.clone();
    next.expires_at_secs = expires_at_secs(command);
    next.live.retain(|attempt| *attempt != command.attempt);
    next.voided.push(command.attempt);
    if next.voided.len() > ATTEMPTS_MAX {
        next.voided.remove(0);
    }
    let was_live = next.live.len() < order.live.len();
    if was_live && next.live.is_empty() && !order.pinned {
        next.charged = false;
        let after = account.returned(order.amount, order.windows);
        let record = account.record(&after, Code::Voided, false);
        return Outcome {
            record,
            account: Some(after),
            order: Some(next),
            ..unchanged(account, command, Code::Voided)
        };
    }
    let code = if was_live { Code::AttemptReleased } else { Code::Tombstoned };
    Outcome { order: Some(next), ..unchanged(account, command, code) }
}

/// An answer that changes no counter.
fn unchanged(account: &Account, command: &Command, code: Code) -> Outcome {
    Outcome {
        record: account.record(account, code, false),
        decision_id: command.decision_id,
        account: None,
        order: None,
        journal: true,
    }
}

const fn now_secs(command: &Command) -> i64 {
    command.now_ms.div_euclid(1000)
}

fn expires_at_secs(command: &Command) -> u32 {
    u32::try_from(now_secs(command).saturating_add(i64::from(command.order_ttl_secs))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
