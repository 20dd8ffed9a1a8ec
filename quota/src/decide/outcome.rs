//! Outcomes that the gateway leaves open, and what settles them.

use super::{Case, Verdict};
use crate::order::ATTEMPTS_MAX;
use crate::{AmountMinor, Code, Mark, OperationId, OperationKind, Order, OrderState, Subject};

impl Case<'_> {
    /// Marks what is open. Of an order that nobody knows, or of what is settled already, nothing is marked: a word that comes
    /// late says nothing new.
    pub(super) fn mark_unknown(&self, mark: &Mark) -> Verdict {
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code).unheard(),
        };
        let amount = match mark.subject {
            Subject::Charge => order.amount.get(),
            Subject::Capture(_) | Subject::Refund(_) | Subject::Void => mark.amount.map_or(0, AmountMinor::get),
        };
        let answer = self.answer(Code::Applied).amount(amount);
        if order.voided.contains(&self.command.attempt) || is_settled(order, mark.subject) {
            return answer.again().unheard();
        }
        let mut next = order.clone();
        match mark.subject {
            Subject::Charge => next.unknown = true,
            Subject::Capture(_) | Subject::Refund(_) | Subject::Void => next.doubted = true,
        }
        answer.order(next)
    }

    /// The gateway made the charge. That is remembered also where nothing was open, so that a mark that comes late marks nothing.
    pub(super) fn made(&self) -> Verdict {
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code).unheard(),
        };
        let answer = self.answer(Code::Applied);
        if order.made {
            return answer.again().unheard();
        }
        let mut next = order.clone();
        next.known_at_gateway();
        if order.unknown { answer.order(next) } else { answer.order(next).again().unheard() }
    }

    /// The gateway did not make the charge, by none of the order's attempts: all of them are voided.
    pub(super) fn not_made(&self) -> Verdict {
        match self.order {
            Some(order) if order.state == OrderState::Open => self.answer(Code::Voided).again().unheard(),
            None | Some(_) => match self.charged_order() {
                Err(code) => self.answer(code),
                Ok(order) if order.made || !order.is_untouched() => self.answer(Code::OrderClosed),
                Ok(order) => self.all_voided(order),
            },
        }
    }

    fn all_voided(&self, order: &Order) -> Verdict {
        let mut next = order.clone();
        next.voided.append(&mut next.live);
        next.voided.drain(..next.voided.len().saturating_sub(ATTEMPTS_MAX));
        next.pinned = false;
        self.opened(order, next)
    }
}

/// Whether what is to be marked has an end already.
fn is_settled(order: &Order, subject: Subject) -> bool {
    let has = |kind: OperationKind, id: OperationId| {
        order.operations.iter().any(|operation| operation.kind == kind && operation.id == id)
    };
    match subject {
        Subject::Charge => order.made || order.unknown,
        Subject::Capture(id) => has(OperationKind::Capture, id),
        Subject::Refund(id) => has(OperationKind::Refund, id),
        Subject::Void => {
            let released = order.operations.iter().any(|operation| operation.kind == OperationKind::Release);
            released || order.state == OrderState::Voided
        }
    }
}
