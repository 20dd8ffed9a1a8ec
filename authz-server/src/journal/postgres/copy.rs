//! New rows in Postgres's binary copy format, which costs it half of what an `INSERT` does. It knows no `ON CONFLICT`: where
//! a row is there already, the whole copy is refused.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::columns::Json;
use super::{Row, partitions};

/// Signature, flags and length of an extension: there is none (PostgreSQL, COPY, "Binary Format").
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In the place of a row's number of columns: there are no more rows.
const END: i16 = -1;
/// In the place of a value's length: it is null.
const NULL: i32 = -1;
/// Postgres counts time from 2000-01-01, this long after 1970-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The format of `jsonb`: its text follows.
const JSONB_FORMAT: u8 = 1;
/// So many bytes are sent at once: Postgres reads them while the next are made, and no whole batch lies in memory twice.
const CHUNK_BYTES: usize = 64 * 1024;

/// Adds rows to the usage log; gives their number.
///
/// Each month's go straight into its partition, which spares Postgres finding it for every row and copying the row once more.
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
    let names: Vec<&str> = Row::COLUMNS.iter().map(|(name, _)| *name).collect();
    let statement = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", partitions::name(month), names.join(", "));
    let mut copy = connection.copy_in_raw(&statement).await?;
    let mut buffer = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        row.write(&mut buffer);
        if buffer.len() >= CHUNK_BYTES {
            copy.send(buffer.as_slice()).await?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&END.to_be_bytes());
    copy.send(buffer.as_slice()).await?;
    copy.finish().await
}

/// A value of a column in the copy format: its length, then its bytes.
pub(super) trait Field {
    fn write(&self, out: &mut Vec<u8>);
}

fn write(bytes: &[u8], out: &mut Vec<u8>) {
    // A longer text than Postgres takes at all is refused by its length.
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

macro_rules! big_endian {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn write(&self, out: &mut Vec<u8>) {
                write(&self.to_be_bytes(), out);
            }
        }
    )+};
}

big_endian!(i16, i32, i64);

impl Field for bool {
    fn write(&self, out: &mut Vec<u8>) {
        write(&[u8::from(*self)], out);
    }
}

impl Field for Uuid {
    fn write(&self, out: &mut Vec<u8>) {
        write(self.as_bytes(), out);
    }
}

impl Field for DateTime<Utc> {
    fn write(&self, out: &mut Vec<u8>) {
        self.timestamp_micros().saturating_sub(EPOCH_MICROS).write(out);
    }
}

impl Field for &str {
    fn write(&self, out: &mut Vec<u8>) {
        write(self.as_bytes(), out);
    }
}

impl Field for String {
    fn write(&self, out: &mut Vec<u8>) {
        write(self.as_bytes(), out);
    }
}

impl Field for Json {
    fn write(&self, out: &mut Vec<u8>) {
        let length = i32::try_from(self.0.len() + 1).unwrap_or(i32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.push(JSONB_FORMAT);
        out.extend_from_slice(self.0.as_bytes());
    }
}

impl<T: Field> Field for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => out.extend_from_slice(&NULL.to_be_bytes()),
        }
    }
}
