//! The stop of a server, or of a part of it: one end requests it, the others end when it is requested.

use std::time::Duration;

use tokio::sync::watch;

/// Requests the stop. Dropping the last clone requests it, too.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

/// Sees the stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Both ends.
#[must_use]
pub fn channel() -> (Stop, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Shutdown(receiver))
}

impl Stop {
    /// Requests the stop; whether it had been requested before.
    pub fn request(&self) -> bool {
        self.0.send_replace(true)
    }
}

impl Shutdown {
    /// Whether the stop is requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the stop.
    pub async fn requested(&mut self) {
        // An error means that the other end is gone, which is a stop as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Works until the stop; `None` where that came first.
    pub async fn until<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.requested() => None,
            done = work => Some(done),
        }
    }

    /// Waits for the time, but ends at the stop.
    pub async fn pause(&mut self, time: Duration) {
        let _ = self.until(tokio::time::sleep(time)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_ends_work_and_pauses_and_is_seen_later() {
        let (stop, mut shutdown) = channel();
        assert_eq!((shutdown.is_requested(), shutdown.until(async { 7 }).await), (false, Some(7)));
        let mut waits = shutdown.clone();
        let waiting = tokio::spawn(async move { waits.until(std::future::pending::<()>()).await });
        assert_eq!((stop.request(), stop.request()), (false, true));
        assert_eq!((waiting.await.unwrap(), shutdown.is_requested()), (None, true));
        shutdown.pause(Duration::from_secs(3600)).await;
    }

    #[tokio::test]
    async fn who_is_gone_has_requested_it() {
        let (stop, mut shutdown) = channel();
        drop(stop);
        assert!(shutdown.is_requested());
        shutdown.requested().await;
    }
}
