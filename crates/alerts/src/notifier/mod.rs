//! Tells people: makes messages of what happened to alerts, sends them, tries again, and sums up what was held back.
//!
//! One server does it at a time, the one whose session holds an advisory lock, on a thread that shares nothing with payments.
//! What it does stands in Postgres before and after: where it dies in between, the next one does it again under the same id.

mod claim;
mod collect;
mod digest;
mod figures;
mod outcome;
mod tidy;
mod try_one;

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{Executor, PgPool};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info};

use super::address::Reach;
use super::channel::Sender;
use super::rate::Rate;
use sluice_kit::database;
use sluice_kit::health::warn_unless_away;
use sluice_kit::metrics::Metrics;
use sluice_settings::{Live, Mail, Secret, Settings};

pub use figures::Figures;

/// The channel that changes of alerts, and messages by hand, are told on.
pub const NOTIFIED: &str = "sluice_alert";
/// Lets one server notify at a time; any number that nothing else uses.
const LOCK: i64 = 0x51_75_6f_74_61_05;
/// How often is looked for something to do although nobody was told.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a session may take to answer before it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop waits for tries under way.
const STOP_MAX: Duration = Duration::from_secs(2);
/// For making messages, and for recording tries.
const CONNECTIONS_MAX: u32 = 3;
/// Tries under way at a time; and of these of one channel, so that a slow one holds up itself only.
const TRIES_MAX: usize = 256;
const TRIES_PER_CHANNEL_MAX: usize = 2;
/// Of these of all channels of one merchant, so that nobody's receivers take all places.
const TRIES_PER_MERCHANT_MAX: usize = 8;

/// What the notifier needs to know.
#[derive(Debug)]
pub struct Config {
    pub redis_url: Secret,
    pub postgres_url: Secret,
    pub live: Live,
    pub operators: Reach,
    pub merchants: Reach,
    pub mail: Option<Mail>,
}

impl Config {
    /// Takes what the settings say.
    #[must_use]
    pub fn new(settings: &Settings, live: Live) -> Self {
        let (redis_url, postgres_url) = (settings.redis_url(), settings.postgres_url());
        let operators = Reach::operators(settings.alert_allow_networks.clone());
        let merchants = Reach::merchants(settings.alert_merchant_networks.clone());
        // What cannot be used was refused with the settings.
        let mail = settings.mail().ok().flatten();
        Self { redis_url, postgres_url, live, operators, merchants, mail }
    }
}

/// A session that says nothing is as good as lost.
async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(ANSWER_TIMEOUT, work).await.map_err(|_| sqlx::Error::PoolTimedOut)?
}

/// What its parts work with. Its connections belong to the runtime that it was opened in.
#[derive(Clone, Debug)]
struct Tools {
    pool: PgPool,
    rate: Rate,
    sender: Sender,
    live: Live,
    figures: Figures,
}

impl Tools {
    fn open(config: Config, figures: Figures) -> io::Result<Self> {
        let Config { redis_url, postgres_url, live, operators, merchants, mail } = config;
        Ok(Self {
            pool: database::pool(&postgres_url, CONNECTIONS_MAX).map_err(io::Error::other)?,
            rate: Rate::open(&redis_url, live.current().redis_timeout()).map_err(io::Error::other)?,
            sender: Sender::new(operators, merchants, mail).map_err(io::Error::other)?,
            live,
            figures,
        })
    }
}

/// Starts the notifier on a thread of its own. It ends after `shutdown` becomes true (or its sender is gone).
///
/// # Errors
/// An [`io::Error`] where the thread or its runtime cannot be made, or an address cannot be used.
pub fn spawn(config: Config, metrics: &Metrics, mut shutdown: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let postgres_url = config.postgres_url.clone();
    let tools = {
        let _context = runtime.enter();
        Tools::open(config, Figures::clone(&metrics.part()))?
    };
    std::thread::Builder::new().name("notifier".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (tries, busy) = (JoinSet::new(), claim::Busy::default());
            let (unreadable, tidy) = (collect::Unreadable::default(), tidy::Tidy::default());
            let mut notifier = Notifier { tools, postgres_url, tries, busy, unreadable, tidy, well: true };
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                () = notifier.run() => {}
            }
            // What is not over by then is tried again, under the same id.
            let _ = timeout(STOP_MAX, async { while notifier.tries.join_next().await.is_some() {} }).await;
        });
        // A name that takes long to resolve holds up nobody's end.
        runtime.shutdown_background();
    })
}

#[derive(Debug)]
struct Notifier {
    tools: Tools,
    postgres_url: Secret,
    tries: JoinSet<()>,
    busy: claim::Busy,
    unreadable: collect::Unreadable,
    tidy: tidy::Tidy,
    /// By the last turn: whether Postgres answers. Only a change is logged.
    well: bool,
}

impl Notifier {
    async fn run(&mut self) {
        loop {
            if let Err(error) = self.turn().await
                && std::mem::replace(&mut self.well, false)
            {
                warn_unless_away!(error, "alert delivery paused: postgres gives no answer");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits for the lock, and works as long as the session that holds it lives.
    async fn turn(&mut self) -> Result<(), sqlx::Error> {
        let pool = database::pool(&self.postgres_url, 1)?;
        let ended = self.lead(&pool).await;
        self.tools.figures.forget();
        // The session goes, and the lock with it.
        let _ = timeout(ANSWER_TIMEOUT, pool.close()).await;
        ended
    }

    async fn lead(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut session = answer(PgListener::connect_with(pool)).await?;
        // The lock went with the connection: another one is no use.
        session.eager_reconnect(false);
        while !answer(sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut session)).await? {
            self.answers();
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        answer(session.listen(NOTIFIED)).await?;
        info!("this server tells people of alerts");
        loop {
            self.work().await?;
            self.answers();
            if !self.wait(&mut session).await {
                debug!("the session of the notifier ended, another server may take over");
                return Ok(());
            }
        }
    }

    /// Notes that Postgres answers.
    fn answers(&mut self) {
        if !std::mem::replace(&mut self.well, true) {
            info!("postgres answers the notifier again");
        }
    }

    /// Everything that can be done now.
    async fn work(&mut self) -> Result<(), sqlx::Error> {
        collect::all(&self.tools, &mut self.unreadable).await?;
        digest::due(&self.tools).await?;
        self.tidy.up(&self.tools).await;
        while self.tries.len() < TRIES_MAX {
            let claimed = claim::due(&self.tools, &self.busy, TRIES_MAX - self.tries.len()).await?;
            if claimed.is_empty() {
                break;
            }
            for message in claimed {
                let (place, tools) = (message.place(), self.tools.clone());
                let task = self.tries.spawn(async move { try_one::run(&tools, message).await });
                self.busy.add(task.id(), place);
            }
        }
        self.tools.figures.count(&self.tools.pool).await
    }

    /// Waits for something to do; false where the session is lost.
    async fn wait(&mut self, session: &mut PgListener) -> bool {
        tokio::select! {
            told = session.try_recv() => {
                if !matches!(told, Ok(Some(_))) {
                    return false;
                }
                // What else was told by now is looked at with it.
                while session.next_buffered().is_some() {}
            }
            Some(ended) = self.tries.join_next_with_id(), if !self.tries.is_empty() => {
                self.busy.end(ended);
                while let Some(ended) = self.tries.try_join_next_with_id() {
                    self.busy.end(ended);
                }
            }
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                return matches!(timeout(ANSWER_TIMEOUT, session.execute("SELECT 1")).await, Ok(Ok(_)));
            }
        }
        true
    }
}
