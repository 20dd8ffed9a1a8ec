//! Credit lines: what a charge may add to the exposure, and postings.

use super::{Case, Verdict};
use crate::{Account, AmountMinor, Charge, Code, Order, OrderState, Posting, PostingKind};

impl Case<'_> {
    /// Refuses a charge on a credit line of which the command has no terms, where the charge asks for that.
    pub(super) fn lacks_credit_terms(&self, charge: &Charge) -> Option<Code> {
        let is_unknown = self.account.credit.is_some() && self.command.credit.is_none();
        (is_unknown && charge.refuse_unknown_credit).then_some(Code::CreditUnknown)
    }

    /// Why the credit line does not admit a charge; a line that is unknown to the server bounds nothing.
    pub(super) fn exceeds_credit(&self, amount: AmountMinor) -> Option<Code> {
        let credit = self.account.credit?;
        let maxima = self.command.credit.map(|terms| (terms.limit, terms.uncapped_limit));
        let (limit, uncapped) = maxima.unwrap_or((AmountMinor::MAX, AmountMinor::MAX));
        if credit.allows(amount.get(), limit) {
            None
        } else if credit.allows(amount.get(), uncapped) {
            Some(Code::CreditRestricted)
        } else {
            Some(Code::CreditExhausted)
        }
    }

    /// Posts once under the posting's number, where there is a line. The limit bounds only what is given away.
    pub(super) fn post(&self, posting: &Posting) -> Verdict {
        match self.order {
            Some(order) if order.amount == posting.amount && order.currency == self.command.currency => {
                return self.answer(Code::Applied).replayed().with_decision_id(order.decision_id).unjournaled();
            }
            Some(_) => return self.answer(Code::IdempotencyConflict),
            None => {}
        }
        let Some(mut credit) = self.account.credit else { return self.answer(Code::CreditUnknown) };
        let exposure = credit.exposure_with(posting).filter(|_| posting.amount != AmountMinor::ZERO);
        let Some(exposure) = exposure else { return self.answer(Code::BadAmount) };
        if let Some(code) = self.refuses_posting(posting) {
            return self.answer(code);
        }
        credit.exposure = exposure;
        // What is given to another account is on the next statement; a reversed repayment opens the ones that it had paid.
        credit.bill(if posting.kind == PostingKind::TransferOut { posting.amount.get() } else { 0 });
        let order = Order {
            amount: posting.amount,
            state: OrderState::Charged,
            ..Order::open(self.command.currency, self.command.decision_id)
        };
        self.answer(Code::Applied).account(Account { credit: Some(credit), ..self.account }).order(order)
    }

    fn refuses_posting(&self, posting: &Posting) -> Option<Code> {
        match posting.kind {
            PostingKind::TransferOut if self.is_suspended() => Some(Code::Suspended),
            PostingKind::TransferOut => self.exceeds_credit(posting.amount),
            PostingKind::Repayment
            | PostingKind::Reversal
            | PostingKind::WriteOff
            | PostingKind::TransferIn
            | PostingKind::Recovery
            | PostingKind::Opening => None,
        }
    }
}

/// The exposure follows orders that have raised it.
impl Account {
    /// Bills a capture in the present cycle, and returns that cycle for the order; 0 where the order is on no credit line.
    pub(super) fn bill_credit(&mut self, order: &Order, captured: u64) -> u32 {
        match &mut self.credit {
            Some(credit) if order.credit_cycle != 0 => {
                credit.bill(captured);
                credit.cycle
            }
            Some(_) | None => order.credit_cycle,
        }
    }

    /// Raises the exposure by what an order has charged beyond its hold.
    pub(super) fn raise_credit(&mut self, order: &Order, more: u64) {
        if let Some(credit) = self.credit.as_mut().filter(|_| order.credit_cycle != 0) {
            credit.raise(more);
        }
    }

    /// Lowers the exposure by what an order gives back, of which a part is billed.
    pub(super) fn release_credit(&mut self, order: &Order, amount: u64, billed: u64) {
        if let Some(credit) = self.credit.as_mut().filter(|_| order.credit_cycle != 0) {
            credit.lower(amount);
            credit.unbill(billed, order.credit_cycle);
        }
    }
}
