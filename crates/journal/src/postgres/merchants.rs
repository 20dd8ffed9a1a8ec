//! Merchants as a whole, in the transaction of the events that change them: such events are rare.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::accounts::REWOUND;
use crate::event::Event;
use sluice_kit::database::row::{insert, table_row};

table_row! {
    /// A merchant's own state as `quota_merchant` stores it.
    struct Merchant {
        merchant_id: String => "text";
        shard: i32 => "int4";
        seq: i64 => "int8";
        version: i64 => "int8";
        suspended_at: Option<DateTime<Utc>> => "timestamptz";
        suspended_reason: Option<String> => "text";
        suspended_by: Option<String> => "text";
        updated_at: DateTime<Utc> => "timestamptz";
        last_updated_by: String => "text";
    }
}

/// Upserts merchants, each where it is the newer state, as for accounts.
static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let values: Vec<String> = Merchant::COLUMNS.iter().map(|(name, _)| format!("{name} = EXCLUDED.{name}")).collect();
    format!(
        "{} ON CONFLICT (merchant_id) DO UPDATE SET {} WHERE quota_merchant.seq < EXCLUDED.seq \
            OR quota_merchant.updated_at < EXCLUDED.updated_at - interval '{} seconds'",
        insert("quota_merchant", Merchant::COLUMNS),
        values.join(", "),
        REWOUND.num_seconds()
    )
});

/// Stores the merchant changes of the events, in the order of the merchants.
pub(super) async fn store(connection: &mut PgConnection, events: &[Event]) -> Result<(), sqlx::Error> {
    let mut changes: Vec<&Event> = events.iter().filter(|event| event.changes_merchant).collect();
    if changes.is_empty() {
        return Ok(());
    }
    changes.sort_by_key(|event| (event.row.shard, event.row.seq));
    let last: BTreeMap<&str, &Event> = changes.iter().map(|event| (event.row.merchant_id.as_str(), *event)).collect();
    let merchants: Vec<Merchant> = last.into_values().map(merchant).collect();
    let statement = Merchant::bind(sqlx::query(AssertSqlSafe(UPSERT.as_str())), merchants.iter());
    statement.execute(connection).await.map(drop)
}

fn merchant(event: &Event) -> Merchant {
    let row = &event.row;
    let suspended = row.suspended_at.is_some();
    Merchant {
        merchant_id: row.merchant_id.clone(),
        shard: row.shard,
        seq: row.seq,
        version: row.account_version,
        suspended_at: row.suspended_at,
        suspended_reason: row.reason.clone().filter(|_| suspended),
        suspended_by: suspended.then(|| row.operator_id.clone()),
        updated_at: row.at,
        last_updated_by: row.operator_id.clone(),
    }
}
