//! What is left behind: the account's counters in Redis and the journal's rows in Postgres.

use std::time::Duration;

use sqlx::Row;
use testkit::stack::Stack;
use testkit::{Failure, Result, wait};

use crate::payments::MERCHANT;

/// The journal drains in the background.
const STORED_WITHIN: Duration = Duration::from_secs(10);

/// Order, action and code of every row that the requests leave, in their order.
const ROWS: [(&str, &str, &str); 12] = [
    ("demo-1", "consume", "ADMITTED"),
    ("demo-1", "consume", "ADMITTED"),
    ("demo-1", "consume", "IDEMPOTENCY_CONFLICT"),
    ("demo-2", "consume", "ABOVE_SINGLE_MAX"),
    ("demo-3", "consume", "DAILY_AMOUNT"),
    ("demo-5", "consume", "ADMITTED"),
    ("demo-5", "void", "VOIDED"),
    ("demo-6", "consume", "ABOVE_SINGLE_MAX"),
    ("demo-8", "hold", "ADMITTED"),
    ("demo-8", "settle", "APPLIED"),
    ("demo-8", "reserve_refund", "APPLIED"),
    ("demo-8", "refund", "APPLIED"),
];

struct Entry {
    seq: i64,
    order_no: String,
    action: String,
    code: String,
    replay: bool,
    mode: String,
    amount: i64,
    used_before: i64,
    used_after: i64,
}

/// Prints counters and journal; 1 where the journal does not hold exactly what the payments announced.
pub(crate) async fn show(stack: &Stack) -> Result<usize> {
    let account = stack.account(MERCHANT, "USD").await?.ok_or_else(|| Failure::new("the account was never charged"))?;
    println!("\nCounters of {MERCHANT} in USD, as Redis has them");
    for (period, window) in account.windows.iter() {
        let name = period.as_str();
        println!(
            "  {name:<6} {:<9} amount {:>6}  payments {}  refunded {:>5}",
            window.id, window.amount, window.count, window.refunded
        );
    }
    let entries = read(stack).await?;
    println!("\nJournal, as Postgres has it");
    println!(
        "  {:<4} {:<8} {:<14} {:<21} {:<8} {:>7} {:>18}",
        "seq", "order", "action", "code", "mode", "amount", "day"
    );
    for entry in &entries {
        let day = format!("{} -> {}", entry.used_before, entry.used_after);
        let Entry { seq, order_no, action, mode, amount, .. } = entry;
        let code = if entry.replay { format!("{} (replay)", entry.code) } else { entry.code.clone() };
        println!("  {seq:<4} {order_no:<8} {action:<14} {code:<21} {mode:<8} {amount:>7} {day:>18}");
    }
    let found: Vec<_> = entries.iter().map(|entry| (&*entry.order_no, &*entry.action, &*entry.code)).collect();
    let agrees =
        entries.last().and_then(|entry| u64::try_from(entry.used_after).ok()) == Some(account.windows.day.amount);
    if found == ROWS && agrees {
        return Ok(0);
    }
    println!(
        "    NOT AS ANNOUNCED: the rows should be {ROWS:?} and end at the counter's {}",
        account.windows.day.amount
    );
    Ok(1)
}

async fn read(stack: &Stack) -> Result<Vec<Entry>> {
    let pool = stack.postgres.pool().await?;
    let rows = wait::until_async("the journal's rows", STORED_WITHIN, || async {
        let query = "SELECT seq, order_no, action_type, code, replay, mode, amount, daily_used_before, daily_used_after \
                     FROM usage_log WHERE merchant_id = $1 ORDER BY seq";
        let rows = sqlx::query(query).bind(MERCHANT).fetch_all(&pool).await?;
        Ok(Some(rows).filter(|rows| rows.len() >= ROWS.len()))
    });
    let entry = |row: &sqlx::postgres::PgRow| -> Result<Entry> {
        Ok(Entry {
            seq: row.try_get("seq")?,
            order_no: row.try_get("order_no")?,
            action: row.try_get("action_type")?,
            code: row.try_get("code")?,
            replay: row.try_get("replay")?,
            mode: row.try_get("mode")?,
            amount: row.try_get("amount")?,
            used_before: row.try_get("daily_used_before")?,
            used_after: row.try_get("daily_used_after")?,
        })
    };
    rows.await?.iter().map(entry).collect()
}
