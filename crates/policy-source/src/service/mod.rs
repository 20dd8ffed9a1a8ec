//! The external policy service: queried for an account's policy in the background, its answers cached.
//!
//! A payment waits for it only at the first query for its account, and then no longer than [`FIRST_ANSWER_MAX`]. Without a
//! usable answer the last one holds; for a channel without one, that for all channels; without that the policies of Postgres
//! and the file; without those the limits of [`PolicyService::defaults`]. Each fallback is counted, and logged when an account
//! starts to use it.
//!
//! An account's calendar is that of its answer for all channels, or, where the service has no policy for it, that of the
//! policies of Postgres and the file. It is unknown while the service has not answered yet. The account's threshold policy is
//! chosen in the same way; that of an evicted account is unknown.

mod accounts;
mod answer;
mod cell;
mod fetch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quota::{AmountMinor, Channel, Currency, MerchantId, Policy, ThresholdPolicy, Thresholds};
use tokio::sync::mpsc;

use crate::metrics::PolicyMetrics;
use crate::zones::Zones;
use accounts::{Accounts, Cells};
use cell::State;
use sluice_kit::metrics::{Metrics, signed};

pub use accounts::AccountCalendar;
pub use cell::{Account, Cell};
pub use fetch::PolicyFetcher;

/// How long the first payment of an account waits for the service: less than a check may take, so that the decision itself
/// still fits in.
pub const FIRST_ANSWER_MAX: Duration = Duration::from_millis(100);
/// Accounts that may wait for a query. One that finds no room is queried with its next payment.
const QUEUE_MAX: usize = 4_096;

/// The limits where no policy is available, as callers of the merchant-quota API know them (minor units).
const DEFAULT_SINGLE: (u64, u64) = (100, 100_000_000);
const DEFAULT_DAILY: u64 = 500_000_000;
const DEFAULT_MONTHLY: u64 = 10_000_000_000;

/// What is known of an account.
#[derive(Debug)]
pub struct Found {
    /// The answer for the channel; where there is none that could be used, the one for all channels.
    pub policy: Option<Arc<Policy>>,
    /// The answer is an earlier one: the service gave no usable one since.
    pub is_last_known: bool,
    pub calendar: AccountCalendar,
    /// The answer for all channels.
    pub account: Option<Arc<Policy>>,
    /// Where fallbacks are logged; `None` for a peek.
    pub cell: Option<Arc<Cell>>,
}

/// The answers of a policy service.
#[derive(Debug)]
pub struct PolicyService {
    accounts: Mutex<Accounts>,
    queue: mpsc::Sender<Arc<Cell>>,
    /// The last request got no answer: no payment waits for the next one.
    failing: AtomicBool,
    defaults: Arc<Policy>,
    zones: Arc<Zones>,
    metrics: Arc<PolicyMetrics>,
}

impl PolicyService {
    /// Starts without accounts. The other end of the queue is for [`PolicyFetcher::run`].
    #[must_use]
    pub fn new(zones: Arc<Zones>, metrics: &Metrics) -> (Arc<Self>, mpsc::Receiver<Arc<Cell>>) {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let service = Self {
            accounts: Mutex::new(Accounts::new()),
            queue,
            failing: AtomicBool::new(false),
            defaults: Arc::new(default_limits()),
            zones,
            metrics: metrics.part(),
        };
        (Arc::new(service), requests)
    }

    /// The limits where no others are known.
    #[must_use]
    pub const fn defaults(&self) -> &Arc<Policy> {
        &self.defaults
    }

    /// The service's answer for an account. The payer chooses the channel, so only an account waits, never a channel of one
    /// that is known.
    pub(super) async fn policy(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        now_ms: i64,
    ) -> Found {
        let cells = self.cells(merchant, currency, channel);
        let Cells { all, channel } = &cells;
        all.use_at(now_ms);
        channel.iter().for_each(|cell| cell.use_at(now_ms));
        if all.is_new() && !self.failing.load(Ordering::Relaxed) {
            let of_channel = async {
                if let Some(cell) = channel {
                    cell.wait(FIRST_ANSWER_MAX).await;
                }
            };
            tokio::join!(all.wait(FIRST_ANSWER_MAX), of_channel);
        }
        self.found(merchant, currency, Some(cells))
    }

    /// What is cached of an account. The service is not queried, and the account does not count as used.
    pub(super) fn peek(&self, merchant: &MerchantId, currency: Currency, channel: Option<&Channel>) -> Found {
        let cells = self.lock().peek(merchant, currency, channel);
        Found { cell: None, ..self.found(merchant, currency, cells) }
    }

    fn found(&self, merchant: &MerchantId, currency: Currency, cells: Option<Cells>) -> Found {
        let states = cells.as_ref().map(|cells| (cells.all.state(), cells.channel.as_ref().map(|cell| cell.state())));
        let (all, channel) = states.map_or((None, None), |(all, channel)| (Some(all), channel));
        let answer = channel.iter().chain(&all).find(|state| state.policy().is_some());
        Found {
            policy: answer.and_then(State::policy).map(Arc::clone),
            is_last_known: matches!(answer, Some(State::LastKnown(_))),
            calendar: self.lock().calendar(merchant, currency, all.as_ref()),
            account: all.as_ref().and_then(State::policy).map(Arc::clone),
            cell: cells.map(|cells| cells.all),
        }
    }

    fn cells(&self, merchant: &MerchantId, currency: Currency, channel: Option<&Channel>) -> Cells {
        let mut accounts = self.lock();
        let before = accounts.len();
        let cells = accounts.cells(merchant, currency, channel, &self.queue);
        if accounts.len() != before {
            self.metrics.accounts.set(signed(accounts.len()));
        }
        cells
    }

    /// Applies the present data of every account's zone.
    pub(super) fn renew_zones(&self) {
        self.lock().renew_zones(&*self.zones);
    }

    /// Evicts an account, or a channel of it.
    fn evict(&self, account: &Account) {
        let mut accounts = self.lock();
        accounts.evict(account);
        self.metrics.accounts.set(signed(accounts.len()));
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn default_limits() -> Policy {
    let amount = |minor| AmountMinor::new(minor).unwrap_or(AmountMinor::MAX);
    let mut policy = Policy::unlimited(Arc::from("default-limits"));
    policy.single_min = amount(DEFAULT_SINGLE.0);
    policy.single_max = amount(DEFAULT_SINGLE.1);
    policy.limits.windows.day.amount = amount(DEFAULT_DAILY);
    policy.limits.windows.month.amount = amount(DEFAULT_MONTHLY);
    policy.threshold_policy = Some(Arc::new(ThresholdPolicy::new(&policy.limits, Thresholds::DEFAULT)));
    policy
}
