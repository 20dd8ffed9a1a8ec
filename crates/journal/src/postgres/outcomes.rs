//! Unknown outcomes, in the transaction of the events that report and resolve them.

use std::collections::HashSet;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::event::Event;
use crate::event::outcome::{Change, Which};
use sluice_kit::database::row::{insert, table_row};

table_row! {
    /// One outcome as `unknown_outcome` stores it.
    struct Unknown {
        outcome_id: Uuid => "uuid";
        merchant_id: String => "text";
        currency: String => "text";
        order_no: String => "text";
        attempt: Option<Uuid> => "uuid";
        operation: &'static str => "text";
        operation_id: Option<Uuid> => "uuid";
        operation_no: Option<String> => "text";
        amount: i64 => "int8";
        reason: String => "text";
        since: DateTime<Utc> => "timestamptz";
    }
}

/// An open outcome stays as it is: its first report counts.
static INSERT: LazyLock<String> =
    LazyLock::new(|| format!("{} ON CONFLICT DO NOTHING", insert("unknown_outcome", Unknown::COLUMNS)));
const SETTLE: &str = "UPDATE unknown_outcome AS o \
    SET resolved_at = greatest(given.at, o.since), resolution = given.resolution, resolved_by = given.by, \
        resolved_event_id = given.event_id, note = coalesce(given.note, given.action) \
    FROM UNNEST($1::text[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::text[], $8::text[], $9::uuid[], \
        $10::text[], $11::text[]) \
        AS given (merchant_id, order_no, which, operation_id, attempt, at, resolution, by, event_id, note, action) \
    WHERE o.resolved_at IS NULL AND o.merchant_id = given.merchant_id AND o.order_no = given.order_no \
        AND CASE given.which WHEN 'charge' THEN o.operation IN ('consume', 'hold') \
            WHEN 'capture' THEN o.operation = 'settle' AND o.operation_id = given.operation_id \
            WHEN 'refund' THEN o.operation = 'refund' AND (o.operation_id = given.operation_id OR o.attempt = given.attempt) \
            ELSE o.operation = 'void' END";

/// Stores the outcome changes of the events, in their order; `new` names the events that are stored now and not before, where
/// not all are. Runs of reports and of resolutions are one statement each.
pub(super) async fn store(
    connection: &mut PgConnection,
    events: &[Event],
    new: Option<&HashSet<Uuid>>,
) -> Result<(), sqlx::Error> {
    let is_new = |event: &&Event| new.is_none_or(|new| new.contains(&event.row.event_id));
    let mut concerned: Vec<&Event> = events.iter().filter(|event| !event.outcomes.is_empty()).filter(is_new).collect();
    concerned.sort_by_key(|event| (event.row.shard, event.row.seq));
    let opens = |event: &Event| matches!(event.outcomes.as_slice(), [Change::Opened { .. }]);
    for run in concerned.chunk_by(|one, next| opens(one) == opens(next)) {
        if run.first().is_some_and(|event| opens(event)) {
            open(connection, run).await?;
        } else {
            settle(connection, run).await?;
        }
    }
    Ok(())
}

async fn open(connection: &mut PgConnection, events: &[&Event]) -> Result<(), sqlx::Error> {
    let mut rows: Vec<Unknown> = events.iter().filter_map(|event| unknown(event)).collect();
    // Two servers that store the same rows lock them in one order.
    rows.sort_by(|a, b| (&a.merchant_id, &a.order_no).cmp(&(&b.merchant_id, &b.order_no)));
    if rows.is_empty() {
        return Ok(());
    }
    let statement = Unknown::bind(sqlx::query(AssertSqlSafe(INSERT.as_str())), rows.iter());
    statement.execute(connection).await.map(drop)
}

/// `None` for an event that is about no order, which reports nothing.
fn unknown(event: &Event) -> Option<Unknown> {
    let [Change::Opened { operation }] = event.outcomes.as_slice() else { return None };
    let row = &event.row;
    Some(Unknown {
        outcome_id: row.event_id,
        merchant_id: row.merchant_id.clone(),
        currency: row.currency.clone()?,
        order_no: row.order_no.clone()?,
        attempt: row.attempt,
        operation,
        operation_id: row.operation_id,
        operation_no: row.capture_no.clone().or_else(|| row.refund_no.clone()),
        amount: row.amount,
        reason: row.reason.clone().unwrap_or_default(),
        since: row.at,
    })
}

/// Resolutions, one element for each column of the statement.
#[derive(Default)]
struct Settled<'a> {
    merchants: Vec<&'a str>,
    orders: Vec<&'a str>,
    which: Vec<&'static str>,
    operation_ids: Vec<Option<Uuid>>,
    attempts: Vec<Option<Uuid>>,
    at: Vec<DateTime<Utc>>,
    resolutions: Vec<&'static str>,
    by: Vec<&'a str>,
    event_ids: Vec<Uuid>,
    audit: Vec<Option<&'a str>>,
    actions: Vec<&'a str>,
}

impl<'a> Settled<'a> {
    fn push(&mut self, event: &'a Event, which: Which, made: bool) {
        let row = &event.row;
        let Some(order_no) = row.order_no.as_deref() else { return };
        let (word, operation_id, attempt) = match which {
            Which::Charge => ("charge", None, None),
            Which::Capture(id) => ("capture", id, None),
            Which::Refund(id) => ("refund", id, None),
            Which::RefundOf(attempt) => ("refund", None, attempt),
            Which::Void => ("void", None, None),
        };
        self.merchants.push(&row.merchant_id);
        self.orders.push(order_no);
        self.which.push(word);
        self.operation_ids.push(operation_id);
        self.attempts.push(attempt);
        self.at.push(row.at);
        self.resolutions.push(if made { "made" } else { "not_made" });
        self.by.push(&row.operator_id);
        self.event_ids.push(row.event_id);
        self.audit.push(row.reason.as_deref());
        self.actions.push(&row.action_type);
    }
}

async fn settle(connection: &mut PgConnection, events: &[&Event]) -> Result<(), sqlx::Error> {
    let mut settled = Settled::default();
    for event in events {
        for change in &event.outcomes {
            if let Change::Settled { which, made } = change {
                settled.push(event, *which, *made);
            }
        }
    }
    let Settled { merchants, orders, which, operation_ids, attempts, at, resolutions, by, event_ids, audit, actions } =
        settled;
    sqlx::query(SETTLE)
        .bind(merchants)
        .bind(orders)
        .bind(which)
        .bind(operation_ids)
        .bind(attempts)
        .bind(at)
        .bind(resolutions)
        .bind(by)
        .bind(event_ids)
        .bind(audit)
        .bind(actions)
        .execute(connection)
        .await
        .map(drop)
}
