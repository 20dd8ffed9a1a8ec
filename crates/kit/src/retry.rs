//! How long to wait before the next try: doubling, bounded, and with a jitter of up to 100 %, so that those that failed together do
//! not try in step.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The waits of one series of failures.
#[must_use]
pub fn waits(first: Duration, longest: Duration) -> ExponentialBuilder {
    let waits = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).with_factor(2.0);
    waits.without_max_times().with_jitter()
}

/// The waits of a task that goes on for ever: after a success they begin anew.
#[derive(Debug)]
pub struct Backoff {
    waits: ExponentialBuilder,
    current: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`, and the jitter.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let waits = waits(first, longest);
        Self { waits, current: waits.build(), longest }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        self.current.next().unwrap_or(self.longest)
    }

    /// The last try succeeded.
    pub fn reset(&mut self) {
        self.current = self.waits.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, longest);
        for step_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next_wait();
            let step = Duration::from_millis(step_ms);
            assert!(wait >= step && wait <= 2 * step, "{wait:?} for {step:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= 2 * first);
    }
}
