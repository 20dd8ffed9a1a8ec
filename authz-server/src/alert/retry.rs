//! How long to wait before a message is tried again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Longest wait of our own; half of it to all of it, because waits are spread.
const LONGEST: Duration = Duration::from_secs(3600);
/// Doublings after which the longest wait is reached from any first one.
const STEPS_MAX: usize = 24;

/// The wait after try number `attempt` (from 1) failed: doubling from `first`, spread over as much again so that what failed
/// together is not tried together, and never shorter than what the receiver asked for.
pub(super) fn wait(attempt: i32, first: Duration, asked: Option<Duration>) -> Duration {
    let step = usize::try_from(attempt.saturating_sub(1)).unwrap_or_default().min(STEPS_MAX);
    let waits = ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .with_max_times(STEPS_MAX + 1)
        .with_jitter();
    let own = waits.build().nth(step).unwrap_or(LONGEST);
    asked.map_or(own, |asked| own.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_are_spread_and_bounded() {
        let first = Duration::from_secs(5);
        let table = [(1, 5), (2, 10), (3, 20), (10, 2560), (11, 3600), (40, 3600), (0, 5), (i32::MAX, 3600)];
        for (attempt, at_least) in table {
            let at_least = Duration::from_secs(at_least);
            let found = wait(attempt, first, None);
            assert!(found >= at_least && found <= at_least * 2, "{attempt}: {found:?}");
        }
        let spread: std::collections::BTreeSet<_> = (0..20).map(|_| wait(3, first, None)).collect();
        assert!(spread.len() > 1, "{spread:?}");
    }

    #[test]
    fn the_receivers_wish_counts_where_it_is_longer() {
        let day = Duration::from_secs(86_400);
        assert_eq!(wait(1, Duration::from_secs(5), Some(day)), day);
        assert!(wait(1, Duration::from_secs(5), Some(Duration::ZERO)) >= Duration::from_secs(5));
    }
}
