//! Redis under callgrind: the store's own calls, and the events that they leave.

use std::time::Duration;

use redis::streams::StreamRangeReply;
use serde::Serialize;
use sluice_journal::event::Batch;
use sluice_journal::reply::{Entry, StreamId};
use sluice_kit::database::copy::Columns;
use sluice_kit::secret::Secret;
use sluice_store::{RedisStore, RedisStoreConfig, Store, keys};
use testkit::callgrind::Callgrind;
use testkit::dirs::RunDir;
use testkit::redis::Redis;
use testkit::{Failure, Result, Service, tools};

use super::{BATCH, Payments, PerPayment, ensure_admitted};

const SHARDS: u16 = 64;
/// A call takes milliseconds under callgrind.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Payments alone, and batches.
const ALONE: usize = 1_000;
const BATCHES: usize = 100;
/// Before it is counted: accounts exist, and tables have grown.
const WARM_UP_BATCHES: usize = 50;
/// Little time events, and no work that is bounded by time.
const QUIET: [&str; 6] = ["--hz", "1", "--dynamic-hz", "no", "--activerehashing", "no"];

/// What Redis does for a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RedisCounts {
    pub instructions: PerPayment,
    pub journal_bytes: JournalBytes,
}

/// What a payment adds to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct JournalBytes {
    /// Names and values of its stream entry in Redis.
    pub event: u64,
    /// Its row as it is sent to Postgres, in the binary copy format. There is one.
    pub row: u64,
}

pub(super) async fn count(callgrind: &Callgrind) -> Result<RedisCounts> {
    let dir = RunDir::new("counts-redis")?;
    let counted = callgrind.wrap(&tools::valkey_server()?, &QUIET, &dir)?;
    let mut redis = Redis::start_program(counted.program.clone(), dir)?;
    let mut counter = counted.counter(redis.pid())?;
    let config = RedisStoreConfig { url: Secret::new(redis.local_url()), shards: SHARDS, timeout: TIMEOUT };
    let (store, mut payments) = (RedisStore::open(&config)?, Payments::new());
    together(&store, &mut payments, WARM_UP_BATCHES).await?;
    let alone = counter.count(async || alone(&store, &mut payments).await).await?;
    let batched = counter.count(async || together(&store, &mut payments, BATCHES).await).await?;
    let instructions = PerPayment { alone: alone / ALONE as u64, batched: batched / (BATCHES * BATCH) as u64 };
    Ok(RedisCounts {
        instructions,
        journal_bytes: journal_bytes(&redis, ALONE + (BATCHES + WARM_UP_BATCHES) * BATCH).await?,
    })
}

async fn alone(store: &RedisStore, payments: &mut Payments) -> Result<()> {
    for _ in 0..ALONE {
        ensure_admitted(store.apply_one(&payments.command()?).await?.record.code.as_str())?;
    }
    Ok(())
}

async fn together(store: &RedisStore, payments: &mut Payments, batches: usize) -> Result<()> {
    for _ in 0..batches {
        for reply in store.apply_each(&payments.commands()?).await {
            ensure_admitted(reply?.record.code.as_str())?;
        }
    }
    Ok(())
}

/// The bytes of the events of so many payments, each of which must have one.
async fn journal_bytes(redis: &Redis, payments: usize) -> Result<JournalBytes> {
    let batch = Batch::read(entries(redis).await?);
    let count = batch.events.len();
    if count != payments || !batch.rejected.is_empty() {
        return Err(Failure::new(format!(
            "{payments} payments left {count} events, {} unreadable",
            batch.rejected.len()
        )));
    }
    let event: usize = batch.entries().flat_map(|entry| &entry.fields).map(Vec::len).sum();
    let mut rows = Vec::new();
    let columns = batch.events.iter().fold(Columns::default(), |all, event| all.or(event.row.filled()));
    batch.events.iter().for_each(|event| event.row.write(columns, &mut rows));
    Ok(JournalBytes { event: (event / count) as u64, row: (rows.len() / count) as u64 })
}

async fn entries(redis: &Redis) -> Result<Vec<Entry>> {
    let mut connection = redis.connection().await?;
    let mut entries = Vec::new();
    for shard in 0..SHARDS {
        let found: StreamRangeReply =
            redis::cmd("XRANGE").arg(keys::stream(shard)).arg("-").arg("+").query_async(&mut connection).await?;
        for entry in found.ids {
            let mut fields = Vec::new();
            for (name, value) in &entry.map {
                fields.extend([name.clone().into_bytes(), redis::from_redis_value_ref(value)?]);
            }
            entries.push(Entry { shard, id: entry.id.parse::<StreamId>().map_err(|_| Failure::new("an id"))?, fields });
        }
    }
    Ok(entries)
}
