//! The loop that moves events: read, store, remove. Between batches it reports and checks.
//!
//! One server's journal reads at a time, the one with the lease; the others wait for it. Where it cannot use Postgres it
//! releases the lease, so that another may try. Batches grow with the rate of events, because a transaction of many rows costs
//! both servers less for each; and accounts, which most events change again and again, are stored once a second.
//!
//! Memory is bounded: the entries of one read, and the accounts of the events that are stored and not removed.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use sluice_kit::shutdown::Shutdown;
use tokio::time::Instant;

use super::Config;
use super::backlog::{Alarm, Backlog, Turn};
use super::event::Batch;
use super::metrics::JournalMetrics;
use super::postgres::{LostAccount, PostgresError, Stored, UsageLog};
use super::reply::Entry;
use super::stream::{self, EventStream, Lease, StreamError};
use sluice_kit::clock;
use sluice_kit::health::{Dependency, Health, warn_unless_away};
use sluice_kit::retry::Backoff;
use sluice_kit::telemetry::spans::JournalStore;
use sluice_settings::Live;

/// A read brings at most this many batches' entries, all shards together: what the journal holds in memory.
const BATCHES_PER_READ: usize = 4;
/// How long a read waits for events. It is also the longest that shutdown waits for a read.
const BLOCK: Duration = Duration::from_millis(500);
/// After a read that brought all there was, wait at least so long, and for each event that it brought so much longer: fewer,
/// larger transactions cost both servers less.
const LINGER_MIN: Duration = Duration::from_millis(20);
const LINGER_PER_EVENT: Duration = Duration::from_micros(200);
/// Longest such wait, which is most of the journal's delay under load.
const LINGER_MAX: Duration = Duration::from_millis(200);
/// Stored events wait in Redis for their accounts to be stored, at most so long and so many; fewer where that would take a
/// noticeable part of a shard's room.
const ACCOUNTS_INTERVAL: Duration = Duration::from_secs(1);
const ACCOUNTS_EVENTS_MAX: usize = 20_000;
const ACCOUNTS_EVENTS_PER_BACKLOG: u64 = 10;
/// How often a journal without the lease tries to take it, unless leases are very short.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);
/// The waits after failures.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How often Postgres is probed and the backlog is counted. While Postgres hangs, the backlog is counted between two tries
/// only.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the partitions of this month and the next are checked.
const PREPARE_INTERVAL: Duration = Duration::from_secs(3600);

/// Whether to continue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

/// The journal's state.
pub(super) struct Drain {
    config: Config,
    log: UsageLog,
    metrics: Arc<JournalMetrics>,
    health: Arc<Health>,
    shutdown: Shutdown,
    alarm: Alarm,
    count: Timer,
    probe: Timer,
    prepare: Timer,
    check: Timer,
    /// When the lease has to be renewed, where this journal has it.
    leads_until: Option<Instant>,
    /// When the first of the events that wait for their accounts was stored.
    gathers_since: Option<Instant>,
    /// Counts the backlog in place of a connection that failed while Postgres was away. It reads nothing: the pending entries
    /// were read on the other one.
    spare: Option<EventStream>,
}

impl Drain {
    pub(super) fn new(
        config: Config,
        log: UsageLog,
        metrics: Arc<JournalMetrics>,
        health: Arc<Health>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            alarm: Alarm::new(config.backlog_events_max),
            count: Timer::new(PROBE_INTERVAL),
            probe: Timer::new(PROBE_INTERVAL),
            prepare: Timer::new(PREPARE_INTERVAL),
            check: Timer::new(config.check_interval),
            leads_until: None,
            gathers_since: None,
            spare: None,
            config,
            log,
            metrics,
            health,
            shutdown,
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self) {
        tracing::info!(reader = self.config.reader, shards = self.config.shards, "journal started");
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        while !self.shutdown.is_requested() {
            if let Err(error) = self.session(&mut backoff).await {
                self.metrics.retry(Dependency::Redis);
                warn_unless_away!(error, "journal cannot read the event streams, trying again");
                self.shutdown.pause(backoff.next_wait()).await;
            }
            self.probe_postgres().await;
        }
        tracing::info!("journal stopped");
    }

    /// Works on one connection to Redis until shutdown or until it fails.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<(), StreamError> {
        let mut stream = self.connect().await?;
        // What an earlier connection stored and could not remove is read again, if Redis still has it.
        self.forget_stored(&mut stream);
        self.leads_until = None;
        self.spare = None;
        while !self.shutdown.is_requested() {
            self.step(&mut stream).await?;
            backoff.reset();
        }
        self.finish(&mut stream).await?;
        stream.resign().await
    }

    async fn connect(&self) -> Result<EventStream, StreamError> {
        let Config { redis_url, shards, reader, .. } = &self.config;
        EventStream::connect(redis_url, *shards, reader).await
    }

    /// Applies changed settings: between two steps, and each second while Postgres is away, when operators may raise the bound.
    fn take_changes(&mut self) {
        let Some(live) = self.config.live.as_ref().map(Live::current) else { return };
        self.config.take(&live);
        self.alarm.set_events_max(self.config.backlog_events_max);
    }

    /// One read and the storing of its events; where another journal reads, only a check.
    async fn step(&mut self, stream: &mut EventStream) -> Result<(), StreamError> {
        if !self.leads(stream).await? {
            self.forget_stored(stream);
            // The reading journal reports how old events are.
            self.metrics.set_lag(Duration::ZERO);
            self.report(stream).await?;
            self.shutdown.pause(STANDBY_INTERVAL.min(stream::renewal(self.config.lease))).await;
            return Ok(());
        }
        // Events that wait for their accounts wait no longer than for the next ones.
        let wait = if stream.stored() > 0 { LINGER_MIN } else { BLOCK.min(stream::renewal(self.config.lease)) };
        let entries = stream.read(self.config.batch_rows_max.saturating_mul(BATCHES_PER_READ), wait).await?;
        let events = entries.len();
        if self.store_all(stream, entries).await? == Next::Stop {
            return Ok(());
        }
        if events == 0 {
            self.finish(stream).await?;
        }
        self.report(stream).await?;
        if events > 0 && events < self.config.batch_rows_max {
            self.shutdown.pause(linger(events)).await;
        }
        Ok(())
    }

    /// Whether this journal is the one that reads.
    async fn leads(&mut self, stream: &mut EventStream) -> Result<bool, StreamError> {
        let now = Instant::now();
        if self.leads_until.is_some_and(|until| now < until) {
            return Ok(true);
        }
        let lease = stream.lead(self.config.lease).await?;
        if lease == Lease::Taken && self.leads_until.is_none() {
            tracing::info!(reader = self.config.reader, "journal lease acquired, reading the event streams");
            self.metrics.taken_over.inc();
        }
        self.leads_until = (lease != Lease::Others).then(|| now + stream::renewal(self.config.lease));
        Ok(self.leads_until.is_some())
    }

    /// Stores entries, a batch at a time, and removes them when their accounts are stored. On shutdown the rest is left to the
    /// next reader. Where Redis fails, the rest is stored all the same: it may be the only copy.
    async fn store_all(&mut self, stream: &mut EventStream, entries: Vec<Entry>) -> Result<Next, StreamError> {
        let mut entries = entries.into_iter().peekable();
        let mut outcome = Ok(Next::Continue);
        while entries.peek().is_some() {
            let batch = Batch::read(entries.by_ref().take(self.config.batch_rows_max).collect());
            if self.store(stream, &batch).await == Next::Stop {
                return Ok(Next::Stop);
            }
            stream.note_stored(batch.entries());
            let since = *self.gathers_since.get_or_insert_with(Instant::now);
            let is_due = since.elapsed() >= ACCOUNTS_INTERVAL || stream.stored() >= self.gathered_events_max();
            if is_due && outcome.is_ok() {
                outcome = self.finish(stream).await;
            }
            if matches!(outcome, Ok(Next::Stop)) {
                break;
            }
        }
        outcome
    }

    fn gathered_events_max(&self) -> usize {
        let of_backlog = self.config.backlog_events_max / ACCOUNTS_EVENTS_PER_BACKLOG;
        usize::try_from(of_backlog).unwrap_or(usize::MAX).min(ACCOUNTS_EVENTS_MAX)
    }

    /// Stores the accounts of stored events, and removes these events from Redis. Where another journal has taken the lease
    /// meanwhile, it does both itself.
    async fn finish(&mut self, stream: &mut EventStream) -> Result<Next, StreamError> {
        self.gathers_since = None;
        if stream.stored() == 0 && !self.log.has_accounts() {
            return Ok(Next::Continue);
        }
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            if !self.leads(stream).await? {
                self.forget_stored(stream);
                return Ok(Next::Continue);
            }
            match self.store_accounts(stream).await {
                Ok(()) => break,
                Err(error) => self.postgres_failed(&error),
            }
            // At shutdown one try is enough: their events stay in Redis.
            if self.wait_for_postgres(stream, backoff.next_wait()).await == Next::Stop {
                return Ok(Next::Stop);
            }
        }
        for shard in stream.remove_stored().await? {
            tracing::warn!(
                shard,
                "stored events are not in their stream any more: another server removed them, or redis has lost writes"
            );
        }
        Ok(Next::Continue)
    }

    /// Stores one batch, however often it must be tried. Stops only at shutdown. The batch is not given up where Redis
    /// fails meanwhile: if Redis has lost its events, this is their only copy.
    async fn store(&mut self, stream: &mut EventStream, batch: &Batch) -> Next {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        self.log_trouble(batch);
        loop {
            self.report_lag(batch);
            let span = JournalStore::begin();
            let result = tokio::select! {
                result = self.log.store_events(batch) => result,
                never = stream.keep_leading(self.config.lease), if self.leads_until.is_some() => match never {},
            };
            let events = batch.events.iter().map(|event| (event.row.event_id, event.row.trace_id.as_deref()));
            span.end(events, result.as_ref().err().map(|error| error as &dyn std::fmt::Display));
            match result {
                Ok(stored) => {
                    self.stored(stored);
                    return Next::Continue;
                }
                Err(error) => self.postgres_failed(&error),
            }
            if self.wait_for_postgres(stream, backoff.next_wait()).await == Next::Stop {
                return Next::Stop;
            }
        }
    }

    async fn store_accounts(&mut self, stream: &mut EventStream) -> Result<(), PostgresError> {
        let rows_max = self.config.batch_rows_max;
        tokio::select! {
            result = self.log.store_accounts(rows_max) => result,
            never = stream.keep_leading(self.config.lease) => match never {},
        }
    }

    /// Leaves events that are stored and not removed to their next reader. An account that was gathered from them may be out of
    /// date by the time that this journal reads again.
    fn forget_stored(&mut self, stream: &mut EventStream) {
        self.gathers_since = None;
        stream.forget_stored();
        self.log.forget_accounts();
    }

    /// Waits for Postgres while events keep arriving: operators must see their number. Another server may be able to reach
    /// Postgres, so the lease is released.
    async fn wait_for_postgres(&mut self, stream: &mut EventStream, duration: Duration) -> Next {
        if self.leads_until.take().is_some() && stream.resign().await.is_err() {
            tracing::debug!("journal lease cannot be released, it expires by itself");
        }
        let end = Instant::now() + duration;
        while !self.shutdown.is_requested() {
            if let Err(error) = self.count_backlog(stream).await {
                self.metrics.retry(Dependency::Redis);
                warn_unless_away!(error, "journal cannot count the backlog, trying again");
                match self.connect().await {
                    Ok(spare) => self.spare = Some(spare),
                    Err(error) => tracing::debug!(%error, "no new connection to redis yet"),
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.shutdown.pause(left.min(PROBE_INTERVAL)).await;
        }
        if self.shutdown.is_requested() { Next::Stop } else { Next::Continue }
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
                    self.metrics.set_anomalies(&anomalies);
                    for (shard, kind, first_seq, last_seq) in anomalies.found {
                        tracing::error!(shard, kind, first_seq, last_seq, "journal sequence is broken");
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
        let backlog = Backlog::of(&self.spare.as_mut().unwrap_or(stream).backlog().await?);
        self.metrics.set_backlog(&backlog, self.config.backlog_events_max);
        if backlog.events == 0 {
            self.metrics.set_lag(Duration::ZERO);
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
                tracing::info!(shard, backlog_events, backlog_events_max, "journal backlog is below its warning level");
            }
            None => {}
        }
        let near_bound = || format!("{backlog_events} events of shard {shard} wait, of {backlog_events_max} at most");
        self.health.backlog_counted(self.alarm.is_high().then(near_bound));
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

    /// A failure can wait for the next time: an event without a partition makes one.
    async fn prepare_partitions(&mut self) {
        let Some(now) = DateTime::from_timestamp_millis(clock::now_ms()) else {
            return;
        };
        if let Err(error) = self.log.prepare(now.date_naive()).await {
            self.metrics.retry(Dependency::Postgres);
            warn_unless_away!(error, "journal cannot make partitions ahead, trying again later");
        }
    }

    fn stored(&mut self, stored: Stored) {
        self.health.postgres_up();
        for lost in self.log.take_lost() {
            let LostAccount { merchant_id, currency, shard, seq, expected_version, found_version } = lost;
            self.metrics.accounts_lost.inc();
            tracing::error!(
                merchant_id,
                currency,
                shard,
                seq,
                expected_version,
                found_version,
                "redis has lost an account, its counters and limits began anew"
            );
        }
        self.metrics.stored(stored);
        let Stored { rows, duplicates, rejected } = stored;
        tracing::debug!(rows, duplicates, rejected, "journal batch stored");
    }

    fn postgres_failed(&self, error: &PostgresError) {
        self.metrics.retry(Dependency::Postgres);
        self.health.postgres_down(error.to_string());
        // Health has logged it, with the reason.
        tracing::debug!(%error, "journal cannot use postgres, trying again");
    }

    fn log_trouble(&self, batch: &Batch) {
        for rejected in &batch.rejected {
            tracing::error!(
                shard = rejected.entry.shard,
                id = %rejected.entry.id,
                reason = rejected.reason,
                "event cannot be read, keeping it in journal_rejected"
            );
        }
    }

    fn report_lag(&self, batch: &Batch) {
        if let Some(oldest) = batch.oldest() {
            let lag_ms = u64::try_from(clock::now_ms() - oldest.timestamp_millis()).unwrap_or_default();
            self.metrics.set_lag(Duration::from_millis(lag_ms));
        }
    }
}

/// How long to wait after a read of so many events that brought all there were.
fn linger(events: usize) -> Duration {
    let more = LINGER_PER_EVENT.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX));
    LINGER_MIN.saturating_add(more).min(LINGER_MAX)
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
