//! Notifications of Postgres (`LISTEN`), and whether they can still come.

use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{Executor, PgPool};
use tokio::time::timeout;

/// How long a probe of the session may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A session that listens on one channel.
#[derive(Debug)]
pub struct Notifications(PgListener);

impl Notifications {
    /// Listens on the channel. What was changed before is not notified: read after this.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn listen(pool: &PgPool, channel: &str) -> Result<Self, sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        // A new session would have missed what was notified in between.
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        Ok(Self(listener))
    }

    /// Waits for notifications, at most for the time; whether one came. Those that have come by then count as one.
    ///
    /// A session whose other end vanished is silent, too: after the time it is probed.
    ///
    /// # Errors
    /// [`sqlx::Error`] where the session is lost.
    pub async fn within(&mut self, time: Duration) -> Result<bool, sqlx::Error> {
        match timeout(time, self.0.try_recv()).await {
            Ok(Ok(Some(_))) => {
                while self.0.next_buffered().is_some() {}
                Ok(true)
            }
            Ok(Ok(None)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                super::within(PROBE_TIMEOUT, self.0.execute("SELECT 1")).await?;
                Ok(false)
            }
        }
    }
}
