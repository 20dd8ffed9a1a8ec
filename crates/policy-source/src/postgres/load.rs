//! All policies in Postgres that are or will be in force, read in one statement, and their merge with the policy file.

use std::collections::HashMap;
use std::sync::Arc;

use quota::{Channel, MerchantId};
use serde::Deserialize;
use sluice_policy::{PolicyError, PolicyFields, PolicyOverride, PolicyRule, PolicySet, Scope, Span, TierBinding};
use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

use sluice_kit::clock;
use sluice_kit::database::change::ChangeError;

use super::checks;
use super::model::{Binding, LimitPolicy, Override, Tier};

/// One statement sees one state of all tables.
const STATEMENT: &str = "\
    SELECT 'tier' AS kind, to_jsonb(t)::text AS body FROM tier t WHERE deleted_at IS NULL \
    UNION ALL SELECT 'policy', to_jsonb(p)::text FROM limit_policy p \
        WHERE state = 'active' AND (expiry_date IS NULL OR expiry_date > now() - interval '1 day') \
    UNION ALL SELECT 'binding', to_jsonb(b)::text FROM merchant_tier b \
        WHERE ended_at IS NULL AND (expiry_date IS NULL OR expiry_date > now() - interval '1 day') \
    UNION ALL SELECT 'override', to_jsonb(o)::text FROM policy_override o \
        WHERE approved_at IS NOT NULL AND revoked_at IS NULL AND expiry_date > now() - interval '1 day'";
/// SQLSTATE of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";

/// Why the policies in Postgres were not taken.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    #[error("a row of `{kind}` cannot be read: {problem}")]
    Row { kind: String, problem: String },
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The rows that are in force or will be.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    digest: u64,
    read_at_ms: i64,
    tiers: Vec<Tier>,
    policies: Vec<LimitPolicy>,
    bindings: Vec<Binding>,
    overrides: Vec<Override>,
}

impl Rows {
    /// Reads them. Before the tables exist there are none.
    ///
    /// # Errors
    /// [`LoadError`] where Postgres cannot be read, or a row is of another form.
    pub async fn read(connection: &mut PgConnection) -> Result<Self, LoadError> {
        let lines: Vec<(String, String)> = match sqlx::query_as(STATEMENT).fetch_all(connection).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNDEFINED_TABLE) => Vec::new(),
            other => other?,
        };
        let mut rows = Self { read_at_ms: clock::now_ms(), ..Self::default() };
        for (kind, body) in lines {
            // A sum, because the rows come in any order.
            rows.digest = rows.digest.wrapping_add(xxhash_rust::xxh3::xxh3_64(body.as_bytes()));
            match kind.as_str() {
                "tier" => rows.tiers.push(parse(&kind, &body)?),
                "policy" => rows.policies.push(parse(&kind, &body)?),
                "binding" => rows.bindings.push(parse(&kind, &body)?),
                _ => rows.overrides.push(parse(&kind, &body)?),
            }
        }
        // Where nothing else decides, the later one wins.
        rows.policies.sort_by_key(|row| (row.created_at, row.policy_id));
        rows.bindings.sort_by_key(|row| (row.effective_date, row.created_at, row.binding_id));
        rows.overrides.sort_by_key(|row| (row.created_at, row.override_id));
        Ok(rows)
    }

    /// A hash of the content.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether nothing is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.bindings.is_empty() && self.overrides.is_empty() && self.tiers.is_empty()
    }

    /// Whether there is no policy among them: tiers and bindings alone limit nothing.
    #[must_use]
    pub const fn has_no_policy(&self) -> bool {
        self.policies.is_empty()
    }

    /// Adds the rows to the policies of a file: where both cover the same scope, channel and currency, the row wins; a row
    /// inherits from the file's tiers and default too.
    ///
    /// # Errors
    /// [`PolicyError`] names the row and the field.
    pub fn join(&self, file: Option<&PolicySet>) -> Result<PolicySet, PolicyError> {
        let version = format!("postgres:{:08x}", self.digest >> 32);
        let mut set = match file {
            Some(file) => {
                let mut set = file.clone();
                set.next_source(&version);
                set
            }
            None => PolicySet::new(version),
        };
        let codes: HashMap<Uuid, &str> =
            self.tiers.iter().map(|tier| (tier.tier_id, tier.tier_code.as_str())).collect();
        self.tiers.iter().try_for_each(|tier| add_tier(&mut set, tier))?;
        self.policies.iter().try_for_each(|policy| add_policy(&mut set, policy, &codes))?;
        self.bindings.iter().try_for_each(|binding| self.add_binding(&mut set, binding, &codes))?;
        self.overrides.iter().try_for_each(|item| add_override(&mut set, item))?;
        Ok(set)
    }

    fn add_binding(&self, set: &mut PolicySet, row: &Binding, codes: &HashMap<Uuid, &str>) -> Result<(), PolicyError> {
        let path = format!("merchant_tier {}", row.binding_id);
        let read = || -> Result<(MerchantId, TierBinding), ChangeError> {
            let tier = tier_code(codes, row.tier_id)?.to_owned();
            let mut span = checks::span(Some(row.effective_date), row.expiry_date)?;
            // The time before is never queried; merchants that are bound without an end share their tier's policies.
            if span.from_ms <= self.read_at_ms {
                span.from_ms = i64::MIN;
            }
            Ok((checks::merchant(&row.merchant_id)?, TierBinding { path: path.clone(), tier, priority: 0, span }))
        };
        let (merchant, binding) = read().map_err(|error| located(&path, error))?;
        set.bind(&merchant, binding)
    }
}

fn parse<'a, T: Deserialize<'a>>(kind: &str, body: &'a str) -> Result<T, LoadError> {
    serde_json::from_str(body).map_err(|error| LoadError::Row { kind: kind.to_owned(), problem: error.to_string() })
}

fn add_tier(set: &mut PolicySet, tier: &Tier) -> Result<(), PolicyError> {
    let path = format!("tier {}", tier.tier_code);
    set.add_tier(&tier.tier_code);
    let fields = checks::allowed(tier.allowed_channels.as_deref(), tier.allowed_currencies.as_deref());
    let fields = fields.map_err(|error| located(&path, error))?;
    if fields.is_empty() {
        return Ok(());
    }
    let rule = PolicyRule {
        path,
        version: format!("tier:{}@{}", tier.tier_id, tier.revision).into(),
        channel: None,
        currency: None,
        priority: 0,
        span: Span::ALWAYS,
        fields,
    };
    set.add_to_tier(&tier.tier_code, rule)
}

fn add_policy(set: &mut PolicySet, row: &LimitPolicy, codes: &HashMap<Uuid, &str>) -> Result<(), PolicyError> {
    let path = format!("limit_policy {} version {}", row.policy_id, row.version);
    let read = || -> Result<(Scope, PolicyRule), ChangeError> {
        let scope = match (&row.merchant_id, row.tier_id) {
            (Some(merchant), _) => Scope::Merchant(checks::merchant(merchant)?),
            (None, Some(tier)) => Scope::Tier(tier_code(codes, tier)?.to_owned()),
            (None, None) => Scope::Default,
        };
        let rule = PolicyRule {
            path: path.clone(),
            version: format!("policy:{}@{}", row.policy_id, row.version).into(),
            channel: checks::channel(&row.channel)?,
            currency: row.currency.as_deref().map(checks::currency).transpose()?,
            priority: row.priority,
            span: checks::span(row.effective_date, row.expiry_date)?,
            fields: row.fields()?,
        };
        Ok((scope, rule))
    };
    let (scope, rule) = read().map_err(|error| located(&path, error))?;
    set.add(&scope, rule)
}

fn add_override(set: &mut PolicySet, row: &Override) -> Result<(), PolicyError> {
    let path = format!("policy_override {}", row.override_id);
    let read = || -> Result<PolicyOverride, ChangeError> {
        let channel: Option<Channel> = checks::channel(&row.channel)?;
        let fields: PolicyFields = row.fields()?;
        Ok(PolicyOverride {
            path: path.clone(),
            version: Arc::from(format!("override:{}", row.override_id)),
            merchant: checks::merchant(&row.merchant_id)?,
            channel,
            currency: row.currency.as_deref().map(checks::currency).transpose()?,
            span: checks::span(Some(row.effective_date), Some(row.expiry_date))?,
            fields,
        })
    };
    set.add_override(read().map_err(|error| located(&path, error))?)
}

fn tier_code<'a>(codes: &HashMap<Uuid, &'a str>, tier: Uuid) -> Result<&'a str, ChangeError> {
    codes.get(&tier).copied().ok_or_else(|| ChangeError::invalid("tier_id", "there is no such tier"))
}

/// A row's problem as one of the set.
fn located(path: &str, error: ChangeError) -> PolicyError {
    match error {
        ChangeError::Invalid { field, problem } => PolicyError::Field { field: format!("{path}.{field}"), problem },
        other @ (ChangeError::NotFound(_)
        | ChangeError::Conflict(_)
        | ChangeError::FourEyes
        | ChangeError::Database(_)) => PolicyError::Field { field: path.to_owned(), problem: other.to_string() },
    }
}
