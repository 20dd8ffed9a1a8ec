//! The statements of cycles that close, in the transaction of their events.

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::civil::Date;
use quota::PostingKind;
use sluice_credit::{Schedule, Statement, Terms};
use sluice_kit::database::row::{insert, table_row};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::EntryKind;
use crate::day::day_of;
use crate::entry::Entry;
use crate::line::{CreditLine, schedule};

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let insert = insert("credit_statement", StatementRow::COLUMNS);
    // A number that another journal gave meanwhile fails the transaction, which is tried again: no statement is left out.
    format!("{insert} ON CONFLICT (merchant_id, currency, cycle) DO NOTHING")
});
/// The versions that were ever in force of the accounts given, and the number of each account's last statement.
const VERSIONS: &str = "\
    SELECT to_jsonb(line)::text FROM credit_line AS line \
    NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM UNNEST($1::text[], $2::text[]) AS given (merchant_id, currency)) AS given \
    WHERE activated_on IS NOT NULL ORDER BY created_at, version";
const NUMBERS: &str = "\
    SELECT merchant_id, currency::text, max(number) FROM credit_statement \
    NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM UNNEST($1::text[], $2::text[]) AS given (merchant_id, currency)) AS given \
    GROUP BY merchant_id, currency";

table_row! {
    /// One statement, as `credit_statement` stores it.
    struct StatementRow {
        merchant_id: String => "text";
        currency: String => "text";
        number: i32 => "int4";
        cycle: i32 => "int4";
        first_day: String => "date";
        closed_on: String => "date";
        due_on: String => "date";
        amount: i64 => "int8";
        minimum: i64 => "int8";
        event_id: Uuid => "uuid";
    }
}

/// An account, as rows name it.
type Account = (String, String);

/// Stores a statement for each cycle that closed. A cycle has one, whatever comes twice.
pub(crate) async fn store(connection: &mut PgConnection, entries: &[Entry]) -> Result<(), sqlx::Error> {
    let closes: Vec<&Entry> = entries.iter().filter(|entry| is_billed(entry)).collect();
    if closes.is_empty() {
        return Ok(());
    }
    let merchants: Vec<&str> = closes.iter().map(|entry| entry.merchant_id.as_str()).collect();
    let currencies: Vec<&str> = closes.iter().map(|entry| entry.currency.as_str()).collect();
    let lines: Vec<String> =
        sqlx::query_scalar(VERSIONS).bind(&merchants).bind(&currencies).fetch_all(&mut *connection).await?;
    let numbers: Vec<(String, String, i32)> =
        sqlx::query_as(NUMBERS).bind(&merchants).bind(&currencies).fetch_all(&mut *connection).await?;
    let schedules = schedules(&lines);
    let mut numbers: HashMap<Account, i32> =
        numbers.into_iter().map(|(merchant, currency, number)| ((merchant, currency), number)).collect();
    let mut rows = Vec::with_capacity(closes.len());
    for close in closes {
        let account = (close.merchant_id.clone(), close.currency.clone());
        let schedules = schedules.get(&account).map(Vec::as_slice).unwrap_or_default();
        let statement = of_cycle(schedules, close.cycle.unsigned_abs(), close.amount);
        let number = numbers.entry(account).or_default();
        *number += 1;
        rows.extend(statement.map(|statement| row(close, *number, &statement)));
    }
    StatementRow::bind(sqlx::query(AssertSqlSafe(INSERT.as_str())), rows.iter()).execute(connection).await.map(drop)
}

/// Whether the entry is of a statement: of a cycle that closed, or one that was brought forward.
fn is_billed(entry: &Entry) -> bool {
    [EntryKind::CycleClosed, EntryKind::Posting(PostingKind::Opening)].iter().any(|kind| kind.as_str() == entry.kind)
}

/// The schedules of each account's lines, each with its first day, in the order in which the lines were made. A line that was taken
/// over may begin before one that was closed here.
fn schedules(lines: &[String]) -> HashMap<Account, Vec<(Date, Schedule)>> {
    let mut versions: HashMap<Account, Vec<Vec<CreditLine>>> = HashMap::new();
    for body in lines {
        let line: CreditLine = match serde_json::from_str(body) {
            Ok(line) => line,
            Err(error) => {
                // As of a later release. The journal goes on: the statement is dated by the versions that can be read.
                tracing::error!(%error, "a version of a credit line cannot be read");
                continue;
            }
        };
        let own = versions.entry((line.merchant_id.clone(), line.currency.clone())).or_default();
        match own.last_mut().filter(|last| last.first().is_some_and(|first| first.line_id == line.line_id)) {
            Some(last) => last.push(line),
            None => own.push(vec![line]),
        }
    }
    let begun = |versions: &Vec<CreditLine>| Some((versions.first()?.opened_on?, schedule(versions.iter())?));
    versions.into_iter().map(|(account, own)| (account, own.iter().filter_map(begun).collect())).collect()
}

/// The statement by the terms of the line that was open. A cycle that no line has is dated by the default terms: its amount is
/// owed all the same.
pub(crate) fn of_cycle(schedules: &[(Date, Schedule)], cycle: u32, amount: i64) -> Option<Statement> {
    let first_day = day_of(cycle)?;
    let schedule = schedules.iter().rev().find(|(opened_on, _)| *opened_on <= first_day);
    let found = schedule.and_then(|(_, schedule)| schedule.cycle_from(first_day));
    let standard = Terms::default();
    let (cycle, terms) = match found {
        Some(found) => found,
        None => (standard.cycle.cycle_at(first_day, first_day)?, &standard),
    };
    Some(terms.statement(&cycle, amount))
}

fn row(close: &Entry, number: i32, statement: &Statement) -> StatementRow {
    StatementRow {
        merchant_id: close.merchant_id.clone(),
        currency: close.currency.clone(),
        number,
        cycle: close.cycle,
        first_day: statement.first_day.to_string(),
        closed_on: statement.closed_on.to_string(),
        due_on: given_due_on(close).unwrap_or(statement.due_on).to_string(),
        amount: statement.amount,
        minimum: statement.minimum,
        event_id: close.event_id,
    }
}

/// The due date that a statement had where it was taken over from. The day of a close is no due date.
fn given_due_on(entry: &Entry) -> Option<Date> {
    let is_opening = entry.kind == EntryKind::Posting(PostingKind::Opening).as_str();
    entry.value_day.filter(|_| is_opening).and_then(|day| day_of(day.unsigned_abs()))
}
