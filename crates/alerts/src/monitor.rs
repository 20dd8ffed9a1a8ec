//! Alerts for operators: Redis gives no answer, events wait for Postgres, the books do not agree, a server's clock is off.
//!
//! Every server tells what it sees itself, straight to Postgres, and keeps it until Postgres is there. However many servers see
//! the same trouble it is one alert: each holds a shared lock while it sees it, and the last one to let go ends the alert.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool};
use tokio::sync::watch;
use uuid::Uuid;

use super::metrics::AlertMetrics;
use super::projection::CHANNEL as ALERT_CHANNEL;
use super::raise::SYSTEM;
use super::{Level, Subject};
use sluice_kit::clock;
use sluice_kit::database;
use sluice_kit::health::{Health, State, warn_unless_away};
use sluice_settings::{Live, Secret};
use sluice_store::StoreClock;

/// How often the server looks at itself.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks at what Postgres knows, without news of its own.
const READ_INTERVAL_MS: i64 = 10_000;
/// How long one use of Postgres may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Troubles that were over before Postgres was there, kept to be told then; beyond that the oldest is forgotten.
const KEPT_MAX: usize = 32;
/// Lets one server write at a time; any number that nothing else uses. What each sees has the numbers after it.
const WRITE_LOCK: i64 = 0x51_75_6f_74_61_10;

/// What a server sees by itself.
#[derive(Clone, Debug)]
struct Sight {
    subject: Subject,
    /// What it means, for people.
    meaning: &'static str,
    /// Whether it was looked at since the server started: before, the server has no word in the matter.
    known: bool,
    trouble: Option<Trouble>,
    /// Since when an alert is open that no server seems to hold, while this one sees no trouble.
    let_go_ms: Option<i64>,
}

/// That something is not well.
#[derive(Clone, Debug)]
struct Trouble {
    since_ms: i64,
    message: String,
    /// It lasts long enough to be told of.
    told: bool,
}

/// A trouble that is over.
#[derive(Clone, Debug)]
struct Past {
    subject: Subject,
    trouble: Trouble,
    until_ms: i64,
}

/// Watches for one server.
#[derive(Debug)]
pub struct Monitor {
    health: Arc<Health>,
    live: Live,
    /// By which alerts are dated: the server's own may be what is wrong.
    clock: StoreClock,
    pool: PgPool,
    sights: [Sight; 3],
    past: Vec<Past>,
    /// Holds the locks of what this server sees.
    connection: Option<PgConnection>,
    locked: Vec<Subject>,
    read_at_ms: Option<i64>,
}

impl Monitor {
    /// Connects when there is something to tell or read. The connection belongs to the runtime that calls.
    ///
    /// # Errors
    /// An [`io::Error`] for an address that cannot be read.
    pub fn open(postgres_url: &Secret, health: Arc<Health>, live: Live, clock: StoreClock) -> io::Result<Self> {
        let sight = |subject, meaning| Sight { subject, meaning, known: false, trouble: None, let_go_ms: None };
        Ok(Self {
            health,
            live,
            clock,
            pool: database::pool(postgres_url, 1).map_err(io::Error::other)?,
            sights: [
                sight(
                    Subject::DegradedStore,
                    "Redis gives no answer, payments are answered as on_error of their rules says",
                ),
                sight(
                    Subject::JournalBacklog,
                    "Events wait for Postgres, payments are refused when there is no more room",
                ),
                sight(Subject::ClockSkew, "A server's clock is off, it neither decides payments nor sweeps"),
            ],
            past: Vec::new(),
            connection: None,
            locked: Vec::new(),
            read_at_ms: None,
        })
    }

    /// Looks every second, until shutdown.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            match self.round(self.clock.now_ms()).await {
                Ok(()) => {}
                Err(error) => warn_unless_away!(error, "alerts for operators wait for postgres"),
            }
        }
    }

    /// Looks once, at `now_ms`, milliseconds since the epoch.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer; what there is to tell is told in a later round.
    pub async fn round(&mut self, now_ms: i64) -> Result<(), sqlx::Error> {
        let news = self.look(now_ms);
        let is_due = self.read_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= READ_INTERVAL_MS);
        if !news && !is_due && self.past.is_empty() {
            return Ok(());
        }
        self.read_at_ms = Some(now_ms);
        let work = tokio::time::timeout(ANSWER_TIMEOUT, self.write(now_ms));
        let result = work.await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut));
        if result.is_err() {
            // Its locks go with it.
            self.connection = None;
            self.locked.clear();
            // What could not be told is due at once.
            self.read_at_ms = self.read_at_ms.filter(|_| !news);
        }
        result
    }

    /// Takes in the server's health; gives whether there is something to tell.
    fn look(&mut self, now_ms: i64) -> bool {
        let patience_ms =
            i64::try_from(self.live.current().degraded_store_secs).unwrap_or(i64::MAX).saturating_mul(1000);
        let seen =
            [(Some(self.health.states().redis), patience_ms), (self.health.backlog(), 0), (self.health.clock(), 0)];
        let mut news = false;
        for (sight, (state, patience_ms)) in self.sights.iter_mut().zip(seen) {
            let Some(state) = state else { continue };
            let past = sight.see(state, now_ms, patience_ms, &mut news);
            self.past.extend(past);
        }
        let surplus = self.past.len().saturating_sub(KEPT_MAX);
        self.past.drain(..surplus);
        news
    }

    async fn write(&mut self, now_ms: i64) -> Result<(), sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.pool.acquire().await?.detach(),
        };
        self.lock(&mut connection).await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(WRITE_LOCK).execute(&mut *transaction).await?;
        let mut raised = Vec::new();
        for past in &self.past {
            raised.extend(tell_past(&mut transaction, past).await?);
        }
        for sight in &mut self.sights {
            match &sight.trouble {
                Some(trouble) if trouble.told => raised.extend(tell(&mut transaction, sight.subject, trouble).await?),
                None if sight.known => {
                    let was_own = self.past.iter().any(|past| past.subject == sight.subject);
                    let is_let_go = is_let_go(&mut transaction, sight.subject).await?;
                    sight.let_go_ms = is_let_go.then(|| sight.let_go_ms.unwrap_or(now_ms));
                    // Who held it may have lost its session only, and is about to take the lock again.
                    let patience_ms = if was_own { 0 } else { READ_INTERVAL_MS };
                    if sight.let_go_ms.is_some_and(|since| now_ms.saturating_sub(since) >= patience_ms) {
                        end(&mut transaction, sight.subject, now_ms).await?;
                    }
                }
                Some(_) | None => {}
            }
        }
        raised.extend(drift(&mut transaction, now_ms).await?);
        transaction.commit().await?;
        for subject in raised {
            self.health.metrics().part::<AlertMetrics>().raised(subject.word(), Level::Critical.as_str());
        }
        self.past.clear();
        self.connection = Some(connection);
        Ok(())
    }

    /// Holds the locks of what is seen now, and no others.
    async fn lock(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for Sight { subject, trouble, .. } in &self.sights {
            let seen = trouble.as_ref().is_some_and(|trouble| trouble.told);
            let statement = match (self.locked.contains(subject), seen) {
                (false, true) => "SELECT pg_advisory_lock_shared($1)",
                (true, false) => "SELECT pg_advisory_unlock_shared($1)",
                (true, true) | (false, false) => continue,
            };
            sqlx::query(statement).bind(lock_of(*subject)).execute(&mut *connection).await?;
            self.locked.retain(|locked| locked != subject);
            self.locked.extend(Some(*subject).filter(|_| seen));
        }
        Ok(())
    }
}

impl Sight {
    /// Takes in a state; gives the trouble that is over with it, where it was one to be told of.
    fn see(&mut self, state: State, now_ms: i64, patience_ms: i64, news: &mut bool) -> Option<Past> {
        self.known = true;
        if state.up {
            let trouble = self.trouble.take().filter(|trouble| trouble.told)?;
            *news = true;
            return Some(Past { subject: self.subject, trouble, until_ms: now_ms });
        }
        let detail = state.detail.unwrap_or_default();
        let message = format!("{} ({detail})", self.meaning);
        let trouble = self.trouble.get_or_insert(Trouble { since_ms: now_ms, message, told: false });
        if !trouble.told && now_ms.saturating_sub(trouble.since_ms) >= patience_ms {
            (trouble.told, *news) = (true, true);
        }
        None
    }
}

const fn lock_of(subject: Subject) -> i64 {
    WRITE_LOCK + 1 + subject as i64
}

/// Raises the alert, unless it is open or somebody has ended it by hand since the trouble began; gives it where it is new.
async fn tell(
    connection: &mut PgConnection,
    subject: Subject,
    trouble: &Trouble,
) -> Result<Option<Subject>, sqlx::Error> {
    raise(connection, subject, &trouble.message, time(trouble.since_ms), None).await
}

/// Tells of a trouble that is over, unless it has been told of.
async fn tell_past(connection: &mut PgConnection, past: &Past) -> Result<Option<Subject>, sqlx::Error> {
    let Past { subject, trouble, until_ms } = past;
    raise(connection, *subject, &trouble.message, time(trouble.since_ms), Some(time(*until_ms))).await
}

/// One alert for the time from `since`, whoever tells of it.
async fn raise(
    connection: &mut PgConnection,
    subject: Subject,
    message: &str,
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
) -> Result<Option<Subject>, sqlx::Error> {
    let statement = "WITH raised AS ( \
            INSERT INTO quota_alert (alert_id, subject, alert_type, alert_level, message, raised_at, resolved_at, resolved_by, \
                resolve_reason) \
            SELECT $1, $2, $2, $3, $4, $5, $6, CASE WHEN $6 IS NOT NULL THEN $7 END, \
                CASE WHEN $6 IS NOT NULL THEN 'recovered' END \
            WHERE NOT EXISTS ( \
                SELECT FROM quota_alert WHERE merchant_id IS NULL AND subject = $2 AND (resolved_at IS NULL \
                    OR resolved_at >= $5 AND raised_at <= $6 OR resolved_at >= $5 AND resolved_by <> $7) \
            ) ON CONFLICT DO NOTHING RETURNING alert_id \
        ) SELECT pg_notify($8, alert_id::text) FROM raised";
    let raised = sqlx::query(statement)
        .bind(Uuid::from_bytes(clock::decision_id()))
        .bind(subject.column())
        .bind(Level::Critical.as_str())
        .bind(message)
        .bind(since)
        .bind(until)
        .bind(SYSTEM)
        .bind(ALERT_CHANNEL)
        .fetch_optional(connection)
        .await?;
    if raised.is_some() {
        tracing::warn!(alert_type = subject.word(), message, "operators are told");
    }
    Ok(raised.map(|_| subject))
}

/// Whether the alert is open and no server holds it.
async fn is_let_go(connection: &mut PgConnection, subject: Subject) -> Result<bool, sqlx::Error> {
    let open =
        "SELECT EXISTS (SELECT FROM quota_alert WHERE merchant_id IS NULL AND subject = $1 AND resolved_at IS NULL)";
    let open: bool = sqlx::query_scalar(open).bind(subject.column()).fetch_one(&mut *connection).await?;
    if !open {
        return Ok(false);
    }
    let lock = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(lock_of(subject));
    lock.fetch_one(connection).await
}

/// Ends the alert that no server holds.
async fn end(connection: &mut PgConnection, subject: Subject, now_ms: i64) -> Result<(), sqlx::Error> {
    let statement = "WITH ended AS ( \
            UPDATE quota_alert SET resolved_at = greatest($2, raised_at), resolved_by = $3, resolve_reason = 'recovered' \
            WHERE merchant_id IS NULL AND subject = $1 AND resolved_at IS NULL RETURNING alert_id \
        ) SELECT pg_notify($4, alert_id::text) FROM ended";
    let query = sqlx::query(statement).bind(subject.column()).bind(time(now_ms)).bind(SYSTEM).bind(ALERT_CHANNEL);
    query.execute(connection).await.map(drop)
}

/// The books' alert follows what the journal has found; one that was ended by hand comes again with the next finding only.
async fn drift(connection: &mut PgConnection, now_ms: i64) -> Result<Option<Subject>, sqlx::Error> {
    let statement = "SELECT greatest(max(found_at), (SELECT max(rejected_at) FROM journal_rejected)), \
            coalesce(sum(last_seq - first_seq + 1) FILTER (WHERE kind = 'missing'), 0)::bigint, \
            count(*) FILTER (WHERE kind = 'rewound'), count(*) FILTER (WHERE kind = 'account_lost'), \
            (SELECT count(*) FROM journal_rejected) \
        FROM journal_anomaly WHERE resolved_at IS NULL";
    let (found_at, missing, rewound, lost, rejected): (Option<DateTime<Utc>>, i64, i64, i64, i64) =
        sqlx::query_as(statement).fetch_one(&mut *connection).await?;
    let Some(found_at) = found_at else {
        if is_let_go(connection, Subject::Drift).await? {
            end(connection, Subject::Drift, now_ms).await?;
        }
        return Ok(None);
    };
    let mut message =
        format!("The journal is not whole: {missing} events never came, {rewound} times Redis gave numbers again");
    if lost > 0 {
        message.push_str(&format!(", {lost} times Redis lost an account and its limits began anew"));
    }
    message.push_str(" (journal_anomaly)");
    if rejected > 0 {
        message.push_str(&format!(", {rejected} events could not be stored (journal_rejected)"));
    }
    raise(connection, Subject::Drift, &message, found_at, None).await
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}
