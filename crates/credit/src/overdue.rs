//! Days past due of a credit line, and what must be paid to cure it.
//!
//! The days past due are the most for which the amount that has been due so long, or longer, is material. That is the counter of
//! Regulation (EU) 2018/171: many small debts count together, and a small old one does not make a large new one old.

use jiff::civil::Date;
use serde::Serialize;
use utoipa::ToSchema;

use crate::pause::PausedDays;
use crate::{Obligation, Pause, Terms};

/// What the standing of a line follows from. The obligations are those of [`crate::Books::obligations`], oldest due first.
#[derive(Clone, Copy, Debug)]
pub struct LineHistory<'a> {
    pub terms: &'a Terms,
    pub obligations: &'a [Obligation],
    pub pauses: &'a [Pause],
}

/// What is past due on a date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Overdue {
    /// 0 where nothing material is past due.
    pub days_past_due: i64,
    /// The due date of the oldest obligation that is past due, material or not.
    #[schema(value_type = Option<String>, format = Date)]
    pub oldest_due_on: Option<Date>,
    /// What is past due, material or not.
    pub past_due: i64,
    /// The least to be paid, the oldest due first, until nothing material is past due: by recoveries what is written off of it,
    /// by a repayment the rest.
    pub amount_to_cure: i64,
    pub ageing: Ageing,
}

/// What is billed and not paid, by days past due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Ageing {
    /// Not due, or beyond the minimum.
    pub not_past_due: i64,
    pub days_1_to_30: i64,
    pub days_31_to_60: i64,
    pub days_61_to_90: i64,
    pub days_over_90: i64,
}

impl Ageing {
    /// The sum.
    #[must_use]
    pub const fn total(&self) -> i64 {
        let first = self.not_past_due.saturating_add(self.days_1_to_30).saturating_add(self.days_31_to_60);
        first.saturating_add(self.days_61_to_90).saturating_add(self.days_over_90)
    }

    fn add(&mut self, days_past_due: i64, amount: i64) {
        let bucket = match days_past_due {
            ..=0 => &mut self.not_past_due,
            1..=30 => &mut self.days_1_to_30,
            31..=60 => &mut self.days_31_to_60,
            61..=90 => &mut self.days_61_to_90,
            91.. => &mut self.days_over_90,
        };
        *bucket = bucket.saturating_add(amount);
    }
}

impl std::ops::AddAssign for Ageing {
    fn add_assign(&mut self, other: Self) {
        let Self { not_past_due, days_1_to_30, days_31_to_60, days_61_to_90, days_over_90 } = other;
        self.not_past_due = self.not_past_due.saturating_add(not_past_due);
        self.days_1_to_30 = self.days_1_to_30.saturating_add(days_1_to_30);
        self.days_31_to_60 = self.days_31_to_60.saturating_add(days_31_to_60);
        self.days_61_to_90 = self.days_61_to_90.saturating_add(days_61_to_90);
        self.days_over_90 = self.days_over_90.saturating_add(days_over_90);
    }
}

/// One obligation at the end of a day.
#[derive(Clone, Copy, Debug)]
struct Due {
    due_on: Date,
    days_past_due: i64,
    /// Unpaid of the minimum where it is past due, else 0.
    past_due: i64,
    unpaid: i64,
}

impl LineHistory<'_> {
    /// What is past due at the end of a day.
    #[must_use]
    pub fn overdue(&self, date: Date) -> Overdue {
        let dues = self.dues(date, &PausedDays::new(self.pauses));
        let mut overdue = Overdue {
            days_past_due: self.material_days(&dues),
            oldest_due_on: dues.iter().find(|due| due.past_due > 0).map(|due| due.due_on),
            past_due: sum(dues.iter().map(|due| due.past_due)),
            amount_to_cure: self.amount_to_cure(&dues),
            ageing: Ageing::default(),
        };
        for due in &dues {
            overdue.ageing.add(due.days_past_due, due.past_due);
            overdue.ageing.add(0, due.unpaid.saturating_sub(due.past_due));
        }
        overdue
    }

    /// Days past due at the end of a day; 0 where nothing material is.
    pub(crate) fn days_past_due(&self, date: Date, paused: &PausedDays) -> i64 {
        self.material_days(&self.dues(date, paused))
    }

    /// What had been billed by a date and was unpaid, oldest due first.
    fn dues(&self, date: Date, paused: &PausedDays) -> Vec<Due> {
        let billed = self.obligations.iter().filter(|own| own.statement.closed_on <= date);
        let due = |own: &Obligation| {
            let days_past_due = paused.days_past_due(own.statement.due_on, date);
            let past_due = if days_past_due > 0 { own.minimum_unpaid_on(date) } else { 0 };
            Due { due_on: own.statement.due_on, days_past_due, past_due, unpaid: own.unpaid_on(date) }
        };
        billed.map(due).filter(|due| due.unpaid > 0).collect()
    }

    fn material_days(&self, dues: &[Due]) -> i64 {
        let billed = sum(dues.iter().map(|due| due.unpaid));
        let mut past_due = 0_i64;
        for due in dues.iter().filter(|due| due.past_due > 0) {
            past_due = past_due.saturating_add(due.past_due);
            if self.terms.materiality.is_exceeded(past_due, billed) {
                return due.days_past_due;
            }
        }
        0
    }

    /// Pays obligation by obligation, the oldest due first, until what is left is not material.
    fn amount_to_cure(&self, dues: &[Due]) -> i64 {
        let mut paid = 0_i64;
        let mut left =
            Left { past_due: sum(dues.iter().map(|due| due.past_due)), billed: sum(dues.iter().map(|due| due.unpaid)) };
        for due in dues {
            if !self.terms.materiality.is_exceeded(left.past_due, left.billed) {
                return paid;
            }
            let needed = self.least_to_pay(left);
            if needed <= due.past_due {
                return paid.saturating_add(needed);
            }
            // What is beyond its minimum is paid before anything of the next obligation.
            left.past_due = left.past_due.saturating_sub(due.past_due);
            left.billed = left.billed.saturating_sub(due.unpaid);
            paid = paid.saturating_add(due.unpaid);
        }
        paid
    }

    /// The least amount of what is past due whose payment makes the rest immaterial: down to the absolute threshold, or down to
    /// the relative one, where `(past_due − x) × 10,000 ≤ bp × (billed − x)`.
    fn least_to_pay(&self, left: Left) -> i64 {
        let materiality = self.terms.materiality;
        let to_absolute = left.past_due.saturating_sub(materiality.absolute);
        let bp = i128::from(materiality.bp.0);
        let excess = i128::from(left.past_due) * 10_000 - bp * i128::from(left.billed);
        let divisor = (10_000 - bp).max(1);
        let to_relative = i64::try_from((excess + divisor - 1) / divisor).unwrap_or(i64::MAX);
        to_absolute.min(to_relative).max(0)
    }
}

impl Obligation {
    /// Days past due at the end of a day, without those that are paused; 0 where nothing of the minimum is past due.
    #[must_use]
    pub fn days_past_due(&self, pauses: &[Pause], date: Date) -> i64 {
        if self.minimum_unpaid_on(date) == 0 {
            return 0;
        }
        PausedDays::new(pauses).days_past_due(self.statement.due_on, date)
    }
}

/// What is left to pay.
#[derive(Clone, Copy, Debug)]
struct Left {
    past_due: i64,
    billed: i64,
}

fn sum(amounts: impl Iterator<Item = i64>) -> i64 {
    amounts.fold(0, i64::saturating_add)
}
