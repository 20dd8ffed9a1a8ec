//! Alerts of credit lines: the notices of dunning, and lines that risk watches. The part that computes them raises each in the
//! transaction of what it records.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::projection::CHANNEL;
use crate::raise::SYSTEM;
use crate::words::{self, Dunning, Watched};
use crate::{Level, Subject};

/// A watched line's alert that was resolved by hand is not raised again while the line stays watched.
const RAISE: &str = "WITH raised AS ( \
        INSERT INTO quota_alert (alert_id, merchant_id, currency, subject, alert_type, alert_level, window_id, message, \
            recipients, channels, raised_at) \
        SELECT $1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10 WHERE NOT ($11 AND EXISTS ( \
            SELECT FROM quota_alert WHERE merchant_id = $2 AND currency = $3 AND subject = $4 \
                AND (resolved_at IS NULL OR window_id = $6 AND resolve_reason = 'by_hand'))) \
        RETURNING alert_id \
    ) SELECT pg_notify($12, alert_id::text) FROM raised";
/// An alert that ends because the next notice is there causes no message.
const REPLACE: &str = "WITH replaced AS ( \
        UPDATE quota_alert SET resolved_at = greatest($5, raised_at), resolved_by = $6, resolve_reason = 'replaced', \
            resolve_seen_at = now() \
        WHERE resolved_at IS NULL AND merchant_id = $1 AND currency = $2 AND subject = $3 AND window_id = $4 \
        RETURNING alert_id \
    ) SELECT pg_notify($7, alert_id::text) FROM replaced";
const OPEN: &str = "SELECT alert_id, merchant_id, currency::text, subject, window_id FROM quota_alert AS alert \
    NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM UNNEST($1::text[], $2::text[]) \
        AS given (merchant_id, currency)) AS given \
    WHERE resolved_at IS NULL AND subject = ANY($3)";

/// Why an alert of a credit line ends.
pub const PAID: &str = "paid";
pub const CURED: &str = "cured";

/// The account of a credit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineAccount<'a> {
    pub merchant_id: &'a str,
    pub currency: &'a str,
}

/// Who receives an alert, and on which channels.
#[derive(Clone, Copy, Debug)]
pub struct Addressed<'a> {
    /// `merchant`, `operators` or both.
    pub recipients: &'a [&'a str],
    /// Of the channels that a route names, by id or kind; all of them where it names none of these.
    pub channels: &'a [&'a str],
}

/// An alert of a credit line that is open.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OpenLineAlert {
    pub alert_id: Uuid,
    pub merchant_id: String,
    pub currency: String,
    subject: String,
    /// The cycle of the statement that it demands, or the day since which the line is watched; `YYYYMMDD`.
    pub window_id: Option<i32>,
}

impl OpenLineAlert {
    /// The open alerts of these accounts.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn of(
        connection: &mut PgConnection,
        merchants: &[&str],
        currencies: &[&str],
    ) -> Result<Vec<Self>, sqlx::Error> {
        let subjects = [Subject::CreditDunning, Subject::CreditWatch].map(Subject::column);
        sqlx::query_as(OPEN).bind(merchants).bind(currencies).bind(&subjects[..]).fetch_all(connection).await
    }

    /// Whether it is a notice of dunning.
    #[must_use]
    pub fn is_dunning(&self) -> bool {
        self.subject == Subject::CreditDunning.column()
    }
}

/// Raises the alert that carries a notice of dunning. It replaces that of the statement's notice before it.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn raise_notice(
    connection: &mut PgConnection,
    alert_id: Uuid,
    dunning: &Dunning<'_>,
    addressed: Addressed<'_>,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let LineAccount { merchant_id, currency } = dunning.account;
    let query = sqlx::query(REPLACE).bind(merchant_id).bind(currency).bind(Subject::CreditDunning.column());
    let query = query.bind(dunning.cycle).bind(at).bind(SYSTEM).bind(CHANNEL);
    query.execute(&mut *connection).await?;
    let alert = Raised {
        alert_id,
        account: dunning.account,
        subject: Subject::CreditDunning,
        level: dunning.level,
        window_id: dunning.cycle,
        message: words::dunning(dunning),
        addressed,
        at,
        once: false,
    };
    alert.insert(connection).await.map(drop)
}

/// Raises the operators' alert of a line that risk watches since a day (`YYYYMMDD`); false where that was done.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn raise_watch(
    connection: &mut PgConnection,
    alert_id: Uuid,
    watched: &Watched<'_>,
    at: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let alert = Raised {
        alert_id,
        account: watched.account,
        subject: Subject::CreditWatch,
        level: Level::Warning,
        window_id: watched.since,
        message: words::watched(watched),
        addressed: Addressed { recipients: &["operators"], channels: &[] },
        at,
        once: true,
    };
    alert.insert(connection).await
}

/// An alert to be inserted.
struct Raised<'a> {
    alert_id: Uuid,
    account: LineAccount<'a>,
    subject: Subject,
    level: Level,
    window_id: i32,
    message: String,
    addressed: Addressed<'a>,
    at: DateTime<Utc>,
    /// One is enough while it is open, and for its window where it was resolved by hand.
    once: bool,
}

impl Raised<'_> {
    async fn insert(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let channels = Some(self.addressed.channels).filter(|channels| !channels.is_empty());
        let query = sqlx::query(RAISE)
            .bind(self.alert_id)
            .bind(self.account.merchant_id)
            .bind(self.account.currency)
            .bind(self.subject.column())
            .bind(self.level.into_str())
            .bind(self.window_id)
            .bind(&self.message)
            .bind(self.addressed.recipients)
            .bind(channels)
            .bind(self.at)
            .bind(self.once)
            .bind(CHANNEL);
        Ok(query.fetch_optional(connection).await?.is_some())
    }
}
