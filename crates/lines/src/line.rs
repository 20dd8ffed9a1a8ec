//! A credit line as it is drafted, approved, put in force and closed.

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use quota::{Currency, MerchantId};
use serde::{Deserialize, Serialize};
use sluice_credit::{AMOUNT_MAX, Grade, LimitOverride, Schedule, Terms, TermsVersion};
use sluice_kit::database::change::ChangeError;
use strum::IntoStaticStr;
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest remark, in characters.
const REMARKS_MAX: usize = 2_000;

/// How long ago a line that is taken over may have been opened.
const TAKEN_OVER_YEARS_MAX: i64 = 30;

/// Where a version of a line is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum LineState {
    /// Another person has to approve it.
    Draft,
    /// It can be activated.
    Approved,
    /// In force.
    Active,
    /// A later version is in force, or was.
    Replaced,
    /// The line takes no new charges. What is owed stays owed.
    Closed,
}

/// A credit line to be drafted.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LineInput {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    /// The limit in minor units, before the grade's multiplier and the stage's cap. 0 for a prepaid account.
    #[schema(example = 1_000_000, minimum = 0)]
    pub limit_base: i64,
    /// The grade that the line is opened with; B, which leaves the limit as it is, where none is given.
    #[serde(default = "opening_grade")]
    pub grade: Grade,
    /// What is not given has its default.
    #[serde(default)]
    pub terms: Terms,
    /// A limit in place of the computed one, until `override_until`.
    #[schema(minimum = 0)]
    pub override_limit: Option<i64>,
    /// The last day on which `override_limit` is in force.
    #[schema(value_type = Option<String>, format = Date)]
    pub override_until: Option<Date>,
    /// The last day on which the line takes new charges.
    #[schema(value_type = Option<String>, format = Date)]
    pub expires_on: Option<Date>,
    /// Where the line is taken over from another system: the day on which it was opened there. Its cycles are counted from it.
    #[schema(value_type = Option<String>, format = Date)]
    pub taken_over_from: Option<Date>,
    /// Data of the caller.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// A note.
    #[schema(max_length = 2000)]
    pub remarks: Option<String>,
}

const fn opening_grade() -> Grade {
    Grade::B
}

impl LineInput {
    /// Checks every member on the day on which it is given.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub fn check(&self, today: Date) -> Result<(), ChangeError> {
        let text = |field, error: String| ChangeError::invalid(field, error);
        MerchantId::parse(&self.merchant_id).map_err(|error| text("merchant_id", error.to_string()))?;
        Currency::parse(&self.currency).map_err(|error| text("currency", error.to_string()))?;
        if !(0..=AMOUNT_MAX).contains(&self.limit_base) {
            return Err(ChangeError::invalid("limit_base", format!("must be 0 to {AMOUNT_MAX} minor units")));
        }
        self.terms
            .validate()
            .map_err(|invalid| ChangeError::invalid(&format!("terms.{}", invalid.member), invalid.problem))?;
        match self.overridden() {
            Ok(Some(by_hand)) => by_hand.validate(today).map_err(|invalid| {
                let field = if invalid.member == "limit" { "override_limit" } else { "override_until" };
                ChangeError::invalid(field, invalid.problem)
            })?,
            Ok(None) => {}
            Err(missing) => return Err(ChangeError::invalid(missing, "is missing: a limit is set until a day")),
        }
        if self.expires_on.is_some_and(|last| last < today) {
            return Err(ChangeError::invalid("expires_on", format!("is over: give {today} or later")));
        }
        if self.taken_over_from.is_some_and(|opened| opened > today || opened < earliest_opening(today)) {
            let problem = format!("must be a day in the {TAKEN_OVER_YEARS_MAX} years before {today}");
            return Err(ChangeError::invalid("taken_over_from", problem));
        }
        match &self.remarks {
            Some(remarks) if remarks.contains('\0') || remarks.chars().count() > REMARKS_MAX => {
                Err(ChangeError::invalid(
                    "remarks",
                    format!("must have at most {REMARKS_MAX} characters, none of them NUL"),
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn overridden(&self) -> Result<Option<LimitOverride>, &'static str> {
        overridden(self.override_limit, self.override_until)
    }
}

fn earliest_opening(today: Date) -> Date {
    today.saturating_sub(jiff::Span::new().years(TAKEN_OVER_YEARS_MAX))
}

fn overridden(limit: Option<i64>, until: Option<Date>) -> Result<Option<LimitOverride>, &'static str> {
    match (limit, until) {
        (Some(limit), Some(expires_on)) => Ok(Some(LimitOverride { limit, expires_on })),
        (None, None) => Ok(None),
        (Some(_), None) => Err("override_until"),
        (None, Some(_)) => Err("override_limit"),
    }
}

/// A version of a credit line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreditLine {
    /// The same in all versions.
    pub line_id: Uuid,
    pub version: i32,
    pub merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    /// In minor units.
    pub limit_base: i64,
    /// The grade that the line was opened with.
    pub grade: Grade,
    pub terms: Terms,
    pub override_limit: Option<i64>,
    #[schema(value_type = Option<String>, format = Date)]
    pub override_until: Option<Date>,
    /// The last day on which the line takes new charges.
    #[schema(value_type = Option<String>, format = Date)]
    pub expires_on: Option<Date>,
    /// When it was opened in the system that it was taken over from.
    #[schema(value_type = Option<String>, format = Date)]
    pub taken_over_from: Option<Date>,
    pub state: LineState,
    /// When the first cycle began.
    #[schema(value_type = Option<String>, format = Date)]
    pub opened_on: Option<Date>,
    /// When this version was put in force. Its cycle begins when the one that was open then is over.
    #[schema(value_type = Option<String>, format = Date)]
    pub activated_on: Option<Date>,
    #[schema(value_type = Option<String>, format = Date)]
    pub closed_on: Option<Date>,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    /// Everybody who wrote this version; none of them may approve it.
    pub edited_by: Vec<String>,
    pub updated_at: DateTime<Utc>,
    pub approved_by: Option<String>,
    pub approved_at: Option<DateTime<Utc>>,
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
    pub remarks: Option<String>,
    /// Number of changes of this version.
    pub revision: i64,
}

impl CreditLine {
    /// The limit that a person has set.
    #[must_use]
    pub fn overridden(&self) -> Option<LimitOverride> {
        overridden(self.override_limit, self.override_until).ok().flatten()
    }

    /// Whether it takes no new charges on a day, because it is closed or has expired.
    #[must_use]
    pub fn is_over(&self, date: Date) -> bool {
        self.state == LineState::Closed || self.expires_on.is_some_and(|last| date > last)
    }
}

/// The cycles of a line, by the versions that were ever in force; `None` where none was.
pub(crate) fn schedule<'a>(versions: impl Iterator<Item = &'a CreditLine>) -> Option<Schedule> {
    let mut opened_on = None;
    let mut terms = Vec::new();
    for version in versions {
        if let (Some(opened), Some(activated)) = (version.opened_on, version.activated_on) {
            opened_on.get_or_insert(opened);
            terms.push(TermsVersion { activated_on: activated, terms: version.terms.clone() });
        }
    }
    opened_on.map(|opened_on| Schedule::new(opened_on, terms))
}
