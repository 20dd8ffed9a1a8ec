//! The repository's other half: tiers, bindings and overrides.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sluice_kit::database::change::{By, ChangeError, json, read, read_all};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::model::{Binding, BindingInput, Override, OverrideInput, Tier, TierInput};
use super::repository::{PolicyRepository, ROWS_MAX, limit_columns};

type Result<T> = std::result::Result<T, ChangeError>;

/// The columns of an override that a caller gives.
static GIVEN: LazyLock<String> = LazyLock::new(|| {
    let limits = limit_columns();
    format!(
        "merchant_id, channel, currency, single_trans_min, single_trans_max, {limits}, effective_date, expiry_date, reason"
    )
});

/// Which bindings or overrides a list has; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct ScopeFilter {
    pub merchant_id: Option<String>,
    /// For bindings only.
    pub tier_id: Option<Uuid>,
    /// Only those in force now.
    pub in_force: bool,
}

impl PolicyRepository {
    /// A new tier.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field; [`ChangeError::Conflict`] where the code is taken.
    pub async fn create_tier(&self, by: By<'_>, input: &TierInput) -> Result<Tier> {
        input.check()?;
        let mut transaction = self.begin(by, "create").await?;
        let statement = "INSERT INTO tier AS t (created_by, tier_code, tier_level, allowed_channels, allowed_currencies, remarks) \
            SELECT $2, tier_code, tier_level, allowed_channels, allowed_currencies, remarks \
            FROM jsonb_populate_record(NULL::tier, $1::jsonb) RETURNING to_jsonb(t)::text";
        let query = sqlx::query_scalar(statement).bind(json(input)?).bind(by.actor.as_str());
        let created = read(query.fetch_one(&mut *transaction).await?)?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(created)
    }

    /// Changes a tier; it holds for its merchants at once. Its code stays.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field; [`ChangeError::Conflict`] where `expected_revision` is not the
    /// present one.
    pub async fn update_tier(
        &self,
        by: By<'_>,
        tier: Uuid,
        input: &TierInput,
        expected_revision: Option<i64>,
    ) -> Result<Tier> {
        input.check()?;
        let mut transaction = self.begin(by, "update").await?;
        let statement = "SELECT to_jsonb(t)::text FROM tier t WHERE tier_id = $1 AND deleted_at IS NULL FOR UPDATE";
        let present: Option<String> =
            sqlx::query_scalar(statement).bind(tier).fetch_optional(&mut *transaction).await?;
        let present: Tier = present.ok_or(ChangeError::NotFound("tier")).and_then(read)?;
        if expected_revision.is_some_and(|expected| expected != present.revision) {
            let found = present.revision;
            return Err(ChangeError::Conflict(format!("the tier is at revision {found}: read it again")));
        }
        if present.tier_code != input.tier_code {
            return Err(ChangeError::invalid("tier_code", "cannot change; create another tier"));
        }
        let statement = "UPDATE tier t SET (tier_level, allowed_channels, allowed_currencies, remarks) = \
            (SELECT tier_level, allowed_channels, allowed_currencies, remarks \
             FROM jsonb_populate_record(NULL::tier, $1::jsonb)), updated_at = now(), revision = revision + 1 \
            WHERE tier_id = $2 RETURNING to_jsonb(t)::text";
        let query = sqlx::query_scalar(statement).bind(json(input)?).bind(tier);
        let changed = read(query.fetch_one(&mut *transaction).await?)?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Deletes a tier that no binding and no active policy names any more.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] where one does.
    pub async fn delete_tier(&self, by: By<'_>, tier: Uuid) -> Result<()> {
        let mut transaction = self.begin(by, "delete").await?;
        let statement = "SELECT EXISTS (SELECT FROM merchant_tier WHERE tier_id = $1 AND ended_at IS NULL \
                AND (expiry_date IS NULL OR expiry_date > now())) \
            OR EXISTS (SELECT FROM limit_policy WHERE tier_id = $1 AND state <> 'inactive')";
        if sqlx::query_scalar::<_, bool>(statement).bind(tier).fetch_one(&mut *transaction).await? {
            let problem = "the tier has merchants, or policies that are not inactive: end them first";
            return Err(ChangeError::Conflict(problem.to_owned()));
        }
        let statement = "UPDATE tier SET deleted_at = now(), updated_at = now(), revision = revision + 1 \
                         WHERE tier_id = $1 AND deleted_at IS NULL";
        let deleted = sqlx::query(statement).bind(tier).execute(&mut *transaction).await?;
        if deleted.rows_affected() == 0 {
            return Err(ChangeError::NotFound("tier"));
        }
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// One tier.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn get_tier(&self, tier: Uuid) -> Result<Tier> {
        let statement = "SELECT to_jsonb(t)::text FROM tier t WHERE tier_id = $1 AND deleted_at IS NULL";
        let found: Option<String> = sqlx::query_scalar(statement).bind(tier).fetch_optional(&self.pool).await?;
        found.ok_or(ChangeError::NotFound("tier")).and_then(read)
    }

    /// Tiers, the newest first.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list_tiers(&self, after: Option<(DateTime<Utc>, Uuid)>, limit: i64) -> Result<Vec<Tier>> {
        let statement = "SELECT to_jsonb(t)::text FROM tier t WHERE deleted_at IS NULL \
            AND ($1::timestamptz IS NULL OR (created_at, tier_id) < ($1, $2)) \
            ORDER BY created_at DESC, tier_id DESC LIMIT $3";
        let query = sqlx::query_scalar(statement).bind(after.map(|(at, _)| at)).bind(after.map(|(_, id)| id));
        read_all(query.bind(limit.clamp(1, ROWS_MAX)).fetch_all(&self.pool).await?)
    }

    /// Binds a merchant to a tier.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub async fn bind(&self, by: By<'_>, input: &BindingInput) -> Result<Binding> {
        input.check()?;
        let by = By { reason: by.reason.or(Some(&input.change_reason)), ..by };
        self.get_tier(input.tier_id).await.map_err(|error| match error {
            ChangeError::NotFound(_) => ChangeError::invalid("tier_id", "there is no such tier"),
            other => other,
        })?;
        let mut transaction = self.begin(by, "bind").await?;
        let statement = "INSERT INTO merchant_tier AS b (changed_by, merchant_id, tier_id, effective_date, expiry_date, change_reason) \
            SELECT $2, merchant_id, tier_id, coalesce(effective_date, now()), expiry_date, change_reason \
            FROM jsonb_populate_record(NULL::merchant_tier, $1::jsonb) RETURNING to_jsonb(b)::text";
        let query = sqlx::query_scalar(statement).bind(json(input)?).bind(by.actor.as_str());
        let bound = read(query.fetch_one(&mut *transaction).await?)?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(bound)
    }

    /// Ends a binding before its time.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] where it has ended already or never was.
    pub async fn unbind(&self, by: By<'_>, binding: Uuid) -> Result<Binding> {
        let mut transaction = self.begin(by, "unbind").await?;
        let statement = "UPDATE merchant_tier b SET ended_by = $2, ended_at = now() \
                         WHERE binding_id = $1 AND ended_at IS NULL RETURNING to_jsonb(b)::text";
        let query = sqlx::query_scalar(statement).bind(binding).bind(by.actor.as_str());
        let ended: Option<String> = query.fetch_optional(&mut *transaction).await?;
        let ended = ended.ok_or(ChangeError::NotFound("binding")).and_then(read)?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(ended)
    }

    /// Bindings, the newest first.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list_bindings(
        &self,
        filter: &ScopeFilter,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
    ) -> Result<Vec<Binding>> {
        let statement = "SELECT to_jsonb(b)::text FROM merchant_tier b WHERE ($1::text IS NULL OR merchant_id = $1) \
            AND ($2::uuid IS NULL OR tier_id = $2) AND (NOT $3 OR (ended_at IS NULL AND effective_date <= now() \
                AND (expiry_date IS NULL OR expiry_date > now()))) \
            AND ($4::timestamptz IS NULL OR (created_at, binding_id) < ($4, $5)) \
            ORDER BY created_at DESC, binding_id DESC LIMIT $6";
        let query = sqlx::query_scalar(statement).bind(&filter.merchant_id).bind(filter.tier_id).bind(filter.in_force);
        let query = query.bind(after.map(|(at, _)| at)).bind(after.map(|(_, id)| id));
        read_all(query.bind(limit.clamp(1, ROWS_MAX)).fetch_all(&self.pool).await?)
    }

    /// Creates an override; it is in force once another person approves it.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub async fn create_override(&self, by: By<'_>, input: &OverrideInput) -> Result<Override> {
        input.check()?;
        let by = By { reason: by.reason.or(Some(&input.reason)), ..by };
        let mut transaction = self.begin(by, "create").await?;
        let given = GIVEN.as_str();
        let statement = format!(
            "INSERT INTO policy_override AS o (created_by, {given}) SELECT $2, {given} \
             FROM jsonb_populate_record(NULL::policy_override, $1::jsonb) RETURNING to_jsonb(o)::text"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(json(input)?).bind(by.actor.as_str());
        let created = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(created)
    }

    /// Approves an override, which puts it in force for its time; its author cannot.
    ///
    /// # Errors
    /// [`ChangeError::FourEyes`]; [`ChangeError::Conflict`] where it is approved or revoked already;
    /// [`ChangeError::Invalid`] where it contradicts what it would lie over.
    pub async fn approve_override(&self, by: By<'_>, id: Uuid) -> Result<Override> {
        let mut transaction = self.begin(by, "approve").await?;
        let statement = "SELECT to_jsonb(o)::text FROM policy_override o WHERE override_id = $1 FOR UPDATE";
        let present: Option<String> = sqlx::query_scalar(statement).bind(id).fetch_optional(&mut *transaction).await?;
        let present: Override = present.ok_or(ChangeError::NotFound("override")).and_then(read)?;
        if present.approved_at.is_some() || present.revoked_at.is_some() {
            return Err(ChangeError::Conflict("the override is approved or revoked already".to_owned()));
        }
        if present.created_by == by.actor.as_str() {
            return Err(ChangeError::FourEyes);
        }
        let statement = "UPDATE policy_override o SET approved_by = $2, approved_at = now() \
                         WHERE override_id = $1 RETURNING to_jsonb(o)::text";
        let query = sqlx::query_scalar(statement).bind(id).bind(by.actor.as_str());
        let approved = read(query.fetch_one(&mut *transaction).await?)?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(approved)
    }

    /// Ends an override before its time, approved or not.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] where it never was or is revoked already.
    pub async fn revoke_override(&self, by: By<'_>, id: Uuid) -> Result<Override> {
        let mut transaction = self.begin(by, "revoke").await?;
        let statement = "UPDATE policy_override o SET revoked_by = $2, revoked_at = now() \
                         WHERE override_id = $1 AND revoked_at IS NULL RETURNING to_jsonb(o)::text";
        let query = sqlx::query_scalar(statement).bind(id).bind(by.actor.as_str());
        let revoked: Option<String> = query.fetch_optional(&mut *transaction).await?;
        let revoked = revoked.ok_or(ChangeError::NotFound("override")).and_then(read)?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(revoked)
    }

    /// One override.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn get_override(&self, id: Uuid) -> Result<Override> {
        let statement = "SELECT to_jsonb(o)::text FROM policy_override o WHERE override_id = $1";
        let found: Option<String> = sqlx::query_scalar(statement).bind(id).fetch_optional(&self.pool).await?;
        found.ok_or(ChangeError::NotFound("override")).and_then(read)
    }

    /// Overrides, the newest first.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list_overrides(
        &self,
        filter: &ScopeFilter,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
    ) -> Result<Vec<Override>> {
        let statement = "SELECT to_jsonb(o)::text FROM policy_override o WHERE ($1::text IS NULL OR merchant_id = $1) \
            AND (NOT $2 OR (approved_at IS NOT NULL AND revoked_at IS NULL AND effective_date <= now() \
                AND expiry_date > now())) \
            AND ($3::timestamptz IS NULL OR (created_at, override_id) < ($3, $4)) \
            ORDER BY created_at DESC, override_id DESC LIMIT $5";
        let query = sqlx::query_scalar(statement).bind(&filter.merchant_id).bind(filter.in_force);
        let query = query.bind(after.map(|(at, _)| at)).bind(after.map(|(_, id)| id));
        read_all(query.bind(limit.clamp(1, ROWS_MAX)).fetch_all(&self.pool).await?)
    }
}
