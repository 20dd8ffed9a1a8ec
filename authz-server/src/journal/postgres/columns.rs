//! The rows of the journal's tables: each column is named once, with its type here and in Postgres. Several rows go in one
//! statement, as one array a column.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

/// The text of a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(pub String);

/// What a column's value is bound as: text by reference, everything else by copy.
pub(crate) trait Cell {
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
/// also how one is written in the copy format.
macro_rules! row {
    (
        copied $(#[$doc:meta])*
        $vis:vis struct $row:ident { $($(#[doc = $note:literal])? $column:ident: $type:ty => $sql:literal;)+ }
    ) => {
        $crate::journal::postgres::columns::row! {
            $(#[$doc])* $vis struct $row { $($(#[doc = $note])? $column: $type => $sql;)+ }
        }

        impl $row {
            /// Writes the row in Postgres's copy format.
            pub(in crate::journal::postgres) fn write(&self, out: &mut Vec<u8>) {
                use $crate::journal::postgres::copy::Field as _;
                out.extend_from_slice(&(Self::COLUMNS.len() as i16).to_be_bytes());
                $(self.$column.write(out);)+
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
            pub(crate) const COLUMNS: &[(&str, &str)] = &[$((stringify!($column), $sql)),+];

            /// Binds all rows to a statement that [`insert`] has made, as one array a column.
            pub(crate) fn bind<'q>(
                query: $crate::journal::postgres::columns::Statement<'q>,
                rows: impl Iterator<Item = &'q Self> + Clone,
            ) -> $crate::journal::postgres::columns::Statement<'q> {
                use $crate::journal::postgres::columns::Cell as _;
                $(let query = query.bind(rows.clone().map(|row| row.$column.bound()).collect::<Vec<_>>());)+
                query
            }
        }
    };
}
pub(crate) use row;

/// A statement with its arguments.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// `INSERT` of any number of rows, up to the conflict clause.
pub(crate) fn insert(table: &str, columns: &[(&str, &str)]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let arrays: Vec<String> = columns.iter().zip(1..).map(|((_, sql), number)| format!("${number}::{sql}[]")).collect();
    format!("INSERT INTO {table} ({}) SELECT * FROM UNNEST({})", names.join(", "), arrays.join(", "))
}

/// The statement that stores those rows that are not there yet, and gives their ids.
pub(super) fn insert_usage<'q>(rows: impl Iterator<Item = &'q Row> + Clone) -> Statement<'q> {
    static INSERT: LazyLock<String> =
        LazyLock::new(|| format!("{} ON CONFLICT DO NOTHING RETURNING event_id", insert("usage_log", Row::COLUMNS)));
    Row::bind(sqlx::query(AssertSqlSafe(INSERT.as_str())), rows)
}

row! {
    copied
    /// One event as `usage_log` stores it; the columns' meanings stand in the migrations.
    pub struct Row {
        event_id: Uuid => "uuid";
        at: DateTime<Utc> => "timestamptz";
        shard: i32 => "int4";
        seq: i64 => "int8";
        action_type: String => "text";
        code: &'static str => "text";
        success: bool => "bool";
        failure_reason: Option<&'static str> => "text";
        replay: bool => "bool";
        mode: String => "text";
        merchant_id: String => "text";
        currency: Option<String> => "text";
        amount: i64 => "int8";
        order_no: Option<String> => "text";
        payment_no: Option<String> => "text";
        channel: Option<String> => "text";
        attempt: Option<Uuid> => "uuid";
        reason: Option<String> => "text";
        operator_id: String => "text";
        operator_type: &'static str => "text";
        policy_version: Option<String> => "text";
        trace_id: Option<String> => "text";
        daily_window: i32 => "int4";
        daily_used_before: i64 => "int8";
        daily_used_after: i64 => "int8";
        daily_count_before: i64 => "int8";
        daily_count_after: i64 => "int8";
        monthly_window: i32 => "int4";
        monthly_used_before: i64 => "int8";
        monthly_used_after: i64 => "int8";
        monthly_count_before: i64 => "int8";
        monthly_count_after: i64 => "int8";
        yearly_window: i32 => "int4";
        yearly_used_before: i64 => "int8";
        yearly_used_after: i64 => "int8";
        yearly_count_before: i64 => "int8";
        yearly_count_after: i64 => "int8";
        account_version: i64 => "int8";
        operation_id: Option<Uuid> => "uuid";
        capture_no: Option<String> => "text";
        refund_no: Option<String> => "text";
        daily_epoch: i16 => "int2";
        monthly_epoch: i16 => "int2";
        yearly_epoch: i16 => "int2";
        daily_refunded_before: i64 => "int8";
        daily_refunded_after: i64 => "int8";
        monthly_refunded_before: i64 => "int8";
        monthly_refunded_after: i64 => "int8";
        yearly_refunded_before: i64 => "int8";
        yearly_refunded_after: i64 => "int8";
        pending_before: i64 => "int8";
        pending_after: i64 => "int8";
        order_state: Option<&'static str> => "text";
        order_amount: Option<i64> => "int8";
        order_settled: Option<i64> => "int8";
        order_refunded: Option<i64> => "int8";
        order_ttl_secs: Option<i64> => "int8";
        hold_until: Option<DateTime<Utc>> => "timestamptz";
        hold_on_expiry: Option<String> => "text";
        wait_ms: i64 => "int8";
        suspended_at: Option<DateTime<Utc>> => "timestamptz";
        counter: Option<String> => "text";
        change: Option<String> => "text";
        expected_version: Option<i64> => "int8";
        remarks: Option<String> => "text";
        /// Sent as text, which Postgres reads.
        metadata: Option<Json> => "text[]::jsonb";
        failure_details: Option<Json> => "text[]::jsonb";
    }
}
