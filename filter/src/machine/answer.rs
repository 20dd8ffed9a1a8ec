//! The server's answer, and its effect on the request: it is forwarded, delayed or refused.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use proto::header;
use quota::{Code, Mode};
use sluice_rules::{OnError, Rule};

use super::{Action, Effect, GatewayAnswer, NotSentReason, Phase, Step, Stream, ending};
use crate::outcome::Reason;
use crate::record::Outcome;
use crate::stats::Stat;
use crate::wire::{self, Attempt, NoAnswer, Pair, Reply};

/// Room for the effects of most answers.
const EFFECTS_USUAL: usize = 8;

impl Stream {
    pub(super) fn reply<'a>(&mut self, step: &mut Step<'a>, reply: Reply<'a>) {
        let Some((rule, attempt)) = self.take_pending() else {
            return;
        };
        step.resumes = true;
        step.effects.reserve(EFFECTS_USUAL);
        step.push(Effect::ObserveCheck(self.record.check_ms.unwrap_or_default()));
        match reply {
            Reply::None(no_answer) => self.no_answer(step, rule, attempt, no_answer, true),
            Reply::Pass { code, headers, delay_ms, decided } if admits(rule.action, code) => {
                self.record.decided = decided.to_vec();
                self.admit(step, rule, attempt, code, headers, delay_ms);
            }
            Reply::Pass { code, headers, decided, .. } if self.mode == Mode::Shadow => {
                self.record.decided = decided.to_vec();
                self.shadow_refused(step, code, headers);
            }
            Reply::Pass { .. } => {
                let no_answer = NoAnswer::unavailable("the answer allows what its code refuses");
                self.no_answer(step, rule, attempt, no_answer, true);
            }
            Reply::Refuse { code, headers, decided, .. } if self.mode == Mode::Shadow => {
                self.record.decided = decided.to_vec();
                step.push(Effect::Count(Stat::ShadowRefused));
                self.note(code, &headers);
                self.forward_uncharged(step, code);
            }
            Reply::Refuse { code, status, headers, body, decided } => {
                self.record.decided = decided.to_vec();
                self.note(code, &headers);
                step.push(Effect::Count(Stat::Refused));
                let shown = headers.into_iter().filter(|(name, _)| name != header::RIGHT);
                self.respond(step, status, shown.collect(), Cow::Borrowed(body));
            }
        }
    }

    fn take_pending(&mut self) -> Option<(Arc<Rule>, Rc<Attempt>)> {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Pending { rule, attempt, .. } => Some((rule, attempt)),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// The check of [`Effect::Check`] was sent: from here on the server may change something.
    pub fn check_sent(&mut self) {
        if let Phase::Pending { sent, .. } = &mut self.phase {
            *sent = true;
        }
    }

    pub(super) fn not_sent(&mut self, step: &mut Step<'_>, why: NotSentReason) {
        if let Some((rule, attempt)) = self.take_pending() {
            step.resumes = match why {
                NotSentReason::AtOnce => false,
                NotSentReason::NotAccepted | NotSentReason::Late => true,
            };
            let no_answer = NoAnswer::unavailable(why.why());
            self.no_answer(step, rule, attempt, no_answer, false);
        }
    }

    fn admit<'a>(
        &mut self,
        step: &mut Step<'a>,
        rule: Arc<Rule>,
        attempt: Rc<Attempt>,
        code: Code,
        headers: Vec<Pair<'a>>,
        delay_ms: u32,
    ) {
        self.note(Some(code), &headers);
        set_gateway_headers(step, headers);
        let admitted = Effect::Count(if self.record.replay { Stat::Replayed } else { Stat::Admitted });
        // On shadow routes no request waits for a decision that is not enforced.
        if delay_ms == 0 || self.mode == Mode::Shadow {
            self.forward(step, rule, attempt, true);
            step.push(admitted);
            return;
        }
        step.push(admitted);
        self.record.delay_ms = Some(delay_ms);
        step.push(Effect::Delay { delay_ms });
        step.action = Action::Pause;
        self.phase = Phase::Delayed { rule, attempt };
    }

    fn shadow_refused<'a>(&mut self, step: &mut Step<'a>, code: Code, headers: Vec<Pair<'a>>) {
        self.note(Some(code), &headers);
        set_gateway_headers(step, headers);
        step.push(Effect::Count(Stat::ShadowRefused));
        self.pass(step);
    }

    /// The delay of a payment is over.
    pub(super) fn delay_over(&mut self, step: &mut Step<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Delayed { rule, attempt } => {
                step.resumes = true;
                self.forward(step, rule, attempt, true);
            }
            other => self.phase = other,
        }
    }

    /// Too many are delayed already: the payment is refused like one whose delay would be too long.
    pub(super) fn not_delayed(&mut self, step: &mut Step<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Delayed { rule, attempt } => {
                step.push(Effect::Count(Stat::NotDelayed));
                self.record.code = Some(Code::Throttled);
                self.record.delay_ms = None;
                self.respond_problem(step, Code::Throttled, Some("too many payments are delayed".to_owned()));
                if rule.action.changes() {
                    step.push(ending::void(&self.plugin, &attempt, Reason::NotDelayed));
                }
            }
            other => self.phase = other,
        }
    }

    /// Forwards the request, and waits for its answer if that decides something. `sent`: the server may have acted on the check.
    fn forward(&mut self, step: &mut Step<'_>, rule: Arc<Rule>, attempt: Rc<Attempt>, sent: bool) {
        self.pass(step);
        let changed = rule.action.changes() && sent;
        let follows = match rule.action {
            // Without a charge there is nothing to void or to capture.
            sluice_rules::Action::Consume | sluice_rules::Action::Hold => changed,
            sluice_rules::Action::Settle | sluice_rules::Action::Refund | sluice_rules::Action::Void => true,
            sluice_rules::Action::Check => false,
        };
        if follows {
            self.phase = Phase::Forwarded { rule, attempt, changed, answer: GatewayAnswer::default() };
        }
    }

    fn note(&mut self, code: Option<Code>, headers: &[Pair<'_>]) {
        self.record.code = code;
        self.record.decision_id = wire::value(headers, header::DECISION_ID).map(str::to_owned);
        self.record.replay = wire::value(headers, header::REPLAY) == Some("true");
    }

    /// No usable answer: the one place where `on_error` is applied. `sent`: the server may have acted.
    ///
    /// If the payment is refused, what the server may have consumed is voided. If it is forwarded, a charge that may exist is a
    /// charge for a payment that is made, so it is voided only if the gateway fails the payment; what the gateway captures, refunds
    /// or voids is reported to the server when it is back.
    fn no_answer(
        &mut self,
        step: &mut Step<'_>,
        rule: Arc<Rule>,
        attempt: Rc<Attempt>,
        no_answer: NoAnswer,
        sent: bool,
    ) {
        let NoAnswer { code, why } = no_answer;
        self.record.code = Some(code);
        self.record.detail = Some(why.to_owned());
        let goes_on = self.mode == Mode::Shadow || rule.on_error == OnError::Allow;
        if goes_on {
            step.push(Effect::Count(Stat::NoAnswerAllowed));
            set_code_header(step, code);
            self.forward(step, rule, attempt, sent);
        } else {
            step.push(Effect::Count(Stat::NoAnswerDenied));
            self.respond_problem(step, code, None);
            if sent && rule.action.changes() {
                step.push(ending::void(&self.plugin, &attempt, Reason::CheckTimeout));
            }
        }
    }

    pub(super) fn forward_uncharged(&mut self, step: &mut Step<'_>, code: Option<Code>) {
        if let Some(code) = code {
            set_code_header(step, code);
        }
        self.pass(step);
    }

    pub(super) fn pass(&mut self, step: &mut Step<'_>) {
        self.record.outcome = Some(Outcome::Forwarded);
        self.phase = Phase::Passing;
        step.go_on();
    }
}

/// Whether a code admits a request of this kind.
const fn admits(action: sluice_rules::Action, code: Code) -> bool {
    match action {
        sluice_rules::Action::Consume | sluice_rules::Action::Hold | sluice_rules::Action::Check => {
            matches!(code, Code::Admitted)
        }
        sluice_rules::Action::Settle | sluice_rules::Action::Refund => matches!(code, Code::Applied),
        sluice_rules::Action::Void => matches!(code, Code::Applied | Code::Voided),
    }
}

fn set_gateway_headers<'a>(step: &mut Step<'a>, headers: Vec<Pair<'a>>) {
    let forwarded = headers.into_iter().filter(|(name, _)| name != header::RIGHT);
    step.effects.extend(forwarded.map(|(name, value)| Effect::SetHeader { name, value }));
}

pub(super) fn set_code_header(step: &mut Step<'_>, code: Code) {
    step.push(Effect::SetHeader { name: Cow::Borrowed(header::CODE), value: code.as_str() });
}
