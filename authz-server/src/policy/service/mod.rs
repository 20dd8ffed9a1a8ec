//! The external policy service: asked for an account's policy in the background, its answers kept.
//!
//! A payment waits for it only where its account is asked for for the first time, and then no longer than
//! [`FIRST_ANSWER_MAX`]. Where it gives no answer that can be used, the last one of the account holds; without one the
//! policies of Postgres and the file; without those the limits of [`PolicyService::defaults`]. Each step down is counted,
//! and told in the log when an account takes it.

mod answer;
mod ask;
mod cell;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use quota::{AmountMinor, Channel, Currency, MerchantId, Policy};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use cell::State;

pub use ask::Asker;
pub use cell::{Account, Cell};

/// How long the first payment of an account waits for the service: less than a check may take, so that the decision itself
/// still fits in.
pub const FIRST_ANSWER_MAX: Duration = Duration::from_millis(100);
/// Accounts whose answers are kept; the one that was used longest ago makes room.
const ACCOUNTS_MAX: usize = 100_000;
/// Accounts that may wait to be asked for. One that finds no room is asked for with its next payment.
const QUEUE_MAX: usize = 4_096;

/// The limits for when no policy can be had, as callers of the merchant-quota API know them (minor units).
const DEFAULT_SINGLE: (u64, u64) = (100, 100_000_000);
const DEFAULT_DAILY: u64 = 500_000_000;
const DEFAULT_MONTHLY: u64 = 10_000_000_000;

/// What is known of an account.
#[derive(Debug)]
pub enum Found {
    /// The service's present answer.
    Known(Arc<Policy>),
    /// An earlier answer: the service could not be asked since.
    LastKnown(Arc<Policy>),
    /// No answer that could be used.
    Nothing(Arc<Cell>),
}

/// The answers of a policy service.
#[derive(Debug)]
pub struct PolicyService {
    cells: Mutex<LruCache<Account, Arc<Cell>>>,
    queue: mpsc::Sender<Arc<Cell>>,
    /// The last request got no answer: nobody waits for the next one.
    failing: AtomicBool,
    defaults: Arc<Policy>,
    metrics: Arc<Metrics>,
}

impl PolicyService {
    /// Knows nobody yet. The other end of the queue is for [`Asker::run`].
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Arc<Self>, mpsc::Receiver<Arc<Cell>>) {
        let (queue, asked) = mpsc::channel(QUEUE_MAX);
        let service = Self {
            cells: Mutex::new(LruCache::new(NonZeroUsize::new(ACCOUNTS_MAX).unwrap_or(NonZeroUsize::MIN))),
            queue,
            failing: AtomicBool::new(false),
            defaults: Arc::new(default_limits()),
            metrics,
        };
        (Arc::new(service), asked)
    }

    /// The limits where nobody knows any.
    #[must_use]
    pub const fn defaults(&self) -> &Arc<Policy> {
        &self.defaults
    }

    /// What the service says of an account.
    pub(super) async fn policy(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        now_ms: i64,
    ) -> Found {
        let cell = self.cell(merchant, currency, channel);
        cell.use_at(now_ms);
        if cell.is_new() && !self.failing.load(Ordering::Relaxed) {
            cell.wait(FIRST_ANSWER_MAX).await;
        }
        match cell.state() {
            State::Known(policy) => Found::Known(policy),
            State::LastKnown(policy) => Found::LastKnown(policy),
            State::New | State::Nothing => Found::Nothing(cell),
        }
    }

    /// The account's cell. A new one is asked for in the background.
    fn cell(&self, merchant: &MerchantId, currency: Currency, channel: Option<&Channel>) -> Arc<Cell> {
        let account = Account { merchant: merchant.clone(), currency, channel: channel.cloned() };
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(&account) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(Cell::new(account.clone()));
        if self.queue.try_send(Arc::clone(&cell)).is_ok() {
            cells.put(account, Arc::clone(&cell));
            self.metrics.policy.set_accounts(cells.len());
        }
        cell
    }

    /// Every account that is kept.
    fn accounts(&self) -> Vec<Arc<Cell>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.iter().map(|(_, cell)| Arc::clone(cell)).collect()
    }

    /// Forgets an account, which is asked for anew when it is next used.
    fn forget(&self, account: &Account) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.pop(account);
        self.metrics.policy.set_accounts(cells.len());
    }
}

fn default_limits() -> Policy {
    let amount = |minor| AmountMinor::new(minor).unwrap_or(AmountMinor::MAX);
    let mut policy = Policy::unlimited(Arc::from("default-limits"));
    policy.single_min = amount(DEFAULT_SINGLE.0);
    policy.single_max = amount(DEFAULT_SINGLE.1);
    policy.limits.day.amount = amount(DEFAULT_DAILY);
    policy.limits.month.amount = amount(DEFAULT_MONTHLY);
    policy
}
