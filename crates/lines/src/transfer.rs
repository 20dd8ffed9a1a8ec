//! Transfers of credit between two accounts, in steps that each happen once: reserve at the sender, credit the receiver. Where the
//! receiver cannot take it, the sender gets it back. The row is locked during a step, and says which one is next; a step that was
//! done before its row could say so is repeated without effect, because its posting has the transfer's number.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sluice_kit::database::change::{ChangeError, read, read_all};
use sqlx::{PgPool, Postgres, Transaction};
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

    /// The transfers that have a step left, the oldest first.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn unfinished(&self, limit: i64) -> Result<Vec<Transfer>> {
        let statement = "SELECT to_jsonb(t)::text FROM credit_transfer t WHERE state IN ('requested', 'reserved', 'returning') \
            ORDER BY requested_at LIMIT $1";
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
        let transfer = read(found.ok_or(ChangeError::NotFound("transfer"))?)?;
        Ok(TransferStep { transaction, transfer })
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
