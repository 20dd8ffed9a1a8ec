//! Compiled policies: lookup of the policy for an account, a channel and a moment, without computing anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{PolicyError, PolicySet};
use crate::zone::ZoneSource;
use quota::{Channel, Currency, MerchantId, Policy};

/// The scope of a policy: a channel and a currency code, each empty for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub channel: Box<str>,
    pub currency: &'static str,
}

/// The policies of one scope during one period.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// For every channel and currency without a policy of its own.
    pub base: Option<Arc<Policy>>,
    /// Sorted by slot. Where a channel and a currency have one each, their combination has one as well.
    pub variants: Box<[(Slot, Arc<Policy>)]>,
}

impl Entry {
    fn policy(&self, currency: Currency, channel: Option<&Channel>) -> Option<&Arc<Policy>> {
        if self.variants.is_empty() {
            return self.base.as_ref();
        }
        let channel = channel.map_or("", Channel::as_str);
        let of_channel = || self.variant(channel, currency.code()).or_else(|| self.variant(channel, ""));
        let found = if channel.is_empty() { None } else { of_channel() };
        found.or_else(|| self.variant("", currency.code())).or(self.base.as_ref())
    }

    fn variant(&self, channel: &str, currency: &str) -> Option<&Arc<Policy>> {
        let order = |(slot, _): &(Slot, Arc<Policy>)| (&*slot.channel, slot.currency).cmp(&(channel, currency));
        let found = self.variants.binary_search_by(order).ok()?;
        self.variants.get(found).map(|(_, policy)| policy)
    }
}

/// The policies of one scope over time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timeline {
    /// Each applies from its moment until the next one's; the first has no beginning.
    pub entries: Box<[(i64, Entry)]>,
}

impl Timeline {
    pub(super) fn at(&self, at_ms: i64) -> Option<&Entry> {
        let following = self.entries.partition_point(|(from_ms, _)| *from_ms <= at_ms);
        self.entries.get(following.checked_sub(1)?).map(|(_, entry)| entry)
    }

    fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.entries
            .iter()
            .flat_map(|(_, entry)| entry.base.iter().chain(entry.variants.iter().map(|(_, policy)| policy)))
    }
}

/// Compiled policies.
#[derive(Clone, Debug)]
pub struct PolicyBook {
    pub(super) version: Arc<str>,
    pub(super) default: Arc<Timeline>,
    pub(super) tiers: BTreeMap<String, Arc<Timeline>>,
    pub(super) merchants: HashMap<MerchantId, Arc<Timeline>>,
}

impl PolicyBook {
    /// Reads a YAML document and compiles it alone, with the time zones of `zones`.
    ///
    /// # Errors
    /// [`PolicyError`] names the field and the problem; a document with an error is rejected as a whole.
    pub fn from_yaml(text: &str, zones: &dyn ZoneSource) -> Result<Self, PolicyError> {
        PolicySet::from_yaml(text)?.compile(zones)
    }

    /// A book without any policy.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: Arc::from(""),
            default: Arc::new(Timeline { entries: Box::new([]) }),
            tiers: BTreeMap::new(),
            merchants: HashMap::new(),
        }
    }

    /// The document's own version followed by a digest of its text, so that an edit without a new version is visible.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The policy in force for a charge of an account at a moment; `None` where there is none.
    ///
    /// It allocates nothing: one map lookup, and two binary searches among the policies by time, channel and currency.
    #[must_use]
    pub fn effective(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        now_ms: i64,
    ) -> Option<&Arc<Policy>> {
        self.merchants.get(merchant).unwrap_or(&self.default).at(now_ms)?.policy(currency, channel)
    }

    /// Whether there is no policy at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let timelines = std::iter::once(&self.default).chain(self.merchants.values());
        timelines.flat_map(|timeline| timeline.policies()).next().is_none()
    }

    /// Number of merchants with a tier, policy or override of their own.
    #[must_use]
    pub fn merchants(&self) -> usize {
        self.merchants.len()
    }

    /// Number of tiers.
    #[must_use]
    pub fn tiers(&self) -> usize {
        self.tiers.len()
    }

    /// Whether any policy refuses anything at any time.
    pub(super) fn enforces(&self) -> bool {
        let timelines = std::iter::once(&self.default).chain(self.merchants.values());
        timelines.flat_map(|timeline| timeline.policies()).any(|policy| policy.enforces())
    }
}
