//! The table of stages: from which day past due a credit line is in which stage, how far its limit is cut, and what else follows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::invalid::{ensure, within};
use crate::{BasisPoints, InvalidMember};

/// How far a credit line has fallen behind, by days past due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing material is past due.
    #[default]
    Current,
    /// Past due, within the days of grace.
    Grace,
    /// Risk watches the line, and its limit is cut.
    Watch,
    /// Past the usual mark of significantly increased risk, 30 days (IFRS 9, 5.5.11).
    Restricted,
    /// No new charges.
    Frozen,
    /// Past the usual mark of default, 90 days (CRR Art. 178), or in the probation that follows it.
    Defaulted,
}

impl Stage {
    /// Every stage, best first.
    pub const ALL: [Self; 6] =
        [Self::Current, Self::Grace, Self::Watch, Self::Restricted, Self::Frozen, Self::Defaulted];

    /// The name in documents, answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Grace => "grace",
            Self::Watch => "watch",
            Self::Restricted => "restricted",
            Self::Frozen => "frozen",
            Self::Defaulted => "defaulted",
        }
    }
}

/// What a stage does besides cutting the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageEffect {
    /// Neither limit nor grade rises.
    NoIncrease,
    /// No charge is admitted on trust.
    NoTrust,
    /// An alert goes to risk.
    RiskAlert,
    /// Charges by the channels that the terms list, and by no other.
    ListedChannelsOnly,
    /// No new charges. Captures and refunds of earlier ones go on.
    NoNewCharges,
    /// An override needs two persons.
    TwoPersonsToLift,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StageRow {
    pub stage: Stage,
    /// The first day past due of the stage; 0 for `current`.
    pub from_dpd: u16,
    /// The most of the limit's base that is in force. 10,000 is no cap: the grade's multiplier decides alone.
    pub cap_bp: BasisPoints,
    /// What the stage does in addition to the stages before it.
    #[serde(default)]
    pub also: BTreeSet<StageEffect>,
}

/// Stages by days past due, best first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct StageTable(pub Vec<StageRow>);

impl Default for StageTable {
    fn default() -> Self {
        use StageEffect::{ListedChannelsOnly, NoIncrease, NoNewCharges, NoTrust, RiskAlert, TwoPersonsToLift};
        let row = |stage, from_dpd, cap_bp, also: &[StageEffect]| StageRow {
            stage,
            from_dpd,
            cap_bp: BasisPoints(cap_bp),
            also: also.iter().copied().collect(),
        };
        Self(vec![
            row(Stage::Current, 0, 10_000, &[]),
            row(Stage::Grace, 1, 10_000, &[NoIncrease, NoTrust]),
            row(Stage::Watch, 6, 7_500, &[RiskAlert]),
            row(Stage::Restricted, 31, 5_000, &[ListedChannelsOnly]),
            row(Stage::Frozen, 61, 0, &[NoNewCharges]),
            row(Stage::Defaulted, 91, 0, &[TwoPersonsToLift]),
        ])
    }
}

/// A row's position in the table: 0 is `current`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(usize);

impl StageTable {
    /// The level by days past due.
    pub(crate) fn level_at(&self, days_past_due: i64) -> Level {
        Level(self.0.iter().rposition(|row| i64::from(row.from_dpd) <= days_past_due).unwrap_or(0))
    }

    /// The level of default.
    pub(crate) fn default_level(&self) -> Level {
        Level(self.0.iter().rposition(|row| row.stage == Stage::Defaulted).unwrap_or(0))
    }

    /// The level after one step up: the nearest one whose cap is higher, or that of `current`.
    pub(crate) fn step_up(&self, level: Level) -> Level {
        let cap = self.cap_bp(level);
        let above = self.0.get(..level.0).unwrap_or_default();
        Level(above.iter().rposition(|row| row.cap_bp > cap).unwrap_or(0))
    }

    pub(crate) fn stage(&self, level: Level) -> Stage {
        self.0.get(level.0).map_or(Stage::Current, |row| row.stage)
    }

    pub(crate) fn cap_bp(&self, level: Level) -> BasisPoints {
        self.0.get(level.0).map_or(BasisPoints::FULL, |row| row.cap_bp)
    }

    /// What a stage does, with what the stages before it do.
    #[must_use]
    pub fn effects(&self, stage: Stage) -> BTreeSet<StageEffect> {
        self.0.iter().filter(|row| row.stage <= stage).flat_map(|row| row.also.iter().copied()).collect()
    }

    /// The stage by days past due alone, without the probation after a default.
    #[must_use]
    pub fn stage_at(&self, days_past_due: i64) -> Stage {
        self.stage(self.level_at(days_past_due))
    }

    /// Checks that stages, days and caps follow each other, and that they fit the days of grace and of default.
    ///
    /// # Errors
    /// [`InvalidMember`] names the first row that does not.
    pub fn validate(&self, grace_days: u16, default_after_days: u16) -> Result<(), InvalidMember> {
        self.validate_ends(default_after_days)?;
        self.validate_grace(grace_days)?;
        for (number, (row, next)) in (1..).zip(self.0.iter().zip(self.0.iter().skip(1))) {
            let member = |name: &str| format!("stages[{number}].{name}");
            let order = "current, grace, watch, restricted, frozen, defaulted";
            ensure(
                row.stage < next.stage,
                member("stage"),
                format!("is out of order: give {order}, each at most once"),
            )?;
            let problem = format!("is {}: give more than the {} of the row before", next.from_dpd, row.from_dpd);
            ensure(row.from_dpd < next.from_dpd, member("from_dpd"), problem)?;
            let problem = format!("is {}: give at most the {} of the row before", next.cap_bp.0, row.cap_bp.0);
            ensure(row.cap_bp >= next.cap_bp, member("cap_bp"), problem)?;
        }
        Ok(())
    }

    /// The first row is `current` without a cap, the last one `defaulted` from the day of default.
    fn validate_ends(&self, default_after_days: u16) -> Result<(), InvalidMember> {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else {
            return Err(InvalidMember::new("stages", "is empty: give a row for `current` and one for `defaulted`"));
        };
        ensure(first.stage == Stage::Current, "stages[0].stage", "must be `current`: begin the table with it")?;
        within("stages[0].from_dpd", first.from_dpd.into(), 0, 0)?;
        within("stages[0].cap_bp", first.cap_bp.0.into(), 10_000, 10_000)?;
        let member = |name: &str| format!("stages[{}].{name}", self.0.len().saturating_sub(1));
        ensure(last.stage == Stage::Defaulted, member("stage"), "must be `defaulted`: end the table with it")?;
        let expected = i64::from(default_after_days) + 1;
        let problem = format!("is {}: give {expected}, the day after `default_after_days`", last.from_dpd);
        ensure(i64::from(last.from_dpd) == expected, member("from_dpd"), problem)
    }

    /// `grace` lasts from day 1 for as many days as the terms grant; without it the terms grant none.
    fn validate_grace(&self, grace_days: u16) -> Result<(), InvalidMember> {
        let grace = self.0.iter().position(|row| row.stage == Stage::Grace);
        let first = i64::from(grace_days) + 1;
        match grace {
            Some(at) => {
                let begin = self.0.get(at).map_or(0, |row| row.from_dpd);
                within(format!("stages[{at}].from_dpd"), begin.into(), 1, 1)?;
                within("grace_days", grace_days.into(), 1, u16::MAX.into())?;
                self.validate_after_grace(at.saturating_add(1), first)
            }
            None => {
                within("grace_days", grace_days.into(), 0, 0)?;
                self.validate_after_grace(1, first)
            }
        }
    }

    fn validate_after_grace(&self, at: usize, first: i64) -> Result<(), InvalidMember> {
        let from_dpd = self.0.get(at).map_or(first, |row| row.from_dpd.into());
        let problem = format!("is {from_dpd}: give {first}, the day after `grace_days`");
        ensure(from_dpd == first, format!("stages[{at}].from_dpd"), problem)
    }
}
