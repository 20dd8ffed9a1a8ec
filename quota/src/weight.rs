//! What a payment counts against the limits, where that is not its amount.

use crate::AmountMinor;

/// The weight of payments: what an amount counts against the amount limits of windows and of open holds.
///
/// Money stays what it is: bounds of one payment, limits on refunds and the exposure of a credit line are about the amount itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The share of the amount that counts, in basis points, rounded up; at most [`Weight::BP_MAX`].
    bp: u32,
    /// What every payment counts besides, whatever its amount: its price.
    units_per_payment: AmountMinor,
}

impl Weight {
    /// A whole in basis points.
    pub const WHOLE_BP: u32 = 10_000;
    /// The largest share: a hundred times the amount.
    pub const BP_MAX: u32 = 1_000_000;
    /// The amount counts as it is.
    pub const AMOUNT: Self = Self { bp: Self::WHOLE_BP, units_per_payment: AmountMinor::ZERO };

    /// A share of the amount counts, in basis points; `None` above [`Weight::BP_MAX`].
    #[must_use]
    pub const fn share(bp: u32) -> Option<Self> {
        if bp <= Self::BP_MAX { Some(Self { bp, units_per_payment: AmountMinor::ZERO }) } else { None }
    }

    /// Every payment counts the same, whatever its amount.
    #[must_use]
    pub const fn price(units_per_payment: AmountMinor) -> Self {
        Self { bp: 0, units_per_payment }
    }

    /// The weight of these parts, as [`Weight::bp`] and [`Weight::units_per_payment`] give them; `None` where there is no such
    /// weight.
    #[must_use]
    pub const fn of_parts(bp: u32, units_per_payment: AmountMinor) -> Option<Self> {
        match (bp, units_per_payment) {
            (0, units) => Some(Self::price(units)),
            (bp, AmountMinor::ZERO) => Self::share(bp),
            (_, _) => None,
        }
    }

    /// The share in basis points; 0 for a price.
    #[must_use]
    pub const fn bp(self) -> u32 {
        self.bp
    }

    /// The price; 0 for a share.
    #[must_use]
    pub const fn units_per_payment(self) -> AmountMinor {
        self.units_per_payment
    }

    /// Whether it changes anything.
    #[must_use]
    pub fn is_amount(self) -> bool {
        self == Self::AMOUNT
    }

    /// What an amount counts: at most [`AmountMinor::MAX`], and nothing where there is no amount.
    #[must_use]
    pub fn counts(self, amount: u64) -> u64 {
        if amount == 0 {
            return 0;
        }
        let share = (u128::from(amount) * u128::from(self.bp)).div_ceil(u128::from(Self::WHOLE_BP));
        let counted = share + u128::from(self.units_per_payment.get());
        u64::try_from(counted).unwrap_or(u64::MAX).min(AmountMinor::MAX.get())
    }

    /// What `less` counts as the last part of an amount: what is returned for it. All parts of an amount together count what the
    /// whole does.
    #[must_use]
    pub fn counts_of_last(self, amount: u64, less: u64) -> u64 {
        self.counts(amount) - self.counts(amount.saturating_sub(less))
    }

    /// What `more` counts on top of an amount.
    #[must_use]
    pub fn counts_of_next(self, amount: u64, more: u64) -> u64 {
        self.counts(amount.saturating_add(more)) - self.counts(amount)
    }
}

/// A figure of limits beside its amount, and why the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighed {
    pub weight: Weight,
    /// What the amount counts against the limits.
    pub counted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(units: u64) -> Weight {
        Weight::price(AmountMinor::new(units).unwrap())
    }

    fn share(bp: u32) -> Weight {
        Weight::share(bp).unwrap()
    }

    #[test]
    fn what_an_amount_counts() {
        let max = AmountMinor::MAX.get();
        let table = [
            (Weight::AMOUNT, 0, 0),
            (Weight::AMOUNT, 1, 1),
            (Weight::AMOUNT, max, max),
            (share(5_000), 100, 50),
            // Rounded up, so that a payment of the smallest amount counts.
            (share(5_000), 101, 51),
            (share(1), 1, 1),
            (share(1), 10_001, 2),
            (share(0), 1_000_000, 0),
            (share(25_000), 3, 8),
            (share(Weight::BP_MAX), 7, 700),
            (share(9_999), max, 9_006_298_534_815_517),
            (share(10_001), max, max),
            (share(Weight::BP_MAX), max, max),
            (price(25), 1, 25),
            (price(25), max, 25),
            (price(25), 0, 0),
            (price(0), 100, 0),
            (price(max), 1, max),
        ];
        for (weight, amount, counted) in table {
            assert_eq!(weight.counts(amount), counted, "{weight:?} {amount}");
        }
        assert_eq!(Weight::share(Weight::BP_MAX + 1), None);
    }

    #[test]
    fn parts_count_what_the_whole_counts() {
        let parts = [1, 2, 333, 1, 9_999, 10_000, 10_001, 77];
        let whole: u64 = parts.iter().sum();
        for weight in [Weight::AMOUNT, share(1), share(3_333), share(9_999), share(10_001), share(70_007), price(9)] {
            let (mut rest, mut returned, mut grown, mut consumed) = (whole, 0, 0, 0);
            for part in parts {
                returned += weight.counts_of_last(rest, part);
                rest -= part;
                consumed += weight.counts_of_next(grown, part);
                grown += part;
            }
            assert_eq!((rest, returned, consumed), (0, weight.counts(whole), weight.counts(whole)), "{weight:?}");
        }
        // A price is returned with the last part of the amount.
        assert_eq!([price(9).counts_of_last(100, 99), price(9).counts_of_last(1, 1)], [0, 9]);
    }

    #[test]
    fn parts_of_a_weight() {
        for weight in [Weight::AMOUNT, share(0), share(7_500), price(0), price(12)] {
            assert_eq!(Weight::of_parts(weight.bp(), weight.units_per_payment()), Some(weight));
        }
        assert_eq!(Weight::of_parts(Weight::BP_MAX + 1, AmountMinor::ZERO), None);
        assert_eq!(Weight::of_parts(1, AmountMinor::MAX), None);
    }
}
