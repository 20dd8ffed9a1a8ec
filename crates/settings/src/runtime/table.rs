//! The tables `runtime_setting` and `runtime_setting_audit`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Acquire, FromRow};
use thiserror::Error;
use tokio::time::timeout;

use crate::Origin;
use crate::live::{Changed, Layer};

/// The channel on which a statement that changes the table is announced, by a trigger.
pub(super) const CHANNEL: &str = "sluice_runtime_setting";
/// How long one use of the database may take. Postgres itself gives up a statement later; a hanging one never answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Serialises changes over all servers, so that each sees the one before it. Any number that nothing else uses.
const LOCK: i64 = 0x51_0ce5_e771;

/// Why the database gave no answer. All of these may be temporary.
#[derive(Debug, Error)]
pub enum TableError {
    /// Postgres cannot be reached, or refuses.
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// One changed setting as the audit has it.
#[derive(Clone, Debug, FromRow)]
pub(super) struct AuditRow {
    pub id: i64,
    pub version: i64,
    pub key: String,
    pub old_value: Option<String>,
    pub new_value: Option<String>,
    pub removed: bool,
    pub actor: String,
    pub reason: String,
    pub changed_at: DateTime<Utc>,
}

/// Who changes settings and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct By<'a> {
    pub actor: &'a str,
    pub reason: &'a str,
}

/// Bounds the time of a call.
pub(super) async fn within<T, E: Into<TableError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, TableError> {
    match timeout(ANSWER_TIMEOUT, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(TableError::Timeout(ANSWER_TIMEOUT)),
    }
}

/// The values in the table, unchecked.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Layer, sqlx::Error> {
    // One snapshot, so that the version is that of the values.
    let mut transaction = connection.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
    let layer = read_in(&mut transaction).await?;
    transaction.commit().await?;
    Ok(layer)
}

/// [`read`] inside of a transaction that holds the lock.
pub(super) async fn read_in(connection: &mut PgConnection) -> Result<Layer, sqlx::Error> {
    let values: Vec<(String, String)> =
        sqlx::query_as("SELECT key, value FROM runtime_setting").fetch_all(&mut *connection).await?;
    let version: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM runtime_setting_audit")
        .fetch_one(&mut *connection)
        .await?;
    let version = u64::try_from(version).unwrap_or_default();
    Ok(Layer { origin: Origin::Database, version, values: values.into_iter().collect() })
}

/// Waits until no other server changes settings; until the transaction's end.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(connection).await.map(drop)
}

/// Gives the setting a value, or without one deletes its row.
pub(super) async fn write(
    connection: &mut PgConnection,
    key: &str,
    value: Option<&str>,
    version: u64,
    actor: &str,
) -> Result<(), sqlx::Error> {
    let query = match value {
        Some(value) => sqlx::query(
            "INSERT INTO runtime_setting (key, value, version, changed_by) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version, \
             changed_by = excluded.changed_by, changed_at = now()",
        )
        .bind(key)
        .bind(value)
        .bind(signed(version))
        .bind(actor),
        None => sqlx::query("DELETE FROM runtime_setting WHERE key = $1").bind(key),
    };
    query.execute(connection).await.map(drop)
}

/// Writes one row of the audit.
pub(super) async fn audit(
    connection: &mut PgConnection,
    version: u64,
    changed: &Changed,
    removed: bool,
    by: By<'_>,
) -> Result<AuditRow, sqlx::Error> {
    sqlx::query_as(
        "INSERT INTO runtime_setting_audit (version, key, old_value, new_value, removed, actor, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         RETURNING id, version, key, old_value, new_value, removed, actor, reason, changed_at",
    )
    .bind(signed(version))
    .bind(changed.key)
    .bind(&changed.old)
    .bind(&changed.new)
    .bind(removed)
    .bind(by.actor)
    .bind(by.reason)
    .fetch_one(connection)
    .await
}

/// Records changes of a configuration service. Every server gets the same ones, and the first record is enough: a setting whose
/// newest row has this value already gets none.
pub(super) async fn audit_service(
    connection: &mut PgConnection,
    changed: &[Changed],
    by: By<'_>,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    let version = read_in(&mut transaction).await?.version + 1;
    for one in changed {
        let newest: Option<Option<String>> =
            sqlx::query_scalar("SELECT new_value FROM runtime_setting_audit WHERE key = $1 ORDER BY id DESC LIMIT 1")
                .bind(one.key)
                .fetch_optional(&mut *transaction)
                .await?;
        if newest.is_none_or(|newest| newest != one.new) {
            audit(&mut transaction, version, one, false, by).await?;
        }
    }
    transaction.commit().await
}

/// The audit's rows before `before`, newest first, of one setting or of all.
pub(super) async fn history(
    connection: &mut PgConnection,
    key: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, version, key, old_value, new_value, removed, actor, reason, changed_at FROM runtime_setting_audit \
         WHERE ($1::text IS NULL OR key = $1) AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(key)
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
