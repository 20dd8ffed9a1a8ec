//! Settings for the admin API: the list, changes in the database, and the record of changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Acquire, PgPool};
use thiserror::Error;
use tracing::info;
use utoipa::ToSchema;

use super::metrics::SettingsMetrics;
use super::service::scalar;
use super::table::{self, AuditRow, By, TableError};
use super::{ChangedIn, follow};
use crate::live::{Layer, Live, Setting};
use crate::table::present_name;
use crate::{Settings, SettingsError};
use sluice_kit::metrics::Metrics;
use sluice_kit::telemetry::AUDIT;

/// Longest value that is written; the table's own bound.
const VALUE_BYTES_MAX: usize = 4096;
/// Longest name that is looked up: an unknown one is compared with all that are known.
const KEY_BYTES_MAX: usize = 64;
/// Longest reason of a change.
const REASON_BYTES_MAX: usize = 1000;
/// Most settings in one change: more than there are.
const CHANGES_MAX: usize = 200;
/// The code where no change can be made.
pub const SETTINGS_FIXED: &str = "SETTINGS_FIXED";

/// All settings, and how they may change.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SettingListing)]
pub struct Listing {
    /// The number of the last change in the database that is in force on this server.
    pub version: u64,
    pub changed_in: ChangedIn,
    /// False while the last reading failed or was refused, and the last good values stay.
    pub up_to_date: bool,
    pub items: Vec<Setting>,
}

/// A wish to change settings, all of them or none.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SettingChange)]
pub struct Change {
    /// New values by key; null takes the changed value away, so that the one of file or environment counts again.
    pub changes: BTreeMap<String, Value>,
    /// Why, for the record.
    pub reason: String,
    /// The version that the change builds on; it is refused where another change came first.
    #[serde(default)]
    pub expected_version: Option<u64>,
}

/// What a change did.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SettingsChanged)]
pub struct Changed {
    /// The number of the change; that of the change before where everything was so already.
    pub version: u64,
    pub changes: Vec<AuditEntry>,
}

/// One setting of one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SettingAuditEntry)]
pub struct AuditEntry {
    pub id: i64,
    /// The number of the change.
    pub version: u64,
    pub key: String,
    pub old_value: Option<String>,
    pub new_value: Option<String>,
    /// The value of file or environment counts again.
    pub removed: bool,
    /// Who made it.
    pub actor: String,
    pub reason: String,
    pub changed_at: DateTime<Utc>,
}

/// Which part of the record is requested.
#[derive(Clone, Debug, Default)]
pub struct HistoryQuery {
    /// One setting only.
    pub key: Option<String>,
    /// Rows before this id, the `next` of the page before.
    pub before: Option<i64>,
    /// Most rows; the caller bounds it by `admin_page_max`.
    pub limit: u32,
}

/// A page of the record, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SettingHistory)]
pub struct History {
    pub items: Vec<AuditEntry>,
    /// Where the next page begins; none after the last.
    pub next: Option<i64>,
}

/// Why settings were not changed. Nothing is changed then.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// No change can be made.
    #[error("settings do not change while the server runs: set ENABLE_CONFIG_CLIENT to true")]
    Fixed,
    /// Changes are made elsewhere.
    #[error("settings are changed in the configuration service that CONFIG_SERVICE_URL names")]
    Elsewhere,
    /// A field of the change is invalid, or the resulting settings are.
    #[error("{problem}")]
    Invalid { field: String, problem: String },
    /// Another change came first.
    #[error("the settings have version {actual}, not {expected}: read them again and decide anew")]
    Version { expected: u64, actual: u64 },
    /// Postgres gave no answer. Where that happened at the very end, the change may be in force all the same.
    #[error("the database gave no answer")]
    Database(#[from] TableError),
}

impl ChangeError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Fixed | Self::Elsewhere => SETTINGS_FIXED,
            Self::Invalid { .. } => "SETTING_INVALID",
            Self::Version { .. } => "VERSION_CONFLICT",
            Self::Database(_) => "DATABASE_UNAVAILABLE",
        }
    }

    /// The field at fault: a setting's key, or `changes` or `reason`.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } => Some(field),
            Self::Version { .. } => Some("expected_version"),
            Self::Fixed | Self::Elsewhere | Self::Database(_) => None,
        }
    }

    fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.to_owned(), problem: problem.into() }
    }
}

impl From<SettingsError> for ChangeError {
    fn from(error: SettingsError) -> Self {
        Self::Invalid { field: error.key().unwrap_or_else(|| "changes".to_owned()), problem: error.to_string() }
    }
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Shows and changes settings. The caller checks who may do so.
#[derive(Clone, Debug)]
pub struct Repository {
    live: Live,
    pool: PgPool,
    changed_in: ChangedIn,
    metrics: Arc<SettingsMetrics>,
}

impl Repository {
    /// For the settings in force; `settings` select where changes are made.
    #[must_use]
    pub fn new(settings: &Settings, live: Live, pool: PgPool, metrics: &Metrics) -> Self {
        Self { live, pool, changed_in: ChangedIn::of(settings), metrics: metrics.part() }
    }

    /// Every setting with its value in force on this server. Secrets show as such.
    #[must_use]
    pub fn list(&self) -> Listing {
        Listing {
            version: self.live.version(),
            changed_in: self.changed_in,
            up_to_date: self.live.good(),
            items: self.live.list(),
        }
    }

    /// Changes settings in the name of `actor`: all of them or none, in force on this server when it returns, and on the others
    /// as soon as they are notified.
    ///
    /// # Errors
    /// [`ChangeError`] names the field; nothing is changed then.
    pub async fn change(&self, actor: &str, change: Change) -> Result<Changed, ChangeError> {
        match self.changed_in {
            ChangedIn::Nothing => return Err(ChangeError::Fixed),
            ChangedIn::ConfigService => return Err(ChangeError::Elsewhere),
            ChangedIn::Database => {}
        }
        let wanted = self.read(&change)?;
        let by = By { actor, reason: change.reason.trim() };
        let _turn = self.live.turn().await;
        let written =
            table::within(async { Ok::<_, TableError>(self.write(&wanted, change.expected_version, by).await) });
        let (layer, rows) = written.await??;
        let version = layer.version;
        let changed = self.live.apply(layer)?;
        follow::report_applied(&self.live, &self.metrics, &changed);
        for row in &rows {
            let AuditRow { key, old_value, new_value, actor, reason, .. } = row;
            info!(target: AUDIT, key, old_value, new_value, actor, reason, version, "a setting was changed by the admin API");
        }
        Ok(Changed { version, changes: rows.into_iter().map(AuditEntry::from).collect() })
    }

    /// The record of changes, newest first.
    ///
    /// # Errors
    /// [`TableError`] where Postgres gives no answer.
    pub async fn history(&self, query: HistoryQuery) -> Result<History, TableError> {
        let limit = i64::from(query.limit.max(1));
        let mut rows = table::within(async {
            let mut connection = self.pool.acquire().await?;
            // One row more than requested shows whether there is a next page.
            table::history(&mut connection, query.key.as_deref(), query.before, limit + 1).await
        })
        .await?;
        let more = i64::try_from(rows.len()).is_ok_and(|length| length > limit);
        rows.truncate(query.limit.max(1) as usize);
        let next = rows.last().filter(|_| more).map(|row| row.id);
        Ok(History { items: rows.into_iter().map(AuditEntry::from).collect(), next })
    }

    /// The new values as text, each checked by itself.
    fn read(&self, change: &Change) -> Result<BTreeMap<String, Option<String>>, ChangeError> {
        let reason = change.reason.trim();
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            let problem = format!("reason must say why, in 1 to {REASON_BYTES_MAX} bytes without control characters");
            return Err(ChangeError::invalid("reason", problem));
        }
        if change.changes.is_empty() || change.changes.len() > CHANGES_MAX {
            return Err(ChangeError::invalid("changes", format!("changes must hold 1 to {CHANGES_MAX} settings")));
        }
        let mut wanted = BTreeMap::new();
        for (key, value) in &change.changes {
            if key.len() > KEY_BYTES_MAX {
                let problem = format!("changes holds a name of more than {KEY_BYTES_MAX} bytes, which no setting has");
                return Err(ChangeError::invalid("changes", problem));
            }
            let text = match value {
                Value::Null => None,
                value => Some(scalar(value).filter(|text| text.len() <= VALUE_BYTES_MAX).ok_or_else(|| {
                    let problem =
                        format!("{key} must be a text of at most {VALUE_BYTES_MAX} bytes, a number, true or false");
                    ChangeError::invalid(key, problem)
                })?),
            };
            self.live.check_one(key, text.as_deref())?;
            wanted.insert(present_name(key).to_owned(), text);
        }
        Ok(wanted)
    }

    /// Writes the change in one transaction, on what the table holds now.
    async fn write(
        &self,
        wanted: &BTreeMap<String, Option<String>>,
        expected_version: Option<u64>,
        by: By<'_>,
    ) -> Result<(Layer, Vec<AuditRow>), ChangeError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        table::lock(&mut transaction).await?;
        let before = table::read_in(&mut transaction).await?;
        if let Some(expected) = expected_version.filter(|expected| *expected != before.version) {
            return Err(ChangeError::Version { expected, actual: before.version });
        }
        let former: Vec<String> = before.values.keys().filter(|key| present_name(key) != *key).cloned().collect();
        let before = Layer { values: before.values.into_iter().map(present).collect(), ..before };
        let (after, keys) = next_layer(&before, wanted);
        let changed = self.live.compare(&before, &after, &keys)?;
        let mut rows = Vec::with_capacity(changed.len());
        for one in &changed {
            let value = after.values.get(one.key).map(String::as_str);
            table::write(&mut transaction, one.key, value, after.version, by.actor).await?;
            // A row under the setting's former name goes with it: it would count again after a reset.
            for key in former.iter().filter(|key| present_name(key) == one.key) {
                table::write(&mut transaction, key, None, after.version, by.actor).await?;
            }
            rows.push(table::audit(&mut transaction, after.version, one, value.is_none(), by).await?);
        }
        transaction.commit().await?;
        Ok((after, rows))
    }
}

/// A stored value under the setting's present name. Former names sort first, so that the present one's value counts.
fn present((key, text): (String, String)) -> (String, String) {
    (present_name(&key).to_owned(), text)
}

/// The resulting values, and the keys whose row changes. Without any the version stays.
fn next_layer(before: &Layer, wanted: &BTreeMap<String, Option<String>>) -> (Layer, Vec<String>) {
    let mut after = before.clone();
    let mut keys = Vec::new();
    for (key, text) in wanted {
        if before.values.get(key) == text.as_ref() {
            continue;
        }
        match text {
            Some(text) => drop(after.values.insert(key.clone(), text.clone())),
            None => drop(after.values.remove(key)),
        }
        keys.push(key.clone());
    }
    if !keys.is_empty() {
        after.version += 1;
    }
    (after, keys)
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let AuditRow { id, version, key, old_value, new_value, removed, actor, reason, changed_at } = row;
        let version = u64::try_from(version).unwrap_or_default();
        Self { id, version, key, old_value, new_value, removed, actor, reason, changed_at }
    }
}
