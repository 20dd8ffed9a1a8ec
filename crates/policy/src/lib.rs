//! Policy documents: limits for a default, tiers and merchants, by channel, currency and time, compiled into one
//! [`quota::Policy`] for each charge.
//!
//! No IO: documents are texts, and time zones come from a [`ZoneSource`].

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod book;
mod compile;
mod diff;
mod document;
mod error;
mod fields;
mod set;
mod zone;

#[cfg(test)]
mod tests;

use quota::{Calendar, Weekday};
use serde::{Deserialize, Serialize};

pub use book::PolicyBook;
pub use diff::policy_diff;
pub use document::parse_moment;
pub use error::PolicyError;
pub use fields::PolicyFields;
pub use set::{PolicyOverride, PolicyRule, PolicySet, Scope, Span, TierBinding};
pub use zone::{ZoneError, ZoneSource, check_zone_name};

/// The day on which a week begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeekStart {
    /// As in ISO 8601.
    #[default]
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl WeekStart {
    /// Every day.
    pub const ALL: [Self; 7] =
        [Self::Monday, Self::Tuesday, Self::Wednesday, Self::Thursday, Self::Friday, Self::Saturday, Self::Sunday];

    /// The day in calendars.
    #[must_use]
    pub const fn weekday(self) -> Weekday {
        match self {
            Self::Monday => Weekday::Monday,
            Self::Tuesday => Weekday::Tuesday,
            Self::Wednesday => Weekday::Wednesday,
            Self::Thursday => Weekday::Thursday,
            Self::Friday => Weekday::Friday,
            Self::Saturday => Weekday::Saturday,
            Self::Sunday => Weekday::Sunday,
        }
    }

    /// The day on which a calendar's weeks begin.
    #[must_use]
    pub fn of(calendar: &Calendar) -> Self {
        Self::ALL.into_iter().find(|day| day.weekday() == calendar.week_start()).unwrap_or_default()
    }
}

/// How charges of a merchant that no policy names are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownMerchants {
    /// By the default policy.
    #[default]
    Default,
    /// They are refused. Earlier charges of such a merchant are captured, voided and refunded under the default policy.
    Refuse,
}

impl UnknownMerchants {
    /// The value in documents and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Refuse => "refuse",
        }
    }
}
