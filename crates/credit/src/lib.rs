//! Credit lines: a limit that is used and repaid. Cycles, books, days past due, stages, the limit in force, scorecards and dunning.
//!
//! No IO, clock or randomness: every function takes the date. Amounts are minor units in `i64`, ratios basis points, days business
//! dates. There are no floats.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// An arm for all others would take a new variant in silently.
#![warn(clippy::wildcard_enum_match_arm)]

mod books;
mod cycle;
mod day;
mod dunning;
mod event;
mod invalid;
mod limit;
mod obligation;
mod overdue;
mod pause;
mod ratio;
mod refusal;
mod schedule;
mod scorecard;
mod stage_table;
mod standing;
mod summary;
mod terms;
#[cfg(test)]
mod tests;

pub use books::Books;
pub use cycle::{Cycle, CycleRule};
pub use day::CycleId;
pub use dunning::{DunningState, DunningStep, Ladder, Notice, NoticeKey, NoticeKind, Recipient};
pub use event::{BookAccount, BooksError, Change, Event, Posting};
pub use invalid::InvalidMember;
pub use limit::{EffectiveLimit, LimitFactors, LimitOverride};
pub use obligation::{Allocation, Obligation, Source, Statement};
pub use overdue::{Ageing, LineHistory, Overdue};
pub use pause::Pause;
pub use ratio::{AMOUNT_MAX, BasisPoints};
pub use refusal::{CreditCheck, CreditRefusal};
pub use schedule::{Schedule, TermsVersion};
pub use scorecard::{
    Band, Bands, Behaviour, Bin, Characteristic, Evaluation, Feature, FeaturePoints, Grade, GradeMove, GradeOverride,
    GradeRecord, GradeRun, Inputs, Movement, ODDS_AT_ANCHOR, POINTS_TO_DOUBLE, REASONS_MAX, SCORE_ANCHOR, Scorecard,
    ScorecardRun, default_probability_bp, grade_in_force, odds_milli,
};
pub use stage_table::{Stage, StageEffect, StageRow, StageTable};
pub use standing::{PROBATION_DPD_MAX, StageChange, Standing};
pub use summary::LineSummary;
pub use terms::{GradeTerms, Materiality, StatementTerms, Terms};
