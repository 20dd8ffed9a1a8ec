//! How each grade of a line came about.

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::{Grade, GradeOverride};
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
    /// Of a run: the points of each feature, those that cost most, and the challenger's result.
    #[schema(value_type = Option<Object>)]
    pub run: Option<serde_json::Value>,
    pub created_at: DateTime<Utc>,
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
