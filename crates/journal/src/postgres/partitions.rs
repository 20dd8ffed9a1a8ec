//! The monthly partitions of `usage_log`, made without the lock that would hold up readers and writers of the whole table.
//!
//! `CREATE TABLE ... PARTITION OF` locks the parent exclusively, and waits for every query and dump that reads it. Here a
//! table of its own is made in the parent's likeness and then attached, which readers and writers of the parent do not
//! notice. Both steps are one transaction, so a crash between them leaves nothing.

use std::collections::BTreeSet;

use chrono::{Datelike, Months, NaiveDate};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::{PostgresError, STORE_TIMEOUT, UsageLog, within};

/// Serialises the making of partitions among servers; any number that nothing else uses.
const PARTITION_LOCK: i64 = 0x51_75_6f_74_61_01;

impl UsageLog {
    /// Makes the partitions of a day's month and of the next month, where they do not exist: events of a new month
    /// then find theirs.
    ///
    /// # Errors
    /// [`PostgresError`] where they could not be made; storing an event makes its own partition.
    pub async fn prepare(&mut self, today: NaiveDate) -> Result<(), PostgresError> {
        let months: BTreeSet<NaiveDate> =
            [Some(first_day(today)), next(first_day(today))].into_iter().flatten().collect();
        let mut connection = self.take().await?;
        within(STORE_TIMEOUT, make(&mut connection, &months)).await.map_err(PostgresError::partition)?;
        self.connection = Some(connection);
        self.months.extend(months);
        Ok(())
    }
}

/// The month that a day lies in.
pub(super) fn first_day(day: NaiveDate) -> NaiveDate {
    day.with_day(1).unwrap_or(day)
}

/// Makes the partitions that do not exist. Any number of servers may do it at the same time.
pub(super) async fn make(connection: &mut PgConnection, months: &BTreeSet<NaiveDate>) -> Result<(), sqlx::Error> {
    for month in months {
        if !is_attached(connection, *month).await? {
            make_one(connection, *month).await?;
        }
    }
    Ok(())
}

async fn make_one(connection: &mut PgConnection, month: NaiveDate) -> Result<(), sqlx::Error> {
    let Some(end) = next(month) else {
        return Ok(());
    };
    let name = name(month);
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(PARTITION_LOCK).execute(&mut *transaction).await?;
    // Another server may have made it while this one waited.
    if !is_attached(&mut transaction, month).await? {
        // A table that is there and not attached was detached by someone; the month's events need it back.
        let create = format!("CREATE TABLE IF NOT EXISTS {name} (LIKE usage_log INCLUDING ALL)");
        transaction.execute(AssertSqlSafe(create)).await?;
        let attach = format!(
            "ALTER TABLE usage_log ATTACH PARTITION {name} \
             FOR VALUES FROM ('{month} 00:00:00+00') TO ('{end} 00:00:00+00')"
        );
        transaction.execute(AssertSqlSafe(attach)).await?;
    }
    transaction.commit().await
}

/// Whether a month's partition is one of the table's.
pub(super) async fn is_attached(connection: &mut PgConnection, month: NaiveDate) -> Result<bool, sqlx::Error> {
    let statement = "SELECT EXISTS (SELECT FROM pg_inherits \
                     WHERE inhparent = 'usage_log'::regclass AND inhrelid = to_regclass($1))";
    sqlx::query_scalar(statement).bind(name(month)).fetch_one(connection).await
}

/// The partition of a month.
pub(super) fn name(month: NaiveDate) -> String {
    month.format("usage_log_%Y_%m").to_string()
}

fn next(month: NaiveDate) -> Option<NaiveDate> {
    month.checked_add_months(Months::new(1))
}
