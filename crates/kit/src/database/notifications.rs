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
        Ok(!self.payloads_within(time).await?.is_empty())
    }

    /// The same, with the payloads of the notifications; none where none came.
    ///
    /// # Errors
    /// As [`Notifications::within`].
    pub async fn payloads_within(&mut self, time: Duration) -> Result<Vec<String>, sqlx::Error> {
        match timeout(time, self.0.try_recv()).await {
            Ok(Ok(Some(first))) => {
                let mut payloads = vec![first.payload().to_owned()];
                payloads.extend(std::iter::from_fn(|| self.0.next_buffered()).map(|next| next.payload().to_owned()));
                Ok(payloads)
            }
            Ok(Ok(None)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                super::within(PROBE_TIMEOUT, self.0.execute("SELECT 1")).await?;
                Ok(Vec::new())
            }
        }
    }
}
