//! Which alerts go to which channels, and when a merchant is warned: the settings document of the operators and of each merchant.
//!
//! A document is checked ([`Settings::check`]) before it is stored. It is shown without secrets (`Serialize`) and stored with
//! them ([`Settings::stored`]).

mod check;
mod store;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use super::channel::{Bark, Channel, ChannelSecret, Email, Gotify, Slack, Teams, Webhook};
pub use super::own::OwnThresholds;
pub use super::scope::Scope;
use super::subject::{Level, Subject};
pub use super::validation::Invalid;
pub use store::{Revision, SaveError, Stored, load, load_all, save};

/// Channels, and which alerts go to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AlertSettings)]
pub struct Settings {
    /// Where messages can go.
    #[schema(max_items = 20)]
    pub channels: Vec<Channel>,
    /// Which alerts go where; an alert that no route takes is sent to no channel.
    #[schema(max_items = 50)]
    pub routes: Vec<Route>,
    /// How long a digest gathers.
    #[serde(default = "digest_minutes_default")]
    #[schema(minimum = 1, maximum = 1440, default = 60)]
    pub digest_minutes: u32,
    /// When the merchant is warned, in the place of the thresholds of its policy and its credit line, which operators keep. The
    /// lists that name a limit count together; for a limit that none names the policy's thresholds count. Of a merchant only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10)]
    pub thresholds: Vec<OwnThresholds>,
}

fn digest_minutes_default() -> u32 {
    60
}

impl Default for Settings {
    /// No alert is sent.
    fn default() -> Self {
        Self {
            channels: Vec::new(),
            routes: Vec::new(),
            digest_minutes: digest_minutes_default(),
            thresholds: Vec::new(),
        }
    }
}

/// Sends alerts of some kinds to some channels. What it does not name does not matter to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AlertRoute)]
pub struct Route {
    /// Only alerts about these; about anything where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 12)]
    pub types: Option<Vec<Subject>>,
    /// Only alerts of these levels; of any where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 2)]
    pub levels: Option<Vec<Level>>,
    /// Of alerts about limits only those at these percentages; at any where absent. Other alerts have none, and pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 20)]
    pub thresholds: Option<Vec<u32>>,
    /// Whether the end of an alert is sent as well.
    #[serde(default = "resolved_default")]
    #[schema(default = true)]
    pub resolved: bool,
    /// The channels' ids.
    #[schema(min_items = 1, max_items = 20)]
    pub channels: Vec<String>,
    /// When it is sent.
    #[serde(default)]
    #[schema(inline)]
    pub delivery: Delivery,
}

fn resolved_default() -> bool {
    true
}

/// When an alert is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AlertDeliveryTime)]
pub enum Delivery {
    /// At once.
    #[default]
    Immediate,
    /// With others, every `digest_minutes`.
    Digest,
}

/// The attributes that routes match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertAttributes {
    pub subject: Subject,
    pub level: Level,
    /// A percentage, for limits.
    pub threshold: Option<u32>,
    /// The message is about the alert's end.
    pub resolved: bool,
}

impl Settings {
    /// Each channel that gets the alert, once, in the order of the settings; immediate where one of its routes is.
    #[must_use]
    pub fn routes_for(&self, alert: &AlertAttributes) -> Vec<(&Channel, Delivery)> {
        let taken: Vec<&Route> = self.routes.iter().filter(|route| route.takes(alert)).collect();
        let delivery = |channel: &Channel| {
            let naming = taken.iter().filter(|route| route.channels.iter().any(|id| id == channel.id()));
            naming.map(|route| route.delivery).min()
        };
        self.channels.iter().filter_map(|channel| Some((channel, delivery(channel)?))).collect()
    }

    /// Of the channels that get the alert those that it names by id or kind; all of them where it names none of them.
    #[must_use]
    pub fn channels_for(&self, alert: &AlertAttributes, named: Option<&[String]>) -> Vec<(&Channel, Delivery)> {
        let routed = self.routes_for(alert);
        let is_named = |(channel, _): &(&Channel, Delivery)| {
            named.into_iter().flatten().any(|name| name == channel.id() || name == channel.kind())
        };
        let chosen: Vec<_> = routed.iter().copied().filter(is_named).collect();
        if chosen.is_empty() { routed } else { chosen }
    }

    /// A channel by its id.
    #[must_use]
    pub fn channel(&self, id: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.id() == id)
    }
}

impl Route {
    fn takes(&self, alert: &AlertAttributes) -> bool {
        let names = |types: &Vec<Subject>| types.contains(&alert.subject);
        let grave = |levels: &Vec<Level>| levels.contains(&alert.level);
        let at = |thresholds: &Vec<u32>| alert.threshold.is_none_or(|threshold| thresholds.contains(&threshold));
        self.types.as_ref().is_none_or(names)
            && self.levels.as_ref().is_none_or(grave)
            && self.thresholds.as_ref().is_none_or(at)
            && (self.resolved || !alert.resolved)
    }
}
