//! The settings in Postgres: one document per scope, and the number of its changes.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};
use thiserror::Error;
use tracing::{error, info};

use super::{Invalid, Scope, Settings};

/// The number of changes; 0 where none are stored.
pub type Revision = i64;

const LOAD: &str =
    "SELECT scope, document::text, revision, updated_at, updated_by FROM alert_settings WHERE scope = $1";
const LOAD_ALL: &str =
    "SELECT scope, document::text, revision, updated_at, updated_by FROM alert_settings ORDER BY scope";
/// There must be a row before it can be locked.
const CLAIM: &str = "INSERT INTO alert_settings (scope, document, revision, updated_by) \
    VALUES ($1, '{\"channels\": [], \"routes\": []}', 0, $2) ON CONFLICT (scope) DO NOTHING";
const LOCK: &str = "SELECT scope, document::text, revision, updated_at, updated_by FROM alert_settings \
    WHERE scope = $1 FOR UPDATE";
const SAVE: &str = "UPDATE alert_settings SET document = $2::jsonb, revision = revision + 1, updated_at = now(), \
    updated_by = $3 WHERE scope = $1 RETURNING scope, document::text, revision, updated_at, updated_by";

/// Settings with their last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub settings: Settings,
    pub revision: Revision,
    pub updated_at: Option<DateTime<Utc>>,
    pub updated_by: Option<String>,
}

/// Why settings were not saved.
#[derive(Debug, Error)]
pub enum SaveError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the settings have revision {found}, not {expected}: read them again")]
    Revision { expected: Revision, found: Revision },
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

#[derive(sqlx::FromRow)]
struct Row {
    scope: String,
    document: String,
    revision: Revision,
    updated_at: DateTime<Utc>,
    updated_by: String,
}

impl Row {
    fn read(self) -> Result<Stored, sqlx::Error> {
        // The error quotes what it cannot read, which may be a secret.
        let settings = serde_json::from_str(&self.document).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            error!(scope = self.scope, line, column, "alert settings in the database cannot be read");
            sqlx::Error::Decode(format!("alert_settings of {}", self.scope).into())
        })?;
        let (revision, updated_at, updated_by) = (self.revision, Some(self.updated_at), Some(self.updated_by));
        Ok(Stored { settings, revision, updated_at, updated_by })
    }
}

/// The settings of one scope; the defaults where none are stored.
///
/// # Errors
/// Those of Postgres, and a document that cannot be read.
pub async fn load(executor: impl PgExecutor<'_>, scope: &Scope) -> Result<Stored, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(LOAD).bind(scope.text()).fetch_optional(executor).await?;
    row.map_or_else(|| Ok(Stored::default()), Row::read)
}

/// All stored settings. A document that cannot be read is logged and left out.
///
/// # Errors
/// Those of Postgres.
pub async fn load_all(executor: impl PgExecutor<'_>) -> Result<Vec<(Scope, Stored)>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(LOAD_ALL).fetch_all(executor).await?;
    Ok(rows.into_iter().filter_map(|row| Some((Scope::parse(&row.scope)?, row.read().ok()?))).collect())
}

/// Checks settings and replaces the present ones; masks keep the present secrets.
///
/// # Errors
/// [`SaveError`]; nothing is changed then.
pub async fn save(
    pool: &PgPool,
    scope: &Scope,
    settings: Settings,
    expected: Option<Revision>,
    actor: &str,
) -> Result<Stored, SaveError> {
    let name = scope.text();
    let mut transaction = pool.begin().await?;
    sqlx::query(CLAIM).bind(&name).bind(actor).execute(&mut *transaction).await?;
    let row: Row = sqlx::query_as(LOCK).bind(&name).fetch_one(&mut *transaction).await?;
    let found = row.revision;
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(SaveError::Revision { expected, found });
    }
    // An unreadable document keeps no secrets, and is replaced.
    let present = row.read().map(|present| present.settings).unwrap_or_default();
    let settings = settings.check(scope, &present)?;
    let document = settings.stored();
    let row: Row = sqlx::query_as(SAVE).bind(&name).bind(document).bind(actor).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    let saved = row.read()?;
    info!(scope = name, revision = saved.revision, actor, "alert settings changed");
    Ok(saved)
}

impl Settings {
    /// The document with its secrets, as the table keeps it.
    #[must_use]
    pub fn stored(&self) -> String {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        let shown = document.get_mut("channels").and_then(serde_json::Value::as_array_mut);
        for (channel, shown) in self.channels.iter().zip(shown.into_iter().flatten()) {
            for (pointer, secret) in channel.secrets() {
                if let Some(masked) = shown.pointer_mut(&pointer) {
                    *masked = secret.expose().into();
                }
            }
        }
        document.to_string()
    }
}
