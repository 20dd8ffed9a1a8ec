//! A row of `usage_log`: each column is named once, with its type here and in Postgres. Several rows go in one statement,
//! as one array a column.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

/// What a column's value is bound as: text by reference, everything else by copy.
trait Cell {
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

copied!(Uuid, Option<Uuid>, DateTime<Utc>, i32, i64, bool, &'static str);

impl Cell for String {
    type Bound<'a> = &'a str;

    fn bound(&self) -> &str {
        self
    }
}

impl Cell for Option<String> {
    type Bound<'a> = Option<&'a str>;

    fn bound(&self) -> Option<&str> {
        self.as_deref()
    }
}

macro_rules! columns {
    ($($column:ident: $type:ty => $sql:literal;)+) => {
        /// One event as `usage_log` stores it; the columns' meanings stand in the migration.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Row {
            $(pub $column: $type,)+
        }

        const COLUMNS: &[(&str, &str)] = &[$((stringify!($column), $sql)),+];

        /// The statement that stores all rows that are not stored yet.
        pub(super) fn insert<'q>(rows: impl Iterator<Item = &'q Row> + Clone) -> Query<'q, Postgres, PgArguments> {
            let query = sqlx::query(AssertSqlSafe(INSERT.as_str()));
            $(let query = query.bind(rows.clone().map(|row| row.$column.bound()).collect::<Vec<_>>());)+
            query
        }
    };
}

columns! {
    event_id: Uuid => "uuid";
    at: DateTime<Utc> => "timestamptz";
    shard: i32 => "int4";
    seq: i64 => "int8";
    action_type: String => "text";
    code: &'static str => "text";
    success: bool => "bool";
    replay: bool => "bool";
    mode: String => "text";
    merchant_id: String => "text";
    currency: Option<String> => "text";
    amount: i64 => "int8";
    order_no: String => "text";
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
}

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let arrays: Vec<String> = COLUMNS.iter().zip(1..).map(|((_, sql), number)| format!("${number}::{sql}[]")).collect();
    let (names, arrays) = (names.join(", "), arrays.join(", "));
    format!("INSERT INTO usage_log ({names}) SELECT * FROM UNNEST({arrays}) ON CONFLICT DO NOTHING")
});
