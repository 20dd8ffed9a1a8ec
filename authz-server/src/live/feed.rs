//! Reads on in the stream of changes of alerts and decisions, a bounded piece at a time and only when its reader has taken the
//! one before: a slow reader costs nothing but its own place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use quota::{Code, Currency, MerchantId};
use sqlx::{PgPool, Postgres, QueryBuilder};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

use super::place::{AGE_MAX_SECS, After, AlertKey, DecisionKey, Way};
use super::{Place, PlaceError, Snapshot};
use crate::admin::usage_logs::UsageLog;
use crate::alert::read::{self, Alert};
use crate::clock;

/// Rows of one piece.
const ROWS_MAX: usize = 200;
/// Readings under way in all streams of a server.
const TURNS: usize = 2;
/// How long one may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Transactions whose decisions are looked for at once: at first, and at most.
const SPAN_FIRST: i64 = 64;
const SPAN_MAX: i64 = 1 << 20;
/// Decisions are looked for among those that were taken as long ago as a place may be old, and ten days more that they may
/// have waited for Postgres; so only the newest partitions are looked at.
const TAKEN_WITHIN: TimeDelta = TimeDelta::seconds(AGE_MAX_SECS + 10 * 86_400);

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
    /// A pool with a connection for each reading under way: [`Feed::CONNECTIONS`].
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// Connections that it uses.
    pub const CONNECTIONS: u32 = TURNS as u32;

    /// Begins after what is visible now.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn begin(&self, filter: Filter) -> Result<Reader, sqlx::Error> {
        let place = Place::at(self.snapshot().await?, clock::now_ms());
        Ok(self.reader(filter, place))
    }

    /// Goes on from a place; [`PlaceError::OtherDatabase`] for one that this database cannot have come to yet.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn resume(&self, filter: Filter, place: Place) -> Result<Result<Reader, PlaceError>, sqlx::Error> {
        let now = self.snapshot().await?;
        Ok(if place.xmax() > now.xmax() { Err(PlaceError::OtherDatabase) } else { Ok(self.reader(filter, place)) })
    }

    fn reader(&self, filter: Filter, place: Place) -> Reader {
        Reader { feed: self.clone(), filter, place, span: SPAN_FIRST }
    }

    async fn snapshot(&self) -> Result<Snapshot, sqlx::Error> {
        let read = sqlx::query_scalar::<_, String>("SELECT txid_current_snapshot()::text").fetch_one(&self.pool);
        let text = self.in_turn(read).await?;
        text.parse().map_err(|error| sqlx::Error::Protocol(format!("{text} {error}")))
    }

    async fn in_turn<T>(&self, read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let _turn = self.turns.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        timeout(READ_TIMEOUT, read).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }
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
                let to = self.feed.snapshot().await?;
                if to == self.place.told {
                    return Ok((Vec::new(), false));
                }
                Way { to, taken_secs: clock::now_ms().div_euclid(1000), after: After::Alert(AlertKey::FIRST) }
            }
        };
        match way.after {
            After::Alert(after) if self.filter.alerts => self.alerts(&way, after).await,
            After::Alert(_) => self.decisions(&way, DecisionKey::FIRST).await,
            After::Decision(after) => self.decisions(&way, after).await,
        }
    }

    async fn alerts(&mut self, way: &Way, AlertKey(txid, no): AlertKey) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let Place { told, .. } = &self.place;
        let mut sql = QueryBuilder::<Postgres>::new(
            "SELECT stored_txid, change_no, alert_id, change, changed_at \
            FROM alert_change JOIN quota_alert USING (alert_id) WHERE (stored_txid >= ",
        );
        sql.push_bind(told.xmax()).push(" OR stored_txid = ANY(").push_bind(told.under_way().to_vec());
        sql.push(")) AND (stored_txid, change_no) > (").push_bind(txid).push(", ").push_bind(no);
        sql.push(") AND stored_txid < ").push_bind(way.to.xmax());
        sql.push(" AND stored_txid <> ALL(").push_bind(way.to.under_way().to_vec()).push(")");
        self.filter.push_account(&mut sql);
        sql.push(" ORDER BY stored_txid, change_no LIMIT ").push_bind(ROWS_MAX as i64);
        let rows: Vec<AlertRow> = self.feed.in_turn(sql.build_query_as().fetch_all(&self.feed.pool)).await?;
        let last = rows.last().filter(|_| rows.len() == ROWS_MAX).map(|row| AlertKey(row.stored_txid, row.change_no));
        let alerts = self.alerts_of(&rows).await?;
        let item = |row: AlertRow| {
            let AlertRow { stored_txid, change_no, alert_id, change, changed_at } = row;
            let alert = Box::new(alerts.get(&alert_id)?.clone());
            let place = self.at(way, After::Alert(AlertKey(stored_txid, change_no)));
            Some(Item { change: Change::Alert { change, changed_at, alert }, place })
        };
        let items: Vec<Item> = rows.into_iter().filter_map(item).collect();
        self.place = self.at(way, last.map_or(After::Decision(DecisionKey::FIRST), After::Alert));
        Ok((items, true))
    }

    async fn alerts_of(&self, rows: &[AlertRow]) -> Result<HashMap<Uuid, Alert>, sqlx::Error> {
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.alert_id).collect();
        let mut sql = read::select(self.filter.own.as_ref());
        sql.push(" AND a.alert_id = ANY(").push_bind(ids).push(")");
        let alerts: Vec<Alert> = self.feed.in_turn(sql.build_query_as().fetch_all(&self.feed.pool)).await?;
        Ok(alerts.into_iter().map(|alert| (alert.alert_id, alert)).collect())
    }

    /// First those of transactions that were under way at the beginning of the way, then, a span at a time, of those that began
    /// on it.
    async fn decisions(&mut self, way: &Way, after: DecisionKey) -> Result<(Vec<Item>, bool), sqlx::Error> {
        let new_from = self.place.told.xmax();
        let is_late = |txid: &&i64| **txid >= after.0 && way.to.sees(**txid);
        let late: Vec<i64> = self.place.told.under_way().iter().filter(is_late).copied().collect();
        let end = match late.last() {
            Some(_) if after.0 < new_from => new_from,
            Some(_) | None => after.0.max(new_from).saturating_add(self.span).min(way.to.xmax()),
        };
        let rows = if self.filter.decisions { self.rows(way, after, late, end).await? } else { Vec::new() };
        let is_full = rows.len() == ROWS_MAX;
        let item = |DecisionRow { stored_txid, row }| Item {
            place: self.at(way, After::Decision(DecisionKey(stored_txid, row.shard, row.seq, row.event_id))),
            change: Change::Decision(Box::new(row)),
        };
        let items: Vec<Item> = rows.into_iter().map(item).collect();
        if let (true, Some(last)) = (is_full, items.last()) {
            self.place = last.place.clone();
            self.span = (self.span / 2).max(1);
        } else if end < way.to.xmax() && self.filter.decisions {
            self.place = self.at(way, After::Decision(DecisionKey::before(end)));
            self.span = self.span.saturating_mul(2).min(SPAN_MAX);
        } else {
            self.place = Place { told: way.to.clone(), taken_secs: way.taken_secs, way: None };
            return Ok((items, false));
        }
        Ok((items, true))
    }

    /// Decisions of the late transactions, or where there are none of those up to `end`.
    async fn rows(
        &self,
        way: &Way,
        DecisionKey(txid, shard, seq, event_id): DecisionKey,
        late: Vec<i64>,
        end: i64,
    ) -> Result<Vec<DecisionRow>, sqlx::Error> {
        let new_from = self.place.told.xmax();
        let mut sql =
            QueryBuilder::<Postgres>::new(format!("SELECT {}, stored_txid FROM usage_log WHERE ", UsageLog::COLUMNS));
        if end == new_from {
            sql.push("stored_txid = ANY(").push_bind(late);
        } else {
            sql.push("stored_txid >= ").push_bind(txid.max(new_from)).push(" AND stored_txid < ").push_bind(end);
            sql.push(" AND stored_txid <> ALL(").push_bind(way.to.under_way().to_vec());
        }
        sql.push(") AND (stored_txid, shard, seq, event_id) > (").push_bind(txid).push(", ").push_bind(shard);
        sql.push(", ").push_bind(seq).push(", ").push_bind(event_id);
        sql.push(") AND at >= ").push_bind(clock::now() - TAKEN_WITHIN);
        self.filter.push_account(&mut sql);
        if let Some(code) = self.filter.code {
            sql.push(" AND code = ").push_bind(code.as_str());
        }
        sql.push(" ORDER BY stored_txid, shard, seq, event_id LIMIT ").push_bind(ROWS_MAX as i64);
        self.feed.in_turn(sql.build_query_as().fetch_all(&self.feed.pool)).await
    }

    /// This far on the way.
    fn at(&self, way: &Way, after: After) -> Place {
        Place { way: Some(Way { after, ..way.clone() }), ..self.place.clone() }
    }
}

impl Filter {
    fn push_account(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(merchant) = &self.merchant {
            sql.push(" AND merchant_id = ").push_bind(merchant.as_str().to_owned());
        }
        if let Some(currency) = self.currency {
            sql.push(" AND currency = ").push_bind(currency.code().to_owned());
        }
    }
}
