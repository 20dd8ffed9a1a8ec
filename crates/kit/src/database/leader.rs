//! One server of several does a task: the one whose session holds an advisory lock. The lock ends with the session, so that another
//! server takes over when this one dies.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgExecutor, PgPool};

/// Takes the lock for the session of a connection; false where another session has it.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn try_lock(session: impl PgExecutor<'_>, lock: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(lock).fetch_one(session).await
}

/// A session that holds the lock.
#[derive(Debug)]
pub struct Leader {
    /// Ends with the lock where it breaks.
    pub connection: PgConnection,
    lock: i64,
}

impl Leader {
    /// Takes a connection out of the pool, and the lock; `None` where another session has it.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn elect(pool: &PgPool, lock: i64) -> Result<Option<Self>, sqlx::Error> {
        let mut connection = pool.acquire().await?.detach();
        if try_lock(&mut connection, lock).await? {
            return Ok(Some(Self { connection, lock }));
        }
        connection.close().await?;
        Ok(None)
    }

    /// Releases the lock. Postgres notices the end of a connection some time after it: who asked at once would find the lock taken.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer; the lock ends with the connection then.
    pub async fn resign(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(self.lock).execute(&mut self.connection).await?;
        self.connection.close().await
    }
}
