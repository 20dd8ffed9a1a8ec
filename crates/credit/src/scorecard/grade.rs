//! Grades: the bands of a score, what each decides, how a grade moves, and a person's override.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::day::days_between;
use crate::invalid::{ensure, within};
use crate::{BasisPoints, GradeTerms, InvalidMember, Stage, StageEffect, Standing};

/// How good the risk of an account is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Grade {
    A,
    B,
    C,
    D,
    /// Prepaid: no credit.
    E,
}

impl Grade {
    /// Every grade, best first.
    pub const ALL: [Self; 5] = [Self::A, Self::B, Self::C, Self::D, Self::E];
    /// The best grade after a default.
    pub const AFTER_DEFAULT: Self = Self::D;

    /// The letter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::E => "E",
        }
    }

    /// One notch better; `None` for the best.
    #[must_use]
    pub const fn one_up(self) -> Option<Self> {
        match self {
            Self::A => None,
            Self::B => Some(Self::A),
            Self::C => Some(Self::B),
            Self::D => Some(Self::C),
            Self::E => Some(Self::D),
        }
    }
}

/// A range of scores, and what its grade decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Band {
    pub grade: Grade,
    /// The least score; none for the last band.
    pub from_score: Option<i32>,
    /// What the limit's base is multiplied with.
    pub multiplier_bp: BasisPoints,
    /// The part of the limit within which charges may be admitted on trust.
    pub trust_share_bp: BasisPoints,
    /// Percentages of the limit at which usage is reported.
    pub threshold_percents: Vec<u32>,
    /// The channels that are allowed; none allows all.
    #[serde(default)]
    pub channels: Option<BTreeSet<String>>,
    /// Days from the close of a cycle to the due date of its statement; those of the line's terms where none are given.
    // Not written where it is absent: a release that does not know it reads the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_days: Option<u16>,
    /// The part of a statement that must be paid by its due date; that of the line's terms where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_bp: Option<BasisPoints>,
}

/// How a grade moves. Down it moves at once and any number of notches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Movement {
    /// Points above the better band's least score that two closes in a row must reach.
    pub margin_points: i32,
    /// Days since the last change.
    pub days_between_changes: u16,
}

impl Default for Movement {
    fn default() -> Self {
        Self { margin_points: 10, days_between_changes: 90 }
    }
}

/// The grade of an account as it was last decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GradeRecord {
    pub grade: Grade,
    #[schema(value_type = String, format = Date)]
    pub changed_on: Date,
}

/// A run of the scorecard.
#[derive(Clone, Copy, Debug)]
pub struct GradeRun<'a> {
    pub on: Date,
    pub score: i32,
    /// The run is that of a cycle's close, and not of a change of stage. A grade rises at closes only.
    pub is_close: bool,
    /// The score at the close before this run; none where there was none.
    pub previous_close_score: Option<i32>,
    pub standing: &'a Standing,
}

/// What a run makes of a grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GradeMove {
    Unchanged,
    Down(Grade),
    Up(Grade),
}

/// Bands from the best grade to the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Bands(pub Vec<Band>);

impl Default for Bands {
    fn default() -> Self {
        let band = |(grade, from_score, multiplier, trust_share, percents): (_, _, _, _, &[u32])| Band {
            grade,
            from_score,
            multiplier_bp: BasisPoints(multiplier),
            trust_share_bp: BasisPoints(trust_share),
            threshold_percents: percents.to_vec(),
            channels: None,
            due_days: None,
            minimum_bp: None,
        };
        let bands: [(Grade, Option<i32>, u32, u32, &[u32]); 5] = [
            (Grade::A, Some(660), 15_000, 2_000, &[80, 100]),
            (Grade::B, Some(620), 10_000, 1_000, &[80, 100]),
            (Grade::C, Some(580), 7_000, 500, &[70, 90, 100]),
            (Grade::D, Some(540), 4_000, 0, &[50, 75, 90, 100]),
            (Grade::E, None, 0, 0, &[100]),
        ];
        Self(bands.map(band).into())
    }
}

impl Bands {
    /// The highest multiplier.
    pub const MULTIPLIER_BP_MAX: i64 = 100_000;

    /// The band of a score: the first one whose least score it reaches.
    #[must_use]
    pub fn of_score(&self, score: i32) -> Option<&Band> {
        self.0.iter().find(|band| band.from_score.is_none_or(|from| from <= score))
    }

    /// The band of a grade.
    #[must_use]
    pub fn of_grade(&self, grade: Grade) -> Option<&Band> {
        self.0.iter().find(|band| band.grade == grade)
    }

    /// The grade of a score. Without a band it is the last one.
    #[must_use]
    pub fn grade_of(&self, score: i32) -> Grade {
        self.of_score(score).map_or(Grade::E, |band| band.grade)
    }

    /// Checks that there is one band for each grade, and that scores and multipliers fall.
    ///
    /// # Errors
    /// [`InvalidMember`] names the first one that cannot be used.
    pub fn validate(&self) -> Result<(), InvalidMember> {
        let grades: Vec<Grade> = self.0.iter().map(|band| band.grade).collect();
        ensure(grades == Grade::ALL, "bands", "must have the grades A, B, C, D and E in this order, each once")?;
        for (number, band) in self.0.iter().enumerate() {
            band.validate().map_err(|error| error.below(&format!("bands[{number}]")))?;
            let is_last = band.grade == Grade::E;
            let problem = if is_last { "must be null: the last band has no least score" } else { "is missing" };
            ensure(band.from_score.is_none() == is_last, format!("bands[{number}].from_score"), problem)?;
        }
        for (number, (band, next)) in (1..).zip(self.0.iter().zip(self.0.iter().skip(1))) {
            let member = |name: &str| format!("bands[{number}].{name}");
            let falls = next.from_score.is_none_or(|next| band.from_score.is_some_and(|from| next < from));
            ensure(falls, member("from_score"), "does not fall: give less than that of the band before")?;
            let falls = next.multiplier_bp <= band.multiplier_bp;
            ensure(falls, member("multiplier_bp"), "rises: give at most that of the band before")?;
        }
        Ok(())
    }
}

impl Band {
    /// The terms of statements that the grade decides.
    #[must_use]
    pub const fn terms(&self) -> GradeTerms {
        GradeTerms { due_days: self.due_days, minimum_bp: self.minimum_bp }
    }

    fn validate(&self) -> Result<(), InvalidMember> {
        within("multiplier_bp", self.multiplier_bp.0.into(), 0, Bands::MULTIPLIER_BP_MAX)?;
        within("trust_share_bp", self.trust_share_bp.0.into(), 0, 10_000)?;
        quota::Thresholds::new(self.threshold_percents.iter().copied())
            .map_err(|error| InvalidMember::new("threshold_percents", format!("cannot be used: {error}")))?;
        let is_channel = |name: &String| quota::Channel::parse(name).is_ok();
        let problem = "has a name that is no channel: give 1 to 32 visible ASCII characters";
        ensure(self.channels.iter().flatten().all(is_channel), "channels", problem)?;
        self.terms().validate()
    }
}

impl Bands {
    /// What a run makes of the grade: down at once, to D at most in a default and after it; up one notch, at a close, after
    /// two closes above the better band's least score and the margin, and not soon after another change or a default.
    #[must_use]
    pub fn next_grade(&self, movement: Movement, current: GradeRecord, run: &GradeRun<'_>) -> GradeMove {
        let scored = self.grade_of(run.score);
        let after_default = run.standing.left_default_on.is_some_and(|left| left >= current.changed_on);
        let is_held_down = run.standing.stage == Stage::Defaulted || after_default;
        let most = if is_held_down { Grade::AFTER_DEFAULT } else { Grade::A };
        let target = scored.max(most);
        if target > current.grade {
            return GradeMove::Down(target);
        }
        match current.grade.one_up() {
            Some(better) if self.may_rise(movement, better, current, run) => GradeMove::Up(better),
            Some(_) | None => GradeMove::Unchanged,
        }
    }

    fn may_rise(&self, movement: Movement, better: Grade, current: GradeRecord, run: &GradeRun<'_>) -> bool {
        let standing = run.standing;
        let least = self.of_grade(better).and_then(|band| band.from_score);
        let reaches = |score: i32| least.is_some_and(|least| score >= least.saturating_add(movement.margin_points));
        let since = standing.left_default_on.map_or(current.changed_on, |left| left.max(current.changed_on));
        run.is_close
            && standing.stage != Stage::Defaulted
            && !standing.effects.contains(&StageEffect::NoIncrease)
            && reaches(run.score)
            && run.previous_close_score.is_some_and(reaches)
            && days_between(since, run.on) >= movement.days_between_changes.into()
    }
}

/// A grade that a person has set. It is ignored until a second person approves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GradeOverride {
    pub grade: Grade,
    pub reason: String,
    /// The last day on which it is in force.
    #[schema(value_type = String, format = Date)]
    pub expires_on: Date,
    pub requested_by: String,
    #[serde(default)]
    pub approved_by: Option<String>,
}

impl GradeOverride {
    /// Checks it on the day on which it is made or approved.
    ///
    /// # Errors
    /// [`InvalidMember`] names the member that cannot be used.
    pub fn validate(&self, today: Date) -> Result<(), InvalidMember> {
        ensure(!self.reason.trim().is_empty(), "reason", "is empty: say why")?;
        ensure(self.expires_on >= today, "expires_on", format!("is over: give {today} or later"))?;
        ensure(!self.requested_by.trim().is_empty(), "requested_by", "is empty: name the person who requests it")?;
        let is_second = self.approved_by.as_ref().is_none_or(|second| *second != self.requested_by);
        ensure(is_second, "approved_by", "is the person who requested it: a second person must approve it")
    }

    /// Whether it counts on a date.
    #[must_use]
    pub fn is_in_force(&self, date: Date) -> bool {
        let is_approved = self.approved_by.as_ref().is_some_and(|second| *second != self.requested_by);
        is_approved && date <= self.expires_on
    }
}

/// The grade in force on a date: that of an override, else the one that was decided.
#[must_use]
pub fn grade_in_force(decided: Grade, overridden: Option<&GradeOverride>, date: Date) -> Grade {
    overridden.filter(|by_hand| by_hand.is_in_force(date)).map_or(decided, |by_hand| by_hand.grade)
}
