//! Scorecards: points by table for each feature, their sum, and the reasons. Transparent and versioned; nothing is learned here.

mod behaviour;
mod card;
mod feature;
mod grade;
mod odds;
mod standard;

pub use behaviour::Behaviour;
pub(crate) use behaviour::ratio_bp;
pub use card::{Bin, Characteristic, Evaluation, FeaturePoints, REASONS_MAX, Scorecard, ScorecardRun};
pub use feature::{Feature, Inputs};
pub use grade::{Band, Bands, Grade, GradeMove, GradeOverride, GradeRecord, GradeRun, Movement, grade_in_force};
pub use odds::{ODDS_AT_ANCHOR, POINTS_TO_DOUBLE, SCORE_ANCHOR, default_probability_bp, odds_milli};
