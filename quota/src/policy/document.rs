//! The policy document as it is written in YAML, and how it is checked and compiled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use chrono_tz::Tz;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::{Breach, Entry, HoldTerms, Limits, Policy, PolicyBook, WindowLimits};
use crate::{AmountMinor, Calendar, Channel, Currency, MerchantId};

/// Why a document was refused, with the field where one is at fault.
#[derive(Debug, Error)]
pub enum PolicyError {
    #[error("the policy document is not valid: {0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    #[error("the policy document is not valid: `{field}`: {problem}")]
    Field { field: String, problem: String },
    #[error("the policy document enforces nothing: it names no limit, channel or currency in any policy")]
    EnforcesNothing,
}

/// A limit, or the word that lifts an inherited one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a whole number from 0 to 9007199254740991, or `unlimited`")]
enum Limit {
    Max(AmountMinor),
    Word(Unlimited),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unlimited {
    Unlimited,
}

impl Limit {
    const fn max(self) -> AmountMinor {
        match self {
            Self::Max(max) => max,
            Self::Word(Unlimited::Unlimited) => AmountMinor::MAX,
        }
    }
}

/// The limits of a policy, or of one currency within it. What is not given is inherited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    single_min: Option<AmountMinor>,
    single_max: Option<Limit>,
    daily_amount: Option<Limit>,
    monthly_amount: Option<Limit>,
    yearly_amount: Option<Limit>,
    daily_count: Option<Limit>,
    monthly_count: Option<Limit>,
    yearly_count: Option<Limit>,
}

/// `deny_unknown_fields` does not work through `flatten`, so the limits stand here again.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    /// Merchants only: the tier whose policy is inherited.
    tier: Option<String>,
    timezone: Option<String>,
    cutoff_hour: Option<u32>,
    allowed_channels: Option<BTreeSet<String>>,
    allowed_currencies: Option<BTreeSet<String>>,
    #[serde(default, deserialize_with = "unique")]
    currencies: BTreeMap<String, RawLimits>,
    single_min: Option<AmountMinor>,
    single_max: Option<Limit>,
    daily_amount: Option<Limit>,
    monthly_amount: Option<Limit>,
    yearly_amount: Option<Limit>,
    daily_count: Option<Limit>,
    monthly_count: Option<Limit>,
    yearly_count: Option<Limit>,
}

impl RawPolicy {
    fn limits(&self) -> RawLimits {
        RawLimits {
            single_min: self.single_min,
            single_max: self.single_max,
            daily_amount: self.daily_amount,
            monthly_amount: self.monthly_amount,
            yearly_amount: self.yearly_amount,
            daily_count: self.daily_count,
            monthly_count: self.monthly_count,
            yearly_count: self.yearly_count,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocument {
    version: String,
    default: Option<RawPolicy>,
    #[serde(default, deserialize_with = "unique")]
    tiers: BTreeMap<String, RawPolicy>,
    #[serde(default, deserialize_with = "unique")]
    merchants: BTreeMap<String, RawPolicy>,
}

/// A map in which no key comes twice: with the last one taken, the first would silently not be enforced.
fn unique<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = entries.next_entry::<String, V>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("duplicate entry `{key}`")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

/// Longest accepted version text.
const VERSION_LEN_MAX: usize = 64;

pub(super) fn compile(text: &str) -> Result<PolicyBook, PolicyError> {
    let raw: RawDocument = serde_yaml_ng::from_str(text)?;
    if raw.version.is_empty()
        || raw.version.len() > VERSION_LEN_MAX
        || !raw.version.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(field("version", format!("must have 1 to {VERSION_LEN_MAX} visible ASCII characters")));
    }
    let digest = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    let version: Arc<str> = format!("{}#{:08x}", raw.version, digest >> 32).into();
    let root = Draft::new(Arc::clone(&version));
    let base = match &raw.default {
        Some(policy) => root.inherit("default", policy)?,
        None => root,
    };
    let tiers = raw
        .tiers
        .iter()
        .map(|(name, policy)| Ok((name.as_str(), base.inherit(&format!("tiers.{name}"), policy)?)))
        .collect::<Result<HashMap<_, _>, PolicyError>>()?;
    let merchants = raw
        .merchants
        .iter()
        .map(|(id, policy)| Ok((id.clone(), merchant(id, policy, &base, &tiers)?)))
        .collect::<Result<HashMap<_, _>, PolicyError>>()?;
    let default = raw.default.is_some().then(|| base.finish("default")).transpose()?;
    let book = PolicyBook { version, default, merchants };
    if book.default.iter().chain(book.merchants.values()).any(enforces) {
        Ok(book)
    } else {
        Err(PolicyError::EnforcesNothing)
    }
}

fn merchant(id: &str, policy: &RawPolicy, base: &Draft, tiers: &HashMap<&str, Draft>) -> Result<Entry, PolicyError> {
    let path = format!("merchants.{id}");
    MerchantId::parse(id).map_err(|error| field(&path, error.to_string()))?;
    let parent = match &policy.tier {
        Some(tier) => tiers
            .get(tier.as_str())
            .ok_or_else(|| field(&format!("{path}.tier"), format!("there is no tier `{tier}` in `tiers`")))?,
        None => base,
    };
    parent.inherit(&path, policy)?.finish(&path)
}

fn enforces(entry: &Entry) -> bool {
    std::iter::once(&entry.base).chain(entry.by_currency.values()).any(|policy| {
        policy.limits != Limits::UNLIMITED
            || policy.single_max != AmountMinor::MAX
            || policy.single_min != AmountMinor::ZERO
            || policy.allowed_channels.is_some()
            || policy.allowed_currencies.is_some()
    })
}

/// A policy while it is put together: each level's fields lie over those it inherits.
#[derive(Clone)]
struct Draft {
    zone: Tz,
    cutoff_hour: u32,
    policy: Policy,
    currencies: BTreeMap<&'static str, Vec<RawLimits>>,
}

impl Draft {
    fn new(version: Arc<str>) -> Self {
        let policy = Policy {
            version,
            calendar: Calendar::UTC,
            single_min: AmountMinor::ZERO,
            single_max: AmountMinor::MAX,
            limits: Limits::UNLIMITED,
            breach: Breach::Reject,
            hold: HoldTerms::DEFAULT,
            over_capture_percent: 0,
            allowed_channels: None,
            allowed_currencies: None,
        };
        Self { zone: Tz::UTC, cutoff_hour: 0, policy, currencies: BTreeMap::new() }
    }

    fn inherit(&self, path: &str, raw: &RawPolicy) -> Result<Self, PolicyError> {
        let mut draft = self.clone();
        if raw.tier.is_some() && !path.starts_with("merchants.") {
            return Err(field(&format!("{path}.tier"), "only a merchant names a tier".to_owned()));
        }
        if let Some(zone) = &raw.timezone {
            draft.zone = zone
                .parse()
                .map_err(|_| field(&format!("{path}.timezone"), format!("`{zone}` is no IANA time zone")))?;
        }
        draft.cutoff_hour = raw.cutoff_hour.unwrap_or(draft.cutoff_hour);
        draft.policy.calendar = Calendar::new(draft.zone, draft.cutoff_hour)
            .ok_or_else(|| field(&format!("{path}.cutoff_hour"), format!("{} is not 0 to 23", draft.cutoff_hour)))?;
        if let Some(channels) = &raw.allowed_channels {
            let problem = |error: crate::IdError| field(&format!("{path}.allowed_channels"), error.to_string());
            channels.iter().try_for_each(|name| Channel::parse(name).map(drop)).map_err(problem)?;
            draft.policy.allowed_channels = Some(channels.clone());
        }
        if let Some(currencies) = &raw.allowed_currencies {
            currencies.iter().try_for_each(|code| currency(&format!("{path}.allowed_currencies"), code).map(drop))?;
            draft.policy.allowed_currencies = Some(currencies.clone());
        }
        overlay(&mut draft.policy, &raw.limits());
        for (code, limits) in &raw.currencies {
            let code = currency(&format!("{path}.currencies"), code)?.code();
            draft.currencies.entry(code).or_default().push(limits.clone());
        }
        Ok(draft)
    }

    fn finish(self, path: &str) -> Result<Entry, PolicyError> {
        let mut by_currency = HashMap::new();
        for (code, layers) in &self.currencies {
            let mut policy = self.policy.clone();
            layers.iter().for_each(|limits| overlay(&mut policy, limits));
            by_currency.insert(*code, checked(&format!("{path}.currencies.{code}"), policy)?);
        }
        Ok(Entry { base: checked(path, self.policy)?, by_currency })
    }
}

fn overlay(policy: &mut Policy, raw: &RawLimits) {
    let put = |target: &mut AmountMinor, limit: Option<Limit>| {
        if let Some(limit) = limit {
            *target = limit.max();
        }
    };
    policy.single_min = raw.single_min.unwrap_or(policy.single_min);
    put(&mut policy.single_max, raw.single_max);
    let WindowLimits { amount, count } = &mut policy.limits.day;
    put(amount, raw.daily_amount);
    put(count, raw.daily_count);
    let WindowLimits { amount, count } = &mut policy.limits.month;
    put(amount, raw.monthly_amount);
    put(count, raw.monthly_count);
    let WindowLimits { amount, count } = &mut policy.limits.year;
    put(amount, raw.yearly_amount);
    put(count, raw.yearly_count);
}

fn checked(path: &str, policy: Policy) -> Result<Arc<Policy>, PolicyError> {
    if policy.single_min > policy.single_max {
        let problem = format!("{} is above single_max, {}", policy.single_min, policy.single_max);
        return Err(field(&format!("{path}.single_min"), problem));
    }
    Ok(Arc::new(policy))
}

fn currency(path: &str, code: &str) -> Result<Currency, PolicyError> {
    Currency::parse(code).map_err(|error| field(path, format!("`{code}`: {error}")))
}

fn field(field: &str, problem: String) -> PolicyError {
    PolicyError::Field { field: field.to_owned(), problem }
}
