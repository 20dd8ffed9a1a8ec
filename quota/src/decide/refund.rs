//! Returning captured quota.

use super::{Case, Verdict};
use crate::account::over;
use crate::order::OPERATIONS_MAX;
use crate::{AmountMinor, Code, Operation, OperationKind, Order, OrderState, Period, Refund};

impl Case<'_> {
    pub(super) fn release(&self, refund: &Refund) -> Verdict {
        let Ok(order) = self.charged_order() else { return self.refund(refund) };
        let is_this = |operation: &&Operation| operation.kind == OperationKind::Release && operation.id == refund.id;
        if let Some(taken) = order.operations.iter().find(is_this) {
            return self.released_before(taken);
        }
        match order.state {
            OrderState::Held => self.release_hold(order, refund.id),
            OrderState::Voided => self.void(),
            OrderState::Open | OrderState::Charged | OrderState::Settled => self.refund(refund),
        }
    }

    pub(super) fn refund(&self, refund: &Refund) -> Verdict {
        if self.order.is_some_and(|order| order.voided.contains(&self.command.attempt)) {
            return self.answer(Code::AttemptVoided);
        }
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code),
        };
        if order.state == OrderState::Voided {
            return self.answer(Code::OrderClosed);
        }
        let taken = order.operations.iter().position(|operation| is_refund(operation) && operation.id == refund.id);
        match taken.and_then(|index| order.operations.get(index).map(|taken| (index, taken))) {
            None => self.refund_new(order, refund),
            Some((index, taken)) => self.refund_again(order, index, taken, refund),
        }
    }

    fn refund_again(&self, order: &Order, index: usize, taken: &Operation, refund: &Refund) -> Verdict {
        let same = refund.amount.is_none_or(|amount| amount == taken.amount);
        let known = taken.attempt == self.command.attempt;
        if taken.kind == OperationKind::Refund || !same || (refund.reserve && known) {
            return self.repeated(taken, refund.amount);
        }
        let amount = taken.amount.get();
        let mut next = order.clone();
        if !refund.reserve {
            next.known_at_gateway();
        }
        if let Some(operation) = next.operations.get_mut(index) {
            operation.attempt = self.command.attempt;
            if !refund.reserve {
                operation.kind = OperationKind::Refund;
            }
        }
        next.given_back |= !refund.reserve;
        let answer = self.answer(Code::Applied).amount(amount).order(next);
        if refund.reserve {
            // Only the failure of the latest attempt cancels the refund. An earlier attempt's failure must not cancel this one.
            return answer.replayed().with_decision_id(taken.decision_id);
        }
        let mut after = self.account;
        let counted = order.counts_of_last(amount);
        after.give_back(counted, false, &order.charged_in);
        after.release_credit(order, amount, amount);
        answer.weighed(order.weighed(counted)).account(after)
    }

    fn refund_new(&self, order: &Order, refund: &Refund) -> Verdict {
        let left = order.captured().saturating_sub(order.refunded);
        let refunded = refund.amount.map_or(left, AmountMinor::get);
        let answer = |code| self.answer(code).amount(refunded);
        let Some(amount) = AmountMinor::new(refunded).filter(|_| refunded <= left && left > 0) else {
            return answer(Code::RefundExceedsOrder);
        };
        if refunded == 0 {
            return answer(Code::BadAmount);
        }
        if order.operations.len() >= OPERATIONS_MAX {
            return answer(Code::OrderFull);
        }
        let breaks = |period, max| over(self.account.of(period).refunded, refunded, max);
        if breaks(Period::Day, refund.daily_max) {
            return answer(Code::RefundDaily);
        }
        let holds = |period| !breaks(period, AmountMinor::MAX);
        if breaks(Period::Month, refund.monthly_max) || !holds(Period::Week) || !holds(Period::Year) {
            return answer(Code::RefundMonthly);
        }
        let mut next = order.clone();
        if !refund.reserve {
            next.known_at_gateway();
        }
        next.refunded += refunded;
        next.given_back |= !refund.reserve;
        let kind = if refund.reserve { OperationKind::Reservation } else { OperationKind::Refund };
        next.operations.push(self.operation(kind, refund.id, amount));
        let mut after = self.account;
        after.refund(refunded);
        let counted = order.counts_of_last(refunded);
        let answer = answer(Code::Applied).order(next);
        if refund.reserve {
            return answer.account(after);
        }
        after.give_back(counted, false, &order.charged_in);
        after.release_credit(order, refunded, refunded);
        answer.weighed(order.weighed(counted)).account(after)
    }
}

const fn is_refund(operation: &Operation) -> bool {
    match operation.kind {
        OperationKind::Reservation | OperationKind::Refund => true,
        OperationKind::Capture | OperationKind::Release => false,
    }
}
