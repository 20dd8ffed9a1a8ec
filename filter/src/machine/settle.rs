//! The end of a stream: what was charged is kept, returned or marked unknown, also where the proxy itself fails.

use quota::Code;

use super::{Action, Effect, Phase, Step, Stream};
use crate::config::Plugin;
use crate::outcome::{Ending, Fate, Reason, judge};
use crate::record::Outcome;
use crate::stats::Stat;
use crate::voids::Void;
use crate::wire::{self, Attempt};

impl Stream {
    /// A call into the proxy failed that must not. Before the gateway has the request, it is answered 503 on every kind of
    /// route, since the request cannot be trusted to be what was read; where even that fails, the stream is reset.
    pub(super) fn host_failed(&mut self, step: &mut Step) {
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
            Phase::Forwarded { attempt, .. } => {
                step.push(void(&self.plugin, &attempt, Reason::UpstreamUnreached));
            }
            Phase::Pending { attempt, asked: true, .. } => {
                step.push(void(&self.plugin, &attempt, Reason::CheckTimeout));
            }
            Phase::New
            | Phase::Passing
            | Phase::Collecting { .. }
            | Phase::Pending { .. }
            | Phase::Refused
            | Phase::Done => {}
        }
    }

    /// Trailers could not be read or cleaned. A request that is held is answered 503; of one that is on its way the rest never
    /// arrives, and what became of its payment is judged in the log.
    pub(super) fn trailers_failed(&mut self, step: &mut Step) {
        match self.phase {
            Phase::Passing | Phase::Forwarded { .. } | Phase::Done => {
                step.push(Effect::Count(Stat::HostFailed));
                step.push(Effect::Reset);
                step.action = Action::Pause;
            }
            Phase::New | Phase::Collecting { .. } | Phase::Pending { .. } | Phase::Refused => self.host_failed(step),
        }
    }

    /// Statuses that void are acted on here: what happens while the answer is delivered does not change them.
    pub(super) fn response_headers(&mut self, step: &mut Step, ending: Ending) {
        let Phase::Forwarded { rule, attempt } = &self.phase else { return };
        let is_final = ending.status.is_some_and(|status| status >= 200);
        if let (true, Fate::Void(reason)) = (is_final, judge(&rule.void_on, ending)) {
            step.push(void(&self.plugin, attempt, reason));
            self.finish(Outcome::Voided);
        }
    }

    /// The stream is over: settles what is still open.
    pub(super) fn log(&mut self, step: &mut Step, ending: Ending) {
        match &self.phase {
            Phase::Collecting { .. } => {
                step.push(Effect::Count(Stat::ClientGone));
                self.finish(Outcome::ClientGone);
            }
            Phase::Pending { attempt, .. } => {
                step.push(Effect::Count(Stat::ClientGone));
                step.push(void(&self.plugin, attempt, Reason::ClientGone));
                self.finish(Outcome::ClientGone);
            }
            Phase::Forwarded { rule, attempt } => match judge(&rule.void_on, ending) {
                Fate::Keep => self.finish(Outcome::Kept),
                Fate::Unknown => {
                    step.push(Effect::Count(Stat::Unknown));
                    self.finish(Outcome::Unknown);
                }
                Fate::Void(reason) => {
                    step.push(void(&self.plugin, attempt, reason));
                    self.finish(Outcome::Voided);
                }
            },
            Phase::New | Phase::Passing | Phase::Refused | Phase::Done => {}
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.record.outcome = Some(outcome);
        self.phase = Phase::Done;
    }
}

/// Takes an attempt back.
pub(super) fn void(plugin: &Plugin, attempt: &Attempt, reason: Reason) -> Effect {
    Effect::Void(Void {
        cluster: plugin.cluster.clone(),
        message: wire::void(attempt, reason),
        label: format!("attempt={} merchant={} order={}", attempt.id, attempt.merchant, attempt.order_no),
        tries: 0,
    })
}
