//! Stores entries and statements in the transaction of the events that they come from, with as many queries however many there are.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice_journal::event::Event;
use sluice_journal::{AfterCommit, Projection};
use sluice_kit::database::row::insert;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::entry::{self, Entry};
use crate::{EntryKind, statement};

static INSERT: LazyLock<String> =
    LazyLock::new(|| format!("{} ON CONFLICT DO NOTHING", insert("credit_entry", Entry::COLUMNS)));
/// The cycle in which the order of each event was billed last; none where it never was, as the void of a hold.
const BILLED_IN: &str = "SELECT given.event_id, billed.credit_cycle \
    FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[]) AS given (event_id, order_no, merchant_id, currency) \
    CROSS JOIN LATERAL (SELECT credit_cycle FROM usage_log AS row \
        WHERE row.order_no = given.order_no AND row.merchant_id = given.merchant_id AND row.currency = given.currency::char(3) \
            AND success AND NOT replay AND credit_cycle IS NOT NULL \
            AND (action_type IN ('consume', 'settle') OR (action_type = 'expire' AND code = 'APPLIED')) \
        ORDER BY row.at DESC, row.seq DESC LIMIT 1) AS billed";

/// Keeps the entries of credit lines in step with the events.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryProjection;

impl Projection for EntryProjection {
    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
        new: Option<&'a HashSet<Uuid>>,
    ) -> BoxFuture<'a, Result<AfterCommit, sqlx::Error>> {
        let work = async move {
            store(transaction, events, new).await?;
            Ok(Box::new(|| ()) as AfterCommit)
        };
        work.boxed()
    }
}

async fn store(
    connection: &mut PgConnection,
    events: &[Event],
    new: Option<&HashSet<Uuid>>,
) -> Result<(), sqlx::Error> {
    let is_new = |event: &&Event| new.is_none_or(|new| new.contains(&event.row.event_id));
    let new: Vec<&Event> = events.iter().filter(is_new).filter(|event| event.record.credit.is_some()).collect();
    let mut entries: Vec<Entry> = new.iter().flat_map(|event| entry::of(event)).collect();
    if entries.is_empty() {
        return Ok(());
    }
    let is_credit = |entry: &Entry| entry.kind == EntryKind::Credit.as_str();
    if entries.iter().any(is_credit) {
        let credits: HashSet<Uuid> =
            entries.iter().filter(|entry| is_credit(entry)).map(|entry| entry.event_id).collect();
        let of_credits = new.iter().filter(|event| credits.contains(&event.row.event_id));
        let billed = billed_in(connection, &of_credits.copied().collect::<Vec<_>>()).await?;
        entries.retain_mut(|entry| {
            let cycle = if is_credit(entry) { billed.get(&entry.event_id).copied() } else { Some(entry.cycle) };
            entry.cycle = cycle.unwrap_or_default();
            cycle.is_some()
        });
    }
    entries.sort_by_key(|entry| (entry.shard, entry.seq));
    let insert = Entry::bind(sqlx::query(AssertSqlSafe(INSERT.as_str())), entries.iter());
    insert.execute(&mut *connection).await?;
    statement::store(connection, &entries).await
}

async fn billed_in(connection: &mut PgConnection, events: &[&Event]) -> Result<HashMap<Uuid, i32>, sqlx::Error> {
    let rows = || events.iter().map(|event| &event.row);
    let found: Vec<(Uuid, i32)> = sqlx::query_as(BILLED_IN)
        .bind(rows().map(|row| row.event_id).collect::<Vec<_>>())
        .bind(rows().map(|row| row.order_no.as_deref().unwrap_or_default()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.merchant_id.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.currency.as_deref().unwrap_or_default()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(found.into_iter().collect())
}
