//! The statements of cycles that close, in the transaction of their events.

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::civil::Date;
use quota::PostingKind;
use sluice_credit::{Cycle, GradeTerms, Schedule, Statement, Terms};
use sluice_kit::database::row::{insert, table_row};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::EntryKind;
use crate::day::day_of;
use crate::entry::Entry;
use crate::grade::{GradeRow, terms_on};
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

/// The decisions about a grade that may be in force on a day, oldest first: the last one by that day, and overrides.
const DECISIONS: &str = "\
    SELECT given.place, (to_jsonb(decision) - 'run')::text \
    FROM UNNEST($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS given (merchant_id, currency, day, place) \
    CROSS JOIN LATERAL ( \
        (SELECT * FROM credit_grade AS own WHERE own.merchant_id = given.merchant_id AND own.currency = given.currency::char(3) \
            AND own.kind <> 'override' AND own.on_day <= given.day::date ORDER BY grade_id DESC LIMIT 1) \
        UNION ALL \
        (SELECT * FROM credit_grade AS own WHERE own.merchant_id = given.merchant_id AND own.currency = given.currency::char(3) \
            AND own.kind = 'override' AND own.approved_by IS NOT NULL AND own.expires_on >= given.day::date) \
    ) AS decision ORDER BY given.place, decision.grade_id";
/// The terms of a cycle that no line has.
static STANDARD: LazyLock<Terms> = LazyLock::new(Terms::default);

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
    let mut billed = Vec::with_capacity(closes.len());
    for close in closes {
        let account = (close.merchant_id.clone(), close.currency.clone());
        let own = schedules.get(&account).map(Vec::as_slice).unwrap_or_default();
        let number = numbers.entry(account).or_default();
        *number += 1;
        let found = cycle_terms(own, close.cycle.unsigned_abs());
        billed.extend(found.map(|(cycle, terms)| Billed { close, number: *number, cycle, terms }));
    }
    let grades = grade_terms(connection, &billed).await?;
    let rows: Vec<StatementRow> = billed.iter().zip(grades).map(|(billed, grade)| billed.row(grade)).collect();
    StatementRow::bind(sqlx::query(AssertSqlSafe(INSERT.as_str())), rows.iter()).execute(connection).await.map(drop)
}

/// A cycle that is billed.
struct Billed<'a> {
    close: &'a Entry,
    /// Of the statement.
    number: i32,
    cycle: Cycle,
    /// Those of the line.
    terms: &'a Terms,
}

impl Billed<'_> {
    fn row(&self, grade: GradeTerms) -> StatementRow {
        let Self { close, number, cycle, terms } = self;
        row(close, *number, &terms.with_grade(grade).statement(cycle, close.amount))
    }
}

/// The terms that the grade of each account decides on the day of the close. A statement that is taken over was made before the
/// line had a grade.
async fn grade_terms(connection: &mut PgConnection, billed: &[Billed<'_>]) -> Result<Vec<GradeTerms>, sqlx::Error> {
    let merchants: Vec<&str> = billed.iter().map(|own| own.close.merchant_id.as_str()).collect();
    let currencies: Vec<&str> = billed.iter().map(|own| own.close.currency.as_str()).collect();
    let days: Vec<String> = billed.iter().map(|own| own.cycle.closed_on().to_string()).collect();
    let query = sqlx::query_as(DECISIONS).bind(merchants).bind(currencies).bind(days);
    let found: Vec<(i64, String)> = query.fetch_all(connection).await?;
    let mut decisions: HashMap<i64, Vec<GradeRow>> = HashMap::new();
    for (place, body) in found {
        match serde_json::from_str(&body) {
            Ok(row) => decisions.entry(place).or_default().push(row),
            // As of a later release. The journal goes on: the statement is made by the terms that can be read.
            Err(error) => tracing::error!(%error, "a decision about a grade cannot be read"),
        }
    }
    let terms = |(place, own): (i64, &Billed<'_>)| match decisions.get(&place).filter(|_| !is_opening(own.close)) {
        Some(decisions) => terms_on(decisions, own.cycle.closed_on()),
        None => GradeTerms::default(),
    };
    Ok((1..).zip(billed).map(terms).collect())
}

/// Whether the entry is of a statement: of a cycle that closed, or one that was brought forward.
fn is_billed(entry: &Entry) -> bool {
    entry.kind == EntryKind::CycleClosed.as_str() || is_opening(entry)
}

/// Whether the entry is of a statement that was made before, in another system.
fn is_opening(entry: &Entry) -> bool {
    entry.kind == EntryKind::Posting(PostingKind::Opening).as_str()
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

/// A cycle, and the terms of the line that was open in it. One that no line has is dated by the default terms: its amount is owed all
/// the same.
pub(crate) fn cycle_terms(schedules: &[(Date, Schedule)], cycle: u32) -> Option<(Cycle, &Terms)> {
    let first_day = day_of(cycle)?;
    let schedule = schedules.iter().rev().find(|(opened_on, _)| *opened_on <= first_day);
    let found = schedule.and_then(|(_, schedule)| schedule.cycle_from(first_day));
    let standard = || STANDARD.cycle.cycle_at(first_day, first_day).map(|cycle| (cycle, &*STANDARD));
    found.or_else(standard)
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
    entry.value_day.filter(|_| is_opening(entry)).and_then(|day| day_of(day.unsigned_abs()))
}
