//! What Redis has of an account on a credit line.

use quota::{Account, CreditUsage};

/// What an account uses of its line. Amounts are minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineUsage {
    /// The billing cycle of the account's last command: its first day, `YYYYMMDD`; 0 before the first one.
    pub cycle: u32,
    /// Held + unbilled + open statements - repayments that are not applied; below zero where more was repaid than is owed.
    pub exposure: i64,
    /// Charged and captured in that cycle, less what was returned of it.
    pub unbilled: u64,
    /// Open holds.
    pub held: u64,
}

impl LineUsage {
    /// The usage of an account as it is stored; none where it was never used.
    #[must_use]
    pub fn of(account: Option<&Account>) -> Self {
        let CreditUsage { cycle, exposure, unbilled } = account.and_then(|account| account.credit).unwrap_or_default();
        Self { cycle, exposure, unbilled, held: account.map_or(0, |account| account.pending) }
    }

    /// What is unbilled in a cycle: an earlier one has closed.
    #[must_use]
    pub const fn unbilled_in(&self, cycle: u32) -> u64 {
        if self.cycle < cycle { 0 } else { self.unbilled }
    }
}
