//! Creates messages for changes of alerts, sends them, retries, and sums up held messages in digests.
//!
//! One server does it at a time, the one whose session holds an advisory lock, on a thread that shares nothing with payments.
//! Each step is in Postgres before and after: if the server dies in between, the next one repeats it under the same id.

mod claim;
mod deliver;
mod digest;
mod enqueue;
mod metrics;
mod outcome;
mod retention;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice_kit::shutdown::Shutdown;
use sqlx::postgres::PgListener;
use sqlx::{Executor, PgPool};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info};

use super::channel::Sender;
use super::egress::EgressPolicy;
use super::rate::Rate;
use sluice_kit::database::{self, leader};
use sluice_kit::health::warn_unless_away;
use sluice_kit::metrics::Metrics;
use sluice_settings::{Live, Mail, Secret, Settings};

pub use metrics::NotifierMetrics;

/// The Postgres channel that announces changes of alerts, and messages by hand.
pub const NOTIFIED: &str = "sluice_alert";
/// Lets one server notify at a time; any number that nothing else uses.
const LOCK: i64 = 0x51_75_6f_74_61_05;
/// How often the notifier looks for work without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often waiting messages are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a session may take to answer before it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop waits for tries under way.
const STOP_MAX: Duration = Duration::from_secs(2);
/// For making messages, and for recording tries.
const CONNECTIONS_MAX: u32 = 3;
/// Tries under way at a time; and of these of one channel, so that a slow one holds up itself only.
const TRIES_MAX: usize = 256;
const TRIES_PER_CHANNEL_MAX: usize = 2;
/// Of these of all channels of one merchant, so that no merchant's receivers take all slots.
const TRIES_PER_MERCHANT_MAX: usize = 8;

/// The notifier's configuration.
#[derive(Debug)]
pub struct Config {
    pub redis_url: Secret,
    pub postgres_url: Secret,
    pub live: Live,
    pub operators: EgressPolicy,
    pub merchants: EgressPolicy,
    pub mail: Option<Mail>,
}

impl Config {
    /// Takes the values of the settings.
    #[must_use]
    pub fn new(settings: &Settings, live: Live) -> Self {
        let (redis_url, postgres_url) = (settings.redis_url(), settings.postgres_url());
        let operators = EgressPolicy::operators(settings.alert_allow_networks.clone());
        let merchants = EgressPolicy::merchants(settings.alert_merchant_networks.clone());
        // Unusable values were refused with the settings.
        let mail = settings.mail().ok().flatten();
        Self { redis_url, postgres_url, live, operators, merchants, mail }
    }
}

/// A session that does not answer counts as lost.
async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    database::within(ANSWER_TIMEOUT, work).await
}

/// What the notifier's parts share. Its connections belong to the runtime that it was opened in.
#[derive(Clone, Debug)]
struct Tools {
    pool: PgPool,
    rate: Rate,
    sender: Sender,
    live: Live,
    metrics: Arc<NotifierMetrics>,
}

impl Tools {
    fn open(config: Config, metrics: Arc<NotifierMetrics>) -> io::Result<Self> {
        let Config { redis_url, postgres_url, live, operators, merchants, mail } = config;
        Ok(Self {
            pool: database::pool(&postgres_url, CONNECTIONS_MAX).map_err(io::Error::other)?,
            rate: Rate::open(&redis_url, live.current().redis_timeout()).map_err(io::Error::other)?,
            sender: Sender::new(operators, merchants, mail).map_err(io::Error::other)?,
            live,
            metrics,
        })
    }
}

/// Starts the notifier on a thread of its own. It ends after `shutdown` becomes true (or its sender is gone).
///
/// # Errors
/// An [`io::Error`] where the thread or its runtime cannot be made, or an address cannot be used.
pub fn spawn(config: Config, metrics: &Metrics, mut shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let postgres_url = config.postgres_url.clone();
    let tools = {
        let _context = runtime.enter();
        Tools::open(config, metrics.part())?
    };
    std::thread::Builder::new().name("notifier".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (tries, busy) = (JoinSet::new(), claim::Busy::default());
            let (unreadable, retention) = (enqueue::Unreadable::default(), retention::Retention::default());
            let mut notifier =
                Notifier { tools, postgres_url, tries, busy, unreadable, retention, counted_at: None, well: true };
            tokio::select! {
                () = shutdown.requested() => {}
                () = notifier.run() => {}
            }
            // Tries that are not over by then are repeated, under the same id.
            let _ = timeout(STOP_MAX, async { while notifier.tries.join_next().await.is_some() {} }).await;
        });
        // A slow name resolution does not delay the stop.
        runtime.shutdown_background();
    })
}

#[derive(Debug)]
struct Notifier {
    tools: Tools,
    postgres_url: Secret,
    tries: JoinSet<()>,
    busy: claim::Busy,
    unreadable: enqueue::Unreadable,
    retention: retention::Retention,
    /// When waiting messages were counted last.
    counted_at: Option<Instant>,
    /// By the last turn: whether Postgres answers. Only a change is logged.
    well: bool,
}

impl Notifier {
    async fn run(&mut self) {
        loop {
            if let Err(error) = self.turn().await
                && std::mem::replace(&mut self.well, false)
            {
                warn_unless_away!(error, "alert delivery paused: postgres unavailable");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits for the lock, and works as long as the session that holds it lives.
    async fn turn(&mut self) -> Result<(), sqlx::Error> {
        let pool = database::pool(&self.postgres_url, 1)?;
        let ended = self.lead(&pool).await;
        self.tools.metrics.reset();
        // The session ends, and the lock with it.
        let _ = timeout(ANSWER_TIMEOUT, pool.close()).await;
        ended
    }

    async fn lead(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut session = answer(PgListener::connect_with(pool)).await?;
        // The lock ends with the connection: a new one does not have it.
        session.eager_reconnect(false);
        while !answer(leader::try_lock(&mut session, LOCK)).await? {
            self.answers();
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        answer(session.listen(NOTIFIED)).await?;
        info!("this server delivers alerts");
        loop {
            self.work().await?;
            self.answers();
            if !self.wait(&mut session).await {
                debug!("notifier session ended, another server may take over");
                return Ok(());
            }
        }
    }

    /// Records that Postgres answers.
    fn answers(&mut self) {
        if !std::mem::replace(&mut self.well, true) {
            info!("alert delivery resumed: postgres available");
        }
    }

    /// Does all work that is due.
    async fn work(&mut self) -> Result<(), sqlx::Error> {
        enqueue::all(&self.tools, &mut self.unreadable).await?;
        digest::due(&self.tools).await?;
        self.retention.run(&self.tools).await;
        while self.tries.len() < TRIES_MAX {
            let claimed = claim::due(&self.tools, &self.busy, TRIES_MAX - self.tries.len()).await?;
            if claimed.is_empty() {
                break;
            }
            for message in claimed {
                let (channel, tools) = (message.channel(), self.tools.clone());
                let task = self.tries.spawn(async move { deliver::run(&tools, message).await });
                self.busy.add(task.id(), channel);
            }
        }
        if self.counted_at.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL) {
            self.counted_at = Some(Instant::now());
            self.tools.metrics.count(&self.tools.pool).await?;
        }
        Ok(())
    }

    /// Waits for something to do; false where the session is lost.
    async fn wait(&mut self, session: &mut PgListener) -> bool {
        tokio::select! {
            notified = session.try_recv() => {
                if !matches!(notified, Ok(Some(_))) {
                    return false;
                }
                // Notifications that are buffered by now are handled with it.
                while session.next_buffered().is_some() {}
            }
            Some(ended) = self.tries.join_next_with_id(), if !self.tries.is_empty() => {
                self.busy.end(ended);
                while let Some(ended) = self.tries.try_join_next_with_id() {
                    self.busy.end(ended);
                }
            }
            () = tokio::time::sleep(POLL_INTERVAL) => {
                return matches!(timeout(ANSWER_TIMEOUT, session.execute("SELECT 1")).await, Ok(Ok(_)));
            }
        }
        true
    }
}
