//! Evaluates the number of waiting events: its sum, the fullest shard, and when that shard comes near the bound at which
//! charges are refused.

/// A shard this full, in percent of the bound, raises a warning: payments are refused when it is full.
const WARN_PERCENT: u64 = 80;
/// The warning ends only at this level, so that a shard that hovers around the first one warns once.
const NORMAL_PERCENT: u64 = 60;

/// Waiting events of all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// All shards together.
    pub events: u64,
    /// The fullest shard.
    pub fullest_shard: usize,
    /// Its number of events.
    pub fullest_events: u64,
}

impl Backlog {
    /// Takes each shard's number of waiting events, in order.
    pub(super) fn of(lengths: &[u64]) -> Self {
        let (fullest_shard, fullest_events) =
            lengths.iter().copied().enumerate().max_by_key(|(_, length)| *length).unwrap_or_default();
        Self { events: lengths.iter().sum(), fullest_shard, fullest_events }
    }
}

/// A change that is reported to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The fullest shard has come near its bound.
    High,
    /// No shard is near its bound any more.
    Normal,
}

/// Detects when the fullest shard comes near its bound, once each time.
#[derive(Debug)]
pub(super) struct Alarm {
    events_max: u64,
    high: bool,
}

impl Alarm {
    /// For shards that may hold `events_max`.
    pub(super) const fn new(events_max: u64) -> Self {
        Self { events_max, high: false }
    }

    /// Sets another bound per shard.
    pub(super) const fn set_events_max(&mut self, events_max: u64) {
        self.events_max = events_max;
    }

    /// Whether the fullest shard is near its bound.
    pub(super) const fn is_high(&self) -> bool {
        self.high
    }

    /// Takes a count; returns its change.
    pub(super) const fn take(&mut self, backlog: &Backlog) -> Option<Turn> {
        let percent = if self.high { NORMAL_PERCENT } else { WARN_PERCENT };
        let high = backlog.fullest_events >= self.events_max.saturating_mul(percent) / 100;
        match (self.high, high) {
            (false, true) => {
                self.high = true;
                Some(Turn::High)
            }
            (true, false) => {
                self.high = false;
                Some(Turn::Normal)
            }
            (false, false) | (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_shard_is_found() {
        let backlog = Backlog { events: 12, fullest_shard: 1, fullest_events: 7 };
        assert_eq!(Backlog::of(&[5, 7, 0]), backlog);
        assert_eq!(Backlog::of(&[]), Backlog::default());
    }

    #[test]
    fn a_shard_near_its_bound_is_told_of_once() {
        let mut alarm = Alarm::new(1000);
        let table = [
            ([799, 0], None),
            ([400, 400], None),
            ([0, 800], Some(Turn::High)),
            ([5000, 800], None),
            ([0, 799], None),
            ([0, 600], None),
            ([0, 800], None),
            ([0, 599], Some(Turn::Normal)),
            ([0, 799], None),
            ([800, 0], Some(Turn::High)),
        ];
        for (lengths, turn) in table {
            assert_eq!(alarm.take(&Backlog::of(&lengths)), turn, "{lengths:?}");
        }
        // A larger bound ends the alarm at the next count.
        alarm.set_events_max(2000);
        assert_eq!(alarm.take(&Backlog::of(&[800, 0])), Some(Turn::Normal));
        assert_eq!(alarm.take(&Backlog::of(&[1600, 0])), Some(Turn::High));
    }
}
