//! Promises to pay, in Postgres. Rows are only added.

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::Pause;
use sluice_kit::database::change::{By, ChangeError, read, read_all};
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::{LineKey, repository};

type Result<T> = std::result::Result<T, ChangeError>;

/// A pause as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PauseRow {
    pub pause_id: i64,
    /// The first day on which days past due are not counted.
    #[schema(value_type = String, format = Date)]
    pub from_day: Date,
    /// The last one.
    #[schema(value_type = String, format = Date)]
    pub to_day: Date,
    /// What was promised.
    pub reason: String,
    pub approved_by: String,
    pub created_at: DateTime<Utc>,
}

/// Pauses of credit lines in Postgres.
#[derive(Clone, Debug)]
pub struct PauseRepository {
    pool: PgPool,
}

impl PauseRepository {
    /// Works in the pool's database.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Accepts a promise to pay.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub async fn accept(&self, by: By<'_>, key: &LineKey, from: Date, to: Date, reason: &str) -> Result<PauseRow> {
        let pause = Pause { from, to, reason: reason.to_owned(), approved_by: by.actor.to_string() };
        pause.validate().map_err(|invalid| ChangeError::invalid(&invalid.member, invalid.problem))?;
        if reason.contains('\0') {
            return Err(ChangeError::invalid("reason", "must have no NUL character"));
        }
        let mut transaction = repository::begin(&self.pool, by, "pause").await?;
        repository::of_key(&mut transaction, key).await?;
        let statement = "INSERT INTO credit_pause AS p (merchant_id, currency, from_day, to_day, reason, approved_by) \
            VALUES ($1, $2, $3::date, $4::date, $5, $6) RETURNING to_jsonb(p)::text";
        let query = sqlx::query_scalar(statement).bind(key.0.as_str()).bind(key.1.code()).bind(from.to_string());
        let query = query.bind(to.to_string()).bind(reason).bind(by.actor.as_str());
        let stored = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(stored)
    }

    /// The pauses of a line, the latest first, those before `after`.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list(&self, key: &LineKey, after: Option<i64>, limit: i64) -> Result<Vec<PauseRow>> {
        let statement = "SELECT to_jsonb(p)::text FROM credit_pause p WHERE merchant_id = $1 AND currency = $2 \
            AND ($3::bigint IS NULL OR pause_id < $3) ORDER BY pause_id DESC LIMIT $4";
        let query = sqlx::query_scalar(statement).bind(key.0.as_str()).bind(key.1.code()).bind(after);
        read_all(query.bind(limit.clamp(1, repository::ROWS_MAX)).fetch_all(&self.pool).await?)
    }
}
