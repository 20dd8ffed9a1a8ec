//! Rows of tables: each column is named once, with its type here and in Postgres. Several rows go in one statement, as one
//! array a column.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

/// The text of a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(pub String);

/// What a column's value is bound as: text by reference, everything else by copy.
pub trait Cell {
    type Bound<'a>
    where
        Self: 'a;

    fn bound(&self) -> Self::Bound<'_>;
}

macro_rules! copied {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            type Bound<'a> = $type;

            fn bound(&self) -> $type {
                *self
            }
        }
    )+};
}

copied!(
    Uuid,
    Option<Uuid>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    i16,
    i32,
    Option<i32>,
    i64,
    Option<i64>,
    bool,
    &'static str,
    Option<&'static str>
);

impl Cell for String {
    type Bound<'a> = &'a str;

    fn bound(&self) -> &str {
        self
    }
}

impl Cell for Option<Json> {
    type Bound<'a> = Option<&'a str>;

    fn bound(&self) -> Option<&str> {
        self.as_ref().map(|Json(text)| text.as_str())
    }
}

impl Cell for Option<String> {
    type Bound<'a> = Option<&'a str>;

    fn bound(&self) -> Option<&str> {
        self.as_deref()
    }
}

/// A row's columns: the struct, their names with their types in Postgres, and how several rows are bound; for a `copied` row
/// also how some of its columns are written in the copy format.
#[macro_export]
macro_rules! table_row {
    (
        copied $(#[$doc:meta])*
        $vis:vis struct $row:ident { $($(#[doc = $note:literal])? $column:ident: $type:ty => $sql:literal;)+ }
    ) => {
        $crate::table_row! {
            $(#[$doc])* $vis struct $row { $($(#[doc = $note])? $column: $type => $sql;)+ }
        }

        impl $row {
            /// The columns that are not null.
            $vis fn filled(&self) -> $crate::database::copy::Columns {
                use $crate::database::copy::Field as _;
                $crate::database::copy::Columns::of([$(!self.$column.is_null()),+])
            }

            /// Writes these columns of the row in Postgres's copy format.
            $vis fn write(&self, columns: $crate::database::copy::Columns, out: &mut Vec<u8>) {
                use $crate::database::copy::Field as _;
                out.extend_from_slice(&columns.count().to_be_bytes());
                let mut columns = columns.each();
                $(
                    if columns.next() == Some(true) {
                        self.$column.write(out);
                    }
                )+
            }
        }
    };
    (
        $(#[$doc:meta])*
        $vis:vis struct $row:ident { $($(#[doc = $note:literal])? $column:ident: $type:ty => $sql:literal;)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $row {
            $($(#[doc = $note])? $vis $column: $type,)+
        }

        impl $row {
            /// Each column's name, and its type in Postgres.
            $vis const COLUMNS: &[(&str, &str)] = &[$((stringify!($column), $sql)),+];

            /// Binds all rows to a statement that [`insert`] has made, as one array a column.
            $vis fn bind<'q>(
                query: $crate::database::row::Statement<'q>,
                rows: impl Iterator<Item = &'q Self> + Clone,
            ) -> $crate::database::row::Statement<'q> {
                use $crate::database::row::Cell as _;
                $(let query = query.bind(rows.clone().map(|row| row.$column.bound()).collect::<Vec<_>>());)+
                query
            }
        }
    };
}
pub use table_row;

/// A statement with its arguments.
pub type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// The rows of a statement that [`table_row!`](crate::table_row) binds, as a table.
pub fn arrays(columns: &[(&str, &str)]) -> String {
    let arrays: Vec<String> = columns.iter().zip(1..).map(|((_, sql), number)| format!("${number}::{sql}[]")).collect();
    format!("UNNEST({})", arrays.join(", "))
}

/// `INSERT` of any number of rows, up to the conflict clause.
pub fn insert(table: &str, columns: &[(&str, &str)]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    format!("INSERT INTO {table} ({}) SELECT * FROM {}", names.join(", "), arrays(columns))
}
