//! Reads the stream of changes of alerts and credit lines and of decisions, a bounded piece at a time and only when its reader has taken the one
//! before: a slow reader costs nothing but its own cursor.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use quota::{Code, Currency, MerchantId};
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Postgres, QueryBuilder};
use strum::{EnumString, IntoStaticStr};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::cursor::{After, CatchUp, ChangeKey, DecisionKey};
use super::{Cursor, CursorError, Snapshot};
use sluice_alerts::read::{self, Alert};
use sluice_journal::usage_log::UsageLog;
use sluice_kit::clock;
use sluice_lines::LineChange;

/// Rows of one piece.
const ROWS_MAX: usize = 200;
/// Most readings of pieces in progress in all streams of a server.
const TURNS: usize = 2;
/// How long Postgres works on one: what takes longer is queried in smaller pieces.
const STATEMENT_TIMEOUT: (&str, &str) = ("statement_timeout", "2s");
const CANCELED: &str = "57014";
/// How long an answer may take, before Postgres counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Transactions whose decisions are read at once: at first, and at most; more each time that it took no longer than this.
const SPAN_FIRST: i64 = 64;
const SPAN_MAX: i64 = 1 << 20;
const QUICK: Duration = Duration::from_millis(100);
/// How long decisions may have waited for Postgres: those that were made longer before a cursor are not read, so that only the
/// newest partitions are. The migration that makes their index relies on it.
const HELD_SECS: i64 = 10 * 86_400;

/// The database, and the snapshot of what is visible in it.
const SNAPSHOT: &str = "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8), \
    txid_current_snapshot()::text FROM pg_control_system()";

/// The kinds of events of a stream. Their words are values in requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum Kind {
    Alerts,
    Decisions,
    CreditLines,
}

/// The filter of a stream.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub alerts: bool,
    pub decisions: bool,
    pub credit_lines: bool,
    /// The only merchant that the caller sees.
    pub own: Option<MerchantId>,
    /// Of one merchant; then events for operators only are left out.
    pub merchant: Option<MerchantId>,
    pub currency: Option<Currency>,
    /// Decisions with this code only.
    pub code: Option<Code>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Change {
    Alert {
        /// `raised`, `acknowledged` or `resolved`.
        change: String,
        changed_at: DateTime<Utc>,
        /// As it is now.
        alert: Box<Alert>,
    },
    Decision(Box<UsageLog>),
    CreditLine(Box<LineChange>),
}

/// A change, and the cursor after it.
#[derive(Clone, Debug)]
pub struct Item {
    pub change: Change,
    pub place: Cursor,
}

/// The changes in Postgres. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Feed {
    pool: PgPool,
    turns: Arc<Semaphore>,
    cached: Arc<Mutex<Option<SnapshotCache>>>,
}

/// A snapshot, and its database.
#[derive(Clone, Debug)]
struct SnapshotCache {
    began: Instant,
    database: String,
    snapshot: Snapshot,
}

/// The reader of one stream.
#[derive(Debug)]
pub struct Reader {
    feed: Feed,
    filter: Filter,
    cursor: Cursor,
    span: i64,
}

#[derive(sqlx::FromRow)]
struct AlertRow {
    stored_txid: i64,
    change_no: i64,
    alert_id: Uuid,
    change: String,
    changed_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct LineRow {
    stored_txid: i64,
    change_no: i64,
    merchant_id: String,
    currency: String,
    change: String,
    changed_at: DateTime<Utc>,
    body: String,
}

#[derive(sqlx::FromRow)]
struct DecisionRow {
    stored_txid: i64,
    #[sqlx(flatten)]
    row: UsageLog,
}

impl Feed {
    /// Takes a pool of its own, of so many [connections](Feed::CONNECTIONS).
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        pool.set_connect_options(PgConnectOptions::clone(&pool.connect_options()).options([STATEMENT_TIMEOUT]));
        Self { pool, turns: Arc::new(Semaphore::new(TURNS)), cached: Arc::default() }
    }

    /// One for each reading in progress, and one for snapshots.
    pub const CONNECTIONS: u32 = TURNS as u32 + 1;

    /// Begins after what is visible now.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn begin(&self, filter: Filter) -> Result<Reader, sqlx::Error> {
        let SnapshotCache { database, snapshot, .. } = self.snapshot().await?;
        let cursor = Cursor { database, filter: filter.mark(), sent: snapshot, taken_secs: now_secs(), catch_up: None };
        Ok(self.reader(filter, cursor))
    }

    /// Resumes from a cursor; [`CursorError::OtherDatabase`] for one that this database cannot have reached yet. A stream with
    /// another filter has not sent the same rows since the cursor's last snapshot: it begins there.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn resume(&self, filter: Filter, mut cursor: Cursor) -> Result<Result<Reader, CursorError>, sqlx::Error> {
        let now = self.snapshot().await?;
        if cursor.database != now.database || cursor.xmax() > now.snapshot.xmax() {
            return Ok(Err(CursorError::OtherDatabase));
        }
        let mark = filter.mark();
        if std::mem::replace(&mut cursor.filter, mark) != mark {
            cursor.catch_up = None;
        }
        Ok(Ok(self.reader(filter, cursor)))
    }

    fn reader(&self, filter: Filter, cursor: Cursor) -> Reader {
        Reader { feed: self.clone(), filter, cursor, span: SPAN_FIRST }
    }

    /// The snapshot of now. Concurrent callers share the next query.
    async fn snapshot(&self) -> Result<SnapshotCache, sqlx::Error> {
        let called = Instant::now();
        let mut last = self.cached.lock().await;
        if let Some(cached) = last.as_ref().filter(|cached| cached.began >= called) {
            return Ok(cached.clone());
        }
        let began = Instant::now();
        let read = sqlx::query_as::<_, (String, String)>(SNAPSHOT).fetch_one(&self.pool);
        let (database, text) = in_time(read).await?;
        let snapshot = text.parse().map_err(|error| sqlx::Error::Protocol(format!("{text} {error}")))?;
        Ok(last.insert(SnapshotCache { began, database, snapshot }).clone())
    }

    /// The rows, and how long they took.
    async fn rows<T>(&self, mut sql: QueryBuilder<Postgres>) -> Result<(Vec<T>, Duration), sqlx::Error>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        let _turn = self.turns.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let began = Instant::now();
        let rows = in_time(sql.build_query_as().fetch_all(&self.pool)).await?;
        Ok((rows, began.elapsed()))
    }
}

async fn in_time<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(READ_TIMEOUT, read).await.map_err(|_| sqlx::Error::PoolTimedOut)?
}

fn now_secs() -> i64 {
    clock::now_ms().div_euclid(1000)
}

impl Reader {
    /// Its cursor: after the items that were read last.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The next changes, and whether more can be read at once; then there may be none in this piece.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer; the cursor is as before.
    pub async fn read(&mut self) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let catch_up = match self.cursor.catch_up.clone() {
            Some(catch_up) => catch_up,
            None => {
                let SnapshotCache { database, snapshot: to, .. } = self.feed.snapshot().await?;
                if database != self.cursor.database {
                    return Err(sqlx::Error::Protocol(CursorError::OtherDatabase.to_string()));
                }
                if to == self.cursor.sent {
                    self.cursor.taken_secs = now_secs();
                    return Ok((Vec::new(), false));
                }
                let after = After::Alert(ChangeKey::before(self.cursor.sent.xmin()));
                CatchUp { to, taken_secs: now_secs(), after }
            }
        };
        match catch_up.after {
            After::Alert(after) if self.filter.alerts => self.alerts(&catch_up, after).await,
            After::Alert(_) if self.filter.credit_lines => self.lines(&catch_up, self.first_change()).await,
            After::CreditLine(after) if self.filter.credit_lines => self.lines(&catch_up, after).await,
            After::Alert(_) | After::CreditLine(_) => self.decisions(&catch_up, DecisionKey::before(0)).await,
            After::Decision(after) => self.decisions(&catch_up, after).await,
        }
    }

    /// Before all changes that may not have been sent.
    const fn first_change(&self) -> ChangeKey {
        ChangeKey::before(self.cursor.sent.xmin())
    }

    /// Changes of all alerts, and of these the alerts that match the filter: however rare those are, a piece is small.
    async fn alerts(&mut self, catch_up: &CatchUp, after: ChangeKey) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let columns = "alert_id, change, changed_at FROM alert_change";
        let (rows, _) = self.feed.rows::<AlertRow>(self.changes_sql(columns, catch_up, after)).await?;
        let last = rows.last().filter(|_| rows.len() == ROWS_MAX).map(|row| ChangeKey(row.stored_txid, row.change_no));
        let alerts = self.alerts_of(&rows).await?;
        let item = |row: AlertRow| {
            let AlertRow { stored_txid, change_no, alert_id, change, changed_at } = row;
            let alert = Box::new(alerts.get(&alert_id)?.clone());
            let place = self.at(catch_up, After::Alert(ChangeKey(stored_txid, change_no)));
            Some(Item { change: Change::Alert { change, changed_at, alert }, place })
        };
        let items: Vec<Item> = rows.into_iter().filter_map(item).collect();
        self.cursor = self.at(catch_up, last.map_or(After::CreditLine(self.first_change()), After::Alert));
        Ok((items, true))
    }

    /// Changes of all credit lines, of which those that match the filter are sent.
    async fn lines(&mut self, catch_up: &CatchUp, after: ChangeKey) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let columns = "merchant_id, currency::text, change, changed_at, body::text FROM credit_change";
        let (rows, _) = self.feed.rows::<LineRow>(self.changes_sql(columns, catch_up, after)).await?;
        let last = rows.last().filter(|_| rows.len() == ROWS_MAX).map(|row| ChangeKey(row.stored_txid, row.change_no));
        let item = |row: LineRow| {
            let place = self.at(catch_up, After::CreditLine(ChangeKey(row.stored_txid, row.change_no)));
            let change = Change::CreditLine(Box::new(self.filter.line_change(row)?));
            Some(Item { change, place })
        };
        let items: Vec<Item> = rows.into_iter().filter_map(item).collect();
        self.cursor = self.at(catch_up, last.map_or(After::Decision(DecisionKey::before(0)), After::CreditLine));
        Ok((items, true))
    }

    /// Rows of a table of changes that became visible between the two snapshots, a piece of them in their order.
    fn changes_sql(&self, columns: &str, catch_up: &CatchUp, ChangeKey(txid, no): ChangeKey) -> QueryBuilder<Postgres> {
        let Cursor { sent, .. } = &self.cursor;
        let mut sql = QueryBuilder::new("SELECT stored_txid, change_no, ");
        sql.push(columns).push(" WHERE (stored_txid, change_no) > (").push_bind(txid).push(", ").push_bind(no);
        sql.push(") AND stored_txid < ").push_bind(catch_up.to.xmax());
        sql.push(" AND (stored_txid >= ").push_bind(sent.xmax());
        sql.push(" OR stored_txid = ANY(").push_bind(sent.under_way().to_vec());
        sql.push(")) AND stored_txid <> ALL(").push_bind(catch_up.to.under_way().to_vec());
        sql.push(") AND changed_at >= ").push_bind(self.held_since());
        sql.push(" ORDER BY stored_txid, change_no LIMIT ").push_bind(ROWS_MAX as i64);
        sql
    }

    async fn alerts_of(&self, rows: &[AlertRow]) -> Result<HashMap<Uuid, Alert>, sqlx::Error> {
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.alert_id).collect();
        let mut sql = read::select(self.filter.own.as_ref());
        sql.push(" AND a.alert_id = ANY(").push_bind(ids).push(")");
        self.filter.push_account(&mut sql, "a.");
        let (alerts, _) = self.feed.rows::<Alert>(sql).await?;
        Ok(alerts.into_iter().map(|alert| (alert.alert_id, alert)).collect())
    }

    /// Decisions of a span of the transactions between the two snapshots: those that were in progress at the first, and those
    /// that began after it.
    async fn decisions(&mut self, catch_up: &CatchUp, after: DecisionKey) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let sent = &self.cursor.sent;
        let is_late = |txid: &&i64| **txid >= after.0 && catch_up.to.sees(**txid);
        let late: Vec<i64> = sent.under_way().iter().filter(is_late).copied().collect();
        let from = late.first().copied().unwrap_or(after.0.max(sent.xmax()));
        let end = from.saturating_add(self.span).min(catch_up.to.xmax());
        if !self.filter.decisions || from >= end {
            self.cursor = self.after(catch_up);
            return Ok((Vec::new(), false));
        }
        let (rows, took) =
            match self.feed.rows::<DecisionRow>(self.decisions_sql(catch_up, after, &late, (from, end))).await {
                Err(error) if is_canceled(&error) && self.span > 1 => {
                    self.span /= 2;
                    return Ok((Vec::new(), true));
                }
                result => result?,
            };
        let is_full = rows.len() == ROWS_MAX;
        let is_own = self.filter.own.is_some();
        let item = |DecisionRow { stored_txid, row }| Item {
            place: self.at(catch_up, After::Decision(DecisionKey(stored_txid, row.shard, row.seq, row.event_id))),
            change: Change::Decision(Box::new(if is_own { row.for_merchant() } else { row })),
        };
        let items: Vec<Item> = rows.into_iter().map(item).collect();
        if let (true, Some(last)) = (is_full, items.last()) {
            self.cursor = last.place.clone();
            self.span = (self.span / 2).max(1);
            return Ok((items, true));
        }
        if took < QUICK {
            self.span = self.span.saturating_mul(2).min(SPAN_MAX);
        }
        let is_end = end == catch_up.to.xmax();
        self.cursor =
            if is_end { self.after(catch_up) } else { self.at(catch_up, After::Decision(DecisionKey::before(end))) };
        Ok((items, !is_end))
    }

    fn decisions_sql(
        &self,
        catch_up: &CatchUp,
        DecisionKey(txid, shard, seq, event_id): DecisionKey,
        late: &[i64],
        (from, end): (i64, i64),
    ) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new(format!(
            "SELECT {}, stored_txid FROM usage_log WHERE stored_txid >= ",
            UsageLog::COLUMNS
        ));
        sql.push_bind(from).push(" AND stored_txid < ").push_bind(end);
        // The index does not use a list: it only narrows what the range finds.
        sql.push(" AND (stored_txid >= ").push_bind(self.cursor.sent.xmax());
        sql.push(" OR stored_txid = ANY(").push_bind(late.to_vec());
        sql.push(")) AND stored_txid <> ALL(").push_bind(catch_up.to.under_way().to_vec());
        sql.push(") AND (stored_txid, shard, seq, event_id) > (").push_bind(txid).push(", ").push_bind(shard);
        sql.push(", ").push_bind(seq).push(", ").push_bind(event_id);
        sql.push(") AND at >= ").push_bind(self.held_since());
        self.filter.push_account(&mut sql, "");
        if let Some(code) = self.filter.code {
            sql.push(" AND code = ").push_bind(code.as_str());
        }
        sql.push(" ORDER BY stored_txid, shard, seq, event_id LIMIT ").push_bind(ROWS_MAX as i64);
        sql
    }

    /// What is older is not read: in a database that was restored, numbers of transactions may be given again.
    fn held_since(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.cursor.taken_secs.saturating_sub(HELD_SECS), 0).unwrap_or_default()
    }

    /// The cursor at this point of the catch-up.
    fn at(&self, catch_up: &CatchUp, after: After) -> Cursor {
        Cursor { catch_up: Some(CatchUp { after, ..catch_up.clone() }), ..self.cursor.clone() }
    }

    /// The cursor at its end.
    fn after(&self, catch_up: &CatchUp) -> Cursor {
        Cursor { sent: catch_up.to.clone(), taken_secs: catch_up.taken_secs, catch_up: None, ..self.cursor.clone() }
    }
}

/// Whether Postgres cancelled the statement because it took too long.
fn is_canceled(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == CANCELED)
}

impl Filter {
    /// Identifies the filter.
    pub(super) fn mark(&self) -> u64 {
        xxh3_64(format!("{self:?}").as_bytes())
    }

    /// The change of a credit line, where it matches, as the caller may read it.
    fn line_change(&self, row: LineRow) -> Option<LineChange> {
        let LineRow { merchant_id, currency, change, changed_at, body, .. } = row;
        let is_merchant = self.merchant.as_ref().is_none_or(|own| own.as_str() == merchant_id);
        if !is_merchant || self.currency.is_some_and(|own| own.code() != currency) {
            return None;
        }
        let subject = match serde_json::from_str(&body) {
            Ok(subject) => subject,
            Err(error) => {
                // As of a later release. The stream goes on.
                tracing::error!(merchant_id, currency, change, %error, "a change of a credit line cannot be read");
                return None;
            }
        };
        let change = LineChange { change, changed_at, merchant_id, currency, subject };
        Some(if self.own.is_some() { change.for_merchant() } else { change })
    }

    fn push_account(&self, sql: &mut QueryBuilder<Postgres>, table: &str) {
        if let Some(merchant) = &self.merchant {
            sql.push(format_args!(" AND {table}merchant_id = ")).push_bind(merchant.as_str().to_owned());
        }
        if let Some(currency) = self.currency {
            sql.push(format_args!(" AND {table}currency = ")).push_bind(currency.code().to_owned());
        }
    }
}
