//! The loop that moves events: read, store, acknowledge; and between batches take over, check and report.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Config;
use super::backlog::{Alarm, Backlog, Turn};
use super::backoff::Backoff;
use super::event::Batch;
use super::postgres::{PostgresError, Stored, UsageLog};
use super::reply::Entry;
use super::stream::{EventStream, StreamError};
use crate::clock;
use crate::health::Health;
use crate::metrics::{Dependency, Metrics};
use crate::settings::Live;

/// A read brings at most this many batches' entries, all shards together: what the journal holds in memory.
const BATCHES_PER_READ: usize = 8;
/// After a read that brought all there was, wait this long: fewer, larger transactions cost both servers less.
const LINGER: Duration = Duration::from_millis(20);
/// How often Postgres is asked for a sign of life and the backlog is counted. While Postgres hangs, the backlog is counted
/// between two tries only.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the partitions of this month and the next are looked for.
const PREPARE_INTERVAL: Duration = Duration::from_secs(3600);
/// Entries to take over are looked for twice in the idle time, so that an abandoned one waits one and a half times that at
/// most.
const CLAIMS_PER_IDLE: u32 = 2;
/// How often consumers that are gone are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

/// The journal's state.
pub(super) struct Drain {
    config: Config,
    log: UsageLog,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: watch::Receiver<bool>,
    alarm: Alarm,
    count: Timer,
    probe: Timer,
    prepare: Timer,
    claim: Timer,
    check: Timer,
    sweep: Timer,
}

impl Drain {
    pub(super) fn new(
        config: Config,
        log: UsageLog,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            alarm: Alarm::new(config.backlog_events_max),
            count: Timer::new(PROBE_INTERVAL),
            probe: Timer::new(PROBE_INTERVAL),
            prepare: Timer::new(PREPARE_INTERVAL),
            claim: Timer::new(config.claim_idle / CLAIMS_PER_IDLE),
            check: Timer::new(config.check_interval),
            sweep: Timer::new(SWEEP_INTERVAL.min(config.consumer_idle)),
            config,
            log,
            metrics,
            health,
            shutdown,
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self) {
        tracing::info!(consumer = self.config.consumer, shards = self.config.shards, "journal started");
        let mut backoff = Backoff::new();
        while !self.stopping() {
            if let Err(error) = self.session(&mut backoff).await {
                self.metrics.journal_retry(Dependency::Redis);
                tracing::warn!(%error, "journal cannot read the event streams, trying again");
                self.pause(backoff.next()).await;
            }
            self.probe_postgres().await;
        }
        tracing::info!("journal stopped");
    }

    /// Works on one connection to Redis until shutdown or until it fails.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<(), StreamError> {
        let config = &self.config;
        let mut stream = EventStream::connect(&config.redis_url, config.shards, &config.consumer).await?;
        // What an earlier connection was given and could not acknowledge comes first.
        let mut own_pending = true;
        while !self.stopping() {
            match self.step(&mut stream, &mut own_pending).await {
                Ok(()) => backoff.reset(),
                Err(StreamError::NoGroup) => {
                    tracing::warn!("an event stream has no consumer group, as after Redis was emptied: creating it");
                    stream.create_groups().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes over what was changed since the last look: between two steps, and each second while Postgres is away, when a
    /// larger bound is what operators set.
    fn take_changes(&mut self) {
        let Some(live) = self.config.live.as_ref().map(Live::current) else { return };
        self.config.take(&live);
        self.alarm.set_events_max(self.config.backlog_events_max);
        self.claim.interval = self.config.claim_idle / CLAIMS_PER_IDLE;
    }

    /// One read and what follows from it.
    async fn step(&mut self, stream: &mut EventStream, own_pending: &mut bool) -> Result<(), StreamError> {
        let count = self.entries_per_shard();
        let entries = if *own_pending { stream.read_own_pending(count).await? } else { stream.read_new(count).await? };
        *own_pending = *own_pending && !entries.is_empty();
        let linger = !entries.is_empty() && entries.len() < self.config.batch_rows_max && !is_behind(&entries, count);
        if self.store_all(stream, entries).await? == Next::Stop {
            return Ok(());
        }
        self.take_over(stream, count).await?;
        self.report(stream).await?;
        if linger {
            self.pause(LINGER).await;
        }
        Ok(())
    }

    /// Stores and acknowledges entries, a batch at a time. On shutdown the rest is left to whoever comes next.
    async fn store_all(&mut self, stream: &mut EventStream, entries: Vec<Entry>) -> Result<Next, StreamError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let batch = Batch::read(entries.by_ref().take(self.config.batch_rows_max).collect());
            if self.store(stream, &batch).await == Next::Stop {
                return Ok(Next::Stop);
            }
            stream.acknowledge(batch.entries()).await?;
        }
        Ok(Next::Continue)
    }

    /// Stores one batch, however often it must be tried. Stops only at shutdown. The batch is not given up where Redis
    /// fails meanwhile: if Redis has lost its events, this is their only copy.
    async fn store(&mut self, stream: &mut EventStream, batch: &Batch) -> Next {
        let mut backoff = Backoff::new();
        let mut spare = None;
        self.log_trouble(batch);
        loop {
            self.report_lag(batch);
            match self.log.store(batch).await {
                Ok(stored) => {
                    self.stored(stored);
                    return Next::Continue;
                }
                Err(error) => self.postgres_failed(&error),
            }
            self.pause_counting(stream, &mut spare, backoff.next()).await;
            if self.stopping() {
                return Next::Stop;
            }
        }
    }

    /// Waits for Postgres while events go on coming: their number is what operators must see then.
    async fn pause_counting(&mut self, stream: &mut EventStream, spare: &mut Option<EventStream>, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.stopping() {
            if let Err(error) = self.count_backlog(spare.as_mut().unwrap_or(&mut *stream)).await {
                self.metrics.journal_retry(Dependency::Redis);
                tracing::warn!(%error, "journal cannot count the backlog, trying again");
                // The batch's own connection is left broken: on a Redis that was emptied meanwhile, acknowledging would
                // remove other events that have the same numbers.
                let Config { redis_url, shards, consumer, .. } = &self.config;
                *spare = EventStream::connect(redis_url, *shards, consumer).await.ok();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.pause(left.min(PROBE_INTERVAL)).await;
        }
    }

    async fn take_over(&mut self, stream: &mut EventStream, count: usize) -> Result<(), StreamError> {
        if self.claim.is_due() {
            let entries = stream.claim(count, self.config.claim_idle).await?;
            if !entries.is_empty() {
                tracing::warn!(events = entries.len(), "journal takes over events that another consumer left");
                self.metrics.journal_taken_over(entries.len() as u64);
            }
            self.store_all(stream, entries).await?;
        }
        if self.sweep.is_due() {
            let removed = stream.sweep_consumers(self.config.consumer_idle).await?;
            tracing::debug!(removed, "consumers that are gone were removed");
        }
        Ok(())
    }

    /// Counts the backlog, probes Postgres, makes partitions ahead and checks the sequences, each when it is due.
    async fn report(&mut self, stream: &mut EventStream) -> Result<(), StreamError> {
        self.count_backlog(stream).await?;
        self.probe_postgres().await;
        if self.prepare.is_due() {
            self.prepare_partitions().await;
        }
        if self.check.is_due() {
            let positions = stream.positions().await?;
            match self.log.check_sequences(&positions).await {
                Ok(anomalies) => {
                    self.metrics.set_journal_anomalies(anomalies.missing_events, anomalies.rewound_ranges);
                    for (shard, kind, first_seq, last_seq) in anomalies.found {
                        tracing::error!(shard, kind, first_seq, last_seq, "the journal's sequence is broken");
                    }
                }
                Err(error) => self.postgres_failed(&error),
            }
        }
        Ok(())
    }

    /// Counts the waiting events when that is due.
    async fn count_backlog(&mut self, stream: &mut EventStream) -> Result<(), StreamError> {
        self.take_changes();
        if !self.count.is_due() {
            return Ok(());
        }
        let backlog = Backlog::of(&stream.backlog().await?);
        self.metrics.set_journal_backlog(backlog.events, backlog.fullest_events);
        if backlog.events == 0 {
            self.metrics.set_journal_lag(Duration::ZERO);
        }
        let Backlog { fullest_shard: shard, fullest_events: backlog_events, .. } = backlog;
        let backlog_events_max = self.config.backlog_events_max;
        match self.alarm.take(&backlog) {
            Some(Turn::High) => tracing::warn!(
                shard,
                backlog_events,
                backlog_events_max,
                "a shard's journal backlog is near its bound, where charges are refused"
            ),
            Some(Turn::Normal) => {
                tracing::info!(
                    shard,
                    backlog_events,
                    backlog_events_max,
                    "the journal backlog is below its warning mark"
                );
            }
            None => {}
        }
        Ok(())
    }

    async fn probe_postgres(&mut self) {
        if self.probe.is_due() {
            match self.log.probe().await {
                Ok(()) => self.health.postgres_up(),
                Err(error) => self.postgres_failed(&error),
            }
        }
    }

    /// A failure can wait for the next time: an event whose partition is missing makes it.
    async fn prepare_partitions(&mut self) {
        let Some(now) = DateTime::from_timestamp_millis(clock::now_ms()) else {
            return;
        };
        if let Err(error) = self.log.prepare(now.date_naive()).await {
            self.metrics.journal_retry(Dependency::Postgres);
            tracing::warn!(%error, "journal cannot make partitions ahead, trying again later");
        }
    }

    fn stored(&self, Stored { rows, duplicates, rejected }: Stored) {
        self.health.postgres_up();
        self.metrics.journal_stored(rows, duplicates, rejected);
        tracing::debug!(rows, duplicates, rejected, "journal batch stored");
    }

    fn postgres_failed(&self, error: &PostgresError) {
        self.metrics.journal_retry(Dependency::Postgres);
        self.health.postgres_down(error.to_string());
        tracing::warn!(%error, "journal cannot use postgres, trying again");
    }

    fn log_trouble(&self, batch: &Batch) {
        for rejected in &batch.rejected {
            let (shard, id) = (rejected.entry.shard, rejected.entry.id.as_str());
            tracing::error!(
                shard,
                id,
                reason = rejected.reason,
                "event cannot be read, keeping it in journal_rejected"
            );
        }
        for entry in &batch.deleted {
            tracing::error!(shard = entry.shard, id = entry.id, "event was deleted before the journal had stored it");
        }
    }

    fn report_lag(&self, batch: &Batch) {
        if let Some(oldest) = batch.oldest() {
            let lag_ms = u64::try_from(clock::now_ms() - oldest.timestamp_millis()).unwrap_or_default();
            self.metrics.set_journal_lag(Duration::from_millis(lag_ms));
        }
    }

    /// `COUNT` of a read is per stream.
    fn entries_per_shard(&self) -> usize {
        let all = self.config.batch_rows_max.saturating_mul(BATCHES_PER_READ);
        (all / usize::from(self.config.shards).max(1)).clamp(1, self.config.batch_rows_max.max(1))
    }

    fn stopping(&self) -> bool {
        *self.shutdown.borrow() || self.shutdown.has_changed().is_err()
    }

    /// Waits, but not through a shutdown.
    async fn pause(&mut self, duration: Duration) {
        if !self.stopping() {
            tokio::select! {
                () = sleep(duration) => {}
                _ = self.shutdown.changed() => {}
            }
        }
    }
}

/// Whether a shard has given all that it was asked for: it may well have more.
fn is_behind(entries: &[Entry], count: usize) -> bool {
    entries.chunk_by(|one, next| one.shard == next.shard).any(|of_shard| of_shard.len() >= count)
}

/// Something that is done once per interval.
struct Timer {
    interval: Duration,
    next: Option<Instant>,
}

impl Timer {
    const fn new(interval: Duration) -> Self {
        Self { interval, next: None }
    }

    /// Whether the time has come; if so, the next one is an interval away.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = Some(now + self.interval);
        true
    }
}
