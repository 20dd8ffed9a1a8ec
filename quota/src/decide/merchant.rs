//! Operators' commands on a merchant as a whole: all its accounts, including future ones.

use super::{Case, Verdict};
use crate::{Code, Effect, Merchant, Outcome, Record};

impl Case<'_> {
    /// Whether charges of the account are refused: it is suspended itself, or its merchant is.
    pub(super) const fn is_suspended(&self) -> bool {
        self.account.suspended_at_ms > 0 || self.merchant.suspended_at_ms > 0
    }

    pub(super) fn suspend_merchant(&self, suspended: bool) -> Verdict {
        let answer = self.answer(Code::Applied);
        if (self.merchant.suspended_at_ms > 0) == suspended {
            return Verdict { merchant: Some(self.merchant), ..answer.replayed().unjournaled() };
        }
        let suspended_at_ms = if suspended { self.now_ms.max(1) } else { 0 };
        Verdict { merchant: Some(Merchant { suspended_at_ms, version: self.merchant.version + 1 }), ..answer }
    }

    /// The outcome of a command about the merchant: its record has no account and no order.
    pub(super) fn merchant_outcome(&self, code: Code, replay: bool, journal: bool, after: Merchant) -> Outcome {
        let takes_effect = self.command.effect == Effect::Commit;
        let version = if takes_effect { after.version } else { self.merchant.version };
        let record = Record {
            replay,
            suspended_at_ms: after.suspended_at_ms,
            merchant_suspended: after.suspended_at_ms > 0,
            version,
            ..Record::bare(code)
        };
        Outcome {
            record,
            decision_id: self.command.decision_id,
            account: None,
            order: None,
            right: None,
            merchant: Some(after).filter(|after| takes_effect && *after != self.merchant),
            closed: Vec::new(),
            closed_cycle: None,
            crossing: None,
            counted_in: None,
            journal: takes_effect && journal,
        }
    }
}
