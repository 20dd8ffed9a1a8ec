//! The journal against real Redis and Postgres: promise Q-6, that every event reaches Postgres and is stored once,
//! whichever part dies, and that a gap is noticed.

mod accounts;
mod alert_sequences;
mod alerts;
mod bench;
mod copies;
mod credit;
mod credit_sweep;
mod engine;
mod feed;
mod gaps;
mod history;
mod line;
mod line_changes;
mod lost;
mod monitor;
mod operations;
mod own_thresholds;
mod partitions;
#[path = "../alerts/receiver.rs"]
#[expect(dead_code, reason = "the suite of alerts needs more of it")]
mod receiver;
mod schema;
mod scorecards;
mod streams;
mod sweeps;
mod takeover;
mod thresholds;
mod transfers;
mod upgrade;
mod windows;

use std::time::{Duration, Instant};

use prost::Message;
use sluice_journal::Config;
use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_journal::stream::{EventStream, Lease};
use sluice_settings::Secret;
use sluice_store::keys;
use sqlx::Row;
use testkit::{Result, Service};

use bench::{AT_MS, Bench, Journal, SHARDS, SOON, add, admitted, entry, event, oversized};

#[tokio::test]
async fn an_event_is_stored_with_all_its_figures() -> Result<()> {
    let bench = Bench::start()?;
    let mut refused = event(1);
    refused.payment_no = "p-1".to_owned();
    refused.mode = "shadow".to_owned();
    let mut record = admitted(50);
    record[1] = quota::Code::DailyAmount.number();
    record[2] |= 1;
    let mut pipeline = redis::Pipeline::new();
    add(&mut pipeline, 3, &refused.encode_to_vec(), &record);
    pipeline.query_async::<()>(&mut bench.connection().await?).await?;

    let journal = bench.journal("a")?;
    bench.wait_for_rows(1).await?;
    bench.wait_until_drained(SHARDS).await?;
    let row = sqlx::query(
        "SELECT jsonb_build_object('event', event_id, 'at', extract(epoch FROM at)::bigint, 'shard', shard, 'seq', seq, \
         'action', action_type, 'code', code, 'success', success, 'failure', failure_reason, 'replay', replay, \
         'mode', mode, 'merchant', merchant_id, 'currency', currency, 'amount', amount, 'order', order_no, \
         'payment', payment_no, 'channel', channel, 'attempt', attempt, 'operator', operator_type || ':' || operator_id, \
         'policy', policy_version, 'windows', ARRAY[daily_window, monthly_window, yearly_window], \
         'daily', ARRAY[daily_used_before, daily_used_after, daily_count_before, daily_count_after], \
         'version', account_version)::text FROM usage_log",
    )
    .fetch_one(&bench.postgres.pool().await?)
    .await?;
    let row: serde_json::Value = serde_json::from_str(row.try_get::<&str, _>(0)?)?;
    let expected = serde_json::json!({
        "event": "00000000-0000-0000-0000-000000000001", "at": AT_MS / 1000, "shard": 3, "seq": 1,
        "action": "consume", "code": "DAILY_AMOUNT", "success": false, "failure": "DAILY_AMOUNT", "replay": true,
        "mode": "shadow", "merchant": "m-1", "currency": "USD", "amount": 50, "order": "order-1",
        "payment": "p-1", "channel": null, "attempt": "09090909-0909-0909-0909-090909090909",
        "operator": "system:proxy", "policy": "v1", "windows": [20_261_120, 202_611, 2026],
        "daily": [0, 50, 0, 1], "version": 1,
    });
    assert_eq!(row, expected);
    journal.stop()
}

/// A reader that dies after its commit leaves stored events that are not removed; one that dies before it, events that
/// no reader has stored. Another takes over both, and each event is there once.
#[tokio::test]
async fn events_of_a_dead_consumer_are_taken_over_and_stored_once() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(0, (1..=300).map(event)).await?;
    let mut dead = EventStream::connect(&Secret::new(bench.redis.url()), SHARDS, "dead").await?;
    assert_eq!(dead.lead(Duration::from_millis(500)).await?, Lease::Taken);
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    let stored = Batch::read(dead.read(100, SOON).await?);
    assert_eq!(log.store(&stored).await?.rows, 100);
    dead.note_stored(stored.entries());
    assert_eq!(dead.read(100, SOON).await?.len(), 100);
    drop((dead, log));

    let journal = bench.journal("heir")?;
    bench.wait_for_rows(300).await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.wait_for_metric("sluice_journal_duplicates_total 100").await?;
    journal.wait_for_metric("sluice_journal_taken_over_total 1").await?;
    journal.wait_for_metric("sluice_journal_missing_events 0").await?;
    bench.wait_for("SELECT contiguous_seq FROM journal_shard WHERE shard = 0", 300).await?;
    assert_eq!(bench.count("SELECT count(*) FROM journal_anomaly").await?, 0);
    assert_eq!(bench.count("SELECT count(DISTINCT event_id) FROM usage_log").await?, 300);
    journal.stop()
}

#[tokio::test]
async fn postgres_may_be_away_hang_and_come_back() -> Result<()> {
    let mut bench = Bench::start()?;
    bench.postgres.stop()?;
    let journal = bench.journal("a")?;
    bench.append(1, (1..=50).map(event)).await?;
    journal.wait_for_postgres(false).await?;
    journal.wait_until_in_hand().await?;
    bench.postgres.restart()?;
    bench.wait_for_rows(50).await?;
    journal.wait_for_postgres(true).await?;

    bench.postgres.pause()?;
    bench.append(2, (51..=80).map(event)).await?;
    journal.wait_for_postgres(false).await?;
    bench.postgres.resume()?;
    bench.wait_for_rows(80).await?;

    bench.postgres.kill()?;
    bench.append(2, (81..=90).map(event)).await?;
    journal.wait_for_postgres(false).await?;
    bench.postgres.restart()?;
    bench.wait_for_rows(90).await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.wait_for_metric("sluice_journal_missing_events 0").await?;
    journal.stop()
}

/// The backlog is what operators watch while Postgres is away, so it must not stand still then.
#[tokio::test]
async fn the_backlog_is_counted_while_postgres_is_away() -> Result<()> {
    let mut bench = Bench::start()?;
    bench.postgres.stop()?;
    let journal = bench.journal("a")?;
    bench.append(1, (1..=50).map(event)).await?;
    journal.wait_until_in_hand().await?;
    journal.wait_for_metric("sluice_journal_backlog_events 50").await?;
    // From here on the journal tries to store the fifty and reads nothing else.
    bench.append(2, (51..=80).map(event)).await?;
    journal.wait_for_metric("sluice_journal_backlog_events 80").await?;
    journal.wait_for_metric("sluice_journal_backlog_shard_max_events 50").await?;
    bench.postgres.restart()?;
    bench.wait_for_rows(80).await?;
    journal.wait_for_metric("sluice_journal_backlog_shard_max_events 0").await?;
    journal.stop()
}

/// Both away, and Redis comes back without what it had, or loses it while it is there: the events in the journal's hand are
/// stored all the same, and new ones that have their numbers are counted, not removed, and stored too. Fewer new ones than
/// those in hand are all behind the journal's place in the stream, more of them in part.
#[tokio::test]
async fn events_in_hand_outlive_an_emptied_redis() -> Result<()> {
    for (restarts, batch_rows_max, last, backlog, rows) in [
        (true, 500, 53, "sluice_journal_backlog_events 3", 53),
        (true, 500, 110, "sluice_journal_backlog_events 60", 110),
        (true, 20, 53, "sluice_journal_backlog_events 3", 53),
        (false, 500, 53, "sluice_journal_backlog_events 3", 53),
        (false, 500, 110, "sluice_journal_backlog_events 60", 110),
    ] {
        let mut bench = Bench::start()?;
        bench.postgres.stop()?;
        // With a tenth of that, batches of 20 are removed as soon as they are stored, and one of 50 is not.
        let config = Config { batch_rows_max, backlog_events_max: 5 * batch_rows_max as u64, ..bench.config("a") };
        let journal = Journal::start(config)?;
        bench.append(1, (1..=50).map(event)).await?;
        journal.wait_until_in_hand().await?;
        journal.wait_for_metric("sluice_journal_backlog_events 50").await?;
        if restarts {
            bench.redis.restart_empty()?;
        } else {
            redis::cmd("FLUSHALL").query_async::<()>(&mut bench.connection().await?).await?;
        }
        bench.append(1, (51..=last).map(event)).await?;
        journal.wait_for_metric(backlog).await?;
        bench.postgres.restart()?;
        bench.wait_for_rows(rows).await?;
        bench.wait_until_drained(SHARDS).await?;
        assert_eq!(bench.count("SELECT count(DISTINCT event_id) FROM usage_log").await?, rows);
        journal.stop()?;
    }
    Ok(())
}

#[tokio::test]
async fn redis_may_be_away_at_the_start_and_later() -> Result<()> {
    let mut bench = Bench::start()?;
    bench.redis.stop()?;
    let journal = bench.journal("a")?;
    journal.wait_for_postgres(true).await?;
    let tried_again = "sluice_journal_retries_total{dependency=\"redis\"}";
    assert!(journal.metrics.encode().contains(tried_again), "{}", journal.metrics.encode());
    bench.redis.restart()?;
    bench.append(0, (1..=20).map(event)).await?;
    bench.wait_for_rows(20).await?;
    bench.append(0, (21..=40).map(event)).await?;
    bench.redis.restart()?;
    bench.append(0, (41..=60).map(event)).await?;
    bench.wait_for_rows(60).await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.stop()
}

/// Redis emptied: no lease, no stream, and numbers that start anew. The journal goes on, and says that writes were lost.
#[tokio::test]
async fn an_emptied_redis_is_noticed_and_served() -> Result<()> {
    let mut bench = Bench::start()?;
    let journal = bench.journal("a")?;
    bench.append(0, (1..=30).map(event)).await?;
    bench.wait_for_rows(30).await?;
    bench.wait_for("SELECT coalesce(max(contiguous_seq), 0) FROM journal_shard", 30).await?;
    bench.redis.restart_empty()?;
    bench.append(0, (31..=35).map(event)).await?;
    bench.wait_for_rows(35).await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.wait_for_metric("sluice_journal_missing_events 0").await?;
    let rewound = "SELECT count(*) FROM journal_anomaly WHERE kind = 'rewound' AND shard = 0 AND last_seq = 30";
    bench.wait_for(rewound, 1).await?;

    let mut connection = bench.connection().await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
    bench.append(1, (36..=40).map(event)).await?;
    bench.wait_for_rows(40).await?;
    journal.stop()
}

#[tokio::test]
async fn numbers_given_twice_are_noticed_when_stored() -> Result<()> {
    let mut bench = Bench::start()?;
    let journal = bench.journal("a")?;
    bench.append(2, (1..=10).map(event)).await?;
    bench.wait_for("SELECT coalesce(max(contiguous_seq), 0) FROM journal_shard", 10).await?;
    journal.stop()?;
    bench.redis.restart_empty()?;
    // Twelve new events: the stream is ahead of the check again, so only the repeated numbers can show it.
    bench.append(2, (11..=22).map(event)).await?;
    let journal = bench.journal("b")?;
    bench.wait_for_rows(22).await?;
    let twice =
        "SELECT count(*) FROM journal_anomaly WHERE kind = 'rewound' AND shard = 2 AND first_seq = 1 AND last_seq = 10";
    bench.wait_for(twice, 1).await?;
    journal.wait_for_metric("sluice_journal_rewound_ranges 1").await?;
    journal.wait_for_metric("sluice_journal_missing_events 0").await?;
    journal.stop()
}

#[tokio::test]
async fn what_cannot_be_a_row_is_kept_and_blocks_nothing() -> Result<()> {
    let bench = Bench::start()?;
    let good = |number| (event(number).encode_to_vec(), admitted(50));
    let mut pipeline = redis::Pipeline::new();
    for (context, record) in [
        good(1),
        (vec![255, 255], admitted(50)),
        (oversized(3).encode_to_vec(), admitted(50)),
        (event(4).encode_to_vec(), vec![1, 2, 3]),
        good(5),
    ] {
        add(&mut pipeline, 0, &context, &record);
    }
    pipeline.cmd("XADD").arg(keys::stream(0)).arg("7-1").arg("x").arg("y").ignore();
    pipeline.query_async::<()>(&mut bench.connection().await?).await?;

    let journal = bench.journal("a")?;
    bench.wait_for_rows(2).await.map_err(|failure| failure.while_doing(journal.metrics.encode()))?;
    bench.wait_for("SELECT count(*) FROM journal_rejected", 4).await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.wait_for_metric("sluice_journal_rejected_total 4").await?;
    let whole = "SELECT count(*) FROM journal_rejected WHERE fields[1] IN ('c', 'x') AND reason <> ''";
    assert_eq!(bench.count(whole).await?, 4);
    assert_eq!(bench.count("SELECT count(*) FROM journal_rejected WHERE reason LIKE 'refused by Postgres%'").await?, 1);
    journal.stop()
}

/// One bad event in a thousand costs some small transactions, not a connection and a look at the migrations for each.
#[tokio::test]
async fn a_refused_row_does_not_cost_the_connection() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    log.probe().await?;
    let backend = "SELECT min(pid)::bigint FROM pg_stat_activity WHERE application_name = 'sluice-journal'";
    let before = bench.count(backend).await?;
    let entries = (1..=64).map(|number| entry(if number == 40 { oversized(number) } else { event(number) }, number));
    let stored = log.store(&Batch::read(entries.collect())).await?;
    assert_eq!((stored.rows, stored.rejected), (63, 1));
    assert_eq!(bench.count(backend).await?, before, "it connected anew");
    assert_eq!(bench.count("SELECT count(*) FROM usage_log").await?, 63);
    Ok(())
}

/// Ten thousand events on 64 shards, and two journals: when the one that reads is stopped, the other goes on at once.
/// Afterwards each event is there once and nothing is left.
#[tokio::test]
async fn ten_thousand_events_are_drained_by_two() -> Result<()> {
    let bench = Bench::start()?;
    let mut config = bench.config("a");
    config.shards = 64;
    config.batch_rows_max = 2000;
    config.lease = Duration::from_secs(3600);
    let mut other = config.clone();
    other.reader = "b".to_owned();
    let one = Journal::start(config)?;
    one.wait_for_metric("sluice_journal_taken_over_total 1").await?;
    let two = Journal::start(other)?;
    for shard in 0..64_u16 {
        let first = u64::from(shard) * 157;
        bench.append(shard, (first + 1..=first + 157).map(event)).await?;
    }
    one.stop()?;
    bench.wait_for_rows(64 * 157).await?;
    bench.wait_until_drained(64).await?;
    bench.append(0, [event(99_999)]).await?;
    bench.wait_for_rows(64 * 157 + 1).await?;
    two.wait_for_metric("sluice_journal_taken_over_total 1").await?;
    bench.wait_for("SELECT count(*) FROM journal_shard WHERE contiguous_seq >= 157", 64).await?;
    assert_eq!(bench.count("SELECT count(*) FROM journal_anomaly").await?, 0);
    assert_eq!(bench.count("SELECT count(DISTINCT event_id) FROM usage_log").await?, 64 * 157 + 1);
    two.wait_for_metric("sluice_journal_backlog_events 0").await?;
    two.stop()
}

#[tokio::test]
async fn shutdown_ends_the_journal_even_while_postgres_is_away() -> Result<()> {
    let mut bench = Bench::start()?;
    bench.postgres.stop()?;
    let journal = bench.journal("a")?;
    bench.append(0, [event(1)]).await?;
    journal.wait_for_postgres(false).await?;
    let asked = Instant::now();
    journal.stop()?;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    bench.postgres.restart()?;
    let next = bench.journal("b")?;
    bench.wait_for_rows(1).await?;
    next.stop()
}
