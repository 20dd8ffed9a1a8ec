//! Orders that the store has evicted, rebuilt from the usage log, so that they can still be captured, voided and refunded.
//!
//! A rebuilt order must be exact: a refund that the log does not have yet would be given back twice. So nothing is rebuilt
//! while an event that could be the order's waits for the journal, is missing or was set aside.

mod rebuild;

use std::time::Duration;

use quota::{AmountMinor, Currency, MerchantId, Order, OrderNo, OrderState, PostingKind};
use sqlx::PgPool;
use thiserror::Error;
use uuid::Uuid;

use sluice_kit::health::Away;
use sluice_store::{RedisStore, Store, StoreError};

use rebuild::{HistoryRow, Rebuilt};

/// Rows that one order's history may have. An order takes 33 captures and refunds; the rest are reservations of refunds that
/// were cancelled or repeated.
const ROWS_MAX: i64 = 2_000;
/// Servers' clocks are no further apart than this.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(300);

/// Why an order cannot be rebuilt now.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// Events that may be the order's have not reached Postgres.
    #[error("the journal is behind: an event has waited for {waiting_secs} s, try again later")]
    Behind { waiting_secs: u64 },
    /// Events that may be the order's never reached Postgres.
    #[error("the journal has a gap that the order's events may lie in: see journal_anomaly and journal_rejected")]
    Gap,
    /// The order has more rows than are read.
    #[error("the order has more than {ROWS_MAX} rows in the usage log")]
    Long,
    /// A row that no decision can have made.
    #[error("the usage log cannot be read as an order's history: {0}")]
    Corrupt(String),
    /// The store did not report the waiting events.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Postgres gave no answer.
    #[error("the journal's database gave no answer: {0}")]
    Database(#[from] sqlx::Error),
}

impl Away for HistoryError {
    fn is_away(&self) -> bool {
        match self {
            Self::Store(error) => error.is_away(),
            Self::Database(error) => error.is_away(),
            Self::Behind { .. } | Self::Gap | Self::Long | Self::Corrupt(_) => false,
        }
    }
}

/// The order as the usage log has it; `None` where it was never charged or all of its charge was taken back. For orders that
/// the store does not have; `order_ttl_secs` is how long it keeps one.
///
/// # Errors
/// [`HistoryError`] where the log cannot be read, or may be incomplete.
pub async fn find(
    pool: &PgPool,
    store: &RedisStore,
    merchant: &MerchantId,
    order_no: &OrderNo,
    order_ttl_secs: u32,
) -> Result<Option<Order>, HistoryError> {
    find_at(pool, store, merchant, order_no, order_ttl_secs, store.now_ms()).await
}

/// [`find`] as of `now_ms`, milliseconds since the epoch.
///
/// # Errors
/// As for [`find`].
pub async fn find_at(
    pool: &PgPool,
    store: &RedisStore,
    merchant: &MerchantId,
    order_no: &OrderNo,
    order_ttl_secs: u32,
    now_ms: i64,
) -> Result<Option<Order>, HistoryError> {
    // Checked before the rows are read: events that do not wait any more are among them.
    is_complete(store, merchant, order_ttl_secs, now_ms).await?;
    let rows = rows(pool, merchant, order_no).await?;
    if usize::try_from(ROWS_MAX).is_ok_and(|max| rows.len() >= max) {
        return Err(HistoryError::Long);
    }
    let Some(rebuilt) = rebuild::order(&rows)? else { return Ok(None) };
    if has_gap(pool, order_no, &rebuilt).await? {
        return Err(HistoryError::Gap);
    }
    Ok(Some(rebuilt.evicted_at(now_ms.saturating_add(millis(CLOCKS_APART_MAX)), order_ttl_secs)))
}

/// A posting to a credit line, as the order that the store keeps for it; `None` where there is none under this number. For
/// postings that the store may have evicted.
///
/// # Errors
/// As for [`find`].
pub async fn posting(
    pool: &PgPool,
    store: &RedisStore,
    merchant: &MerchantId,
    (kind, number): (PostingKind, &OrderNo),
    order_ttl_secs: u32,
) -> Result<Option<Order>, HistoryError> {
    is_complete(store, merchant, order_ttl_secs, store.now_ms()).await?;
    let statement = "SELECT event_id, currency::text, amount FROM credit_entry \
        WHERE merchant_id = $1 AND kind = $2 AND posting_no = $3 ORDER BY entry_id LIMIT 1";
    let query = sqlx::query_as(statement).bind(merchant.as_str()).bind(kind.as_str()).bind(number.as_str());
    let found: Option<(Uuid, String, i64)> = query.fetch_optional(pool).await?;
    let Some((event_id, currency, amount)) = found else { return Ok(None) };
    let parsed = Currency::parse(&currency).ok().zip(AmountMinor::new(amount.unsigned_abs()));
    let (currency, amount) = parsed.ok_or_else(|| HistoryError::Corrupt(format!("posting {number}")))?;
    Ok(Some(Order { amount, state: OrderState::Charged, ..Order::open(currency, event_id.into_bytes()) }))
}

/// Whether every event of an order that the store has evicted is in Postgres: it was evicted `order_ttl_secs` after its last
/// event, so that event is older than those that wait.
///
/// # Errors
/// [`HistoryError::Behind`] where it may not be; [`HistoryError::Store`] where the store gives no answer.
pub async fn is_complete(
    store: &RedisStore,
    merchant: &MerchantId,
    order_ttl_secs: u32,
    now_ms: i64,
) -> Result<(), HistoryError> {
    let Some(oldest) = store.oldest_waiting(merchant).await? else { return Ok(()) };
    let waiting_ms = now_ms.saturating_sub(oldest.at_ms);
    // Where the setting was raised since, earlier orders were evicted sooner.
    let ttl_secs = if oldest.order_ttl_secs > 0 { order_ttl_secs.min(oldest.order_ttl_secs) } else { order_ttl_secs };
    if waiting_ms < i64::from(ttl_secs) * 1000 - millis(CLOCKS_APART_MAX) {
        return Ok(());
    }
    Err(HistoryError::Behind { waiting_secs: waiting_ms.unsigned_abs() / 1000 })
}

/// Changes of the order, oldest first. The sequence orders events exactly; where Redis reused numbers, time decides.
async fn rows(pool: &PgPool, merchant: &MerchantId, order_no: &OrderNo) -> Result<Vec<HistoryRow>, sqlx::Error> {
    let statement = "SELECT event_id, at, shard, seq, action_type, code, currency::text AS currency, amount, attempt, \
            weight_bp, units_per_payment, counted_in, \
            operation_id, daily_window, daily_epoch, weekly_window, weekly_epoch, monthly_window, monthly_epoch, yearly_window, yearly_epoch, \
            credit_cycle, \
            coalesce(order_state, CASE code WHEN 'VOIDED' THEN 'open' ELSE 'charged' END) AS order_state, \
            coalesce(order_settled, 0) AS order_settled, coalesce(order_refunded, 0) AS order_refunded, \
            order_ttl_secs, hold_until, hold_on_expiry, change \
        FROM usage_log WHERE order_no = $1 AND merchant_id = $2 AND success AND code IN ('ADMITTED', 'APPLIED', 'VOIDED') \
            AND action_type IN ('consume', 'hold', 'void', 'settle', 'reserve_refund', 'refund', 'release', 'expire', \
                'unknown', 'resolve', 'extend_hold') \
            AND (NOT replay OR action_type = 'reserve_refund') \
        ORDER BY seq, at LIMIT $3";
    let query = sqlx::query_as(statement).bind(order_no.as_str()).bind(merchant.as_str()).bind(ROWS_MAX);
    query.fetch_all(pool).await
}

/// Whether an event that could be the order's is missing, or was set aside unread. A set-aside event still contains the order's
/// number.
async fn has_gap(pool: &PgPool, order_no: &OrderNo, rebuilt: &Rebuilt) -> Result<bool, sqlx::Error> {
    let statement = "SELECT EXISTS (SELECT FROM journal_anomaly WHERE shard = $1 AND kind = 'missing' \
            AND resolved_at IS NULL AND last_seq > $2) \
        OR EXISTS (SELECT FROM journal_rejected, unnest(fields) AS field \
            WHERE shard = $1 AND position($3 IN field) > 0)";
    let query = sqlx::query_scalar(statement).bind(rebuilt.shard).bind(rebuilt.charged_seq);
    query.bind(order_no.as_str().as_bytes()).fetch_one(pool).await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
