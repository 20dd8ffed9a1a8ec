//! What the generator saw charged, and whether counters and journal say the same afterwards.

use std::collections::HashMap;
use std::time::Duration;

use quota::{Currency, MerchantId};
use serde::Serialize;
use sluice_kit::secret::Secret;
use sluice_store::{RedisStore, RedisStoreConfig};
use sqlx::Row;

use super::plan::{AMOUNT_MINOR, Payers, Tally};
use super::rig::{Rig, SHARDS};
use testkit::{Failure, Result};

/// Orders charged, by merchant's prefix and number.
#[derive(Clone, Debug, Default)]
pub(super) struct Books(HashMap<&'static str, Vec<u64>>);

impl Books {
    pub(super) fn enter(&mut self, tally: &Tally) {
        let sums = self.0.entry(tally.plan.payers.prefix).or_default();
        sums.resize(sums.len().max(tally.by_payer.len()), 0);
        for (sum, more) in sums.iter_mut().zip(&tally.by_payer) {
            *sum += u64::from(*more);
        }
    }

    /// Orders by the merchant's name, those with any.
    fn by_name(&self) -> HashMap<String, u64> {
        let each = self.0.iter().flat_map(|(prefix, sums)| sums.iter().enumerate().map(move |at| (prefix, at)));
        let charged = each.filter(|(_, (_, orders))| **orders > 0);
        charged.map(|(prefix, (number, orders))| (Payers::name(prefix, number), *orders)).collect()
    }
}

/// What does not agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Orders that were charged and compared.
    pub orders: u64,
    /// Charges that the journal lacks, or has too often.
    pub journal_missing: u64,
    /// Accounts whose counters are not what was charged.
    pub counters_wrong: u64,
}

impl Verdict {
    /// Whether everything agrees.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.journal_missing == 0 && self.counters_wrong == 0
    }
}

/// Compares what the generator saw admitted with the counters and with the journal.
pub(super) async fn compare(rig: &Rig) -> Result<Verdict> {
    let expected = rig.books.by_name();
    Ok(Verdict {
        orders: expected.values().sum(),
        journal_missing: journal_missing(rig, &expected).await?,
        counters_wrong: counters_wrong(rig, &expected).await?,
    })
}

/// A payment that was admitted from a right moves no counter, its right does: when it is granted, and back when the rest is returned.
/// So what all rows of an account move is compared, and the amounts of its payments.
async fn journal_missing(rig: &Rig, expected: &HashMap<String, u64>) -> Result<u64> {
    let pool = rig.postgres.pool().await?;
    let rows = sqlx::query(
        "SELECT merchant_id, count(*) FILTER (WHERE charged) AS charges, \
         count(DISTINCT order_no) FILTER (WHERE charged) AS orders, \
         coalesce(sum(amount) FILTER (WHERE charged), 0)::bigint AS amount, \
         sum(yearly_used_after - yearly_used_before)::bigint AS counted \
         FROM (SELECT *, action_type = 'consume' AND code = 'ADMITTED' AND NOT replay AS charged FROM usage_log) AS log \
         GROUP BY merchant_id",
    )
    .fetch_all(&pool)
    .await?;
    let mut left = expected.clone();
    let mut missing = 0;
    for row in rows {
        let charges = u64::try_from(row.get::<i64, _>("charges"))?;
        let wanted = left.remove(row.get::<&str, _>("merchant_id")).unwrap_or(0);
        let sum = i64::try_from(charges * AMOUNT_MINOR)?;
        let sums = ["amount", "counted"].map(|name| row.get::<i64, _>(name));
        let exact = row.get::<i64, _>("charges") == row.get::<i64, _>("orders") && sums == [sum; 2];
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
/// Accounts asked for at a time.
const LOOKS_MAX: usize = 256;

async fn counters_wrong(rig: &Rig, expected: &HashMap<String, u64>) -> Result<u64> {
    let config = RedisStoreConfig { url: Secret::new(rig.redis.url()), shards: SHARDS, timeout: STORE_TIMEOUT };
    let store = RedisStore::open(&config)?;
    let usd = Currency::parse("USD")?;
    let all: Vec<(&String, &u64)> = expected.iter().collect();
    let mut wrong = 0;
    for some in all.chunks(LOOKS_MAX) {
        let looks = some.iter().map(async |(name, charges)| {
            let account = store.account(&MerchantId::parse(name)?, usd).await?;
            let account = account.ok_or_else(|| Failure::new(format!("{name} was charged and has no account")))?;
            // The year outlasts a run that begins before midnight; on New Year's Eve run it again.
            Ok::<_, Failure>(
                account.windows.year.count == **charges && account.windows.year.amount == **charges * AMOUNT_MINOR,
            )
        });
        let exact = futures_util::future::try_join_all(looks).await?;
        wrong += exact.into_iter().filter(|exact| !exact).count() as u64;
    }
    Ok(wrong)
}
