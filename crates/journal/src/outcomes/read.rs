//! Rows of `unknown_outcome`: lists, one of them, and their manual resolution.

use chrono::{DateTime, Utc};
use quota::{Currency, MerchantId, Resolution};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

use sluice_store::resolution_word;

const SELECT: &str = "SELECT outcome_id, merchant_id, currency, order_no, attempt, operation, operation_id, operation_no, amount, \
    reason, since, resolved_at, resolution, resolved_by, resolved_event_id, note FROM unknown_outcome WHERE true";
/// Rows that are open, by operation.
const OPEN: &str = "SELECT operation, count(*) AS count, \
        extract(epoch FROM greatest(now() - min(since), interval '0'))::float8 AS oldest_secs \
    FROM unknown_outcome WHERE resolved_at IS NULL GROUP BY operation";
const CLOSE: &str = "UPDATE unknown_outcome SET resolved_at = greatest(now(), since), resolution = $2, resolved_by = $3, note = $4 \
    WHERE outcome_id = $1 AND resolved_at IS NULL";

/// An operation whose outcome at the gateway is or was unknown. Amounts are in minor units.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, FromRow)]
pub struct UnknownOutcome {
    /// The usage log's row that reported it.
    pub outcome_id: Uuid,
    #[schema(example = "merchant-001")]
    pub merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = "ORDER-001")]
    pub order_no: String,
    /// The request through the proxy that was left open.
    pub attempt: Option<Uuid>,
    /// What was asked of the gateway: `consume`, `hold`, `settle`, `refund` or `void`.
    #[schema(example = "consume")]
    pub operation: String,
    /// The key of a capture or refund within its order.
    #[serde(skip)]
    pub operation_id: Option<Uuid>,
    /// The caller's number of a capture or refund.
    pub operation_no: Option<String>,
    /// What was asked for; 0 where the request named no amount.
    #[schema(example = 50000)]
    pub amount: i64,
    /// Why it is unknown: a status as in `status_503`, a response flag of Envoy as in `flag_UC`, or another word.
    #[schema(example = "status_503")]
    pub reason: String,
    pub since: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
    /// `made` or `not_made`.
    pub resolution: Option<String>,
    /// `proxy` where the gateway's later word resolved it.
    pub resolved_by: Option<String>,
    /// The usage log's row that resolved it; absent where nothing had to be changed.
    pub resolved_event_id: Option<Uuid>,
    /// Why, in the words of who resolved it by hand, or the operation that did.
    pub note: Option<String>,
}

/// How many outcomes of an operation are open, and since when.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct Open {
    pub operation: String,
    pub count: i64,
    pub oldest_secs: f64,
}

/// What became of an outcome, by the person who resolves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Verdict {
    /// The gateway did what was asked: the charge stays, the capture, refund or void is booked.
    Made,
    /// The gateway did not do what was asked: the charge comes back, a reserved refund is cancelled.
    NotMade,
}

impl Verdict {
    /// The word of the column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        resolution_word(self.resolution())
    }

    /// The same for a charge.
    #[must_use]
    pub const fn resolution(self) -> Resolution {
        match self {
            Self::Made => Resolution::Made,
            Self::NotMade => Resolution::NotMade,
        }
    }
}

/// A filter of outcomes; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub merchant: Option<MerchantId>,
    pub currency: Option<Currency>,
    pub operation: Option<String>,
    /// Only those that are this old at least, in seconds.
    pub older_than_secs: Option<i64>,
    /// Resolved ones as well.
    pub with_resolved: bool,
}

/// At most `limit` outcomes, the oldest first; `after` is the cursor of the last one that was read.
///
/// # Errors
/// Those of Postgres.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<UnknownOutcome>, sqlx::Error> {
    let mut sql = QueryBuilder::<Postgres>::new(SELECT);
    if !filter.with_resolved {
        sql.push(" AND resolved_at IS NULL");
    }
    if let Some(merchant) = &filter.merchant {
        sql.push(" AND merchant_id = ").push_bind(merchant.as_str().to_owned());
    }
    if let Some(currency) = filter.currency {
        sql.push(" AND currency = ").push_bind(currency.code().to_owned());
    }
    if let Some(operation) = &filter.operation {
        sql.push(" AND operation = ").push_bind(operation.clone());
    }
    if let Some(secs) = filter.older_than_secs {
        sql.push(" AND since <= now() - make_interval(secs => ").push_bind(secs as f64).push(")");
    }
    if let Some((since, id)) = after {
        sql.push(" AND (since, outcome_id) > (").push_bind(since).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY since, outcome_id LIMIT ").push_bind(limit);
    sql.build_query_as().fetch_all(pool).await
}

/// One of them; `None` where there is none, or it is not of `merchant`.
///
/// # Errors
/// Those of Postgres.
pub async fn get(
    pool: &PgPool,
    merchant: Option<&MerchantId>,
    outcome_id: Uuid,
) -> Result<Option<UnknownOutcome>, sqlx::Error> {
    let mut sql = QueryBuilder::<Postgres>::new(SELECT);
    sql.push(" AND outcome_id = ").push_bind(outcome_id);
    if let Some(merchant) = merchant {
        sql.push(" AND merchant_id = ").push_bind(merchant.as_str().to_owned());
    }
    sql.build_query_as().fetch_optional(pool).await
}

/// Closes one, if it is still open: the journal may have been first.
///
/// # Errors
/// Those of Postgres.
pub async fn close(pool: &PgPool, outcome_id: Uuid, verdict: Verdict, by: &str, note: &str) -> Result<(), sqlx::Error> {
    let query = sqlx::query(CLOSE).bind(outcome_id).bind(verdict.as_str()).bind(by).bind(note);
    query.execute(pool).await.map(drop)
}

/// Open outcomes, for the metrics.
///
/// # Errors
/// Those of Postgres.
pub async fn open<'e>(executor: impl sqlx::PgExecutor<'e>) -> Result<Vec<Open>, sqlx::Error> {
    sqlx::query_as(OPEN).fetch_all(executor).await
}
