//! What became of a credit line, as the live stream sends it. Triggers write the rows, in the transaction of their cause.

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::{BasisPoints, Grade, Stage, Statement};

use crate::{CreditLine, GradeKind};

/// A change of a credit line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineChange {
    /// `line_activated`, `line_changed`, `line_closed`, `statement_closed`, `stage_changed` or `grade_changed`.
    pub change: String,
    pub changed_at: DateTime<Utc>,
    pub merchant_id: String,
    pub currency: String,
    #[serde(flatten)]
    pub subject: LineSubject,
}

/// What has changed, as it was then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineSubject {
    /// The version that was put in force, or ended.
    Line(Box<CreditLine>),
    Statement(Statement),
    Stage(StageChanged),
    Grade(GradeChanged),
}

/// Another stage, as the sweep found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageChanged {
    pub stage: Stage,
    pub stage_before: Stage,
    pub days_past_due: i32,
    /// The business day on which it was found.
    pub on_day: Date,
}

/// Another grade, by a run of the scorecard or by two persons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GradeChanged {
    pub grade: Grade,
    pub grade_before: Option<Grade>,
    pub kind: GradeKind,
    /// The business day since which it is in force.
    pub on_day: Date,
    /// Of an override: the last day on which it is in force.
    pub expires_on: Option<Date>,
    /// Terms of statements that the grade decides; none where the line's hold.
    pub due_days: Option<u16>,
    pub minimum_bp: Option<BasisPoints>,
}

impl LineChange {
    /// The change as the line's merchant reads it.
    #[must_use]
    pub fn for_merchant(self) -> Self {
        let subject = match self.subject {
            LineSubject::Line(line) => LineSubject::Line(Box::new(line.for_merchant())),
            // Neither names persons, nor says why.
            LineSubject::Statement(_) | LineSubject::Stage(_) | LineSubject::Grade(_) => self.subject,
        };
        Self { subject, ..self }
    }
}
