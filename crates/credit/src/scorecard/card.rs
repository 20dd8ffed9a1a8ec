//! The scorecard itself, and what it makes of an account's inputs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::odds::{default_probability_bp, odds_milli};
use super::{Bands, Feature, Grade, Inputs, Movement};
use crate::InvalidMember;
use crate::invalid::{ensure, within};

/// The most reasons of an evaluation.
pub const REASONS_MAX: usize = 4;
/// The most points of a bin or the base, either way.
const POINTS_MAX: i64 = 10_000;

/// A range of values and its points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bin {
    /// The first value; none in the first bin.
    pub from: Option<i64>,
    /// The last value; none in the last bin.
    pub to: Option<i64>,
    pub points: i32,
}

/// The points of one feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Characteristic {
    pub feature: Feature,
    /// Bins in rising order, without a gap.
    pub bins: Vec<Bin>,
    /// The points where the value is not known.
    pub missing_points: i32,
}

/// A scorecard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scorecard {
    /// Names this card in every evaluation.
    pub version: String,
    pub base_points: i32,
    pub characteristics: Vec<Characteristic>,
    #[serde(default)]
    pub bands: Bands,
    #[serde(default)]
    pub movement: Movement,
}

/// What one feature contributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeaturePoints {
    pub feature: Feature,
    pub value: Option<i64>,
    pub points: i32,
    /// How much less than the best bin's.
    pub cost: i32,
}

/// What a scorecard makes of an account: kept with its inputs, so that a grade can be explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    pub version: String,
    pub score: i32,
    /// The grade of the score's band, before the rule of movement.
    pub grade: Grade,
    /// Odds in thousandths: 50,000 is 50 : 1.
    pub odds_milli: u64,
    pub default_probability_bp: u32,
    /// In the order of the card.
    pub points: Vec<FeaturePoints>,
    /// The features that cost most, at most four, the costliest first.
    pub reasons: Vec<Feature>,
}

/// The evaluations of a run. The challenger's has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScorecardRun {
    pub champion: Evaluation,
    pub challenger: Option<Evaluation>,
}

impl ScorecardRun {
    /// Evaluates the card in force, and beside it one on trial.
    #[must_use]
    pub fn new(champion: &Scorecard, challenger: Option<&Scorecard>, inputs: &Inputs) -> Self {
        Self { champion: champion.evaluate(inputs), challenger: challenger.map(|card| card.evaluate(inputs)) }
    }
}

impl Bin {
    fn contains(&self, value: i64) -> bool {
        self.from.is_none_or(|from| from <= value) && self.to.is_none_or(|to| value <= to)
    }
}

impl Characteristic {
    fn evaluate(&self, inputs: &Inputs) -> FeaturePoints {
        let value = inputs.get(self.feature);
        let bin = value.and_then(|value| self.bins.iter().find(|bin| bin.contains(value)));
        let points = bin.map_or(self.missing_points, |bin| bin.points);
        let best = self.bins.iter().map(|bin| bin.points).max().unwrap_or(points);
        FeaturePoints { feature: self.feature, value, points, cost: best.saturating_sub(points).max(0) }
    }

    fn validate(&self) -> Result<(), InvalidMember> {
        within("missing_points", self.missing_points.into(), -POINTS_MAX, POINTS_MAX)?;
        let (Some(first), Some(last)) = (self.bins.first(), self.bins.last()) else {
            return Err(InvalidMember::new("bins", "is empty: give at least one bin"));
        };
        let end = self.bins.len().saturating_sub(1);
        ensure(first.from.is_none(), "bins[0].from", "must be null: the first bin has no first value")?;
        ensure(last.to.is_none(), format!("bins[{end}].to"), "must be null: the last bin has no last value")?;
        for (number, bin) in self.bins.iter().enumerate() {
            within(format!("bins[{number}].points"), bin.points.into(), -POINTS_MAX, POINTS_MAX)?;
            let is_range = bin.from.zip(bin.to).is_none_or(|(from, to)| from <= to);
            ensure(is_range, format!("bins[{number}].to"), "is less than `from`: give at least that")?;
        }
        for (number, (bin, next)) in (1..).zip(self.bins.iter().zip(self.bins.iter().skip(1))) {
            let follows = bin.to.and_then(|to| to.checked_add(1)).is_some_and(|expected| next.from == Some(expected));
            let problem = "leaves a gap or an overlap: give one more than `to` of the bin before";
            ensure(follows, format!("bins[{number}].from"), problem)?;
        }
        Ok(())
    }
}

impl Scorecard {
    /// The longest version, in bytes.
    pub const VERSION_LEN_MAX: usize = 64;

    /// The score of an account, and how it came about.
    #[must_use]
    pub fn evaluate(&self, inputs: &Inputs) -> Evaluation {
        let points: Vec<FeaturePoints> = self.characteristics.iter().map(|own| own.evaluate(inputs)).collect();
        let score = points.iter().fold(self.base_points, |sum, one| sum.saturating_add(one.points));
        let mut costly: Vec<&FeaturePoints> = points.iter().filter(|one| one.cost > 0).collect();
        costly.sort_by_key(|one| (std::cmp::Reverse(one.cost), one.feature));
        Evaluation {
            version: self.version.clone(),
            score,
            grade: self.bands.grade_of(score),
            odds_milli: odds_milli(score),
            default_probability_bp: default_probability_bp(score),
            reasons: costly.iter().take(REASONS_MAX).map(|one| one.feature).collect(),
            points,
        }
    }

    /// Checks that every value has points, once.
    ///
    /// # Errors
    /// [`InvalidMember`] names the first member that cannot be used.
    pub fn validate(&self) -> Result<(), InvalidMember> {
        let len = self.version.len();
        let is_name =
            (1..=Self::VERSION_LEN_MAX).contains(&len) && self.version.bytes().all(|byte| byte.is_ascii_graphic());
        ensure(is_name, "version", "is no name: give 1 to 64 visible ASCII characters")?;
        within("base_points", self.base_points.into(), -POINTS_MAX, POINTS_MAX)?;
        ensure(!self.characteristics.is_empty(), "characteristics", "is empty: give the points of a feature")?;
        let mut seen = BTreeSet::new();
        for (number, own) in self.characteristics.iter().enumerate() {
            let path = format!("characteristics[{number}]");
            let problem = format!("`{}` has points already: give each feature once", own.feature.as_str());
            ensure(seen.insert(own.feature), format!("{path}.feature"), problem)?;
            own.validate().map_err(|error| error.below(&path))?;
        }
        self.bands.validate()?;
        within("movement.margin_points", self.movement.margin_points.into(), 0, 1_000)?;
        within("movement.days_between_changes", self.movement.days_between_changes.into(), 0, 3_650)
    }
}
