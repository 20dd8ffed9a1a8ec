//! A database that an older server has made and written to is taken over by a newer one, partitions and rows included.

use authz_server::journal::event::Batch;
use authz_server::journal::postgres::UsageLog;
use authz_server::settings::Secret;
use e2e::Result;
use e2e::dirs::{self, RunDir};
use sqlx::migrate::Migrator;

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

#[tokio::test]
async fn a_database_of_before_is_taken_over() -> Result<()> {
    let (bench, dir) = (Bench::start()?, RunDir::new("migrations")?);
    let first = "authz-server/migrations/0001_usage_log.sql";
    std::fs::create_dir_all(dir.join("first"))?;
    std::fs::copy(dirs::workspace().join(first), dir.join("first/0001_usage_log.sql"))?;
    let pool = bench.postgres.pool().await?;
    Migrator::new(dir.join("first")).await?.run(&pool).await?;
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
