//! Access tokens: their hashes, and what they grant.

use chrono::{DateTime, Utc};
use quota::MerchantId;
use serde::Serialize;
use sluice_auth::{Permission, Role};
use sqlx::{AssertSqlSafe, PgPool, Postgres, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::admin::page::TimeId;

/// What the API shows of a token.
const COLUMNS: &str = "id, name, role, merchant_id, permissions, created_at, created_by, expires_at, last_used_at, replaces, \
    revoked_at, revoked_by";

/// An access token without its text.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub(crate) struct AccessToken {
    pub id: Uuid,
    pub name: String,
    #[schema(value_type = Role)]
    pub role: String,
    pub merchant_id: Option<String>,
    /// Absent where it has all that its role grants.
    #[schema(value_type = Option<Vec<Permission>>)]
    pub permissions: Option<Vec<String>>,
    pub created_at: DateTime<Utc>,
    pub created_by: String,
    pub expires_at: Option<DateTime<Utc>>,
    /// To the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The token that was rotated into this one.
    pub replaces: Option<Uuid>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub revoked_by: Option<String>,
}

/// A token that may be made.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub name: String,
    pub role: Role,
    pub merchant: Option<MerchantId>,
    /// Absent for all that the role grants.
    pub permissions: Option<Vec<Permission>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// A new token's name in the database, and the hash of its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewId<'a> {
    pub id: Uuid,
    pub secret_hash: &'a [u8],
}

/// Tokens in force that a merchant may have made for itself.
const OWN_MAX: i64 = 20;
/// With the merchant's name, the lock under which its tokens are counted; any text that nothing else uses.
const OWN_LOCK: &str = "access_token:";

/// Tokens that a caller may see: any, those of one merchant, or of these those of one role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible<'a> {
    pub merchant: Option<&'a MerchantId>,
    pub role: Option<Role>,
}

impl Visible<'_> {
    /// Appends its conditions.
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(merchant) = self.merchant {
            sql.push(" AND merchant_id = ").push_bind(merchant.as_str().to_owned());
        }
        if let Some(role) = self.role {
            sql.push(" AND role = ").push_bind(role.into_str());
        }
    }
}

/// At most `limit` tokens, the newest first, from the given position on; of one merchant, or of all.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn list(
    pool: &PgPool,
    visible: Visible<'_>,
    is_active: Option<bool>,
    after: Option<TimeId>,
    limit: i64,
) -> Result<Vec<AccessToken>, sqlx::Error> {
    let mut sql = QueryBuilder::new(format!("SELECT {COLUMNS} FROM access_token WHERE true"));
    visible.push(&mut sql);
    if let Some(is_active) = is_active {
        let in_force = " AND (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())) = ";
        sql.push(in_force).push_bind(is_active);
    }
    if let Some(TimeId(at, id)) = after {
        sql.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit);
    sql.build_query_as().fetch_all(pool).await
}

/// Stores a new token. Where it is one of a role that is bounded, the merchant has [`OWN_MAX`] of them in force at most: `None`
/// beyond.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn insert(
    pool: &PgPool,
    new: NewId<'_>,
    grant: &Grant,
    actor: &str,
    bounded: Option<Role>,
) -> Result<Option<AccessToken>, sqlx::Error> {
    let permissions = grant.permissions.as_ref().map(|permissions| {
        let mut names: Vec<&str> = permissions.iter().map(|permission| permission.into_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    });
    let merchant = grant.merchant.as_ref().map(MerchantId::as_str);
    let mut transaction = pool.begin().await?;
    if let (Some(role), Some(merchant)) = (bounded, merchant) {
        let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1 || $2, 0))");
        lock.bind(OWN_LOCK).bind(merchant).execute(&mut *transaction).await?;
        let count = "SELECT count(*) FROM access_token WHERE merchant_id = $1 AND role = $2 AND revoked_at IS NULL \
            AND (expires_at IS NULL OR expires_at > now())";
        let count = sqlx::query_scalar(count).bind(merchant).bind(role.into_str());
        let in_force: i64 = count.fetch_one(&mut *transaction).await?;
        if in_force >= OWN_MAX {
            return Ok(None);
        }
    }
    let sql = format!(
        "INSERT INTO access_token (id, name, secret_hash, role, merchant_id, permissions, created_by, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {COLUMNS}"
    );
    let made = sqlx::query_as(AssertSqlSafe(sql))
        .bind(new.id)
        .bind(&grant.name)
        .bind(new.secret_hash)
        .bind(grant.role.into_str())
        .bind(merchant)
        .bind(permissions)
        .bind(actor)
        .bind(grant.expires_at)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Some(made))
}

/// Revokes a token that is in force and stores its replacement, both or none; `None` where the token is not in force.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn replace(
    pool: &PgPool,
    old: Uuid,
    merchant: Option<&MerchantId>,
    new: NewId<'_>,
    actor: &str,
) -> Result<Option<AccessToken>, sqlx::Error> {
    let sql = format!(
        "WITH old AS ( \
            UPDATE access_token SET revoked_at = now(), revoked_by = $3 \
            WHERE id = $1 AND ($2::text IS NULL OR merchant_id = $2) AND revoked_at IS NULL \
                AND (expires_at IS NULL OR expires_at > now()) \
            RETURNING id, name, role, merchant_id, permissions, expires_at) \
         INSERT INTO access_token (id, name, secret_hash, role, merchant_id, permissions, expires_at, created_by, replaces) \
         SELECT $4, name, $5, role, merchant_id, permissions, expires_at, $3, id FROM old RETURNING {COLUMNS}"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(old)
        .bind(merchant.map(MerchantId::as_str))
        .bind(actor)
        .bind(new.id)
        .bind(new.secret_hash)
        .fetch_optional(pool)
        .await
}

/// Revokes a token; whether there is one. Revoking again changes nothing, and the first time stays on record.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn revoke(pool: &PgPool, id: Uuid, visible: Visible<'_>, actor: &str) -> Result<bool, sqlx::Error> {
    let mut sql = QueryBuilder::new("UPDATE access_token SET revoked_at = coalesce(revoked_at, now()), revoked_by = ");
    sql.push("coalesce(revoked_by, ").push_bind(actor).push(") WHERE id = ").push_bind(id);
    visible.push(&mut sql);
    Ok(sql.build().execute(pool).await?.rows_affected() > 0)
}

/// Whether there is such a token of the merchant, or of any, in force or not.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn exists(pool: &PgPool, id: Uuid, merchant: Option<&MerchantId>) -> Result<bool, sqlx::Error> {
    let statement = "SELECT EXISTS (SELECT FROM access_token WHERE id = $1 AND ($2::text IS NULL OR merchant_id = $2))";
    sqlx::query_scalar(statement).bind(id).bind(merchant.map(MerchantId::as_str)).fetch_one(pool).await
}
