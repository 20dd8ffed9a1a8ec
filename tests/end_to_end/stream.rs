//! The live stream beside payments: readers that do not read hold up no one, fill nothing, and lose nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::client::{Payment, Protocol};
use testkit::sse::{EventStream, Options};
use testkit::stack::Stack;
use testkit::{Context, Failure, Result, wait};

use crate::suite::{Suite, prompt};

/// Streams whose clients read nothing.
const READERS: usize = 6;
/// Decisions that wait for each of them: far more than sockets hold.
const WAITING: i64 = 20_000;
const PAYMENTS: usize = 200;
const STORED_WITHIN: Duration = Duration::from_secs(30);
/// What the server may grow by, in KiB. The decisions that wait take twice as much, once for each reader six times that.
const GROWTH_MAX_KIB: u64 = 24 * 1024;

pub(crate) fn add(suite: &mut Suite) {
    // With deadlines as short as in service: a payment that waits for a reader is refused.
    suite.owned("stream::a_reader_that_does_not_read_holds_up_no_payment", prompt(), slow_readers);
}

async fn slow_readers(stack: &mut Stack) -> Result<()> {
    let (address, token) = (stack.server.admin_address(), stack.addresses().admin_token);
    let pool = stack.postgres.pool().await?;
    let mut first = EventStream::open(address, &token, "/stream", Options::default()).await?;
    ensure_eq!(pay(stack, "first").await?, 200);
    let (_, decision) = first.events(1).await?.remove(0);
    let last_id = first.last_id().unwrap_or_default().to_owned();
    drop(first);
    let copies = "INSERT INTO usage_log SELECT (row).* FROM (SELECT jsonb_populate_record(u, jsonb_build_object( \
        'event_id', gen_random_uuid(), 'seq', 1000000 + number, 'stored_txid', txid_current())) AS row \
        FROM usage_log u CROSS JOIN generate_series(1, $1) AS number WHERE event_id::text = $2 OFFSET 0) AS rows";
    sqlx::query(copies).bind(WAITING).bind(decision["event_id"].as_str()).execute(&pool).await?;

    let before_kib = memory_kib(stack)?;
    let narrow = Options { last_id: Some(&last_id), narrow: true };
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = EventStream::open(address, &token, "/stream", narrow).await?;
        let event = reader.events(1).await?;
        readers.push((reader, event));
    }
    for number in 0..PAYMENTS {
        ensure_eq!(pay(stack, &format!("beside-{number}")).await?, 200);
    }
    let all = WAITING + 1 + i64::try_from(PAYMENTS)?;
    wait::until_async("every payment stored", STORED_WITHIN, || async {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM usage_log").fetch_one(&pool).await?;
        Ok((rows == all).then_some(()))
    })
    .await?;
    let sent = stack.server.metric("sluice_stream_events_total", &[])?;
    ensure!(sent < (READERS as f64) * (WAITING as f64) / 2.0, "{sent} events were sent to readers that do not read");
    let grown_kib = memory_kib(stack)?.saturating_sub(before_kib);
    ensure!(grown_kib < GROWTH_MAX_KIB, "the server grew by {grown_kib} KiB");

    // A reader that reads after all receives everything, on the same connection or, where the server gave it up, on the
    // next.
    let (mut reader, events) = readers.swap_remove(0);
    drop(readers);
    let id = |event: &(String, serde_json::Value)| event.1["event_id"].as_str().unwrap_or_default().to_owned();
    let mut received: Vec<String> = events.iter().map(id).collect();
    while received.len() < usize::try_from(all)? - 1 {
        match reader.event().await? {
            Some(event) if event.0 == "decision" => received.push(id(&event)),
            Some(event) => return Err(Failure::new(format!("{event:?}"))),
            None => {
                let last_id = reader.last_id().unwrap_or_default().to_owned();
                let options = Options { last_id: Some(&last_id), narrow: false };
                reader = EventStream::open(address, &token, "/stream", options).await?;
            }
        }
    }
    let once: BTreeSet<&String> = received.iter().collect();
    ensure_eq!(once.len(), received.len());
    Ok(())
}

async fn pay(stack: &Stack, order: &str) -> Result<u16> {
    let payment = Payment::new("roomy", order, 1_000);
    Ok(stack.send(Protocol::Http1, payment.call()).await?.status)
}

/// What the server has in memory.
fn memory_kib(stack: &Stack) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stack.server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or_else(|| Failure::new("no VmRSS"))?;
    line.split_whitespace().next().unwrap_or_default().parse::<u64>().context("VmRSS")
}
