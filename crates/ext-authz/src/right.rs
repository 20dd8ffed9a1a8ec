//! Rights that the proxy filter asks for with a check: granted in the same call of the store, after it.

use proto::right::{Answer, Grant};
use quota::{Code, Effect, RightId, Share};

use super::Checks;
use super::parse::ParsedCheck;
use sluice_decision::decider::{Decision, InForce, Prepared};
use sluice_decision::request::{Operation, Request};
use sluice_store::{Store, StoreError};

/// What becomes of the request for a right.
pub(super) enum Asked {
    /// The check asks for none.
    No,
    /// The policy grants none.
    Refused,
    /// It is decided after its check.
    Undecided(Box<Prepared>),
}

impl<S: Store> Checks<S> {
    /// The right that a check asks for. Its id is that of the attempt.
    pub(super) fn asked(&self, check: &ParsedCheck, in_force: &InForce, now_ms: i64) -> Asked {
        let Some(wanted) = check.wanted.filter(|_| check.request.effect == Effect::Commit) else { return Asked::No };
        if in_force.policy.as_ref().is_none_or(|policy| policy.trust.is_none()) {
            return Asked::Refused;
        }
        Asked::Undecided(Box::new(self.prepare(grant(check, wanted), in_force.clone(), now_ms)))
    }
}

fn grant(check: &ParsedCheck, wanted: Share) -> ParsedCheck {
    let Request { merchant, currency, channel, attempt, .. } = &check.request;
    let operation = Operation::GrantRight { right: RightId(attempt.0), wanted };
    let request =
        Request { channel: channel.clone(), ..Request::new(merchant.clone(), *currency, *attempt, operation) };
    ParsedCheck { request, mode: check.mode, trace: check.trace, wanted: None, rule: None }
}

/// What the holder is answered; `None` where it is not known whether it has a right.
pub(super) fn answer(result: Result<Decision, StoreError>) -> Option<Answer> {
    let decision = result.ok()?;
    let (command, record) = (decision.command(), &decision.reply.record);
    match record.code {
        Code::Applied if !record.replay => {
            let policy = decision.in_force().policy.as_ref()?;
            let trust = policy.trust?;
            let day = record.windows.day;
            let left_ms = command.windows.until_ms.saturating_sub(command.now_ms);
            Some(Answer::Granted(Grant {
                granted: Share { amount: record.amount, count: day.count_after.checked_sub(day.count_before)? },
                ttl_ms: trust.ttl_ms.min(u32::try_from(left_ms.max(0)).unwrap_or(u32::MAX)),
                single_min: policy.single_min,
                single_max: policy.single_max,
                weight: policy.weight,
            }))
        }
        Code::RightRefused | Code::BacklogFull => Some(Answer::Refused),
        _ => None,
    }
}
