//! The end of a hold: by capture, or by expiry.

use super::{Case, Verdict};
use crate::order::{OPERATIONS_MAX, REPORTED_OPERATIONS_MAX};
use crate::{AmountMinor, Code, OnExpiry, Operation, OperationKind, Order, OrderState, Settle};

impl Case<'_> {
    pub(super) fn settle(&self, settle: &Settle) -> Verdict {
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code),
        };
        let taken = order
            .operations
            .iter()
            .find(|operation| operation.kind == OperationKind::Capture && operation.id == settle.id);
        if let Some(taken) = taken {
            return self.repeated(taken, settle.amount);
        }
        let late = settle.reported && settle.amount.is_some() && order.state != OrderState::Charged;
        if order.state != OrderState::Held && !late {
            return self.answer(Code::OrderClosed);
        }
        let captured = settle.amount.map_or(order.held(), AmountMinor::get);
        if captured == 0 {
            return self.answer(Code::BadAmount);
        }
        let operations_max = if settle.reported { REPORTED_OPERATIONS_MAX } else { OPERATIONS_MAX };
        if order.operations.len() >= operations_max && !(settle.last && order.state == OrderState::Held) {
            return self.answer(Code::OrderFull).amount(captured);
        }
        self.capture(order, settle, captured)
    }

    /// A capture or refund that was accepted before: the same amount gets the first answer.
    pub(super) fn repeated(&self, taken: &Operation, amount: Option<AmountMinor>) -> Verdict {
        if amount.is_none_or(|amount| amount == taken.amount) {
            self.answer(Code::Applied)
                .amount(taken.amount.get())
                .replayed()
                .with_decision_id(taken.decision_id)
                .unjournaled()
        } else {
            Verdict { first: Some(taken.amount), ..self.answer(Code::IdempotencyConflict) }
        }
    }

    fn capture(&self, order: &Order, settle: &Settle, captured: u64) -> Verdict {
        let held = order.held();
        let more = captured.saturating_sub(held);
        let more_counts = order.counts_of_next(more);
        let allowed = percent(order.amount.get(), settle.over_capture_percent);
        let exceeds = (more > allowed && !settle.reported) || !self.account.holds(more_counts);
        // The captured amount must be a valid amount, and so must the order's total.
        let Some(amount) = AmountMinor::new(captured).filter(|_| !exceeds) else {
            return self.answer(Code::CaptureExceedsHold).amount(captured);
        };
        let Some(settled) = AmountMinor::new(order.settled + captured) else {
            return self.answer(Code::CaptureExceedsHold).amount(captured);
        };
        let left = held.saturating_sub(captured);
        let closes = settle.last || left == 0;
        let returned = if closes { left } else { 0 };
        let mut next = order.clone();
        next.known_at_gateway();
        next.settled = settled.get();
        next.state = if closes { OrderState::Settled } else { OrderState::Held };
        next.operations.push(self.operation(OperationKind::Capture, settle.id, amount));
        let mut after = self.account;
        let (freed, given_back) = (order.counts_of_held(held.min(captured) + returned), order.counts_of_last(returned));
        after.pending = after.pending.saturating_sub(freed);
        after.give_back(given_back, false, &order.charged_in);
        // Money that was captured beyond the hold is consumed now, regardless of the limits.
        after.consume(more_counts);
        next.credit_cycle = after.bill_credit(order, captured);
        after.release_credit(order, returned, 0);
        after.raise_credit(order, more);
        // Of what is no longer held, that which was not returned.
        let counted = freed.saturating_sub(given_back) + more_counts;
        self.answer(Code::Applied).amount(captured).weighed(order.weighed(counted)).account(after).order(next)
    }

    /// An open hold ends later, or when it would have. The quota that it holds stays as it is.
    pub(super) fn extend_hold(&self, until_secs: u32) -> Verdict {
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code),
        };
        if order.state != OrderState::Held {
            return self.answer(Code::OrderClosed);
        }
        let answer = self.answer(Code::Applied).amount(order.held());
        if until_secs <= order.hold.until_secs {
            return answer.replayed().unjournaled();
        }
        let mut next = order.clone();
        next.hold.until_secs = until_secs;
        answer.order(next)
    }

    pub(super) fn expire(&self) -> Verdict {
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code).unjournaled(),
        };
        if order.state != OrderState::Held {
            return self.answer(Code::OrderClosed).unjournaled();
        }
        if u64::from(order.hold.until_secs) > self.now_secs() {
            return self.answer(Code::Admitted).replayed().unjournaled();
        }
        match order.hold.on_expiry {
            OnExpiry::Void => self.end_hold(order),
            OnExpiry::Settle => {
                let held = order.held();
                let mut next = order.clone();
                next.settled = order.amount.get();
                next.state = OrderState::Settled;
                let mut after = self.account;
                let counted = order.counts_of_held(held);
                after.pending = after.pending.saturating_sub(counted);
                next.credit_cycle = after.bill_credit(order, held);
                self.answer(Code::Applied).amount(held).weighed(order.weighed(counted)).account(after).order(next)
            }
        }
    }
}

/// `percent` hundredths of an amount, rounded down. In two parts, so that doubles compute it exactly as well.
const fn percent(amount: u64, percent: u8) -> u64 {
    amount / 100 * percent as u64 + amount % 100 * percent as u64 / 100
}
