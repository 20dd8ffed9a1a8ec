//! How each grade of a line came about.

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::{CycleId, Evaluation, Grade, GradeOverride, Inputs, Stage};
use strum::IntoStaticStr;
use utoipa::ToSchema;

/// What decided a grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum GradeKind {
    /// The line was opened with it.
    Opening,
    /// A run of the scorecard.
    Scorecard,
    /// A person, and a second one who approves it.
    Override,
}

/// One decision about a grade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GradeRow {
    pub grade_id: i64,
    pub kind: GradeKind,
    pub grade: Grade,
    /// The business day of the decision.
    #[schema(value_type = String, format = Date)]
    pub on_day: Date,
    /// Since when the grade is this one.
    #[schema(value_type = String, format = Date)]
    pub changed_on: Date,
    /// Of an override.
    pub reason: Option<String>,
    /// Of an override: the last day on which it is in force.
    #[schema(value_type = Option<String>, format = Date)]
    pub expires_on: Option<Date>,
    pub requested_by: String,
    /// Of an override: the second person. Without one it is not in force.
    pub approved_by: Option<String>,
    pub approved_at: Option<DateTime<Utc>>,
    /// Of a run: it is that of a cycle's close.
    pub is_close: bool,
    /// Of a run: the version of the scorecard.
    pub scorecard: Option<String>,
    /// Of a run: the sum of points.
    pub score: Option<i32>,
    /// Of a run: the cycle whose close it is of; none of a change of stage.
    pub cycle: Option<CycleId>,
    /// Of a run: the line's stage.
    pub stage: Option<Stage>,
    /// Of a run: the line's days past due.
    pub days_past_due: Option<i32>,
    /// Of a run, where it was asked for: what it was made from, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunDetails>,
    pub created_at: DateTime<Utc>,
}

/// What a run of the scorecards looked at, and what each made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunDetails {
    /// Whether the scorecard had been activated, and so may move the grade.
    #[serde(default)]
    pub has_effect: bool,
    /// What was known of the account.
    #[schema(value_type = BTreeMap<String, i64>)]
    pub inputs: Inputs,
    /// Of the scorecard that decides: the points of each feature, and those that cost most.
    pub champion: Evaluation,
    /// Of the one beside it, which has no effect; none where there was none, or the caller is a merchant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger: Option<Evaluation>,
}

impl GradeRow {
    /// The row as an override; `None` for other decisions.
    #[must_use]
    pub fn as_override(&self) -> Option<GradeOverride> {
        match self.kind {
            GradeKind::Override => Some(GradeOverride {
                grade: self.grade,
                reason: self.reason.clone().unwrap_or_default(),
                expires_on: self.expires_on?,
                requested_by: self.requested_by.clone(),
                approved_by: self.approved_by.clone(),
            }),
            GradeKind::Opening | GradeKind::Scorecard => None,
        }
    }
}
