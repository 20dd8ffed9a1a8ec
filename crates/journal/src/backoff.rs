//! How long to wait before the next try: doubling, bounded, and spread so that many servers do not try in step.

use std::time::Duration;

use sluice_kit::clock;

/// First wait.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits of one series of failures.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self(FIRST)
    }

    /// The next wait: between half and the whole of the current step.
    pub(super) fn next(&mut self) -> Duration {
        let step = self.0;
        self.0 = step.saturating_mul(2).min(LONGEST);
        // The last two bytes of a version 7 UUID are random.
        let [.., high, low] = clock::decision_id();
        let spread = f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX);
        step.mul_f64(0.5 + spread / 2.0)
    }

    /// The last try succeeded.
    pub(super) const fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_anew() {
        let mut backoff = Backoff::new();
        for step_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next();
            let step = Duration::from_millis(step_ms);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} for {step:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
