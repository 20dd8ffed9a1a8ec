//! Overrides of grades, in Postgres: one person asks for another grade until a day, a second one approves it.

use jiff::civil::Date;
use sluice_credit::{Grade, GradeOverride};
use sluice_kit::database::change::{By, ChangeError, read};
use sqlx::PgPool;

use crate::grade::columns;
use crate::{GradeRow, LineKey, Scorecards, repository};

type Result<T> = std::result::Result<T, ChangeError>;

/// Overrides of grades in Postgres.
#[derive(Clone, Debug)]
pub struct OverrideRepository {
    pool: PgPool,
}

impl OverrideRepository {
    /// Works in the pool's database.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Asks for another grade until a day. It is in force once another person has approved it.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub async fn request(
        &self,
        by: By<'_>,
        key: &LineKey,
        grade: Grade,
        expires_on: Date,
        today: Date,
    ) -> Result<GradeRow> {
        let reason = by.reason.unwrap_or_default().to_owned();
        let by_hand =
            GradeOverride { grade, reason, expires_on, requested_by: by.actor.to_string(), approved_by: None };
        by_hand.validate(today).map_err(|invalid| ChangeError::invalid(&invalid.member, invalid.problem))?;
        let mut transaction = repository::begin(&self.pool, by, "grade").await?;
        repository::of_key(&mut transaction, key).await?;
        let statement = "INSERT INTO credit_grade AS g (merchant_id, currency, kind, grade, on_day, changed_on, reason, \
                expires_on, requested_by) \
            VALUES ($1, $2, 'override', $3, $4::date, $4::date, $5, $6::date, $7) RETURNING to_jsonb(g)::text";
        let query = sqlx::query_scalar(statement).bind(key.0.as_str()).bind(key.1.code()).bind(grade.as_str());
        let query = query.bind(today.to_string()).bind(by_hand.reason).bind(expires_on.to_string());
        let stored = read(query.bind(by.actor.as_str()).fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(stored)
    }

    /// Approves the override of a grade that another person asked for. It gets the terms that the scorecard in force has for its grade.
    ///
    /// # Errors
    /// [`ChangeError::FourEyes`]; [`ChangeError::Conflict`] where it is approved already, or over.
    pub async fn approve(&self, by: By<'_>, key: &LineKey, grade_id: i64, today: Date) -> Result<GradeRow> {
        let mut transaction = repository::begin(&self.pool, by, "grade").await?;
        let statement = "SELECT to_jsonb(g)::text FROM credit_grade g \
            WHERE grade_id = $1 AND merchant_id = $2 AND currency = $3 AND kind = 'override' FOR UPDATE";
        let query = sqlx::query_scalar(statement).bind(grade_id).bind(key.0.as_str()).bind(key.1.code());
        let found: Option<String> = query.fetch_optional(&mut *transaction).await?;
        let present: GradeRow = read(found.ok_or(ChangeError::NotFound("override of a grade"))?)?;
        if present.approved_by.is_some() {
            return Err(ChangeError::Conflict("the override is approved already".to_owned()));
        }
        if present.expires_on.is_some_and(|last| last < today) {
            return Err(ChangeError::Conflict("the override is over: ask for another one".to_owned()));
        }
        if present.requested_by == by.actor.as_str() {
            return Err(ChangeError::FourEyes);
        }
        let [due_days, minimum_bp] = columns(Scorecards::read(&mut *transaction).await?.terms_of(present.grade));
        let statement = "UPDATE credit_grade g SET approved_by = $2, approved_at = now(), approved_on = $3::date, due_days = $4, \
            minimum_bp = $5 WHERE grade_id = $1 RETURNING to_jsonb(g)::text";
        let query = sqlx::query_scalar(statement).bind(grade_id).bind(by.actor.as_str()).bind(today.to_string());
        let query = query.bind(due_days).bind(minimum_bp);
        let approved = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(approved)
    }
}
