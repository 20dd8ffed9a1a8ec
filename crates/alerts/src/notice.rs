//! A message's content: every kind of channel is rendered from it; as JSON it is the webhook's payload.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Number;
use strum::IntoStaticStr;
use uuid::Uuid;

use super::Level;

/// Alerts that a digest names one by one; the others are counted.
pub const DIGEST_ALERTS_MAX: usize = 50;

/// A message's content, `{"type", "timestamp", "data"}` as Standard Webhooks has payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When the event happened.
    pub timestamp: DateTime<Utc>,
    #[serde(flatten)]
    pub content: Content,
}

/// The event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Content {
    #[serde(rename = "quota_alert.raised")]
    Raised(Alert),
    #[serde(rename = "quota_alert.resolved")]
    Resolved(Alert),
    #[serde(rename = "quota_alert.digest")]
    Digest(Digest),
    #[serde(rename = "quota_alert.test")]
    Test(Test),
}

/// An alert, under the names that the API has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub alert_id: Uuid,
    /// Null for what concerns operators only.
    pub merchant_id: Option<String>,
    /// Null for a merchant as a whole, and for what concerns operators only.
    pub currency: Option<String>,
    /// As in `quota_alert.subject`.
    pub subject: String,
    pub alert_type: String,
    pub alert_level: Level,
    /// Percent of the limit.
    pub threshold: Option<i32>,
    /// Less than this was left of the limit, where the threshold is no percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_below: Option<i64>,
    pub message: String,
    /// `YYYYMMDD`, `YYYYMM` or `YYYY`.
    pub window_id: Option<i32>,
    /// Minor units, or a number of charges.
    pub current_used: Option<i64>,
    /// The same.
    pub limit: Option<i64>,
    /// Cut to two decimals, without an upper bound.
    pub usage_percent: Option<Number>,
    pub policy_version: Option<String>,
    pub event_id: Option<Uuid>,
    pub trace_id: Option<String>,
    pub raised_at: DateTime<Utc>,
    pub is_resolved: bool,
    pub resolved_at: Option<DateTime<Utc>>,
    pub resolved_by: Option<String>,
    pub resolve_reason: Option<String>,
    pub resolve_notes: Option<String>,
}

/// Several messages that were held back: the most severe first, then in order of creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Number of messages.
    pub count: usize,
    /// Number of those that are not in `alerts`, which has [`DIGEST_ALERTS_MAX`] at most.
    pub left_out: usize,
    pub alerts: Vec<DigestAlert>,
}

/// One message of a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestAlert {
    pub change: Change,
    #[serde(flatten)]
    pub alert: Alert,
}

/// What happened to an alert. Its word is the one of `alert_message.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Raised,
    Resolved,
}

/// A message that tests whether a channel works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    pub channel_id: String,
    pub requested_by: String,
    pub message: String,
}

impl Notice {
    /// That an alert was raised, or resolved.
    #[must_use]
    pub fn of(change: Change, alert: Alert) -> Self {
        match change {
            Change::Raised => Self { timestamp: alert.raised_at, content: Content::Raised(alert) },
            Change::Resolved => {
                let timestamp = alert.resolved_at.unwrap_or(alert.raised_at);
                Self { timestamp, content: Content::Resolved(alert) }
            }
        }
    }

    /// A message that only shows that it arrives.
    #[must_use]
    pub fn test(channel_id: &str, requested_by: &str, at: DateTime<Utc>) -> Self {
        let message = "This is a test: alerts that are sent to this channel arrive.".to_owned();
        let (channel_id, requested_by) = (channel_id.to_owned(), requested_by.to_owned());
        Self { timestamp: at, content: Content::Test(Test { channel_id, requested_by, message }) }
    }

    /// Sums up messages; digests and tests are left out.
    #[must_use]
    pub fn digest(notices: impl IntoIterator<Item = Self>, at: DateTime<Utc>) -> Self {
        let one = |notice: Self| match notice.content {
            Content::Raised(alert) => Some(DigestAlert { change: Change::Raised, alert }),
            Content::Resolved(alert) => Some(DigestAlert { change: Change::Resolved, alert }),
            Content::Digest(_) | Content::Test(_) => None,
        };
        let mut alerts: Vec<DigestAlert> = notices.into_iter().filter_map(one).collect();
        let count = alerts.len();
        alerts.sort_by_key(|one| Reverse(one.alert.alert_level));
        alerts.truncate(DIGEST_ALERTS_MAX);
        let left_out = count - alerts.len();
        Self { timestamp: at, content: Content::Digest(Digest { count, left_out, alerts }) }
    }

    /// The severity; of a digest that of its most severe alert.
    #[must_use]
    pub fn level(&self) -> Level {
        match &self.content {
            Content::Raised(alert) | Content::Resolved(alert) => alert.alert_level,
            Content::Digest(digest) => {
                digest.alerts.iter().map(|one| one.alert.alert_level).max().unwrap_or(Level::Warning)
            }
            Content::Test(_) => Level::Warning,
        }
    }

    /// The one alert that it is about.
    #[must_use]
    pub const fn alert(&self) -> Option<&Alert> {
        match &self.content {
            Content::Raised(alert) | Content::Resolved(alert) => Some(alert),
            Content::Digest(_) | Content::Test(_) => None,
        }
    }

    /// The webhook's payload, as `alert_message.body` keeps it.
    #[must_use]
    pub fn json(&self) -> String {
        // Nothing in it can fail to be written: every key is text.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads [`Notice::json`] back.
    ///
    /// # Errors
    /// [`serde_json::Error`] for a body that was not written here.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::sample;

    #[test]
    fn notices_are_read_back() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let alert = sample::alert();
        let raised = Notice::of(Change::Raised, alert.clone());
        let digest = Notice::digest([raised.clone(), Notice::of(Change::Resolved, alert)], at);
        for notice in [raised.clone(), digest, Notice::test("ops", "ana", at)] {
            assert_eq!(Notice::parse(&notice.json()).unwrap(), notice);
        }
        let json: serde_json::Value = serde_json::from_str(&raised.json()).unwrap();
        assert_eq!((&json["type"], &json["data"]["limit"]), (&"quota_alert.raised".into(), &10_000.into()));
    }

    #[test]
    fn a_digest_names_so_many_and_counts_the_others() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let one = Notice::of(Change::Raised, sample::alert());
        let digest = Notice::digest(vec![one; DIGEST_ALERTS_MAX + 7], at);
        let Content::Digest(content) = &digest.content else { panic!("{digest:?}") };
        assert_eq!((content.count, content.left_out, content.alerts.len()), (57, 7, DIGEST_ALERTS_MAX));
        assert_eq!(digest.level(), Level::Warning);
    }

    #[test]
    fn a_digest_names_the_gravest_first() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let one = |alert_level| Notice::of(Change::Raised, Alert { alert_level, ..sample::alert() });
        let mut notices = vec![one(Level::Warning); DIGEST_ALERTS_MAX];
        notices.push(one(Level::Critical));
        let digest = Notice::digest(notices, at);
        assert_eq!(digest.level(), Level::Critical);
        let Content::Digest(content) = &digest.content else { panic!("{digest:?}") };
        assert_eq!(content.alerts[0].alert.alert_level, Level::Critical);
    }
}
