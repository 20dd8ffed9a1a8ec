//! Every account as its last change left it: one row an account and batch, and never an older state over a newer one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::Row;
use super::columns::{insert, row};
use crate::journal::event::Event;

row! {
    /// One account as `quota_account` stores it.
    struct Account {
        merchant_id: String => "text";
        currency: String => "text";
        shard: i32 => "int4";
        seq: i64 => "int8";
        version: i64 => "int8";
        daily_window: i32 => "int4";
        daily_used: i64 => "int8";
        daily_count: i64 => "int8";
        daily_refunded: i64 => "int8";
        monthly_window: i32 => "int4";
        monthly_used: i64 => "int8";
        monthly_count: i64 => "int8";
        monthly_refunded: i64 => "int8";
        yearly_window: i32 => "int4";
        yearly_used: i64 => "int8";
        yearly_count: i64 => "int8";
        yearly_refunded: i64 => "int8";
        pending_amount: i64 => "int8";
        open_until: Option<i32> => "int4";
        suspended_at: Option<DateTime<Utc>> => "timestamptz";
        last_order_no: Option<String> => "text";
        last_payment_no: Option<String> => "text";
        last_updated_by: String => "text";
        updated_at: DateTime<Utc> => "timestamptz";
    }
}

/// Columns that a change keeps where it names nothing else.
const KEPT: [&str; 2] = ["last_order_no", "last_payment_no"];

/// The newer event of a shard has the larger number. A much later time with a smaller one is a Redis that lost writes and
/// counts anew; servers' clocks are closer together than that.
static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let value = |(name, _): &(&str, &str)| {
        if KEPT.contains(name) {
            format!("{name} = coalesce(EXCLUDED.{name}, quota_account.{name})")
        } else {
            format!("{name} = EXCLUDED.{name}")
        }
    };
    let values: Vec<String> = Account::COLUMNS.iter().map(value).collect();
    let same = "CASE WHEN quota_account.suspended_at = EXCLUDED.suspended_at THEN quota_account";
    format!(
        "{} ON CONFLICT (merchant_id, currency) DO UPDATE SET {}, \
            suspended_reason = {same}.suspended_reason END, suspended_by = {same}.suspended_by END \
        WHERE quota_account.seq < EXCLUDED.seq \
            OR quota_account.updated_at < EXCLUDED.updated_at - interval '5 minutes'",
        insert("quota_account", Account::COLUMNS),
        values.join(", ")
    )
});

/// Says who suspended an account and why, where it is still that suspension.
const SUSPEND: &str = "UPDATE quota_account SET suspended_reason = told.reason, suspended_by = told.operator \
    FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[]) \
        AS told (merchant_id, currency, suspended_at, reason, operator) \
    WHERE quota_account.merchant_id = told.merchant_id AND quota_account.currency = told.currency \
        AND quota_account.suspended_at = told.suspended_at";

/// Takes over what the events made of their accounts.
pub(super) async fn store(connection: &mut PgConnection, events: &[Event]) -> Result<(), sqlx::Error> {
    let mut rows: Vec<&Row> = events.iter().filter(|event| event.changes_account).map(|event| &event.row).collect();
    rows.sort_by_key(|row| (row.shard, row.seq));
    // In the order of keys: two servers that store the same accounts wait for each other in one order.
    let accounts = newest(&rows);
    if accounts.is_empty() {
        return Ok(());
    }
    let statement = Account::bind(sqlx::query(AssertSqlSafe(UPSERT.as_str())), accounts.iter());
    statement.execute(&mut *connection).await?;
    store_suspensions(connection, &rows).await
}

/// The last state of each account, of rows in their order.
fn newest(rows: &[&Row]) -> Vec<Account> {
    let mut accounts: BTreeMap<(&str, &str), Last<'_>> = BTreeMap::new();
    for row in rows {
        let Some(currency) = row.currency.as_deref() else { continue };
        let before = accounts.get(&(row.merchant_id.as_str(), currency));
        let last = Last {
            row,
            order_no: row.order_no.as_deref().or(before.and_then(|before| before.order_no)),
            payment_no: row.payment_no.as_deref().or(before.and_then(|before| before.payment_no)),
        };
        accounts.insert((&row.merchant_id, currency), last);
    }
    accounts.into_iter().map(|((_, currency), last)| account(currency, &last)).collect()
}

/// What a batch says last of an account.
struct Last<'a> {
    row: &'a Row,
    order_no: Option<&'a str>,
    payment_no: Option<&'a str>,
}

fn account(currency: &str, Last { row, order_no, payment_no }: &Last<'_>) -> Account {
    Account {
        merchant_id: row.merchant_id.clone(),
        currency: currency.to_owned(),
        shard: row.shard,
        seq: row.seq,
        version: row.account_version,
        daily_window: row.daily_window,
        daily_used: row.daily_used_after,
        daily_count: row.daily_count_after,
        daily_refunded: row.daily_refunded_after,
        monthly_window: row.monthly_window,
        monthly_used: row.monthly_used_after,
        monthly_count: row.monthly_count_after,
        monthly_refunded: row.monthly_refunded_after,
        yearly_window: row.yearly_window,
        yearly_used: row.yearly_used_after,
        yearly_count: row.yearly_count_after,
        yearly_refunded: row.yearly_refunded_after,
        pending_amount: row.pending_after,
        open_until: open_until(row),
        suspended_at: row.suspended_at,
        last_order_no: order_no.map(str::to_owned),
        last_payment_no: payment_no.map(str::to_owned),
        last_updated_by: row.operator_id.clone(),
        updated_at: row.at,
    }
}

/// The last day, `YYYYMMDD`, of the shortest window that has counted something. A month's or year's last day is the largest
/// that its number has room for.
fn open_until(row: &Row) -> Option<i32> {
    let windows = [
        (row.daily_window, [row.daily_used_after, row.daily_count_after, row.daily_refunded_after]),
        (
            row.monthly_window.saturating_mul(100).saturating_add(31),
            [row.monthly_used_after, row.monthly_count_after, row.monthly_refunded_after],
        ),
        (
            row.yearly_window.saturating_mul(10_000).saturating_add(1231),
            [row.yearly_used_after, row.yearly_count_after, row.yearly_refunded_after],
        ),
    ];
    windows.into_iter().find(|(_, figures)| figures.iter().any(|figure| *figure > 0)).map(|(last_day, _)| last_day)
}

async fn store_suspensions(connection: &mut PgConnection, rows: &[&Row]) -> Result<(), sqlx::Error> {
    let told: Vec<&Row> = rows.iter().copied().filter(|row| row.action_type == "suspend").collect();
    if told.is_empty() {
        return Ok(());
    }
    let of = |text: fn(&Row) -> Option<&str>| told.iter().map(|row| text(row)).collect::<Vec<_>>();
    sqlx::query(SUSPEND)
        .bind(of(|row| Some(&row.merchant_id)))
        .bind(of(|row| row.currency.as_deref()))
        .bind(told.iter().map(|row| row.suspended_at).collect::<Vec<_>>())
        .bind(of(|row| row.reason.as_deref()))
        .bind(of(|row| Some(&row.operator_id)))
        .execute(connection)
        .await
        .map(drop)
}
