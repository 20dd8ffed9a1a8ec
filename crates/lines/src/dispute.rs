//! Disputes of payers, as they are reported: an input of scorecards.

use chrono::{DateTime, Utc};
use jiff::Span;
use jiff::civil::Date;
use quota::OperationNo;
use serde::{Deserialize, Serialize};
use sluice_credit::AMOUNT_MAX;
use sluice_kit::database::change::{By, ChangeError, read, read_all};
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::LineKey;

/// Longest remark, in characters.
const REMARKS_MAX: usize = 2_000;
/// How long ago a dispute may have been opened.
const DISPUTE_YEARS_MAX: i64 = 30;

/// A dispute to be recorded.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DisputeInput {
    /// The idempotency key: the same number with the same day and amount is recorded once.
    #[schema(example = "DISPUTE-001", max_length = 128)]
    pub dispute_no: String,
    /// The business day on which the payer opened it; today where none is given.
    #[schema(value_type = Option<String>, format = Date)]
    pub opened_on: Option<Date>,
    /// What is disputed, minor units.
    #[schema(example = 2_500, minimum = 1)]
    pub amount: i64,
    /// A note.
    #[schema(max_length = 2000)]
    pub remarks: Option<String>,
}

/// A dispute as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DisputeRow {
    pub dispute_id: i64,
    pub dispute_no: String,
    #[schema(value_type = String, format = Date)]
    pub opened_on: Date,
    /// Minor units.
    pub amount: i64,
    pub remarks: Option<String>,
    pub recorded_by: String,
    pub recorded_at: DateTime<Utc>,
}

impl DisputeInput {
    fn check(&self, today: Date) -> Result<Date, ChangeError> {
        let invalid = |field, problem: String| Err(ChangeError::invalid(field, problem));
        if let Err(error) = OperationNo::parse(&self.dispute_no) {
            return invalid("dispute_no", error.to_string());
        }
        if !(1..=AMOUNT_MAX).contains(&self.amount) {
            return invalid("amount", format!("must be 1 to {AMOUNT_MAX} minor units"));
        }
        let is_long = |remarks: &String| remarks.contains('\0') || remarks.chars().count() > REMARKS_MAX;
        if self.remarks.as_ref().is_some_and(is_long) {
            return invalid("remarks", format!("must have at most {REMARKS_MAX} characters, none of them NUL"));
        }
        match self.opened_on.unwrap_or(today) {
            later if later > today => invalid("opened_on", format!("is in the future: the business day is {today}")),
            old if old < today.saturating_sub(Span::new().years(DISPUTE_YEARS_MAX)) => {
                invalid("opened_on", format!("must be within {DISPUTE_YEARS_MAX} years before {today}"))
            }
            opened_on => Ok(opened_on),
        }
    }
}

/// Disputes in Postgres.
#[derive(Clone, Debug)]
pub struct DisputeRepository {
    pool: PgPool,
}

impl DisputeRepository {
    /// Works in the pool's database.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Records a dispute, once. `today` is the account's business day.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field; [`ChangeError::Conflict`] where the number was recorded with another day or
    /// amount.
    pub async fn record(
        &self,
        by: By<'_>,
        key: &LineKey,
        input: &DisputeInput,
        today: Date,
    ) -> Result<DisputeRow, ChangeError> {
        let opened_on = input.check(today)?;
        let statement = "INSERT INTO credit_dispute (merchant_id, currency, dispute_no, opened_on, amount, remarks, recorded_by) \
            VALUES ($1, $2, $3, $4::date, $5, $6, $7) ON CONFLICT (merchant_id, currency, dispute_no) DO NOTHING";
        let query = sqlx::query(statement).bind(key.0.as_str()).bind(key.1.code()).bind(&input.dispute_no);
        let query = query.bind(opened_on.to_string()).bind(input.amount).bind(&input.remarks);
        query.bind(by.actor.as_str()).execute(&self.pool).await?;
        let statement = "SELECT to_jsonb(d)::text FROM credit_dispute d \
            WHERE merchant_id = $1 AND currency = $2 AND dispute_no = $3";
        let query = sqlx::query_scalar(statement).bind(key.0.as_str()).bind(key.1.code()).bind(&input.dispute_no);
        let stored: DisputeRow = read(query.fetch_one(&self.pool).await?)?;
        let is_same = stored.amount == input.amount && input.opened_on.is_none_or(|day| day == stored.opened_on);
        if is_same {
            return Ok(stored);
        }
        let DisputeRow { opened_on, amount, .. } = stored;
        Err(ChangeError::Conflict(format!("the dispute was recorded with the day {opened_on} and the amount {amount}")))
    }

    /// The disputes of a line, the latest first, those before `after`.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list(&self, key: &LineKey, after: Option<i64>, limit: i64) -> Result<Vec<DisputeRow>, ChangeError> {
        let statement = "SELECT to_jsonb(d)::text FROM credit_dispute d WHERE merchant_id = $1 AND currency = $2 \
            AND ($3::bigint IS NULL OR dispute_id < $3) ORDER BY dispute_id DESC LIMIT $4";
        let query = sqlx::query_scalar(statement).bind(key.0.as_str()).bind(key.1.code()).bind(after);
        read_all(query.bind(limit).fetch_all(&self.pool).await?)
    }
}
