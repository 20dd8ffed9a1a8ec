//! Accounts as the journal has stored them, for callers that read all of them.

use chrono::{DateTime, Utc};
use quota::{Account, Counter, PerPeriod, ThresholdLevels};
use sqlx::postgres::PgConnection;

use super::accounts::MARKS_BITS;

/// Accounts per page.
const PER_PAGE: i64 = 1_000;

/// An account whose windows may be over.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct OpenAccount {
    /// The last day, `YYYYMMDD`, of its shortest window that has counted anything.
    pub open_until: i32,
    pub merchant_id: String,
    pub currency: String,
}

impl OpenAccount {
    /// Most accounts of a page.
    pub const PER_PAGE: i64 = PER_PAGE;

    /// The next accounts after one that have counted something in a window that is over by `latest_day` (`YYYYMMDD`).
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn page(connection: &mut PgConnection, after: &Self, latest_day: i32) -> Result<Vec<Self>, sqlx::Error> {
        let statement = "SELECT open_until, merchant_id, currency::text AS currency FROM quota_account \
            WHERE open_until < $1 AND (open_until, merchant_id, currency) > ($2, $3, $4::text::char(3)) \
            ORDER BY open_until, merchant_id, currency LIMIT $5";
        let query = sqlx::query_as(statement).bind(latest_day).bind(after.open_until);
        query.bind(&after.merchant_id).bind(&after.currency).bind(PER_PAGE).fetch_all(connection).await
    }
}

/// Accounts in a day that has begun nowhere.
#[derive(Debug, sqlx::FromRow)]
pub struct AccountsAhead {
    pub accounts: i64,
    /// One of them, and the latest day.
    pub merchant_id: Option<String>,
    pub day: Option<i32>,
}

impl AccountsAhead {
    /// Those in a day after `latest_day` (`YYYYMMDD`).
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn of(connection: &mut PgConnection, latest_day: i32) -> Result<Self, sqlx::Error> {
        let statement = "SELECT count(*) AS accounts, min(merchant_id) AS merchant_id, max(daily_window) AS day \
            FROM quota_account WHERE daily_window > $1";
        sqlx::query_as(statement).bind(latest_day).fetch_one(connection).await
    }
}

/// An account, as far as alerts concern it.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct StoredAccount {
    pub merchant_id: String,
    pub currency: String,
    pub shard: i32,
    /// The number of its last event among those of its shard.
    pub seq: i64,
    pub updated_at: DateTime<Utc>,
    /// What it uses of its credit line, in minor units; `None` without a line.
    pub credit_exposure: Option<i64>,
    daily_window: i32,
    daily_used: i64,
    daily_count: i64,
    monthly_window: i32,
    monthly_used: i64,
    monthly_count: i64,
    yearly_window: i32,
    yearly_used: i64,
    yearly_count: i64,
    pending_amount: i64,
    alert_marks: i32,
    alert_list: i32,
    weekly_window: i32,
    weekly_used: i64,
    weekly_count: i64,
    alert_marks_more: i32,
}

impl StoredAccount {
    /// The next accounts after one, in the order of merchant and currency; the first ones after one without a name.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn page(connection: &mut PgConnection, after: &Self) -> Result<Vec<Self>, sqlx::Error> {
        let statement = "SELECT * FROM quota_account WHERE (merchant_id, currency) > ($1, $2::text::char(3)) \
            ORDER BY merchant_id, currency LIMIT $3";
        let query = sqlx::query_as(statement).bind(&after.merchant_id).bind(&after.currency).bind(PER_PAGE);
        query.fetch_all(connection).await
    }

    /// These accounts, those that the journal knows.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn of(
        connection: &mut PgConnection,
        merchants: &[&str],
        currencies: &[&str],
    ) -> Result<Vec<Self>, sqlx::Error> {
        let statement = "SELECT account.* FROM quota_account AS account \
            NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM UNNEST($1::text[], $2::text[]) \
                AS given (merchant_id, currency)) AS given";
        sqlx::query_as(statement).bind(merchants).bind(currencies).fetch_all(connection).await
    }

    /// The account, in the windows that it was last changed in.
    #[must_use]
    pub fn account(&self) -> Account {
        let counter = |id: i32, amount: i64, count: i64| Counter {
            id: id.unsigned_abs(),
            amount: amount.unsigned_abs(),
            count: count.unsigned_abs(),
            ..Counter::default()
        };
        Account {
            windows: PerPeriod {
                day: counter(self.daily_window, self.daily_used, self.daily_count),
                week: counter(self.weekly_window, self.weekly_used, self.weekly_count),
                month: counter(self.monthly_window, self.monthly_used, self.monthly_count),
                year: counter(self.yearly_window, self.yearly_used, self.yearly_count),
            },
            pending: self.pending_amount.unsigned_abs(),
            levels: ThresholdLevels::unpacked(
                u64::from(self.alert_marks.unsigned_abs())
                    | u64::from(self.alert_marks_more.unsigned_abs()) << MARKS_BITS,
                u16::try_from(self.alert_list).unwrap_or_default(),
            ),
            ..Account::default()
        }
    }
}
