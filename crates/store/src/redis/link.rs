//! The connection to Redis of one user. It is made at its first use, and made again where it was lost, where it leads to a
//! server that is not the primary any more, or where it gives no answers.
//!
//! Managed services and Sentinel demote a primary while its connections stay open, and lead new ones to the successor. So a
//! reply from the wrong server costs the connection, never the command.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, RedisResult};
use tokio::time::Instant;
use tracing::debug;

use sluice_kit::secret::Secret;

/// After a connection was given up, the next one is kept for so long: where new ones lead to the same server, this bounds how
/// many are made.
const LEAVE_INTERVAL: Duration = Duration::from_millis(50);
/// A connection that gives no answers is replaced at this age: a server that is only slow keeps it for so long.
const SILENT_MIN_AGE: Duration = Duration::from_secs(1);

/// Reply codes of a server that is the wrong one to call. Nothing was applied then: Redis returns them before it runs a
/// command, and after a script's first write it returns none of them for that script.
///
/// - `READONLY`: a replica. `MASTERDOWN`: a replica that has lost its primary and does not answer from what it has.
/// - `NOREPLICAS`: a primary without its replicas, as one that was cut off and has a successor by now.
/// - `LOADING`: it was started anew; meanwhile another may have its place.
/// - `MOVED`, `ASK`, `CLUSTERDOWN`: a node of a cluster. A new connection helps where the address leads to another one; a cluster
///   itself is not served.
///
/// Of the others, `BUSY` and `TRYAGAIN` mean to wait, and the command's deadline is too short for that; `OOM` and `MISCONF` (it
/// cannot write its file) are the right server's refusal. All of them are errors of their commands, and the connection stays.
const WRONG_SERVER: [&str; 7] = ["READONLY", "MASTERDOWN", "NOREPLICAS", "LOADING", "MOVED", "ASK", "CLUSTERDOWN"];

/// Whether a reply's code means that another server has to be called, see [`WRONG_SERVER`].
pub fn is_wrong_server(code: &str) -> bool {
    WRONG_SERVER.contains(&code)
}

/// Whether the result is an error of [`WRONG_SERVER`].
pub(super) fn is_refused<T>(result: &RedisResult<T>) -> bool {
    result.as_ref().is_err_and(|error| error.code().is_some_and(is_wrong_server))
}

/// Whether the connection ended before the answer, or could not be made: the latter is returned to the next call only.
pub(super) fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() && !error.is_timeout()
}

/// How many times a user of the same Redis found that its connection leads to the wrong server. All of them reconnect then: a
/// user that only reads would not notice.
#[derive(Clone, Debug, Default)]
pub struct Failovers(Arc<AtomicU64>);

/// A connection, made anew where needed. It belongs to the runtime in which it was opened.
#[derive(Clone, Debug)]
pub struct RedisLink(Arc<Shared>);

struct Shared {
    client: Client,
    config: ConnectionManagerConfig,
    failovers: Failovers,
    current: Mutex<Current>,
}

struct Current {
    connection: ConnectionManager,
    number: u64,
    made_at: Instant,
    /// When the last one was given up for another server.
    left_at: Option<Instant>,
    /// The failovers that were known when it was made.
    failovers: u64,
}

impl RedisLink {
    /// Prepares the connection; `timeout` bounds making it. Failovers are shared by the users of one Redis.
    ///
    /// # Errors
    /// [`RedisError`] for an address that cannot be used.
    pub fn open(url: &Secret, timeout: Duration, failovers: Failovers) -> RedisResult<Self> {
        let client = Client::open(url.expose())?;
        // Without retries of its own: a payment that finds Redis away is answered at once, and the next one tries again. Calls
        // have bounds of their own.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(None);
        let known = failovers.0.load(Ordering::Relaxed);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        let current = Current { connection, number: 0, made_at: Instant::now(), left_at: None, failovers: known };
        Ok(Self(Arc::new(Shared { client, config, failovers, current: Mutex::new(current) })))
    }

    /// Its address, as in `127.0.0.1:6379`.
    #[must_use]
    pub fn address(&self) -> String {
        self.0.client.get_connection_info().addr().to_string()
    }

    /// Makes a call, once more on a new connection where `is_refused` is true for its result: it came from the wrong server.
    pub(super) async fn call<T, F>(
        &self,
        make: impl Fn(ConnectionManager) -> F,
        is_refused: impl Fn(&RedisResult<T>) -> bool,
    ) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (connection, number) = self.connection();
        let result = make(connection).await;
        if !is_refused(&result) || !self.leave(number) {
            return result;
        }
        let (connection, number) = self.connection();
        let result = make(connection).await;
        if is_refused(&result) {
            self.leave(number);
        }
        result
    }

    /// The same for a call that may be made twice: once more where the connection was lost, too.
    ///
    /// # Errors
    /// [`RedisError`] where Redis gives no answer that is one.
    pub async fn repeat<T, F>(&self, make: impl Fn(ConnectionManager) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        match self.call(&make, is_refused).await {
            Err(error) if is_lost(&error) => self.call(&make, is_refused).await,
            result => result,
        }
    }

    /// A call timed out: if the connection gave no answer for long, the next call has a new one.
    pub fn silent(&self) {
        let mut current = self.current();
        if current.made_at.elapsed() >= SILENT_MIN_AGE {
            self.replace(&mut current);
        }
    }

    /// The current connection, and its number.
    fn connection(&self) -> (ConnectionManager, u64) {
        let mut current = self.current();
        if current.failovers != self.0.failovers.0.load(Ordering::Relaxed) {
            self.replace(&mut current);
        }
        (current.connection.clone(), current.number)
    }

    /// Gives up the connection with this number, so that the next call has a new one; `false` where one was just given up.
    fn leave(&self, number: u64) -> bool {
        let mut current = self.current();
        if current.number != number {
            return true;
        }
        if current.left_at.is_some_and(|left_at| left_at.elapsed() < LEAVE_INTERVAL) {
            return false;
        }
        debug!(address = self.address(), "the connection leads to a redis that is not the primary, making a new one");
        self.0.failovers.0.fetch_add(1, Ordering::Relaxed);
        current.left_at = Some(Instant::now());
        self.replace(&mut current)
    }

    /// Calls under way on the old one are completed.
    fn replace(&self, current: &mut Current) -> bool {
        let failovers = self.0.failovers.0.load(Ordering::Relaxed);
        let made = ConnectionManager::new_lazy_with_config(self.0.client.clone(), self.0.config.clone());
        let Ok(connection) = made else { return false };
        let (number, left_at) = (current.number + 1, current.left_at);
        *current = Current { connection, number, made_at: Instant::now(), left_at, failovers };
        true
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLink").field("address", &self.client.get_connection_info().addr()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F2: which replies mean another server, and which do not.
    #[test]
    fn f2_replies_that_mean_another_server() {
        let table = [
            ("-READONLY You can't write against a read only replica.\r\n", true),
            ("-READONLY You can't write against a read only replica. script: f_1, on @user_script:1.\r\n", true),
            ("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", true),
            ("-NOREPLICAS Not enough good replicas to write.\r\n", true),
            ("-LOADING Redis is loading the dataset in memory\r\n", true),
            ("-MOVED 3999 127.0.0.1:6381\r\n", true),
            ("-ASK 3999 127.0.0.1:6381\r\n", true),
            ("-CLUSTERDOWN The cluster is down\r\n", true),
            ("-BUSY Redis is busy running a script.\r\n", false),
            ("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", false),
            ("-OOM command not allowed when used memory > 'maxmemory'.\r\n", false),
            ("-MISCONF Redis is configured to save RDB snapshots\r\n", false),
            ("-NOSCRIPT No matching script.\r\n", false),
            ("-NOAUTH Authentication required.\r\n", false),
            ("-WRONGTYPE Operation against a key\r\n", false),
            ("-ERR unknown command\r\n", false),
            ("+OK\r\n", false),
        ];
        for (reply, expected) in table {
            let value = redis::parse_redis_value(reply.as_bytes()).unwrap();
            let result = value.extract_error();
            assert_eq!(is_refused(&result), expected, "{reply}: {result:?}");
        }
    }
}
