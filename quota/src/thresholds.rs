//! Usage thresholds of limits, and which of them an account has reached.
//!
//! A threshold is reported when usage reaches it and again when usage falls below it, not in between. The reached thresholds
//! are part of the account's state ([`ThresholdLevels`]), so that exactly one command finds each crossing.

use std::fmt;

use thiserror::Error;

use crate::{Account, AmountMinor, LimitName, Limits, Period};

/// Percentages of a limit at which usage is reported, ascending: at most [`Thresholds::COUNT_MAX`], each 1 to
/// [`Thresholds::PERCENT_MAX`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    percents: [u16; Thresholds::COUNT_MAX],
    count: u8,
}

/// Why a list of thresholds is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ThresholdsError {
    #[error("has {0} percentages, at most {max} are allowed", max = Thresholds::COUNT_MAX)]
    Many(usize),
    #[error("{0} is not 1 to {max}", max = Thresholds::PERCENT_MAX)]
    Range(u32),
    #[error("{0} is listed twice")]
    Twice(u32),
}

impl Thresholds {
    /// Most percentages in a list.
    pub const COUNT_MAX: usize = 8;
    /// Highest percentage: as far as a throttle's ceiling may be above a limit.
    pub const PERCENT_MAX: u32 = 1_000;
    /// No thresholds: usage is never reported.
    pub const NONE: Self = Self { percents: [0; Self::COUNT_MAX], count: 0 };
    /// 80 and 100 %.
    pub const DEFAULT: Self = Self { percents: [80, 100, 0, 0, 0, 0, 0, 0], count: 2 };

    /// Takes percentages in any order.
    ///
    /// # Errors
    /// [`ThresholdsError`] names what is wrong.
    pub fn new(percents: impl IntoIterator<Item = u32>) -> Result<Self, ThresholdsError> {
        let mut sorted: Vec<u32> = percents.into_iter().collect();
        if sorted.len() > Self::COUNT_MAX {
            return Err(ThresholdsError::Many(sorted.len()));
        }
        sorted.sort_unstable();
        let mut thresholds = Self::NONE;
        let mut last = None;
        for (slot, percent) in thresholds.percents.iter_mut().zip(sorted) {
            if last == Some(percent) {
                return Err(ThresholdsError::Twice(percent));
            }
            let fits = u16::try_from(percent).ok().filter(|_| (1..=Self::PERCENT_MAX).contains(&percent));
            *slot = fits.ok_or(ThresholdsError::Range(percent))?;
            thresholds.count += 1;
            last = Some(percent);
        }
        Ok(thresholds)
    }

    /// The percentages, ascending.
    #[must_use]
    pub fn percents(&self) -> &[u16] {
        self.percents.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// The least usage that is at or above a percentage of a limit, and no less than 1; `None` where there is no limit.
    #[must_use]
    pub fn first_at(max: AmountMinor, percent: u16) -> Option<u64> {
        if max == AmountMinor::MAX {
            return None;
        }
        let first = (u128::from(max.get()) * u128::from(percent)).div_ceil(100);
        Some(u64::try_from(first).unwrap_or(u64::MAX).max(1))
    }

    /// Identifies the list in an account's state; never 0.
    #[must_use]
    pub fn list(&self) -> u16 {
        let bytes: Vec<u8> = self.percents().iter().flat_map(|percent| percent.to_le_bytes()).collect();
        let [low, high, ..] = xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes();
        u16::from_le_bytes([low, high]).max(1)
    }
}

impl fmt::Debug for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.percents()).finish()
    }
}

/// The limits whose usage is reported, for an account as a whole: channels with limits of their own share its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThresholdPolicy {
    maxima: [AmountMinor; ThresholdPolicy::LIMITS.len()],
    thresholds: Thresholds,
}

impl ThresholdPolicy {
    /// The limits that have thresholds, each at its place in [`ThresholdLevels`].
    pub const LIMITS: [LimitName; 9] = by_place();

    /// Nothing has a limit.
    pub const NOTHING: Self = Self { maxima: [AmountMinor::MAX; Self::LIMITS.len()], thresholds: Thresholds::DEFAULT };

    /// Thresholds for these limits. An unlimited one never reaches a threshold.
    #[must_use]
    pub fn new(limits: &Limits, thresholds: Thresholds) -> Self {
        let max = |limit: LimitName| AmountMinor::new(limit.max(limits)).unwrap_or(AmountMinor::MAX);
        Self { maxima: Self::LIMITS.map(max), thresholds }
    }

    /// The same with maxima in the order of [`ThresholdPolicy::LIMITS`].
    #[must_use]
    pub const fn of(maxima: [AmountMinor; Self::LIMITS.len()], thresholds: Thresholds) -> Self {
        Self { maxima, thresholds }
    }

    /// The maxima in the order of [`ThresholdPolicy::LIMITS`].
    #[must_use]
    pub const fn maxima(&self) -> &[AmountMinor; Self::LIMITS.len()] {
        &self.maxima
    }

    /// The percentages at which usage is reported.
    #[must_use]
    pub const fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// The usage that counts against each limit, in the order of [`ThresholdPolicy::LIMITS`].
    #[must_use]
    pub fn used(account: &Account) -> [u64; Self::LIMITS.len()] {
        Self::LIMITS.map(|limit| limit.used_of(account))
    }

    /// Which thresholds the account has reached.
    #[must_use]
    pub fn levels(&self, account: &Account) -> ThresholdLevels {
        let mut levels = ThresholdLevels::default();
        for ((level, limit), max) in levels.by_limit.iter_mut().zip(Self::LIMITS).zip(self.maxima) {
            let used = limit.used_of(account);
            let reached = |percent: &&u16| Thresholds::first_at(max, **percent).is_some_and(|first| used >= first);
            *level = u8::try_from(self.thresholds.percents().iter().take_while(reached).count()).unwrap_or(u8::MAX);
        }
        levels.list = if levels.is_empty() { 0 } else { self.thresholds.list() };
        levels
    }

    /// The most that each window limit lets an account use without reaching any threshold, in the order of
    /// [`ThresholdPolicy::LIMITS`].
    #[must_use]
    pub fn quiet_maxima(&self) -> [AmountMinor; Self::LIMITS.len()] {
        let lowest = self.thresholds.percents().first();
        self.maxima.map(|max| {
            let first = lowest.and_then(|percent| Thresholds::first_at(max, *percent));
            first.and_then(|first| AmountMinor::new(first - 1)).map_or(max, |quiet| quiet.min(max))
        })
    }
}

/// The limits that have thresholds, at their places; does not compile where the places are not 0, 1, 2 and so on.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn by_place<const N: usize>() -> [LimitName; N] {
    let mut limits = [LimitName::ALL[0]; N];
    let (mut index, mut placed) = (0, 0);
    while index < LimitName::ALL.len() {
        if let Some(place) = LimitName::ALL[index].place() {
            limits[place] = LimitName::ALL[index];
            placed += 1;
        }
        index += 1;
    }
    assert!(placed == N);
    limits
}

const _: () = assert!(
    ThresholdLevels::BITS as usize * ThresholdPolicy::LIMITS.len() <= 52,
    "the levels of all limits fit into a double"
);

/// How many thresholds an account has reached, for each of [`ThresholdPolicy::LIMITS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThresholdLevels {
    /// 0 to [`Thresholds::COUNT_MAX`] each.
    pub by_limit: [u8; ThresholdPolicy::LIMITS.len()],
    /// The list of thresholds that they refer to, as [`Thresholds::list`]; 0 where none is reached.
    pub list: u16,
}

impl ThresholdLevels {
    /// Bits of a limit's level in [`ThresholdLevels::packed`].
    pub const BITS: u32 = 4;
    /// The lowest level's bits.
    const LEVEL: u8 = (1 << Self::BITS) - 1;

    /// Whether no threshold is reached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_limit == [0; ThresholdPolicy::LIMITS.len()]
    }

    /// [`ThresholdLevels::BITS`] each, the first limit's lowest; below 2^53, so that a double holds it exactly.
    #[must_use]
    pub fn packed(&self) -> u64 {
        self.by_limit.iter().rev().fold(0, |packed, level| packed << Self::BITS | u64::from(level & Self::LEVEL))
    }

    /// Reads [`ThresholdLevels::packed`] back.
    #[must_use]
    pub fn unpacked(packed: u64, list: u16) -> Self {
        let mut rest = packed;
        let by_limit = [(); ThresholdPolicy::LIMITS.len()].map(|()| {
            let [low, ..] = rest.to_le_bytes();
            rest >>= Self::BITS;
            low & Self::LEVEL
        });
        Self { by_limit, list }
    }

    /// The levels after windows of this kind have ended.
    #[must_use]
    pub fn without(mut self, period: Period) -> Self {
        for (level, limit) in self.by_limit.iter_mut().zip(ThresholdPolicy::LIMITS) {
            if limit.period() == Some(period) {
                *level = 0;
            }
        }
        self.list = if self.is_empty() { 0 } else { self.list };
        self
    }
}

/// A command made usage cross thresholds, or other thresholds apply now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Before the command, in the command's windows.
    pub before: ThresholdLevels,
    pub after: ThresholdLevels,
    /// The policy that `after` was computed with.
    pub threshold_policy: ThresholdPolicy,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, PerPeriod, WindowLimits};

    fn minor(amount: u64) -> AmountMinor {
        AmountMinor::new(amount).unwrap()
    }

    fn daily(max: u64, percents: &[u32]) -> ThresholdPolicy {
        let day = WindowLimits { amount: minor(max), ..WindowLimits::UNLIMITED };
        let thresholds = Thresholds::new(percents.iter().copied()).unwrap();
        ThresholdPolicy::new(&Limits::UNLIMITED.with(Period::Day, day), thresholds)
    }

    fn used(amount: u64) -> Account {
        Account {
            windows: PerPeriod { day: Counter { amount, ..Counter::default() }, ..PerPeriod::default() },
            ..Account::default()
        }
    }

    #[test]
    fn a_threshold_is_reached_at_it_and_not_below() {
        let max = AmountMinor::MAX.get();
        for (limit, percents, usage, level) in [
            (1_000, &[80, 100][..], 799, 0),
            (1_000, &[80, 100], 800, 1),
            (1_000, &[80, 100], 999, 1),
            (1_000, &[80, 100], 1_000, 2),
            (1_000, &[100, 80, 150], 1_500, 3),
            (1_000, &[80, 100, 150], 1_499, 2),
            (1_000, &[], 5_000, 0),
            // Rounded up: three quarters of 3 are not 2.
            (3, &[75], 2, 0),
            (3, &[75], 3, 1),
            (0, &[80], 0, 0),
            (0, &[80, 100], 1, 2),
            (1, &[1], 0, 0),
            (max, &[1], max, 0),
            (max - 1, &[99, 100], max - 2, 1),
            (max - 1, &[99, 100], max - 1, 2),
            (max - 1, &[100, 101, 1_000], max, 1),
        ] {
            let policy = daily(limit, percents);
            let levels = policy.levels(&used(usage));
            assert_eq!(levels.by_limit, [0, 0, 0, level, 0, 0, 0, 0, 0], "{usage} of {limit} at {percents:?}");
            assert_eq!(levels.list != 0, level > 0);
            assert_eq!(usage <= policy.quiet_maxima()[3].get(), level == 0 && usage <= limit, "{usage} of {limit}");
        }
    }

    #[test]
    fn lists_are_checked() {
        for (percents, error) in [
            (&[0][..], ThresholdsError::Range(0)),
            (&[80, 1_001], ThresholdsError::Range(1_001)),
            (&[80, 70_000], ThresholdsError::Range(70_000)),
            (&[80, 100, 80], ThresholdsError::Twice(80)),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9], ThresholdsError::Many(9)),
        ] {
            assert_eq!(Thresholds::new(percents.iter().copied()), Err(error), "{percents:?}");
        }
        assert_eq!(Thresholds::new([100, 80]), Ok(Thresholds::DEFAULT));
        assert_ne!(Thresholds::new([80]).unwrap().list(), Thresholds::DEFAULT.list());
    }

    #[test]
    fn levels_come_back_from_their_packed_form() {
        let levels = ThresholdLevels { by_limit: [1, 2, 3, 4, 5, 6, 8, 7, 6], list: 7 };
        assert_eq!(ThresholdLevels::unpacked(levels.packed(), 7), levels);
        let left = levels.without(Period::Day).without(Period::Month);
        assert_eq!((left.by_limit, left.list), ([0, 0, 3, 0, 0, 6, 8, 7, 6], 7));
        assert_eq!(
            ThresholdLevels { by_limit: [1, 0, 0, 1, 0, 0, 0, 0, 0], list: 7 }.without(Period::Day),
            ThresholdLevels::default()
        );
    }
}
