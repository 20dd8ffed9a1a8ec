//! A database that an older server has made and written to is taken over by a newer one, partitions and rows included.

use chrono::Utc;
use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_settings::Secret;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use testkit::Result;
use testkit::dirs::{self, RunDir};

use crate::bench::{Bench, entry, event};

/// A row as the server of the first migration wrote it, into a partition that it had made.
const OF_BEFORE: &str = "CREATE TABLE usage_log_2026_11 (LIKE usage_log INCLUDING ALL); \
    ALTER TABLE usage_log ATTACH PARTITION usage_log_2026_11 \
        FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00'); \
    INSERT INTO usage_log (event_id, at, shard, seq, action_type, code, success, replay, mode, merchant_id, currency, amount, \
        order_no, operator_id, operator_type, daily_window, daily_used_before, daily_used_after, daily_count_before, \
        daily_count_after, monthly_window, monthly_used_before, monthly_used_after, monthly_count_before, monthly_count_after, \
        yearly_window, yearly_used_before, yearly_used_after, yearly_count_before, yearly_count_after, account_version) \
    VALUES (gen_random_uuid(), '2026-11-20 01:46:40+00', 0, 1, 'consume', 'ADMITTED', true, false, 'enforce', 'm-1', 'USD', 50, \
        'o-1', 'proxy', 'system', 20261120, 0, 50, 0, 1, 202611, 0, 50, 0, 1, 2026, 0, 50, 0, 1, 1)";

/// A database with the first migration only.
async fn of_before() -> Result<(Bench, PgPool)> {
    let (bench, dir) = (Bench::start()?, RunDir::new("migrations")?);
    let first = "crates/journal/migrations/0001_usage_log.sql";
    std::fs::create_dir_all(dir.join("first"))?;
    std::fs::copy(dirs::workspace().join(first), dir.join("first/0001_usage_log.sql"))?;
    let pool = bench.postgres.pool().await?;
    Migrator::new(dir.join("first")).await?.run(&pool).await?;
    Ok((bench, pool))
}

#[tokio::test]
async fn a_database_of_before_is_taken_over() -> Result<()> {
    let (bench, pool) = of_before().await?;
    sqlx::raw_sql(OF_BEFORE).execute(&pool).await?;

    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    let mut without_order = event(2);
    without_order.order_no.clear();
    without_order.attempt.clear();
    assert_eq!(log.store(&Batch::read(vec![entry(without_order, 2), entry(event(3), 3)])).await?.rows, 2);
    let kept =
        "SELECT count(*) FROM usage_log_2026_11 WHERE pending_after = 0 AND daily_epoch = 0 AND order_state IS NULL";
    assert_eq!(bench.count(kept).await?, 1);
    // A server of before, which is still running beside the new one, writes on.
    sqlx::raw_sql(&OF_BEFORE[OF_BEFORE.find("INSERT").unwrap_or_default()..]).execute(&pool).await?;
    assert_eq!(bench.count("SELECT count(*) FROM usage_log").await?, 4);
    Ok(())
}

/// An old partition, that of now, and a note of every statement that changes a table or index.
const LARGE: &str = "CREATE TABLE usage_log_2020_01 PARTITION OF usage_log \
        FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-02-01 00:00:00+00'); \
    DO $$ BEGIN EXECUTE format('CREATE TABLE usage_log_%s PARTITION OF usage_log FOR VALUES FROM (%L) TO (%L)', \
        to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'), date_trunc('month', now(), 'UTC'), \
        date_trunc('month', now(), 'UTC') + interval '1 month'); END $$; \
    CREATE TABLE noted (tag text, statement_timeout text, lock_timeout text); \
    CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted \
        VALUES (tg_tag, current_setting('statement_timeout'), current_setting('lock_timeout')); END $$; \
    CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION note()";

/// However large the table is: migrations have the time that they need, waiting for locks apart, and read no old partition.
#[tokio::test]
async fn a_large_table_is_taken_over() -> Result<()> {
    let (bench, pool) = of_before().await?;
    sqlx::raw_sql(LARGE).execute(&pool).await?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    log.probe().await?;
    let noted = "SELECT count(*) FROM noted WHERE (statement_timeout, lock_timeout) IS DISTINCT FROM ('0', '4s')";
    assert_eq!((bench.count(noted).await?, bench.count("SELECT least(count(*), 20) FROM noted").await?), (0, 20));
    // Everything else is bounded, as the making of a partition.
    sqlx::raw_sql("TRUNCATE noted").execute(&pool).await?;
    let month_after_next = Utc::now().date_naive() + chrono::Months::new(2);
    log.prepare(month_after_next).await?;
    let noted: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT statement_timeout FROM noted").fetch_all(&pool).await?;
    assert_eq!(noted, ["8s"]);

    let indexed = "SELECT relid::text FROM pg_partition_tree('usage_log_stored') WHERE isleaf ORDER BY 1";
    let indexed: Vec<String> = sqlx::query_scalar(indexed).fetch_all(&pool).await?;
    let expected = [0, 2, 3].map(|months| {
        let month = Utc::now().date_naive() + chrono::Months::new(months);
        format!("usage_log_{}_stored_txid_idx", month.format("%Y_%m"))
    });
    assert_eq!(indexed, expected);
    Ok(())
}
