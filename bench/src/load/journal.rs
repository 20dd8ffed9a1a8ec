//! What the journal costs, apart from payments: how fast it drains events that wait, and what each costs its thread, Redis
//! and Postgres, then and at steady rates. The events are real: the store's own script decides and writes them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quota::{Action, AmountMinor, AttemptId, Calendar, Charge, Command, Currency, Effect, Limits, MerchantId, OrderNo};
use redis::aio::MultiplexedConnection;
use rustix::process::Pid;
use serde::Serialize;
use sluice_kit::clock;
use sluice_kit::secret::Secret;
use sluice_store::{AuditContext, Call, RedisStore, RedisStoreConfig, Store, keys};

use testkit::build;
use testkit::dirs::RunDir;
use testkit::postgres::Postgres;
use testkit::process::Service;
use testkit::procfs;
use testkit::redis::Redis;
use testkit::server::{Server, ServerOptions};
use testkit::wait;
use testkit::{Failure, Result};

/// The number of shards that the server is started with.
const SHARDS: u16 = 64;
/// Commands in one call of the store.
const COMMANDS_PER_CALL: usize = 32;
/// Calls under way at once while events are made ahead.
const CALLS_AT_ONCE: usize = 4;
/// One call of the store may take this long.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// The journal may take this long.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);
/// How often the feeder of a steady rate looks at the clock.
const FEEDING_INTERVAL: Duration = Duration::from_millis(5);
/// The journal's thread, as the server names it.
const THREAD: &str = "journal";

/// What to measure.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Events that wait when the journal starts.
    pub events: u64,
    /// Merchants that they are spread over; each has one account.
    pub merchants: u32,
    /// Steady rates, in events a second.
    pub rates: Vec<u32>,
    /// Length of each steady rate.
    pub duration: Duration,
    /// The optimised server, as in every figure worth reading.
    pub release: bool,
}

/// Processor time of one event, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct JournalCpu {
    /// The journal's thread in the server.
    pub journal: f64,
    /// The rest of the server, which does nothing else here.
    pub server: f64,
    /// All of Redis: at a steady rate the deciding of the events, too.
    pub redis: f64,
    pub postgres: f64,
}

/// The draining of events that waited.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Drained {
    pub events: u64,
    pub events_per_second: f64,
    pub cpu_us: JournalCpu,
    /// What Postgres wrote ahead, in bytes for each event.
    pub wal_bytes: f64,
    /// The server's largest resident size.
    pub server_rss_bytes_max: u64,
}

/// Draining while events come.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Steady {
    /// Events a second, as asked for and as they came.
    pub rate: u32,
    pub events_per_second: f64,
    pub cpu_us: JournalCpu,
    /// Redis at the same rate without a journal: the difference is what the journal costs it.
    pub redis_alone_us: f64,
    /// From the decision to the row's transaction, median and longest.
    pub lag_ms_p50: f64,
    pub lag_ms_max: f64,
    /// Mean number of rows of a transaction.
    pub rows_per_transaction: f64,
    pub server_rss_bytes_max: u64,
}

/// What the journal costs.
#[derive(Clone, Debug, Serialize)]
pub struct JournalReport {
    pub merchants: u32,
    pub drained: Drained,
    pub steady: Vec<Steady>,
    /// Events that Postgres lacks or has twice, over all measurements.
    pub wrong: u64,
}

impl fmt::Display for JournalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drained { events, events_per_second, cpu_us, wal_bytes, server_rss_bytes_max } = self.drained;
        writeln!(f, "journal, {} merchants; CPU us per event: thread / Redis / Postgres", self.merchants)?;
        writeln!(
            f,
            "  {events} waiting events at {events_per_second:.0} events/s  {:.1} / {:.1} / {:.1}, {wal_bytes:.0} bytes of WAL each, server {} MB at most",
            cpu_us.journal,
            cpu_us.redis,
            cpu_us.postgres,
            server_rss_bytes_max / 1_000_000
        )?;
        for steady in &self.steady {
            writeln!(
                f,
                "  at {:.0} events/s  {:.1} / {:.1} (alone {:.1}) / {:.1}, lag {:.0} ms (longest {:.0}), {:.0} rows a transaction",
                steady.events_per_second,
                steady.cpu_us.journal,
                steady.cpu_us.redis,
                steady.redis_alone_us,
                steady.cpu_us.postgres,
                steady.lag_ms_p50,
                steady.lag_ms_max,
                steady.rows_per_transaction
            )?;
        }
        writeln!(f, "  events missing or stored twice: {}", self.wrong)
    }
}

/// Measures with a Redis, a Postgres that flushes every commit, and a server of its own.
///
/// # Errors
/// When a part does not start, or the journal does not get through.
pub fn measure_journal(options: &JournalOptions) -> Result<JournalReport> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut bench = Bench::start(options).await?;
        bench.feed_ahead(options.events).await?;
        let drained = bench.drain(options.events).await?;
        let mut steady = Vec::new();
        for rate in &options.rates {
            steady.push(bench.steady(*rate, options.duration).await?);
        }
        Ok(JournalReport { merchants: options.merchants, drained, steady, wrong: bench.wrong().await? })
    })
}

/// The servers and what was charged so far.
struct Bench {
    redis: Redis,
    postgres: Postgres,
    server: Server,
    feeder: Feeder,
    connection: MultiplexedConnection,
    pool: sqlx::PgPool,
}

/// A moment's processor times.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    journal: Duration,
    server: Duration,
    redis: Duration,
    postgres: Duration,
}

impl Bench {
    /// The server has made its tables, and is stopped.
    async fn start(options: &JournalOptions) -> Result<Self> {
        let dir = RunDir::new("journal")?;
        let redis = Redis::start_in(Arc::clone(&dir))?;
        let postgres = Postgres::start_in(Arc::clone(&dir), true)?;
        let policies = dir.join("policies.yaml");
        std::fs::write(&policies, "version: load\ndefault: {daily_amount: 9000000000000000}\n")?;
        let env = [
            ("REDIS_URL", redis.url()),
            ("DATABASE_URL", postgres.url()),
            ("SLUICE_POLICY_FILE", policies.display().to_string()),
            ("SLUICE_SHARDS", SHARDS.to_string()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let program = build::server_bin(options.release)?;
        let mut server = Server::start_in(dir, ServerOptions { program, env, ..ServerOptions::default() })?;
        server.stop()?;
        let config = RedisStoreConfig { url: Secret::new(redis.url()), shards: SHARDS, timeout: STORE_TIMEOUT };
        Ok(Self {
            feeder: Feeder::new(RedisStore::open(&config)?, options.merchants)?,
            connection: redis.connection().await?,
            pool: postgres.pool().await?,
            redis,
            postgres,
            server,
        })
    }

    async fn feed_ahead(&mut self, events: u64) -> Result<()> {
        let end = self.feeder.made + events;
        while self.feeder.made < end {
            let calls = (0..CALLS_AT_ONCE).map(|_| self.feeder.next_call(end)).collect::<Result<Vec<_>>>()?;
            self.feeder.call(&calls).await?;
        }
        Ok(())
    }

    /// Starts the server and measures from the first removed event to the last.
    async fn drain(&mut self, events: u64) -> Result<Drained> {
        self.server.restart()?;
        let left = self.wait_for_waiting(|waiting| waiting < events).await?;
        let (from, wal_from) = (self.moment()?, self.wal_bytes().await?);
        self.wait_for_waiting(|waiting| waiting == 0).await?;
        let (to, wal_to) = (self.moment()?, self.wal_bytes().await?);
        let drained = left.max(1) as f64;
        Ok(Drained {
            events,
            events_per_second: drained / to.at.duration_since(from.at).as_secs_f64(),
            cpu_us: cpu(from, to, drained),
            wal_bytes: (wal_to - wal_from) / drained,
            server_rss_bytes_max: self.rss_max()?,
        })
    }

    /// Feeds at a rate with the server and without it; afterwards nothing waits.
    async fn steady(&mut self, rate: u32, duration: Duration) -> Result<Steady> {
        let first = self.feeder.made;
        let batches = self.server.metric("sluice_journal_batches_total", &[])?;
        let from = self.moment()?;
        self.feeder.feed(rate, duration).await?;
        self.wait_for_waiting(|waiting| waiting == 0).await?;
        let to = self.moment()?;
        let events = (self.feeder.made - first).max(1) as f64;
        let batches = self.server.metric("sluice_journal_batches_total", &[])? - batches;
        let server_rss_bytes_max = self.rss_max()?;
        let (lag_ms_p50, lag_ms_max) = self.lag_ms(events as i64).await?;
        Ok(Steady {
            rate,
            events_per_second: events / to.at.duration_since(from.at).as_secs_f64(),
            cpu_us: cpu(from, to, events),
            redis_alone_us: self.redis_alone(rate, duration).await?,
            lag_ms_p50,
            lag_ms_max,
            rows_per_transaction: events / batches.max(1.0),
            server_rss_bytes_max,
        })
    }

    /// What an event costs Redis while no server reads it.
    async fn redis_alone(&mut self, rate: u32, duration: Duration) -> Result<f64> {
        self.server.stop()?;
        let (first, from) = (self.feeder.made, self.redis.cpu_time()?);
        self.feeder.feed(rate, duration).await?;
        let (made, to) = (self.feeder.made - first, self.redis.cpu_time()?);
        self.server.restart()?;
        self.wait_for_waiting(|waiting| waiting == 0).await?;
        Ok(micros(from, to, made.max(1) as f64))
    }

    async fn wait_for_waiting(&self, is_reached: impl Fn(u64) -> bool) -> Result<u64> {
        wait::until_async("the journal", DRAINED_WITHIN, || async {
            let waiting: Vec<u64> = streams().query_async(&mut self.connection.clone()).await?;
            let waiting = waiting.iter().sum();
            Ok(Some(waiting).filter(|waiting| is_reached(*waiting)))
        })
        .await
    }

    fn moment(&mut self) -> Result<Moment> {
        let threads = procfs::thread_times(self.server_pid()?);
        let journal = threads.get(THREAD).copied().unwrap_or_default();
        Ok(Moment {
            at: Instant::now(),
            journal,
            server: self.server.cpu_time()?.saturating_sub(journal),
            redis: self.redis.cpu_time()?,
            postgres: self.postgres.cpu_time()?,
        })
    }

    fn server_pid(&mut self) -> Result<Pid> {
        let pid = i32::try_from(self.server.pid()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| Failure::new("the server has no process id"))
    }

    /// The largest size that the server's memory had, by the kernel's account.
    fn rss_max(&mut self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| Failure::new("the server's memory is not reported"))
    }

    async fn wal_bytes(&self) -> Result<f64> {
        let bytes = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";
        Ok(sqlx::query_scalar(bytes).fetch_one(&self.pool).await?)
    }

    /// Of the last so many rows.
    async fn lag_ms(&self, rows: i64) -> Result<(f64, f64)> {
        let lag = "SELECT (percentile_cont(0.5) WITHIN GROUP (ORDER BY ms))::float8, max(ms)::float8 FROM \
            (SELECT extract(epoch FROM stored_at - at) * 1000 AS ms FROM usage_log ORDER BY at DESC LIMIT $1) AS lags";
        Ok(sqlx::query_as(lag).bind(rows).fetch_one(&self.pool).await?)
    }

    /// Events that Postgres lacks or has twice, and accounts whose last state it does not have.
    async fn wrong(&self) -> Result<u64> {
        let stored = "SELECT count(*), count(DISTINCT order_no), \
            (SELECT coalesce(sum(yearly_count), 0)::bigint FROM quota_account) FROM usage_log";
        let stored: (i64, i64, i64) = sqlx::query_as(stored).fetch_one(&self.pool).await?;
        let made = self.feeder.made;
        Ok([stored.0, stored.1, stored.2].iter().map(|count| count.unsigned_abs().abs_diff(made)).sum())
    }
}

fn cpu(from: Moment, to: Moment, events: f64) -> JournalCpu {
    JournalCpu {
        journal: micros(from.journal, to.journal, events),
        server: micros(from.server, to.server, events),
        redis: micros(from.redis, to.redis, events),
        postgres: micros(from.postgres, to.postgres, events),
    }
}

fn micros(from: Duration, to: Duration, events: f64) -> f64 {
    to.saturating_sub(from).as_secs_f64() * 1e6 / events
}

fn streams() -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for shard in 0..SHARDS {
        pipeline.cmd("XLEN").arg(keys::stream(shard));
    }
    pipeline
}

/// Makes charges, each of an order of its own.
struct Feeder {
    store: RedisStore,
    merchants: u32,
    currency: Currency,
    audit: AuditContext,
    /// Charges made so far.
    made: u64,
}

impl Feeder {
    fn new(store: RedisStore, merchants: u32) -> Result<Self> {
        let audit = AuditContext {
            actor: "proxy".into(),
            mode: "enforce",
            policy_version: "load".into(),
            ..AuditContext::default()
        };
        Ok(Self { store, merchants: merchants.max(1), currency: Currency::parse("USD")?, audit, made: 0 })
    }

    /// The next charges, up to the number `end`.
    fn next_call(&mut self, end: u64) -> Result<Vec<Call>> {
        let first = self.made;
        let last = end.min(first + COMMANDS_PER_CALL as u64);
        self.made = last;
        (first..last).map(|number| Ok(Arc::new((self.command(number)?, self.audit.clone())))).collect()
    }

    fn command(&self, number: u64) -> Result<Command> {
        let now_ms = clock::now_ms();
        let amount = AmountMinor::new(1_050).ok_or_else(|| Failure::new("no amount"))?;
        // A step that shares no factor with most numbers of merchants: neighbours are of different shards.
        let merchant = number.wrapping_mul(7_919) % u64::from(self.merchants);
        Ok(Command {
            merchant: MerchantId::parse(&format!("load-{merchant:06}"))?,
            currency: self.currency,
            order_no: Some(OrderNo::parse(&format!("{:x}-{number:x}", number % 32))?),
            attempt: AttemptId(clock::decision_id()),
            action: Action::Consume(Charge {
                amount,
                weight: quota::Weight::AMOUNT,
                limits: Limits::UNLIMITED,
                refusal: None,
                pace: None,
                replays_max: None,
                refuse_unknown_credit: false,
            }),
            effect: Effect::Commit,
            decision_id: clock::decision_id(),
            now_ms,
            windows: Calendar::UTC.windows_at(now_ms),
            order_ttl_secs: 604_800,
            backlog_max: u32::MAX,
            credit: None,
            threshold_policy: None,
            history: None,
            payment_no: None,
            operation_no: None,
            channel: None,
        })
    }

    async fn call(&self, calls: &[Vec<Call>]) -> Result<()> {
        let mut results = Vec::new();
        match calls {
            [a, b, c, d] => {
                let (a, b, c, d) = tokio::join!(
                    self.store.apply_each(a),
                    self.store.apply_each(b),
                    self.store.apply_each(c),
                    self.store.apply_each(d)
                );
                results.extend([a, b, c, d].into_iter().flatten());
            }
            calls => {
                for call in calls {
                    results.extend(self.store.apply_each(call).await);
                }
            }
        }
        for result in results {
            if result?.event_seq.is_none() {
                return Err(Failure::new("a charge made no event"));
            }
        }
        Ok(())
    }

    /// Charges at a rate, in step with the clock.
    async fn feed(&mut self, rate: u32, duration: Duration) -> Result<()> {
        let (started, first) = (Instant::now(), self.made);
        let mut ticks = tokio::time::interval(FEEDING_INTERVAL);
        loop {
            ticks.tick().await;
            let elapsed = started.elapsed().min(duration);
            let due = first + (elapsed.as_secs_f64() * f64::from(rate)) as u64;
            while self.made < due {
                let call = self.next_call(due)?;
                self.call(&[call]).await?;
            }
            if elapsed == duration {
                return Ok(());
            }
        }
    }
}
