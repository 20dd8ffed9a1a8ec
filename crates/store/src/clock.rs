//! The store's clock and this server's. The store's clock decides: commands carry its time as far as it is known, and the
//! script bounds what they claim. A server whose own clock differs too much neither decides nor sweeps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat};

use sluice_kit::clock;

/// Bound where the settings give none.
const SKEW_MS_MAX: u64 = 5_000;
/// Between two comparisons the store's time is estimated with a clock that runs slower by one part in this many, so that the
/// estimate is never later than the real time.
const SLOWER_BY_PART: u32 = 1_000;

/// The time of a store.
#[derive(Clone, Debug, Default)]
pub enum StoreTime {
    /// The store's own clock.
    #[default]
    Own,
    /// For tests: the latest time that the commands of a call claim.
    OfCommands,
    /// For tests: this time, milliseconds since the epoch.
    At(Arc<std::sync::atomic::AtomicI64>),
}

/// The known state of the store's clock. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StoreClock(Arc<Mutex<Option<Compared>>>);

/// One comparison of both clocks.
#[derive(Clone, Copy, Debug)]
struct Compared {
    store_ms: i64,
    /// When the answer arrived.
    at: Instant,
    skew: Skew,
}

/// How far this server's clock is from the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// The store's clock.
    pub store_ms: i64,
    /// This server's clock before the request to the store and at its answer; the store's clock was read in between.
    pub sent_ms: i64,
    pub answered_ms: i64,
}

impl Skew {
    /// By how much this server's clock is ahead of the store's, milliseconds; negative where it is behind. The smallest value
    /// that the comparison allows.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        let (least, most) =
            (self.sent_ms.saturating_sub(self.store_ms), self.answered_ms.saturating_sub(self.store_ms));
        0.clamp(least.min(most), most.max(least))
    }

    /// Describes what is wrong, with both times and what to do; `None` within the bound.
    #[must_use]
    pub fn trouble(&self, skew_ms_max: u64) -> Option<String> {
        let ahead_ms = self.ahead_ms();
        if ahead_ms.unsigned_abs() <= skew_ms_max {
            return None;
        }
        let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the server's clock shows {}, redis' {}: {:.1} s {direction} it, {:.1} s are allowed; synchronise the clocks of \
             both hosts (NTP)",
            moment(self.answered_ms),
            moment(self.store_ms),
            seconds(ahead_ms.unsigned_abs()),
            seconds(skew_ms_max),
        ))
    }
}

impl StoreClock {
    /// Records the store's time, read between `sent_ms` of this server's clock and now.
    pub fn compare(&self, store_ms: i64, sent_ms: i64) {
        let skew = Skew { store_ms, sent_ms, answered_ms: clock::now_ms() };
        *self.compared() = Some(Compared { store_ms, at: Instant::now(), skew });
    }

    /// Records the store's time from an answer that arrived just now.
    pub fn set(&self, store_ms: i64) {
        if let Some(compared) = &mut *self.compared() {
            (compared.store_ms, compared.at) = (store_ms, Instant::now());
        }
    }

    /// The store's time, milliseconds since the epoch: never later than the real one, and earlier by at most the time of an
    /// answer. This server's own time before the first comparison.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        let Some(Compared { store_ms, at, .. }) = *self.compared() else { return clock::now_ms() };
        let since = at.elapsed();
        let since = since.saturating_sub(since / SLOWER_BY_PART);
        store_ms.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The last comparison; `None` before the first.
    #[must_use]
    pub fn skew(&self) -> Option<Skew> {
        self.compared().map(|compared| compared.skew)
    }

    /// What is wrong with this server's clock, if anything; see [`Skew::trouble`].
    #[must_use]
    pub fn trouble(&self, skew_ms_max: Option<u64>) -> Option<String> {
        self.skew()?.trouble(skew_ms_max.unwrap_or(SKEW_MS_MAX))
    }

    fn compared(&self) -> MutexGuard<'_, Option<Compared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

fn moment(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_a_skew_is_no_more_than_the_comparison_proves() {
        for (store_ms, sent_ms, answered_ms, ahead_ms) in [
            (1_000_000, 1_000_000, 1_000_001, 0),
            (1_000_000, 999_990, 1_000_010, 0),
            // An answer that took eight seconds proves nothing about a smaller skew.
            (1_000_000, 999_000, 1_007_000, 0),
            (1_000_000, 1_005_000, 1_005_100, 5_000),
            (1_000_000, 994_000, 994_500, -5_500),
            // The server's clock was set back meanwhile.
            (1_000_000, 1_002_000, 1_001_000, 1_000),
        ] {
            assert_eq!(Skew { store_ms, sent_ms, answered_ms }.ahead_ms(), ahead_ms, "{sent_ms} {answered_ms}");
        }
    }

    #[test]
    fn f1_a_clock_is_off_beyond_the_bound_in_both_directions() {
        let of = |ahead_ms: i64| Skew {
            store_ms: 1_795_296_600_000,
            sent_ms: 1_795_296_600_000 + ahead_ms,
            answered_ms: 1_795_296_600_000 + ahead_ms,
        };
        for within in [0, 5_000, -5_000] {
            assert_eq!(of(within).trouble(5_000), None, "{within}");
        }
        for (off, text) in [
            (
                5_001,
                "the server's clock shows 2026-11-21T21:30:05.001Z, redis' 2026-11-21T21:30:00.000Z: 5.0 s ahead of it",
            ),
            (
                -691_200_000,
                "the server's clock shows 2026-11-13T21:30:00.000Z, redis' 2026-11-21T21:30:00.000Z: 691200.0 s behind it",
            ),
        ] {
            assert!(of(off).trouble(5_000).unwrap().starts_with(text), "{:?}", of(off).trouble(5_000));
        }
    }

    /// The estimate is never later than the store's time.
    #[test]
    fn f1_the_stores_time_is_reckoned_from_the_last_answer() {
        let clock = StoreClock::default();
        assert_eq!((clock.skew(), clock.trouble(None)), (None, None));
        clock.compare(1_000, clock::now_ms());
        let now_ms = clock.now_ms();
        assert!((1_000..60_000).contains(&now_ms), "{now_ms}");
        assert!(clock.trouble(None).is_some());
        clock.set(500_000);
        assert!((500_000..560_000).contains(&clock.now_ms()));
    }
}
