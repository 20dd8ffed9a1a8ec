//! The statements of many lines: by account, and of each the oldest first. So that a line is read once for all of its own.

use jiff::civil::Date;
use quota::{Currency, MerchantId};
use serde::Serialize;
use sluice_kit::database::change::ChangeError;
use utoipa::ToSchema;

use crate::{LineKey, LineRepository, StatementView};

/// Which statements a list has; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct StatementFilter {
    pub merchant: Option<MerchantId>,
    pub currency: Option<Currency>,
    /// Closed on this day or later.
    pub from: Option<Date>,
    /// Closed on this day or earlier.
    pub to: Option<Date>,
}

/// A statement in a list of several lines.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AccountStatement {
    pub merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    pub statement: StatementView,
}

impl LineRepository {
    /// The accounts and numbers of statements, those after `after`.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn statement_keys(
        &self,
        filter: &StatementFilter,
        after: Option<&(LineKey, u32)>,
        limit: i64,
    ) -> Result<Vec<(LineKey, u32)>, ChangeError> {
        let statement = "SELECT merchant_id, currency::text, number FROM credit_statement \
            WHERE (merchant_id, currency, number) > ($1, $2::char(3), $3) \
            AND ($4::text IS NULL OR merchant_id = $4) AND ($5::text IS NULL OR currency = $5::char(3)) \
            AND closed_on BETWEEN coalesce($6::date, '-infinity') AND coalesce($7::date, 'infinity') \
            ORDER BY merchant_id, currency, number LIMIT $8";
        let (merchant, currency, number) =
            after.map_or(("", "", 0), |((merchant, currency), number)| (merchant.as_str(), currency.code(), *number));
        let query = sqlx::query_as(statement).bind(merchant).bind(currency);
        let query = query
            .bind(i32::try_from(number).unwrap_or(i32::MAX))
            .bind(filter.merchant.as_ref().map(MerchantId::as_str));
        let query = query.bind(filter.currency.map(Currency::code)).bind(filter.from.map(|day| day.to_string()));
        let query = query.bind(filter.to.map(|day| day.to_string())).bind(limit);
        let rows: Vec<(String, String, i32)> = query.fetch_all(&self.pool).await?;
        let key = |(merchant, currency, number): (String, String, i32)| {
            let account = MerchantId::parse(&merchant).ok().zip(Currency::parse(&currency).ok());
            let unreadable = || ChangeError::Database(sqlx::Error::Decode("a statement is of no account".into()));
            Ok((account.ok_or_else(unreadable)?, number.unsigned_abs()))
        };
        rows.into_iter().map(key).collect()
    }
}
