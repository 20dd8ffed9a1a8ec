//! How near accounts are to their limits, and how many alerts are open: read from Postgres every so often, by one server at
//! a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use quota::{Currency, LimitName, MerchantId, Period, Policy, Watch, WindowIds};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::figures::AccountUsage;
use crate::clock;
use crate::metrics::Metrics;
use crate::policy::Policies;
use crate::settings::Live;

/// Accounts that are read at once.
const ACCOUNTS_PER_PAGE: i64 = 1_000;
/// How long one reading may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failure Postgres is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Held by the one server that tells; any number that nothing else uses.
const LOCK: i64 = 0x51_75_6f_74_61_08;

const PAGE: &str = "SELECT merchant_id, currency::text AS currency, daily_window, daily_used, daily_count, monthly_window, \
        monthly_used, monthly_count, yearly_window, yearly_used, yearly_count, pending_amount \
    FROM quota_account WHERE (merchant_id, currency) > ($1, $2::text::char(3)) \
    ORDER BY merchant_id, currency LIMIT $3";
const ACTIVE: &str = "SELECT count(*) FILTER (WHERE alert_level = 'warning'), \
        count(*) FILTER (WHERE alert_level = 'critical') \
    FROM quota_alert WHERE resolved_at IS NULL";

/// Why a round broke off.
#[derive(Debug, Error)]
pub enum UsageError {
    #[error("postgres gave no answer: {0}")]
    Database(#[from] sqlx::Error),
    #[error("postgres gave no answer within {READ_TIMEOUT:?}")]
    Hangs,
}

/// Keeps the figures.
#[derive(Debug)]
pub struct Usage {
    pool: PgPool,
    policies: Arc<Policies>,
    metrics: Arc<Metrics>,
    live: Live,
    /// Holds the lock.
    leading: Option<PgConnection>,
}

/// An account's figures, in the windows that it was last changed in.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    merchant_id: String,
    currency: String,
    daily_window: i32,
    daily_used: i64,
    daily_count: i64,
    monthly_window: i32,
    monthly_used: i64,
    monthly_count: i64,
    yearly_window: i32,
    yearly_used: i64,
    yearly_count: i64,
    pending_amount: i64,
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
    pub const fn new(pool: PgPool, policies: Arc<Policies>, metrics: Arc<Metrics>, live: Live) -> Self {
        Self { pool, policies, metrics, live, leading: None }
    }

    /// Keeps them until the stop.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let live = self.live.clone();
        let rounds = async {
            let mut well = true;
            loop {
                match self.round(clock::now_ms()).await {
                    Ok(()) => {
                        well = true;
                        live.elapse(|now| Duration::from_secs(now.usage_rate_secs)).await;
                    }
                    Err(error) => {
                        // Old figures would look like present ones.
                        self.leading = None;
                        self.metrics.live.leave_to_another();
                        if std::mem::replace(&mut well, false) {
                            warn!(%error, "the usage of accounts cannot be told");
                        }
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                }
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = rounds => {}
        }
    }

    /// Reads everything once, where this server is the one that tells.
    ///
    /// # Errors
    /// [`UsageError`] where Postgres gives no answer.
    pub async fn round(&mut self, now_ms: i64) -> Result<(), UsageError> {
        let Some(mut connection) = self.lead().await? else {
            self.metrics.live.leave_to_another();
            return Ok(());
        };
        let (warning, critical) = within(sqlx::query_as(ACTIVE).fetch_one(&mut connection)).await?;
        self.metrics.live.set_alerts_active(warning, critical);
        let accounts_max = usize::try_from(self.live.current().usage_rate_accounts).unwrap_or(usize::MAX);
        let mut nearest = Nearest { accounts_max, heap: BinaryHeap::new(), left_out: 0 };
        let (mut merchant_id, mut currency) = (String::new(), String::new());
        loop {
            let page = sqlx::query_as(PAGE).bind(&merchant_id).bind(&currency).bind(ACCOUNTS_PER_PAGE);
            let rows: Vec<Row> = within(page.fetch_all(&mut connection)).await?;
            let Some(last) = rows.last() else { break };
            (merchant_id, currency) = (last.merchant_id.clone(), last.currency.clone());
            for row in rows {
                match self.rate(&row, now_ms) {
                    Some(rate) if rate > 0.0 => nearest.add(row.merchant_id, row.currency, rate),
                    Some(_) => {}
                    None => nearest.left_out += 1,
                }
            }
            // Requests go on between two pages.
            tokio::task::yield_now().await;
        }
        let (accounts, left_out) = nearest.finish();
        self.metrics.live.set_usage(&accounts, left_out);
        self.leading = Some(connection);
        Ok(())
    }

    /// The connection that holds the lock; `None` where another server's does.
    async fn lead(&mut self) -> Result<Option<PgConnection>, UsageError> {
        if let Some(connection) = self.leading.take() {
            return Ok(Some(connection));
        }
        // The lock goes with the connection.
        let mut connection = within(self.pool.acquire()).await?.detach();
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK);
        if within(lock.fetch_one(&mut connection)).await? {
            return Ok(Some(connection));
        }
        within(connection.close()).await?;
        Ok(None)
    }

    /// The account's usage by the policy of now; `None` where no policy of its own is known, so that nobody knows its limits.
    fn rate(&self, row: &Row, now_ms: i64) -> Option<f64> {
        let (merchant, currency) = (MerchantId::parse(&row.merchant_id).ok()?, Currency::parse(&row.currency).ok()?);
        let policy: Arc<Policy> = self.policies.peek(&merchant, currency, None, now_ms)?;
        Some(row.rate(policy.watch.as_ref()?.maxima(), policy.windows_at(now_ms)))
    }
}

impl Row {
    fn rate(&self, maxima: &[quota::AmountMinor; Watch::LIMITS.len()], now: WindowIds) -> f64 {
        let parts = Watch::LIMITS.into_iter().zip(maxima).filter(|(_, max)| **max != quota::AmountMinor::MAX);
        // A limit of nothing that something was counted against is exceeded by all of it.
        parts.map(|(limit, max)| self.used(limit, now) as f64 / max.get().max(1) as f64).fold(0.0, f64::max)
    }

    /// What counts against the limit now. A window that is over counts nothing.
    fn used(&self, limit: LimitName, now: WindowIds) -> i64 {
        let (window, now, amount, count) = match limit.period() {
            Some(Period::Day) => (self.daily_window, now.day, self.daily_used, self.daily_count),
            Some(Period::Month) => (self.monthly_window, now.month, self.monthly_used, self.monthly_count),
            Some(Period::Year) => (self.yearly_window, now.year, self.yearly_used, self.yearly_count),
            None => return self.pending_amount,
        };
        let is_over = i64::from(window) < i64::from(now);
        match (is_over, limit.is_count()) {
            (true, _) => 0,
            (false, true) => count,
            (false, false) => amount,
        }
    }
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
    use quota::{AmountMinor, Limits, Thresholds, WindowLimits};

    fn minor(amount: u64) -> AmountMinor {
        AmountMinor::new(amount).unwrap()
    }

    #[test]
    fn the_limit_that_is_used_up_most_counts_and_closed_windows_do_not() {
        let limits = Limits {
            day: WindowLimits { amount: minor(1_000), count: minor(10) },
            month: WindowLimits { amount: minor(2_000), ..WindowLimits::UNLIMITED },
            pending: minor(500),
            ..Limits::UNLIMITED
        };
        let watch = Watch::new(&limits, Thresholds::NONE);
        let now = WindowIds { day: 20_261_122, month: 202_611, year: 2026 };
        let row = |daily_window, daily_used, daily_count, monthly_used, pending_amount| Row {
            merchant_id: String::new(),
            currency: String::new(),
            daily_window,
            daily_used,
            daily_count,
            monthly_window: 202_611,
            monthly_used,
            monthly_count: daily_count,
            yearly_window: 2026,
            yearly_used: monthly_used,
            yearly_count: daily_count,
            pending_amount,
        };
        for (row, rate) in [
            (row(20_261_122, 500, 1, 500, 0), 0.5),
            (row(20_261_122, 500, 9, 500, 0), 0.9),
            (row(20_261_121, 999, 9, 1_500, 0), 0.75),
            // A lagging clock: the later window is the present one.
            (row(20_261_123, 800, 1, 1_500, 0), 0.8),
            (row(20_261_122, 100, 1, 100, 600), 1.2),
            (row(20_261_122, 0, 0, 0, 0), 0.0),
        ] {
            assert!((row.rate(watch.maxima(), now) - rate).abs() < 1e-9, "{row:?}");
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
