//! `quota_window`: the last figures of every window that is over, once.

use quota::Action;
use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_journal::stream::EventStream;
use sluice_settings::Secret;
use testkit::Result;

use crate::bench::{AT_MS, Bench, SHARDS, SOON};
use crate::engine::{Engine, consume, refund};

const DAY_MS: i64 = 86_400_000;

type Window = (String, i32, i64, i64, i64, i64);

async fn windows(bench: &Bench) -> Result<Vec<Window>> {
    let pool = bench.postgres.pool().await?;
    let statement = "SELECT period, window_id, amount, count, refunded, \
            (SELECT count(*) FROM usage_log WHERE event_id = w.event_id AND at = w.closed_at) \
        FROM quota_window AS w WHERE merchant_id = 'm-1' AND currency = 'USD' ORDER BY window_id";
    let rows = sqlx::query_as(statement).fetch_all(&pool).await?;
    pool.close().await;
    Ok(rows)
}

#[tokio::test]
async fn a_window_that_is_over_is_stored_once() -> Result<()> {
    let bench = Bench::start()?;
    let engine = Engine::open(&bench)?;
    engine.grant("m-1", "o-1", consume(100), AT_MS).await?;
    engine.grant("m-1", "o-1", Action::Refund(refund(30, "r-1")), AT_MS + 1).await?;
    // The next day; then 2027, with the last day, month and year at once.
    engine.grant("m-1", "o-2", consume(7), AT_MS + DAY_MS).await?;
    engine.grant("m-1", "o-3", consume(9), AT_MS + 60 * DAY_MS).await?;
    let mut stream = EventStream::connect(&Secret::new(bench.redis.url()), SHARDS, "a").await?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    let batch = Batch::read(stream.read(100, SOON).await?);
    log.store(&batch).await?;
    let row = |period: &str, id, amount, count, refunded| (period.to_owned(), id, amount, count, refunded, 1);
    let expected = [
        row("year", 2026, 77, 2, 30),
        row("month", 202_611, 77, 2, 30),
        row("week", 20_261_116, 77, 2, 30),
        row("day", 20_261_120, 70, 1, 30),
        row("day", 20_261_121, 7, 1, 0),
    ];
    assert_eq!(windows(&bench).await?, expected);
    // Delivered again, as after a death between the commit and the removal.
    let again = log.store(&batch).await?;
    assert_eq!((again.rows, again.duplicates), (0, 4));
    assert_eq!(windows(&bench).await?, expected);
    Ok(())
}
