//! The live stream's reading: what it costs Postgres, and that nothing is left out however it is broken off.

use std::collections::BTreeSet;
use std::str::FromStr;

use quota::{Currency, MerchantId};
use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_live::{Change, Feed, Filter, Item, Reader};
use sluice_settings::Secret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::types::Uuid;
use sqlx::types::chrono::Utc;
use sqlx::{PgConnection, PgPool};
use testkit::{Failure, Result, wait};

use crate::bench::{Bench, WITHIN, entry, event};

const BOTH: Filter = Filter {
    alerts: true,
    decisions: true,
    credit_lines: false,
    own: None,
    merchant: None,
    currency: None,
    code: None,
};
const DECISIONS: Filter = Filter { alerts: false, ..BOTH };

/// A database with one decision of now.
async fn with_decision() -> Result<(Bench, PgPool)> {
    let bench = Bench::start()?;
    let mut first = event(1);
    first.at_ms = Utc::now().timestamp_millis();
    UsageLog::new(&Secret::new(bench.postgres.url()))?.store(&Batch::read(vec![entry(first, 1)])).await?;
    let pool = bench.postgres.pool().await?;
    Ok((bench, pool))
}

/// Stores so many copies of the decision in one transaction, under new ids.
async fn store(connection: &mut PgConnection, count: i64) -> Result<BTreeSet<Uuid>> {
    let statement = "INSERT INTO usage_log SELECT (row).* FROM (SELECT jsonb_populate_record(u, jsonb_build_object( \
        'event_id', gen_random_uuid(), 'seq', 100 + number, 'stored_txid', txid_current())) AS row \
        FROM usage_log u CROSS JOIN generate_series(1, $1) AS number WHERE u.seq = 1 OFFSET 0) AS rows \
        RETURNING event_id";
    Ok(sqlx::query_scalar(statement).bind(count).fetch_all(connection).await?.into_iter().collect())
}

/// Alerts of a merchant, each in a transaction of its own.
async fn raise(pool: &PgPool, merchant: &str, count: usize) -> Result<Vec<Uuid>> {
    let statement = "INSERT INTO quota_alert (alert_id, merchant_id, currency, subject, alert_type, alert_level, message, raised_at) \
        VALUES (gen_random_uuid(), $1, 'USD', 'over_capture', 'over_capture', 'warning', 'in words', now()) RETURNING alert_id";
    let mut raised = Vec::with_capacity(count);
    for _ in 0..count {
        raised.push(sqlx::query_scalar(statement).bind(merchant).fetch_one(pool).await?);
    }
    Ok(raised)
}

fn ids(items: &[Item]) -> Vec<Uuid> {
    let id = |item: &Item| match &item.change {
        Change::Alert { alert, .. } => Some(alert.alert_id),
        Change::Decision(row) => Some(row.event_id),
        Change::CreditLine(_) => None,
    };
    items.iter().filter_map(id).collect()
}

/// All that there is, and in how many pieces.
async fn all(reader: &mut Reader) -> Result<(Vec<Uuid>, usize)> {
    let (mut read, mut pieces) = (Vec::new(), 0);
    loop {
        let (items, more) = reader.read().await?;
        read.extend(ids(&items));
        pieces += 1;
        if !more {
            return Ok((read, pieces));
        }
    }
}

fn feed_as(bench: &Bench, user: &str) -> Result<(Feed, PgPool)> {
    let options = PgConnectOptions::from_str(&bench.postgres.url())?.username(user);
    let pool = PgPoolOptions::new().max_connections(Feed::CONNECTIONS).connect_lazy_with(options);
    Ok((Feed::new(pool.clone()), pool))
}

/// However many transactions were under way when the stream last looked: a piece goes through the index once.
#[tokio::test]
async fn decisions_are_found_by_their_index_once_a_piece() -> Result<()> {
    let (bench, pool) = with_decision().await?;
    // Many rows: of a small table Postgres prefers to read all.
    store(&mut *pool.acquire().await?, 20_000).await?;
    sqlx::query("ANALYZE usage_log").execute(&pool).await?;
    let mut late = Vec::new();
    let mut stored = BTreeSet::new();
    for _ in 0..3 {
        let mut transaction = pool.begin().await?;
        stored.extend(store(&mut transaction, 2).await?);
        late.push(transaction);
    }
    let (feed, connections) = feed_as(&bench, "sluice")?;
    let mut reader = feed.begin(DECISIONS).await?;
    for transaction in late {
        transaction.commit().await?;
    }
    stored.extend(store(&mut *pool.acquire().await?, 3).await?);
    let (read, pieces) = all(&mut reader).await?;
    assert_eq!((read.len(), read.into_iter().collect::<BTreeSet<_>>(), pieces), (9, stored, 1));
    // What a connection has done is counted when it ends.
    connections.close().await;
    let scans = "SELECT sum(idx_scan)::bigint FROM pg_stat_user_indexes WHERE relname = to_char(now(), '\"usage_log_\"YYYY_MM') \
        AND indexrelname LIKE '%stored_txid_idx'";
    let scans = wait::until_async("the scans", WITHIN, || async {
        let scans: Option<i64> = sqlx::query_scalar(scans).fetch_one(&pool).await?;
        Ok(scans.filter(|scans| *scans > 0))
    });
    assert_eq!(scans.await?, 1);
    Ok(())
}

/// Where Postgres takes long for a piece, pieces get smaller, and the stream comes forward.
#[tokio::test]
async fn what_takes_too_long_is_read_in_smaller_pieces() -> Result<()> {
    let (bench, pool) = with_decision().await?;
    // A session of this user waits for each row.
    sqlx::raw_sql(
        "CREATE ROLE slow LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO slow; \
        ALTER TABLE usage_log ENABLE ROW LEVEL SECURITY; \
        CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql COST 10000 AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN true; END $$; \
        CREATE POLICY slow ON usage_log USING (slow())",
    )
    .execute(&pool)
    .await?;
    let (feed, _) = feed_as(&bench, "slow")?;
    let mut reader = feed.begin(DECISIONS).await?;
    let mut stored = BTreeSet::new();
    for _ in 0..56 {
        stored.extend(store(&mut *pool.acquire().await?, 1).await?);
    }
    let (read, pieces) = all(&mut reader).await?;
    assert_eq!((read.len(), read.into_iter().collect::<BTreeSet<_>>()), (56, stored));
    assert!(pieces > 2, "{pieces} pieces");
    Ok(())
}

/// An alert that is asked for is found among many that are not, a small piece at a time; changes that were removed are left out.
#[tokio::test]
async fn rare_alerts_are_found_in_small_pieces() -> Result<()> {
    let (bench, pool) = with_decision().await?;
    let (feed, _) = feed_as(&bench, "sluice")?;
    let rare = Filter { merchant: Some(MerchantId::parse("rare")?), ..BOTH };
    let mut reader = feed.begin(rare).await?;
    raise(&pool, "often", 450).await?;
    let found = raise(&pool, "rare", 3).await?;
    sqlx::query("DELETE FROM alert_change WHERE alert_id = $1").bind(found[1]).execute(&pool).await?;
    let (read, pieces) = all(&mut reader).await?;
    assert_eq!(read, [found[0], found[2]]);
    assert!(pieces >= 3, "{pieces} pieces");
    Ok(())
}

/// A stream that sends more than the one whose id it goes on from leaves nothing of it out.
#[tokio::test]
async fn another_filter_begins_where_both_had_sent_all() -> Result<()> {
    let (bench, pool) = with_decision().await?;
    let (feed, _) = feed_as(&bench, "sluice")?;
    let dollars = Filter { currency: Some(Currency::parse("USD")?), ..DECISIONS };
    let mut reader = feed.begin(dollars.clone()).await?;
    let raised = raise(&pool, "m-1", 1).await?;
    let stored = store(&mut *pool.acquire().await?, 5).await?;
    // As the event of a decision in the middle has it.
    let (items, _) = reader.read().await?;
    let middle = &items.get(2).ok_or_else(|| Failure::new("no decisions"))?.place;
    for (filter, expected) in [(dollars, 2), (DECISIONS, 5), (BOTH, 6)] {
        let mut reader = feed.resume(filter, middle.clone()).await?.map_err(|error| Failure::new(error.to_string()))?;
        let read = all(&mut reader).await?.0;
        assert_eq!(read.len(), expected);
        assert!(read.iter().all(|id| stored.contains(id) || raised.contains(id)));
    }
    Ok(())
}
