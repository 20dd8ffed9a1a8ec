//! Rights: what is set aside for a holder, the payments that it reports, and the right's end.

use super::{Case, Verdict};
use crate::command::storable;
use crate::{Account, Code, Grant, Order, OrderState, Origins, ReleaseRight, Report, Right, RightAfter, Weight};

impl Case<'_> {
    /// Sets aside what the holder wants, or less: only where more than the threshold is left of every limit, and nothing restricts
    /// the account. A credit line's limit changes from one day to the next, so every payment on one is decided by itself.
    pub(super) fn grant(&self, grant: &Grant) -> Verdict {
        if self.right.is_some() {
            return self.answer(Code::Applied).replayed().unjournaled();
        }
        if self.is_full() {
            return self.answer(Code::BacklogFull).unjournaled();
        }
        let until_ms = self.now_ms + u64::from(grant.trust.ttl_ms);
        // It does not outlive the day that its payments are counted in.
        let until_ms = until_ms.min(storable(self.command.windows.until_ms));
        let is_restricted = self.is_suspended() || grant.refusal.is_some() || self.account.credit.is_some();
        let largest = grant.trust.grantable(&self.account, &grant.limits).filter(|_| !is_restricted);
        let granted = largest.map(|largest| largest.min(grant.wanted)).filter(|granted| granted.count > 0);
        let Some(granted) = granted.filter(|granted| granted.amount > 0 && until_ms > self.now_ms) else {
            return self.answer(Code::RightRefused).unjournaled();
        };
        let mut after = self.account;
        after.set_aside(granted);
        let right = Right {
            counted_in: after.origins(),
            weight: grant.weight,
            granted,
            left: granted,
            until_ms,
            orphaned: false,
            decision_id: self.command.decision_id,
        };
        self.answer(Code::Applied).amount(granted.amount).account(after).right(RightAfter::Kept(right))
    }

    /// Charges the order of a payment that went on already. What its right still has pays for it, so that no counter moves; without
    /// the right it is counted now, whatever the limits are. What the order does not accept is a conflict found too late.
    pub(super) fn report(&self, report: &Report) -> Verdict {
        let Some(order) = self.order else { return self.reported(None, report) };
        let same = order.state == OrderState::Charged
            && order.amount == report.amount
            && order.currency == self.command.currency;
        if order.voided.contains(&self.command.attempt) {
            self.answer(Code::AttemptVoided)
        } else if order.is_closed() {
            self.answer(Code::OrderClosed)
        } else if same && order.live.contains(&self.command.attempt) {
            self.admitted_before(order).unjournaled()
        } else if same {
            self.admitted_before(order).order(self.joined(order))
        } else if order.state.is_charged() {
            self.answer(Code::IdempotencyConflict)
        } else {
            self.reported(Some(order), report)
        }
    }

    fn reported(&self, order: Option<&Order>, report: &Report) -> Verdict {
        let amount = report.amount.get();
        if let Some(right) = self.right.and_then(|right| right.without(right.weight.counts(amount))) {
            let order = self.reported_order(order, report, right.weight, right.counted_in, 0);
            let weighed = order.weighed(right.weight.counts(amount));
            return self.answer(Code::Admitted).weighed(weighed).order(order).right(RightAfter::Kept(right));
        }
        let mut after = self.account;
        after.charge_anyway(report.weight.counts(amount));
        let cycle = after.charge_credit_anyway(amount);
        let order = self.reported_order(order, report, report.weight, after.origins(), cycle);
        let weighed = order.weighed(report.weight.counts(amount));
        self.answer(Code::Admitted).weighed(weighed).order(order).account(after)
    }

    fn reported_order(
        &self,
        order: Option<&Order>,
        report: &Report,
        weight: Weight,
        charged_in: Origins,
        credit_cycle: u32,
    ) -> Order {
        Order {
            amount: report.amount,
            weight,
            charged_in,
            credit_cycle,
            state: OrderState::Charged,
            live: vec![self.command.attempt],
            voided: order.map(|order| order.voided.clone()).unwrap_or_default(),
            ..Order::open(self.command.currency, self.command.decision_id)
        }
    }

    /// Returns what is left of a right to the windows that it was counted in.
    pub(super) fn release_right(&self, release: &ReleaseRight) -> Verdict {
        let Some(right) = self.right else { return self.answer(Code::Applied).replayed().unjournaled() };
        if !release.by_holder && right.until_ms + ReleaseRight::REPORTED_WITHIN_MS > self.now_ms {
            return self.answer(Code::RightInUse);
        }
        let mut after = self.account;
        after.give_back_share(right.left, &right.counted_in);
        self.answer(Code::Applied).amount(right.left.amount).account(after).right(RightAfter::Ended)
    }

    /// Records once that a right's holder is lost.
    pub(super) fn orphan_right(&self) -> Verdict {
        match self.right {
            Some(right) if !right.orphaned => {
                let right = Right { orphaned: true, ..right };
                self.answer(Code::Applied).amount(right.left.amount).right(RightAfter::Kept(right))
            }
            Some(_) | None => self.answer(Code::Applied).replayed().unjournaled(),
        }
    }
}

impl Account {
    /// Raises and bills the exposure for a charge that was made without a decision; returns the cycle for its order, 0 where the
    /// account is on no credit line.
    fn charge_credit_anyway(&mut self, amount: u64) -> u32 {
        self.credit.as_mut().map_or(0, |credit| {
            credit.raise(amount);
            credit.bill(amount);
            credit.cycle
        })
    }
}
