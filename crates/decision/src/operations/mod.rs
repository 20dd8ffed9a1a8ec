//! Operations on quota that callers request over REST and gRPC: one path from a valid request to the store's decision.
//!
//! The decision is the store's; the form of the answer is the transport's.

mod answer;
pub mod body;
mod request;
pub mod resolve;
mod table;
pub mod transfer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use quota::{Account, ActorId, Calendar, Currency, Merchant, MerchantId, Mode};

use crate::decider::{Decider, Decision, InForce, Prepared};
use crate::request::{Caller, Source};
use sluice_journal::HistoryStore;
use sluice_kit::telemetry;
use sluice_lines::{Credit, CreditDay, CreditLines};
use sluice_policy_source::Policies;
use sluice_store::{NO_ATTEMPT, Store, StoreClock, StoreError};

pub use crate::request::{Operation, Request};
pub use answer::{
    AccountView, CheckAnswer, Counters, CreditView, LimitView, MerchantAnswer, OperationAnswer, OrderView,
    PostingAnswer, Provenance, moment, refusing_limit,
};
pub use request::Invalid;
pub use table::{OperationRequest, Repetition};

/// Most operations of a batch.
pub const BATCH_MAX: usize = 1000;
/// Policies that one batch queries at once; each may wait for the policy service.
const POLICIES_AT_ONCE: usize = 128;

/// The caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub id: ActorId,
    /// `admin` for people, `api` for other programs.
    pub operator_type: &'static str,
}

/// What came of an operation that needs the account's credit line.
#[derive(Clone, Debug)]
pub enum OnLine {
    Decided(Box<Decision>),
    /// No policy applies to the account, so that there is no calendar by which its line could be read.
    NoPolicy,
    /// This server does not know the line yet, or there is none.
    Unknown,
}

/// The operations of the APIs.
#[derive(Clone, Debug)]
pub struct Operations(Decider<HistoryStore>);

/// The key by which operations share a policy.
type Scope = (MerchantId, Currency, Option<quota::Channel>);

impl Operations {
    /// Puts the parts together. The store's connections belong to the runtime that calls.
    #[must_use]
    pub const fn new(decider: Decider<HistoryStore>) -> Self {
        Self(decider)
    }

    /// The store that operations are done in.
    #[must_use]
    pub fn store(&self) -> Arc<HistoryStore> {
        Arc::clone(self.0.store())
    }

    /// The policies in use.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(self.0.policies())
    }

    /// The credit lines that are known.
    #[must_use]
    pub fn lines(&self) -> Arc<CreditLines> {
        Arc::clone(self.0.lines())
    }

    /// The account's business day, `YYYYMMDD`, by its policy's calendar; that of UTC where no policy applies.
    pub async fn business_day(&self, merchant: &MerchantId, currency: Currency) -> u32 {
        let now_ms = self.0.store().now_ms();
        let policy = self.0.policies().effective(merchant, currency, None, now_ms).await;
        policy.map_or_else(|| Calendar::UTC.windows_at(now_ms), |policy| policy.windows_at(now_ms)).ids.day
    }

    /// Records in the store that an account has a line, so that its exposure is kept from now on and not from the next payment on.
    ///
    /// # Errors
    /// [`StoreError`] where there is no answer; the next payment does it then.
    pub async fn open_line(
        &self,
        actor: &Actor,
        merchant: &MerchantId,
        currency: Currency,
        day: CreditDay,
    ) -> Result<(), StoreError> {
        let now_ms = self.0.store().now_ms();
        let policy = self.0.policies().effective(merchant, currency, None, now_ms).await;
        let in_force = InForce { policy, credit: Credit::Line(Arc::new(day)) };
        // The first one makes an account, the second one changes an account that is there.
        let batch = [Operation::Initialize, Operation::Roll].map(|operation| {
            let request = Request::new(merchant.clone(), currency, NO_ATTEMPT, operation);
            self.prepare(actor, request, in_force.clone(), now_ms)
        });
        self.0.decide_each(batch.into(), Instant::now()).await.into_iter().try_for_each(|done| done.map(drop))
    }

    /// The known state of the store's clock.
    #[must_use]
    pub fn clock(&self) -> &StoreClock {
        self.0.store().redis().clock()
    }

    /// Executes one operation.
    ///
    /// # Errors
    /// [`StoreError`] where there is no decision; the operation may have been done then.
    pub async fn execute(&self, actor: &Actor, request: Request) -> Result<Decision, StoreError> {
        let (_, in_force) = self.in_force(scope(&request), self.0.store().now_ms()).await;
        let prepared = self.prepare(actor, request, in_force, self.0.store().now_ms());
        self.0.decide(prepared, Instant::now()).await.map_err(|undecided| undecided.error)
    }

    /// Executes one operation where this server knows the account's credit line.
    ///
    /// # Errors
    /// As [`Operations::execute`].
    pub async fn execute_on_line(&self, actor: &Actor, request: Request) -> Result<OnLine, StoreError> {
        let (_, in_force) = self.in_force(scope(&request), self.0.store().now_ms()).await;
        match &in_force {
            InForce { credit: Credit::Line(_), .. } => {}
            // A server without any policy has not read them yet.
            InForce { policy: None, .. } if self.0.policies().any() => return Ok(OnLine::NoPolicy),
            InForce { credit: Credit::NoLine | Credit::Unread | Credit::Unknown, .. } => return Ok(OnLine::Unknown),
        }
        let prepared = self.prepare(actor, request, in_force, self.0.store().now_ms());
        let decided = self.0.decide(prepared, Instant::now()).await;
        decided.map(|decision| OnLine::Decided(Box::new(decision))).map_err(|undecided| undecided.error)
    }

    /// Executes the operations of one merchant in their order: all, or none where one is refused.
    ///
    /// # Errors
    /// As [`Operations::execute`].
    pub async fn execute_all_or_none(
        &self,
        actor: &Actor,
        requests: Vec<Request>,
    ) -> Result<Vec<Decision>, StoreError> {
        let batch = self.prepare_all(actor, requests).await;
        self.0.decide_all(batch, Instant::now()).await
    }

    /// Executes many operations, each by itself, in their order and with one call of the store. The results are in that order.
    pub async fn execute_each(&self, actor: &Actor, requests: Vec<Request>) -> Vec<Result<Decision, StoreError>> {
        let batch = self.prepare_all(actor, requests).await;
        self.0.decide_each(batch, Instant::now()).await
    }

    /// The account's current state; `None` where it was never used.
    ///
    /// # Errors
    /// [`StoreError`] where the store gives no answer.
    pub async fn account(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        provenance: Provenance,
    ) -> Result<Option<AccountView>, StoreError> {
        let (account, suspension) = self.0.store().redis().account_of_merchant(merchant, currency).await?;
        match account {
            Some(account) => Ok(Some(self.view(merchant, currency, account, suspension, provenance).await)),
            None => Ok(None),
        }
    }

    /// The current state of every account of a merchant, with the journal's data of each, and the merchant's own state.
    ///
    /// # Errors
    /// [`StoreError`] where the store gives no answer.
    pub async fn accounts(
        &self,
        merchant: &MerchantId,
        mut provenances: HashMap<String, Provenance>,
    ) -> Result<(Vec<AccountView>, Merchant), StoreError> {
        let mut views = Vec::new();
        let (accounts, suspension) = self.0.store().redis().accounts(merchant).await?;
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
        let now_ms = self.0.store().now_ms();
        let in_force = self.0.in_force(merchant, currency, None, now_ms).await;
        let windows = in_force.policy.as_ref().map(|policy| policy.windows_at(now_ms)).unwrap_or_default();
        let account = account.rolled(windows);
        let view = AccountView::of(merchant.to_string(), currency, &account, &in_force, provenance, now_ms);
        view.of_merchant(suspension)
    }

    /// The policies of several operations, queried together: an account that waits for its policy delays no other. All
    /// operations have one time, after the last policy arrived.
    async fn prepare_all(&self, actor: &Actor, requests: Vec<Request>) -> Vec<Prepared> {
        let queried_at_ms = self.0.store().now_ms();
        let distinct: HashSet<Scope> = requests.iter().map(scope).collect();
        let queries: Vec<_> = distinct.into_iter().map(|scope| self.in_force(scope, queried_at_ms)).collect();
        let found: HashMap<Scope, _> = stream::iter(queries).buffer_unordered(POLICIES_AT_ONCE).collect().await;
        let of_scope = |request: &Request| found.get(&scope(request)).cloned().unwrap_or(InForce::NOTHING);
        let in_force: Vec<_> = requests.iter().map(of_scope).collect();
        let now_ms = self.0.store().now_ms();
        let prepare = |(request, in_force)| self.prepare(actor, request, in_force, now_ms);
        requests.into_iter().zip(in_force).map(prepare).collect()
    }

    async fn in_force(&self, scope: Scope, now_ms: i64) -> (Scope, InForce) {
        let (merchant, currency, channel) = &scope;
        // What concerns the merchant as a whole is under no policy.
        let in_force = if *currency == Currency::NONE {
            InForce::NOTHING
        } else {
            self.0.in_force(merchant, *currency, channel.as_ref(), now_ms).await
        };
        (scope, in_force)
    }

    fn prepare(&self, actor: &Actor, request: Request, in_force: InForce, now_ms: i64) -> Prepared {
        let caller = Caller {
            source: Source::Api,
            actor: actor.id.to_string().into(),
            operator_type: actor.operator_type,
            mode: Mode::Enforce,
            trace: telemetry::current(),
        };
        self.0.prepare(request, caller, in_force, now_ms)
    }
}

fn scope(request: &Request) -> Scope {
    (request.merchant.clone(), request.currency, request.channel.clone())
}
