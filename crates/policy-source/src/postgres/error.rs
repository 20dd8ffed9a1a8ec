//! Why an operation of the repository is refused or failed.

use sluice_policy::PolicyError;
use thiserror::Error;

/// A refused or failed operation. The sentences are safe to show a caller, but for [`RepositoryError::Database`].
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Its state does not allow the operation, or another caller was faster.
    #[error("{0}")]
    Conflict(String),
    /// An invalid field.
    #[error("`{field}`: {problem}")]
    Invalid { field: String, problem: String },
    /// Its author cannot approve it.
    #[error("another person than the one who wrote it must approve it")]
    FourEyes,
    /// Postgres is unavailable or refuses.
    #[error("the database cannot be used: {0}")]
    Database(sqlx::Error),
}

/// SQLSTATE of rows that break a rule of the table, or of its triggers.
const UNIQUE_VIOLATION: &str = "23505";
const FOREIGN_KEY_VIOLATION: &str = "23503";
const RESTRICT_VIOLATION: &str = "23001";
/// The constraints that keep writers and approvers apart.
const FOUR_EYES: [&str; 2] = ["limit_policy_four_eyes", "policy_override_four_eyes"];

impl RepositoryError {
    /// The stable code for callers.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::Invalid { .. } => "invalid",
            Self::FourEyes => "four_eyes",
            Self::Database(_) => "database_unavailable",
        }
    }

    /// A policy's problem under the name that the field has in the API.
    pub(crate) fn of_policy(error: PolicyError) -> Self {
        match error {
            PolicyError::Field { field, problem } => {
                let last = field.strip_prefix("breach.throttle.").map(|name| format!("throttle_{name}"));
                Self::Invalid { field: last.unwrap_or_else(|| api_name(&field)), problem }
            }
            PolicyError::EnforcesNothing => {
                Self::Conflict("the set in force after it enforces nothing: it names no limit".to_owned())
            }
            // Rows are not parsed from a text.
            error @ (PolicyError::Syntax(_) | PolicyError::Tab(_)) => Self::Conflict(error.to_string()),
        }
    }

    pub(super) fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.to_owned(), problem: problem.into() }
    }
}

impl From<sqlx::Error> for RepositoryError {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(refusal) = &error else {
            return Self::Database(error);
        };
        let constraint = refusal.constraint().unwrap_or_default();
        match refusal.code().as_deref() {
            _ if FOUR_EYES.contains(&constraint) => Self::FourEyes,
            Some(UNIQUE_VIOLATION) if constraint == "tier_tier_code_key" => {
                Self::Conflict("there is a tier with this tier_code".to_owned())
            }
            Some(UNIQUE_VIOLATION) => Self::Conflict("another caller changed it just now: read it again".to_owned()),
            Some(FOREIGN_KEY_VIOLATION) => Self::invalid("tier_id", "there is no such tier"),
            Some(RESTRICT_VIOLATION) => Self::Conflict(refusal.message().to_owned()),
            Some(_) | None => Self::Database(error),
        }
    }
}

/// A field of the policy document under the name that it has in the API.
fn api_name(field: &str) -> String {
    let (path, name) = field.rsplit_once('.').filter(|(path, _)| *path != "hold").unwrap_or(("", field));
    let name = match name {
        "single_min" => "single_trans_min",
        "single_max" => "single_trans_max",
        "hold.lifetime_secs" => "hold_lifetime_secs",
        "hold.on_expiry" => "hold_on_expiry",
        "effective_from" => "effective_date",
        "effective_until" => "expiry_date",
        name => match quota::LimitName::parse(name) {
            Some(limit) => limit.column(),
            None => name,
        },
    };
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
