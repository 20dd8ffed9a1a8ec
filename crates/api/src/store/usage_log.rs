//! Rows of the usage log and their totals.

use chrono::{DateTime, Utc};
use quota::{Code, Currency, MerchantId, OrderNo};
use serde::Serialize;
use sluice_journal::usage_log::UsageLog;
use sqlx::{PgPool, Postgres, QueryBuilder};
use utoipa::ToSchema;

use crate::admin::page::TimeId;

/// Most groups of totals; currencies times actions times codes stay far below.
const GROUPS_MAX: i64 = 10_000;

/// Amounts are added up as far as they fit into 64 bits.
const TOTALS: &str = "SELECT currency, action_type, code, success, count(*) AS count, count(*) FILTER (WHERE replay) AS replays, \
    least(coalesce(sum(amount) FILTER (WHERE NOT replay), 0), 9223372036854775807)::bigint AS amount \
    FROM usage_log WHERE true";

/// Checked conditions on rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsageFilter {
    pub merchant: Option<MerchantId>,
    pub order: Option<OrderNo>,
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
    pub action: Option<&'static str>,
    pub code: Option<Code>,
    pub currency: Option<Currency>,
    pub success: Option<bool>,
}

/// The totals of one kind of answer.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub(crate) struct UsageTotal {
    pub currency: Option<String>,
    pub action_type: String,
    pub code: String,
    pub success: bool,
    /// Commands, repetitions included.
    pub count: i64,
    /// Of these, repetitions, which changed nothing.
    pub replays: i64,
    /// What the commands named, without repetitions, in minor units; at most 2^63 - 1.
    pub amount: i64,
}

impl UsageFilter {
    /// At most `limit` rows, the newest first, from the given position on.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub(crate) async fn rows(
        &self,
        pool: &PgPool,
        after: Option<TimeId>,
        limit: i64,
    ) -> Result<Vec<UsageLog>, sqlx::Error> {
        let mut sql = QueryBuilder::new(format!("SELECT {} FROM usage_log WHERE true", UsageLog::COLUMNS));
        self.push(&mut sql);
        if let Some(TimeId(at, id)) = after {
            // Two conditions: the first lets Postgres skip whole partitions and the index's beginning.
            sql.push(" AND at <= ").push_bind(at);
            sql.push(" AND (at, event_id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        sql.push(" ORDER BY at DESC, event_id DESC LIMIT ").push_bind(limit);
        sql.build_query_as().fetch_all(pool).await
    }

    /// Totals by currency, action and code, the most frequent first.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub(crate) async fn totals(&self, pool: &PgPool) -> Result<Vec<UsageTotal>, sqlx::Error> {
        let mut sql = QueryBuilder::new(TOTALS);
        self.push(&mut sql);
        sql.push(
            " GROUP BY currency, action_type, code, success ORDER BY count DESC, currency, action_type, code LIMIT ",
        );
        sql.push_bind(GROUPS_MAX).build_query_as().fetch_all(pool).await
    }

    /// Adds the conditions. Only those that there are, so that Postgres plans for just them.
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(merchant) = &self.merchant {
            sql.push(" AND merchant_id = ").push_bind(merchant.as_str().to_owned());
        }
        if let Some(order) = &self.order {
            sql.push(" AND order_no = ").push_bind(order.as_str().to_owned());
        }
        if let Some(from) = self.from {
            sql.push(" AND at >= ").push_bind(from);
        }
        if let Some(to) = self.to {
            sql.push(" AND at < ").push_bind(to);
        }
        if let Some(action) = self.action {
            sql.push(" AND action_type = ").push_bind(action);
        }
        if let Some(code) = self.code {
            sql.push(" AND code = ").push_bind(code.as_str());
        }
        if let Some(currency) = self.currency {
            sql.push(" AND currency = ").push_bind(currency.code().to_owned());
        }
        if let Some(success) = self.success {
            sql.push(" AND success = ").push_bind(success);
        }
    }
}
