//! Outcomes that the gateway leaves unknown, and how they are resolved.

use super::{Case, Verdict};
use crate::order::ATTEMPTS_MAX;
use crate::{AmountMinor, Code, Mark, OperationId, OperationKind, Order, OrderState, Subject};

impl Case<'_> {
    /// Marks an outcome as unknown. Nothing is marked on an unknown order, or where the outcome is known already: the report is
    /// late.
    pub(super) fn mark_unknown(&self, mark: &Mark) -> Verdict {
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code).unjournaled(),
        };
        let amount = match mark.subject {
            Subject::Charge => order.amount.get(),
            Subject::Capture(_) | Subject::Refund(_) | Subject::Void => mark.amount.map_or(0, AmountMinor::get),
        };
        let answer = self.answer(Code::Applied).amount(amount);
        if order.voided.contains(&self.command.attempt) || is_settled(order, mark.subject) {
            return answer.replayed().unjournaled();
        }
        let mut next = order.clone();
        match mark.subject {
            Subject::Charge => next.unknown = true,
            Subject::Capture(_) | Subject::Refund(_) | Subject::Void => next.doubted = true,
        }
        answer.order(next)
    }

    /// The gateway made the charge. This is stored also where no outcome was unknown, so that a late mark has no effect.
    pub(super) fn made(&self) -> Verdict {
        let order = match self.charged_order() {
            Ok(order) => order,
            Err(code) => return self.answer(code).unjournaled(),
        };
        let answer = self.answer(Code::Applied);
        if order.made {
            return answer.replayed().unjournaled();
        }
        let mut next = order.clone();
        next.known_at_gateway();
        if order.unknown { answer.order(next) } else { answer.order(next).replayed().unjournaled() }
    }

    /// The gateway made the charge by none of the order's attempts: all of them are voided.
    pub(super) fn not_made(&self) -> Verdict {
        match self.order {
            Some(order) if order.state == OrderState::Open => self.answer(Code::Voided).replayed().unjournaled(),
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

/// Whether the outcome of the subject is known already, or marked already.
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
