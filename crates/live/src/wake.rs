//! Wakes open streams when an alert may have changed, so that an alert need not wait for the next reading.

use sluice_kit::shutdown::Shutdown;
use std::time::Duration;

use sluice_kit::database::notifications::Notifications;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::timeout;

use sluice_kit::health::warn_unless_away;

/// What the journal and the API notify whenever they change an alert.
const CHANNEL: &str = "sluice_alert";
/// How often an idle connection is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
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
    pub async fn run(self, pool: PgPool, mut stopped: Shutdown) {
        let _ = stopped.until(self.follow(pool)).await;
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
        let mut notifications = Notifications::listen(pool, CHANNEL).await?;
        *well = true;
        loop {
            if notifications.within(PROBE_INTERVAL).await? {
                self.0.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }
}
