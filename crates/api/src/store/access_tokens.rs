//! Access tokens: their hashes, and what they grant.

use chrono::{DateTime, Utc};
use quota::MerchantId;
use serde::Serialize;
use sluice_auth::{Permission, Role};
use sqlx::{AssertSqlSafe, PgPool, QueryBuilder};
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

/// One token, as far as a caller may see it: any, or those of one merchant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible<'a> {
    pub id: Uuid,
    pub merchant: Option<&'a MerchantId>,
}

/// At most `limit` tokens, the newest first, from the given position on; of one merchant, or of all.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn list(
    pool: &PgPool,
    merchant: Option<&MerchantId>,
    is_active: Option<bool>,
    after: Option<TimeId>,
    limit: i64,
) -> Result<Vec<AccessToken>, sqlx::Error> {
    let mut sql = QueryBuilder::new(format!("SELECT {COLUMNS} FROM access_token WHERE true"));
    if let Some(merchant) = merchant {
        sql.push(" AND merchant_id = ").push_bind(merchant.as_str());
    }
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

/// Stores a new token.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn insert(
    pool: &PgPool,
    new: NewId<'_>,
    grant: &Grant,
    actor: &str,
) -> Result<AccessToken, sqlx::Error> {
    let permissions = grant.permissions.as_ref().map(|permissions| {
        let mut names: Vec<&str> = permissions.iter().map(|permission| permission.into_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    });
    let sql = format!(
        "INSERT INTO access_token (id, name, secret_hash, role, merchant_id, permissions, created_by, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {COLUMNS}"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(new.id)
        .bind(&grant.name)
        .bind(new.secret_hash)
        .bind(grant.role.into_str())
        .bind(grant.merchant.as_ref().map(MerchantId::as_str))
        .bind(permissions)
        .bind(actor)
        .bind(grant.expires_at)
        .fetch_one(pool)
        .await
}

/// Revokes a token that is in force and stores its replacement, both or none; `None` where the token is not in force.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn replace(
    pool: &PgPool,
    old: Visible<'_>,
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
        .bind(old.id)
        .bind(old.merchant.map(MerchantId::as_str))
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
pub(crate) async fn revoke(pool: &PgPool, token: Visible<'_>, actor: &str) -> Result<bool, sqlx::Error> {
    let statement = "UPDATE access_token \
        SET revoked_at = coalesce(revoked_at, now()), revoked_by = coalesce(revoked_by, $2) \
        WHERE id = $1 AND ($3::text IS NULL OR merchant_id = $3)";
    let query = sqlx::query(statement).bind(token.id).bind(actor).bind(token.merchant.map(MerchantId::as_str));
    Ok(query.execute(pool).await?.rows_affected() > 0)
}

/// Whether there is such a token, in force or not.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub(crate) async fn exists(pool: &PgPool, token: Visible<'_>) -> Result<bool, sqlx::Error> {
    let statement = "SELECT EXISTS (SELECT FROM access_token WHERE id = $1 AND ($2::text IS NULL OR merchant_id = $2))";
    sqlx::query_scalar(statement).bind(token.id).bind(token.merchant.map(MerchantId::as_str)).fetch_one(pool).await
}
