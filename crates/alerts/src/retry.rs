//! How long to wait before a message is tried again.

use std::time::Duration;

use backon::BackoffBuilder;
use sluice_kit::retry;

/// Longest wait before jitter, which may double it; also the longest `Retry-After` that is honoured.
const LONGEST: Duration = Duration::from_secs(3600);
/// Doublings after which the longest wait is reached from any first one.
const STEPS_MAX: usize = 24;

/// The wait after try number `attempt` (from 1) failed: it doubles from `first`, with a jitter of up to 100 % so that messages
/// that failed together are not retried together. Not shorter than the receiver's `Retry-After`, of which an hour is honoured.
pub(super) fn wait(attempt: i32, first: Duration, retry_after: Option<Duration>) -> Duration {
    let step = usize::try_from(attempt.saturating_sub(1)).unwrap_or_default().min(STEPS_MAX);
    let own = retry::waits(first, LONGEST).build().nth(step).unwrap_or(LONGEST);
    retry_after.map_or(own, |retry_after| own.max(retry_after.min(LONGEST)))
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
        let half = LONGEST / 2;
        assert_eq!(wait(1, Duration::from_secs(5), Some(half)), half);
        // A receiver that requests a day is not given up after one try.
        assert_eq!(wait(1, Duration::from_secs(5), Some(Duration::from_secs(86_400))), LONGEST);
        assert_eq!(wait(1, Duration::from_secs(5), Some(Duration::MAX)), LONGEST);
        assert!(wait(1, Duration::from_secs(5), Some(Duration::ZERO)) >= Duration::from_secs(5));
    }
}
