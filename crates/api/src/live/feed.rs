//! Reads on in the stream of changes of alerts and decisions, a bounded piece at a time and only when its reader has taken the
//! one before: a slow reader costs nothing but its own place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use quota::{Code, Currency, MerchantId};
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Postgres, QueryBuilder};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::place::{After, AlertKey, DecisionKey, Way};
use super::{Place, PlaceError, Snapshot};
use sluice_alerts::read::{self, Alert};
use sluice_journal::usage_log::UsageLog;
use sluice_kit::clock;

/// Rows of one piece.
const ROWS_MAX: usize = 200;
/// Readings of pieces under way in all streams of a server.
const TURNS: usize = 2;
/// How long Postgres works on one: what takes longer is asked for in smaller pieces.
const STATEMENT_TIMEOUT: (&str, &str) = ("statement_timeout", "2s");
const CANCELED: &str = "57014";
/// How long an answer may take, before Postgres counts as away.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Transactions whose decisions are looked for at once: at first, and at most; more each time that it took no longer than this.
const SPAN_FIRST: i64 = 64;
const SPAN_MAX: i64 = 1 << 20;
const QUICK: Duration = Duration::from_millis(100);
/// How long decisions may have waited for Postgres: those that were taken longer before a place are not looked for, so that only
/// the newest partitions are read. The migration that makes their index knows of it.
const HELD_SECS: i64 = 10 * 86_400;

/// A place's database and what is visible in it.
const LOOK: &str = "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8), \
    txid_current_snapshot()::text FROM pg_control_system()";

/// What a stream tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Alerts,
    Decisions,
}

impl Kind {
    /// The word in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Decisions => "decisions",
        }
    }

    /// Reads the word back; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Alerts, Self::Decisions].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What of it.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub alerts: bool,
    pub decisions: bool,
    /// The only merchant that the caller sees.
    pub own: Option<MerchantId>,
    /// Of one merchant; with it what concerns operators only is left out.
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
}

/// A change, and the place after it.
#[derive(Clone, Debug)]
pub struct Item {
    pub change: Change,
    pub place: Place,
}

/// The changes in Postgres. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Feed {
    pool: PgPool,
    turns: Arc<Semaphore>,
    look: Arc<Mutex<Option<Look>>>,
}

/// What was visible in which database.
#[derive(Clone, Debug)]
struct Look {
    began: Instant,
    database: String,
    snapshot: Snapshot,
}

/// One stream's reading.
#[derive(Debug)]
pub struct Reader {
    feed: Feed,
    filter: Filter,
    place: Place,
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
        Self { pool, turns: Arc::new(Semaphore::new(TURNS)), look: Arc::default() }
    }

    /// One for each reading under way, and one for looks.
    pub const CONNECTIONS: u32 = TURNS as u32 + 1;

    /// Begins after what is visible now.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn begin(&self, filter: Filter) -> Result<Reader, sqlx::Error> {
        let Look { database, snapshot, .. } = self.look().await?;
        let place = Place { database, filter: filter.mark(), told: snapshot, taken_secs: now_secs(), way: None };
        Ok(self.reader(filter, place))
    }

    /// Goes on from a place; [`PlaceError::OtherDatabase`] for one that this database cannot have come to yet. A stream that
    /// tells of something else has not told the same since the place's last snapshot: it begins there.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn resume(&self, filter: Filter, mut place: Place) -> Result<Result<Reader, PlaceError>, sqlx::Error> {
        let now = self.look().await?;
        if place.database != now.database || place.xmax() > now.snapshot.xmax() {
            return Ok(Err(PlaceError::OtherDatabase));
        }
        let mark = filter.mark();
        if std::mem::replace(&mut place.filter, mark) != mark {
            place.way = None;
        }
        Ok(Ok(self.reader(filter, place)))
    }

    fn reader(&self, filter: Filter, place: Place) -> Reader {
        Reader { feed: self.clone(), filter, place, span: SPAN_FIRST }
    }

    /// What is visible now. Who asks while others do shares the next look with them.
    async fn look(&self) -> Result<Look, sqlx::Error> {
        let asked = Instant::now();
        let mut last = self.look.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.began >= asked) {
            return Ok(look.clone());
        }
        let began = Instant::now();
        let read = sqlx::query_as::<_, (String, String)>(LOOK).fetch_one(&self.pool);
        let (database, text) = in_time(read).await?;
        let snapshot = text.parse().map_err(|error| sqlx::Error::Protocol(format!("{text} {error}")))?;
        Ok(last.insert(Look { began, database, snapshot }).clone())
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
    /// Where it stands: after the items that were read last.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The next changes, and whether more can be read at once; then there may be none in this piece.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer; the place is as before.
    pub async fn read(&mut self) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let way = match self.place.way.clone() {
            Some(way) => way,
            None => {
                let Look { database, snapshot: to, .. } = self.feed.look().await?;
                if database != self.place.database {
                    return Err(sqlx::Error::Protocol(PlaceError::OtherDatabase.to_string()));
                }
                if to == self.place.told {
                    self.place.taken_secs = now_secs();
                    return Ok((Vec::new(), false));
                }
                let after = After::Alert(AlertKey::before(self.place.told.xmin()));
                Way { to, taken_secs: now_secs(), after }
            }
        };
        match way.after {
            After::Alert(after) if self.filter.alerts => self.alerts(&way, after).await,
            After::Alert(_) => self.decisions(&way, DecisionKey::before(0)).await,
            After::Decision(after) => self.decisions(&way, after).await,
        }
    }

    /// Changes of all alerts, and of these the alerts that are asked for: however rare those are, a piece is small.
    async fn alerts(&mut self, way: &Way, AlertKey(txid, no): AlertKey) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let Place { told, .. } = &self.place;
        let mut sql = QueryBuilder::<Postgres>::new(
            "SELECT stored_txid, change_no, alert_id, change, changed_at FROM alert_change WHERE (stored_txid, change_no) > (",
        );
        sql.push_bind(txid).push(", ").push_bind(no).push(") AND stored_txid < ").push_bind(way.to.xmax());
        sql.push(" AND (stored_txid >= ").push_bind(told.xmax());
        sql.push(" OR stored_txid = ANY(").push_bind(told.under_way().to_vec());
        sql.push(")) AND stored_txid <> ALL(").push_bind(way.to.under_way().to_vec());
        sql.push(") ORDER BY stored_txid, change_no LIMIT ").push_bind(ROWS_MAX as i64);
        let (rows, _) = self.feed.rows::<AlertRow>(sql).await?;
        let last = rows.last().filter(|_| rows.len() == ROWS_MAX).map(|row| AlertKey(row.stored_txid, row.change_no));
        let alerts = self.alerts_of(&rows).await?;
        let item = |row: AlertRow| {
            let AlertRow { stored_txid, change_no, alert_id, change, changed_at } = row;
            let alert = Box::new(alerts.get(&alert_id)?.clone());
            let place = self.at(way, After::Alert(AlertKey(stored_txid, change_no)));
            Some(Item { change: Change::Alert { change, changed_at, alert }, place })
        };
        let items: Vec<Item> = rows.into_iter().filter_map(item).collect();
        self.place = self.at(way, last.map_or(After::Decision(DecisionKey::before(0)), After::Alert));
        Ok((items, true))
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

    /// Decisions of a span of the transactions that the way leads over: those that were under way at its beginning, and those
    /// that began on it.
    async fn decisions(&mut self, way: &Way, after: DecisionKey) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let told = &self.place.told;
        let is_late = |txid: &&i64| **txid >= after.0 && way.to.sees(**txid);
        let late: Vec<i64> = told.under_way().iter().filter(is_late).copied().collect();
        let from = late.first().copied().unwrap_or(after.0.max(told.xmax()));
        let end = from.saturating_add(self.span).min(way.to.xmax());
        if !self.filter.decisions || from >= end {
            self.place = self.after(way);
            return Ok((Vec::new(), false));
        }
        let (rows, took) = match self.feed.rows::<DecisionRow>(self.decisions_sql(way, after, &late, (from, end))).await
        {
            Err(error) if is_canceled(&error) && self.span > 1 => {
                self.span /= 2;
                return Ok((Vec::new(), true));
            }
            result => result?,
        };
        let is_full = rows.len() == ROWS_MAX;
        let item = |DecisionRow { stored_txid, row }| Item {
            place: self.at(way, After::Decision(DecisionKey(stored_txid, row.shard, row.seq, row.event_id))),
            change: Change::Decision(Box::new(row)),
        };
        let items: Vec<Item> = rows.into_iter().map(item).collect();
        if let (true, Some(last)) = (is_full, items.last()) {
            self.place = last.place.clone();
            self.span = (self.span / 2).max(1);
            return Ok((items, true));
        }
        if took < QUICK {
            self.span = self.span.saturating_mul(2).min(SPAN_MAX);
        }
        let is_end = end == way.to.xmax();
        self.place = if is_end { self.after(way) } else { self.at(way, After::Decision(DecisionKey::before(end))) };
        Ok((items, !is_end))
    }

    fn decisions_sql(
        &self,
        way: &Way,
        DecisionKey(txid, shard, seq, event_id): DecisionKey,
        late: &[i64],
        (from, end): (i64, i64),
    ) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new(format!(
            "SELECT {}, stored_txid FROM usage_log WHERE stored_txid >= ",
            UsageLog::COLUMNS
        ));
        sql.push_bind(from).push(" AND stored_txid < ").push_bind(end);
        // A list is no use to the index: it only narrows what the range finds.
        sql.push(" AND (stored_txid >= ").push_bind(self.place.told.xmax());
        sql.push(" OR stored_txid = ANY(").push_bind(late.to_vec());
        sql.push(")) AND stored_txid <> ALL(").push_bind(way.to.under_way().to_vec());
        sql.push(") AND (stored_txid, shard, seq, event_id) > (").push_bind(txid).push(", ").push_bind(shard);
        sql.push(", ").push_bind(seq).push(", ").push_bind(event_id);
        let since = self.place.taken_secs.saturating_sub(HELD_SECS);
        sql.push(") AND at >= ").push_bind(DateTime::from_timestamp(since, 0).unwrap_or_default());
        self.filter.push_account(&mut sql, "");
        if let Some(code) = self.filter.code {
            sql.push(" AND code = ").push_bind(code.as_str());
        }
        sql.push(" ORDER BY stored_txid, shard, seq, event_id LIMIT ").push_bind(ROWS_MAX as i64);
        sql
    }

    /// This far on the way.
    fn at(&self, way: &Way, after: After) -> Place {
        Place { way: Some(Way { after, ..way.clone() }), ..self.place.clone() }
    }

    /// At its end.
    fn after(&self, way: &Way) -> Place {
        Place { told: way.to.clone(), taken_secs: way.taken_secs, way: None, ..self.place.clone() }
    }
}

/// Whether Postgres gave the statement up because it took too long.
fn is_canceled(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == CANCELED)
}

impl Filter {
    /// Tells filters apart.
    pub(super) fn mark(&self) -> u64 {
        xxh3_64(format!("{self:?}").as_bytes())
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
