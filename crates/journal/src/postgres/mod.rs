//! The usage log in Postgres, and what is made from it: migrations, partitions, storing batches. Everything here may be
//! repeated: a stored event is left as it is.
//!
//! One connection of the journal's own. It is dropped at the first error or deadline, because its state is not known then; the
//! next call makes a new one. Only where Postgres refuses a row for its content is the connection sound, and kept.

mod accounts;
pub mod columns;
mod continuity;
mod copy;
mod merchants;
mod outcomes;
mod partitions;
mod sequence;
mod stored;
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chrono::NaiveDate;
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{ConnectOptions, Connection, Executor as _, Row as _};
use thiserror::Error;
use uuid::Uuid;

use super::event::{Batch, Event, Rejected};
use super::projection::{AfterCommit, Projection};
use sluice_kit::database::fitness::{FitnessError, Unfit};
use sluice_kit::database::{self, fitness};
use sluice_kit::health::Away;
use sluice_settings::Secret;

pub use accounts::REWOUND;
use accounts::{Gathered, Key};
pub use columns::Row;
use continuity::Continuity;
pub use continuity::LostAccount;
pub use sequence::Anomalies;
pub use stored::{AccountsAhead, OpenAccount, StoredAccount};

/// The migrations that make and change the tables, in order. A database that a newer server has migrated already is served too:
/// in a rolling deployment the older servers must not stop.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.set_ignore_missing(true);
    migrator
});

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the migrations may take: they change tables that may be large, and only this bounds them.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long storing a batch may take before its connection counts as dead.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Postgres gives up a statement, or the wait for a lock, before we give up the connection; notices about existing partitions
/// are suppressed.
const SESSION: [(&str, &str); 3] =
    [("statement_timeout", "8s"), ("lock_timeout", "4s"), ("client_min_messages", "warning")];
/// The table has no partition for a row: it was dropped or detached after we made it. The row is not at fault.
const NO_PARTITION: &str = "23514";
/// A row is there already.
const UNIQUE_VIOLATION: &str = "23505";
/// SQLSTATE classes of errors that are about a row's content: bad data, a broken constraint, an oversized index entry.
const DATA_ERROR_CLASSES: [&str; 3] = ["22", "23", "54"];
/// Postgres's queue of notifications is full, because a session does not read them. Of class 54; no row is at fault.
const NOTIFY_ROUTINE: &str = "PreCommit_Notify";

/// Why Postgres could not be used. All of these may be temporary; the caller tries again.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// Postgres cannot be reached, or refuses.
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    /// The database cannot hold the journal; what to do is in the sentence.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The tables could not be made or changed.
    #[error("the migrations failed: {0}")]
    Migrate(#[from] MigrateError),
    /// A month's partition could not be made. Never the fault of a row, whatever Postgres reports.
    #[error("a partition of usage_log cannot be made: {0}")]
    Partition(sqlx::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl From<FitnessError> for PostgresError {
    fn from(error: FitnessError) -> Self {
        match error {
            FitnessError::Unfit(unfit) => Self::Unfit(unfit),
            FitnessError::Sql(error) => Self::Sql(error),
        }
    }
}

impl PostgresError {
    /// The same, while a partition was made.
    fn partition(self) -> Self {
        match self {
            Self::Sql(error) => Self::Partition(error),
            Self::Partition(_) | Self::Unfit(_) | Self::Migrate(_) | Self::Timeout(_) => self,
        }
    }

    /// Whether the content of a row is at fault, so that a retry cannot help.
    fn is_about_data(&self) -> bool {
        let is_full_queue = self
            .database()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            .is_some_and(|error| error.routine() == Some(NOTIFY_ROUTINE));
        !is_full_queue
            && self.has_code(|code| {
                code != NO_PARTITION && DATA_ERROR_CLASSES.into_iter().any(|class| code.starts_with(class))
            })
    }

    /// Whether a row that should be new exists already.
    fn is_repetition(&self) -> bool {
        self.has_code(|code| code == UNIQUE_VIOLATION)
    }

    fn has_code(&self, is_meant: impl FnOnce(&str) -> bool) -> bool {
        self.database().and_then(DatabaseError::code).is_some_and(|code| is_meant(&code))
    }

    fn database(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => Some(error.as_ref()),
            Self::Sql(_) | Self::Unfit(_) | Self::Migrate(_) | Self::Partition(_) | Self::Timeout(_) => None,
        }
    }
}

impl Away for PostgresError {
    fn is_away(&self) -> bool {
        match self {
            Self::Sql(error) | Self::Partition(error) => error.is_away(),
            Self::Timeout(_) => true,
            Self::Unfit(_) | Self::Migrate(_) => false,
        }
    }
}

/// The result of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Rows that are new.
    pub rows: u64,
    /// Rows that existed.
    pub duplicates: u64,
    /// Events set aside in `journal_rejected`.
    pub rejected: u64,
}

/// The usage log.
#[derive(Debug)]
pub struct UsageLog {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    /// Months (first days) whose partitions are known to exist.
    months: BTreeSet<NaiveDate>,
    /// How far each shard's sequence was checked. An event at or below it is a repetition, or has a reused number.
    contiguous: BTreeMap<i32, i64>,
    /// Account changes of stored events, where they are stored later.
    gathered: Gathered,
    projections: Vec<Arc<dyn Projection>>,
    /// Each account's last change.
    continuity: Continuity,
    /// Accounts that Redis has lost, as stored events show, to be logged.
    lost: Vec<LostAccount>,
}

/// How rows of the usage log are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// As new ones; refused as a whole where one exists.
    Copy,
    /// Existing ones stay as they are. Costs twice as much.
    Insert,
}

impl UsageLog {
    /// Takes the address; connects when first used.
    ///
    /// # Errors
    /// [`PostgresError`] for a URL that cannot be read.
    pub fn new(url: &Secret) -> Result<Self, PostgresError> {
        let options = PgConnectOptions::from_str(url.expose())?
            .application_name("sluice-journal")
            .options(SESSION)
            .options(database::KEEPALIVE)
            .disable_statement_logging();
        Ok(Self {
            options,
            connection: None,
            months: BTreeSet::new(),
            contiguous: BTreeMap::new(),
            gathered: Gathered::default(),
            projections: Vec::new(),
            continuity: Continuity::default(),
            lost: Vec::new(),
        })
    }

    /// The number of the newest migration that this server has.
    #[must_use]
    pub fn schema_version() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
    }

    /// Probes Postgres, connecting and migrating where needed.
    ///
    /// # Errors
    /// [`PostgresError`] where it does not answer.
    pub async fn probe(&mut self) -> Result<(), PostgresError> {
        let mut connection = self.take().await?;
        within(PROBE_TIMEOUT, connection.ping()).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Stores a batch, each event once, and its accounts. When this returns, all of it is committed.
    ///
    /// # Errors
    /// [`PostgresError`] where it may not be; the same batch can be given again.
    pub async fn store(&mut self, batch: &Batch) -> Result<Stored, PostgresError> {
        let stored = self.store_events(batch).await?;
        self.store_accounts(batch.events.len()).await?;
        Ok(stored)
    }

    /// Keeps these projections in step with the events.
    #[must_use]
    pub fn with_projections(mut self, projections: Vec<Arc<dyn Projection>>) -> Self {
        self.projections = projections;
        self
    }

    /// The accounts that were found lost since the last time.
    pub fn take_lost(&mut self) -> Vec<LostAccount> {
        std::mem::take(&mut self.lost)
    }

    /// Whether accounts are gathered.
    #[must_use]
    pub fn has_accounts(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Drops the gathered accounts.
    pub fn forget_accounts(&mut self) {
        self.gathered = Gathered::default();
        self.continuity = Continuity::default();
    }

    /// Stores the gathered accounts, at most `rows_max` in one transaction. When this returns, they are committed. One that
    /// Postgres refuses for its content keeps its older state there: the usage log has its changes.
    ///
    /// # Errors
    /// [`PostgresError`] where some may not be; those stay gathered, and no others.
    pub async fn store_accounts(&mut self, rows_max: usize) -> Result<(), PostgresError> {
        let keys = self.gathered.keys();
        let mut parts: Vec<&[Key]> = keys.chunks(rows_max.max(1)).rev().collect();
        while let Some(part) = parts.pop() {
            match self.write_accounts(part).await {
                Ok(()) => self.gathered.forget(part),
                Err(error) if error.is_about_data() => match part {
                    [(merchant_id, currency)] => {
                        tracing::error!(merchant_id, currency, %error, "postgres refuses an account, leaving it out");
                        self.gathered.forget(part);
                    }
                    keys => {
                        let (left, right) = keys.split_at(keys.len() / 2);
                        parts.extend([right, left]);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One transaction.
    async fn write_accounts(&mut self, keys: &[Key]) -> Result<(), PostgresError> {
        let mut connection = self.take().await?;
        let work = async {
            let mut transaction = connection.begin().await?;
            self.gathered.store(keys, &mut transaction).await?;
            transaction.commit().await
        };
        let result = within(STORE_TIMEOUT, work).await;
        if result.as_ref().err().is_none_or(PostgresError::is_about_data) {
            self.connection = Some(connection);
        }
        result
    }

    /// Stores a batch, each event once, and gathers its account changes for [`UsageLog::store_accounts`]. When this returns,
    /// the events are committed.
    ///
    /// # Errors
    /// [`PostgresError`] where they may not be; the same batch can be given again.
    pub async fn store_events(&mut self, batch: &Batch) -> Result<Stored, PostgresError> {
        let mut stored = Stored::default();
        let rejected: Vec<&Rejected> = batch.rejected.iter().collect();
        if !rejected.is_empty() {
            self.write(&[], &rejected, &mut stored).await?;
        }
        // A batch that Postgres refuses for its content is halved until the event at fault stands alone.
        let mut parts: Vec<&[Event]> = vec![&batch.events];
        while let Some(part) = parts.pop() {
            match self.write(part, &[], &mut stored).await {
                Ok(()) => {}
                Err(error) if error.is_about_data() => match part {
                    [event] => {
                        let row = &event.row;
                        tracing::error!(
                            merchant = row.merchant_id,
                            order_no = row.order_no,
                            event_id = %row.event_id,
                            shard = row.shard,
                            seq = row.seq,
                            reason = %error,
                            "postgres refuses an event for its content, keeping it in journal_rejected"
                        );
                        let rejected =
                            Rejected { entry: event.entry.clone(), reason: format!("refused by Postgres: {error}") };
                        self.write(&[], &[&rejected], &mut stored).await?;
                    }
                    events => {
                        let (left, right) = events.split_at(events.len() / 2);
                        // The earlier half first: alerts follow events in their order.
                        parts.extend([right, left]);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(stored)
    }

    /// One transaction, or two where an event is there already.
    async fn write(
        &mut self,
        events: &[Event],
        rejected: &[&Rejected],
        stored: &mut Stored,
    ) -> Result<(), PostgresError> {
        if events.is_empty() && rejected.is_empty() {
            return Ok(());
        }
        let mut connection = self.take().await?;
        let repeated = self.repeated(events);
        let new_months = self.new_months(events);
        let made = within(STORE_TIMEOUT, partitions::make(&mut connection, &new_months)).await;
        made.map_err(PostgresError::partition)?;
        self.months.extend(new_months);
        let Self { continuity, projections, .. } = self;
        let mut work =
            Work { connection: &mut connection, events, rejected, repeated: &repeated, continuity, projections };
        let mut result = within(STORE_TIMEOUT, work.transact(Method::Copy)).await;
        if result.as_ref().is_err_and(PostgresError::is_repetition) {
            result = within(STORE_TIMEOUT, work.transact(Method::Insert)).await;
        }
        match result {
            Ok(Done { rows, set_aside, after_commit, lost }) => {
                self.connection = Some(connection);
                after_commit.into_iter().for_each(|work| work());
                self.lost.extend(lost);
                self.continuity.note(events);
                stored.rows += rows;
                stored.duplicates += (events.len() as u64).saturating_sub(rows);
                stored.rejected += set_aside;
                self.gathered.add(Gathered::of(events));
                Ok(())
            }
            Err(error) => {
                // The transaction is rolled back before the connection's next use. Any other error, even one that
                // Postgres sent, may mean a server that is going down or became a read-only standby.
                if error.is_about_data() {
                    self.connection = Some(connection);
                }
                Err(error)
            }
        }
    }

    /// The current connection, or a new one. The caller puts it back where it is sound.
    async fn take(&mut self) -> Result<PgConnection, PostgresError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        // A partition that is expected may be gone.
        self.months.clear();
        let connect = async { PgConnection::connect_with(&self.options).await.map_err(fitness::of_connecting) };
        let mut connection = within(CONNECT_TIMEOUT, connect).await?;
        within(STORE_TIMEOUT, fitness::check(&mut connection, &self.options)).await?;
        within(MIGRATE_TIMEOUT, migrate(&mut connection)).await?;
        self.contiguous = within(STORE_TIMEOUT, sequence::checked(&mut connection)).await?;
        Ok(connection)
    }

    fn new_months(&self, events: &[Event]) -> BTreeSet<NaiveDate> {
        let months = events.iter().map(|event| partitions::first_day(event.row.at.date_naive()));
        months.filter(|month| !self.months.contains(month)).collect()
    }

    /// The shards and numbers in the batch that are in the complete part of the sequence.
    fn repeated(&self, events: &[Event]) -> BTreeSet<(i32, i64)> {
        let rows = events.iter().map(|event| &event.row);
        let is_old = |row: &&Row| self.contiguous.get(&row.shard).is_some_and(|checked| row.seq <= *checked);
        rows.filter(is_old).map(|row| (row.shard, row.seq)).collect()
    }
}

async fn migrate(connection: &mut PgConnection) -> Result<(), PostgresError> {
    connection.execute("SET statement_timeout = 0").await?;
    let before = applied(connection).await?;
    MIGRATIONS.run(&mut *connection).await?;
    for migration in MIGRATIONS.iter().filter(|migration| !before.contains(&migration.version)) {
        let (version, description) = (migration.version, migration.description.as_ref());
        tracing::info!(version, description, "migration applied");
    }
    connection.execute("RESET statement_timeout").await?;
    Ok(())
}

/// The migrations that the database has.
async fn applied(connection: &mut PgConnection) -> Result<BTreeSet<i64>, sqlx::Error> {
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !there {
        return Ok(BTreeSet::new());
    }
    let versions: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(connection).await?;
    Ok(versions.into_iter().collect())
}

async fn within<T, E>(deadline: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, PostgresError>
where
    PostgresError: From<E>,
{
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(PostgresError::Timeout(deadline)),
    }
}

/// What one transaction stores.
struct Work<'a> {
    connection: &'a mut PgConnection,
    events: &'a [Event],
    rejected: &'a [&'a Rejected],
    repeated: &'a BTreeSet<(i32, i64)>,
    continuity: &'a Continuity,
    projections: &'a [Arc<dyn Projection>],
}

/// Its result: the numbers of new rows and of newly set-aside ones, the projections' work after the commit, and lost accounts.
#[derive(Default)]
struct Done {
    rows: u64,
    set_aside: u64,
    after_commit: Vec<AfterCommit>,
    lost: Vec<LostAccount>,
}

impl Work<'_> {
    /// Stores events and set-aside ones together.
    async fn transact(&mut self, method: Method) -> Result<Done, sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        let mut done = Done::default();
        if !self.events.is_empty() {
            let rows = self.events.iter().map(|event| &event.row);
            let new = match method {
                Method::Copy => {
                    done.rows = copy::usage(&mut transaction, rows).await?;
                    None
                }
                Method::Insert => {
                    let inserted = columns::insert_usage(rows).fetch_all(&mut *transaction).await?;
                    let new = inserted.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<Uuid>, _>>()?;
                    done.rows = new.len() as u64;
                    Some(new)
                }
            };
            windows::store(&mut transaction, self.events).await?;
            merchants::store(&mut transaction, self.events).await?;
            outcomes::store(&mut transaction, self.events, new.as_ref()).await?;
            for projection in self.projections {
                done.after_commit.push(projection.apply(&mut transaction, self.events, new.as_ref()).await?);
            }
            done.lost = self.continuity.check(&mut transaction, self.events, new.as_ref()).await?;
        }
        done.set_aside = insert_rejected(&mut transaction, self.rejected).await?;
        sequence::record_repetitions(&mut transaction, self.repeated).await?;
        transaction.commit().await?;
        Ok(done)
    }
}

async fn insert_rejected(connection: &mut PgConnection, rejected: &[&Rejected]) -> Result<u64, sqlx::Error> {
    let mut inserted = 0;
    for Rejected { entry, reason } in rejected {
        let fields = entry.fields.as_slice();
        let statement = "INSERT INTO journal_rejected (shard, stream_id, content_hash, fields, reason) \
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let query = sqlx::query(statement).bind(i32::from(entry.shard)).bind(entry.id.to_string());
        let query = query.bind(content_hash(fields)).bind(fields).bind(reason.replace('\0', "\u{fffd}"));
        inserted += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(inserted)
}

/// XXH3 (128 bits) over every field with its length.
fn content_hash(fields: &[Vec<u8>]) -> Uuid {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
        bytes.extend_from_slice(field);
    }
    Uuid::from_u128(xxhash_rust::xxh3::xxh3_128(&bytes))
}
