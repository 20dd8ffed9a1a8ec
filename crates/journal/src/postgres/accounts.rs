//! Stores the last state of every account, and never an older state over a newer one. Changes from several batches may be
//! gathered and stored once, as long as their events stay in Redis: after a crash the next reader gathers them again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use quota::ThresholdLevels;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::Row;
use crate::event::Event;
use sluice_kit::database::row::{insert, table_row};

table_row! {
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
        alert_marks: i32 => "int4";
        alert_list: i32 => "int4";
        weekly_window: i32 => "int4";
        weekly_used: i64 => "int8";
        weekly_count: i64 => "int8";
        weekly_refunded: i64 => "int8";
        credit_exposure: Option<i64> => "int8";
        alert_marks_more: i32 => "int4";
    }
}

/// Columns that keep their value where a change has none.
const KEPT: [&str; 2] = ["last_order_no", "last_payment_no"];

/// The newer event of a shard has the larger number. One that is later by more than this and has a smaller number is of a Redis
/// that lost writes and counts again from the start; servers' clocks are closer together than that.
pub const REWOUND: TimeDelta = TimeDelta::minutes(5);

/// Upserts accounts, each where it is the newer state ([`REWOUND`]).
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
            OR quota_account.updated_at < EXCLUDED.updated_at - interval '{} seconds'",
        insert("quota_account", Account::COLUMNS),
        values.join(", "),
        REWOUND.num_seconds()
    )
});

/// Stores who suspended an account and why, where it is still that suspension.
const SUSPEND: &str = "UPDATE quota_account SET suspended_reason = suspension.reason, suspended_by = suspension.operator \
    FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[]) \
        AS suspension (merchant_id, currency, suspended_at, reason, operator) \
    WHERE quota_account.merchant_id = suspension.merchant_id AND quota_account.currency = suspension.currency \
        AND quota_account.suspended_at = suspension.suspended_at";

/// Merchant and currency.
pub(super) type Key = (String, String);

/// Accounts whose last state is not stored yet.
#[derive(Debug, Default)]
pub(super) struct Gathered(HashMap<Key, Change>);

/// The changes of one account in events.
#[derive(Debug)]
struct Change {
    account: Account,
    suspensions: Vec<Suspension>,
}

/// A suspension in an event.
#[derive(Debug)]
struct Suspension {
    merchant_id: String,
    currency: String,
    suspended_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    operator_id: String,
}

impl Gathered {
    /// The account changes in the events.
    pub(super) fn of(events: &[Event]) -> Self {
        let mut changes: Vec<&Event> = events.iter().filter(|event| event.changes_account).collect();
        changes.sort_by_key(|event| (event.row.shard, event.row.seq));
        let change = |account: Account| (account.key(), Change { account, suspensions: Vec::new() });
        let mut gathered: HashMap<Key, Change> = newest(&changes).into_iter().map(change).collect();
        for suspension in changes.iter().filter_map(|event| Suspension::of(&event.row)) {
            if let Some(change) = gathered.get_mut(&(suspension.merchant_id.clone(), suspension.currency.clone())) {
                change.suspensions.push(suspension);
            }
        }
        Self(gathered)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the account changes of later events.
    pub(super) fn add(&mut self, later: Self) {
        for (key, later) in later.0 {
            match self.0.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(later)),
                Entry::Occupied(mut entry) => {
                    let change = entry.get_mut();
                    change.account.follow(later.account);
                    change.suspensions.extend(later.suspensions);
                }
            }
        }
    }

    /// The accounts in their order: two servers that store the same ones lock them in one order.
    pub(super) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.0.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    pub(super) fn forget(&mut self, keys: &[Key]) {
        for key in keys {
            self.0.remove(key);
        }
    }

    /// Stores some of them, in the order given.
    pub(super) async fn store(&self, keys: &[Key], connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let changes: Vec<&Change> = keys.iter().filter_map(|key| self.0.get(key)).collect();
        let accounts = changes.iter().map(|change| &change.account);
        let statement = Account::bind(sqlx::query(AssertSqlSafe(UPSERT.as_str())), accounts);
        statement.execute(&mut *connection).await?;
        store_suspensions(connection, &changes).await
    }
}

impl Account {
    fn key(&self) -> Key {
        (self.merchant_id.clone(), self.currency.clone())
    }

    /// Applies a later state, as [`UPSERT`] does.
    fn follow(&mut self, later: Self) {
        if self.seq < later.seq || self.updated_at < later.updated_at - REWOUND {
            let (order_no, payment_no) = (self.last_order_no.take(), self.last_payment_no.take());
            *self = later;
            self.last_order_no = self.last_order_no.take().or(order_no);
            self.last_payment_no = self.last_payment_no.take().or(payment_no);
        }
    }
}

impl Suspension {
    fn of(row: &Row) -> Option<Self> {
        let currency = row.currency.clone().filter(|_| row.action_type == "suspend")?;
        Some(Self {
            merchant_id: row.merchant_id.clone(),
            currency,
            suspended_at: row.suspended_at,
            reason: row.reason.clone(),
            operator_id: row.operator_id.clone(),
        })
    }
}

/// The last state of each account, of events in their order.
fn newest(changes: &[&Event]) -> Vec<Account> {
    let mut accounts: BTreeMap<(&str, &str), Last<'_>> = BTreeMap::new();
    for event in changes {
        let Event { row, record, .. } = event;
        let Some(currency) = row.currency.as_deref() else { continue };
        let before = accounts.get(&(row.merchant_id.as_str(), currency));
        let last = Last {
            row,
            levels: record.levels,
            order_no: row.order_no.as_deref().or(before.and_then(|before| before.order_no)),
            payment_no: row.payment_no.as_deref().or(before.and_then(|before| before.payment_no)),
        };
        accounts.insert((&row.merchant_id, currency), last);
    }
    accounts.into_iter().map(|((_, currency), last)| account(currency, &last)).collect()
}

/// The last state of an account in a batch.
struct Last<'a> {
    row: &'a Row,
    levels: ThresholdLevels,
    order_no: Option<&'a str>,
    payment_no: Option<&'a str>,
}

fn account(currency: &str, Last { row, levels, order_no, payment_no }: &Last<'_>) -> Account {
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
        alert_marks: marks(levels.packed() & ((1 << MARKS_BITS) - 1)),
        alert_marks_more: marks(levels.packed() >> MARKS_BITS),
        alert_list: i32::from(levels.list),
        weekly_window: row.weekly_window,
        weekly_used: row.weekly_used_after,
        weekly_count: row.weekly_count_after,
        weekly_refunded: row.weekly_refunded_after,
        credit_exposure: row.exposure_after,
    }
}

/// How many bits of packed threshold levels `alert_marks` has: the first seven limits'. The others' are in `alert_marks_more`, so
/// that a server of the release before still reads and writes its own.
pub(super) const MARKS_BITS: u32 = 28;

fn marks(levels: u64) -> i32 {
    i32::try_from(levels).unwrap_or_default()
}

/// The last day, `YYYYMMDD`, of the shortest window that has counted anything. A month's or year's last day is the largest
/// number that it can have.
fn open_until(row: &Row) -> Option<i32> {
    let windows = [
        (row.daily_window, [row.daily_used_after, row.daily_count_after, row.daily_refunded_after]),
        (
            last_day_of_week(row.weekly_window),
            [row.weekly_used_after, row.weekly_count_after, row.weekly_refunded_after],
        ),
        (
            row.monthly_window.saturating_mul(100).saturating_add(31),
            [row.monthly_used_after, row.monthly_count_after, row.monthly_refunded_after],
        ),
        (
            row.yearly_window.saturating_mul(10_000).saturating_add(1231),
            [row.yearly_used_after, row.yearly_count_after, row.yearly_refunded_after],
        ),
    ];
    windows.into_iter().find(|(_, counters)| counters.iter().any(|counter| *counter > 0)).map(|(last_day, _)| last_day)
}

/// The last day of a week; its own first day where that is no date.
fn last_day_of_week(first: i32) -> i32 {
    let date = NaiveDate::parse_from_str(&first.to_string(), "%Y%m%d").ok();
    let last = date.and_then(|date| date.checked_add_days(Days::new(6)));
    last.and_then(|last| last.format("%Y%m%d").to_string().parse().ok()).unwrap_or(first)
}

async fn store_suspensions(connection: &mut PgConnection, changes: &[&Change]) -> Result<(), sqlx::Error> {
    let suspensions: Vec<&Suspension> = changes.iter().flat_map(|change| &change.suspensions).collect();
    if suspensions.is_empty() {
        return Ok(());
    }
    let of = |text: fn(&Suspension) -> Option<&str>| suspensions.iter().map(|given| text(given)).collect::<Vec<_>>();
    sqlx::query(SUSPEND)
        .bind(of(|given| Some(&given.merchant_id)))
        .bind(of(|given| Some(&given.currency)))
        .bind(suspensions.iter().map(|given| given.suspended_at).collect::<Vec<_>>())
        .bind(of(|given| given.reason.as_deref()))
        .bind(of(|given| Some(&given.operator_id)))
        .execute(connection)
        .await
        .map(drop)
}
