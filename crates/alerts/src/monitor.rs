//! Alerts for operators: Redis does not answer, events wait for Postgres, the books do not agree, a server's clock is off.
//!
//! Each server writes its own incidents straight to Postgres, and keeps them while Postgres is away. Servers with the same
//! incident share one alert: each holds a shared lock during the incident, and the last one to release it resolves the alert.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sluice_kit::shutdown::Shutdown;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool};
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

/// How often the server checks itself.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it reads the state in Postgres, without changes of its own.
const READ_INTERVAL_MS: i64 = 10_000;
/// How long one use of Postgres may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Incidents that ended before Postgres was reachable, kept to be reported later; beyond that the oldest is dropped.
const KEPT_MAX: usize = 32;
/// Lets one server write at a time; any number that nothing else uses. The incidents' locks have the numbers after it.
const WRITE_LOCK: i64 = 0x51_75_6f_74_61_10;

/// A check that a server makes by itself.
#[derive(Clone, Debug)]
struct HealthCheck {
    subject: Subject,
    /// What it means, for people.
    meaning: &'static str,
    /// Whether it ran since the server started: before, its result is unknown.
    known: bool,
    incident: Option<Incident>,
    /// Since when an alert is open whose lock no server holds, while this server has no incident.
    unheld_since_ms: Option<i64>,
}

/// A failed check.
#[derive(Clone, Debug)]
struct Incident {
    since_ms: i64,
    message: String,
    /// It has lasted long enough to be reported.
    reportable: bool,
}

/// An incident that is over.
#[derive(Clone, Debug)]
struct EndedIncident {
    subject: Subject,
    incident: Incident,
    until_ms: i64,
}

/// Raises and resolves operators' alerts for one server.
#[derive(Debug)]
pub struct Monitor {
    health: Arc<Health>,
    live: Live,
    /// Dates the alerts: the server's own clock may be wrong.
    clock: StoreClock,
    pool: PgPool,
    checks: [HealthCheck; 3],
    ended: Vec<EndedIncident>,
    /// Holds the locks of this server's incidents.
    connection: Option<PgConnection>,
    locked: Vec<Subject>,
    read_at_ms: Option<i64>,
}

impl Monitor {
    /// Connects when there is something to write or read. The connection belongs to the calling runtime.
    ///
    /// # Errors
    /// An [`io::Error`] for an address that cannot be read.
    pub fn open(postgres_url: &Secret, health: Arc<Health>, live: Live, clock: StoreClock) -> io::Result<Self> {
        let check =
            |subject, meaning| HealthCheck { subject, meaning, known: false, incident: None, unheld_since_ms: None };
        Ok(Self {
            health,
            live,
            clock,
            pool: database::pool(postgres_url, 1).map_err(io::Error::other)?,
            checks: [
                check(Subject::DegradedStore, "Redis does not answer: payments follow on_error of their rules"),
                check(
                    Subject::JournalBacklog,
                    "Events wait for Postgres: payments are refused once the backlog is full",
                ),
                check(Subject::ClockSkew, "A server's clock is off: it neither decides payments nor sweeps"),
            ],
            ended: Vec::new(),
            connection: None,
            locked: Vec::new(),
            read_at_ms: None,
        })
    }

    /// Checks every second, until shutdown.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = ticks.tick() => {}
            }
            match self.round(self.clock.now_ms()).await {
                Ok(()) => {}
                Err(error) => warn_unless_away!(error, "operator alerts paused: postgres unavailable"),
            }
        }
    }

    /// Checks once, at `now_ms`, milliseconds since the epoch.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres does not answer; changes are written in a later round.
    pub async fn round(&mut self, now_ms: i64) -> Result<(), sqlx::Error> {
        let has_changes = self.check(now_ms);
        let is_due = self.read_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= READ_INTERVAL_MS);
        if !has_changes && !is_due && self.ended.is_empty() {
            return Ok(());
        }
        self.read_at_ms = Some(now_ms);
        let work = tokio::time::timeout(ANSWER_TIMEOUT, self.write(now_ms));
        let result = work.await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut));
        if result.is_err() {
            // Its locks go with it.
            self.connection = None;
            self.locked.clear();
            // Changes that could not be written are due at once.
            self.read_at_ms = self.read_at_ms.filter(|_| !has_changes);
        }
        result
    }

    /// Reads the server's health; returns whether there is something to write.
    fn check(&mut self, now_ms: i64) -> bool {
        let patience_ms =
            i64::try_from(self.live.current().degraded_store_secs).unwrap_or(i64::MAX).saturating_mul(1000);
        let seen =
            [(Some(self.health.states().redis), patience_ms), (self.health.backlog(), 0), (self.health.clock(), 0)];
        let mut has_changes = false;
        for (check, (state, patience_ms)) in self.checks.iter_mut().zip(seen) {
            let Some(state) = state else { continue };
            let ended = check.observe(state, now_ms, patience_ms, &mut has_changes);
            self.ended.extend(ended);
        }
        let surplus = self.ended.len().saturating_sub(KEPT_MAX);
        self.ended.drain(..surplus);
        has_changes
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
        for ended in &self.ended {
            raised.extend(raise_ended(&mut transaction, ended).await?);
        }
        for check in &mut self.checks {
            match &check.incident {
                Some(incident) if incident.reportable => {
                    raised.extend(raise_open(&mut transaction, check.subject, incident).await?)
                }
                None if check.known => {
                    let was_own = self.ended.iter().any(|ended| ended.subject == check.subject);
                    let is_unheld = is_unheld(&mut transaction, check.subject).await?;
                    check.unheld_since_ms = is_unheld.then(|| check.unheld_since_ms.unwrap_or(now_ms));
                    // Its holder may only have lost its session, and take the lock again soon.
                    let patience_ms = if was_own { 0 } else { READ_INTERVAL_MS };
                    if check.unheld_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= patience_ms) {
                        end(&mut transaction, check.subject, now_ms).await?;
                    }
                }
                Some(_) | None => {}
            }
        }
        raised.extend(drift(&mut transaction, now_ms).await?);
        transaction.commit().await?;
        for subject in raised {
            self.health.metrics().part::<AlertMetrics>().raised(subject.word(), Level::Critical.into_str());
        }
        self.ended.clear();
        self.connection = Some(connection);
        Ok(())
    }

    /// Holds the locks of the current incidents, and no others.
    async fn lock(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for HealthCheck { subject, incident, .. } in &self.checks {
            let seen = incident.as_ref().is_some_and(|incident| incident.reportable);
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

impl HealthCheck {
    /// Applies a state; returns the incident that it ends, if that was a reportable one.
    fn observe(
        &mut self,
        state: State,
        now_ms: i64,
        patience_ms: i64,
        has_changes: &mut bool,
    ) -> Option<EndedIncident> {
        self.known = true;
        if state.up {
            let incident = self.incident.take().filter(|incident| incident.reportable)?;
            *has_changes = true;
            return Some(EndedIncident { subject: self.subject, incident, until_ms: now_ms });
        }
        let detail = state.detail.unwrap_or_default();
        let message = format!("{} ({detail})", self.meaning);
        let incident = self.incident.get_or_insert(Incident { since_ms: now_ms, message, reportable: false });
        if !incident.reportable && now_ms.saturating_sub(incident.since_ms) >= patience_ms {
            (incident.reportable, *has_changes) = (true, true);
        }
        None
    }
}

const fn lock_of(subject: Subject) -> i64 {
    WRITE_LOCK + 1 + subject as i64
}

/// Raises the alert, unless it is open or was resolved by hand since the incident began; returns it if it is new.
async fn raise_open(
    connection: &mut PgConnection,
    subject: Subject,
    incident: &Incident,
) -> Result<Option<Subject>, sqlx::Error> {
    raise(connection, subject, &incident.message, time(incident.since_ms), None).await
}

/// Stores the alert of an incident that is over, unless it is stored already.
async fn raise_ended(connection: &mut PgConnection, ended: &EndedIncident) -> Result<Option<Subject>, sqlx::Error> {
    let EndedIncident { subject, incident, until_ms } = ended;
    raise(connection, *subject, &incident.message, time(incident.since_ms), Some(time(*until_ms))).await
}

/// One alert for the time from `since`, whichever server reports it.
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
        .bind(Level::Critical.into_str())
        .bind(message)
        .bind(since)
        .bind(until)
        .bind(SYSTEM)
        .bind(ALERT_CHANNEL)
        .fetch_optional(connection)
        .await?;
    if raised.is_some() {
        tracing::warn!(alert_type = subject.word(), message, "operator alert raised");
    }
    Ok(raised.map(|_| subject))
}

/// Whether the alert is open and no server holds its lock.
async fn is_unheld(connection: &mut PgConnection, subject: Subject) -> Result<bool, sqlx::Error> {
    let open =
        "SELECT EXISTS (SELECT FROM quota_alert WHERE merchant_id IS NULL AND subject = $1 AND resolved_at IS NULL)";
    let open: bool = sqlx::query_scalar(open).bind(subject.column()).fetch_one(&mut *connection).await?;
    if !open {
        return Ok(false);
    }
    let lock = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(lock_of(subject));
    lock.fetch_one(connection).await
}

/// Resolves the alert whose lock no server holds.
async fn end(connection: &mut PgConnection, subject: Subject, now_ms: i64) -> Result<(), sqlx::Error> {
    let statement = "WITH ended AS ( \
            UPDATE quota_alert SET resolved_at = greatest($2, raised_at), resolved_by = $3, resolve_reason = 'recovered' \
            WHERE merchant_id IS NULL AND subject = $1 AND resolved_at IS NULL RETURNING alert_id \
        ) SELECT pg_notify($4, alert_id::text) FROM ended";
    let query = sqlx::query(statement).bind(subject.column()).bind(time(now_ms)).bind(SYSTEM).bind(ALERT_CHANNEL);
    query.execute(connection).await.map(drop)
}

/// The books' alert follows the journal's anomalies; one resolved by hand is raised again only by the next anomaly.
async fn drift(connection: &mut PgConnection, now_ms: i64) -> Result<Option<Subject>, sqlx::Error> {
    let statement = "SELECT greatest(max(found_at), (SELECT max(rejected_at) FROM journal_rejected)), \
            coalesce(sum(last_seq - first_seq + 1) FILTER (WHERE kind = 'missing'), 0)::bigint, \
            count(*) FILTER (WHERE kind = 'rewound'), count(*) FILTER (WHERE kind = 'account_lost'), \
            (SELECT count(*) FROM journal_rejected) \
        FROM journal_anomaly WHERE resolved_at IS NULL";
    let (found_at, missing, rewound, lost, rejected): (Option<DateTime<Utc>>, i64, i64, i64, i64) =
        sqlx::query_as(statement).fetch_one(&mut *connection).await?;
    let Some(found_at) = found_at else {
        if is_unheld(connection, Subject::Drift).await? {
            end(connection, Subject::Drift, now_ms).await?;
        }
        return Ok(None);
    };
    let mut message = format!(
        "The journal is incomplete: {missing} events are missing, Redis reused sequence numbers {rewound} times"
    );
    if lost > 0 {
        message.push_str(&format!(", Redis lost an account {lost} times and its limits restarted from zero"));
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
