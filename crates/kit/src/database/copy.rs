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

/// Some of a row's columns, in the row's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns(u128);

impl Columns {
    /// Those that are `true`.
    #[must_use]
    pub fn of<const N: usize>(wanted: [bool; N]) -> Self {
        const { assert!(N <= u128::BITS as usize, "a row has more columns than bits") };
        Self(wanted.iter().rev().fold(0, |bits, wanted| bits << 1 | u128::from(*wanted)))
    }

    /// These and the others.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Their number, as the copy format writes it before each row.
    #[must_use]
    pub const fn count(self) -> i16 {
        self.0.count_ones() as i16
    }

    /// For each column in turn whether it is one of these.
    pub fn each(self) -> impl Iterator<Item = bool> {
        (0..u128::BITS).map(move |bit| self.0 >> bit & 1 == 1)
    }
}

/// A value of a column in the copy format: its length, then its bytes.
pub trait Field {
    fn write(&self, out: &mut Vec<u8>);

    /// Whether it is null.
    fn is_null(&self) -> bool {
        false
    }
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

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(dead_code, reason = "the row is written and neither inserted nor read")]
    mod sample {
        crate::table_row! {
            copied
            /// A row of three columns.
            pub(super) struct Sample {
                number: i16 => "int2";
                word: Option<&'static str> => "text";
                flag: bool => "bool";
            }
        }
    }

    use sample::Sample;

    #[test]
    fn a_row_is_written_in_the_columns_that_are_asked_for() {
        let row = |word| Sample { number: 7, word, flag: true };
        let number = [0, 0, 0, 2, 0, 7];
        let flag = [0, 0, 0, 1, 1];
        let word = [0, 0, 0, 1, b'w'];
        let null = [255; 4];
        for (rows, written) in [
            (vec![row(None)], [&[0, 2][..], &number, &flag].concat()),
            (vec![row(Some("w"))], [&[0, 3][..], &number, &word, &flag].concat()),
            (
                vec![row(None), row(Some("w"))],
                [&[0, 3][..], &number, &null, &flag, &[0, 3], &number, &word, &flag].concat(),
            ),
        ] {
            let columns = rows.iter().fold(Columns::default(), |all, row| all.or(row.filled()));
            let mut out = Vec::new();
            rows.iter().for_each(|row| row.write(columns, &mut out));
            assert_eq!(out, written, "{rows:?}");
        }
    }
}
