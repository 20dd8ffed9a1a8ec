//! The pipeline of every decision, for any caller: a request and the policy in force become a command, the store decides it,
//! and the decision is counted, traced and logged once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::RefusalDetails;
use quota::{
    Action, Channel, Code, Command, Currency, Effect, LimitName, MerchantId, OperationNo, OrderNo, Policy, Reply,
};
use tracing::{info, warn};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::credit;
use crate::metrics::DecisionMetrics;
use crate::request::{Caller, Request, Source};
use crate::spans;
use crate::windows::LastWindows;
use sluice_journal::outcomes;
use sluice_kit::clock;
use sluice_kit::health::warn_unless_away;
use sluice_kit::metrics::Metrics;
use sluice_kit::telemetry::{DECISION, trace_id};
use sluice_lines::{Credit, CreditLines};
use sluice_policy_source::Policies;
use sluice_settings::Live;
use sluice_store::refusal::{self, RefusalContext};
use sluice_store::{AuditContext, Call, Store, StoreError};

/// Length of a decision's id as it is written.
const UUID_LEN: usize = Hyphenated::LENGTH;

/// Makes commands from requests, and decisions from commands.
#[derive(Debug)]
pub struct Decider<S> {
    store: Arc<S>,
    policies: Arc<Policies>,
    lines: Arc<CreditLines>,
    live: Live,
    metrics: Arc<DecisionMetrics>,
    outcomes: Arc<outcomes::OutcomeMetrics>,
    windows: Arc<LastWindows>,
}

/// What is in force for an account: its policy, and its credit line on the day by that policy's calendar.
#[derive(Clone, Debug)]
pub struct InForce {
    /// `None` where there is none.
    pub policy: Option<Arc<Policy>>,
    pub credit: Credit,
}

impl InForce {
    /// For what concerns no account: no policy and no credit line.
    pub const NOTHING: Self = Self { policy: None, credit: Credit::NoLine };
}

impl<S> Clone for Decider<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            policies: Arc::clone(&self.policies),
            lines: Arc::clone(&self.lines),
            live: self.live.clone(),
            metrics: Arc::clone(&self.metrics),
            outcomes: Arc::clone(&self.outcomes),
            windows: Arc::clone(&self.windows),
        }
    }
}

/// A command with all that the store receives with it.
#[derive(Clone, Debug)]
pub struct Prepared {
    call: Call,
    pub in_force: InForce,
    pub source: Source,
}

impl Prepared {
    /// The command.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.call.0
    }

    /// The command, to change it before it is decided.
    pub fn command_mut(&mut self) -> &mut Command {
        &mut Arc::make_mut(&mut self.call).0
    }

    /// What the journal records beside it.
    #[must_use]
    pub fn audit(&self) -> &AuditContext {
        &self.call.1
    }
}

/// A command that was decided: done, or refused by its code.
#[derive(Clone, Debug)]
pub struct Decision {
    prepared: Prepared,
    pub reply: Reply,
    /// The refusal's details besides its code.
    pub refusal: Option<RefusalDetails>,
}

impl Decision {
    /// The command.
    #[must_use]
    pub fn command(&self) -> &Command {
        self.prepared.command()
    }

    /// What the journal records beside it.
    #[must_use]
    pub fn audit(&self) -> &AuditContext {
        self.prepared.audit()
    }

    /// What was in force for it.
    #[must_use]
    pub const fn in_force(&self) -> &InForce {
        &self.prepared.in_force
    }

    /// Whether the command was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.reply.record.code.http_status() != 200
    }

    /// The command as it was prepared.
    #[must_use]
    pub fn into_prepared(self) -> Prepared {
        self.prepared
    }
}

/// A command without a decision.
#[derive(Debug)]
pub struct Undecided {
    pub prepared: Prepared,
    pub error: StoreError,
}

impl<S: Store> Decider<S> {
    /// Puts the parts together.
    #[must_use]
    pub fn new(store: Arc<S>, policies: Arc<Policies>, lines: Arc<CreditLines>, live: Live, metrics: &Metrics) -> Self {
        let (metrics, outcomes) = (metrics.part(), metrics.part());
        Self { store, policies, lines, live, metrics, outcomes, windows: Arc::default() }
    }

    /// The store that decides.
    #[must_use]
    pub const fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// The policies in use.
    #[must_use]
    pub const fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// The credit lines that are known.
    #[must_use]
    pub const fn lines(&self) -> &Arc<CreditLines> {
        &self.lines
    }

    /// What is in force for a charge. It waits only at the first query for an account: for the policy service, and for the
    /// account's credit line.
    pub async fn in_force(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        now_ms: i64,
    ) -> InForce {
        let policy = self.policies.effective(merchant, currency, channel, now_ms).await;
        let credit = match &policy {
            Some(policy) => self.lines.on(merchant, currency, self.windows.at(policy, now_ms).ids.day).await,
            // Without a policy there is no calendar.
            None => Credit::NoLine,
        };
        InForce { policy, credit }
    }

    /// The same by what is known now, for callers that go through many accounts.
    #[must_use]
    pub fn peek(&self, merchant: &MerchantId, currency: Currency, now_ms: i64) -> InForce {
        let policy = self.policies.peek(merchant, currency, None, now_ms);
        let day = policy.as_ref().map(|policy| policy.windows_at(now_ms).ids.day);
        InForce { credit: day.map_or(Credit::NoLine, |day| self.lines.peek(merchant, currency, day)), policy }
    }

    /// The settings that change while the server runs.
    #[must_use]
    pub const fn live(&self) -> &Live {
        &self.live
    }

    /// The metrics of decisions.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<DecisionMetrics> {
        &self.metrics
    }

    /// The command that decides a request under what is in force.
    #[must_use]
    pub fn prepare(&self, request: Request, caller: Caller, in_force: InForce, now_ms: i64) -> Prepared {
        let decision_id = clock::decision_id();
        let InForce { policy, credit } = &in_force;
        let mut action = request.action(policy.as_deref());
        if let Action::Consume(charge) | Action::Hold(charge, _) = &mut action {
            credit::refuse(charge, credit, policy.as_deref(), request.channel.as_ref());
        }
        let audit = AuditContext {
            actor: caller.actor,
            mode: caller.mode.as_str(),
            policy_version: policy.as_ref().map(|policy| Arc::clone(&policy.version)).unwrap_or_default(),
            trace: spans::of_decision(caller.trace, decision_id),
            reason: request.reason,
            operator_type: caller.operator_type,
            remarks: request.remarks,
            metadata: request.metadata,
            refusal: refusal::by_policy(&action, policy.as_deref()),
            credit: credit::context(credit, self.lines.outdated_since_ms()),
            value_day: request.value_day,
        };
        let live = self.live.current();
        let terms = credit::terms(&action, credit);
        let command = Command {
            action,
            merchant: request.merchant,
            currency: request.currency,
            order_no: request.order_no,
            attempt: request.attempt,
            effect: request.effect,
            decision_id,
            now_ms,
            // Without a policy there is no calendar: the windows stay as they are stored.
            windows: policy.as_ref().map(|policy| self.windows.at(policy, now_ms)).unwrap_or_default(),
            order_ttl_secs: bounded(live.order_ttl_secs),
            backlog_max: bounded(live.backlog_events_max),
            threshold_policy: policy.as_ref().and_then(|policy| policy.threshold_policy.clone()),
            credit: terms,
            history: None,
            payment_no: request.payment_no,
            operation_no: request.operation_no,
            channel: request.channel,
        };
        Prepared { call: Arc::new((command, audit)), in_force, source: caller.source }
    }

    /// The command that takes an attempt back. It has an id and a span of its own.
    #[must_use]
    pub fn prepare_void(&self, of: &Prepared, reason: &str) -> Prepared {
        let mut void = of.clone();
        let (command, audit) = Arc::make_mut(&mut void.call);
        command.action = Action::VoidAttempt;
        command.decision_id = clock::decision_id();
        audit.trace = spans::of_decision(audit.trace, command.decision_id);
        reason.clone_into(&mut audit.reason);
        void
    }

    /// Decides one command. `started` is when work for it began.
    ///
    /// # Errors
    /// [`Undecided`] where there is no decision; the command may be applied all the same, see [`StoreError::is_undone`].
    pub async fn decide(&self, prepared: Prepared, started: Instant) -> Result<Decision, Box<Undecided>> {
        match self.store.apply_one(&prepared.call).await {
            Ok(reply) => Ok(self.decided(prepared, reply, started.elapsed())),
            Err(error) => {
                self.report_failure(&prepared, &error, started.elapsed());
                Err(Box::new(Undecided { prepared, error }))
            }
        }
    }

    /// Decides many commands, each by itself, in their order and with one call of the store. The results are in that order.
    pub async fn decide_each(&self, batch: Vec<Prepared>, started: Instant) -> Vec<Result<Decision, StoreError>> {
        let results = self.store.apply_each(&calls(&batch)).await;
        self.each_decided(batch, results, started.elapsed())
    }

    /// The same, but a command whose order's history would have to be read first is not decided: it gets
    /// [`StoreError::NeedsHistory`], which is not reported.
    pub async fn decide_known(&self, batch: Vec<Prepared>, started: Instant) -> Vec<Result<Decision, StoreError>> {
        let results = self.store.apply_known(&calls(&batch)).await;
        self.each_decided(batch, results, started.elapsed())
    }

    /// Decides the commands of one merchant in their order: all, or none where one is refused.
    ///
    /// # Errors
    /// [`StoreError`] where there is no decision.
    pub async fn decide_all(&self, batch: Vec<Prepared>, started: Instant) -> Result<Vec<Decision>, StoreError> {
        let results: Vec<_> = match self.store.apply_all(&calls(&batch)).await {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        };
        self.each_decided(batch, results, started.elapsed()).into_iter().collect()
    }

    fn each_decided(
        &self,
        batch: Vec<Prepared>,
        results: Vec<Result<Reply, StoreError>>,
        latency: Duration,
    ) -> Vec<Result<Decision, StoreError>> {
        let decided = |(prepared, result)| match result {
            Ok(reply) => Ok(self.decided(prepared, reply, latency)),
            Err(StoreError::NeedsHistory) => Err(StoreError::NeedsHistory),
            Err(error) => {
                self.report_failure(&prepared, &error, latency);
                Err(error)
            }
        };
        batch.into_iter().zip(results).map(decided).collect()
    }

    fn decided(&self, prepared: Prepared, reply: Reply, latency: Duration) -> Decision {
        let refusal = refusal::details(&reply.record, &RefusalContext::of(prepared.command(), prepared.audit()));
        let decision = Decision { prepared, reply, refusal };
        // A job's command that was not needed leaves no event and is not logged.
        if decision.prepared.source != Source::Job || decision.reply.event_seq.is_some() {
            self.report(&decision, latency);
        }
        decision
    }

    /// Counts, traces and logs a decision. Every payment has such a line: its values are texts already, which the log copies.
    fn report(&self, decision: &Decision, latency: Duration) {
        let Decision { prepared, reply, refusal } = decision;
        let (source, (command, audit)) = (prepared.source, &*prepared.call);
        let record = &reply.record;
        let (attempt, trace) = (command.attempt.digits(), audit.trace.map(|trace| trace.id.hex()));
        let dry = command.effect != Effect::Commit;
        self.metrics.decision(if dry { "check" } else { command.action.as_str() }, record.code, record.replay);
        if source == Source::Proxy {
            self.metrics.check_seconds.observe(latency.as_secs_f64());
        }
        spans::decision(source, command, audit, Ok(reply), latency);
        outcomes::report(&self.outcomes, command, audit, reply);
        info!(
            target: DECISION,
            decision_id = &*uuid(reply.decision_id).encode_lower(&mut [0; UUID_LEN]),
            // Another one than the decision's where an earlier answer is repeated; the journal's row has it.
            event_id = &*uuid(reply.event_id).encode_lower(&mut [0; UUID_LEN]),
            caller = source.into_str(),
            actor = &*audit.actor,
            action = command.action.as_str(),
            dry,
            merchant = command.merchant.as_str(),
            order_no = command.order_no.as_ref().map(OrderNo::as_str),
            operation_no = command.operation_no.as_ref().map(OperationNo::as_str),
            attempt = text(&attempt),
            amount_minor = record.amount,
            counted_minor = record.weighed.map(|weighed| weighed.counted),
            currency = command.currency.code(),
            code = record.code.as_str(),
            replay = record.replay,
            wait_ms = record.wait_ms,
            binding = LimitName::of_code(record.code).map(LimitName::as_str),
            refusal = refusal.as_ref().map(refusal::text),
            order_state = command.order_no.as_ref().map(|_| record.order.state.as_str()),
            policy_version = &*audit.policy_version,
            mode = audit.mode,
            reason = (!audit.reason.is_empty()).then_some(audit.reason.as_str()),
            latency_us = micros(latency),
            trace_id = trace.as_ref().map(|digits| text(digits)),
            "decision"
        );
        self.warn_of_over_capture(decision);
        self.warn_of_late_conflict(decision);
    }

    /// Counts, traces and logs that there is no decision. An outage of the store is logged once for all of them.
    fn report_failure(&self, prepared: &Prepared, error: &StoreError, latency: Duration) {
        let (source, (command, audit)) = (prepared.source, &*prepared.call);
        self.metrics.store_error(error);
        if source == Source::Proxy {
            self.metrics.check_seconds.observe(latency.as_secs_f64());
        }
        spans::decision(source, command, audit, Err(error), latency);
        warn_unless_away!(
            error,
            decision_id = %Uuid::from_bytes(command.decision_id),
            caller = source.into_str(),
            actor = &*audit.actor,
            action = command.action.as_str(),
            merchant = %command.merchant,
            order_no = command.order_no.as_ref().map(OrderNo::as_str),
            currency = %command.currency,
            code = Code::StoreUnavailable.as_str(),
            latency_us = micros(latency),
            trace_id = trace_id(audit.trace),
            "no decision"
        );
    }

    /// A payment went on by a right, and its order does not accept it: recorded, and logged for operators. Where the attempt itself was
    /// voided before, the gateway has not made it.
    fn warn_of_late_conflict(&self, decision: &Decision) {
        let Decision { prepared, reply, .. } = decision;
        let ((command, audit), record) = (&*prepared.call, &reply.record);
        let is_late = matches!(record.code, Code::IdempotencyConflict | Code::OrderClosed);
        if matches!(command.action, Action::Report(_)) && is_late {
            self.metrics.late_conflicts.inc();
            warn!(
                event_id = %Uuid::from_bytes(reply.event_id),
                merchant = %command.merchant,
                order_no = command.order_no.as_ref().map(OrderNo::as_str),
                code = record.code.as_str(),
                amount_minor = record.amount,
                first_minor = record.first.map(|first| first.amount),
                currency = %command.currency,
                trace_id = trace_id(audit.trace),
                "a payment was passed on by a right, and its order does not accept it: compare it with the gateway"
            );
        }
    }

    /// More was captured than held: recorded, and logged for operators.
    fn warn_of_over_capture(&self, decision: &Decision) {
        let Decision { prepared, reply, .. } = decision;
        let ((command, audit), record) = (&*prepared.call, &reply.record);
        let captured = matches!(command.action, Action::Settle(_))
            && command.effect == Effect::Commit
            && record.code == Code::Applied;
        if captured && !record.replay && record.is_over_captured() {
            self.metrics.over_captures.inc();
            warn!(
                decision_id = %Uuid::from_bytes(reply.decision_id),
                event_id = %Uuid::from_bytes(reply.event_id),
                merchant = %command.merchant,
                order_no = command.order_no.as_ref().map(OrderNo::as_str),
                held_minor = record.order.amount,
                captured_minor = record.order.settled,
                currency = %command.currency,
                trace_id = trace_id(audit.trace),
                "an order's captures went beyond its hold"
            );
        }
    }
}

/// What the store takes.
fn calls(batch: &[Prepared]) -> Vec<Call> {
    batch.iter().map(|prepared| Arc::clone(&prepared.call)).collect()
}

fn uuid(id: [u8; 16]) -> Hyphenated {
    Uuid::from_bytes(id).hyphenated()
}

/// Digits are ASCII.
fn text(digits: &[u8]) -> &str {
    str::from_utf8(digits).unwrap_or_default()
}

/// The settings' own bounds are far below.
fn bounded(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
