//! Admitted payments that are delayed, and the timer that ends the delay. The proxy has one timer for each configuration of the
//! plugin: its period is long while nothing waits; otherwise it ends when the next payment is due.

use std::collections::BTreeMap;

/// The timer's period while nothing waits, in milliseconds.
pub const TICK_MS: u32 = 250;
/// Longest delay of a payment, in milliseconds.
pub const DELAY_MS_MAX: u32 = 30_000;
/// Most payments that one worker delays. The proxy keeps each one's body.
pub const WAITING_MAX: usize = 4096;
/// Most payments that are resumed in one tick. The proxy processes a callback's requests nested, on its stack.
pub const RESUMED_PER_TICK_MAX: usize = 32;

/// Delayed payments, by due time and the number of their stream.
#[derive(Debug)]
pub struct Delays<T> {
    waiting: BTreeMap<(u64, u32), T>,
}

impl<T> Default for Delays<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new() }
    }
}

impl<T> Delays<T> {
    /// Delays a stream until `due_ms`. `false` if too many wait already.
    pub fn put(&mut self, due_ms: u64, stream: u32, item: T) -> bool {
        let fits = self.waiting.len() < WAITING_MAX;
        if fits {
            self.put_anyway(due_ms, stream, item);
        }
        fits
    }

    /// Schedules a stream for `due_ms`, however many wait.
    pub fn put_anyway(&mut self, due_ms: u64, stream: u32, item: T) {
        self.waiting.insert((due_ms, stream), item);
    }

    /// Removes a stream that has ended.
    pub fn remove(&mut self, due_ms: u64, stream: u32) {
        self.waiting.remove(&(due_ms, stream));
    }

    /// Takes out the streams that are due, the earliest first.
    pub fn due(&mut self, now_ms: u64) -> Vec<(u32, T)> {
        let mut due = Vec::new();
        while due.len() < RESUMED_PER_TICK_MAX && self.next().is_some_and(|at| at <= now_ms) {
            due.extend(self.waiting.pop_first().map(|((_, stream), item)| (stream, item)));
        }
        due
    }

    /// When the first stream is due.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }
}

/// A timer of the proxy: it ticks every `period_ms`, counted from the latest setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    period_ms: u32,
    /// When the next tick comes, if that is known.
    next_ms: Option<u64>,
}

impl Default for Timer {
    fn default() -> Self {
        Self { period_ms: TICK_MS, next_ms: None }
    }
}

impl Timer {
    /// The period in force, in milliseconds.
    #[must_use]
    pub const fn period_ms(&self) -> u32 {
        self.period_ms
    }

    /// One more item waits; `next_due_ms` is the earliest of all. Returns the period to set if the next tick would come too late.
    /// An overdue tick is left as it is for one whole [`TICK_MS`]: it comes in this turn of the proxy's loop, and each setting
    /// restarts the timer, so that one payment after the other would postpone it.
    pub fn schedule_tick(&mut self, now_ms: u64, next_due_ms: u64) -> Option<u32> {
        // No period is shorter than a millisecond.
        let soonest = next_due_ms.max(now_ms.saturating_add(1));
        let late = |next: u64| soonest < next || next.saturating_add(u64::from(TICK_MS)) <= now_ms;
        self.next_ms.is_none_or(late).then(|| self.set(now_ms, Some(next_due_ms)))
    }

    /// The timer has ticked, and `next` is due after it. Returns the period to set if it changes.
    pub fn ticked(&mut self, now_ms: u64, next: Option<u64>) -> Option<u32> {
        let before = self.period_ms;
        let after = self.set(now_ms, next);
        (after != before).then_some(after)
    }

    fn set(&mut self, now_ms: u64, next: Option<u64>) -> u32 {
        let wait = next.map_or(u64::from(TICK_MS), |due| due.saturating_sub(now_ms));
        self.period_ms = u32::try_from(wait).unwrap_or(TICK_MS).clamp(1, TICK_MS);
        self.next_ms = Some(now_ms.saturating_add(u64::from(self.period_ms)));
        self.period_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_go_on_in_the_order_of_their_times_and_a_bounded_number_at_once() {
        let mut delays = Delays::default();
        for (due_ms, stream) in [(30, 1), (10, 2), (20, 3), (10, 4)] {
            assert!(delays.put(due_ms, stream, ()));
        }
        delays.remove(20, 3);
        delays.remove(99, 2);
        assert_eq!(delays.next(), Some(10));
        assert!(delays.due(9).is_empty());
        assert_eq!(delays.due(10), [(2, ()), (4, ())]);
        assert_eq!(delays.due(u64::MAX), [(1, ())]);
        assert_eq!(delays.next(), None);
        for stream in 0..u32::try_from(WAITING_MAX).unwrap() {
            assert!(delays.put(5, stream, ()));
        }
        assert!(!delays.put(5, u32::MAX, ()), "one too many");
        assert_eq!(delays.due(5).len(), RESUMED_PER_TICK_MAX);
        assert!(delays.put(5, u32::MAX, ()));
    }

    #[test]
    fn the_timer_reaches_to_what_is_due_and_is_set_only_where_it_must() {
        let mut timer = Timer::default();
        // Nothing is known of the first tick, so the timer is set.
        assert_eq!(timer.schedule_tick(1_000, 1_100), Some(100));
        assert_eq!(timer.schedule_tick(1_000, 1_200), None, "the earlier tick covers it");
        assert_eq!(timer.schedule_tick(1_010, 1_050), Some(40));
        assert_eq!(timer.ticked(1_050, Some(1_100)), Some(50));
        assert_eq!(timer.ticked(1_100, Some(1_150)), None, "the period stays");
        assert_eq!(timer.ticked(1_149, Some(1_150)), Some(1), "early by a hair");
        assert_eq!(timer.ticked(1_150, Some(900)), None, "overdue: the shortest period");
        assert_eq!(timer.ticked(1_151, Some(9_000)), Some(TICK_MS));
        assert_eq!(timer.ticked(1_401, None), None);
        assert_eq!(timer.period_ms(), TICK_MS);
        assert_eq!(timer.schedule_tick(1_500, 1_651), None);
        assert_eq!(timer.schedule_tick(1_500, 1_650), Some(150));
        assert_eq!(timer.schedule_tick(9_999, 20_000), Some(TICK_MS), "a tick that never came");
    }

    /// A proxy whose loop is busy runs its timers late, and meanwhile payments that may wait longer keep arriving.
    #[test]
    fn payments_that_wait_longer_do_not_push_an_overdue_tick_back() {
        let (mut delays, mut timer) = (Delays::default(), Timer::default());
        let mut period_set = |delays: &mut Delays<()>, now_ms, due_ms, stream| {
            assert!(delays.put(due_ms, stream, ()));
            timer.schedule_tick(now_ms, delays.next().unwrap())
        };
        assert_eq!(period_set(&mut delays, 1_000, 1_010, 0), Some(10));
        for (now_ms, stream) in (1_001..1_260).zip(1..) {
            assert_eq!(period_set(&mut delays, now_ms, now_ms + 30_000, stream), None, "{now_ms}");
        }
        // A tick that has not come for so long was never set: it is set for the one that is due, not for those that follow.
        assert_eq!(period_set(&mut delays, 1_260, 31_260, 1_000), Some(1));
        assert_eq!(period_set(&mut delays, 1_260, 31_260, 1_001), None);
        assert_eq!(period_set(&mut delays, 1_261, 31_261, 1_002), None);
    }
}
