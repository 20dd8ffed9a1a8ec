//! What an account uses of its credit line: its exposure, and what its billing cycle has charged so far.
//!
//! Whether there is a line, its limit at a date, statements and repayments' allocation are knowledge of the server. The rule has
//! two numbers of it in the command ([`CreditTerms`]), and keeps the exposure.

use crate::{Account, AmountMinor};

/// The largest exposure, and the largest balance.
const EXPOSURE_MAX: i64 = AmountMinor::MAX.get().cast_signed();

/// The part of a credit line that a command is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditTerms {
    /// The first day (`YYYYMMDD`) of the billing cycle that the command's day is in; never 0, which in a packed command means that
    /// there is no credit line.
    pub cycle: u32,
    /// The exposure that no charge exceeds.
    pub limit: AmountMinor,
    /// The same without the cap of an overdue line; never below `limit`. It only decides which code a refusal has.
    pub uncapped_limit: AmountMinor,
}

/// What an account uses of its credit line. Amounts in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreditUsage {
    /// The first day (`YYYYMMDD`) of the billing cycle; 0 before the first one.
    pub cycle: u32,
    /// Held + unbilled + open obligations − repayments that are not applied: below zero where more was repaid than is owed.
    /// Never beyond 2^53 − 1 on either side.
    pub exposure: i64,
    /// Charged and captured in the cycle, less what was returned of it.
    pub unbilled: u64,
}

impl CreditUsage {
    /// The usage as of a billing cycle. An earlier cycle is treated as the stored one.
    pub(crate) const fn rolled(self, cycle: u32) -> Self {
        if cycle > self.cycle { Self { cycle, exposure: self.exposure, unbilled: 0 } } else { self }
    }

    /// Adds what is owed, or held, from now on.
    pub(crate) fn raise(&mut self, amount: u64) {
        self.exposure = self.exposure.saturating_add_unsigned(amount).min(EXPOSURE_MAX);
    }

    /// Takes away what is not owed, or held, any more.
    pub(crate) fn lower(&mut self, amount: u64) {
        self.exposure = self.exposure.saturating_sub_unsigned(amount).max(-EXPOSURE_MAX);
    }

    /// Adds what is owed to the cycle's statement.
    pub(crate) fn bill(&mut self, amount: u64) {
        self.unbilled = self.unbilled.saturating_add(amount).min(AmountMinor::MAX.get());
    }

    /// Takes an amount that was billed in `cycle` out of the cycle's statement, if it is still open.
    pub(crate) const fn unbill(&mut self, amount: u64, cycle: u32) {
        if cycle == self.cycle {
            self.unbilled = self.unbilled.saturating_sub(amount);
        }
    }

    /// Whether the exposure can be this much higher within `limit`.
    pub(crate) const fn allows(&self, more: u64, limit: AmountMinor) -> bool {
        // Amounts and exposures stay below 2^53, so that the sum is exact.
        self.exposure.saturating_add_unsigned(more) <= limit.get().cast_signed()
    }

    /// The exposure after a posting; `None` where it would be beyond what can be counted.
    pub(crate) fn exposure_with(&self, posting: &Posting) -> Option<i64> {
        let exposure = self.exposure.saturating_add(posting.exposure_change());
        (-EXPOSURE_MAX..=EXPOSURE_MAX).contains(&exposure).then_some(exposure)
    }
}

/// The final amount of a billing cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedCycle {
    /// The cycle's first day, `YYYYMMDD`.
    pub cycle: u32,
    /// What was unbilled at its end, minor units.
    pub amount: u64,
}

/// The credit line's usage around a decision. Amounts in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreditRecord {
    /// The first day of the billing cycle, `YYYYMMDD`; after the command.
    pub cycle: u32,
    pub exposure_before: i64,
    pub exposure_after: i64,
    /// As of the cycle: 0 where the command was the first one in it.
    pub unbilled_before: u64,
    pub unbilled_after: u64,
}

impl CreditRecord {
    /// The usage of an account before and after; `None` for one without a line.
    #[must_use]
    pub fn between(before: &Account, after: &Account) -> Option<Self> {
        before.credit.zip(after.credit).map(|(before, after)| Self::of(before, after))
    }

    const fn of(before: CreditUsage, after: CreditUsage) -> Self {
        Self {
            cycle: after.cycle,
            exposure_before: before.exposure,
            exposure_after: after.exposure,
            unbilled_before: before.unbilled,
            unbilled_after: after.unbilled,
        }
    }

    /// The usage after the decision.
    #[must_use]
    pub const fn after(&self) -> CreditUsage {
        CreditUsage { cycle: self.cycle, exposure: self.exposure_after, unbilled: self.unbilled_after }
    }
}

/// What a posting to a credit line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PostingKind {
    /// The merchant has paid: lowers the exposure.
    Repayment = 1,
    /// A repayment has bounced: raises it.
    Reversal = 2,
    /// The operator gives a claim up: lowers it.
    WriteOff = 3,
    /// Quota was received from another account: lowers it.
    TransferIn = 4,
    /// Quota is given to another account: raises it, within the limit.
    TransferOut = 5,
    /// Money for a claim that was written off: the exposure stays.
    Recovery = 6,
    /// A statement was open when the line was taken over from another system: raises the exposure, above the limit too.
    Opening = 7,
}

impl PostingKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Repayment,
        Self::Reversal,
        Self::WriteOff,
        Self::TransferIn,
        Self::TransferOut,
        Self::Recovery,
        Self::Opening,
    ];

    /// The name in journal rows, answers and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repayment => "repayment",
            Self::Reversal => "repayment_reversal",
            Self::WriteOff => "write_off",
            Self::TransferIn => "transfer_in",
            Self::TransferOut => "transfer_out",
            Self::Recovery => "recovery",
            Self::Opening => "opening",
        }
    }

    /// The number of packed values. It is stored and never changes.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A posting to a credit line, under a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    pub kind: PostingKind,
    pub amount: AmountMinor,
}

impl Posting {
    /// What it adds to the exposure, minor units; below zero where it lowers the exposure.
    #[must_use]
    pub const fn exposure_change(&self) -> i64 {
        let amount = self.amount.get().cast_signed();
        match self.kind {
            PostingKind::Reversal | PostingKind::TransferOut | PostingKind::Opening => amount,
            PostingKind::Repayment | PostingKind::WriteOff | PostingKind::TransferIn => amount.saturating_neg(),
            PostingKind::Recovery => 0,
        }
    }
}
