//! Keeps the lines that a server knows, and the bands of grades, equal to Postgres: after each notification, and a line at the first
//! payment of its account.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use quota::{Currency, MerchantId};
use sluice_kit::clock;
use sluice_kit::database::{self, notifications::Notifications};
use sluice_kit::health::{Away as _, warn_unless_away};
use sluice_kit::metrics::Metrics;
use sluice_kit::secret::Secret;
use sluice_kit::shutdown::Shutdown;
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::{CreditLines, LineKey, Scorecards, metrics::LineMetrics, record};

/// The channel that the tables' triggers notify, with the account.
const CHANNEL: &str = "sluice_credit";
/// The notification of a scorecard.
const SCORECARD: &str = "scorecard";
/// Connections: one listens, one reads what changed, one what a first payment waits for.
const CONNECTIONS: u32 = 3;
/// How long the listener waits before it probes its session.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// How long after a failure Postgres is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a reading may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines that one query reads.
const LINES_PER_QUERY: usize = 200;

/// The accounts that ever had a line in force.
const KEYS: &str = "SELECT DISTINCT merchant_id, currency::text FROM credit_line WHERE activated_on IS NOT NULL";

/// Reads credit lines. It belongs to the runtime that it runs on.
#[derive(Debug)]
pub struct Follower {
    lines: Arc<CreditLines>,
    pool: PgPool,
    metrics: Arc<LineMetrics>,
    requests: mpsc::UnboundedReceiver<LineKey>,
    /// Held while lines are read and set, so that what was read earlier never replaces what was read later.
    reading: Arc<Mutex<()>>,
}

impl Follower {
    /// Lines that are not known yet, and what reads them. It connects when it first reads.
    ///
    /// # Errors
    /// [`sqlx::Error`] for a URL that cannot be read.
    pub fn open(url: &Secret, metrics: &Metrics) -> Result<(Arc<CreditLines>, Self), database::Error> {
        let pool = database::pool(url, CONNECTIONS)?;
        let (lines, requests) = CreditLines::new();
        let follower =
            Self { lines: Arc::clone(&lines), pool, metrics: metrics.part(), requests, reading: Arc::default() };
        Ok((lines, follower))
    }

    /// Reads which accounts have a line, and the bands of grades, but no longer than `at_most`: a server starts without Postgres.
    pub async fn first_reading(&self, at_most: Duration) {
        self.first_reading_of(&[], at_most).await;
    }

    /// The same, and the given lines: for a command that decides on no others.
    pub async fn first_reading_of(&self, keys: &[LineKey], at_most: Duration) {
        let reader = self.reader();
        let read = timeout(at_most, async {
            reader.read_keys().await?;
            reader.read_bands().await?;
            reader.read_lines(keys).await
        });
        reader.report(&read.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)));
    }

    /// Follows changes, and reads what first payments wait for, until the stop.
    pub async fn run(self, mut stopped: Shutdown) {
        let reader = self.reader();
        let Self { mut requests, .. } = self;
        let serve = async {
            while let Some(first) = requests.recv().await {
                let mut keys = vec![first];
                while keys.len() < LINES_PER_QUERY
                    && let Ok(next) = requests.try_recv()
                {
                    keys.push(next);
                }
                // Whether Postgres is there is the other one's to say: it also knows what has changed since.
                if let Err(error) = reader.read_lines(&keys).await {
                    debug!(%error, lines = keys.len(), "credit lines cannot be read for a first payment");
                    reader.lines.give_up(&keys);
                }
            }
        };
        let _ = stopped.until(async { tokio::join!(reader.follow(), serve) }).await;
    }

    fn reader(&self) -> Reader {
        let Self { lines, pool, metrics, reading, .. } = self;
        Reader {
            lines: Arc::clone(lines),
            pool: pool.clone(),
            metrics: Arc::clone(metrics),
            reading: Arc::clone(reading),
        }
    }
}

struct Reader {
    lines: Arc<CreditLines>,
    pool: PgPool,
    metrics: Arc<LineMetrics>,
    reading: Arc<Mutex<()>>,
}

impl Reader {
    async fn follow(&self) {
        loop {
            let followed = self.follow_notifications().await;
            self.report(&followed);
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Reads everything that is wanted, then every change, until Postgres is gone.
    async fn follow_notifications(&self) -> Result<(), sqlx::Error> {
        let mut notifications = Notifications::listen(&self.pool, CHANNEL).await?;
        // Changes before the listener existed were not notified.
        self.read_keys().await?;
        self.read_bands().await?;
        self.read_lines(&self.lines.wanted()).await?;
        self.report(&Ok(()));
        loop {
            let payloads = notifications.payloads_within(PROBE_INTERVAL).await?;
            if payloads.iter().any(|payload| payload == SCORECARD) {
                self.read_bands().await?;
            }
            let changed: HashSet<LineKey> = payloads.iter().filter_map(|payload| key(payload)).collect();
            if changed.iter().any(|key| !self.lines.has(key)) {
                self.read_keys().await?;
            }
            let wanted: Vec<LineKey> = changed.into_iter().filter(|key| self.lines.is_wanted(key)).collect();
            self.read_lines(&wanted).await?;
            self.report(&Ok(()));
        }
    }

    async fn read_bands(&self) -> Result<(), sqlx::Error> {
        let _reading = self.reading.lock().await;
        match database::within(READ_TIMEOUT, Scorecards::read(&self.pool)).await {
            Ok(cards) => self.lines.set_bands(cards.champion.bands),
            // As of a later release.
            Err(error @ sqlx::Error::Decode(_)) => {
                tracing::error!(%error, "the scorecard in force cannot be read: the bands that were read before count");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn read_keys(&self) -> Result<(), sqlx::Error> {
        let rows: Vec<(String, String)> =
            database::within(READ_TIMEOUT, sqlx::query_as(KEYS).fetch_all(&self.pool)).await?;
        let keys: Vec<LineKey> = rows.iter().filter_map(|(merchant, currency)| parsed(merchant, currency)).collect();
        self.lines.set_keys(&keys);
        Ok(())
    }

    async fn read_lines(&self, keys: &[LineKey]) -> Result<(), sqlx::Error> {
        for keys in keys.chunks(LINES_PER_QUERY) {
            let _reading = self.reading.lock().await;
            let read = async {
                let mut connection = self.pool.acquire().await?;
                record::read(&mut connection, keys).await
            };
            for (key, record) in database::within(READ_TIMEOUT, read).await? {
                self.lines.set_line(&key, record);
            }
        }
        Ok(())
    }

    /// Records whether Postgres could be read, and logs a change.
    fn report(&self, read: &Result<(), sqlx::Error>) {
        let reached = read.is_ok();
        let is_news = self.lines.set_reached(reached, clock::now_ms());
        let [lines, known] = self.lines.counts();
        self.metrics.set(lines, known, self.lines.outdated_since_ms().is_some());
        match read {
            Ok(()) if is_news => info!(lines, read = known, "credit lines are up to date"),
            Ok(()) => {}
            // That Postgres is away is reported once, for all that need it.
            Err(error) if is_news && error.is_away() => {
                info!(%error, lines, "credit lines cannot be read: the last known ones count, with the day of each payment");
            }
            Err(error) => warn_unless_away!(error, "credit lines cannot be read"),
        }
    }
}

fn key(payload: &str) -> Option<LineKey> {
    let (merchant, currency) = payload.rsplit_once(':')?;
    parsed(merchant, currency)
}

fn parsed(merchant: &str, currency: &str) -> Option<LineKey> {
    MerchantId::parse(merchant).ok().zip(Currency::parse(currency).ok())
}
