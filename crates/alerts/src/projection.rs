//! Stores account alerts in the transaction of the events that raise and resolve them: an alert exists exactly if its event does.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use quota::ThresholdPolicy;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::marks::{self, Marked};
use super::metrics::AlertMetrics;
use super::own::{self, OwnByMerchant};
use super::raise::{self, Account, AlertBoard, End, Key, Open, SYSTEM};
use sluice_journal::event::Event;
use sluice_journal::{AfterCommit, Projection};
use sluice_kit::database::row::{arrays, table_row};

table_row! {
    /// An alert of an account, or of a merchant as a whole, as `quota_alert` stores it.
    pub struct Alert {
        alert_id: Uuid => "uuid";
        merchant_id: String => "text";
        currency: Option<String> => "text";
        subject: &'static str => "text";
        threshold: Option<i32> => "int4";
        alert_type: String => "text";
        alert_level: &'static str => "text";
        window_id: Option<i32> => "int4";
        current_used: Option<i64> => "int8";
        max: Option<i64> => "int8";
        /// Sent as text, which Postgres reads.
        usage_percent: Option<String> => "text[]::numeric";
        message: String => "text";
        policy_version: Option<String> => "text";
        event_id: Option<Uuid> => "uuid";
        shard: i32 => "int4";
        raised_seq: i64 => "int8";
        trace_id: Option<String> => "text";
        raised_at: DateTime<Utc> => "timestamptz";
        resolved_at: Option<DateTime<Utc>> => "timestamptz";
        resolved_by: Option<&'static str> => "text";
        resolve_reason: Option<&'static str> => "text";
        resolve_event_id: Option<Uuid> => "uuid";
        remaining_below: Option<i64> => "int8";
        is_own: bool => "bool";
        /// The only one; both where absent. Stored as `recipients`.
        recipient: Option<&'static str> => "text";
    }
}

/// Listeners are notified of each new alert.
pub(crate) static RAISE: LazyLock<String> = LazyLock::new(|| {
    let column = |(name, _): &(&'static str, &str)| *name;
    let given: Vec<&str> = Alert::COLUMNS.iter().map(column).collect();
    let stored: Vec<&str> = given.iter().copied().filter(|name| *name != "recipient").collect();
    let (given, stored, arrays) = (given.join(", "), stored.join(", "), arrays(Alert::COLUMNS));
    format!(
        "WITH raised AS ( \
            INSERT INTO quota_alert ({stored}, recipients) \
            SELECT {stored}, CASE WHEN recipient IS NOT NULL THEN ARRAY[recipient] END FROM {arrays} AS given ({given}) \
            ON CONFLICT DO NOTHING RETURNING alert_id, alert_type, alert_level) \
         SELECT alert_type, alert_level, pg_notify('{CHANNEL}', alert_id::text)::text FROM raised"
    )
});

/// The Postgres channel on which raised and resolved alerts are announced, by their id.
pub const CHANNEL: &str = "sluice_alert";
/// Open alerts of these accounts. They are locked: none is resolved by hand before the transaction ends.
const OPEN: &str = "SELECT alert.merchant_id, coalesce(alert.currency::text, '') AS currency, alert_id, subject, threshold, \
        remaining_below, is_own, window_id, shard, raised_seq, raised_at \
    FROM UNNEST($1::text[], $2::text[]) AS account (merchant_id, currency) JOIN quota_alert AS alert \
        ON coalesce(alert.merchant_id, '') = account.merchant_id \
        AND coalesce(alert.currency, '') = account.currency::char(3) \
    WHERE resolved_at IS NULL AND subject <> 'over_capture' ORDER BY alert_id FOR UPDATE OF alert";
/// Alerts of these accounts that were resolved by hand and have no later alert in their place.
const SILENCED: &str = "SELECT merchant_id, currency::text, subject, threshold, remaining_below, is_own, window_id \
    FROM quota_alert AS alert \
    WHERE (merchant_id, currency) IN (SELECT merchant_id, currency::char(3) \
            FROM UNNEST($1::text[], $2::text[]) AS account (merchant_id, currency)) \
        AND resolve_reason = 'by_hand' AND (threshold IS NOT NULL OR remaining_below IS NOT NULL) AND NOT EXISTS ( \
            SELECT FROM quota_alert AS later WHERE later.merchant_id = alert.merchant_id AND later.currency = alert.currency \
                AND later.subject = alert.subject AND later.threshold IS NOT DISTINCT FROM alert.threshold \
                AND later.remaining_below IS NOT DISTINCT FROM alert.remaining_below AND later.is_own = alert.is_own \
                AND later.window_id IS NOT DISTINCT FROM alert.window_id AND later.raised_at > alert.raised_at)";
const END: &str = "WITH ended AS ( \
        UPDATE quota_alert AS alert SET resolved_at = greatest(change.at, raised_at), resolved_by = $5, resolve_reason = change.reason, \
            resolve_event_id = change.event_id \
        FROM UNNEST($1::uuid[], $2::timestamptz[], $3::text[], $4::uuid[]) AS change (alert_id, at, reason, event_id) \
        WHERE alert.alert_id = change.alert_id AND alert.resolved_at IS NULL RETURNING alert.alert_id \
    ) SELECT pg_notify('sluice_alert', alert_id::text) FROM ended";

/// An open alert, as read from the database.
#[derive(sqlx::FromRow)]
struct Found {
    merchant_id: String,
    currency: String,
    alert_id: Uuid,
    #[sqlx(flatten)]
    key: Key,
    shard: Option<i32>,
    raised_seq: Option<i64>,
    raised_at: DateTime<Utc>,
}

/// An alert that was resolved by hand, as read from the database.
#[derive(sqlx::FromRow)]
struct Silenced {
    merchant_id: String,
    currency: String,
    #[sqlx(flatten)]
    key: Key,
}

/// Type and level of an alert that is new.
pub(crate) type Raised = (String, String);

/// The limits of an account at a time (milliseconds since the epoch), by the policies that this server knows.
#[derive(Clone)]
pub struct LimitsInForce(Arc<dyn Fn(&str, &str, i64) -> Option<Arc<ThresholdPolicy>> + Send + Sync>);

impl LimitsInForce {
    /// By merchant, currency and time.
    #[must_use]
    pub fn new(of: impl Fn(&str, &str, i64) -> Option<Arc<ThresholdPolicy>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    fn of(&self, (merchant, currency): &Account, at: DateTime<Utc>) -> Option<Arc<ThresholdPolicy>> {
        (self.0)(merchant, currency, at.timestamp_millis())
    }
}

impl fmt::Debug for LimitsInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitsInForce")
    }
}

/// Keeps `quota_alert` in step with the events.
#[derive(Clone, Debug)]
pub struct AlertProjection {
    metrics: Arc<AlertMetrics>,
    limits: LimitsInForce,
}

impl AlertProjection {
    /// Alerts that are raised are counted in `metrics`. Merchants' own thresholds are those of `limits`.
    #[must_use]
    pub const fn new(metrics: Arc<AlertMetrics>, limits: LimitsInForce) -> Self {
        Self { metrics, limits }
    }

    /// Raises and resolves alerts for these events, and returns the new ones. `new` lists the events that are stored for the first
    /// time, where not all are.
    async fn store(
        &self,
        connection: &mut PgConnection,
        events: &[Event],
        new: Option<&HashSet<Uuid>>,
    ) -> Result<Vec<Raised>, sqlx::Error> {
        let is_new = |event: &&Event| new.is_none_or(|new| new.contains(&event.row.event_id));
        let changes: Vec<&Event> = events.iter().filter(is_new).collect();
        let own = self.own(connection, &changes).await?;
        let mut concerned: Vec<Concerned<'_>> =
            changes.into_iter().filter_map(|event| self.concerned(event, &own)).collect();
        if concerned.is_empty() {
            return Ok(Vec::new());
        }
        concerned.sort_by_key(|one| (one.event.row.shard, one.event.row.seq));
        let accounts: BTreeSet<&Account> = concerned.iter().map(|one| &one.account).collect();
        let open = open(connection, &accounts).await?;
        let changed = concerned.iter().filter(|one| raise::changes_list(one.event)).map(|one| &one.account);
        let mut board = AlertBoard::new(open, silenced(connection, &changed.collect()).await?, own);
        for Concerned { account, event, marked } in &concerned {
            board.follow(event);
            board.cross_marks(account, event, marked);
        }
        let (raised, ended) = board.changes();
        if !ended.is_empty() {
            end(connection, &ended).await?;
        }
        insert(connection, &raised).await
    }

    /// The own thresholds of the merchants whose accounts change.
    async fn own(&self, connection: &mut PgConnection, events: &[&Event]) -> Result<OwnByMerchant, sqlx::Error> {
        let changes = events.iter().filter(|event| event.changes_account);
        let merchants: BTreeSet<&str> = changes.map(|event| event.row.merchant_id.as_str()).collect();
        if merchants.is_empty() { Ok(OwnByMerchant::new()) } else { own::read(connection, merchants.into_iter()).await }
    }

    /// The event, where it concerns an alert.
    fn concerned<'a>(&self, event: &'a Event, own: &OwnByMerchant) -> Option<Concerned<'a>> {
        let marked = self.marked(event, own);
        let crossed = marked.iter().any(|one| one.is_crossed(&event.record));
        let account = raise::account(event).or_else(|| raise::key(&event.row).filter(|_| crossed))?;
        Some(Concerned { account, event, marked })
    }

    /// The marks of the event's account.
    fn marked(&self, event: &Event, own: &OwnByMerchant) -> Vec<Marked> {
        let Some(account) = raise::key(&event.row).filter(|_| event.changes_account) else { return Vec::new() };
        let own = own.get(&account.0).map_or(&[][..], Vec::as_slice);
        let limits = if own.is_empty() { None } else { self.limits.of(&account, event.row.at) };
        let mut marked = limits.map(|limits| marks::of_limits(own, &account.1, &limits)).unwrap_or_default();
        if let Some(credit) = &event.credit {
            marked.extend(marks::of_line(own, &account.1, credit.limit, &credit.thresholds));
        }
        marked
    }
}

/// An event that concerns alerts of its account.
struct Concerned<'a> {
    account: Account,
    event: &'a Event,
    marked: Vec<Marked>,
}

impl Projection for AlertProjection {
    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
        new: Option<&'a HashSet<Uuid>>,
    ) -> BoxFuture<'a, Result<AfterCommit, sqlx::Error>> {
        let work = async move {
            let raised = self.store(transaction, events, new).await?;
            let metrics = Arc::clone(&self.metrics);
            let count = move || raised.iter().for_each(|(alert_type, level)| metrics.raised(alert_type, level));
            Ok(Box::new(count) as AfterCommit)
        };
        work.boxed()
    }
}

/// Stores alerts; returns those that are new.
pub(crate) async fn insert(connection: &mut PgConnection, raised: &[Alert]) -> Result<Vec<Raised>, sqlx::Error> {
    if raised.is_empty() {
        return Ok(Vec::new());
    }
    let statement = Alert::bind(sqlx::query(AssertSqlSafe(RAISE.as_str())), raised.iter());
    let new = statement.fetch_all(connection).await?;
    new.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub(crate) async fn open(
    connection: &mut PgConnection,
    accounts: &BTreeSet<&Account>,
) -> Result<impl Iterator<Item = (Account, Open)> + use<>, sqlx::Error> {
    let (merchants, currencies) = columns(accounts);
    let found: Vec<Found> = sqlx::query_as(OPEN).bind(merchants).bind(currencies).fetch_all(connection).await?;
    Ok(found.into_iter().map(|found| {
        let Found { merchant_id, currency, alert_id, key, shard, raised_seq, raised_at } = found;
        ((merchant_id, currency), Open { alert_id, key, shard, raised_seq, raised_at })
    }))
}

/// Alerts resolved by hand and not raised again since.
pub(crate) async fn silenced(
    connection: &mut PgConnection,
    accounts: &BTreeSet<&Account>,
) -> Result<HashSet<(Account, Key)>, sqlx::Error> {
    if accounts.is_empty() {
        return Ok(HashSet::new());
    }
    let (merchants, currencies) = columns(accounts);
    let found: Vec<Silenced> = sqlx::query_as(SILENCED).bind(merchants).bind(currencies).fetch_all(connection).await?;
    Ok(found.into_iter().map(|found| ((found.merchant_id, found.currency), found.key)).collect())
}

fn columns<'a>(accounts: &BTreeSet<&'a Account>) -> (Vec<&'a str>, Vec<&'a str>) {
    accounts.iter().map(|(merchant, currency)| (merchant.as_str(), currency.as_str())).unzip()
}

async fn end(connection: &mut PgConnection, ended: &[End]) -> Result<(), sqlx::Error> {
    sqlx::query(END)
        .bind(ended.iter().map(|end| end.alert_id).collect::<Vec<_>>())
        .bind(ended.iter().map(|end| end.at).collect::<Vec<_>>())
        .bind(ended.iter().map(|end| end.reason).collect::<Vec<_>>())
        .bind(ended.iter().map(|end| end.event_id).collect::<Vec<_>>())
        .bind(SYSTEM)
        .execute(connection)
        .await
        .map(drop)
}
