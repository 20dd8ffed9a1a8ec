//! What every journal test stands on: a private Redis and Postgres, a hand to write events as the server's script does,
//! and journals that can be started and stopped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use authz_server::health::Health;
use authz_server::journal::reply::Entry;
use authz_server::journal::{self, Config};
use authz_server::metrics::Metrics;
use authz_server::settings::Secret;
use authz_server::store::keys;
use e2e::postgres::Postgres;
use e2e::redis::Redis;
use e2e::{Failure, Result, wait};
use prost::Message;
use proto::journal::EventContext;
use quota::{Code, OrderFigures, OrderState, Period, Record, WindowFigures};
use redis::aio::MultiplexedConnection;
use sqlx::types::Uuid;
use tokio::sync::watch;

/// How long anything may take to come true.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// Shards in most tests.
pub(crate) const SHARDS: u16 = 4;
/// 2026-11-20 01:46:40 UTC.
pub(crate) const AT_MS: i64 = 1_795_139_200_000;

/// Redis and Postgres of one test.
pub(crate) struct Bench {
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
}

impl Bench {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { redis: Redis::start()?, postgres: Postgres::start()? })
    }

    /// Settings with short intervals.
    pub(crate) fn config(&self, consumer: &str) -> Config {
        Config {
            redis_url: Secret::new(self.redis.url()),
            postgres_url: Secret::new(self.postgres.url()),
            shards: SHARDS,
            batch_rows_max: 500,
            backlog_events_max: 100_000,
            claim_idle: Duration::from_millis(200),
            check_interval: Duration::from_millis(100),
            consumer_idle: Duration::from_secs(3600),
            consumer: consumer.to_owned(),
            live: None,
        }
    }

    pub(crate) fn journal(&self, consumer: &str) -> Result<Journal> {
        Journal::start(self.config(consumer))
    }

    pub(crate) async fn connection(&self) -> Result<MultiplexedConnection> {
        self.redis.connection().await
    }

    /// Appends events to a shard as the script does.
    pub(crate) async fn append(&self, shard: u16, events: impl IntoIterator<Item = EventContext>) -> Result<()> {
        let mut connection = self.connection().await?;
        let mut pipeline = redis::Pipeline::new();
        // In one step: a journal that reads meanwhile finds all of them or none, so that tests know what it holds.
        pipeline.atomic();
        for event in events {
            add(&mut pipeline, shard, &event.encode_to_vec(), &admitted(event.amount_minor));
        }
        Ok(pipeline.query_async(&mut connection).await?)
    }

    /// One number from Postgres.
    pub(crate) async fn count(&self, sql: &'static str) -> Result<i64> {
        let pool = self.postgres.pool().await?;
        let count = sqlx::query_scalar(sql).fetch_one(&pool).await;
        pool.close().await;
        Ok(count?)
    }

    /// Waits until a query gives the number; a Postgres that is not there yet gives none.
    pub(crate) async fn wait_for(&self, sql: &'static str, expected: i64) -> Result<()> {
        let waited = wait::until_async(sql, WITHIN, || async {
            Ok(self.count(sql).await.ok().filter(|count| *count == expected).map(drop))
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(failure) => {
                let count = self.count(sql).await;
                Err(failure.while_doing(format!("waiting for {expected}, last {count:?}")))
            }
        }
    }

    pub(crate) async fn wait_for_rows(&self, expected: i64) -> Result<()> {
        self.wait_for("SELECT count(*) FROM usage_log", expected).await
    }

    /// Waits until no event is in any stream and none is pending.
    pub(crate) async fn wait_until_drained(&self, shards: u16) -> Result<()> {
        self.wait_for_left_of(shards, 0).await
    }

    /// Waits until events in the streams and events pending come to the number.
    pub(crate) async fn wait_for_left(&self, expected: u64) -> Result<()> {
        self.wait_for_left_of(SHARDS, expected).await
    }

    async fn wait_for_left_of(&self, shards: u16, expected: u64) -> Result<()> {
        let connection = self.connection().await?;
        wait::until_async("events left in the streams", WITHIN, || {
            let mut connection = connection.clone();
            // Until the journal has made its group, there is nothing to ask.
            async move { Ok(left(&mut connection, shards).await.ok().filter(|left| *left == expected).map(drop)) }
        })
        .await
    }
}

/// Events in the streams, and events pending.
async fn left(connection: &mut MultiplexedConnection, shards: u16) -> Result<u64> {
    let mut left = 0;
    for shard in 0..shards {
        let key = keys::stream(shard);
        left += redis::cmd("XLEN").arg(&key).query_async::<u64>(connection).await?;
        let pending: redis::Value =
            redis::cmd("XPENDING").arg(&key).arg(keys::JOURNAL_GROUP).query_async(connection).await?;
        match pending {
            redis::Value::Array(parts) => match parts.first() {
                Some(redis::Value::Int(count)) => left += count.unsigned_abs(),
                other => return Err(Failure::new(format!("XPENDING: {other:?}"))),
            },
            other => return Err(Failure::new(format!("XPENDING: {other:?}"))),
        }
    }
    Ok(left)
}

/// A running journal.
pub(crate) struct Journal {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    shutdown: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    pub(crate) fn start(config: Config) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::new(Arc::clone(&metrics)));
        let (shutdown, receiver) = watch::channel(false);
        let thread = journal::spawn(config, Arc::clone(&metrics), Arc::clone(&health), receiver)?;
        Ok(Self { metrics, health, shutdown, thread: Some(thread) })
    }

    /// Shuts down as the server does, and waits for the end.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.shutdown.send(true)?;
        let thread = self.thread.take().ok_or_else(|| Failure::new("stopped before"))?;
        thread.join().map_err(|_| Failure::new("the journal panicked"))
    }

    /// Waits until `/metrics` has the line.
    pub(crate) async fn wait_for_metric(&self, line: &str) -> Result<()> {
        let waited = wait::until_async(line, WITHIN, || async {
            Ok(self.metrics.encode().lines().any(|found| found == line).then_some(()))
        });
        waited.await.map_err(|failure| failure.while_doing(self.metrics.encode()))
    }

    pub(crate) async fn wait_for_postgres(&self, up: bool) -> Result<()> {
        wait::until_async("the state of Postgres", WITHIN, || async {
            Ok((self.health.states().postgres.up == up).then_some(()))
        })
        .await
    }
}

/// An admitted charge; `number` makes its ids.
pub(crate) fn event(number: u64) -> EventContext {
    EventContext {
        event_id: Uuid::from_u128(u128::from(number)).into_bytes().to_vec(),
        at_ms: AT_MS,
        action: "consume".to_owned(),
        merchant: "m-1".to_owned(),
        currency: "USD".to_owned(),
        amount_minor: 50,
        order_no: format!("order-{number}"),
        attempt: vec![9; 16],
        actor: "proxy".to_owned(),
        policy_version: "v1".to_owned(),
        mode: "enforce".to_owned(),
        ..EventContext::default()
    }
}

/// A charge that only Postgres knows to be bad: the order number is too long for an index entry, and random enough not
/// to be compressed.
pub(crate) fn oversized(number: u64) -> EventContext {
    let order_no = (0..2000_u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    EventContext { order_no, ..event(number) }
}

/// An event as it is read from shard 0's stream.
pub(crate) fn entry(context: EventContext, seq: u64) -> Entry {
    let fields = vec![b"c".to_vec(), context.encode_to_vec(), b"d".to_vec(), admitted(context.amount_minor)];
    Entry { shard: 0, id: format!("0-{seq}"), fields: Some(fields) }
}

/// The decision record of the first charge in its windows.
pub(crate) fn admitted(amount: u64) -> Vec<u8> {
    pack(&first_charge(amount))
}

/// What [`admitted`] packs.
pub(crate) fn first_charge(amount: u64) -> Record {
    let window = |id| WindowFigures { id, amount_after: amount, count_after: 1, ..WindowFigures::default() };
    Record {
        day: window(20_261_120),
        month: window(202_611),
        year: window(2026),
        amount,
        order: OrderFigures { state: OrderState::Charged, amount, ..OrderFigures::default() },
        version: 1,
        ..Record::bare(Code::Admitted)
    }
}

/// A record as the script packs it; the head of `decide.lua` has the layout.
pub(crate) fn pack(record: &Record) -> Vec<u8> {
    let mut bytes = vec![2, record.code.number(), u8::from(record.replay), record.order.state.number()];
    let windows = Period::ALL.map(|period| record.of(period));
    windows.iter().for_each(|window| bytes.extend_from_slice(&window.id.to_le_bytes()));
    windows.iter().for_each(|window| bytes.push(window.epoch));
    bytes.push(0);
    bytes.extend_from_slice(&record.order.hold_until_secs.to_le_bytes());
    let mut figures = Vec::new();
    for window in windows {
        figures.extend([window.amount_before, window.amount_after, window.count_before, window.count_after]);
        figures.extend([window.refunded_before, window.refunded_after]);
    }
    figures.extend([record.pending_before, record.pending_after, record.amount, record.wait_ms]);
    figures.extend([record.order.amount, record.order.settled, record.order.refunded]);
    figures.extend([record.suspended_at_ms, record.version]);
    figures.iter().for_each(|figure| bytes.extend_from_slice(&(*figure as f64).to_le_bytes()));
    bytes
}

/// The script's `XADD`.
pub(crate) fn add(pipeline: &mut redis::Pipeline, shard: u16, context: &[u8], record: &[u8]) {
    let command = pipeline.cmd("XADD").arg(keys::stream(shard)).arg("0-*");
    command.arg("c").arg(context).arg("d").arg(record).ignore();
}
