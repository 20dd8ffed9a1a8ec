//! Consuming quota, as a charge or as a hold.

use super::{Case, Verdict};
use crate::account::over;
use crate::order::ATTEMPTS_MAX;
use crate::{Account, Charge, Code, Hold, HoldTerms, Order, OrderState, Pace};

impl Case<'_> {
    pub(super) fn charge(&self, charge: &Charge, hold: Option<&HoldTerms>) -> Verdict {
        let charged = self.order.filter(|order| order.state.is_charged());
        let same = charged.filter(|order| self.repeats(order, charge, hold.is_some()));
        let barred = self.order.and_then(|order| self.bars(order));
        let known = same.filter(|order| barred.is_none() && order.live.contains(&self.command.attempt));
        if let Some(order) = known {
            // The same attempt is repeated: it gets its first answer, even when the backlog is full.
            return self.admitted_before(order).unjournaled();
        }
        if self.is_full() {
            return self.answer(Code::BacklogFull).unjournaled();
        }
        if let Some(code) = barred {
            return self.answer(code);
        }
        match (same, self.order) {
            (Some(order), _) if charge.replays_max.is_some_and(|max| order.has_used_up(max)) => {
                self.answer(Code::ReplayRefused)
            }
            (Some(order), _) => self.admitted_before(order).order(self.joined(order)),
            (None, Some(order)) if order.state.is_charged() => self.answer(Code::IdempotencyConflict),
            (None, order) => self.charge_new(order, charge, hold),
        }
    }

    /// Why an order accepts no charge attempt at all, not even the repetition of an admitted one.
    fn bars(&self, order: &Order) -> Option<Code> {
        if order.voided.contains(&self.command.attempt) {
            Some(Code::AttemptVoided)
        } else if order.is_closed() {
            Some(Code::OrderClosed)
        } else {
            (order.state.is_charged() && self.is_suspended()).then_some(Code::Suspended)
        }
    }

    /// Repeats the answer that charged the order, with the figures of then.
    pub(super) fn admitted_before(&self, order: &Order) -> Verdict {
        let weighed = order.weighed(order.weight.counts(order.amount.get()));
        self.answer(Code::Admitted).weighed(weighed).replayed().with_decision_id(order.decision_id)
    }

    fn repeats(&self, order: &Order, charge: &Charge, hold: bool) -> bool {
        let held = matches!(order.state, OrderState::Held | OrderState::Settled);
        order.amount == charge.amount && order.currency == self.command.currency && held == hold
    }

    /// The order with another live attempt.
    pub(super) fn joined(&self, order: &Order) -> Order {
        let mut order = order.clone();
        if order.live.len() < ATTEMPTS_MAX {
            order.live.push(self.command.attempt);
        } else {
            order.pinned = true;
        }
        order
    }

    fn charge_new(&self, order: Option<&Order>, charge: &Charge, hold: Option<&HoldTerms>) -> Verdict {
        if let Some(code) = self.refuses(charge, hold.is_some()) {
            return self.answer(code);
        }
        let mut after = self.account;
        let wait_ms = match self.account.breaks(charge.counts(), &charge.limits).zip(charge.pace) {
            None => 0,
            Some((_, pace)) => match self.paced(&mut after, &pace) {
                Ok(wait_ms) => wait_ms,
                Err(wait_ms) => return Verdict { wait_ms, ..self.answer(Code::Throttled) },
            },
        };
        after.charge(charge.counts());
        if hold.is_some() {
            after.pending += charge.counts();
        }
        if let Some(credit) = &mut after.credit {
            credit.raise(charge.amount.get());
            credit.bill(if hold.is_some() { 0 } else { charge.amount.get() });
        }
        Verdict {
            wait_ms,
            ..self.answer(Code::Admitted).order(self.charged(order, charge, hold, &after)).account(after)
        }
    }

    /// The first code that refuses a new charge regardless of the pace, in the order of checks.
    fn refuses(&self, charge: &Charge, hold: bool) -> Option<Code> {
        let suspended = self.is_suspended().then_some(Code::Suspended);
        let hard = charge.hard_limits();
        charge
            .refusal
            .filter(|code| *code == Code::PolicyMissing)
            .or(suspended)
            .or(charge.refusal)
            .or_else(|| self.lacks_credit_terms(charge))
            .or_else(|| self.account.breaks(charge.counts(), &hard))
            .or_else(|| {
                let broken = hold && over(self.account.pending, charge.counts(), charge.limits.pending);
                broken.then_some(Code::PendingAmount)
            })
            .or_else(|| self.exceeds_credit(charge.amount))
    }

    /// Reserves the next slot of the pace; returns the wait in milliseconds. `Err` with the wait where it is too long: then
    /// no slot is reserved.
    fn paced(&self, after: &mut Account, pace: &Pace) -> Result<u64, u64> {
        let now_us = self.now_ms * 1000;
        let turn = self.account.paced_until_us.max(now_us);
        let wait_us = (turn - now_us).saturating_sub(pace.tolerance_us);
        let wait_ms = wait_us.div_ceil(1000);
        if wait_ms > u64::from(pace.delay_ms_max) {
            return Err(wait_ms);
        }
        after.paced_until_us = turn + u64::from(pace.interval_us);
        Ok(wait_ms)
    }

    fn charged(&self, order: Option<&Order>, charge: &Charge, hold: Option<&HoldTerms>, after: &Account) -> Order {
        let ends = |terms: &HoldTerms| Hold {
            until_secs: u32::try_from(self.now_secs() + u64::from(terms.lifetime_secs)).unwrap_or(u32::MAX),
            on_expiry: terms.on_expiry,
        };
        Order {
            amount: charge.amount,
            weight: charge.weight,
            charged_in: after.origins(),
            credit_cycle: after.credit.map_or(0, |credit| credit.cycle),
            state: if hold.is_some() { OrderState::Held } else { OrderState::Charged },
            hold: hold.map(ends).unwrap_or_default(),
            live: vec![self.command.attempt],
            voided: order.map(|order| order.voided.clone()).unwrap_or_default(),
            ..Order::open(self.command.currency, self.command.decision_id)
        }
    }
}
