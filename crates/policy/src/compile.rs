//! Computes which policy applies to which merchant, and when.
//!
//! For each period and each slot (channel, currency) the winning rule of every level overrides that of the level below, field by
//! field: default, tier, merchant, and within each of them the sources in their order. Slots apply in the order: everything, the
//! currency, the channel, both. So a rule for a channel takes precedence over every rule for all channels, on any level.
//! Overrides apply last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::book::{Entry, Slot, Timeline};
use super::fields::Fold;
use super::set::{MerchantPolicies, Ranked, TierPolicies};
use super::{PolicyBook, PolicyError, PolicyOverride, PolicyRule, PolicySet, Span};
use crate::zone::ZoneSource;
use quota::{Channel, Currency, MerchantId, Policy, ThresholdPolicy};

/// Most changes over time of one merchant's policies, including those of its tiers and of the default.
const CHANGES_MAX: usize = 1_000;
/// Most combinations of channel and currency with policies of their own, for one merchant.
const VARIANTS_MAX: usize = 4_000;

/// The inputs of a compilation.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    set: &'a PolicySet,
    zones: &'a dyn ZoneSource,
}

/// The rules in force at a moment on one level: the winner of each source and slot.
type Winners<'a> = HashMap<(u8, Option<&'a Channel>, Option<&'static str>), &'a Ranked<PolicyRule>>;

/// The policies of a tier that does not exist.
const NO_TIER: &TierPolicies = &TierPolicies { rules: Vec::new(), own: Vec::new() };

pub(super) fn compile(set: &PolicySet, zones: &dyn ZoneSource) -> Result<PolicyBook, PolicyError> {
    let inputs = Inputs { set, zones };
    let no_merchant = MerchantPolicies::default();
    let default = Arc::new(timeline("default", inputs, None, &no_merchant)?);
    let tiers = set
        .tiers
        .keys()
        .map(|tier| Ok((tier.clone(), Arc::new(timeline(&format!("tiers.{tier}"), inputs, Some(tier), &no_merchant)?))))
        .collect::<Result<BTreeMap<_, _>, PolicyError>>()?;
    let merchants = set
        .merchants
        .iter()
        .map(|(id, own)| Ok((id.clone(), merchant(inputs, id, own, &tiers)?)))
        .collect::<Result<HashMap<_, _>, PolicyError>>()?;
    let book = PolicyBook { version: Arc::clone(&set.version), default, tiers, merchants };
    if book.enforces() { Ok(book) } else { Err(PolicyError::EnforcesNothing) }
}

fn merchant(
    inputs: Inputs<'_>,
    id: &MerchantId,
    own: &MerchantPolicies,
    tiers: &BTreeMap<String, Arc<Timeline>>,
) -> Result<Arc<Timeline>, PolicyError> {
    for Ranked { item, .. } in &own.bindings {
        if !tiers.contains_key(&item.tier) {
            let problem = format!("there is no tier `{}` in `tiers`", item.tier);
            return Err(PolicyError::field(&item.path, "tier", problem));
        }
    }
    // Merchants with only a tier share the tier's timeline.
    if let ([binding], [], []) = (own.bindings.as_slice(), own.rules.as_slice(), own.overrides.as_slice())
        && binding.item.span == Span::ALWAYS
        && let Some(timeline) = tiers.get(&binding.item.tier)
    {
        return Ok(Arc::clone(timeline));
    }
    timeline(&format!("merchants.{id}"), inputs, None, own).map(Arc::new)
}

/// The timeline of a merchant; of a tier, as for a merchant with only that tier; or of the default.
fn timeline(
    path: &str,
    inputs: Inputs<'_>,
    tier: Option<&str>,
    own: &MerchantPolicies,
) -> Result<Timeline, PolicyError> {
    let Inputs { set, zones } = inputs;
    let tiers: BTreeSet<&str> = tier.into_iter().chain(own.bindings.iter().map(|b| b.item.tier.as_str())).collect();
    let of_tier = |name: &str| set.tiers.get(name).unwrap_or(NO_TIER);
    let of_tiers = tiers.iter().map(|name| of_tier(name)).flat_map(|tier| tier.rules.iter().chain(&tier.own));
    let rules = set.default.iter().chain(of_tiers).chain(&own.rules);
    let spans = rules
        .map(|rule| rule.item.span)
        .chain(own.bindings.iter().map(|binding| binding.item.span))
        .chain(own.overrides.iter().map(|item| item.span));
    let mut moments: BTreeSet<i64> = spans.flat_map(|span| [span.from_ms, span.until_ms]).collect();
    moments.insert(i64::MIN);
    moments.remove(&i64::MAX);
    if moments.len() > CHANGES_MAX {
        let problem = format!("changes at {} moments, more than {CHANGES_MAX}; remove what is over", moments.len());
        return Err(PolicyError::field(path, "", problem));
    }
    let mut entries: Vec<(i64, Entry)> = Vec::with_capacity(moments.len());
    for at_ms in moments {
        let bound =
            own.bindings.iter().filter(|binding| binding.item.span.holds_at(at_ms)).max_by_key(|b| (b.source, b.rank));
        let tier = tier.or(bound.map(|binding| binding.item.tier.as_str()));
        let named = tier.is_some();
        let tier = tier.map_or(NO_TIER, of_tier);
        let levels = [&set.default, &tier.rules, &tier.own, &own.rules].map(|rules| winners(rules, at_ms));
        let overrides: Vec<&PolicyOverride> = own.overrides.iter().filter(|item| item.span.holds_at(at_ms)).collect();
        let named = named || levels.last().is_some_and(|own| !own.is_empty()) || !overrides.is_empty();
        let entry = Moment { path, sources: set.source, zones, levels, overrides, named }.entry(&set.version)?;
        if entries.last().is_none_or(|(_, last)| *last != entry) {
            entries.push((at_ms, entry));
        }
    }
    Ok(Timeline { entries: entries.into() })
}

fn winners(rules: &[Ranked<PolicyRule>], at_ms: i64) -> Winners<'_> {
    let mut winners = Winners::new();
    for rule in rules.iter().filter(|rule| rule.item.span.holds_at(at_ms)) {
        let slot = (rule.source, rule.item.channel.as_ref(), rule.item.currency.map(Currency::code));
        let winner = winners.entry(slot).or_insert(rule);
        if winner.rank < rule.rank {
            *winner = rule;
        }
    }
    winners
}

/// The rules of one scope at one moment.
struct Moment<'a> {
    path: &'a str,
    /// The number of the last source.
    sources: u8,
    zones: &'a dyn ZoneSource,
    /// Default, the tier's policies, the tier itself, merchant.
    levels: [Winners<'a>; 4],
    overrides: Vec<&'a PolicyOverride>,
    /// The merchant is known: it has a tier, a policy or an override of its own.
    named: bool,
}

impl Moment<'_> {
    fn entry(&self, document: &Arc<str>) -> Result<Entry, PolicyError> {
        let slots = self.levels.iter().flat_map(Winners::keys).map(|(_, channel, currency)| (*channel, *currency));
        let over = self.overrides.iter().map(|item| (item.channel.as_ref(), item.currency.map(Currency::code)));
        let (channels, currencies): (BTreeSet<_>, BTreeSet<_>) = slots.chain(over).unzip();
        if channels.len().saturating_mul(currencies.len()) > VARIANTS_MAX {
            let problem = format!("has more than {VARIANTS_MAX} combinations of channel and currency");
            return Err(PolicyError::field(self.path, "", problem));
        }
        let all = channels.iter().flat_map(|channel| currencies.iter().map(move |currency| (*channel, *currency)));
        let mut variants = BTreeMap::new();
        for (channel, currency) in all.filter(|slot| *slot != (None, None)) {
            if let Some(policy) = self.policy(channel, currency, document)? {
                let channel = channel.map_or("", Channel::as_str).into();
                variants.insert(Slot { channel, currency: currency.unwrap_or_default() }, policy);
            }
        }
        Ok(Entry { base: self.policy(None, None, document)?, variants: variants.into_iter().collect() })
    }

    fn policy(
        &self,
        channel: Option<&Channel>,
        currency: Option<&'static str>,
        document: &Arc<str>,
    ) -> Result<Option<Arc<Policy>>, PolicyError> {
        let mut fold = Fold::new(Arc::clone(document));
        let mut named = Named::default();
        let slots = [
            (true, None, None),
            (currency.is_some(), None, currency),
            (channel.is_some(), channel, None),
            (channel.is_some() && currency.is_some(), channel, currency),
        ];
        for (_, channel, currency) in slots.into_iter().filter(|(given, ..)| *given) {
            let of_level = |winners| {
                (0..=self.sources).filter_map(move |source| Winners::get(winners, &(source, channel, currency)))
            };
            for Ranked { item, .. } in self.levels.iter().flat_map(of_level) {
                fold.apply(&item.path, &item.fields, self.zones)?;
                named.add(&item.version, &item.path);
            }
        }
        if named.versions.is_empty() {
            return Ok(None);
        }
        for item in self.overrides_of(channel, currency) {
            fold.apply(&item.path, &item.fields, self.zones)?;
            named.add(&item.version, &item.path);
        }
        if !self.named {
            fold.mark_unknown_merchant();
        }
        let mut policy = fold.finish(named.path.unwrap_or(self.path), named.version())?;
        // Usage is the account's, also where a channel has limits of its own.
        if channel.is_some() {
            let account = self.policy(None, currency, document)?;
            policy.threshold_policy = account
                .map_or_else(|| Some(Arc::new(ThresholdPolicy::NOTHING)), |account| account.threshold_policy.clone());
        }
        Ok(Some(Arc::new(policy)))
    }

    /// The overrides that apply to a slot, the more specific ones last, and among those the later ones last.
    fn overrides_of(&self, channel: Option<&Channel>, currency: Option<&str>) -> Vec<&PolicyOverride> {
        let mut found: Vec<&PolicyOverride> = self
            .overrides
            .iter()
            .filter(|item| item.channel.is_none() || item.channel.as_ref() == channel)
            .filter(|item| item.currency.is_none() || item.currency.map(Currency::code) == currency)
            .copied()
            .collect();
        found.sort_by_key(|item| (item.channel.is_some(), item.currency.is_some(), item.span.from_ms));
        found
    }
}

/// The parts that a policy was merged from.
#[derive(Default)]
struct Named<'a> {
    versions: Vec<&'a Arc<str>>,
    path: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn add(&mut self, version: &'a Arc<str>, path: &'a str) {
        if !self.versions.contains(&version) {
            self.versions.push(version);
        }
        self.path = Some(path);
    }

    /// The last part's name. Where there are several, a digest of all their names follows, so that a change of any of them
    /// is visible.
    fn version(&self) -> Arc<str> {
        match self.versions.as_slice() {
            [] => Arc::from(""),
            [only] => Arc::clone(only),
            [.., last] => {
                let parts: Vec<&str> = self.versions.iter().map(|version| version.as_ref()).collect();
                let digest = xxhash_rust::xxh3::xxh3_64(parts.join("+").as_bytes());
                format!("{last}~{:08x}", digest >> 32).into()
            }
        }
    }
}
