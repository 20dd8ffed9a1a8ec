//! The terms of a credit line: its cycle, when a statement is due, and what follows when it is not paid. A line has a copy of its
//! terms; a change makes a new version and leaves the statements that were made before as they are.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dunning::Ladder;
use crate::invalid::{ensure, within};
use crate::{AMOUNT_MAX, BasisPoints, Cycle, CycleRule, InvalidMember, StageTable, Statement};

/// From which amount on something past due counts: both thresholds must be exceeded (CRR Art. 178(2)(d), Regulation (EU)
/// 2018/171).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Materiality {
    /// In minor units of the line's currency.
    pub absolute: i64,
    /// Of what is billed and not paid.
    pub bp: BasisPoints,
}

impl Default for Materiality {
    fn default() -> Self {
        Self { absolute: 0, bp: BasisPoints(100) }
    }
}

impl Materiality {
    /// Whether an amount past due exceeds both thresholds.
    #[must_use]
    pub fn is_exceeded(self, past_due: i64, billed: i64) -> bool {
        past_due > self.absolute && self.bp.is_exceeded_by(past_due, billed)
    }
}

/// Terms of statements that a grade decides. Those that are not given are the line's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GradeTerms {
    pub due_days: Option<u16>,
    pub minimum_bp: Option<BasisPoints>,
}

impl GradeTerms {
    /// Checks what is given.
    ///
    /// # Errors
    /// [`InvalidMember`] names the first one that is out of range.
    pub fn validate(self) -> Result<(), InvalidMember> {
        let given =
            |member, value: Option<i64>, min, max| value.map_or(Ok(()), |value| within(member, value, min, max));
        given("due_days", self.due_days.map(i64::from), 0, Terms::DAYS_MAX)?;
        given("minimum_bp", self.minimum_bp.map(|ratio| ratio.0.into()), 1, 10_000)
    }
}

/// When a statement is due, and what must be paid of it by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StatementTerms {
    /// Days from the close of the cycle to the due date.
    #[schema(example = 14)]
    pub due_days: u16,
    /// The part of the statement that must be paid by the due date.
    #[schema(example = 10_000)]
    pub minimum_bp: BasisPoints,
}

impl StatementTerms {
    /// The statement of a cycle that closed with an amount.
    #[must_use]
    pub fn statement(self, cycle: &Cycle, amount: i64) -> Statement {
        Statement {
            number: cycle.number,
            cycle: cycle.id(),
            first_day: cycle.first_day,
            closed_on: cycle.closed_on(),
            due_on: cycle.due_on(self.due_days),
            amount,
            minimum: self.minimum_bp.of_rounded_up(amount),
        }
    }
}

/// The terms of a credit line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    pub cycle: CycleRule,
    /// Days from the close of a cycle to the due date of its statement.
    pub due_days: u16,
    /// Days past due without consequences for the limit. Days past due are counted from the due date all the same.
    pub grace_days: u16,
    /// The part of a statement that must be paid by its due date.
    pub minimum_bp: BasisPoints,
    pub materiality: Materiality,
    pub stages: StageTable,
    /// The channels that stay open in stages with `listed_channels_only`; none leaves all open.
    pub listed_channels: Option<BTreeSet<String>>,
    pub dunning: Ladder,
    /// The last day past due before default.
    pub default_after_days: u16,
    /// How long a line stays in default after nothing is past due any more (EBA/GL/2016/07, 71).
    pub probation_days: u16,
    /// The most that one transfer may take from the line, minor units; none for what is available.
    pub transfer_max: Option<i64>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            cycle: CycleRule::Monthly { day: 1 },
            due_days: 14,
            grace_days: 5,
            minimum_bp: BasisPoints::FULL,
            materiality: Materiality::default(),
            stages: StageTable::default(),
            listed_channels: None,
            dunning: Ladder::default(),
            default_after_days: 90,
            probation_days: 90,
            transfer_max: None,
        }
    }
}

impl Terms {
    /// The most days of any period.
    pub const DAYS_MAX: i64 = 3_650;

    /// Checks every member, and that they fit together.
    ///
    /// # Errors
    /// [`InvalidMember`] names the first one that does not, and says what to give.
    pub fn validate(&self) -> Result<(), InvalidMember> {
        self.cycle.validate()?;
        GradeTerms { due_days: Some(self.due_days), minimum_bp: Some(self.minimum_bp) }.validate()?;
        within("materiality.absolute", self.materiality.absolute, 0, AMOUNT_MAX)?;
        within("materiality.bp", self.materiality.bp.0.into(), 0, 9_999)?;
        within("default_after_days", self.default_after_days.into(), 1, Self::DAYS_MAX)?;
        within("probation_days", self.probation_days.into(), 0, Self::DAYS_MAX)?;
        within("transfer_max", self.transfer_max.unwrap_or_default(), 0, AMOUNT_MAX)?;
        self.stages.validate(self.grace_days, self.default_after_days)?;
        let are_channels = self.listed_channels.iter().flatten().all(|name| quota::Channel::parse(name).is_ok());
        let problem = "has a name that is no channel: give 1 to 32 visible ASCII characters";
        ensure(are_channels, "listed_channels", problem)?;
        self.dunning.validate()
    }

    /// What statements are made by where a grade decides these terms.
    #[must_use]
    pub fn with_grade(&self, grade: GradeTerms) -> StatementTerms {
        StatementTerms {
            due_days: grade.due_days.unwrap_or(self.due_days),
            minimum_bp: grade.minimum_bp.unwrap_or(self.minimum_bp),
        }
    }

    /// The statement of a cycle that closed with an amount, by the line's own terms.
    #[must_use]
    pub fn statement(&self, cycle: &Cycle, amount: i64) -> Statement {
        self.with_grade(GradeTerms::default()).statement(cycle, amount)
    }
}
