//! The end of a stream: a charge is kept, voided or marked unknown, and what the gateway has captured, refunded or voided is
//! reported to the server; also if the proxy itself fails.

use std::sync::Arc;

use quota::{AmountMinor, Code};
use sluice_rules::{Rule, SettleOn, Unreadable};

use super::{Action, AnswerHeaders, Captured, Effect, GatewayAnswer, Phase, Step, Stream};
use crate::config::Plugin;
use crate::follow_up::{FollowUp, Kind};
use crate::outcome::{Doubt, Ending, Fate, GatewayOutcome, Reason, judge};
use crate::record::Outcome;
use crate::stats::Stat;
use crate::wire::{self, Attempt};

impl Stream {
    /// A call into the proxy failed unexpectedly. Before the gateway has the request, it is answered 503 on every kind of route,
    /// since the request may differ from what was read; if even that fails, the stream is reset.
    pub(super) fn host_failed(&mut self, step: &mut Step<'_>) {
        step.push(Effect::Count(Stat::HostFailed));
        let before = std::mem::replace(&mut self.phase, Phase::Refused);
        if matches!(before, Phase::Refused) {
            step.push(Effect::Reset);
            step.action = Action::Pause;
            return;
        }
        self.record.code = Some(Code::AuthzUnavailable);
        self.record.detail = Some("the proxy failed a call of the filter".to_owned());
        self.respond_problem(step, Code::AuthzUnavailable, None);
        match before {
            Phase::Forwarded { attempt, changed: true, .. } => {
                step.push(void(&self.plugin, &attempt, Reason::UpstreamUnreached));
            }
            Phase::Delayed { rule, attempt } if rule.action.changes() => {
                step.push(void(&self.plugin, &attempt, Reason::UpstreamUnreached));
            }
            Phase::Pending { rule, attempt, sent: true } if rule.action.changes() => {
                step.push(void(&self.plugin, &attempt, Reason::CheckTimeout));
            }
            Phase::New
            | Phase::Passing
            | Phase::Collecting { .. }
            | Phase::Pending { .. }
            | Phase::Delayed { .. }
            | Phase::Forwarded { .. }
            | Phase::Refused
            | Phase::Done => {}
        }
    }

    /// Trailers could not be read or cleaned. A paused request is answered 503; the rest of a forwarded one never arrives, and the
    /// outcome of its payment is judged in the log.
    pub(super) fn trailers_failed(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Passing | Phase::Forwarded { .. } | Phase::Done => {
                step.push(Effect::Count(Stat::HostFailed));
                step.push(Effect::Reset);
                step.action = Action::Pause;
            }
            Phase::New | Phase::Collecting { .. } | Phase::Pending { .. } | Phase::Delayed { .. } | Phase::Refused => {
                self.host_failed(step)
            }
        }
    }

    /// An answer that voids takes effect here: what happens while the answer is delivered does not change it. A success takes
    /// effect when the answer has ended, but it is stored and its headers are read here.
    pub(super) fn response_headers(&mut self, step: &mut Step<'_>, ending: Ending, headers: AnswerHeaders) {
        let Phase::Forwarded { rule, attempt, answer, .. } = &mut self.phase else { return };
        if ending.status.is_none_or(|status| status < 200) {
            return;
        }
        answer.outcome = GatewayOutcome::read(&headers.outcomes);
        if answer.outcome == GatewayOutcome::Unreadable {
            step.push(Effect::Count(Stat::OutcomeUnreadable));
        }
        match judge(&rule.void_on, ending, answer.outcome) {
            Fate::Void(reason) => self.failed(step, reason),
            Fate::Keep => {
                answer.began_well = true;
                if rule.settle_amount_header.is_some() {
                    answer.captured = read_captured(rule, attempt, headers.amounts);
                }
            }
            Fate::Unknown(_) => {}
        }
    }

    /// The stream has ended: closes what is still open.
    pub(super) fn log(&mut self, step: &mut Step<'_>, ending: Ending) {
        match &self.phase {
            // A check that is not sent yet is never sent.
            Phase::Collecting { .. } | Phase::Pending { sent: false, .. } => {
                step.push(Effect::Count(Stat::ClientGone));
                self.finish(Outcome::ClientGone);
            }
            Phase::Pending { rule, attempt, sent: true } | Phase::Delayed { rule, attempt } => {
                step.push(Effect::Count(Stat::ClientGone));
                if rule.action.changes() {
                    step.push(void(&self.plugin, attempt, Reason::ClientGone));
                }
                self.finish(Outcome::ClientGone);
            }
            // The gateway has charged or captured. A client that leaves during the answer does not change that.
            Phase::Forwarded { rule, answer, .. }
                if takes(rule) && ending.is_sound_upstream() && answer.is_success(ending) =>
            {
                self.succeeded(step);
            }
            Phase::Forwarded { rule, answer, .. } => match judge(&rule.void_on, ending, answer.outcome) {
                Fate::Keep => self.succeeded(step),
                Fate::Unknown(doubt) => self.unknown(step, doubt),
                Fate::Void(reason) => self.failed(step, reason),
            },
            Phase::New | Phase::Passing | Phase::Refused | Phase::Done => {}
        }
    }

    /// The gateway did not do what was requested.
    fn failed(&mut self, step: &mut Step<'_>, reason: Reason) {
        let Phase::Forwarded { attempt, changed, .. } = &self.phase else { return };
        if *changed {
            step.push(void(&self.plugin, attempt, reason));
            self.finish(Outcome::Voided);
        } else {
            self.finish(Outcome::Unchanged);
        }
    }

    /// It is unknown whether the gateway did what was requested: the charge stays.
    fn unknown(&mut self, step: &mut Step<'_>, doubt: Doubt) {
        let Phase::Forwarded { rule, attempt, .. } = &self.phase else { return };
        step.push(Effect::Count(Stat::Unknown));
        let mut unknown = unknown(&self.plugin, rule.action, attempt, doubt);
        if let Effect::FollowUp(follow_up) = &mut unknown {
            follow_up.follows_report = self.record.right_id.is_some();
        }
        step.push(unknown);
        self.record.detail = Some(doubt.word().into_owned());
        self.finish(Outcome::Unknown);
    }

    /// The gateway did what was requested.
    fn succeeded(&mut self, step: &mut Step<'_>) {
        let Phase::Forwarded { rule, attempt, answer, .. } = &self.phase else { return };
        let outcome = match report(rule, attempt, answer.captured) {
            Report::Nothing => Outcome::Kept,
            // An earlier attempt at the order may still be open. This one's success settles it.
            Report::Made if self.record.replay => {
                step.push(follow_up(&self.plugin, Kind::Made, attempt, wire::made(attempt)));
                Outcome::Kept
            }
            Report::Made => Outcome::Kept,
            Report::Unreadable => {
                step.push(Effect::Count(Stat::AmountUnreadable));
                let label = label(attempt);
                step.push(Effect::Warn(format!("captured amount cannot be read, nothing is settled: {label}")));
                step.push(unknown(&self.plugin, sluice_rules::Action::Settle, attempt, Doubt::AmountUnreadable));
                Outcome::Unsettled
            }
            Report::Confirm(kind, amount, outcome) => {
                step.push(confirm(&self.plugin, kind, attempt, amount));
                outcome
            }
        };
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.record.outcome = Some(outcome);
        self.phase = Phase::Done;
    }
}

/// Whether a success of the gateway is a capture.
pub(super) fn captures(rule: &Rule) -> bool {
    match rule.action {
        sluice_rules::Action::Hold => rule.settle == SettleOn::Success,
        sluice_rules::Action::Settle => true,
        sluice_rules::Action::Consume
        | sluice_rules::Action::Refund
        | sluice_rules::Action::Void
        | sluice_rules::Action::Check => false,
    }
}

/// Whether a success of the gateway takes money: it counts from the answer's headers on. Refunds and voids, which return quota,
/// need the whole answer.
const fn takes(rule: &Rule) -> bool {
    match rule.action {
        sluice_rules::Action::Consume | sluice_rules::Action::Hold | sluice_rules::Action::Settle => true,
        sluice_rules::Action::Refund | sluice_rules::Action::Void | sluice_rules::Action::Check => false,
    }
}

impl GatewayAnswer {
    /// Whether the answer began as a success; without an outcome from the gateway the status decides.
    fn is_success(self, ending: Ending) -> bool {
        self.began_well || (self.outcome == GatewayOutcome::Absent && ending.is_success())
    }
}

/// What is reported to the server after a success.
enum Report {
    Nothing,
    /// The charge was made.
    Made,
    /// The gateway has captured, but the amount cannot be read.
    Unreadable,
    /// Without an amount: all that is left.
    Confirm(Kind, Option<AmountMinor>, Outcome),
}

fn report(rule: &Rule, attempt: &Attempt, captured: Captured) -> Report {
    let settled = |amount| Report::Confirm(Kind::Settle, amount, Outcome::Settled);
    match (rule.action, captured) {
        (sluice_rules::Action::Check, _) => Report::Nothing,
        (sluice_rules::Action::Consume, _) => Report::Made,
        (sluice_rules::Action::Hold, _) if rule.settle == SettleOn::Later => Report::Made,
        (sluice_rules::Action::Hold | sluice_rules::Action::Settle, Captured::Unreadable) => Report::Unreadable,
        // Nothing was captured: if that is final, the hold has ended without a capture.
        (sluice_rules::Action::Hold | sluice_rules::Action::Settle, Captured::Amount(AmountMinor::ZERO)) => {
            if attempt.request.is_final {
                Report::Confirm(Kind::VoidOrder, None, Outcome::OrderVoided)
            } else {
                Report::Nothing
            }
        }
        (sluice_rules::Action::Hold | sluice_rules::Action::Settle, Captured::Amount(amount)) => settled(Some(amount)),
        (sluice_rules::Action::Hold, Captured::Absent) => settled(None),
        (sluice_rules::Action::Settle, Captured::Absent) => settled(attempt.request.amount),
        (sluice_rules::Action::Refund, _) => Report::Confirm(Kind::Refund, attempt.request.amount, Outcome::Refunded),
        (sluice_rules::Action::Void, _) => Report::Confirm(Kind::VoidOrder, None, Outcome::OrderVoided),
    }
}

/// The one amount in the gateway's answer. Equal repetitions count as one.
fn read_captured(rule: &Rule, attempt: &Attempt, amounts: Result<Vec<Vec<u8>>, Unreadable>) -> Captured {
    let Ok(amounts) = amounts else { return Captured::Unreadable };
    let Some((first, rest)) = amounts.split_first() else { return Captured::Absent };
    match rule.captured(first, attempt.request.currency) {
        Ok(amount) if rest.iter().all(|other| other == first) => Captured::Amount(amount),
        Ok(_) | Err(_) => Captured::Unreadable,
    }
}

/// Reports that the outcome is unknown.
fn unknown(plugin: &Plugin, action: sluice_rules::Action, attempt: &Attempt, doubt: Doubt) -> Effect<'static> {
    follow_up(plugin, Kind::Unknown, attempt, wire::unknown(action, attempt, &doubt.word()))
}

/// Voids an attempt.
pub(super) fn void(plugin: &Plugin, attempt: &Attempt, reason: Reason) -> Effect<'static> {
    follow_up(plugin, Kind::Void, attempt, wire::void(attempt, reason))
}

/// Reports what the gateway has done.
fn confirm(plugin: &Plugin, kind: Kind, attempt: &Attempt, amount: Option<AmountMinor>) -> Effect<'static> {
    follow_up(plugin, kind, attempt, wire::confirm(kind, attempt, amount))
}

fn follow_up(plugin: &Plugin, kind: Kind, attempt: &Attempt, message: Vec<u8>) -> Effect<'static> {
    Effect::FollowUp(FollowUp::new(kind, Arc::clone(&plugin.cluster), message, label(attempt)))
}

pub(super) fn label(attempt: &Attempt) -> String {
    let order_no = attempt.request.order_no.as_ref().map_or("", quota::OrderNo::as_str);
    format!("attempt={} merchant={} order={order_no}", attempt.id, attempt.request.merchant)
}
