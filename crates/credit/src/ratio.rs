//! Ratios in basis points, and amounts in minor units.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest amount in minor units, 2^53 − 1, as in [`quota::AmountMinor`]: amounts of credit meet the numbers of the store.
pub const AMOUNT_MAX: i64 = (1 << 53) - 1;

/// A ratio in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct BasisPoints(pub u32);

impl BasisPoints {
    /// All of it: 100 %.
    pub const FULL: Self = Self(10_000);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// This part of an amount, rounded down. At most [`AMOUNT_MAX`], and 0 of a negative amount.
    #[must_use]
    pub fn of(self, amount: i64) -> i64 {
        let part = i128::from(amount.max(0)) * i128::from(self.0) / 10_000;
        i64::try_from(part).map_or(AMOUNT_MAX, |part| part.min(AMOUNT_MAX))
    }

    /// This part of an amount, rounded up. At most [`AMOUNT_MAX`], and 0 of a negative amount.
    #[must_use]
    pub fn of_rounded_up(self, amount: i64) -> i64 {
        let part = (i128::from(amount.max(0)) * i128::from(self.0) + 9_999) / 10_000;
        i64::try_from(part).map_or(AMOUNT_MAX, |part| part.min(AMOUNT_MAX))
    }

    /// Whether a part of a whole is more than this ratio.
    #[must_use]
    pub fn is_exceeded_by(self, part: i64, whole: i64) -> bool {
        i128::from(part) * 10_000 > i128::from(self.0) * i128::from(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rounded_and_bounded() {
        let table = [
            (10_000, 999, 999, 999),
            (7_500, 999, 749, 750),
            (0, 999, 0, 0),
            (1, 9_999, 0, 1),
            (15_000, 3, 4, 5),
            (15_000, AMOUNT_MAX, AMOUNT_MAX, AMOUNT_MAX),
            (10_000, AMOUNT_MAX, AMOUNT_MAX, AMOUNT_MAX),
            (10_000, -5, 0, 0),
        ];
        for (ratio, amount, down, up) in table {
            assert_eq!(BasisPoints(ratio).of(amount), down, "{ratio} of {amount}");
            assert_eq!(BasisPoints(ratio).of_rounded_up(amount), up, "{ratio} of {amount}");
        }
        assert!(!BasisPoints(100).is_exceeded_by(1, 100));
        assert!(BasisPoints(100).is_exceeded_by(2, 100));
    }
}
