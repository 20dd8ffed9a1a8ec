//! Changes that callers make to tables: who makes one and why, how rows are read and written as JSON, and why a change is refused.

use quota::ActorId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{Postgres, Transaction};
use thiserror::Error;

/// SQLSTATE of rows that break a rule of the table, or of its triggers.
const UNIQUE_VIOLATION: &str = "23505";
const FOREIGN_KEY_VIOLATION: &str = "23503";
const RESTRICT_VIOLATION: &str = "23001";
/// How constraints are named that keep writers and approvers apart.
const FOUR_EYES: &str = "_four_eyes";
/// How Postgres names the constraint of a column whose values are unique.
const UNIQUE_COLUMN: &str = "_key";

/// Who changes something, and why. Both are recorded.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The caller's own identity, never a name from a request's body.
    pub actor: &'a ActorId,
    pub reason: Option<&'a str>,
}

impl By<'_> {
    /// Names the actor, the action and the reason to the triggers that record the changes of a transaction.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] for a reason that is blank, and [`ChangeError::Database`].
    pub async fn record(
        self,
        transaction: &mut Transaction<'static, Postgres>,
        action: &str,
    ) -> Result<(), ChangeError> {
        if self.reason.is_some_and(|reason| reason.trim().is_empty()) {
            return Err(ChangeError::invalid("reason", "must not be empty"));
        }
        let statement = "SELECT set_config('sluice.actor', $1, true), set_config('sluice.action', $2, true), \
                         set_config('sluice.reason', $3, true)";
        let query = sqlx::query(statement).bind(self.actor.as_str()).bind(action).bind(self.reason.unwrap_or_default());
        query.execute(&mut **transaction).await?;
        Ok(())
    }
}

/// A refused or failed change. The sentences are safe to show a caller, but for [`ChangeError::Database`].
#[derive(Debug, Error)]
pub enum ChangeError {
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Its state does not allow the change, or another caller was faster.
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

impl ChangeError {
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

    /// An invalid field.
    #[must_use]
    pub fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.to_owned(), problem: problem.into() }
    }

    /// Refuses a change that was decided on another revision than the present one.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] names both.
    pub fn expect_revision(of: &str, present: i64, expected: Option<i64>) -> Result<(), Self> {
        match expected {
            Some(expected) if expected != present => {
                Err(Self::Conflict(format!("the {of} is at revision {present}, not {expected}: read it again")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(refusal) = &error else {
            return Self::Database(error);
        };
        let constraint = refusal.constraint().unwrap_or_default();
        match refusal.code().as_deref() {
            _ if constraint.ends_with(FOUR_EYES) => Self::FourEyes,
            Some(UNIQUE_VIOLATION) => {
                let table = refusal.table().unwrap_or_default();
                let column = constraint.strip_prefix(table).and_then(|rest| rest.strip_prefix('_'));
                Self::Conflict(match column.and_then(|rest| rest.strip_suffix(UNIQUE_COLUMN)) {
                    Some(column) => format!("there is a {table} with this {column}"),
                    None => "another caller changed it just now: read it again".to_owned(),
                })
            }
            Some(FOREIGN_KEY_VIOLATION) => {
                let named = constraint.strip_suffix("_fkey").unwrap_or(constraint);
                let table = refusal.table().unwrap_or_default();
                let field = named.strip_prefix(table).and_then(|rest| rest.strip_prefix('_')).unwrap_or(named);
                Self::invalid(field, format!("there is no such {}", field.strip_suffix("_id").unwrap_or(field)))
            }
            Some(RESTRICT_VIOLATION) => Self::Conflict(refusal.message().to_owned()),
            Some(_) | None => Self::Database(error),
        }
    }
}

/// A value as the text that Postgres reads a row from.
///
/// # Errors
/// [`ChangeError::Database`] for a value that has no JSON.
pub fn json<T: Serialize>(value: &T) -> Result<String, ChangeError> {
    serde_json::to_string(value).map_err(|error| ChangeError::Database(sqlx::Error::Encode(error.into())))
}

/// A row from the text that Postgres makes of it.
///
/// # Errors
/// [`ChangeError::Database`] for a row of another form.
pub fn read<T: DeserializeOwned>(text: String) -> Result<T, ChangeError> {
    serde_json::from_str(&text).map_err(|error| ChangeError::Database(sqlx::Error::Decode(error.into())))
}

/// Several rows.
///
/// # Errors
/// As [`read`].
pub fn read_all<T: DeserializeOwned>(rows: Vec<String>) -> Result<Vec<T>, ChangeError> {
    rows.into_iter().map(read).collect()
}
