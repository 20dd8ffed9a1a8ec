//! Obligations: the statement of a closed cycle, and the money that was allocated to it.

use jiff::civil::Date;
use quota::OperationNo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::CycleId;

/// What a cycle came to when it closed. It keeps its due date and minimum whatever becomes of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Statement {
    /// 1 for the first cycle of the line.
    pub number: u32,
    pub cycle: CycleId,
    #[schema(value_type = String, format = Date)]
    pub first_day: Date,
    /// The last day of the cycle.
    #[schema(value_type = String, format = Date)]
    pub closed_on: Date,
    #[schema(value_type = String, format = Date)]
    pub due_on: Date,
    /// In minor units, as the next member.
    pub amount: i64,
    /// What must be paid by the due date.
    pub minimum: i64,
}

/// Where money, or a reduction of what is owed, comes from. The order is that of allocation among sources of one day.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A void or refund that came after its cycle had closed.
    Credit { cycle: CycleId, on: Date },
    /// A repayment, by its `repayment_no`.
    Repayment(OperationNo),
    /// A transfer from another account, by its `transfer_no`.
    Transfer(OperationNo),
    /// What the lender gave up on a day. It is no money: the claim goes on.
    WriteOff { on: Date },
    /// Money for a claim that is written off, by its `recovery_no`.
    Recovery(OperationNo),
}

impl Source {
    pub(crate) const fn is_write_off(&self) -> bool {
        match self {
            Self::WriteOff { .. } => true,
            Self::Credit { .. } | Self::Repayment(_) | Self::Transfer(_) | Self::Recovery(_) => false,
        }
    }

    pub(crate) const fn is_recovery(&self) -> bool {
        match self {
            Self::Recovery(_) => true,
            Self::Credit { .. } | Self::Repayment(_) | Self::Transfer(_) | Self::WriteOff { .. } => false,
        }
    }

    const fn is_credit(&self) -> bool {
        match self {
            Self::Credit { .. } => true,
            Self::WriteOff { .. } | Self::Repayment(_) | Self::Transfer(_) | Self::Recovery(_) => false,
        }
    }
}

/// Part of a source that counts towards an obligation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub source: Source,
    /// When the money was received.
    pub value_on: Date,
    /// When it was allocated, which is later for a balance that waited.
    pub allocated_on: Date,
    pub amount: i64,
}

/// A statement and how far it is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obligation {
    pub statement: Statement,
    allocations: Vec<Allocation>,
}

impl Obligation {
    /// A statement of which nothing is paid yet.
    #[must_use]
    pub const fn new(statement: Statement) -> Self {
        Self { statement, allocations: Vec::new() }
    }

    /// A statement with allocations that were read back. They are no more than its amount.
    #[must_use]
    pub const fn with_allocations(statement: Statement, allocations: Vec<Allocation>) -> Self {
        Self { statement, allocations }
    }

    /// What was allocated, in the order in which it was.
    #[must_use]
    pub fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    fn sum(&self, of: impl Fn(&Allocation) -> bool) -> i64 {
        self.allocations.iter().filter(|allocation| of(allocation)).fold(0, |sum, one| sum.saturating_add(one.amount))
    }

    /// What repayments, transfers, credits and recoveries have settled.
    #[must_use]
    pub fn paid(&self) -> i64 {
        self.sum(|allocation| !allocation.source.is_write_off())
    }

    /// The part of [`Obligation::paid`] that voids and refunds settled.
    #[must_use]
    pub fn credited(&self) -> i64 {
        self.sum(|allocation| allocation.source.is_credit())
    }

    /// What is claimed: also what is written off.
    #[must_use]
    pub fn unpaid(&self) -> i64 {
        self.statement.amount.saturating_sub(self.paid())
    }

    /// What is written off and not recovered.
    #[must_use]
    pub fn written_off(&self) -> i64 {
        let recovered = self.sum(|allocation| allocation.source.is_recovery());
        self.sum(|allocation| allocation.source.is_write_off()).saturating_sub(recovered)
    }

    /// What is in the books: neither paid nor written off.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.unpaid().saturating_sub(self.written_off())
    }

    /// What was unpaid at the end of a day, by the days on which money was received.
    #[must_use]
    pub fn unpaid_on(&self, date: Date) -> i64 {
        let paid = self.sum(|allocation| !allocation.source.is_write_off() && allocation.value_on <= date);
        self.statement.amount.saturating_sub(paid)
    }

    /// What was unpaid of the minimum at the end of a day.
    #[must_use]
    pub fn minimum_unpaid_on(&self, date: Date) -> i64 {
        let beyond = self.statement.amount.saturating_sub(self.statement.minimum);
        self.unpaid_on(date).saturating_sub(beyond).max(0)
    }

    /// The day on which the last part was received, and not before the close; `None` while anything is unpaid.
    #[must_use]
    pub fn paid_in_full_on(&self) -> Option<Date> {
        let money = self.allocations.iter().filter(|allocation| !allocation.source.is_write_off());
        let last = money.map(|allocation| allocation.value_on).max();
        (self.unpaid() == 0).then(|| last.map_or(self.statement.closed_on, |last| last.max(self.statement.closed_on)))
    }

    /// The day on which it was paid in full, if that was not after the due date. A cycle that closed with nothing to pay counts
    /// as paid when it closed.
    #[must_use]
    pub fn paid_in_time_on(&self) -> Option<Date> {
        self.paid_in_full_on().filter(|paid| *paid <= self.statement.due_on)
    }

    pub(crate) fn allocate(&mut self, allocation: Allocation) {
        if allocation.amount > 0 {
            self.allocations.push(allocation);
        }
    }

    /// Takes back the allocations for which this holds.
    pub(crate) fn release(&mut self, of: impl Fn(&Allocation) -> bool) {
        self.allocations.retain(|allocation| !of(allocation));
    }
}
