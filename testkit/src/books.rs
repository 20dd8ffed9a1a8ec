//! The comparison that every scenario ends with: counters in Redis, rows in Postgres, and the numbers of the events.

use std::time::Duration;

use quota::{MerchantId, Period, shard_of};
use sluice_store::keys;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::failure::{Failure, Result};
use crate::gateway::Seen;
use crate::stack::Stack;
use crate::wait;

/// The server's own default.
pub const SHARDS: u16 = 64;
/// The journal drains in the background, and recovers by a backoff from parts that were away.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// A void is sent at once, and again every quarter of a second or more where it got no answer.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A row of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub order_no: String,
    /// The operation's word, as in `consume`.
    pub action: String,
    pub code: String,
    pub mode: String,
    pub replay: bool,
    pub event_id: String,
    /// Why an attempt was voided.
    pub reason: Option<String>,
    /// The right that admitted the payment, or that the row is about.
    pub right_id: Option<String>,
    windows: [Step; 4],
}

/// What a row did to one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    window: u32,
    amount: (u64, u64),
    count: (u64, u64),
}

impl Entry {
    /// Order, action, code and mode.
    #[must_use]
    pub fn brief(&self) -> (&str, &str, &str, &str) {
        (&self.order_no, &self.action, &self.code, &self.mode)
    }

    /// The day's number of payments after the row.
    #[must_use]
    pub fn day_count_after(&self) -> u64 {
        let [day, ..] = self.windows;
        day.count.1
    }

    /// By how much the row changed the day's amount and count.
    #[must_use]
    pub fn day_change(&self) -> (i128, i128) {
        let [day, ..] = self.windows;
        let change = |(before, after): (u64, u64)| i128::from(after) - i128::from(before);
        (change(day.amount), change(day.count))
    }

    /// Whether the row charged its order: a first admission, by the server or from a right.
    #[must_use]
    pub fn charged(&self) -> bool {
        self.action == "consume" && self.code == "ADMITTED" && !self.replay
    }

    /// Whether it did so with what a right had set aside, so that no counter moved.
    #[must_use]
    pub fn charged_a_right(&self) -> bool {
        self.charged() && self.right_id.is_some() && self.day_change() == (0, 0)
    }

    fn read(row: &PgRow) -> Result<Self> {
        let number = |name: &str| -> Result<u64> { Ok(u64::try_from(row.try_get::<i64, _>(name)?)?) };
        let step = |period: &str| -> Result<Step> {
            let pair = |figure: &str| -> Result<(u64, u64)> {
                Ok((number(&format!("{period}_{figure}_before"))?, number(&format!("{period}_{figure}_after"))?))
            };
            let window = row.try_get::<i32, _>(format!("{period}_window").as_str())?.unsigned_abs();
            Ok(Step { window, amount: pair("used")?, count: pair("count")? })
        };
        Ok(Self {
            order_no: row.try_get::<Option<String>, _>("order_no")?.unwrap_or_default(),
            action: row.try_get("action_type")?,
            code: row.try_get("code")?,
            mode: row.try_get("mode")?,
            replay: row.try_get("replay")?,
            event_id: row.try_get("event_text")?,
            reason: row.try_get("reason")?,
            right_id: row.try_get("right_text")?,
            windows: [step("daily")?, step("weekly")?, step("monthly")?, step("yearly")?],
        })
    }
}

/// A merchant's rows in the order of deciding.
///
/// # Errors
/// Those of Postgres, and a row that cannot be read.
pub async fn journal(stack: &Stack, merchant: &str) -> Result<Vec<Entry>> {
    let pool = stack.postgres.pool().await?;
    let query = "SELECT *, event_id::text AS event_text, right_id::text AS right_text FROM usage_log WHERE merchant_id = $1 ORDER BY seq";
    let rows = sqlx::query(query).bind(merchant).fetch_all(&pool).await;
    pool.close().await;
    rows?.iter().map(Entry::read).collect()
}

/// The day's amount and count in USD; zero where the account was never charged.
///
/// # Errors
/// Those of Redis.
pub async fn day(stack: &Stack, merchant: &str) -> Result<(u64, u64)> {
    let account = stack.account(merchant, "USD").await?;
    Ok(account.map_or((0, 0), |account| (account.windows.day.amount, account.windows.day.count)))
}

/// What the gateway received of a merchant, whose name is no part of another's.
#[must_use]
pub fn seen_by(stack: &Stack, merchant: &str) -> Vec<Seen> {
    let names = |text: &[u8]| String::from_utf8_lossy(text).contains(&format!("{merchant}-"));
    let mut seen = stack.gateway.seen();
    seen.retain(|request| names(&request.body));
    seen
}

/// Waits until the day's amount and count are these: a void follows the answer to the payment that it takes back.
///
/// # Errors
/// When they are not within a minute.
pub async fn settles_at(stack: &Stack, merchant: &str, expected: (u64, u64)) -> Result<()> {
    let settled = wait::until_async("the day's figures", SETTLED_WITHIN, || async {
        Ok(day(stack, merchant).await.ok().filter(|day| *day == expected).map(drop))
    });
    match settled.await {
        Ok(()) => Ok(()),
        Err(failure) => {
            let last = day(stack, merchant).await;
            Err(failure.while_doing(format!("{merchant}: waiting for {expected:?}, last {last:?}")))
        }
    }
}

/// Waits until every void that the filter has sent is in the journal, and gives their number: each is of an attempt of its
/// own, so each leaves one row, however often it was sent. For stacks whose Envoy was not restarted.
///
/// # Errors
/// When they are not within a minute.
pub async fn voids_done(stack: &Stack) -> Result<i64> {
    let pool = stack.postgres.pool().await?;
    let done = wait::until_async("every void in the journal", DRAINED_WITHIN, || async {
        let query = "SELECT count(*) FROM usage_log WHERE action_type = 'void'";
        let rows: i64 = sqlx::query_scalar(query).fetch_one(&pool).await?;
        let sent = stack.envoy.metric("sluice_void_sent")?;
        Ok((rows as f64 == sent).then_some(rows))
    });
    let done = done.await;
    pool.close().await;
    done
}

/// for a merchant's account in USD: every row starts where the one before ended, the counters in Redis are the
/// sum of the rows, and the numbers of the shard's events are 1, 2, 3 … without a gap. Gives the rows.
///
/// # Errors
/// What does not agree.
pub async fn books_agree(stack: &Stack, merchant: &str) -> Result<Vec<Entry>> {
    let shard = shard_of(&MerchantId::parse(merchant)?, SHARDS);
    drained(stack, shard).await?;
    let entries = journal(stack, merchant).await?;
    let account = stack.account(merchant, "USD").await?;
    let sums = sums(merchant, &entries)?;
    let counters = account.as_ref().map_or([None; 4], |account| Period::ALL.map(|period| Some(*account.of(period))));
    for (counter, sum) in counters.into_iter().zip(sums) {
        // A merchant whose payments were all refused has rows that end at zero, and no account.
        let counter = counter.map_or((0, 0, 0), |counter| (counter.id, counter.amount, counter.count));
        let sum = sum.filter(|step| account.is_some() || step.amount.1 != 0 || step.count.1 != 0);
        let sum = sum.map_or((0, 0, 0), |step| (step.window, step.amount.1, step.count.1));
        ensure!(counter == sum, "{merchant}: the counters are {counter:?}, the journal's sum {sum:?}");
    }
    sequence_is_whole(stack, shard).await?;
    Ok(entries)
}

/// The last step of each window, after comparing every step with the one before.
fn sums(merchant: &str, entries: &[Entry]) -> Result<[Option<Step>; 4]> {
    let mut last: [Option<Step>; 4] = [None; 4];
    for entry in entries {
        for (last, step) in last.iter_mut().zip(entry.windows) {
            let before = last.filter(|last| last.window == step.window);
            let before = before.map_or((0, 0), |last| (last.amount.1, last.count.1));
            let starts = (step.amount.0, step.count.0);
            ensure!(before == starts, "{merchant}: {entry:?} starts at {starts:?}, not at {before:?}");
            *last = Some(step);
        }
    }
    Ok(last)
}

/// Waits until the journal has stored and trimmed every event of a shard.
async fn drained(stack: &Stack, shard: u16) -> Result<()> {
    let connection = stack.redis.connection().await?;
    wait::until_async("an empty event stream", DRAINED_WITHIN, || {
        let mut connection = connection.clone();
        async move {
            let length: u64 = redis::cmd("XLEN").arg(keys::stream(shard)).query_async(&mut connection).await?;
            Ok((length == 0).then_some(()))
        }
    })
    .await
}

async fn sequence_is_whole(stack: &Stack, shard: u16) -> Result<()> {
    let pool = stack.postgres.pool().await?;
    let query = "SELECT count(*), count(DISTINCT seq), count(DISTINCT event_id), coalesce(max(seq), 0), \
                 (SELECT count(*) FROM journal_rejected), (SELECT count(*) FROM journal_anomaly) \
                 FROM usage_log WHERE shard = $1";
    let row: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(query).bind(i32::from(shard)).fetch_one(&pool).await?;
    pool.close().await;
    let (rows, numbers, ids, last, rejected, anomalies) = row;
    let whole = rows == numbers && rows == ids && rows == last && rejected == 0 && anomalies == 0;
    ensure!(
        whole,
        "shard {shard}: {rows} rows, {numbers} numbers, {ids} ids, last number {last}, {rejected} rejected, \
         {anomalies} anomalies"
    );
    Ok(())
}

/// Waits until no right is outstanding: holders return those that are over.
///
/// # Errors
/// When some are after a minute.
pub async fn rights_returned(stack: &Stack) -> Result<()> {
    let connection = stack.redis.connection().await?;
    for shard in 0..SHARDS {
        wait::until_async("the return of all rights", SETTLED_WITHIN, || {
            let mut connection = connection.clone();
            async move {
                let outstanding: u64 =
                    redis::cmd("ZCARD").arg(keys::rights(shard)).query_async(&mut connection).await?;
                Ok((outstanding == 0).then_some(()))
            }
        })
        .await?;
    }
    Ok(())
}

/// Q-6 for every shard: nothing waits in Redis, and Postgres has as many events as Redis has given numbers.
///
/// # Errors
/// What is missing or was numbered twice.
pub async fn journal_is_whole(stack: &Stack) -> Result<()> {
    let mut connection = stack.redis.connection().await?;
    let pool = stack.postgres.pool().await?;
    for shard in 0..SHARDS {
        drained(stack, shard).await?;
        let given = last_number(&mut connection, shard).await?;
        let query = "SELECT count(DISTINCT seq) FROM usage_log WHERE shard = $1";
        let stored: i64 = sqlx::query_scalar(query).bind(i32::from(shard)).fetch_one(&pool).await?;
        ensure_eq!(u64::try_from(stored)?, given, "events of shard {shard}");
        sequence_is_whole(stack, shard).await?;
    }
    pool.close().await;
    Ok(())
}

/// The number of the last event of a shard; 0 where it never had one.
async fn last_number(connection: &mut redis::aio::MultiplexedConnection, shard: u16) -> Result<u64> {
    let info: redis::RedisResult<redis::streams::StreamInfoStreamReply> =
        redis::cmd("XINFO").arg("STREAM").arg(keys::stream(shard)).query_async(connection).await;
    match info {
        Ok(info) => {
            let number = info.last_generated_id.rsplit('-').next().and_then(|number| number.parse().ok());
            number.ok_or_else(|| Failure::new(format!("shard {shard}: last id {}", info.last_generated_id)))
        }
        Err(error) if error.to_string().contains("no such key") => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Events that are in Postgres and still in Redis: the journal has not finished with them.
///
/// # Errors
/// Those of Redis and Postgres.
pub async fn unacknowledged(stack: &Stack) -> Result<usize> {
    let mut connection = stack.redis.connection().await?;
    let pool = stack.postgres.pool().await?;
    let mut left = 0;
    for shard in 0..SHARDS {
        let waiting: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg(keys::stream(shard)).arg("-").arg("+").query_async(&mut connection).await?;
        let numbers: Vec<i64> =
            waiting.ids.iter().filter_map(|entry| entry.id.rsplit('-').next()?.parse().ok()).collect();
        let stored = "SELECT count(*) FROM usage_log WHERE shard = $1 AND seq = ANY($2)";
        let stored: i64 = sqlx::query_scalar(stored).bind(i32::from(shard)).bind(numbers).fetch_one(&pool).await?;
        left += usize::try_from(stored)?;
    }
    pool.close().await;
    Ok(left)
}
