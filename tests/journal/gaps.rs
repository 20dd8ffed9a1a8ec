//! Gaps in a shard's sequence: found, kept in sight however many there are, and closed when their events arrive.

use sluice_store::keys;
use testkit::Result;

use crate::bench::{Bench, event};

#[tokio::test]
async fn a_gap_is_found_and_closed_when_its_events_arrive() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(1, (1..=20).map(event)).await?;
    let mut connection = bench.connection().await?;
    let ids = ["0-1", "0-7", "0-8", "0-15"];
    redis::cmd("XDEL").arg(keys::stream(1)).arg(&ids).query_async::<()>(&mut connection).await?;
    let journal = bench.journal("a")?;
    bench.wait_for_rows(16).await?;
    journal.wait_for_metric("sluice_journal_missing_events 4").await?;
    let gaps = "SELECT count(*) FROM journal_anomaly WHERE kind = 'missing' AND shard = 1 \
                AND (first_seq, last_seq) IN ((1, 1), (7, 8), (15, 15))";
    assert_eq!(bench.count(gaps).await?, 3);
    sqlx::query(sqlx::AssertSqlSafe(late_arrivals())).execute(&bench.postgres.pool().await?).await?;
    journal.wait_for_metric("sluice_journal_missing_events 2").await?;
    journal.stop()
}

/// Stores events 7 and 8 as copies of another; the generated column cannot be copied, so all others are named.
fn late_arrivals() -> String {
    let figures = ["daily", "monthly", "yearly"].map(|window| {
        format!(
            "{window}_window, {window}_used_before, {window}_used_after, {window}_count_before, {window}_count_after"
        )
    });
    let same = format!(
        "at, shard, action_type, code, success, replay, mode, merchant_id, amount, order_no, operator_id, \
                        operator_type, {}, account_version",
        figures.join(", ")
    );
    format!(
        "INSERT INTO usage_log (event_id, seq, {same}) SELECT gen_random_uuid(), number, {same} \
             FROM usage_log, generate_series(7, 8) AS number WHERE seq = 2"
    )
}

/// A number whose event was set aside is not missing, when it comes late as little as when it comes in time.
#[tokio::test]
async fn a_gap_is_closed_by_events_set_aside() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(1, (1..=20).map(event)).await?;
    let mut connection = bench.connection().await?;
    redis::cmd("XDEL").arg(keys::stream(1)).arg(&["0-7", "0-8"]).query_async::<()>(&mut connection).await?;
    let journal = bench.journal("a")?;
    journal.wait_for_metric("sluice_journal_missing_events 2").await?;
    let pool = bench.postgres.pool().await?;
    sqlx::query(
        "INSERT INTO journal_rejected (shard, stream_id, content_hash, fields, reason) \
         VALUES (1, '0-7', gen_random_uuid(), '{}', 'test'), (1, '0-7', gen_random_uuid(), '{}', 'test')",
    )
    .execute(&pool)
    .await?;
    // One number, though it was set aside twice, is half of the gap.
    let looked = "SELECT count(*) FROM journal_anomaly WHERE looked_at > found_at AND resolved_at IS NULL";
    bench.wait_for(looked, 1).await?;
    sqlx::query(
        "INSERT INTO journal_rejected (shard, stream_id, content_hash, fields, reason) \
         VALUES (1, '0-8', gen_random_uuid(), '{}', 'test')",
    )
    .execute(&pool)
    .await?;
    journal.wait_for_metric("sluice_journal_missing_events 0").await?;
    assert_eq!(bench.count("SELECT count(*) FROM usage_log").await?, 18);
    journal.stop()
}

/// More gaps than one check looks at, all older and never closed, must not keep a younger one open.
#[tokio::test]
async fn permanent_gaps_keep_no_other_open() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(1, (1..=20).map(event)).await?;
    let mut connection = bench.connection().await?;
    redis::cmd("XDEL").arg(keys::stream(1)).arg(&["0-7", "0-8"]).query_async::<()>(&mut connection).await?;
    let journal = bench.journal("a")?;
    journal.wait_for_metric("sluice_journal_missing_events 2").await?;
    let pool = bench.postgres.pool().await?;
    sqlx::query(
        "INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq, found_at) \
         SELECT 2, 'missing', number * 10, number * 10, now() - interval '1 day' FROM generate_series(1, 250) AS number",
    )
    .execute(&pool)
    .await?;
    journal.wait_for_metric("sluice_journal_missing_events 252").await?;
    sqlx::query(sqlx::AssertSqlSafe(late_arrivals())).execute(&pool).await?;
    journal.wait_for_metric("sluice_journal_missing_events 250").await?;
    journal.stop()
}
