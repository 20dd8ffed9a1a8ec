//! What every journal test stands on: a private Redis and Postgres, a hand to write events as the server's script does,
//! and journals that can be started and stopped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message;
use proto::journal::EventContext;
use quota::{Code, OrderState, OrderSummary, PerPeriod, Period, Record, Weighed, WindowUsage};
use redis::aio::MultiplexedConnection;
use sluice_alerts::{AlertProjection, LimitsInForce};
use sluice_journal::Config;
use sluice_journal::reply::{Entry, StreamId};
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_kit::shutdown::{self, Stop};
use sluice_settings::Secret;
use sluice_store::keys;
use sqlx::types::Uuid;
use testkit::postgres::Postgres;
use testkit::redis::Redis;
use testkit::{Failure, Result, wait};

/// How long anything may take to come true.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// How long a read waits that is to find what is there.
pub(crate) const SOON: Duration = Duration::from_millis(1);
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
    pub(crate) fn config(&self, reader: &str) -> Config {
        Config {
            redis_url: Secret::new(self.redis.url()),
            postgres_url: Secret::new(self.postgres.url()),
            shards: SHARDS,
            batch_rows_max: 500,
            backlog_events_max: 100_000,
            lease: Duration::from_millis(200),
            check_interval: Duration::from_millis(100),
            reader: reader.to_owned(),
            live: None,
            projections: Vec::new(),
        }
    }

    pub(crate) fn journal(&self, reader: &str) -> Result<Journal> {
        Journal::start(self.config(reader))
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
            add(&mut pipeline, shard, &event.encode_to_vec(), &versioned(&event));
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

    /// Waits until no event is in any stream: all are in Postgres, and their accounts with them.
    pub(crate) async fn wait_until_drained(&self, shards: u16) -> Result<()> {
        let connection = self.connection().await?;
        wait::until_async("events left in the streams", WITHIN, || {
            let mut connection = connection.clone();
            async move { Ok((waiting(&mut connection, shards).await? == 0).then_some(())) }
        })
        .await
    }
}

/// Events in the streams.
pub(crate) async fn waiting(connection: &mut MultiplexedConnection, shards: u16) -> Result<u64> {
    let mut pipeline = redis::Pipeline::new();
    for shard in 0..shards {
        pipeline.cmd("XLEN").arg(keys::stream(shard));
    }
    Ok(pipeline.query_async::<Vec<u64>>(connection).await?.into_iter().sum())
}

/// A running journal.
pub(crate) struct Journal {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    shutdown: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    pub(crate) fn start(config: Config) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::new(Arc::clone(&metrics)));
        let (shutdown, receiver) = shutdown::channel();
        let config = Config {
            projections: vec![Arc::new(AlertProjection::new(metrics.part(), LimitsInForce::new(|_, _, _| None)))],
            ..config
        };
        let thread = sluice_journal::spawn(config, &metrics, Arc::clone(&health), receiver)?;
        Ok(Self { metrics, health, shutdown, thread: Some(thread) })
    }

    /// Shuts down as the server does, and waits for the end.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.shutdown.request();
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

    /// Waits until the journal has read events, which it cannot store while Postgres is away.
    pub(crate) async fn wait_until_in_hand(&self) -> Result<()> {
        wait::until_async("events in hand", WITHIN, || async {
            let metrics = self.metrics.encode();
            let lag = metrics.lines().find_map(|line| line.strip_prefix("sluice_journal_lag_seconds "));
            Ok(lag.and_then(|lag| lag.parse::<f64>().ok()).filter(|lag| *lag > 0.0).map(drop))
        })
        .await
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

/// An admitted charge's record, whose account has the event's number for its version: each event is a change.
fn versioned(event: &EventContext) -> Vec<u8> {
    let version = event.event_id.last_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes));
    pack(&Record { version, ..first_charge(event.amount_minor) })
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
    Entry { shard: 0, id: StreamId::of(seq), fields }
}

/// The decision record of the first charge in its windows.
pub(crate) fn admitted(amount: u64) -> Vec<u8> {
    pack(&first_charge(amount))
}

/// What [`admitted`] packs.
pub(crate) fn first_charge(amount: u64) -> Record {
    let window = |id| WindowUsage { id, amount_after: amount, count_after: 1, ..WindowUsage::default() };
    Record {
        windows: PerPeriod {
            day: window(20_261_120),
            week: window(20_261_116),
            month: window(202_611),
            year: window(2026),
        },
        amount,
        order: OrderSummary { state: OrderState::Charged, amount, ..OrderSummary::default() },
        version: 1,
        ..Record::bare(Code::Admitted)
    }
}

/// A record in full, as the script packs it; the head of `lua/call.lua` has the layout.
pub(crate) fn pack(record: &Record) -> Vec<u8> {
    let windows = Period::ALL.map(|period| record.of(period));
    // The figures of before stand there.
    let flags = u8::from(record.replay) + 2 + 64 * u8::from(record.weighed.is_some());
    let mut bytes = vec![12, record.code.number(), flags, record.order.state.number()];
    bytes.extend_from_slice(&record.order.hold_until_secs.to_le_bytes());
    let order = [record.order.amount, record.order.settled, record.order.refunded];
    figures(&mut bytes, &[record.amount, record.wait_ms]);
    figures(&mut bytes, &order);
    bytes.push(if record.credit.is_some() { 13 } else { 9 });
    // Month and year are those of the day.
    bytes.extend_from_slice(&record.windows.day.id.to_le_bytes());
    bytes.extend_from_slice(&record.windows.week.id.to_le_bytes());
    windows.iter().for_each(|window| bytes.push(window.epoch));
    bytes.push(u8::from(record.suspended_at_ms > 0) + 2 * u8::from(record.pending_after > 0));
    figures(&mut bytes, &[record.levels.packed()]);
    bytes.extend_from_slice(&record.levels.list.to_le_bytes());
    windows.iter().for_each(|window| figures(&mut bytes, &[window.amount_after, window.count_after]));
    figures(&mut bytes, &[record.version]);
    if let Some(credit) = &record.credit {
        bytes.extend_from_slice(&credit.cycle.to_le_bytes());
        bytes.extend_from_slice(&(credit.exposure_after as f64).to_le_bytes());
        figures(&mut bytes, &[credit.unbilled_after]);
    }
    windows.iter().for_each(|window| figures(&mut bytes, &[window.refunded_after]));
    figures(&mut bytes, &[record.pending_after, 0, record.suspended_at_ms]);
    for window in windows {
        figures(&mut bytes, &[window.amount_before, window.count_before, window.refunded_before]);
    }
    figures(&mut bytes, &[record.pending_before]);
    if let Some(credit) = &record.credit {
        bytes.extend_from_slice(&(credit.exposure_before as f64).to_le_bytes());
        figures(&mut bytes, &[credit.unbilled_before]);
    }
    if let Some(Weighed { weight, counted }) = &record.weighed {
        bytes.extend_from_slice(&weight.bp().to_le_bytes());
        figures(&mut bytes, &[weight.units_per_payment().get(), *counted]);
    }
    bytes
}

fn figures(bytes: &mut Vec<u8>, figures: &[u64]) {
    figures.iter().for_each(|figure| bytes.extend_from_slice(&(*figure as f64).to_le_bytes()));
}

/// The script's `XADD`.
pub(crate) fn add(pipeline: &mut redis::Pipeline, shard: u16, context: &[u8], record: &[u8]) {
    let command = pipeline.cmd("XADD").arg(keys::stream(shard)).arg("0-*");
    command.arg("c").arg(context).arg("d").arg(record).ignore();
}
