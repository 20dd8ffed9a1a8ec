//! Wakes open streams when an alert may have changed, so that an alert need not wait for the next reading.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio::time::timeout;

use sluice_kit::health::warn_unless_away;

/// What the journal and the API notify whenever they change an alert.
const CHANNEL: &str = "sluice_alert";
/// How often an idle connection is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failure Postgres is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Where streams wait. Clones wait for the same.
#[derive(Clone, Debug)]
pub struct Wake(watch::Receiver<u64>);

/// Wakes the streams.
#[derive(Debug)]
pub struct Waker(watch::Sender<u64>);

impl Wake {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Waker, Self) {
        let (sender, receiver) = watch::channel(0);
        (Waker(sender), Self(receiver))
    }

    /// Waits for the next change of an alert, or for the time to pass.
    pub async fn within(&mut self, time: Duration) {
        // A dropped waker wakes no stream.
        if let Ok(Err(_)) = timeout(time, self.0.changed()).await {
            tokio::time::sleep(time).await;
        }
    }
}

impl Waker {
    /// Listens until the stop. Without Postgres streams poll.
    pub async fn run(self, pool: PgPool, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = self.follow(pool) => {}
        }
    }

    async fn follow(&self, pool: PgPool) {
        let mut well = true;
        loop {
            if let Err(error) = self.listen(&pool, &mut well).await
                && std::mem::replace(&mut well, false)
            {
                warn_unless_away!(error, "cannot listen for alert changes: streams poll instead");
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    async fn listen(&self, pool: &PgPool, well: &mut bool) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        *well = true;
        loop {
            match timeout(PROBE_INTERVAL, listener.try_recv()).await {
                Ok(Ok(Some(_))) => {
                    while listener.next_buffered().is_some() {}
                    self.0.send_modify(|count| *count = count.wrapping_add(1));
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let probe = sqlx::Executor::execute(&mut listener, "SELECT 1");
                    timeout(PROBE_TIMEOUT, probe).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
                }
            }
        }
    }
}
