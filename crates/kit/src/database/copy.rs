//! Values in Postgres's binary copy format (PostgreSQL, COPY, "Binary Format").

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::row::Json;

/// Signature, flags and length of an extension: there is none (PostgreSQL, COPY, "Binary Format").
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a row's number of columns: there are no more rows.
pub const END: i16 = -1;
/// In place of a value's length: it is null.
const NULL: i32 = -1;
/// Postgres counts time from 2000-01-01, this long after 1970-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The format of `jsonb`: its text follows.
const JSONB_FORMAT: u8 = 1;

/// A value of a column in the copy format: its length, then its bytes.
pub trait Field {
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
