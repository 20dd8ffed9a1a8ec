//! F8: an account's key disappears from Redis, and with it its counters and limits.

use quota::{MerchantId, shard_of};
use sluice_store::keys;
use testkit::Result;

use crate::bench::{AT_MS, Bench, SHARDS};
use crate::engine::{Engine, consume, usd};

/// Deletes an account as an eviction does.
async fn lose(bench: &Bench, merchant: &str) -> Result<()> {
    let merchant = MerchantId::parse(merchant)?;
    let key = keys::account(shard_of(&merchant, SHARDS), &merchant, usd()?);
    let removed: u64 = redis::cmd("DEL").arg(key).query_async(&mut bench.connection().await?).await?;
    assert_eq!(removed, 1, "there was no account");
    Ok(())
}

const LOST: &str = "SELECT count(*) FROM journal_anomaly WHERE kind = 'account_lost'";

/// Each loss is found once, in the transaction of the event that shows it, whichever journal stores it; other accounts' changes
/// follow as ever.
#[tokio::test]
async fn f8_an_account_that_redis_lost_is_an_anomaly_once() -> Result<()> {
    let bench = Bench::start()?;
    let engine = Engine::open(&bench)?;
    let pay = async |merchant: &str, order: &str| engine.grant(merchant, order, consume(100), AT_MS).await.map(drop);
    let journal = bench.journal("a")?;
    for order in ["1", "2", "3"] {
        pay("lost", order).await?;
        pay("kept", order).await?;
    }
    bench.wait_for_rows(6).await?;
    lose(&bench, "lost").await?;
    for order in ["4", "5"] {
        pay("lost", order).await?;
        pay("kept", order).await?;
    }
    bench.wait_for_rows(10).await?;
    let found = "SELECT count(*) FROM journal_anomaly JOIN usage_log ON seq = first_seq AND usage_log.shard = journal_anomaly.shard \
        WHERE kind = 'account_lost' AND journal_anomaly.merchant_id = 'lost' AND journal_anomaly.currency = 'USD' \
        AND journal_anomaly.expected_version = 4 AND found_version = 1 AND order_no = '4' AND resolved_at IS NULL";
    assert_eq!((bench.count(found).await?, bench.count(LOST).await?), (1, 1));
    journal.wait_for_metric("sluice_journal_accounts_lost_total 1").await?;
    journal.wait_for_metric("sluice_journal_lost_accounts 1").await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.stop()?;

    // The next journal knows the last changes from Postgres.
    let journal = bench.journal("b")?;
    pay("lost", "6").await?;
    lose(&bench, "kept").await?;
    pay("kept", "6").await?;
    bench.wait_for_rows(12).await?;
    assert_eq!(bench.count(LOST).await?, 2);
    journal.wait_for_metric("sluice_journal_accounts_lost_total 1").await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.stop()
}

/// What a journal that died has stored comes again, and shows no loss; an event that is missing explains the version that is passed
/// over.
#[tokio::test]
async fn f8_events_that_come_again_or_are_missing_show_no_loss() -> Result<()> {
    let bench = Bench::start()?;
    let engine = Engine::open(&bench)?;
    for order in ["1", "2", "3", "4"] {
        engine.grant("kept", order, consume(100), AT_MS).await?;
    }
    let merchant = MerchantId::parse("kept")?;
    let stream = keys::stream(shard_of(&merchant, SHARDS));
    let copied: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg(&stream).arg("-").arg("+").query_async(&mut bench.connection().await?).await?;
    assert_eq!(copied.ids.len(), 4);
    redis::cmd("XDEL").arg(&stream).arg("0-3").query_async::<()>(&mut bench.connection().await?).await?;
    let journal = bench.journal("a")?;
    bench.wait_for_rows(3).await?;
    journal.wait_for_metric("sluice_journal_missing_events 1").await?;
    journal.stop()?;
    // The stream's events come again, as from a journal that died before it removed them.
    let mut pipeline = redis::Pipeline::new();
    pipeline.atomic().cmd("DEL").arg(&stream).ignore();
    for entry in copied.ids.iter().filter(|entry| entry.id != "0-3") {
        let mut add = redis::cmd("XADD");
        add.arg(&stream).arg(&entry.id);
        for name in ["c", "d", "w", "a"] {
            if let Some(value) = entry.get::<Vec<u8>>(name) {
                add.arg(name).arg(value);
            }
        }
        pipeline.add_command(add).ignore();
    }
    pipeline.query_async::<()>(&mut bench.connection().await?).await?;
    let journal = bench.journal("b")?;
    journal.wait_for_metric("sluice_journal_duplicates_total 3").await?;
    engine.grant("kept", "5", consume(100), AT_MS).await?;
    bench.wait_for_rows(4).await?;
    assert_eq!(bench.count(LOST).await?, 0);
    journal.stop()
}
