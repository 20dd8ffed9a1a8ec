//! One stream: its events, and the filter's reactions. Pure: an [`Event`] goes in, a [`Step`] comes out.
//!
//! The most important promise is kept here: in `enforce`, a request is forwarded only after an answer that admits it, or if the
//! rule's `on_error` allows it. `Stream::no_answer` is the one place that applies `on_error`.

mod answer;
mod drive;
mod ending;
mod events;
mod right;
#[cfg(test)]
pub(crate) mod tests;

pub use drive::{Failed, drive};
pub use events::{
    Action, AnswerHeaders, BodyReader, Effect, Event, HeaderValues, Headers, MetadataReader, ModeWord, NotSentReason,
    RequestHead, Step,
};
use events::{VisitedHead, own_names};

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use proto::{PROBLEM_CONTENT_TYPE, Problem, header};
use quota::{AmountMinor, Code, Mode};
use sluice_rules::{Draft, Found, Refusal, Rule, Unmatched, Unreadable};

use crate::config::Plugin;
use crate::outcome::GatewayOutcome;
use crate::record::{Outcome, Record};
use crate::stats::Stat;
use crate::trust::Taken;
use crate::wire::{self, Attempt, Pair};

/// A request, from its headers to the log.
#[derive(Debug)]
pub struct Stream {
    plugin: Arc<Plugin>,
    attempt_id: u128,
    phase: Phase,
    mode: Mode,
    traceparent: Option<String>,
    /// Its check asks for a right.
    asks: bool,
    record: Record,
}

#[derive(Debug)]
enum Phase {
    /// Before the headers.
    New,
    /// Not a payment, or switched off, or forwarded without a charge: nothing more to do.
    Passing,
    /// The body is being collected.
    Collecting { rule: Arc<Rule>, draft: Draft },
    /// The check is pending; `sent`: it was sent, and no longer waits in the queue.
    Pending { rule: Arc<Rule>, attempt: Rc<Attempt>, sent: bool },
    /// Admitted, and delayed.
    Delayed { rule: Arc<Rule>, attempt: Rc<Attempt> },
    /// The request went to the gateway, whose answer decides what is reported to the server. `changed`: the check has, or may
    /// have, changed something.
    Forwarded { rule: Arc<Rule>, attempt: Rc<Attempt>, changed: bool, answer: GatewayAnswer },
    /// The proxy answered; nothing may go to the gateway any more.
    Refused,
    /// The stream has ended, or its charge is settled.
    Done,
}

/// What was read of the headers of the gateway's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GatewayAnswer {
    /// They were a success.
    began_well: bool,
    captured: Captured,
    outcome: GatewayOutcome,
}

/// The captured amount in the gateway's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Captured {
    /// None, or not read.
    #[default]
    Absent,
    Amount(AmountMinor),
    Unreadable,
}

impl Stream {
    /// A stream that has not begun. `attempt_id` is globally unique.
    #[must_use]
    pub fn new(plugin: Arc<Plugin>, attempt_id: u128) -> Self {
        Self {
            plugin,
            attempt_id,
            phase: Phase::New,
            mode: Mode::default(),
            traceparent: None,
            asks: false,
            record: Record::default(),
        }
    }

    /// Processes one event. Whatever the order of events, nothing goes to the gateway from `Refused`.
    pub fn step<'a>(&mut self, event: Event<'a>) -> Step<'a> {
        let mut step = Step::default();
        self.right_answered(&event);
        match event {
            Event::RequestHeaders { head, end } => self.request_headers(&mut step, &head, end),
            Event::RequestBody { size, end, read } => self.request_body(&mut step, size, end, read),
            Event::RequestTrailers { trailers, read } => self.request_trailers(&mut step, trailers, read),
            Event::Reply { grpc_status, message, check_ms } => {
                self.record.check_ms = Some(check_ms);
                self.reply(&mut step, wire::reply(grpc_status, message));
            }
            Event::NotSent(why) => self.not_sent(&mut step, why),
            Event::DelayOver => self.delay_over(&mut step),
            Event::NotDelayed => self.not_delayed(&mut step),
            Event::ResponseHeaders { ending, headers } => self.response_headers(&mut step, ending, headers),
            Event::Log(ending) => {
                self.log(&mut step, ending);
                self.show(&mut step);
            }
            Event::HostFailed => self.host_failed(&mut step),
            Event::TrailersFailed => self.trailers_failed(&mut step),
        }
        step
    }

    /// Whether the gateway's answer decides about something.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        matches!(self.phase, Phase::Forwarded { .. })
    }

    /// The rule whose gateway's answer decides about something.
    fn forwarded_rule(&self) -> Option<&Rule> {
        match &self.phase {
            Phase::Forwarded { rule, .. } => Some(rule),
            Phase::New
            | Phase::Passing
            | Phase::Collecting { .. }
            | Phase::Pending { .. }
            | Phase::Delayed { .. }
            | Phase::Refused
            | Phase::Done => None,
        }
    }

    /// Whether [`Event::ResponseHeaders`] is needed for a success as well: a capture stays one whatever the client does during the
    /// answer, and if the gateway reports the outcome itself its status does not matter.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.forwarded_rule().is_some_and(|rule| ending::captures(rule) || rule.outcome_header.is_some())
    }

    /// The header of the gateway's answer with the captured amount, in lower case.
    #[must_use]
    pub fn amount_header(&self) -> Option<&str> {
        self.forwarded_rule().and_then(|rule| rule.settle_amount_header.as_deref())
    }

    /// The header of the gateway's answer with the outcome, in lower case.
    #[must_use]
    pub fn outcome_header(&self) -> Option<&str> {
        self.forwarded_rule().and_then(|rule| rule.outcome_header.as_deref())
    }

    /// Whether something is decided or shown at the end of the stream.
    #[must_use]
    pub fn awaits_log(&self) -> bool {
        match self.phase {
            Phase::Collecting { .. } | Phase::Pending { .. } | Phase::Delayed { .. } | Phase::Forwarded { .. } => true,
            Phase::New | Phase::Passing | Phase::Refused | Phase::Done => self.record.outcome.is_some(),
        }
    }

    /// The configuration that the stream began with.
    #[must_use]
    pub fn plugin(&self) -> Arc<Plugin> {
        Arc::clone(&self.plugin)
    }

    fn request_headers<'a>(&mut self, step: &mut Step<'a>, head: &RequestHead<'a>, end: bool) {
        let visited = VisitedHead::new(head);
        step.effects.extend(visited.own_names().into_iter().map(Effect::StripHeader));
        let plugin = Arc::clone(&self.plugin);
        let found = plugin.rules.find(&visited);
        let rule_mode = match &found {
            Found::Rule(rule, _) | Found::Ambiguous(rule, _) => rule.mode,
            Found::None => Mode::Enforce,
        };
        self.mode = head.mode.in_force(step, rule_mode);
        if !matches!(found, Found::None) {
            self.record.mode = Some(self.mode);
        }
        match found {
            Found::None => self.unmatched(step),
            Found::Rule(rule, _) | Found::Ambiguous(rule, _) if self.mode == Mode::Off => {
                self.record.rule = Some(Arc::clone(rule));
                step.push(Effect::Count(Stat::Off));
                self.pass(step);
            }
            Found::Ambiguous(rule, refusal) => {
                self.record.rule = Some(Arc::clone(rule));
                self.refuse(step, refusal);
            }
            Found::Rule(rule, captures) => {
                self.record.rule = Some(Arc::clone(rule));
                self.traceparent = visited.traceparent();
                match rule.read_head(&visited, &captures) {
                    Err(refusal) => {
                        self.record.salvaged = rule.salvage(&visited, &captures);
                        self.refuse(step, refusal);
                    }
                    Ok(draft) if end || !draft.needs_body() => self.check(step, rule, draft, &[]),
                    Ok(draft) => {
                        self.phase = Phase::Collecting { rule: Arc::clone(rule), draft };
                        step.action = Action::Pause;
                    }
                }
            }
        }
    }

    fn unmatched(&mut self, step: &mut Step<'_>) {
        step.push(Effect::Count(Stat::Unmatched));
        if self.plugin.unmatched == Unmatched::Refuse && self.mode != Mode::Off {
            let detail = "no rule covers this method and path".to_owned();
            self.refuse(step, Refusal { code: Code::BadRequest, detail });
        } else {
            self.phase = Phase::Passing;
        }
    }

    fn request_body(&mut self, step: &mut Step<'_>, size: usize, end: bool, read: BodyReader<'_>) {
        match &self.phase {
            Phase::Collecting { rule, draft } if size > rule.body_bytes_max => {
                let refusal = rule.too_large();
                self.record.salvaged = draft.salvage(rule, &read(rule.body_bytes_max).unwrap_or_default());
                self.refuse(step, refusal);
            }
            Phase::Collecting { .. } if end => self.request_end(step, read),
            _ => step.action = self.waiting(),
        }
    }

    fn request_trailers<'a>(
        &mut self,
        step: &mut Step<'a>,
        trailers: Result<Headers<'a>, Unreadable>,
        read: BodyReader<'_>,
    ) {
        match trailers {
            Ok(trailers) => {
                step.effects.extend(own_names(trailers).into_iter().map(Effect::StripTrailer));
                self.request_end(step, read);
            }
            Err(Unreadable) => self.trailers_failed(step),
        }
    }

    /// The body or the trailers ended the request.
    fn request_end(&mut self, step: &mut Step<'_>, read: BodyReader<'_>) {
        let (rule, draft) = match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Collecting { rule, draft } => (rule, draft),
            other => {
                self.phase = other;
                step.action = self.waiting();
                return;
            }
        };
        // One byte more than the rule reads, so that a body that is too large is noticed.
        match read(rule.body_bytes_max.saturating_add(1)) {
            Ok(body) => self.check(step, &rule, draft, &body),
            Err(_) => self.host_failed(step),
        }
    }

    /// What a request callback returns where nothing is left to decide.
    fn waiting(&self) -> Action {
        match self.phase {
            Phase::Passing | Phase::Forwarded { .. } | Phase::Done => Action::Continue,
            Phase::New | Phase::Collecting { .. } | Phase::Pending { .. } | Phase::Delayed { .. } | Phase::Refused => {
                Action::Pause
            }
        }
    }

    fn check(&mut self, step: &mut Step<'_>, rule: &Arc<Rule>, mut draft: Draft, body: &[u8]) {
        let request = match draft.finish(rule, body) {
            Ok(request) => request,
            Err(refusal) => {
                self.record.salvaged = draft.salvage(rule, body);
                return self.refuse(step, refusal);
            }
        };
        if cfg!(feature = "parse_only") {
            return self.pass(step);
        }
        let id = wire::attempt_id(self.attempt_id);
        let attempt = Rc::new(Attempt { id, request, mode: self.mode, traceparent: self.traceparent.take() });
        self.record.attempt = Some(Rc::clone(&attempt));
        let Taken { right, wanted } = self.taken(rule, &attempt);
        if let Some((right, trust)) = right.zip(rule.trust) {
            return self.admit_from(step, rule, attempt, right, trust, wanted);
        }
        self.asks = wanted.is_some();
        step.push(Effect::Check {
            message: wire::check(rule.action, rule.replays_max, &attempt, wanted),
            timeout_ms: rule.timeout_ms,
        });
        step.action = Action::Pause;
        self.phase = Phase::Pending { rule: Arc::clone(rule), attempt, sent: false };
    }

    /// The filter's own refusal. On shadow routes the request is forwarded with the code.
    fn refuse(&mut self, step: &mut Step<'_>, refusal: Refusal) {
        step.push(Effect::Count(Stat::BadRequest));
        self.record.code = Some(refusal.code);
        self.record.detail = Some(refusal.detail.clone());
        if self.mode == Mode::Shadow {
            self.forward_uncharged(step, Some(refusal.code));
        } else {
            self.respond_problem(step, refusal.code, Some(refusal.detail));
        }
    }

    fn respond_problem(&mut self, step: &mut Step<'_>, code: Code, detail: Option<String>) {
        let problem = Problem::new(code, detail);
        let mut headers =
            vec![(Cow::Borrowed("content-type"), PROBLEM_CONTENT_TYPE), (Cow::Borrowed(header::CODE), code.as_str())];
        if matches!(problem.status, 429 | 503) {
            headers.push((Cow::Borrowed(header::RETRY_AFTER), "1"));
        }
        self.respond(step, u32::from(problem.status), headers, problem.to_json().into_bytes().into());
    }

    fn respond<'a>(&mut self, step: &mut Step<'a>, status: u32, headers: Vec<Pair<'a>>, body: Cow<'a, [u8]>) {
        self.record.outcome = Some(Outcome::Refused);
        self.phase = Phase::Refused;
        step.action = Action::Pause;
        step.push(Effect::Respond { status, headers, body });
    }

    /// Writes the record into the stream's filter state, once: the proxy's access log is written after the stream's end.
    fn show(&mut self, step: &mut Step<'_>) {
        let record = std::mem::take(&mut self.record);
        if record.outcome.is_some() {
            step.push(Effect::Show(record.encode()));
        }
    }
}
