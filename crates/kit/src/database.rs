//! Connections to Postgres for everything but the journal, which has one of its own.

pub mod change;
pub mod copy;
pub mod fitness;
pub mod leader;
pub mod notifications;
pub mod row;

use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// For crates that pass connections on and have no SQL of their own.
pub use sqlx::Connection;
pub use sqlx::Error;
pub use sqlx::postgres::{PgConnection, PgPool};

use crate::health::Away;
use crate::secret::Secret;

/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// An unused connection is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Postgres gives up a statement, or the wait for a lock, before a caller gives up the request.
const SESSION: [(&str, &str); 3] =
    [("statement_timeout", "8s"), ("lock_timeout", "4s"), ("idle_in_transaction_session_timeout", "10s")];
/// A server that vanishes silently is noticed within 20 s, and its locks are released.
pub const KEEPALIVE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5s"),
    ("tcp_keepalives_interval", "5s"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "15s"),
];

/// SQLSTATEs of a database in which the migrations have not run yet.
const NOT_MIGRATED: [&str; 3] = ["42P01", "42703", "3F000"];
/// Class 57: Postgres is being stopped, or was; and those of connections.
const GOING: [&str; 2] = ["57", "08"];

impl Away for sqlx::Error {
    /// Also where the migrations have not run yet: that ends with the outage, or with the first start.
    fn is_away(&self) -> bool {
        match self {
            Self::Io(_) | Self::Tls(_) | Self::PoolTimedOut | Self::PoolClosed | Self::WorkerCrashed => true,
            Self::Database(error) => error.code().is_some_and(|code| {
                NOT_MIGRATED.contains(&code.as_ref()) || GOING.iter().any(|class| code.starts_with(class))
            }),
            _ => false,
        }
    }
}

/// Bounds a wait for Postgres.
///
/// # Errors
/// Those of the work, and [`sqlx::Error::PoolTimedOut`] where it takes longer.
pub async fn within<T>(time: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(time, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// A pool that connects when it is first used, so that a server starts with Postgres away.
///
/// # Errors
/// [`sqlx::Error`] for a URL that cannot be read.
pub fn pool(url: &Secret, connections_max: u32) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(url.expose())?
        .application_name("sluice-server")
        .options(SESSION)
        .options(KEEPALIVE)
        .disable_statement_logging();
    Ok(lazy(options, connections_max))
}

/// A second pool for the same database, so that users of the one cannot take the other's connections.
#[must_use]
pub fn beside(pool: &PgPool, connections_max: u32) -> PgPool {
    lazy(PgConnectOptions::clone(&pool.connect_options()), connections_max)
}

fn lazy(options: PgConnectOptions, connections_max: u32) -> PgPool {
    let pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT);
    pool.connect_lazy_with(options)
}
