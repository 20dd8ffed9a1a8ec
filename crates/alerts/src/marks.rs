//! Thresholds that the store does not count, as usage that reaches them: a merchant's own, and those of a credit line. Pure.

use quota::{AmountMinor, Record, ThresholdPolicy, Thresholds};

use crate::own::OwnThresholds;
use crate::subject::{Level, Subject};

/// From this percentage on an alert is critical.
const CRITICAL_PERCENT: u16 = 100;

/// When an alert is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Threshold {
    /// At a percentage of the limit.
    Percent(u16),
    /// When less than this is left of the limit.
    RemainingBelow(u64),
}

/// Whom an alert about a limit is addressed to. Operators cannot be left out by a merchant's thresholds, nor see those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The merchant has no thresholds of its own for the limit.
    Both,
    /// The merchant has thresholds of its own.
    Operators,
    /// It is one of these.
    Merchant,
}

/// A threshold of one limit, as the usage that reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub threshold: Threshold,
    pub audience: Audience,
    /// The least usage that has reached it, 1 at least.
    pub first: u64,
}

/// A limit of an account with its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    pub subject: Subject,
    pub max: u64,
    pub marks: Vec<Mark>,
}

impl Marked {
    /// Whether an event takes usage across any of the marks.
    #[must_use]
    pub fn is_crossed(&self, record: &Record) -> bool {
        let (before, after) = used(self.subject, record);
        self.marks.iter().any(|mark| (mark.first <= before) != (mark.first <= after))
    }
}

impl Threshold {
    /// How grave it is to reach it.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Percent(percent) if percent >= CRITICAL_PERCENT => Level::Critical,
            Self::Percent(_) | Self::RemainingBelow(_) => Level::Warning,
        }
    }

    /// The alert's type: the subject's word, and what was reached. An amount is not part of it, because types are labels of
    /// metrics.
    #[must_use]
    pub fn alert_type(self, subject: Subject) -> String {
        match self {
            Self::Percent(percent) => format!("{}_{percent}", subject.word()),
            Self::RemainingBelow(_) => format!("{}_remaining", subject.word()),
        }
    }

    /// The column `threshold`.
    #[must_use]
    pub fn percent(self) -> Option<i32> {
        match self {
            Self::Percent(percent) => Some(i32::from(percent)),
            Self::RemainingBelow(_) => None,
        }
    }

    /// The column `remaining_below`.
    #[must_use]
    pub fn remaining_below(self) -> Option<i64> {
        match self {
            Self::Percent(_) => None,
            Self::RemainingBelow(least) => i64::try_from(least).ok(),
        }
    }

    /// The least usage that has reached it; `None` where there is no limit.
    fn first_of(self, max: AmountMinor) -> Option<u64> {
        match self {
            Self::Percent(percent) => Thresholds::first_at(max, percent),
            Self::RemainingBelow(_) if max == AmountMinor::MAX => None,
            Self::RemainingBelow(least) => Some(max.get().saturating_add(1).saturating_sub(least).max(1)),
        }
    }
}

/// Whom the alerts of a policy or of a credit line about a limit are addressed to.
#[must_use]
pub fn audience(own: &[OwnThresholds], currency: &str, subject: Subject) -> Audience {
    if own.iter().any(|own| own.names(currency, subject)) { Audience::Operators } else { Audience::Both }
}

/// The marks of a merchant's own thresholds for the limits of an account.
#[must_use]
pub fn of_limits(own: &[OwnThresholds], currency: &str, policy: &ThresholdPolicy) -> Vec<Marked> {
    let limits = ThresholdPolicy::LIMITS.into_iter().zip(policy.maxima());
    let marked = limits.filter_map(|(limit, max)| {
        let subject = Subject::from_column(limit.as_str())?;
        let marks = own_marks(own, currency, subject, *max);
        Some(Marked { subject, max: max.get(), marks }).filter(|marked| !marked.marks.is_empty())
    });
    marked.collect()
}

/// The marks of an account's credit line: those of its grade, and the merchant's own. None without a limit: a line that is prepaid
/// or frozen has no part of a limit to use.
#[must_use]
pub fn of_line(own: &[OwnThresholds], currency: &str, limit: u64, thresholds: &Thresholds) -> Option<Marked> {
    let subject = Subject::CreditUtilisation;
    let max = AmountMinor::new(limit).filter(|max| max.get() > 0)?;
    let audience = audience(own, currency, subject);
    let percents = thresholds.percents().iter().map(|percent| Threshold::Percent(*percent));
    let mut marks: Vec<Mark> = percents.filter_map(|threshold| mark(threshold, audience, max)).collect();
    marks.extend(own_marks(own, currency, subject, max));
    Some(Marked { subject, max: limit, marks })
}

/// What an event made of the usage of a subject: before and after.
#[must_use]
pub fn used(subject: Subject, record: &Record) -> (u64, u64) {
    match subject.limit() {
        Some(limit) => limit.used(record),
        None => {
            let owed = |exposure: i64| exposure.max(0).unsigned_abs();
            record.credit.map_or((0, 0), |credit| (owed(credit.exposure_before), owed(credit.exposure_after)))
        }
    }
}

fn own_marks(own: &[OwnThresholds], currency: &str, subject: Subject, max: AmountMinor) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for own in own.iter().filter(|own| own.names(currency, subject)) {
        let percents = own.percents.iter().filter_map(|percent| u16::try_from(*percent).ok()).map(Threshold::Percent);
        let remaining = own.remaining_below.iter().copied().map(Threshold::RemainingBelow);
        for mark in percents.chain(remaining).filter_map(|threshold| mark(threshold, Audience::Merchant, max)) {
            if !marks.contains(&mark) {
                marks.push(mark);
            }
        }
    }
    marks.sort_by_key(|mark| mark.first);
    marks
}

fn mark(threshold: Threshold, audience: Audience, max: AmountMinor) -> Option<Mark> {
    Some(Mark { threshold, audience, first: threshold.first_of(max)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn own(lists: serde_json::Value) -> Vec<OwnThresholds> {
        serde_json::from_value(lists).unwrap()
    }

    fn firsts(marked: Option<Marked>) -> Vec<(u64, Audience)> {
        marked.into_iter().flat_map(|marked| marked.marks).map(|mark| (mark.first, mark.audience)).collect()
    }

    #[test]
    fn own_thresholds_replace_the_grades_for_the_merchant_alone() {
        use Audience::{Both, Merchant, Operators};
        for (lists, limit, expected) in [
            (json!([]), 1_000, &[(800, Both), (1_000, Both)][..]),
            (json!([{"types": ["daily"], "percents": [50]}]), 1_000, &[(800, Both), (1_000, Both)]),
            (json!([{"currency": "EUR", "percents": [50]}]), 1_000, &[(800, Both), (1_000, Both)]),
            (json!([{"percents": [50]}]), 1_000, &[(800, Operators), (1_000, Operators), (500, Merchant)]),
            // Not to be warned is a choice of the merchant's, for the merchant.
            (json!([{"types": ["credit_utilisation"]}]), 1_000, &[(800, Operators), (1_000, Operators)]),
            (
                json!([{"currency": "USD", "types": ["credit_utilisation"], "remaining_below": [250, 1_001, 1]},
                    {"percents": [80]}, {"percents": [80]}]),
                1_000,
                &[
                    (800, Operators),
                    (1_000, Operators),
                    (1, Merchant),
                    (751, Merchant),
                    (800, Merchant),
                    (1_000, Merchant),
                ],
            ),
            (json!([{"percents": [50]}]), 0, &[]),
        ] {
            let found = of_line(&own(lists.clone()), "USD", limit, &Thresholds::DEFAULT);
            assert_eq!(firsts(found), expected, "{lists} of {limit}");
        }
    }

    #[test]
    fn a_limit_that_no_list_names_has_no_own_marks() {
        let maxima = ThresholdPolicy::LIMITS.map(|limit| match limit {
            quota::LimitName::DailyAmount => AmountMinor::new(1_000).unwrap(),
            _ => AmountMinor::MAX,
        });
        let policy = ThresholdPolicy::of(maxima, Thresholds::DEFAULT);
        for (lists, expected) in [
            (json!([]), &[][..]),
            (json!([{"types": ["monthly"], "percents": [50]}]), &[]),
            // Nothing else has a limit.
            (json!([{"percents": [50, 90]}]), &[(Subject::Daily, 500), (Subject::Daily, 900)]),
            (
                json!([{"currency": "USD", "types": ["daily", "monthly"], "remaining_below": [100]}]),
                &[(Subject::Daily, 901)],
            ),
        ] {
            let marked = of_limits(&own(lists.clone()), "USD", &policy);
            let found: Vec<(Subject, u64)> =
                marked.iter().flat_map(|marked| marked.marks.iter().map(|mark| (marked.subject, mark.first))).collect();
            assert_eq!(found, expected, "{lists}");
        }
    }
}
