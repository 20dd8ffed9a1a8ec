//! Closed windows, with their last usage.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use quota::ClosedWindow;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::event::Event;
use sluice_kit::database::row::{insert, table_row};

table_row! {
    /// One window as `quota_window` stores it.
    struct Window {
        merchant_id: String => "text";
        currency: String => "text";
        period: &'static str => "text";
        window_id: i32 => "int4";
        epoch: i16 => "int2";
        amount: i64 => "int8";
        count: i64 => "int8";
        refunded: i64 => "int8";
        closed_at: DateTime<Utc> => "timestamptz";
        event_id: Uuid => "uuid";
    }
}

/// A window is closed by one event. Where Redis lost that and closed it again, the first stays: it counted more.
static INSERT: LazyLock<String> =
    LazyLock::new(|| format!("{} ON CONFLICT DO NOTHING", insert("quota_window", Window::COLUMNS)));

/// Stores the windows that the events closed; those that are there stay as they are.
pub(super) async fn store(connection: &mut PgConnection, events: &[Event]) -> Result<(), sqlx::Error> {
    let closed = events.iter().flat_map(|event| event.closed.windows.iter().filter_map(|closed| window(event, closed)));
    let mut windows: Vec<Window> = closed.collect();
    if windows.is_empty() {
        return Ok(());
    }
    // Two servers that store the same windows wait for each other in one order.
    windows.sort_by(|a, b| {
        let key = |window: &Window| (window.period, window.window_id);
        (&a.merchant_id, &a.currency, key(a)).cmp(&(&b.merchant_id, &b.currency, key(b)))
    });
    let statement = Window::bind(sqlx::query(AssertSqlSafe(INSERT.as_str())), windows.iter());
    statement.execute(connection).await.map(drop)
}

/// `None` for an event without an account, which closes nothing.
fn window(event: &Event, ClosedWindow { period, counter }: &ClosedWindow) -> Option<Window> {
    Some(Window {
        merchant_id: event.row.merchant_id.clone(),
        currency: event.row.currency.clone()?,
        period: period.as_str(),
        window_id: i32::try_from(counter.id).ok()?,
        epoch: i16::from(counter.epoch),
        amount: i64::try_from(counter.amount).ok()?,
        count: i64::try_from(counter.count).ok()?,
        refunded: i64::try_from(counter.refunded).ok()?,
        closed_at: event.row.at,
        event_id: event.row.event_id,
    })
}
