//! New rows in Postgres's binary copy format, which costs it half of an `INSERT`. It has no `ON CONFLICT`: where a row exists
//! already, the whole copy is refused.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use sqlx::postgres::PgConnection;

use sluice_kit::database::copy::{Columns, END, HEADER};

use super::{Row, partitions};

/// So many bytes are sent at once: Postgres reads them while the next are made, and no whole batch is in memory twice.
const CHUNK_BYTES: usize = 64 * 1024;

/// Adds rows to the usage log; returns their number.
///
/// Each month's go straight into its partition, so that Postgres need not find it for every row and copy the row once more.
pub(super) async fn usage<'a>(
    connection: &mut PgConnection,
    rows: impl Iterator<Item = &'a Row>,
) -> Result<u64, sqlx::Error> {
    let mut months: BTreeMap<NaiveDate, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        months.entry(partitions::first_day(row.at.date_naive())).or_default().push(row);
    }
    let mut copied = 0;
    for (month, rows) in months {
        copied += partition(connection, month, &rows).await?;
        // The rows' lock keeps it attached until they are committed; before, it may have been detached.
        if !partitions::is_attached(connection, month).await? {
            return Err(sqlx::Error::Protocol(format!("{} is not attached to usage_log", partitions::name(month))));
        }
    }
    Ok(copied)
}

async fn partition(connection: &mut PgConnection, month: NaiveDate, rows: &[&Row]) -> Result<u64, sqlx::Error> {
    // A column that is null in all of them is not sent: most events leave half of the columns empty.
    let columns = rows.iter().fold(Columns::default(), |all, row| all.or(row.filled()));
    let names = Row::COLUMNS.iter().zip(columns.each()).filter(|(_, sent)| *sent).map(|((name, _), _)| *name);
    let names: Vec<&str> = names.collect();
    let statement = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", partitions::name(month), names.join(", "));
    let mut copy = connection.copy_in_raw(&statement).await?;
    let mut buffer = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        row.write(columns, &mut buffer);
        if buffer.len() >= CHUNK_BYTES {
            copy.send(buffer.as_slice()).await?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&END.to_be_bytes());
    copy.send(buffer.as_slice()).await?;
    copy.finish().await
}
