//! How near accounts are to their limits, and how many alerts are open: read from Postgres periodically, by one server at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use quota::{Account, AmountMinor, Currency, MerchantId, ThresholdPolicy};
use sluice_kit::database::leader::Leader;
use sluice_kit::shutdown::Shutdown;
use sqlx::PgPool;
use thiserror::Error;
use tokio::time::timeout;

use super::metrics::{AccountUsage, Publisher};
use sluice_journal::outcomes;
use sluice_journal::postgres::StoredAccount;
use sluice_kit::health::{Away, warn_unless_away};
use sluice_kit::metrics::Metrics;
use sluice_policy_source::Policies;
use sluice_settings::Live;
use sluice_store::StoreClock;

/// How long one reading may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failure Postgres is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Held by the one server that publishes; any number that nothing else uses.
const LOCK: i64 = 0x51_75_6f_74_61_08;

const ACTIVE: &str = "SELECT count(*) FILTER (WHERE alert_level = 'warning'), \
        count(*) FILTER (WHERE alert_level = 'critical') \
    FROM quota_alert WHERE resolved_at IS NULL";

/// Why a round failed.
#[derive(Debug, Error)]
pub enum UsageError {
    #[error("postgres gave no answer: {0}")]
    Database(#[from] sqlx::Error),
    #[error("postgres gave no answer within {READ_TIMEOUT:?}")]
    Hangs,
}

impl Away for UsageError {
    fn is_away(&self) -> bool {
        match self {
            Self::Database(error) => error.is_away(),
            Self::Hangs => true,
        }
    }
}

/// Keeps the usage metrics.
#[derive(Debug)]
pub struct Usage {
    pool: PgPool,
    policies: Arc<Policies>,
    publisher: Publisher,
    outcomes: Arc<outcomes::OutcomeMetrics>,
    live: Live,
    clock: StoreClock,
    /// Holds the lock.
    leading: Option<Leader>,
}

/// The accounts nearest to their limits, so many at most.
#[derive(Debug)]
struct Nearest {
    accounts_max: usize,
    /// By rate; positive numbers are in the order of their bits.
    heap: BinaryHeap<Reverse<(u64, String, String)>>,
    left_out: i64,
}

impl Usage {
    /// Takes what it reads by.
    #[must_use]
    pub fn new(pool: PgPool, policies: Arc<Policies>, metrics: &Metrics, live: Live, clock: StoreClock) -> Self {
        let (publisher, outcomes) = (Publisher::new(metrics.part()), metrics.part());
        Self { pool, policies, publisher, outcomes, live, clock, leading: None }
    }

    /// Keeps them until the stop.
    pub async fn run(mut self, mut stopped: Shutdown) {
        let live = self.live.clone();
        let rounds = async {
            let mut well = true;
            loop {
                match self.round(self.clock.now_ms()).await {
                    Ok(()) => {
                        well = true;
                        live.elapse(|now| Duration::from_secs(now.usage_rate_secs)).await;
                    }
                    Err(error) => {
                        // Old metrics would look like current ones.
                        self.leading = None;
                        self.publisher.leave_to_another();
                        self.outcomes.leave_to_another();
                        if std::mem::replace(&mut well, false) {
                            warn_unless_away!(error, "account usage cannot be read");
                        }
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stopped.requested() => {}
            () = rounds => {}
        }
    }

    /// Reads everything once, if this server is the one that publishes.
    ///
    /// # Errors
    /// [`UsageError`] where Postgres gives no answer.
    pub async fn round(&mut self, now_ms: i64) -> Result<(), UsageError> {
        let Some(mut leader) = self.lead().await? else {
            self.publisher.leave_to_another();
            self.outcomes.leave_to_another();
            return Ok(());
        };
        let connection = &mut leader.connection;
        let (warning, critical) = within(sqlx::query_as(ACTIVE).fetch_one(&mut *connection)).await?;
        self.publisher.set_alerts_active(warning, critical);
        self.outcomes.set_open(&within(outcomes::read::open(&mut *connection)).await?);
        let accounts_max = usize::try_from(self.live.current().usage_rate_accounts).unwrap_or(usize::MAX);
        let mut nearest = Nearest { accounts_max, heap: BinaryHeap::new(), left_out: 0 };
        let mut after = StoredAccount::default();
        loop {
            let page = within(StoredAccount::page(&mut *connection, &after)).await?;
            let Some(last) = page.last() else { break };
            after = last.clone();
            for stored in page {
                match self.rate(&stored, now_ms) {
                    Some(rate) if rate > 0.0 => nearest.add(stored.merchant_id, stored.currency, rate),
                    Some(_) => {}
                    None => nearest.left_out += 1,
                }
            }
            // Other tasks run between two pages.
            tokio::task::yield_now().await;
        }
        let (accounts, left_out) = nearest.finish();
        self.publisher.set_usage(accounts, left_out);
        self.leading = Some(leader);
        Ok(())
    }

    /// This server as the one that publishes; `None` if another one does.
    async fn lead(&mut self) -> Result<Option<Leader>, UsageError> {
        match self.leading.take() {
            Some(leader) => Ok(Some(leader)),
            None => within(Leader::elect(&self.pool, LOCK)).await,
        }
    }

    /// The account's usage by the current policy; `None` if no policy is known, so that its limits are unknown.
    fn rate(&self, stored: &StoredAccount, now_ms: i64) -> Option<f64> {
        let (merchant, currency) =
            (MerchantId::parse(&stored.merchant_id).ok()?, Currency::parse(&stored.currency).ok()?);
        let policy = self.policies.peek(&merchant, currency, None, now_ms)?;
        Some(rate(policy.threshold_policy.as_ref()?, &stored.account().rolled(policy.windows_at(now_ms))))
    }
}

/// The largest part of a limit that is used up.
fn rate(policy: &ThresholdPolicy, account: &Account) -> f64 {
    let parts =
        ThresholdPolicy::used(account).into_iter().zip(policy.maxima()).filter(|(_, max)| **max != AmountMinor::MAX);
    // A limit of 0 with any usage is exceeded by all of it.
    parts.map(|(used, max)| used as f64 / max.get().max(1) as f64).fold(0.0, f64::max)
}

impl Nearest {
    fn add(&mut self, merchant_id: String, currency: String, rate: f64) {
        self.heap.push(Reverse((rate.to_bits(), merchant_id, currency)));
        if self.heap.len() > self.accounts_max {
            self.heap.pop();
            self.left_out += 1;
        }
    }

    fn finish(self) -> (Vec<AccountUsage>, i64) {
        let account =
            |Reverse((bits, merchant_id, currency))| AccountUsage { merchant_id, currency, rate: f64::from_bits(bits) };
        (self.heap.into_iter().map(account).collect(), self.left_out)
    }
}

async fn within<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, UsageError> {
    Ok(timeout(READ_TIMEOUT, read).await.map_err(|_| UsageError::Hangs)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota::{Counter, Limits, PerPeriod, Period, Thresholds, WindowIds, WindowLimits};

    fn minor(amount: u64) -> AmountMinor {
        AmountMinor::new(amount).unwrap()
    }

    #[test]
    fn the_limit_that_is_used_up_most_counts_and_closed_windows_do_not() {
        let day = WindowLimits { amount: minor(1_000), count: minor(10), ..WindowLimits::UNLIMITED };
        let month = WindowLimits { amount: minor(2_000), ..WindowLimits::UNLIMITED };
        let limits = Limits { pending: minor(500), ..Limits::UNLIMITED };
        let limits = limits.with(Period::Day, day).with(Period::Month, month);
        let policy = ThresholdPolicy::new(&limits, Thresholds::NONE);
        let ids = PerPeriod { day: 20_261_122, week: 20_261_116, month: 202_611, year: 2026 };
        let now = WindowIds { ids, ..WindowIds::default() };
        let account = |day, amount, count, of_month, pending| Account {
            windows: PerPeriod {
                day: Counter { id: day, amount, count, ..Counter::default() },
                month: Counter { id: 202_611, amount: of_month, ..Counter::default() },
                ..PerPeriod::default()
            },
            pending,
            ..Account::default()
        };
        for (account, expected) in [
            (account(20_261_122, 500, 1, 500, 0), 0.5),
            (account(20_261_122, 500, 9, 500, 0), 0.9),
            (account(20_261_121, 999, 9, 1_500, 0), 0.75),
            // A lagging clock: the later window is the present one.
            (account(20_261_123, 800, 1, 1_500, 0), 0.8),
            (account(20_261_122, 100, 1, 100, 600), 1.2),
            (account(20_261_122, 0, 0, 0, 0), 0.0),
        ] {
            assert!((rate(&policy, &account.rolled(now)) - expected).abs() < 1e-9, "{account:?}");
        }
    }

    #[test]
    fn the_nearest_are_kept_and_the_others_counted() {
        let mut nearest = Nearest { accounts_max: 2, heap: BinaryHeap::new(), left_out: 0 };
        for (merchant, rate) in [("a", 0.5), ("b", 3.0), ("c", 0.25), ("d", 1.0)] {
            nearest.add(merchant.to_owned(), "USD".to_owned(), rate);
        }
        let (mut accounts, left_out) = nearest.finish();
        accounts.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let merchants: Vec<&str> = accounts.iter().map(|account| account.merchant_id.as_str()).collect();
        assert_eq!((merchants, left_out), (vec!["d", "b"], 2));
    }
}
