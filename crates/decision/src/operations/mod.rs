//! Operations on quota that callers ask for over REST and gRPC: one path from a valid request to the store's decision.
//!
//! Deciding is the store's; what is told to whom, and in which form, is the transports'.

mod answer;
mod body;
mod request;
pub mod resolve;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use proto::RefusalDetails;
use quota::{
    Account, Action, ActorId, AttemptId, Charge, Code, Command, Currency, Dry, HoldTerms, Merchant, MerchantId, Policy,
    Refund, Reply, Settle,
};
use tracing::{info, warn};
use uuid::Uuid;

use crate::spans;
use sluice_journal::RecallingStore;
use sluice_journal::outcomes;
use sluice_kit::clock;
use sluice_kit::health::warn_unless_away;
use sluice_kit::metrics::Metrics;
use sluice_kit::telemetry::{self, DECISION, trace_id};
use sluice_policy_source::Policies;
use sluice_settings::Live;
use sluice_store::refusal::{self, Asked};
use sluice_store::{Notes, Store, StoreClock, StoreError};

pub use answer::{
    AccountView, CheckAnswer, Counters, LimitView, MerchantAnswer, OperationAnswer, OrderView, Provenance, moment,
    refusing_limit,
};
pub use body::{
    AdjustOperation, AdjustRequest, BatchOperation, BatchRequest, ChargeRequest, CheckRequest, CounterField,
    InitializeRequest, RefundRequest, ReleaseRequest, ResetRequest, ResetWindow, SettleRequest, SuspendRequest,
    VoidRequest,
};
pub use request::{Ask, Invalid, Request, capture_id};

/// Most operations of a batch.
pub const BATCH_MAX: usize = 1000;
/// Policies that one batch asks for at once; each may wait for the policy service.
const POLICIES_AT_ONCE: usize = 128;
/// Requests of the API are told apart by their orders and numbers; all of them are one attempt.
const ATTEMPT: &str = "api";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub id: ActorId,
    /// `admin` for people, `api` for other programs.
    pub operator_type: &'static str,
}

/// An operation that was decided: done, or refused by its code.
#[derive(Clone, Debug)]
pub struct Done {
    pub command: Command,
    pub reply: Reply,
    /// The policy in force; `None` where there is none.
    pub policy: Option<Arc<Policy>>,
    /// What a refusal tells beside its code.
    pub refusal: Option<RefusalDetails>,
}

impl Done {
    /// Whether the operation was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.reply.record.code.http_status() != 200
    }
}

/// What operations work with.
#[derive(Clone, Debug)]
pub struct Operations {
    store: Arc<RecallingStore>,
    policies: Arc<Policies>,
    live: Live,
    metrics: Arc<Metrics>,
    outcomes: Arc<outcomes::Figures>,
}

/// What operations share a policy by.
type Scope = (MerchantId, Currency, Option<quota::Channel>);

/// An operation with all that the store is to be told of it.
struct Prepared {
    command: Command,
    notes: Notes,
    policy: Option<Arc<Policy>>,
}

impl Operations {
    /// Puts the parts together. The store's connections belong to the runtime that calls.
    #[must_use]
    pub fn new(store: Arc<RecallingStore>, policies: Arc<Policies>, live: Live, metrics: Arc<Metrics>) -> Self {
        let outcomes = metrics.part();
        Self { store, policies, live, metrics, outcomes }
    }

    /// The store that operations are done in.
    #[must_use]
    pub fn store(&self) -> Arc<RecallingStore> {
        Arc::clone(&self.store)
    }

    /// The policies that operations are decided by.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies)
    }

    /// What is known of the store's clock.
    #[must_use]
    pub fn clock(&self) -> &StoreClock {
        self.store.redis().clock()
    }

    /// Does one operation.
    ///
    /// # Errors
    /// [`StoreError`] where no decision could be had; the operation may have been done then.
    pub async fn execute(&self, actor: &Actor, request: Request) -> Result<Done, StoreError> {
        let (_, policy) = self.policy_of(scope(&request), self.store.now_ms()).await;
        let Prepared { command, notes, policy } = self.prepare(actor, request, policy, self.store.now_ms());
        let started = Instant::now();
        let reply = match self.store.apply(&command, &notes).await {
            Ok(reply) => reply,
            Err(error) => return Err(failed(&command, &notes, error, started.elapsed())),
        };
        Ok(self.done(command, &notes, policy, reply, started.elapsed()))
    }

    /// Does the operations of one merchant in their order: all, or none where one is refused.
    ///
    /// # Errors
    /// As [`Operations::execute`].
    pub async fn execute_all_or_none(&self, actor: &Actor, requests: Vec<Request>) -> Result<Vec<Done>, StoreError> {
        let (batch, policies) = unzip(self.prepare_all(actor, requests).await);
        let started = Instant::now();
        let result = self.store.apply_all(&batch).await;
        let took = started.elapsed();
        let replies = match result {
            Ok(replies) => replies,
            Err(error) => {
                batch.iter().for_each(|(command, notes)| tell_failure(command, notes, &error, took));
                return Err(error);
            }
        };
        let done = batch.into_iter().zip(policies).zip(replies);
        Ok(done.map(|(((command, notes), policy), reply)| self.done(command, &notes, policy, reply, took)).collect())
    }

    /// Does many operations, each by itself, in their order and with one call of the store. The outcomes are in that order.
    pub async fn execute_each(&self, actor: &Actor, requests: Vec<Request>) -> Vec<Result<Done, StoreError>> {
        let (batch, policies) = unzip(self.prepare_all(actor, requests).await);
        let started = Instant::now();
        let results = self.store.apply_each(&batch).await;
        let took = started.elapsed();
        let outcome = |(((command, notes), policy), result)| match result {
            Ok(reply) => Ok(self.done(command, &notes, policy, reply, took)),
            Err(error) => Err(failed(&command, &notes, error, took)),
        };
        batch.into_iter().zip(policies).zip(results).map(outcome).collect()
    }

    /// The account as it stands now; `None` where nothing was ever done with it.
    ///
    /// # Errors
    /// [`StoreError`] where the store gives no answer.
    pub async fn account(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        provenance: Provenance,
    ) -> Result<Option<AccountView>, StoreError> {
        let (account, suspension) = self.store.redis().account_of_merchant(merchant, currency).await?;
        match account {
            Some(account) => Ok(Some(self.view(merchant, currency, account, suspension, provenance).await)),
            None => Ok(None),
        }
    }

    /// Every account of a merchant as it stands now, with what the journal knows of each, and the merchant's own state.
    ///
    /// # Errors
    /// [`StoreError`] where the store gives no answer.
    pub async fn accounts(
        &self,
        merchant: &MerchantId,
        mut provenances: HashMap<String, Provenance>,
    ) -> Result<(Vec<AccountView>, Merchant), StoreError> {
        let mut views = Vec::new();
        let (accounts, suspension) = self.store.redis().accounts(merchant).await?;
        for (currency, account) in accounts {
            let provenance = provenances.remove(currency.code()).unwrap_or_default();
            views.push(self.view(merchant, currency, account, suspension, provenance).await);
        }
        Ok((views, suspension))
    }

    async fn view(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        account: Account,
        suspension: Merchant,
        provenance: Provenance,
    ) -> AccountView {
        let now_ms = self.store.now_ms();
        let policy = self.policies.effective(merchant, currency, None, now_ms).await;
        let windows = policy.as_ref().map(|policy| policy.windows_at(now_ms)).unwrap_or_default();
        let account = account.rolled(windows);
        let view = AccountView::of(merchant.to_string(), currency, &account, policy.as_deref(), provenance, now_ms);
        view.of_merchant(suspension)
    }

    /// The policies of several operations, asked for together: an account that waits for its policy holds up no other. All
    /// operations are of one moment, after the last policy was had.
    async fn prepare_all(&self, actor: &Actor, requests: Vec<Request>) -> Vec<Prepared> {
        let asked_at_ms = self.store.now_ms();
        let distinct: HashSet<Scope> = requests.iter().map(scope).collect();
        let asked: Vec<_> = distinct.into_iter().map(|scope| self.policy_of(scope, asked_at_ms)).collect();
        let policies: HashMap<Scope, _> = stream::iter(asked).buffer_unordered(POLICIES_AT_ONCE).collect().await;
        let policies: Vec<_> =
            requests.iter().map(|request| policies.get(&scope(request)).cloned().flatten()).collect();
        let now_ms = self.store.now_ms();
        let prepare = |(request, policy)| self.prepare(actor, request, policy, now_ms);
        requests.into_iter().zip(policies).map(prepare).collect()
    }

    async fn policy_of(&self, scope: Scope, now_ms: i64) -> (Scope, Option<Arc<Policy>>) {
        let (merchant, currency, channel) = &scope;
        // What concerns the merchant as a whole is under no policy.
        let policy = if *currency == Currency::NONE {
            None
        } else {
            self.policies.effective(merchant, *currency, channel.as_ref(), now_ms).await
        };
        (scope, policy)
    }

    fn prepare(&self, actor: &Actor, request: Request, policy: Option<Arc<Policy>>, now_ms: i64) -> Prepared {
        let Request { merchant, currency, order_no, payment_no, operation_no, channel, attempt, ask, .. } = request;
        let action = action(&ask, policy.as_deref(), currency, channel.as_ref());
        let decision_id = clock::decision_id();
        let notes = Notes {
            actor: actor.id.to_string(),
            trace: spans::of_decision(telemetry::current(), decision_id),
            mode: quota::Mode::Enforce.as_str(),
            policy_version: policy.as_ref().map(|policy| policy.version.to_string()).unwrap_or_default(),
            reason: request.reason,
            operator_type: actor.operator_type,
            remarks: request.remarks,
            metadata: request.metadata,
            refusal: refusal::by_policy(&action, policy.as_deref()),
        };
        let live = self.live.current();
        let bounded = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let command = Command {
            action,
            dry: if matches!(ask, Ask::Check(_)) { Dry::Silent } else { Dry::No },
            attempt: attempt.unwrap_or_else(|| AttemptId::from_text(ATTEMPT)),
            decision_id,
            now_ms,
            // Without a policy there is no calendar: the windows stay as they are stored.
            windows: policy.as_ref().map(|policy| policy.windows_at(now_ms)).unwrap_or_default(),
            order_ttl_secs: bounded(live.order_ttl_secs),
            backlog_max: bounded(live.backlog_events_max),
            watch: policy.as_ref().and_then(|policy| policy.watch.clone()),
            history: None,
            merchant,
            currency,
            order_no,
            payment_no,
            operation_no,
            channel,
        };
        Prepared { command, notes, policy }
    }

    fn done(&self, command: Command, notes: &Notes, policy: Option<Arc<Policy>>, reply: Reply, took: Duration) -> Done {
        let record = &reply.record;
        spans::operation(&command, notes, Ok(&reply), took);
        if command.dry == Dry::No {
            self.metrics.decision(command.action.as_str(), record.code, record.replay);
        }
        warn_of_over_capture(&self.metrics, &command, notes, &reply);
        outcomes::report(&self.outcomes, &command, notes, &reply);
        let refusal = refusal::details(record, &Asked::of(&command, notes));
        info!(
            target: DECISION,
            decision_id = %Uuid::from_bytes(reply.decision_id),
            event_id = %Uuid::from_bytes(reply.event_id),
            action = command.action.as_str(),
            dry = command.dry != Dry::No,
            merchant = %command.merchant,
            order_no = command.order_no.as_ref().map(quota::OrderNo::as_str),
            operation_no = command.operation_no.as_ref().map(quota::OperationNo::as_str),
            amount_minor = record.amount,
            currency = %command.currency,
            code = record.code.as_str(),
            replay = record.replay,
            policy_version = notes.policy_version,
            refusal = refusal.as_ref().map(refusal::text),
            actor = notes.actor,
            trace_id = trace_id(notes.trace),
            "operation"
        );
        Done { command, reply, policy, refusal }
    }
}

/// What the store is told of several operations, and the policy of each.
fn unzip(prepared: Vec<Prepared>) -> (Vec<(Command, Notes)>, Vec<Option<Arc<Policy>>>) {
    prepared.into_iter().map(|Prepared { command, notes, policy }| ((command, notes), policy)).unzip()
}

fn scope(request: &Request) -> Scope {
    (request.merchant.clone(), request.currency, request.channel.clone())
}

/// Money was captured that was never held: recorded, and somebody should know.
pub fn warn_of_over_capture(metrics: &Metrics, command: &Command, notes: &Notes, reply: &Reply) {
    let record = &reply.record;
    let captured =
        matches!(command.action, Action::Settle(_)) && command.dry == Dry::No && record.code == Code::Applied;
    if captured && !record.replay && record.is_over_captured() {
        metrics.over_capture();
        warn!(
            decision_id = %Uuid::from_bytes(reply.decision_id),
            event_id = %Uuid::from_bytes(reply.event_id),
            merchant = %command.merchant,
            order_no = command.order_no.as_ref().map(quota::OrderNo::as_str),
            held_minor = record.order.amount,
            captured_minor = record.order.settled,
            currency = %command.currency,
            trace_id = trace_id(notes.trace),
            "an order's captures went beyond its hold"
        );
    }
}

fn failed(command: &Command, notes: &Notes, error: StoreError, took: Duration) -> StoreError {
    tell_failure(command, notes, &error, took);
    error
}

fn tell_failure(command: &Command, notes: &Notes, error: &StoreError, took: Duration) {
    spans::operation(command, notes, Err(error), took);
    warn_unless_away!(
        error,
        decision_id = %Uuid::from_bytes(command.decision_id),
        action = command.action.as_str(),
        merchant = %command.merchant,
        order_no = command.order_no.as_ref().map(quota::OrderNo::as_str),
        code = Code::StoreUnavailable.as_str(),
        trace_id = trace_id(notes.trace),
        "no decision on an operation"
    );
}

fn action(ask: &Ask, policy: Option<&Policy>, currency: Currency, channel: Option<&quota::Channel>) -> Action {
    let charge = |amount| Charge::under(policy, amount, currency, channel);
    match *ask {
        Ask::Check(amount) | Ask::Consume(amount) => Action::Consume(charge(amount)),
        Ask::Hold(amount) => Action::Hold(charge(amount), policy.map_or(HoldTerms::DEFAULT, |policy| policy.hold)),
        Ask::Settle { amount, id, last } => Action::Settle(Settle {
            amount,
            id,
            last,
            over_capture_percent: policy.map_or(0, |policy| policy.over_capture_percent),
            reported: false,
        }),
        Ask::Captured { amount, id, last } => {
            Action::Settle(Settle { amount, id, last, over_capture_percent: 0, reported: true })
        }
        Ask::VoidAttempt => Action::VoidAttempt,
        Ask::Resolve(resolution) => Action::Resolve(resolution),
        Ask::Void => Action::Void,
        Ask::Refund { amount, id } => Action::Refund(Refund::under(policy, amount, id, false)),
        Ask::Release { amount, id } => Action::Release(Refund::under(policy, amount, id, false)),
        Ask::Adjust(adjust) => Action::Adjust(adjust),
        Ask::Reset(reset) => Action::Reset(reset),
        Ask::Suspend => Action::Suspend,
        Ask::Resume => Action::Resume,
        Ask::SuspendMerchant => Action::SuspendMerchant,
        Ask::ResumeMerchant => Action::ResumeMerchant,
        Ask::Initialize => Action::Initialize,
    }
}
