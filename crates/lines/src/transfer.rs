//! Transfers of credit between two accounts, in steps that each happen once: reserve at the sender, credit the receiver. Where the
//! receiver cannot take it, the sender gets it back. The row is locked during a step, and says which one is next; a step that was
//! done before its row could say so is repeated without effect, because its posting has the transfer's number.

use chrono::{DateTime, SecondsFormat, Utc};
use quota::{Currency, MerchantId};
use serde::{Deserialize, Serialize};
use sluice_journal::usage_log::csv_text;
use sluice_kit::database::change::{ChangeError, read, read_all};
use sqlx::{PgPool, Postgres, QueryBuilder, Transaction};
use strum::IntoStaticStr;
use utoipa::ToSchema;
use uuid::Uuid;

type Result<T> = std::result::Result<T, ChangeError>;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum TransferState {
    /// Nothing was done yet.
    Requested,
    /// It was taken from the sender.
    Reserved,
    /// The receiver could not take it: the sender gets it back.
    Returning,
    /// The receiver has it.
    Completed,
    /// The sender could not give it: nothing was changed.
    Refused,
    /// The sender has it back.
    Returned,
}

impl TransferState {
    /// Whether no step is left.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Refused | Self::Returned)
    }
}

/// A transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    #[schema(example = "TRANSFER-001")]
    pub transfer_no: String,
    pub from_merchant_id: String,
    pub to_merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    /// Minor units.
    pub amount: i64,
    pub state: TransferState,
    /// Why it was refused or returned.
    #[schema(example = "CREDIT_EXHAUSTED")]
    pub code: Option<String>,
    pub reason: Option<String>,
    pub requested_by: String,
    /// `admin` for a person, `api` for a program.
    pub operator_type: String,
    /// The decision at the sender; its usage log row has the same id.
    pub reserve_decision: Option<Uuid>,
    /// The decision at the receiver.
    pub credit_decision: Option<Uuid>,
    /// The decision that gave it back.
    pub return_decision: Option<Uuid>,
    pub requested_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The columns of a file of transfers.
pub const TRANSFER_COLUMNS: [&str; 15] = [
    "transfer_no",
    "from_merchant_id",
    "to_merchant_id",
    "currency",
    "amount",
    "state",
    "code",
    "reason",
    "requested_by",
    "operator_type",
    "reserve_decision",
    "credit_decision",
    "return_decision",
    "requested_at",
    "updated_at",
];

impl Transfer {
    /// The cells of its row.
    #[must_use]
    pub fn cells(&self) -> [String; 15] {
        let text = |text: &str| csv_text(text).into_owned();
        let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        [
            text(&self.transfer_no),
            text(&self.from_merchant_id),
            text(&self.to_merchant_id),
            self.currency.clone(),
            self.amount.to_string(),
            self.state.into_str().to_owned(),
            self.code.clone().unwrap_or_default(),
            text(self.reason.as_deref().unwrap_or_default()),
            text(&self.requested_by),
            self.operator_type.clone(),
            id(self.reserve_decision),
            id(self.credit_decision),
            id(self.return_decision),
            time(self.requested_at),
            time(self.updated_at),
        ]
    }
}

/// Which transfers a list has; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct TransferFilter {
    /// On either side.
    pub merchant: Option<MerchantId>,
    pub currency: Option<Currency>,
    pub state: Option<TransferState>,
    /// Requested not before this time.
    pub from: Option<DateTime<Utc>>,
    /// Requested before this time.
    pub to: Option<DateTime<Utc>>,
}

impl TransferFilter {
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(merchant) = &self.merchant {
            sql.push(" AND (from_merchant_id = ").push_bind(merchant.as_str().to_owned());
            sql.push(" OR to_merchant_id = ").push_bind(merchant.as_str().to_owned()).push(")");
        }
        if let Some(currency) = self.currency {
            sql.push(" AND currency = ").push_bind(currency.code().to_owned());
        }
        if let Some(state) = self.state {
            sql.push(" AND state = ").push_bind(state.into_str());
        }
        if let Some(from) = self.from {
            sql.push(" AND requested_at >= ").push_bind(from);
        }
        if let Some(to) = self.to {
            sql.push(" AND requested_at < ").push_bind(to);
        }
    }
}

/// A transfer that is requested.
#[derive(Clone, Copy, Debug)]
pub struct NewTransfer<'a> {
    pub transfer_no: &'a str,
    pub from_merchant_id: &'a str,
    pub to_merchant_id: &'a str,
    pub currency: &'a str,
    /// Minor units.
    pub amount: i64,
    pub reason: Option<&'a str>,
    pub requested_by: &'a str,
    pub operator_type: &'a str,
}

impl NewTransfer<'_> {
    /// Whether a stored transfer of this number is this one.
    #[must_use]
    pub fn is(&self, stored: &Transfer) -> bool {
        let terms = (self.from_merchant_id, self.to_merchant_id, self.currency, self.amount);
        terms == (&*stored.from_merchant_id, &*stored.to_merchant_id, &*stored.currency, stored.amount)
    }
}

/// Transfers in Postgres.
#[derive(Clone, Debug)]
pub struct TransferRepository {
    pool: PgPool,
}

impl TransferRepository {
    /// Works in the pool's database.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Records that a transfer is requested. One with its number stays as it is.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn request(&self, new: &NewTransfer<'_>) -> Result<()> {
        let statement = "INSERT INTO credit_transfer (transfer_no, from_merchant_id, to_merchant_id, currency, amount, \
                reason, requested_by, operator_type) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
        let query = sqlx::query(statement).bind(new.transfer_no).bind(new.from_merchant_id).bind(new.to_merchant_id);
        let query = query.bind(new.currency).bind(new.amount).bind(new.reason).bind(new.requested_by);
        query.bind(new.operator_type).execute(&self.pool).await?;
        Ok(())
    }

    /// A transfer; `None` where its number is not known.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn get(&self, transfer_no: &str) -> Result<Option<Transfer>> {
        let statement = "SELECT to_jsonb(t)::text FROM credit_transfer t WHERE transfer_no = $1";
        let found: Option<String> = sqlx::query_scalar(statement).bind(transfer_no).fetch_optional(&self.pool).await?;
        found.map(read).transpose()
    }

    /// At most `limit` transfers, the newest first, those before `after` (time and number of the last one of the page before).
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list(
        &self,
        filter: &TransferFilter,
        after: Option<(DateTime<Utc>, &str)>,
        limit: i64,
    ) -> Result<Vec<Transfer>> {
        let mut sql = QueryBuilder::new("SELECT to_jsonb(t)::text FROM credit_transfer t WHERE true");
        filter.push(&mut sql);
        if let Some((at, transfer_no)) = after {
            sql.push(" AND (requested_at, transfer_no) < (").push_bind(at);
            sql.push(", ").push_bind(transfer_no.to_owned()).push(")");
        }
        sql.push(" ORDER BY requested_at DESC, transfer_no DESC LIMIT ").push_bind(limit);
        read_all(sql.build_query_scalar().fetch_all(&self.pool).await?)
    }

    /// The transfers that have a step left: first those that were taken from the sender, then those that may wait for its policy; the
    /// oldest of each first.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn unfinished(&self, limit: i64) -> Result<Vec<Transfer>> {
        let statement = "SELECT to_jsonb(t)::text FROM credit_transfer t WHERE state IN ('requested', 'reserved', 'returning') \
            ORDER BY state = 'requested', requested_at LIMIT $1";
        read_all(sqlx::query_scalar(statement).bind(limit).fetch_all(&self.pool).await?)
    }

    /// A transfer as it is now; no other caller has a step of it until this one is done or dropped.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn step(&self, transfer_no: &str) -> Result<TransferStep> {
        let mut transaction = self.pool.begin().await?;
        let statement = "SELECT to_jsonb(t)::text FROM credit_transfer t WHERE transfer_no = $1 FOR UPDATE";
        let query = sqlx::query_scalar(statement).bind(transfer_no);
        let found: Option<String> = query.fetch_optional(&mut *transaction).await?;
        let transfer = found.ok_or(ChangeError::NotFound("transfer"))?;
        Ok(TransferStep { transaction, transfer: read(transfer)? })
    }
}

/// A transfer during a step.
#[derive(Debug)]
pub struct TransferStep {
    transaction: Transaction<'static, Postgres>,
    pub transfer: Transfer,
}

impl TransferStep {
    /// Records the step by its decision: the posting was accepted, or refused with a code.
    ///
    /// # Errors
    /// [`ChangeError::Database`]: the step is to be repeated.
    pub async fn done(mut self, decision: Uuid, refused: Option<&str>) -> Result<()> {
        let state = match (self.transfer.state, refused) {
            (TransferState::Requested, None) => TransferState::Reserved,
            (TransferState::Requested, Some(_)) => TransferState::Refused,
            (TransferState::Reserved, None) => TransferState::Completed,
            (TransferState::Reserved, Some(_)) => TransferState::Returning,
            (TransferState::Returning, None) => TransferState::Returned,
            // What was taken is given back in the end: it is tried again.
            (TransferState::Returning, Some(_))
            | (TransferState::Completed | TransferState::Refused | TransferState::Returned, _) => return Ok(()),
        };
        let statement = "UPDATE credit_transfer SET state = $2, code = coalesce($4, code), updated_at = now(), \
                reserve_decision = CASE state WHEN 'requested' THEN $3 ELSE reserve_decision END, \
                credit_decision = CASE state WHEN 'reserved' THEN $3 ELSE credit_decision END, \
                return_decision = CASE state WHEN 'returning' THEN $3 ELSE return_decision END \
            WHERE transfer_no = $1";
        let query = sqlx::query(statement).bind(&self.transfer.transfer_no).bind(state.into_str()).bind(decision);
        query.bind(refused).execute(&mut *self.transaction).await?;
        self.transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_in_the_order_of_the_columns() {
        let at = DateTime::UNIX_EPOCH;
        let transfer = Transfer {
            transfer_no: "=1".to_owned(),
            from_merchant_id: "shop".to_owned(),
            to_merchant_id: "-friend".to_owned(),
            currency: "USD".to_owned(),
            amount: 5,
            state: TransferState::Refused,
            code: Some("CREDIT_EXHAUSTED".to_owned()),
            reason: Some("@once".to_owned()),
            requested_by: "oleg".to_owned(),
            operator_type: "admin".to_owned(),
            reserve_decision: Some(Uuid::nil()),
            credit_decision: None,
            return_decision: None,
            requested_at: at,
            updated_at: at,
        };
        let document = serde_json::to_value(&transfer).unwrap();
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(TRANSFER_COLUMNS.len()));
        for (column, cell) in TRANSFER_COLUMNS.iter().zip(transfer.cells()) {
            let value = &document[column];
            let text = value.as_str().map_or_else(|| value.to_string().replace("null", ""), str::to_owned);
            assert_eq!(cell.trim_start_matches('\''), text, "{column}");
        }
        let guarded = transfer.cells().into_iter().filter(|cell| cell.starts_with('\'')).count();
        assert_eq!(guarded, 3, "what a spreadsheet takes for a formula");
    }
}
