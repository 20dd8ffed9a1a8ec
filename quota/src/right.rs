//! Rights: an amount and a number of payments of an account that are set aside for a holder, such as a worker of the proxy. The
//! holder admits payments from its right without a call. What is set aside counts as used from then on, so that no limit is
//! exceeded whatever becomes of the holder.

use serde::Deserialize;

use crate::{Account, AmountMinor, LimitKind, LimitName, Limits, Origins, Weight};

/// Names a right among those of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RightId(pub [u8; 16]);

/// An amount, as the limits count it, and a number of payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub amount: u64,
    pub count: u64,
}

impl Share {
    /// The smaller one of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self { amount: self.amount.min(other.amount), count: self.count.min(other.count) }
    }
}

/// A right as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The windows that it was counted in: those of the payments that are admitted from it.
    pub counted_in: Origins,
    /// What the amounts of these payments count.
    pub weight: Weight,
    pub granted: Share,
    /// What no payment was reported for yet.
    pub left: Share,
    /// When its holder stops using it, milliseconds since the epoch.
    pub until_ms: u64,
    /// Its holder is lost, and that was journaled.
    pub orphaned: bool,
    /// The id of the decision that granted it.
    pub decision_id: [u8; 16],
}

impl Right {
    /// The right without what a payment counts; `None` where less is left of it.
    pub(crate) fn without(self, counted: u64) -> Option<Self> {
        let left = self.left.amount.checked_sub(counted).zip(self.left.count.checked_sub(1));
        left.map(|(amount, count)| Self { left: Share { amount, count }, ..self })
    }
}

/// When holders get rights of an account, and how large these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Percent of each limit that must be left for a right: with less, every payment is decided by the store.
    pub above_percent: u8,
    /// Percent of what is left of a limit that one right may take.
    pub share_percent: u8,
    /// Milliseconds after which nothing is admitted from a right any more.
    pub ttl_ms: u32,
}

impl Trust {
    /// Nothing is granted.
    pub const NONE: Self = Self { above_percent: 100, share_percent: 0, ttl_ms: 0 };
    /// Most that may have to be left: with all of it, no right is granted after the first payment.
    pub const ABOVE_PERCENT_MAX: u8 = 99;
    /// Largest share.
    pub const SHARE_PERCENT_MAX: u8 = 50;
    /// Shortest and longest lifetime of a right, in milliseconds. A suspension and a lowered limit take effect within it.
    pub const TTL_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

    /// The largest right that may be granted of the account; `None` where too little is left of a limit. Limits of holds and refunds
    /// do not bound it: payments that are admitted from a right are neither.
    #[must_use]
    pub fn grantable(self, account: &Account, limits: &Limits) -> Option<Share> {
        let mut largest = Share { amount: u64::MAX, count: u64::MAX };
        for limit in LimitName::ALL.into_iter().filter(|limit| limit.is_of_charges()) {
            let room = self.room(limit.max(limits), limit.used_of(account));
            match limit.kind() {
                LimitKind::Count(_) => largest.count = largest.count.min(room),
                LimitKind::Amount(_) => largest.amount = largest.amount.min(room),
                LimitKind::Pending | LimitKind::Refunded(_) => {}
            }
        }
        (largest.amount > 0 && largest.count > 0).then_some(largest)
    }

    /// Of one limit: the share of what is left, and at most half of what is left above the threshold, so that rights become smaller as
    /// it nears. Each right leaves less to the next one, however many holders there are.
    fn room(self, max: u64, used: u64) -> u64 {
        let left = max.saturating_sub(used);
        let above = left.saturating_sub(percent(max, self.above_percent));
        percent(left, self.share_percent).min(above / 2)
    }
}

/// `percent` hundredths of an amount, rounded down. In two parts, so that doubles compute it exactly as well.
const fn percent(amount: u64, percent: u8) -> u64 {
    amount / 100 * percent as u64 + amount % 100 * percent as u64 / 100
}

/// A right in the hand of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRight {
    left: Share,
    until_ms: u64,
}

impl HeldRight {
    /// A right that ends at `until_ms` of the holder's own clock.
    #[must_use]
    pub const fn new(granted: Share, until_ms: u64) -> Self {
        Self { left: granted, until_ms }
    }

    /// What was not taken yet.
    #[must_use]
    pub const fn left(&self) -> Share {
        self.left
    }

    /// Whether the right has ended.
    #[must_use]
    pub const fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    /// Admits a payment from the right; `false` where it has ended or too little is left, and the payment needs a decision of the
    /// store.
    pub fn take(&mut self, amount: AmountMinor, now_ms: u64) -> bool {
        let left = self.left.amount.checked_sub(amount.get()).zip(self.left.count.checked_sub(1));
        match left.filter(|_| !self.is_over(now_ms)) {
            Some((amount, count)) => {
                self.left = Share { amount, count };
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
