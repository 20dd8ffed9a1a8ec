//! Idempotency keys, each with its request's fingerprint and, when there is one, the answer. A key lives for a day.

use sluice_kit::shutdown::Shutdown;
use sqlx::PgPool;
use uuid::Uuid;

/// Most keys removed by one statement.
const SWEEP_ROWS_MAX: i64 = 10_000;

/// Claims the key, or takes it over if it is older than a day or if its request ended without an answer: that is after a
/// minute, longer than any request may run, and only if the request may run twice. Returns a row if the key is ours now.
const CLAIM: &str = "INSERT INTO idempotency_key AS k (subject, path, key, fingerprint, claim) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (subject, path, key) DO UPDATE SET fingerprint = excluded.fingerprint, claim = excluded.claim, \
        claimed_at = now(), status = NULL, headers = NULL, body = NULL \
    WHERE k.claimed_at < now() - interval '24 hours' \
        OR ($6 AND k.status IS NULL AND k.fingerprint = excluded.fingerprint \
            AND k.claimed_at < now() - interval '1 minute') \
    RETURNING true";
const LOOK_UP: &str = "SELECT fingerprint, status, headers, body, \
        status IS NULL AND claimed_at < now() - interval '1 minute' AS is_abandoned \
    FROM idempotency_key WHERE subject = $1 AND path = $2 AND key = $3";
const KEEP: &str = "UPDATE idempotency_key SET status = $5, headers = $6, body = $7 \
    WHERE subject = $1 AND path = $2 AND key = $3 AND claim = $4";
const RELEASE: &str = "DELETE FROM idempotency_key WHERE subject = $1 AND path = $2 AND key = $3 AND claim = $4";
const SWEEP: &str = "DELETE FROM idempotency_key WHERE ctid IN \
    (SELECT ctid FROM idempotency_key WHERE claimed_at < now() - interval '24 hours' LIMIT $1)";

/// A request with a key. The key is its own while it runs, once [`Claim::take`] has succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The caller, with its roles and its merchant.
    pub subject: String,
    /// Method and path.
    pub path: String,
    pub key: String,
    pub fingerprint: [u8; 32],
    /// Whether the request may run twice if its outcome is unknown.
    pub repeatable: bool,
    pub id: Uuid,
}

/// A key as Postgres has it. Status, headers and body are there when there is an answer.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct StoredKey {
    pub fingerprint: Vec<u8>,
    pub status: Option<i16>,
    /// Name and value in turn.
    pub headers: Option<Vec<String>>,
    pub body: Option<Vec<u8>>,
    /// Whether its request has ended without an answer.
    pub is_abandoned: bool,
}

impl Claim {
    /// Whether the key is ours now.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub(crate) async fn take(&self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        let taken: Option<bool> = sqlx::query_scalar(CLAIM)
            .bind(&self.subject)
            .bind(&self.path)
            .bind(&self.key)
            .bind(self.fingerprint.as_slice())
            .bind(self.id)
            .bind(self.repeatable)
            .fetch_optional(pool)
            .await?;
        Ok(taken.is_some())
    }

    /// The key as it is stored; none where its first request has just released it.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub(crate) async fn look_up(&self, pool: &PgPool) -> Result<Option<StoredKey>, sqlx::Error> {
        sqlx::query_as(LOOK_UP).bind(&self.subject).bind(&self.path).bind(&self.key).fetch_optional(pool).await
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub(crate) async fn keep(
        &self,
        pool: &PgPool,
        status: u16,
        headers: &[&str],
        body: &[u8],
    ) -> Result<(), sqlx::Error> {
        sqlx::query(KEEP)
            .bind(&self.subject)
            .bind(&self.path)
            .bind(&self.key)
            .bind(self.id)
            .bind(i16::try_from(status).unwrap_or_default())
            .bind(headers)
            .bind(body)
            .execute(pool)
            .await
            .map(drop)
    }

    /// Gives the key back: the request may be sent again with it.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub(crate) async fn release(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let query = sqlx::query(RELEASE).bind(&self.subject).bind(&self.path).bind(&self.key).bind(self.id);
        query.execute(pool).await.map(drop)
    }
}

/// Removes expired keys: as many statements as it takes, each short.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn remove_expired(pool: &PgPool, stopped: &Shutdown) -> Result<(), sqlx::Error> {
    loop {
        let removed = sqlx::query(SWEEP).bind(SWEEP_ROWS_MAX).execute(pool).await?.rows_affected();
        if removed < SWEEP_ROWS_MAX.unsigned_abs() || stopped.is_requested() {
            return Ok(());
        }
    }
}
