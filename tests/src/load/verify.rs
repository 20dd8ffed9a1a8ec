//! After the load: every charge is counted once in Redis and written once in Postgres.

use std::collections::HashMap;
use std::time::Duration;

use authz_server::settings::Secret;
use authz_server::store::{RedisStore, RedisStoreConfig};
use quota::{Currency, MerchantId};
use sqlx::Row;

use super::client::AMOUNT_MINOR;
use super::rig::{Rig, SHARDS};
use super::{RACE_MERCHANT, merchant};
use crate::failure::{Failure, Result};

/// What does not agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Charges that the journal lacks, or has too often.
    pub journal_missing: u64,
    /// Accounts whose counters are not what was charged.
    pub counters_wrong: u64,
}

/// Compares what the generator saw admitted with the counters and with the journal.
pub(super) async fn compare(rig: &Rig) -> Result<Verdict> {
    let expected = rig.admitted.iter().enumerate().map(|(number, charges)| (merchant(number as u32), *charges));
    let expected = expected.chain([(RACE_MERCHANT.to_owned(), rig.race_admitted)]).collect::<HashMap<_, _>>();
    Ok(Verdict {
        journal_missing: journal_missing(rig, &expected).await?,
        counters_wrong: counters_wrong(rig, &expected).await?,
    })
}

async fn journal_missing(rig: &Rig, expected: &HashMap<String, u64>) -> Result<u64> {
    let pool = rig.postgres.pool().await?;
    let rows = sqlx::query(
        "SELECT merchant_id, count(*) AS charges, count(DISTINCT order_no) AS orders, \
         sum(yearly_used_after - yearly_used_before)::bigint AS amount \
         FROM usage_log WHERE action_type = 'consume' AND code = 'ADMITTED' AND NOT replay GROUP BY merchant_id",
    )
    .fetch_all(&pool)
    .await?;
    let mut left = expected.clone();
    let mut missing = 0;
    for row in rows {
        let charges = u64::try_from(row.get::<i64, _>("charges"))?;
        let wanted = left.remove(row.get::<&str, _>("merchant_id")).unwrap_or(0);
        let sum = u64::try_from(row.get::<i64, _>("amount"))?;
        let exact = row.get::<i64, _>("charges") == row.get::<i64, _>("orders") && sum == charges * AMOUNT_MINOR;
        missing += charges.abs_diff(wanted) + u64::from(!exact);
    }
    let gaps: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(gap), 0)::bigint FROM \
         (SELECT abs(max(seq) - count(DISTINCT seq)) + count(*) - count(DISTINCT seq) AS gap \
          FROM usage_log GROUP BY shard) AS shards",
    )
    .fetch_one(&pool)
    .await?;
    Ok(missing + left.values().sum::<u64>() + u64::try_from(gaps)?)
}

/// How long one look at Redis may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

async fn counters_wrong(rig: &Rig, expected: &HashMap<String, u64>) -> Result<u64> {
    let config = RedisStoreConfig { url: Secret::new(rig.redis.url()), shards: SHARDS, timeout: STORE_TIMEOUT };
    let store = RedisStore::open(&config)?;
    let usd = Currency::parse("USD")?;
    let mut wrong = 0;
    for (name, charges) in expected.iter().filter(|(_, charges)| **charges > 0) {
        let account = store.account(&MerchantId::parse(name)?, usd).await?;
        let account = account.ok_or_else(|| Failure::new(format!("{name} was charged and has no account")))?;
        // The year outlasts a run that begins before midnight; on New Year's Eve run it again.
        let exact = account.year.count == *charges && account.year.amount == charges * AMOUNT_MINOR;
        wrong += u64::from(!exact);
    }
    Ok(wrong)
}
