//! Envoy's external authorization: the service that the proxy filter and Envoy's native filter call.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answer;
mod ask;
mod batch;
mod command;
mod native;
mod undo;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use proto::batch::batch_authorization_server::BatchAuthorizationServer;
use quota::{Code, Command, Dry, LimitName, Mode, OperationNo, OrderNo, Policy, Reply};
use sluice_rules::{Document, Refusal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use uuid::Uuid;

use answer::{Answer, Binding, Subject};
use ask::{Ask, Asked, Refused};
use sluice_decision::operations::warn_of_over_capture;
use sluice_decision::spans;
use sluice_journal::outcomes;
use sluice_kit::health::warn_unless_away;
use sluice_kit::metrics::{Failure, Metrics};
use sluice_kit::telemetry::{DECISION, Trace, trace_id};
use sluice_policy_source::Policies;
use sluice_settings::Live;
use sluice_store::refusal;
use sluice_store::{Notes, Store, StoreError};
use undo::Undo;

/// Who asks for what comes through a proxy.
const ACTOR: &str = "proxy";

/// Decides what Envoy asks, one check or several in a call. Clones are one service.
#[derive(Debug)]
pub struct CheckService<S> {
    decider: Arc<Decider<S>>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Decider<S> {
    store: Arc<S>,
    policies: Arc<Policies>,
    rules: Option<Document>,
    metrics: Arc<Metrics>,
    outcomes: Arc<outcomes::Figures>,
    live: Live,
    undo: Undo,
}

impl<S: Store> CheckService<S> {
    /// Puts the service together. `rules` serve Envoy's native filter; the proxy filter brings its own.
    #[must_use]
    pub fn new(
        store: Arc<S>,
        policies: Arc<Policies>,
        rules: Option<Document>,
        metrics: Arc<Metrics>,
        live: Live,
    ) -> Self {
        let tasks = TaskTracker::new();
        let undo = Undo::new(tasks.clone());
        let outcomes = metrics.part();
        Self { decider: Arc::new(Decider { store, policies, rules, metrics, outcomes, live, undo }), tasks }
    }

    /// Decisions and voids under way, so that a stop can wait for them.
    #[must_use]
    pub fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// The service as tonic serves it: for single checks, and for several.
    #[must_use]
    pub fn into_servers(self) -> (AuthorizationServer<Self>, BatchAuthorizationServer<Self>) {
        (AuthorizationServer::new(self.clone()), BatchAuthorizationServer::new(self))
    }
}

impl<S> Clone for CheckService<S> {
    fn clone(&self) -> Self {
        Self { decider: Arc::clone(&self.decider), tasks: self.tasks.clone() }
    }
}

#[tonic::async_trait]
impl<S: Store> Authorization for CheckService<S> {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let decider = Arc::clone(&self.decider);
        let limit = decider.live.current().check_timeout();
        let request = request.into_inner();
        let native = is_native(request.attributes.as_ref());
        let (tell, told) = oneshot::channel();
        // A decision runs to its end although the caller may go: tonic drops this future when the stream is reset.
        self.tasks.spawn(async move {
            let Outcome { answer, undo } = decider.answer(request, native).await;
            let unanswered = answer.is_err();
            let unheard = tell.send(answer).is_err();
            if let Some((command, notes)) = undo.filter(|_| unanswered || unheard) {
                decider.undo.start(Arc::clone(&decider.store), Arc::clone(&decider.metrics), command, notes);
            }
        });
        match timeout(limit, told).await {
            Ok(Ok(answer)) => answer.map(Response::new),
            Ok(Err(_)) => Err(Status::internal("the decision broke off")),
            Err(_) => no_decision(native, Mode::Enforce, &format!("no decision within {} ms", limit.as_millis()))
                .map(Response::new),
        }
    }
}

/// An answer, and the charge that must be taken back where nobody hears it.
struct Outcome {
    answer: Result<CheckResponse, Status>,
    undo: Option<(Command, Notes)>,
}

impl<S: Store> Decider<S> {
    async fn answer(&self, request: CheckRequest, native: bool) -> Outcome {
        let attributes = request.attributes.unwrap_or_default();
        match self.read(&attributes) {
            Asked::Pass => Outcome { answer: Ok(CheckResponse::default()), undo: None },
            Asked::Refuse(refused) => {
                let trace = ask::caller(&attributes);
                let answer = self.refuse(word(&attributes.context_extensions), *refused, trace);
                Outcome { answer: Ok(answer.to_check_response(native)), undo: None }
            }
            Asked::Decide(ask) => self.decide(*ask, native).await,
        }
    }

    fn read(&self, attributes: &AttributeContext) -> Asked {
        Asked::read(attributes, self.rules.as_ref())
    }

    fn refuse(&self, action: &'static str, refused: Refused, caller: Option<Trace>) -> Answer {
        let Refused { mode, refusal: Refusal { code, detail }, subject } = refused;
        self.metrics.decision(action, code, false);
        let trace_id = trace_id(caller);
        info!(
            action,
            code = code.as_str(),
            mode = mode.as_str(),
            detail,
            rule = subject.rule.as_deref(),
            merchant = subject.known.merchant.as_ref().map(quota::MerchantId::as_str),
            order_no = subject.known.order_no.as_ref().map(OrderNo::as_str),
            trace_id,
            "request refused unread"
        );
        Answer { detail: Some(detail), subject, ..Answer::bare(code, mode) }
    }

    async fn decide(&self, ask: Ask, native: bool) -> Outcome {
        let started = Instant::now();
        let mode = ask.mode;
        let now_ms = self.store.now_ms();
        let policy = self.policies.effective(&ask.merchant, ask.currency, ask.channel.as_ref(), now_ms).await;
        let policy = policy.as_deref();
        let subject = ask.subject();
        let (command, notes) = command::command(ask, policy, now_ms, &self.live.current());
        let result = self.store.apply(&command, &notes).await;
        let latency = started.elapsed();
        self.metrics.check_took(latency);
        let (answer, may_be_charged) = match result {
            Ok(reply) => {
                let answer = Answer { subject, ..self.decided(&command, &notes, policy, &reply, latency) };
                (Ok(answer.to_check_response(native)), answer.code == Code::Admitted)
            }
            Err(error) => {
                self.undecided(&command, &notes, &error, latency);
                // In shadow the payment goes on, so a charge that was made is right.
                (no_decision(native, mode, &error.to_string()), mode != Mode::Shadow && !error.is_undone())
            }
        };
        let undo = (native && may_be_charged && command.dry == Dry::No).then_some((command, notes));
        Outcome { answer, undo }
    }

    fn undecided(&self, command: &Command, notes: &Notes, error: &StoreError, latency: Duration) {
        self.metrics.store_error(failure(error));
        spans::check(command, notes, Err(error), latency);
        // Each is counted (`sluice_store_errors_total`); an outage is logged once for all of them.
        warn_unless_away!(
            error,
            decision_id = %Uuid::from_bytes(command.decision_id),
            merchant = %command.merchant,
            action = command.action.as_str(),
            order_no = command.order_no.as_ref().map(OrderNo::as_str),
            code = Code::StoreUnavailable.as_str(),
            latency_us = micros(latency),
            trace_id = trace_id(notes.trace),
            "no decision"
        );
    }

    fn decided(
        &self,
        command: &Command,
        notes: &Notes,
        policy: Option<&Policy>,
        reply: &Reply,
        latency: Duration,
    ) -> Answer {
        let record = &reply.record;
        self.metrics.decision(command::label(command), record.code, record.replay);
        spans::check(command, notes, Ok(reply), latency);
        warn_of_over_capture(&self.metrics, command, notes, reply);
        outcomes::report(&self.outcomes, command, notes, reply);
        let decision_id = Uuid::from_bytes(reply.decision_id);
        let refusal = refusal::details(record, &refusal::Asked::of(command, notes));
        info!(
            target: DECISION,
            %decision_id,
            // Another one than the decision's where an earlier answer is repeated; the journal's row has it.
            event_id = %Uuid::from_bytes(reply.event_id),
            action = command.action.as_str(),
            dry = command.dry != Dry::No,
            merchant = %command.merchant,
            order_no = command.order_no.as_ref().map(OrderNo::as_str),
            operation_no = command.operation_no.as_ref().map(OperationNo::as_str),
            attempt = %command.attempt,
            amount_minor = record.amount,
            currency = %command.currency,
            code = record.code.as_str(),
            replay = record.replay,
            wait_ms = record.wait_ms,
            binding = LimitName::of_code(record.code).map(LimitName::as_str),
            refusal = refusal.as_ref().map(refusal::text),
            policy_version = notes.policy_version,
            mode = notes.mode,
            latency_us = micros(latency),
            trace_id = trace_id(notes.trace),
            "decision"
        );
        Answer {
            code: record.code,
            mode: Mode::parse(notes.mode).unwrap_or_default(),
            replay: record.replay,
            decision_id: Some(decision_id),
            detail: refusal.as_ref().and_then(|details| refusal::sentence(details, command.currency.code())),
            refusal,
            wait_ms: record.wait_ms,
            binding: policy.and_then(|policy| Binding::of(record, &policy.limits, &policy.calendar, command.now_ms)),
            policy_version: notes.policy_version.clone(),
            subject: Subject::default(),
        }
    }
}

/// Whether Envoy's native filter asks: the proxy filter names what it asks for.
fn is_native(attributes: Option<&AttributeContext>) -> bool {
    !attributes.is_some_and(|attributes| attributes.context_extensions.contains_key(proto::extension::ACTION))
}

/// What a request that could not be read asked for, as far as that can be told: one of our own words.
fn word(extensions: &HashMap<String, String>) -> &'static str {
    use proto::extension;
    let words = [
        (extension::ACTION_HOLD, "hold"),
        (extension::ACTION_SETTLE, "settle"),
        (extension::ACTION_REFUND, "refund"),
        (extension::ACTION_VOID, "void"),
        (extension::ACTION_VOID_ORDER, "void"),
        (extension::ACTION_UNKNOWN, "unknown"),
        (extension::ACTION_MADE, "resolve"),
    ];
    let asked = extensions.get(extension::ACTION);
    words.into_iter().find(|(own, _)| asked.is_some_and(|asked| asked == own)).map_or("consume", |(_, word)| word)
}

/// The proxy filter may read the same document, so an action that Envoy's own filter cannot carry out is no error here. A
/// request that asks for it through Envoy's own filter is refused.
pub fn warn_of_actions(rules: &Document) {
    for rule in rules.rules.rules().iter().filter(|rule| rule.needs_response()) {
        let (rule, action) = (&rule.name, rule.action.as_str());
        warn!(rule, action, "the rule needs the gateway's answer: it works through the proxy filter only");
    }
}

/// The answer where the store gave none, so that the caller's own rule for that takes its place. The proxy filter is told the
/// code and applies its `on_error`; Envoy's native filter knows a failed call only, and applies `failure_mode_allow`, which
/// must not stop a route that is in shadow.
fn no_decision(native: bool, mode: Mode, why: &str) -> Result<CheckResponse, Status> {
    if native && mode != Mode::Shadow {
        Err(Status::unavailable(format!("{}: {why}", Code::StoreUnavailable.as_str())))
    } else {
        let mode = if native { mode } else { Mode::Enforce };
        Ok(Answer::without_decision(mode).to_check_response(native))
    }
}

const fn failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Timeout { .. } => Failure::Timeout,
        StoreError::Unavailable(_) => Failure::Connection,
        StoreError::Clock(_) | StoreError::NotBegun => Failure::Clock,
        StoreError::Shards { .. } | StoreError::Corrupt(_) | StoreError::History(_) | StoreError::NeedsPast => {
            Failure::Reply
        }
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
