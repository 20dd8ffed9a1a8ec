//! Numbers of alerts in a period: by type, level, merchant and state.

use quota::MerchantId;
use serde::Serialize;
use sqlx::{PgPool, QueryBuilder};
use utoipa::ToSchema;

use super::{FOR_MERCHANTS, Filter};
use crate::Level;

/// Most merchants in an answer, those with the most alerts. Types do not reach this number in practice.
const GROUPS_MAX: i64 = 100;

/// Counts by state.
const COUNTS: &str = "count(*) AS count, \
    count(*) FILTER (WHERE a.resolved_at IS NULL AND a.acknowledged_at IS NULL) AS open, \
    count(*) FILTER (WHERE a.resolved_at IS NULL AND a.acknowledged_at IS NOT NULL) AS acknowledged, \
    count(*) FILTER (WHERE a.resolved_at IS NOT NULL) AS resolved FROM quota_alert a WHERE true";

/// A number of alerts, and of these those in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = AlertCounts)]
pub struct Counts {
    pub count: i64,
    /// Neither acknowledged nor resolved.
    pub open: i64,
    /// Acknowledged and not resolved.
    pub acknowledged: i64,
    pub resolved: i64,
}

/// Alerts of one type.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = AlertsOfType)]
pub struct OfType {
    pub alert_type: String,
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub counts: Counts,
}

/// Alerts of one level.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = AlertsOfLevel)]
pub struct OfLevel {
    #[sqlx(try_from = "String")]
    pub alert_level: Level,
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub counts: Counts,
}

/// Alerts of one merchant.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = AlertsOfMerchant)]
pub struct OfMerchant {
    /// Absent for what concerns operators only.
    pub merchant_id: Option<String>,
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub counts: Counts,
}

/// Alerts of a time.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AlertTotals)]
pub struct Totals {
    #[serde(flatten)]
    pub counts: Counts,
    /// The most frequent first, 100 at most.
    pub by_type: Vec<OfType>,
    pub by_level: Vec<OfLevel>,
    /// Those with the most alerts first, 100 at most.
    pub by_merchant: Vec<OfMerchant>,
}

/// Counts the alerts that the filter takes, all at the same moment; those of one merchant where the caller sees no other.
///
/// # Errors
/// Those of Postgres.
pub async fn count(pool: &PgPool, own: Option<&MerchantId>, filter: &Filter) -> Result<Totals, sqlx::Error> {
    let query = |column: &str| {
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(column).push(if column.is_empty() { "" } else { ", " }).push(COUNTS);
        filter.push(&mut sql);
        if own.is_some() {
            sql.push(FOR_MERCHANTS);
        }
        if !column.is_empty() {
            sql.push(" GROUP BY ").push(column).push(" ORDER BY count DESC, ").push(column).push(" LIMIT ");
            sql.push_bind(GROUPS_MAX);
        }
        sql
    };
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let totals = Totals {
        counts: query("").build_query_as().fetch_one(&mut *transaction).await?,
        by_type: query("a.alert_type").build_query_as().fetch_all(&mut *transaction).await?,
        by_level: query("a.alert_level").build_query_as().fetch_all(&mut *transaction).await?,
        by_merchant: query("a.merchant_id").build_query_as().fetch_all(&mut *transaction).await?,
    };
    transaction.commit().await?;
    Ok(totals)
}
