//! The monthly partitions: made ahead, beside readers, by any number of servers, and equal to their parent.

use sluice_journal::event::Batch;
use sluice_journal::postgres::{PostgresError, UsageLog};
use sluice_settings::Secret;
use sqlx::types::chrono::NaiveDate;
use testkit::{Failure, Result};

use crate::bench::{Bench, entry, event};

/// Attached partitions of the usage log.
const PARTITIONS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_log'::regclass";

fn log(bench: &Bench) -> Result<UsageLog> {
    Ok(UsageLog::new(&Secret::new(bench.postgres.url()))?)
}

fn batch(number: u64) -> Batch {
    Batch::read(vec![entry(event(number), number)])
}

async fn execute(bench: &Bench, statements: &'static str) -> Result<()> {
    let pool = bench.postgres.pool().await?;
    sqlx::raw_sql(statements).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

#[tokio::test]
async fn events_fall_into_the_partition_of_their_month() -> Result<()> {
    let bench = Bench::start()?;
    // 2026-12-01 00:00 UTC and the millisecond before, a leap day, and the turn of a year.
    let times = [1_796_083_200_000, 1_796_083_199_999, 1_835_395_200_000, 1_798_761_600_000];
    let events = times.into_iter().zip(1..).map(|(at_ms, number)| {
        let mut event = event(number);
        event.at_ms = at_ms;
        event
    });
    bench.append(0, events).await?;
    let (one, two) = (bench.journal("a")?, bench.journal("b")?);
    bench.wait_for_rows(4).await?;
    for partition in [
        "SELECT count(*) FROM usage_log_2026_12",
        "SELECT count(*) FROM usage_log_2026_11",
        "SELECT count(*) FROM usage_log_2028_02",
        "SELECT count(*) FROM usage_log_2027_01",
    ] {
        assert_eq!(bench.count(partition).await?, 1, "{partition}");
    }
    one.stop()?;
    two.stop()
}

#[tokio::test]
async fn the_next_month_is_there_before_its_first_event() -> Result<()> {
    let bench = Bench::start()?;
    let journal = bench.journal("a")?;
    let this_and_next = "SELECT count(*) FROM pg_inherits, (VALUES (now()), (now() + interval '1 month')) AS month (at) \
        WHERE inhparent = 'usage_log'::regclass \
        AND inhrelid = to_regclass('usage_log_' || to_char(month.at AT TIME ZONE 'UTC', 'YYYY_MM'))";
    bench.wait_for(this_and_next, 2).await?;
    journal.stop()?;

    let mut log = log(&bench)?;
    let december = NaiveDate::from_ymd_opt(2031, 12, 31).ok_or_else(|| Failure::new("no such day"))?;
    log.prepare(december).await?;
    log.prepare(december).await?;
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2031_12").await?, 0);
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2032_01").await?, 0);
    assert_eq!(bench.count(PARTITIONS).await?, 4);
    Ok(())
}

/// A dump, or any other long read of the table, at the turn of a month.
#[tokio::test]
async fn a_partition_is_made_beside_a_reader_and_a_writer() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = log(&bench)?;
    log.probe().await?;
    let pool = bench.postgres.pool().await?;
    let mut reader = pool.begin().await?;
    sqlx::query("LOCK TABLE usage_log IN ACCESS SHARE MODE").execute(&mut *reader).await?;
    let mut writer = pool.begin().await?;
    sqlx::query("LOCK TABLE usage_log IN ROW EXCLUSIVE MODE").execute(&mut *writer).await?;
    assert_eq!(log.store(&batch(1)).await?.rows, 1);
    writer.rollback().await?;
    reader.rollback().await?;
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2026_11").await?, 1);
    Ok(())
}

#[tokio::test]
async fn servers_may_make_one_partition_at_the_same_time() -> Result<()> {
    let bench = Bench::start()?;
    let (mut one, mut two, mut three) = (log(&bench)?, log(&bench)?, log(&bench)?);
    for log in [&mut one, &mut two, &mut three] {
        log.probe().await?;
    }
    let batches = [batch(1), batch(2), batch(3)];
    let stored = tokio::join!(one.store(&batches[0]), two.store(&batches[1]), three.store(&batches[2]));
    assert_eq!((stored.0?.rows, stored.1?.rows, stored.2?.rows), (1, 1, 1));
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2026_11").await?, 3);
    assert_eq!(bench.count(PARTITIONS).await?, 1);
    Ok(())
}

/// A table of the month that is not attached: detached by hand, or left by a tool that broke off between the two steps.
#[tokio::test]
async fn a_table_left_beside_the_parent_is_attached() -> Result<()> {
    let bench = Bench::start()?;
    log(&bench)?.probe().await?;
    execute(&bench, "CREATE TABLE usage_log_2026_11 (LIKE usage_log INCLUDING ALL)").await?;
    bench.append(0, [event(1)]).await?;
    let journal = bench.journal("a")?;
    bench.wait_for_rows(1).await?;
    execute(&bench, "ALTER TABLE usage_log DETACH PARTITION usage_log_2026_11").await?;
    bench.append(0, [event(2)]).await?;
    bench.wait_for_rows(2).await?;
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2026_11").await?, 2);
    journal.stop()
}

/// What hinders a partition is not the fault of an event: it is tried again, not set aside.
#[tokio::test]
async fn an_event_is_not_blamed_for_its_partition() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = log(&bench)?;
    log.store(&Batch::read(vec![entry(event(1), 1), entry(event(2), 2)])).await?;
    // Attaching makes the primary key, which two rows with one id cannot have: an error about data.
    execute(
        &bench,
        "ALTER TABLE usage_log DETACH PARTITION usage_log_2026_11; \
         ALTER TABLE usage_log_2026_11 DROP CONSTRAINT usage_log_2026_11_pkey; \
         UPDATE usage_log_2026_11 SET event_id = '00000000-0000-0000-0000-000000000001'",
    )
    .await?;
    let gone = log.store(&batch(3)).await;
    assert!(matches!(&gone, Err(PostgresError::Sql(_))), "{gone:?}");
    let hindered = log.store(&batch(3)).await;
    assert!(matches!(&hindered, Err(PostgresError::Partition(_))), "{hindered:?}");
    assert_eq!(bench.count("SELECT count(*) FROM journal_rejected").await?, 0);
    execute(&bench, "DELETE FROM usage_log_2026_11").await?;
    assert_eq!(log.store(&batch(3)).await?.rows, 1);
    Ok(())
}

/// Columns with type, rule and comment; constraints; and for each index the parent's one that it belongs to.
#[tokio::test]
async fn a_partition_is_like_its_parent() -> Result<()> {
    let bench = Bench::start()?;
    log(&bench)?.store(&batch(1)).await?;
    let pool = bench.postgres.pool().await?;
    let columns = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated::text, \
            pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum) \
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
        WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    type Column = (String, String, bool, String, Option<String>, Option<String>);
    let parent: Vec<Column> = sqlx::query_as(columns).bind("usage_log").fetch_all(&pool).await?;
    let partition: Vec<Column> = sqlx::query_as(columns).bind("usage_log_2026_11").fetch_all(&pool).await?;
    assert_eq!(parent, partition);
    assert!(partition.iter().any(|column| column.0 == "stored_at" && column.4.as_deref() == Some("now()")));
    assert!(partition.iter().all(|column| column.5.is_some()), "a comment is missing");

    let checks = "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint \
        WHERE conrelid = $1::text::regclass AND contype = 'c' ORDER BY conname";
    let parent: Vec<(String, String)> = sqlx::query_as(checks).bind("usage_log").fetch_all(&pool).await?;
    let partition: Vec<(String, String)> = sqlx::query_as(checks).bind("usage_log_2026_11").fetch_all(&pool).await?;
    assert_eq!((parent.len(), &parent), (1, &partition));

    let indexes = "SELECT (SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = indexrelid) \
        FROM pg_index WHERE indrelid = 'usage_log_2026_11'::regclass ORDER BY 1";
    let parents: Vec<Option<String>> = sqlx::query_scalar(indexes).fetch_all(&pool).await?;
    let expected =
        ["usage_log_merchant", "usage_log_order", "usage_log_pkey", "usage_log_sequence", "usage_log_stored"];
    assert_eq!(parents, expected.map(|name| Some(name.to_owned())));
    Ok(())
}
