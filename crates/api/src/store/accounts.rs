//! Accounts as the journal has them, some seconds behind their counters.

use quota::{Currency, MerchantId};
use serde::Serialize;
use sluice_decision::operations::Provenance;
use sqlx::{AssertSqlSafe, FromRow, PgPool};
use utoipa::ToSchema;

/// How many latest days are summed up.
const STATS_DAYS_MAX: i64 = 100;

/// The columns and tables of [`KnownAccount`].
const KNOWN_ACCOUNT: &str = "account.currency, account.suspended_reason, account.suspended_by, \
    merchant.suspended_reason AS merchant_suspended_reason, merchant.suspended_by AS merchant_suspended_by, \
    last_order_no, last_payment_no, account.last_updated_by \
    FROM quota_account AS account LEFT JOIN quota_merchant AS merchant USING (merchant_id)";

/// The journal's data of an account.
#[derive(Debug, FromRow)]
pub(crate) struct KnownAccount {
    pub currency: String,
    suspended_reason: Option<String>,
    suspended_by: Option<String>,
    merchant_suspended_reason: Option<String>,
    merchant_suspended_by: Option<String>,
    last_order_no: Option<String>,
    last_payment_no: Option<String>,
    last_updated_by: String,
}

impl From<KnownAccount> for Provenance {
    fn from(row: KnownAccount) -> Self {
        Self {
            suspended_reason: row.suspended_reason,
            suspended_by: row.suspended_by,
            merchant_suspended_reason: row.merchant_suspended_reason,
            merchant_suspended_by: row.merchant_suspended_by,
            last_order_no: row.last_order_no,
            last_payment_no: row.last_payment_no,
            last_updated_by: Some(row.last_updated_by),
        }
    }
}

/// The accounts of a merchant.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn of_merchant(pool: &PgPool, merchant: &MerchantId) -> Result<Vec<KnownAccount>, sqlx::Error> {
    let statement = format!("SELECT {KNOWN_ACCOUNT} WHERE merchant_id = $1");
    sqlx::query_as(AssertSqlSafe(statement)).bind(merchant.as_str()).fetch_all(pool).await
}

/// Why a merchant is suspended as a whole, and by whom; none where the journal does not know the merchant.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn suspension(
    pool: &PgPool,
    merchant: &MerchantId,
) -> Result<Option<(Option<String>, Option<String>)>, sqlx::Error> {
    let statement = "SELECT suspended_reason, suspended_by FROM quota_merchant WHERE merchant_id = $1";
    sqlx::query_as(statement).bind(merchant.as_str()).fetch_optional(pool).await
}

/// Which accounts to list.
#[derive(Debug)]
pub(crate) struct AccountFilter {
    pub merchant: Option<MerchantId>,
    pub currency: Option<Currency>,
    /// Whether charges of the account are refused: it is suspended, or its merchant as a whole.
    pub is_suspended: Option<bool>,
    pub is_merchant_suspended: Option<bool>,
}

/// An account of the list.
#[derive(Debug, FromRow)]
pub(crate) struct ListedAccount {
    pub merchant_id: String,
    #[sqlx(flatten)]
    pub known: KnownAccount,
}

impl AccountFilter {
    /// At most `limit` accounts after a merchant and currency, in their order.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub(crate) async fn page(
        &self,
        pool: &PgPool,
        (after_merchant, after_currency): (&str, &str),
        limit: i64,
    ) -> Result<Vec<ListedAccount>, sqlx::Error> {
        let statement = format!(
            "SELECT merchant_id, {KNOWN_ACCOUNT}
             WHERE (merchant_id, currency) > ($1, $2::char(3))
               AND ($3::text IS NULL OR merchant_id = $3)
               AND ($4::text IS NULL OR currency = $4::char(3))
               AND ($5::boolean IS NULL OR (coalesce(account.suspended_at, merchant.suspended_at) IS NOT NULL) = $5)
               AND ($6::boolean IS NULL OR (merchant.suspended_at IS NOT NULL) = $6)
             ORDER BY merchant_id, currency LIMIT $7"
        );
        sqlx::query_as(AssertSqlSafe(statement))
            .bind(after_merchant)
            .bind(after_currency)
            .bind(self.merchant.as_ref().map(MerchantId::as_str))
            .bind(self.currency.map(Currency::code))
            .bind(self.is_suspended)
            .bind(self.is_merchant_suspended)
            .bind(limit)
            .fetch_all(pool)
            .await
    }
}

/// The accounts of one currency together. Sums that do not fit 63 bits show the largest number that does.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub(crate) struct CurrencyStats {
    #[schema(example = "USD")]
    currency: String,
    accounts: i64,
    /// Whose charges are refused: suspended themselves, or with their merchant.
    suspended_accounts: i64,
    /// What open holds have not settled.
    pending_amount: i64,
}

/// The accounts of one currency whose latest business day is this one.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub(crate) struct DayStats {
    #[schema(example = "USD")]
    currency: String,
    /// YYYYMMDD, in each merchant's own time zone.
    #[schema(example = 20_261_121)]
    day: i32,
    accounts: i64,
    daily_used: i64,
    transactions_today: i64,
    refunded_today: i64,
}

/// Sums by currency; of one merchant's accounts, or of all.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn by_currency(
    pool: &PgPool,
    merchant: Option<&MerchantId>,
) -> Result<Vec<CurrencyStats>, sqlx::Error> {
    let statement = "SELECT currency, count(*) AS accounts,
            count(coalesce(account.suspended_at, merchant.suspended_at)) AS suspended_accounts,
            least(sum(pending_amount), 9223372036854775807)::bigint AS pending_amount
        FROM quota_account AS account LEFT JOIN quota_merchant AS merchant USING (merchant_id)
        WHERE $1::text IS NULL OR merchant_id = $1
        GROUP BY currency ORDER BY currency";
    sqlx::query_as(statement).bind(merchant.map(MerchantId::as_str)).fetch_all(pool).await
}

/// Sums by the latest business day of each account, the newest days first.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn by_day(pool: &PgPool, merchant: Option<&MerchantId>) -> Result<Vec<DayStats>, sqlx::Error> {
    let statement = "SELECT currency, daily_window AS day, count(*) AS accounts,
            least(sum(daily_used), 9223372036854775807)::bigint AS daily_used,
            least(sum(daily_count), 9223372036854775807)::bigint AS transactions_today,
            least(sum(daily_refunded), 9223372036854775807)::bigint AS refunded_today
        FROM quota_account WHERE ($1::text IS NULL OR merchant_id = $1) AND daily_window > 0
        GROUP BY daily_window, currency ORDER BY daily_window DESC, currency LIMIT $2";
    sqlx::query_as(statement).bind(merchant.map(MerchantId::as_str)).bind(STATS_DAYS_MAX).fetch_all(pool).await
}

/// How many merchants are suspended as a whole.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn suspended_merchants(pool: &PgPool, merchant: Option<&MerchantId>) -> Result<i64, sqlx::Error> {
    let statement = "SELECT count(*) FROM quota_merchant \
        WHERE suspended_at IS NOT NULL AND ($1::text IS NULL OR merchant_id = $1)";
    sqlx::query_scalar(statement).bind(merchant.map(MerchantId::as_str)).fetch_one(pool).await
}
