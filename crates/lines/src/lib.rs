//! Credit lines in Postgres: their terms, the entries and statements of their books in step with the journal, and what a server
//! knows of each on a day. The arithmetic is that of `sluice-credit`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![warn(clippy::wildcard_enum_match_arm)]

mod activity;
mod change;
mod day;
mod dispute;
mod entry;
mod follow;
mod grade;
mod grade_override;
mod known;
mod line;
mod merchant;
mod metrics;
mod notice;
mod pause;
mod projection;
mod record;
mod repository;
mod results;
mod run;
mod scorecard;
mod simulation;
mod statement;
mod statement_list;
mod statement_view;
mod takeover;
mod transfer;
mod usage;
mod view;

pub use change::{GradeChanged, LineChange, LineSubject, StageChanged};
pub use day::{CreditDay, day_of, id_of};
pub use dispute::{DisputeInput, DisputeRepository, DisputeRow};
pub use entry::EntryKind;
pub use follow::Follower;
pub use grade::{GradeKind, GradeRow, RunDetails};
pub use grade_override::OverrideRepository;
pub use known::{Credit, CreditLines};
pub use line::{CreditLine, LineInput, LineState};
pub use metrics::LineMetrics;
pub use notice::NoticeRow;
pub use pause::{PauseRepository, PauseRow};
pub use projection::EntryProjection;
pub use record::{LineKey, LineRecord, StoredEntry, Unreadable, read};
pub use repository::{LineFilter, LineRepository};
pub use results::{ChallengerResults, GradeOutcomes, GradePair, Outcomes, Score, TrialRun};
pub use run::{DueRun, NextRun, RunRepository};
pub use scorecard::{ScorecardRepository, ScorecardRole, ScorecardRow, ScorecardState, Scorecards};
pub use simulation::{Simulation, SimulationBasis, SimulationError};
pub use statement_list::{AccountStatement, StatementFilter};
pub use statement_view::{
    AllocationView, STATEMENT_COLUMNS, StatementStatus, StatementView, statement_cells, statements_csv,
};
pub use takeover::{OBLIGATIONS_MAX, OpenObligation, Opening, OpeningError};
pub use transfer::{
    NewTransfer, TRANSFER_COLUMNS, Transfer, TransferFilter, TransferRepository, TransferState, TransferStep,
};
pub use usage::LineUsage;
pub use view::{CycleView, LineToday, LineView};
