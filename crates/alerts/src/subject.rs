//! Subjects and severities of alerts.

use quota::LimitName;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// What an alert is about. Its word here begins the alert's type: `daily` is the one of `daily_80` and `daily_100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema, VariantArray)]
#[serde(rename_all = "snake_case")]
#[schema(as = AlertSubject)]
pub enum Subject {
    /// The amount of a day.
    Daily,
    /// The number of charges of a day.
    DailyCount,
    /// The amount of a week.
    Weekly,
    /// The number of charges of a week.
    WeeklyCount,
    /// The amount of a month.
    Monthly,
    /// The number of charges of a month.
    MonthlyCount,
    /// The amount of a year.
    Yearly,
    /// The number of charges of a year.
    YearlyCount,
    /// The amount held and not settled.
    Pending,
    /// The account is suspended.
    Suspended,
    /// An order was captured above what it had held.
    OverCapture,
    /// Redis gives no answer. For operators only.
    DegradedStore,
    /// Events wait for Postgres. For operators only.
    JournalBacklog,
    /// The books do not agree. For operators only.
    Drift,
    /// A server's clock is too far from Redis'. For operators only.
    ClockSkew,
    /// A notice of dunning: a statement is due, or past due.
    CreditDunning,
    /// A credit line is past due so far that risk watches it. For operators only.
    CreditWatch,
    /// What a credit line uses of its limit.
    CreditUtilisation,
}

impl Subject {
    /// The limit whose thresholds it is about; `None` for other subjects.
    #[must_use]
    pub fn limit(self) -> Option<LimitName> {
        LimitName::ALL.into_iter().find(|limit| limit.alert() == self.word())
    }

    /// The API's name, which begins an alert's type.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Daily => LimitName::DailyAmount.alert(),
            Self::DailyCount => LimitName::DailyCount.alert(),
            Self::Weekly => LimitName::WeeklyAmount.alert(),
            Self::WeeklyCount => LimitName::WeeklyCount.alert(),
            Self::Monthly => LimitName::MonthlyAmount.alert(),
            Self::MonthlyCount => LimitName::MonthlyCount.alert(),
            Self::Yearly => LimitName::YearlyAmount.alert(),
            Self::YearlyCount => LimitName::YearlyCount.alert(),
            Self::Pending => LimitName::PendingAmount.alert(),
            Self::Suspended => "suspended",
            Self::OverCapture => "over_capture",
            Self::DegradedStore => "degraded_store",
            Self::JournalBacklog => "journal_backlog",
            Self::Drift => "drift",
            Self::ClockSkew => "clock_skew",
            Self::CreditDunning => "credit_dunning",
            Self::CreditWatch => "credit_watch",
            Self::CreditUtilisation => "credit_utilisation",
        }
    }

    /// The value of `quota_alert.subject`.
    #[must_use]
    pub fn column(self) -> &'static str {
        self.limit().map_or(self.word(), LimitName::as_str)
    }

    /// Reads [`Subject::word`] back; `None` for anything else.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|subject| subject.word() == word)
    }

    /// Reads [`Subject::column`] back; `None` for anything else.
    #[must_use]
    pub fn from_column(text: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|subject| subject.column() == text)
    }

    /// Whether only operators are notified.
    #[must_use]
    pub const fn is_operators(self) -> bool {
        self.operators_level().is_some()
    }

    /// The level of an alert for operators only; `None` for those that merchants receive.
    #[must_use]
    pub const fn operators_level(self) -> Option<Level> {
        match self {
            Self::DegradedStore | Self::JournalBacklog | Self::Drift | Self::ClockSkew => Some(Level::Critical),
            Self::CreditWatch => Some(Level::Warning),
            Self::Daily
            | Self::DailyCount
            | Self::Weekly
            | Self::WeeklyCount
            | Self::Monthly
            | Self::MonthlyCount
            | Self::Yearly
            | Self::YearlyCount
            | Self::Pending
            | Self::Suspended
            | Self::OverCapture
            | Self::CreditDunning
            | Self::CreditUtilisation => None,
        }
    }

    /// Whether its thresholds have alerts of their own: it is a limit, of the account or of its credit line.
    #[must_use]
    pub fn has_thresholds(self) -> bool {
        self == Self::CreditUtilisation || self.limit().is_some()
    }

    /// Whether it counts payments, not an amount.
    #[must_use]
    pub fn is_count(self) -> bool {
        self.limit().is_some_and(LimitName::is_count)
    }
}

/// How grave an alert is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
)]
#[strum(const_into_str, serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
#[schema(as = AlertLevel)]
pub enum Level {
    /// A limit is near.
    Warning,
    /// A limit is used up, or payments stop, or the proof of them does.
    Critical,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for subject in Subject::VARIANTS.iter().copied() {
            assert_eq!(Subject::parse(subject.word()), Some(subject));
            assert_eq!(Subject::from_column(subject.column()), Some(subject));
            assert_eq!(serde_json::to_value(subject).unwrap(), subject.word());
        }
        for level in [Level::Warning, Level::Critical] {
            assert_eq!(level.into_str().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.into_str());
        }
        assert_eq!((Subject::parse("daily_amount"), "info".parse::<Level>().ok()), (None, None));
    }

    #[test]
    fn limits_are_those_that_accounts_are_watched_by() {
        let watched: Vec<_> = quota::ThresholdPolicy::LIMITS.iter().map(|limit| limit.as_str()).collect();
        for subject in Subject::VARIANTS.iter().copied() {
            assert_eq!(watched.contains(&subject.column()), subject.limit().is_some(), "{}", subject.column());
        }
    }
}
