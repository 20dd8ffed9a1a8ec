//! Payments that are admitted from rights, and the answers to requests for rights.

use std::rc::Rc;
use std::sync::Arc;

use quota::{Code, Mode, Share};
use sluice_rules::{Rule, RuleTrust};

use super::{Effect, Event, GatewayAnswer, Phase, Step, Stream, answer, ending};
use crate::follow_up::{Asks, FollowUp, Kind};
use crate::stats::Stat;
use crate::trust::{Taken, Unreported};
use crate::wire::{self, Attempt};

impl Stream {
    /// What the rights of this proxy have for a payment. On shadow routes the server decides each of them.
    pub(super) fn taken(&self, rule: &Rule, attempt: &Attempt) -> Taken {
        match &self.plugin.holder {
            Some(holder) if rule.trust.is_some() && self.mode == Mode::Enforce => {
                holder.take(&self.plugin.cluster, &attempt.request, &attempt.id, || wire::release_right(attempt))
            }
            Some(_) | None => Taken::default(),
        }
    }

    /// Forwards a payment, and reports it to the server.
    pub(super) fn admit_from(
        &mut self,
        step: &mut Step<'_>,
        rule: &Arc<Rule>,
        attempt: Rc<Attempt>,
        right: Arc<Unreported>,
        trust: RuleTrust,
        wanted: Option<Share>,
    ) {
        self.record.code = Some(Code::Admitted);
        self.record.right_id = Some(Arc::clone(right.right_id()));
        answer::set_code_header(step, Code::Admitted);
        let message = wire::report(&attempt, right.right_id(), wanted);
        step.push(Effect::FollowUp(FollowUp {
            linger_ms: trust.report_ms,
            asks: wanted.map(|_| {
                let without = wire::report(&attempt, right.right_id(), None);
                Box::new(Asks { id: attempt.id.as_str().into(), without })
            }),
            unreported: Some(right),
            ..FollowUp::new(Kind::Report, Arc::clone(&self.plugin.cluster), message, ending::label(&attempt))
        }));
        self.pass(step);
        self.phase =
            Phase::Forwarded { rule: Arc::clone(rule), attempt, changed: true, answer: GatewayAnswer::default() };
        step.push(Effect::Count(Stat::Trusted));
    }

    /// The check has its answer, or gets none any more: with it the right that it asked for.
    pub(super) fn right_answered(&mut self, event: &Event<'_>) {
        if !self.asks {
            return;
        }
        let (is_sent, answer) = match event {
            Event::Reply { grpc_status, message, .. } => (true, wire::reply(*grpc_status, *message).right()),
            Event::NotSent(_) => (false, None),
            // What the stream does not wait for any more is returned later.
            Event::Log(_)
            | Event::HostFailed
            | Event::TrailersFailed
            | Event::RequestHeaders { .. }
            | Event::RequestBody { .. }
            | Event::RequestTrailers { .. }
            | Event::DelayOver
            | Event::NotDelayed
            | Event::ResponseHeaders { .. } => return,
        };
        self.asks = false;
        if let (Some(holder), Some(attempt)) = (&self.plugin.holder, &self.record.attempt) {
            if is_sent {
                holder.answered(&attempt.id, answer);
            } else {
                holder.not_asked(&attempt.id);
            }
        }
    }
}
