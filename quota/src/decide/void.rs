//! Voids: of one attempt at an order, or of a whole hold.

use super::{Case, Verdict};
use crate::order::ATTEMPTS_MAX;
use crate::{AmountMinor, Code, Operation, OperationId, OperationKind, Order, OrderState};

impl Case<'_> {
    pub(super) fn void_attempt(&self) -> Verdict {
        let attempt = self.command.attempt;
        let Some(order) = self.order else {
            let mut order = Order::open(self.command.currency, self.command.decision_id);
            order.voided.push(attempt);
            return self.answer(Code::Tombstoned).order(order);
        };
        if order.voided.contains(&attempt) {
            let code = if order.state.is_charged() { Code::AttemptReleased } else { Code::Voided };
            return self.answer(code).replayed().unjournaled();
        }
        let reservation = order
            .operations
            .iter()
            .position(|operation| operation.kind == OperationKind::Reservation && operation.attempt == attempt);
        let was_live = order.live.contains(&attempt);
        let concerns = was_live || reservation.is_some();
        if order.state.is_charged() && order.currency != self.command.currency && concerns {
            return self.answer(Code::IdempotencyConflict);
        }
        let next = without(order, attempt);
        if let Some(index) = reservation {
            return self.cancelled(next, index);
        }
        if !was_live {
            return self.answer(Code::Tombstoned).order(next);
        }
        if !next.live.is_empty() || next.pinned || !order.is_untouched() {
            return self.answer(Code::AttemptReleased).order(next);
        }
        self.opened(order, next)
    }

    /// Without a live attempt the order is open again, and its charge is returned.
    pub(super) fn opened(&self, order: &Order, mut next: Order) -> Verdict {
        next.state = OrderState::Open;
        next.unknown = false;
        let mut after = self.account;
        let amount = order.amount.get();
        let counted = order.counts_of_last(amount);
        after.give_back(counted, true, &order.charged_in);
        after.pending = after.pending.saturating_sub(order.counts_of_held(order.held()));
        after.release_credit(order, amount, order.captured());
        self.answer(Code::Voided).amount(amount).weighed(order.weighed(counted)).account(after).order(next)
    }

    /// The gateway did not refund: the refund's reservation is cancelled.
    fn cancelled(&self, mut next: Order, index: usize) -> Verdict {
        let operation = next.operations.remove(index);
        let amount = operation.amount.get();
        next.refunded = next.refunded.saturating_sub(amount);
        let mut after = self.account;
        after.unrefund(amount, &operation.counted);
        self.answer(Code::Applied).amount(amount).account(after).order(next)
    }

    pub(super) fn void(&self) -> Verdict {
        match self.charged_order() {
            Err(code) => self.answer(code),
            Ok(order) => match order.state {
                OrderState::Held => self.release_hold(order, OperationId(self.command.attempt.0)),
                OrderState::Open | OrderState::Charged | OrderState::Settled | OrderState::Voided => {
                    self.void_again(order)
                }
            },
        }
    }

    /// A voided hold gets the same answer again, also where a part of it was captured before.
    fn void_again(&self, order: &Order) -> Verdict {
        match order.operations.iter().find(|operation| operation.kind == OperationKind::Release) {
            Some(taken) => self.released_before(taken),
            None if order.state == OrderState::Voided => self.answer(Code::Voided).replayed().unjournaled(),
            None => self.answer(Code::OrderClosed),
        }
    }

    /// Repeats the answer that ended the hold.
    pub(super) fn released_before(&self, taken: &Operation) -> Verdict {
        self.answer(Code::Voided)
            .amount(taken.amount.get())
            .replayed()
            .with_decision_id(taken.decision_id)
            .unjournaled()
    }

    /// Ends a hold for a caller that may repeat the request: identified by the number of a release, or by the attempt of a void.
    pub(super) fn release_hold(&self, order: &Order, id: OperationId) -> Verdict {
        let amount = AmountMinor::new(order.held()).unwrap_or_default();
        let mut verdict = self.end_hold(order);
        if let Some(next) = &mut verdict.order {
            next.known_at_gateway();
            next.operations.push(self.operation(OperationKind::Release, id, amount));
        }
        verdict
    }

    /// Returns the amount that is still held; captured amounts stay consumed.
    pub(super) fn end_hold(&self, order: &Order) -> Verdict {
        let held = order.held();
        let untouched = order.settled == 0;
        let mut next = order.clone();
        next.state = if untouched { OrderState::Voided } else { OrderState::Settled };
        next.live.clear();
        next.given_back = true;
        let mut after = self.account;
        let counted = order.counts_of_last(held);
        after.give_back(counted, untouched, &order.charged_in);
        after.pending = after.pending.saturating_sub(order.counts_of_held(held));
        after.release_credit(order, held, 0);
        self.answer(Code::Voided).amount(held).weighed(order.weighed(counted)).account(after).order(next)
    }
}

/// The order with the attempt voided.
fn without(order: &Order, attempt: crate::AttemptId) -> Order {
    let mut next = order.clone();
    next.live.retain(|live| *live != attempt);
    next.voided.push(attempt);
    if next.voided.len() > ATTEMPTS_MAX {
        next.voided.remove(0);
    }
    next
}
