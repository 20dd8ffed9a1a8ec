//! Envoy's external authorization: the service that the proxy filter and Envoy's native filter call.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answer;
mod batch;
mod native;
mod parse;
mod right;
mod void;

use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use proto::batch::batch_authorization_server::BatchAuthorizationServer;
use quota::{Code, Effect, Mode, OrderNo, Policy};
use sluice_rules::{Document, Refusal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use uuid::Uuid;

use answer::{Answer, Binding, Subject};
use parse::{Extensions, Parsed, ParsedCheck, Refused};
use right::Asked;
use sluice_decision::decider::{Decider, Decision, InForce, Prepared};
use sluice_decision::request::{Caller, Source};
use sluice_kit::telemetry::{Trace, trace_id};
use sluice_store::{Store, refusal};
use void::CompensatingVoids;

/// The most bytes of a call with many checks: some five times what 32 checks of the filter take at their longest.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// The actor of requests that come through a proxy.
const ACTOR: &str = "proxy";

/// Decides Envoy's checks, one or several in a call. Clones share one service.
#[derive(Debug)]
pub struct CheckService<S> {
    checks: Arc<Checks<S>>,
    tasks: TaskTracker,
}

/// From a check request to its response.
#[derive(Debug)]
struct Checks<S> {
    decider: Decider<S>,
    rules: Option<Document>,
    voids: CompensatingVoids,
}

impl<S: Store> CheckService<S> {
    /// Builds the service. `rules` serve Envoy's native filter; the proxy filter has its own.
    #[must_use]
    pub fn new(decider: Decider<S>, rules: Option<Document>) -> Self {
        let tasks = TaskTracker::new();
        let voids = CompensatingVoids::new(tasks.clone());
        Self { checks: Arc::new(Checks { decider, rules, voids }), tasks }
    }

    /// Decisions and voids in progress, so that a stop can wait for them.
    #[must_use]
    pub fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// The service as tonic serves it: for single checks, and for several.
    #[must_use]
    pub fn into_servers(self) -> (AuthorizationServer<Self>, BatchAuthorizationServer<Self>) {
        let batches = BatchAuthorizationServer::new(self.clone()).max_decoding_message_size(BATCH_BYTES_MAX);
        (AuthorizationServer::new(self), batches)
    }
}

impl<S> Clone for CheckService<S> {
    fn clone(&self) -> Self {
        Self { checks: Arc::clone(&self.checks), tasks: self.tasks.clone() }
    }
}

#[tonic::async_trait]
impl<S: Store> Authorization for CheckService<S> {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let checks = Arc::clone(&self.checks);
        let limit = checks.decider.live().current().check_timeout();
        let request = request.into_inner();
        let native = is_native(request.attributes.as_ref());
        let (sender, receiver) = oneshot::channel();
        // A decision runs to its end although the caller may leave: tonic drops this future when the stream is reset.
        self.tasks.spawn(async move {
            let Outcome { answer, charge } = checks.answer(request, native).await;
            let failed = answer.is_err();
            let undelivered = sender.send(answer).is_err();
            if let Some(charge) = charge.filter(|_| failed || undelivered) {
                checks.voids.start(checks.decider.clone(), charge);
            }
        });
        match timeout(limit, receiver).await {
            Ok(Ok(answer)) => answer.map(Response::new),
            Ok(Err(_)) => Err(Status::internal("the decision task failed")),
            Err(_) => no_decision(native, Mode::Enforce, &format!("no decision within {} ms", limit.as_millis()))
                .map(Response::new),
        }
    }
}

/// An answer, and the charge that must be voided if the answer is not delivered.
struct Outcome {
    answer: Result<CheckResponse, Status>,
    charge: Option<Prepared>,
}

impl<S: Store> Checks<S> {
    async fn answer(&self, request: CheckRequest, native: bool) -> Outcome {
        let attributes = request.attributes.unwrap_or_default();
        match Parsed::read(&attributes, self.rules.as_ref()) {
            Parsed::Decide(check) => self.decide(*check, native).await,
            Parsed::Pass => Outcome { answer: Ok(CheckResponse::default()), charge: None },
            Parsed::Refuse(refused) => {
                let trace = parse::caller(&attributes);
                let answer = self.refuse(word(&Extensions::Map(&attributes.context_extensions)), *refused, trace);
                Outcome { answer: Ok(answer.to_check_response(native)), charge: None }
            }
        }
    }

    fn refuse(&self, action: &'static str, refused: Refused, caller: Option<Trace>) -> Answer {
        let Refused { mode, refusal: Refusal { code, detail }, subject } = refused;
        self.decider.metrics().decision(action, code, false);
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
            "request refused: not readable"
        );
        Answer { detail: Some(detail), subject, ..Answer::bare(code, mode) }
    }

    async fn decide(&self, check: ParsedCheck, native: bool) -> Outcome {
        let started = Instant::now();
        let now_ms = self.decider.store().now_ms();
        let request = &check.request;
        let in_force =
            self.decider.in_force(&request.merchant, request.currency, request.channel.as_ref(), now_ms).await;
        let (mode, subject) = (check.mode, check.subject());
        let asked = self.asked(&check, &in_force, now_ms);
        let prepared = self.prepare(check, in_force, now_ms);
        if !matches!(asked, Asked::No) {
            return self.decide_with_right(prepared, asked, started).await;
        }
        let (answer, prepared, may_be_charged) = match self.decider.decide(prepared, started).await {
            Ok(decision) => {
                let answer = Answer { subject, ..answer(&decision) };
                let admitted = answer.code == Code::Admitted;
                (Ok(answer.to_check_response(native)), decision.into_prepared(), admitted)
            }
            Err(undecided) => {
                let answer = no_decision(native, mode, &undecided.error.to_string());
                // In shadow the payment is forwarded, so a charge that was made is right.
                (answer, undecided.prepared, mode != Mode::Shadow && !undecided.error.is_undone())
            }
        };
        let is_to_be_voided = native && may_be_charged && prepared.command().effect == Effect::Commit;
        Outcome { answer, charge: is_to_be_voided.then_some(prepared) }
    }

    /// For the proxy filter, which voids what it got no answer for itself.
    async fn decide_with_right(&self, prepared: Prepared, asked: Asked, started: Instant) -> Outcome {
        let mut batch = vec![prepared];
        let right = match asked {
            Asked::No => None,
            Asked::Refused => Some(proto::right::Answer::Refused),
            Asked::Undecided(grant) => {
                batch.push(*grant);
                None
            }
        };
        let mut results = self.decider.decide_each(batch, started).await.into_iter();
        let answer = match results.next() {
            Some(Ok(decision)) => {
                let right = right.or_else(|| results.next().and_then(right::answer));
                Ok(Answer { right, ..answer(&decision) }.to_check_response(false))
            }
            Some(Err(error)) => no_decision(false, Mode::Enforce, &error.to_string()),
            None => Err(Status::internal("the store gave no result")),
        };
        Outcome { answer, charge: None }
    }

    fn prepare(&self, check: ParsedCheck, in_force: InForce, now_ms: i64) -> Prepared {
        let ParsedCheck { request, mode, trace, .. } = check;
        let caller = Caller { source: Source::Proxy, actor: ACTOR.into(), operator_type: "", mode, trace };
        self.decider.prepare(request, caller, in_force, now_ms)
    }
}

/// The answer of a decision.
fn answer(decision: &Decision) -> Answer {
    let (command, audit, in_force) = (decision.command(), decision.audit(), decision.in_force());
    let Decision { reply, refusal, .. } = decision;
    let record = &reply.record;
    let binding = |policy: &Arc<Policy>| Binding::of(record, &policy.limits, &policy.calendar, command.now_ms);
    Answer {
        code: record.code,
        mode: Mode::parse(audit.mode).unwrap_or_default(),
        replay: record.replay,
        decision_id: Some(Uuid::from_bytes(reply.decision_id)),
        detail: refusal.as_ref().and_then(|details| refusal::sentence(details, command.currency.code())),
        refusal: refusal.clone(),
        wait_ms: record.wait_ms,
        binding: in_force.policy.as_ref().and_then(binding),
        policy_version: Arc::clone(&audit.policy_version),
        right: None,
        subject: Subject::default(),
    }
}

/// Whether Envoy's native filter calls: the proxy filter names its action.
fn is_native(attributes: Option<&AttributeContext>) -> bool {
    !attributes.is_some_and(|attributes| attributes.context_extensions.contains_key(proto::extension::ACTION))
}

/// The action of a request that could not be read, as far as it is known: one of our own words.
fn word(extensions: &Extensions<'_>) -> &'static str {
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
    let action = extensions.text(extension::ACTION);
    words.into_iter().find(|(own, _)| action == Some(*own)).map_or("consume", |(_, word)| word)
}

/// The proxy filter may read the same document, so an action that Envoy's own filter cannot perform is no error here. A request
/// for it through Envoy's own filter is refused.
pub fn warn_of_actions(rules: &Document) {
    for rule in rules.rules.rules().iter().filter(|rule| rule.needs_response()) {
        let (rule, action) = (&rule.name, rule.action.as_str());
        warn!(rule, action, "rule needs the gateway's answer: it works through the proxy filter only");
    }
}

/// The answer if the store gave none, so that the caller's own rule for that applies. The proxy filter gets the code and applies
/// its `on_error`; Envoy's native filter knows only a failed call, and applies `failure_mode_allow`, which must not stop a route
/// that is in shadow.
fn no_decision(native: bool, mode: Mode, why: &str) -> Result<CheckResponse, Status> {
    if native && mode != Mode::Shadow {
        Err(Status::unavailable(format!("{}: {why}", Code::StoreUnavailable.as_str())))
    } else {
        let mode = if native { mode } else { Mode::Enforce };
        Ok(Answer::without_decision(mode).to_check_response(native))
    }
}

#[cfg(test)]
mod tests;
