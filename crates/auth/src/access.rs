//! The caller of an access token: looked up in Postgres, cached for a moment, its use recorded. A revoked token is refused at once
//! by the server that revoked it, and by the others when their cache entry ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use quota::{ActorId, MerchantId};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::warn;
use uuid::Uuid;

use super::caller::{Caller, Via};
use super::jwt::invalid;
use super::role::{Permissions, Role};
use super::token::{self, Hash};
use crate::problem::{Answer, Kind, Problem};
use sluice_kit::clock;

/// How long a token is cached without a query to Postgres: the time that a revocation takes to reach every server.
const REMEMBERED: Duration = Duration::from_millis(500);
/// Most cached tokens; beyond it the cache is cleared and all are looked up again.
const REMEMBERED_MAX: usize = 10_000;
/// A token's use is recorded once in this time.
const USE_RECORDED_MS: i64 = 60_000;
/// Most recordings of a use in progress.
const RECORDINGS_MAX: usize = 4;
/// Most look-ups in progress. They come before the callers' rates, since the caller is not known yet: made-up tokens must not take
/// every connection.
const LOOK_UPS_MAX: usize = 4;
/// How long a look-up waits for its turn.
const LOOK_UP_WAIT: Duration = Duration::from_secs(2);
/// `Retry-After` after that.
const LOOK_UP_RETRY_SECS: u64 = 1;

const LOOK_UP: &str = "SELECT id, role, merchant_id, permissions, expires_at, last_used_at \
    FROM access_token WHERE secret_hash = $1 AND revoked_at IS NULL";
const RECORD_USE: &str = "UPDATE access_token SET last_used_at = now() \
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')";

/// The row of a token that is in force.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    id: Uuid,
    role: String,
    merchant_id: Option<String>,
    permissions: Option<Vec<String>>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

/// A cached token.
#[derive(Clone, Debug)]
struct Known {
    id: Uuid,
    caller: Caller,
    expires_at_ms: Option<i64>,
    used_at_ms: Option<i64>,
    until: Instant,
}

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<Hash, Known>,
    /// How often the cache was cleared: what was read before is not cached after.
    generation: u64,
}

/// Looks up access tokens.
#[derive(Debug)]
pub(super) struct Access {
    pool: PgPool,
    memory: Mutex<Memory>,
    recordings: Arc<Semaphore>,
    look_ups: Semaphore,
}

impl Access {
    pub(super) fn new(pool: PgPool) -> Self {
        let recordings = Arc::new(Semaphore::new(RECORDINGS_MAX));
        Self { pool, memory: Mutex::default(), recordings, look_ups: Semaphore::new(LOOK_UPS_MAX) }
    }

    /// The caller that holds the token.
    pub(super) async fn verify(&self, text: &str) -> Answer<Caller> {
        if !token::is_well_formed(text) {
            return Err(invalid("it is not an access token"));
        }
        let hash = token::hash(text);
        let now_ms = clock::now_ms();
        let known = match self.remembered(&hash) {
            Some(known) => known,
            None => self.in_turn(hash).await?,
        };
        if known.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Err(invalid("it has expired"));
        }
        self.record_use(&hash, &known, now_ms);
        Ok(known.caller)
    }

    /// Clears the cache, so that a revocation takes effect at once.
    pub(super) fn forget(&self) {
        let mut memory = self.memory();
        memory.known.clear();
        memory.generation = memory.generation.wrapping_add(1);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, hash: &Hash) -> Option<Known> {
        self.memory().known.get(hash).filter(|known| Instant::now() < known.until).cloned()
    }

    async fn in_turn(&self, hash: Hash) -> Answer<Known> {
        let busy = || Problem::new(Kind::Busy).detail("too many tokens are looked up").retry_after(LOOK_UP_RETRY_SECS);
        let turn = timeout(LOOK_UP_WAIT, self.look_ups.acquire()).await;
        let Ok(Ok(_permit)) = turn else { return Err(busy()) };
        // Another request with the same token may have been first.
        match self.remembered(&hash) {
            Some(known) => Ok(known),
            None => self.look_up(hash).await,
        }
    }

    async fn look_up(&self, hash: Hash) -> Answer<Known> {
        let generation = self.memory().generation;
        // Counted from before the query, so that the answer is never older than its time.
        let until = Instant::now() + REMEMBERED;
        let row: Option<Row> = sqlx::query_as(LOOK_UP).bind(hash.as_slice()).fetch_optional(&self.pool).await?;
        let known = row.ok_or_else(|| invalid("it is not known, or was revoked"))?.known(until)?;
        let mut memory = self.memory();
        if memory.generation == generation {
            if memory.known.len() >= REMEMBERED_MAX {
                memory.known.clear();
            }
            memory.known.insert(hash, known.clone());
        }
        Ok(known)
    }

    /// Records that the token was used, in parallel to the request and not too often.
    fn record_use(&self, hash: &Hash, known: &Known, now_ms: i64) {
        if known.used_at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < USE_RECORDED_MS) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.recordings).try_acquire_owned() else { return };
        if let Some(known) = self.memory().known.get_mut(hash) {
            known.used_at_ms = Some(now_ms);
        }
        let (pool, id) = (self.pool.clone(), known.id);
        tokio::spawn(async move {
            if let Err(error) = sqlx::query(RECORD_USE).bind(id).execute(&pool).await {
                warn!(%error, token_id = %id, "use of an access token could not be recorded");
            }
            drop(permit);
        });
    }
}

impl Row {
    fn known(self, until: Instant) -> Answer<Known> {
        let caller = self.caller().ok_or_else(|| Problem::internal("access_token", &"a row cannot be read"))?;
        let millis = |at: DateTime<Utc>| at.timestamp_millis();
        let (expires_at_ms, used_at_ms) = (self.expires_at.map(millis), self.last_used_at.map(millis));
        Ok(Known { id: self.id, caller, expires_at_ms, used_at_ms, until })
    }

    /// `None` for a row that we would not have written: then the token is refused.
    fn caller(&self) -> Option<Caller> {
        let role = self.role.parse().ok()?;
        let merchant = self.merchant_id.as_deref().map(MerchantId::parse).transpose().ok()?;
        if role == Role::Merchant && merchant.is_none() {
            return None;
        }
        let granted = grantable(role);
        let scopes = match &self.permissions {
            Some(names) => {
                let named: Option<Permissions> = names.iter().map(|name| name.parse().ok()).collect();
                granted.and(named?)
            }
            None => granted,
        };
        let subject = ActorId::parse(&token::subject(self.id)).ok()?;
        let expires_at_ms = self.expires_at.map(|at| at.timestamp_millis());
        Some(Caller { subject, roles: vec![role], merchant, scopes, via: Via::Token, expires_at_ms })
    }
}

/// What an access token of the role may hold at most.
pub fn grantable(role: Role) -> Permissions {
    role.permissions().iter().filter(|permission| permission.for_tokens()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::role::Permission;
    use super::*;

    fn row(role: &str, merchant: Option<&str>, permissions: Option<&[&str]>) -> Row {
        Row {
            id: Uuid::from_u128(7),
            role: role.to_owned(),
            merchant_id: merchant.map(str::to_owned),
            permissions: permissions.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            expires_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn a_row_grants_what_role_and_permissions_both_do() {
        let caller = row("operator", None, Some(&["quotas:read", "tokens:manage"])).caller().unwrap();
        assert_eq!(caller.scopes.iter().collect::<Vec<_>>(), [Permission::QuotasRead]);
        assert_eq!(caller.subject.as_str(), "token:00000000-0000-0000-0000-000000000007");
        let admin = row("admin", Some("m-1"), None).caller().unwrap();
        assert!(admin.scopes.has(Permission::SettingsWrite) && admin.merchant.is_some());
        for persons in [Permission::TokensManage, Permission::PoliciesWrite, Permission::PoliciesApprove] {
            assert!(!admin.scopes.has(persons), "{}", persons.into_str());
        }
    }

    #[test]
    fn a_row_that_is_not_ours_lets_nobody_in() {
        for row in [
            row("root", None, None),
            row("merchant", None, None),
            row("admin", Some(""), None),
            row("admin", None, Some(&["*"])),
        ] {
            assert_eq!(row.caller(), None, "{row:?}");
        }
    }
}
