//! Operations on policies: draft, approve by another person, activate, deactivate; every step is recorded. The tables' own
//! rules (`0003_limit_policy.sql`) apply to any writer; here they become errors that name the field.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use quota::LimitName;
use sluice_kit::database::change::{By, ChangeError, json, read, read_all};
use sluice_policy::ZoneSource;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::checks::required;
use super::error::of_policy;
use super::load::{LoadError, Rows};
use super::model::{Change, LimitPolicy, PolicyInput, PolicyState, PolicyStatus};
use crate::Policies;

/// The columns of a policy that a caller gives.
static GIVEN: LazyLock<String> = LazyLock::new(|| {
    let limits = limit_columns();
    format!(
        "merchant_id, tier_id, channel, currency, single_trans_min, single_trans_max, {limits}, timezone, cutoff_hour, \
         week_starts_on, allowed_channels, allowed_currencies, weight_bp, units_per_payment, breach, throttle_per_minute, throttle_burst, \
         throttle_delay_ms_max, throttle_ceiling_percent, hold_lifetime_secs, hold_on_expiry, over_capture_percent, \
         on_unknown_credit, trust, trust_above_percent, trust_share_percent, trust_ttl_ms, thresholds, unknown_merchants, effective_date, expiry_date, priority, metadata, remarks"
    )
});

/// The columns of the limits.
pub(super) fn limit_columns() -> String {
    LimitName::ALL.map(LimitName::column).join(", ")
}

/// Most rows of one page, whatever the caller requests.
pub(super) const ROWS_MAX: i64 = 1_001;

/// Serializes changes and their checks; any number that nothing else uses.
const CHANGE_LOCK: i64 = 0x51_75_6f_74_61_04;

/// Which versions of policies a list has; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct PolicyFilter {
    pub policy_id: Option<Uuid>,
    pub merchant_id: Option<String>,
    pub tier_id: Option<Uuid>,
    pub channel: Option<String>,
    pub currency: Option<String>,
    pub status: Option<PolicyStatus>,
    pub state: Option<PolicyState>,
}

/// Policies, tiers, bindings and overrides in Postgres.
#[derive(Clone, Debug)]
pub struct PolicyRepository {
    pub(super) pool: PgPool,
    policies: Arc<Policies>,
}

type Result<T> = std::result::Result<T, ChangeError>;

impl PolicyRepository {
    /// Works in the pool's database. A change must be consistent with what else is in force in `policies`.
    #[must_use]
    pub fn new(pool: PgPool, policies: Arc<Policies>) -> Self {
        Self { pool, policies }
    }

    /// Checks a policy before it is compiled with the others.
    fn check(&self, input: &PolicyInput) -> Result<()> {
        input.check()?;
        match &input.timezone {
            Some(zone) => self
                .policies
                .zones()
                .zone(zone)
                .map(drop)
                .map_err(|error| ChangeError::Invalid { field: "timezone".to_owned(), problem: error.to_string() }),
            None => Ok(()),
        }
    }

    /// A new policy, as a draft.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub async fn create(&self, by: By<'_>, input: &PolicyInput) -> Result<LimitPolicy> {
        self.check(input)?;
        let mut transaction = self.begin(by, "create").await?;
        let given = GIVEN.as_str();
        let statement = format!(
            "INSERT INTO limit_policy AS p (created_by, edited_by, {given}) SELECT $2, ARRAY[$2], {given} \
             FROM jsonb_populate_record(NULL::limit_policy, $1::jsonb) RETURNING to_jsonb(p)::text"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(json(input)?).bind(by.actor.as_str());
        let created = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(created)
    }

    /// Changes a policy that is pending, which voids its approval; of one that is active or inactive, drafts the next version.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field; [`ChangeError::Conflict`] where `expected_revision` is not the
    /// present one.
    pub async fn update(
        &self,
        by: By<'_>,
        policy: Uuid,
        input: &PolicyInput,
        expected_revision: Option<i64>,
    ) -> Result<LimitPolicy> {
        self.check(input)?;
        let mut transaction = self.begin(by, "update").await?;
        let present = latest(&mut transaction, policy).await?;
        ChangeError::expect_revision("policy", present.revision, expected_revision)?;
        same_scope(&present, input)?;
        let given = GIVEN.as_str();
        let statement = match present.state {
            PolicyState::Draft | PolicyState::Approved => format!(
                "UPDATE limit_policy p SET ({given}) = (SELECT {given} \
                 FROM jsonb_populate_record(NULL::limit_policy, $1::jsonb)), state = 'draft', approved_by = NULL, \
                 approved_at = NULL, updated_at = now(), revision = revision + 1, edited_by = CASE \
                 WHEN $2 = ANY (edited_by) THEN edited_by ELSE edited_by || $2 END \
                 WHERE policy_id = $3 AND version = $4 RETURNING to_jsonb(p)::text"
            ),
            PolicyState::Active | PolicyState::Inactive => format!(
                "INSERT INTO limit_policy AS p (policy_id, version, created_by, edited_by, {given}) \
                 SELECT $3, $4 + 1, $2, ARRAY[$2], {given} FROM jsonb_populate_record(NULL::limit_policy, $1::jsonb) RETURNING to_jsonb(p)::text"
            ),
        };
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(json(input)?).bind(by.actor.as_str());
        let changed = read(query.bind(policy).bind(present.version).fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Approves the draft; its authors cannot.
    ///
    /// # Errors
    /// [`ChangeError::FourEyes`], and [`ChangeError::Conflict`] where there is no draft, or another one than
    /// `expected_revision`.
    pub async fn approve(&self, by: By<'_>, policy: Uuid, expected_revision: Option<i64>) -> Result<LimitPolicy> {
        let mut transaction = self.begin(by, "approve").await?;
        let present = latest(&mut transaction, policy).await?;
        ChangeError::expect_revision("policy", present.revision, expected_revision)?;
        in_state(&present, PolicyState::Draft, "approved")?;
        let actor = by.actor.as_str();
        if present.created_by == actor || present.edited_by.iter().any(|name| name == actor) {
            return Err(ChangeError::FourEyes);
        }
        let statement = "UPDATE limit_policy p SET state = 'approved', approved_by = $3, approved_at = now(), \
                         updated_at = now(), revision = revision + 1 \
                         WHERE policy_id = $1 AND version = $2 RETURNING to_jsonb(p)::text";
        let query = sqlx::query_scalar(statement).bind(policy).bind(present.version).bind(actor);
        let approved = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(approved)
    }

    /// Puts the approved version in force, in the place of the active one. Everything that is in force then is compiled
    /// first: what contradicts it is refused.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] where there is no approved version; [`ChangeError::Invalid`] for a contradiction.
    pub async fn activate(&self, by: By<'_>, policy: Uuid, expected_revision: Option<i64>) -> Result<LimitPolicy> {
        let mut transaction = self.begin(by, "activate").await?;
        let present = latest(&mut transaction, policy).await?;
        ChangeError::expect_revision("policy", present.revision, expected_revision)?;
        in_state(&present, PolicyState::Approved, "activated")?;
        let replaced = "UPDATE limit_policy SET state = 'inactive', updated_at = now(), revision = revision + 1 \
                        WHERE policy_id = $1 AND state = 'active'";
        sqlx::query(replaced).bind(policy).execute(&mut *transaction).await?;
        let activated = set_state(&mut transaction, &present, PolicyState::Active).await?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(activated)
    }

    /// Takes the active version out of force.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] where no version is active.
    pub async fn deactivate(&self, by: By<'_>, policy: Uuid) -> Result<LimitPolicy> {
        let mut transaction = self.begin(by, "deactivate").await?;
        latest(&mut transaction, policy).await?;
        let statement =
            "SELECT to_jsonb(p)::text FROM limit_policy p WHERE policy_id = $1 AND state = 'active' FOR UPDATE";
        let active: Option<String> =
            sqlx::query_scalar(statement).bind(policy).fetch_optional(&mut *transaction).await?;
        let active = active.ok_or_else(|| ChangeError::Conflict("no version of the policy is active".to_owned()))?;
        let ended = set_state(&mut transaction, &read(active)?, PolicyState::Inactive).await?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(ended)
    }

    /// Makes every version inactive; nothing is removed.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] for a policy that does not exist.
    pub async fn delete(&self, by: By<'_>, policy: Uuid) -> Result<LimitPolicy> {
        let mut transaction = self.begin(by, "delete").await?;
        latest(&mut transaction, policy).await?;
        let statement = "UPDATE limit_policy SET state = 'inactive', updated_at = now(), revision = revision + 1 \
                         WHERE policy_id = $1 AND state <> 'inactive'";
        sqlx::query(statement).bind(policy).execute(&mut *transaction).await?;
        let left = latest(&mut transaction, policy).await?;
        self.check_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(left)
    }

    /// One version of a policy; the latest where none is named.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn get(&self, policy: Uuid, version: Option<i32>) -> Result<LimitPolicy> {
        let statement = "SELECT to_jsonb(p)::text FROM limit_policy p \
                         WHERE policy_id = $1 AND ($2::integer IS NULL OR version = $2) ORDER BY version DESC LIMIT 1";
        let found: Option<String> =
            sqlx::query_scalar(statement).bind(policy).bind(version).fetch_optional(&self.pool).await?;
        found.ok_or(ChangeError::NotFound("policy")).and_then(read)
    }

    /// Versions of policies, the newest first, those made before `after` (time and id of the last one of the page before).
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list(
        &self,
        filter: &PolicyFilter,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
    ) -> Result<Vec<LimitPolicy>> {
        let statement = "SELECT to_jsonb(p)::text FROM limit_policy p WHERE ($1::uuid IS NULL OR policy_id = $1) \
            AND ($2::text IS NULL OR merchant_id = $2) AND ($3::uuid IS NULL OR tier_id = $3) \
            AND ($4::text IS NULL OR channel = $4) AND ($5::text IS NULL OR currency = $5) \
            AND ($6::text IS NULL OR status = $6) AND ($7::text IS NULL OR state = $7) \
            AND ($8::timestamptz IS NULL OR (created_at, policy_id) < ($8, $9)) \
            ORDER BY created_at DESC, policy_id DESC LIMIT $10";
        let query = sqlx::query_scalar(statement).bind(filter.policy_id).bind(&filter.merchant_id);
        let query = query.bind(filter.tier_id).bind(&filter.channel).bind(&filter.currency);
        let query = query.bind(filter.status.map(<&str>::from)).bind(filter.state.map(<&str>::from));
        let query = query.bind(after.map(|(at, _)| at)).bind(after.map(|(_, id)| id)).bind(limit.clamp(1, ROWS_MAX));
        read_all(query.fetch_all(&self.pool).await?)
    }

    /// The changes of a policy, tier, binding or override, the latest first, those before `after`.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn history(&self, object: Uuid, after: Option<i64>, limit: i64) -> Result<Vec<Change>> {
        let statement = "SELECT to_jsonb(h)::text FROM limit_policy_history h WHERE object_id = $1 \
                         AND ($2::bigint IS NULL OR history_id < $2) ORDER BY history_id DESC LIMIT $3";
        let query = sqlx::query_scalar(statement).bind(object).bind(after).bind(limit.clamp(1, ROWS_MAX));
        read_all(query.fetch_all(&self.pool).await?)
    }

    /// Begins a transaction whose changes are recorded under the caller's name; one at a time, until its end.
    pub(super) async fn begin(&self, by: By<'_>, action: &str) -> Result<Transaction<'static, Postgres>> {
        if let Some(reason) = by.reason {
            required("reason", reason)?;
        }
        let mut transaction = self.pool.begin().await?;
        // Before anything is read: two changes may each be consistent with the rest, and contradict each other.
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CHANGE_LOCK).execute(&mut *transaction).await?;
        by.record(&mut transaction, action).await?;
        Ok(transaction)
    }

    /// Compiles what would be in force after the transaction.
    pub(super) async fn check_whole(&self, transaction: &mut Transaction<'static, Postgres>) -> Result<()> {
        let rows = match Rows::read(transaction).await {
            Ok(rows) => rows,
            Err(LoadError::Sql(error)) => return Err(error.into()),
            Err(error @ (LoadError::Row { .. } | LoadError::Policy(_))) => {
                return Err(ChangeError::Conflict(format!("policies in the database must be fixed first: {error}")));
            }
        };
        self.policies.try_rows(rows).await.map_err(of_policy)
    }
}

/// The latest version of a policy, locked until the end of the transaction.
async fn latest(transaction: &mut Transaction<'static, Postgres>, policy: Uuid) -> Result<LimitPolicy> {
    let statement = "SELECT to_jsonb(p)::text FROM limit_policy p WHERE policy_id = $1 \
                     ORDER BY version DESC LIMIT 1 FOR UPDATE";
    let found: Option<String> = sqlx::query_scalar(statement).bind(policy).fetch_optional(&mut **transaction).await?;
    found.ok_or(ChangeError::NotFound("policy")).and_then(read)
}

async fn set_state(
    transaction: &mut Transaction<'static, Postgres>,
    present: &LimitPolicy,
    state: PolicyState,
) -> Result<LimitPolicy> {
    let statement = "UPDATE limit_policy p SET state = $3, updated_at = now(), revision = revision + 1 \
                     WHERE policy_id = $1 AND version = $2 RETURNING to_jsonb(p)::text";
    let query = sqlx::query_scalar(statement).bind(present.policy_id).bind(present.version).bind(state.into_str());
    read(query.fetch_one(&mut **transaction).await?)
}

fn in_state(present: &LimitPolicy, state: PolicyState, done: &str) -> Result<()> {
    if present.state == state {
        return Ok(());
    }
    let (expected, found) = (state.into_str(), present.state.into_str());
    Err(ChangeError::Conflict(format!("only a policy in state {expected} can be {done}; this one is {found}")))
}

/// A policy keeps its scope: decisions and history name it.
fn same_scope(present: &LimitPolicy, input: &PolicyInput) -> Result<()> {
    let changed = [
        ("merchant_id", present.merchant_id != input.merchant_id),
        ("tier_id", present.tier_id != input.tier_id),
        ("channel", present.channel != input.channel),
        ("currency", present.currency != input.currency),
    ];
    match changed.into_iter().find(|(_, changed)| *changed) {
        Some((field, _)) => Err(ChangeError::invalid(field, "cannot change; create another policy")),
        None => Ok(()),
    }
}
