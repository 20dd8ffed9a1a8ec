//! How each grade of a line came about.

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::{BasisPoints, CycleId, Evaluation, Grade, GradeOverride, GradeTerms, Inputs, Stage};
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
    /// Of an override: the business day of its approval, since which it is in force.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Date)]
    pub approved_on: Option<Date>,
    /// Days from the close of a cycle to the due date, as the band of the scorecard then in force had them; none where the line's
    /// terms hold.
    #[serde(default)]
    pub due_days: Option<u16>,
    /// The part of a statement that must be paid by its due date, in the same way.
    #[serde(default)]
    pub minimum_bp: Option<BasisPoints>,
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

    /// The row as an override that is in force on a day.
    #[must_use]
    pub fn override_on(&self, date: Date) -> Option<GradeOverride> {
        let has_begun = self.approved_on.unwrap_or(self.on_day) <= date;
        self.as_override().filter(|by_hand| has_begun && by_hand.is_in_force(date))
    }
}

/// The decision that is in force on a day, of those about one line, oldest first: the override that was asked for last, else what
/// had been decided last by that day.
pub(crate) fn in_force(decisions: &[GradeRow], date: Date) -> Option<&GradeRow> {
    let overridden = decisions.iter().rev().find(|row| row.override_on(date).is_some());
    let decided = |row: &&GradeRow| row.kind != GradeKind::Override && row.on_day <= date;
    overridden.or_else(|| decisions.iter().rev().find(decided))
}

/// The terms as columns of a decision: days, basis points.
pub(crate) fn columns(terms: GradeTerms) -> [Option<i32>; 2] {
    [terms.due_days.map(i32::from), terms.minimum_bp.and_then(|ratio| i32::try_from(ratio.0).ok())]
}

/// The terms of statements that are in force on a day by the same decisions.
pub(crate) fn terms_on(decisions: &[GradeRow], date: Date) -> GradeTerms {
    let terms = |row: &GradeRow| GradeTerms { due_days: row.due_days, minimum_bp: row.minimum_bp };
    in_force(decisions, date).map(terms).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    /// A decision of a day, with its days to the due date.
    fn row(grade_id: i64, kind: GradeKind, on: &str, due_days: Option<u16>) -> GradeRow {
        GradeRow {
            grade_id,
            kind,
            grade: Grade::C,
            on_day: day(on),
            changed_on: day(on),
            reason: Some("audited".to_owned()),
            expires_on: None,
            requested_by: "ana".to_owned(),
            approved_by: None,
            approved_at: None,
            approved_on: None,
            due_days,
            minimum_bp: None,
            is_close: false,
            scorecard: None,
            score: None,
            cycle: None,
            stage: None,
            days_past_due: None,
            run: None,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    /// An override that was asked for and approved on these days, until another.
    fn by_hand(grade_id: i64, [asked, approved, expires]: [&str; 3], due_days: u16) -> GradeRow {
        let row = row(grade_id, GradeKind::Override, asked, Some(due_days));
        let approved_by = Some("ben".to_owned());
        GradeRow { approved_by, approved_on: Some(day(approved)), expires_on: Some(day(expires)), ..row }
    }

    /// What was decided by the day counts, and an override from its approval to its last day; what was not approved never does.
    #[test]
    fn terms_are_those_of_the_day() {
        let decisions = [
            row(1, GradeKind::Opening, "2026-01-01", None),
            by_hand(2, ["2026-01-25", "2026-02-03", "2026-03-10"], 3),
            GradeRow { approved_by: None, ..by_hand(3, ["2026-01-26", "2026-01-26", "2099-01-01"], 99) },
            row(4, GradeKind::Scorecard, "2026-02-01", Some(7)),
            by_hand(5, ["2026-02-10", "2026-02-10", "2026-02-20"], 5),
            row(6, GradeKind::Scorecard, "2026-03-01", Some(21)),
            row(7, GradeKind::Scorecard, "2026-04-01", None),
        ];
        let table = [
            ("2025-12-31", None),
            ("2026-01-31", None),
            ("2026-02-01", Some(7)),
            ("2026-02-02", Some(7)),
            ("2026-02-03", Some(3)),
            ("2026-02-10", Some(5)),
            ("2026-02-20", Some(5)),
            ("2026-02-21", Some(3)),
            ("2026-03-10", Some(3)),
            ("2026-03-11", Some(21)),
            ("2026-04-01", None),
        ];
        for (date, due_days) in table {
            assert_eq!(terms_on(&decisions, day(date)), GradeTerms { due_days, minimum_bp: None }, "{date}");
        }
        // One that was approved before its day of approval was kept counts since it was asked for.
        let old = GradeRow { approved_on: None, ..by_hand(1, ["2026-01-05", "2026-01-07", "2026-01-09"], 3) };
        let found = ["2026-01-04", "2026-01-05"].map(|date| old.override_on(day(date)).is_some());
        assert_eq!(found, [false, true]);
    }
}
