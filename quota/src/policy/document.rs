//! The policy document as it is written in YAML, and how it becomes a set of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveTime};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::set::{PolicyOverride, PolicyRule, PolicySet, Scope, Span, TierBinding};
use super::{Breach, OnExpiry, PolicyError, PolicyFields, Throttle};
use crate::{AmountMinor, Channel, Currency, MerchantId};

/// Longest accepted version text.
const VERSION_LEN_MAX: usize = 64;
/// Longest accepted reason or approver of an override.
const WORDS_LEN_MAX: usize = 500;
/// Longest accepted tier code.
const TIER_LEN_MAX: usize = 64;

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

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`reject`, or `throttle` with per_minute, burst, delay_ms_max and ceiling_percent, each a whole number"
)]
enum RawBreach {
    Word(Reject),
    Throttle(RawThrottle),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reject {
    Reject,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThrottle {
    throttle: Throttle,
}

impl RawBreach {
    const fn breach(self) -> Breach {
        match self {
            Self::Word(Reject::Reject) => Breach::Reject,
            Self::Throttle(RawThrottle { throttle }) => Breach::Throttle(throttle),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHold {
    lifetime_secs: Option<u32>,
    on_expiry: Option<OnExpiry>,
}

/// Declares forms that all hold the limits beside their own fields: `deny_unknown_fields` does not work through `flatten`.
macro_rules! with_limits {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($(#[$field_meta])* $field: $type,)*
            single_min: Option<AmountMinor>,
            single_max: Option<Limit>,
            daily_amount: Option<Limit>,
            monthly_amount: Option<Limit>,
            yearly_amount: Option<Limit>,
            daily_count: Option<Limit>,
            monthly_count: Option<Limit>,
            yearly_count: Option<Limit>,
            pending_amount: Option<Limit>,
            refund_daily_amount: Option<Limit>,
            refund_monthly_amount: Option<Limit>,
        }

        impl $name {
            fn limits(&self) -> PolicyFields {
                let max = |limit: Option<Limit>| limit.map(Limit::max);
                PolicyFields {
                    single_min: self.single_min,
                    single_max: max(self.single_max),
                    daily_amount: max(self.daily_amount),
                    monthly_amount: max(self.monthly_amount),
                    yearly_amount: max(self.yearly_amount),
                    daily_count: max(self.daily_count),
                    monthly_count: max(self.monthly_count),
                    yearly_count: max(self.yearly_count),
                    pending_amount: max(self.pending_amount),
                    refund_daily_amount: max(self.refund_daily_amount),
                    refund_monthly_amount: max(self.refund_monthly_amount),
                    ..PolicyFields::default()
                }
            }
        }
    )+};
}

with_limits! {
    /// What differs for one currency.
    struct RawCurrency {}

    /// What differs for one channel. It has no calendar: counters are the account's.
    struct RawChannel {
        allowed_currencies: Option<BTreeSet<String>>,
        #[serde(default, deserialize_with = "unique")]
        currencies: BTreeMap<String, RawCurrency>,
        breach: Option<RawBreach>,
        #[serde(default)]
        hold: RawHold,
        over_capture_percent: Option<u8>,
    }

    /// A policy of the default, a tier or a merchant.
    struct RawPolicy {
        /// Merchants only: the tier whose policy is inherited.
        tier: Option<String>,
        /// Tiers only: their place in the order of tiers, 1 to 5.
        level: Option<u8>,
        #[serde(default)]
        priority: i32,
        effective_from: Option<String>,
        effective_until: Option<String>,
        timezone: Option<String>,
        cutoff_hour: Option<u32>,
        allowed_channels: Option<BTreeSet<String>>,
        allowed_currencies: Option<BTreeSet<String>>,
        #[serde(default, deserialize_with = "unique")]
        currencies: BTreeMap<String, RawCurrency>,
        #[serde(default, deserialize_with = "unique")]
        channels: BTreeMap<String, RawChannel>,
        breach: Option<RawBreach>,
        #[serde(default)]
        hold: RawHold,
        over_capture_percent: Option<u8>,
    }

    /// An override.
    struct RawOverride {
        merchant: String,
        currency: Option<String>,
        channel: Option<String>,
        from: String,
        until: String,
        approved_by: String,
        reason: String,
        allowed_channels: Option<BTreeSet<String>>,
        allowed_currencies: Option<BTreeSet<String>>,
        breach: Option<RawBreach>,
        #[serde(default)]
        hold: RawHold,
        over_capture_percent: Option<u8>,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocument {
    version: String,
    default: Option<OneOrMany>,
    #[serde(default, deserialize_with = "unique")]
    tiers: BTreeMap<String, OneOrMany>,
    #[serde(default, deserialize_with = "unique")]
    merchants: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    overrides: Vec<RawOverride>,
}

/// A policy, or a list of several for the same scope.
#[derive(Debug)]
enum OneOrMany {
    One(Box<RawPolicy>),
    Many(Vec<RawPolicy>),
}

impl OneOrMany {
    /// The policies, each with its own path.
    fn with_paths(&self, path: &str) -> Vec<(String, &RawPolicy)> {
        match self {
            Self::One(policy) => vec![(path.to_owned(), policy)],
            Self::Many(policies) => {
                policies.iter().enumerate().map(|(place, policy)| (format!("{path}[{place}]"), policy)).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a policy or a list of policies")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany, A::Error> {
                RawPolicy::deserialize(MapAccessDeserializer::new(map)).map(|policy| OneOrMany::One(Box::new(policy)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut policies = Vec::new();
                while let Some(policy) = seq.next_element()? {
                    policies.push(policy);
                }
                Ok(OneOrMany::Many(policies))
            }
        }

        deserializer.deserialize_any(Either)
    }
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

/// Reads a document into a set.
pub(super) fn read(text: &str) -> Result<PolicySet, PolicyError> {
    let raw: RawDocument = serde_yaml_ng::from_str(text)?;
    if raw.version.is_empty()
        || raw.version.len() > VERSION_LEN_MAX
        || !raw.version.bytes().all(|b| b.is_ascii_graphic())
    {
        let problem = format!("must have 1 to {VERSION_LEN_MAX} visible ASCII characters");
        return Err(PolicyError::field("", "version", problem));
    }
    let digest = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    let version: Arc<str> = format!("{}#{:08x}", raw.version, digest >> 32).into();
    let mut reader = Reader { set: PolicySet::new(Arc::clone(&version)), version };
    if let Some(policies) = &raw.default {
        reader.policies("default", &Scope::Default, policies)?;
    }
    for (tier, policies) in &raw.tiers {
        let path = format!("tiers.{tier}");
        if tier.is_empty() || tier.len() > TIER_LEN_MAX || !tier.bytes().all(|b| b.is_ascii_graphic()) {
            let problem = format!("a tier's name must have 1 to {TIER_LEN_MAX} visible ASCII characters");
            return Err(PolicyError::field(&path, "", problem));
        }
        reader.policies(&path, &Scope::Tier(tier.clone()), policies)?;
    }
    for (id, policies) in &raw.merchants {
        let path = format!("merchants.{id}");
        let id = MerchantId::parse(id).map_err(|error| PolicyError::field(&path, "", error.to_string()))?;
        reader.policies(&path, &Scope::Merchant(id), policies)?;
    }
    for (place, raw) in raw.overrides.iter().enumerate() {
        reader.set.add_override(override_of(place, raw)?)?;
    }
    Ok(reader.set)
}

/// Turns the document's policies into rules.
struct Reader {
    set: PolicySet,
    version: Arc<str>,
}

impl Reader {
    fn policies(&mut self, path: &str, scope: &Scope, policies: &OneOrMany) -> Result<(), PolicyError> {
        policies.with_paths(path).into_iter().try_for_each(|(path, raw)| self.policy(&path, scope, raw))
    }

    fn policy(&mut self, path: &str, scope: &Scope, raw: &RawPolicy) -> Result<(), PolicyError> {
        check_place(path, scope, raw)?;
        let span = Span {
            from_ms: moment(path, "effective_from", raw.effective_from.as_deref())?.unwrap_or(i64::MIN),
            until_ms: moment(path, "effective_until", raw.effective_until.as_deref())?.unwrap_or(i64::MAX),
        };
        if let (Some(tier), Scope::Merchant(merchant)) = (&raw.tier, scope) {
            let (path, tier) = (path.to_owned(), tier.clone());
            self.set.bind(merchant, TierBinding { path, tier, priority: raw.priority, span })?;
        }
        let fields = raw.fields();
        // A merchant that only names its tier says nothing of its own.
        if raw.tier.is_none() || !fields.is_empty() {
            self.rule(path, scope, raw, span, (None, None), fields)?;
        }
        self.currencies(path, scope, raw, span, None, &raw.currencies)?;
        for (name, channel) in &raw.channels {
            let parsed = Channel::parse(name)
                .map_err(|error| PolicyError::field(path, "channels", format!("`{name}`: {error}")))?;
            let path = format!("{path}.channels.{name}");
            self.rule(&path, scope, raw, span, (Some(&parsed), None), channel.fields())?;
            self.currencies(&path, scope, raw, span, Some(&parsed), &channel.currencies)?;
        }
        Ok(())
    }

    fn currencies(
        &mut self,
        path: &str,
        scope: &Scope,
        raw: &RawPolicy,
        span: Span,
        channel: Option<&Channel>,
        currencies: &BTreeMap<String, RawCurrency>,
    ) -> Result<(), PolicyError> {
        for (code, limits) in currencies {
            let currency = currency(path, "currencies", code)?;
            let path = format!("{path}.currencies.{code}");
            self.rule(&path, scope, raw, span, (channel, Some(currency)), limits.limits())?;
        }
        Ok(())
    }

    fn rule(
        &mut self,
        path: &str,
        scope: &Scope,
        raw: &RawPolicy,
        span: Span,
        (channel, currency): (Option<&Channel>, Option<Currency>),
        fields: PolicyFields,
    ) -> Result<(), PolicyError> {
        let (path, version, channel) = (path.to_owned(), Arc::clone(&self.version), channel.cloned());
        self.set.add(scope, PolicyRule { path, version, channel, currency, priority: raw.priority, span, fields })
    }
}

impl RawPolicy {
    fn fields(&self) -> PolicyFields {
        PolicyFields {
            timezone: self.timezone.clone(),
            cutoff_hour: self.cutoff_hour,
            allowed_channels: self.allowed_channels.clone(),
            allowed_currencies: self.allowed_currencies.clone(),
            breach: self.breach.map(RawBreach::breach),
            hold_lifetime_secs: self.hold.lifetime_secs,
            hold_on_expiry: self.hold.on_expiry,
            over_capture_percent: self.over_capture_percent,
            ..self.limits()
        }
    }
}

impl RawChannel {
    fn fields(&self) -> PolicyFields {
        PolicyFields {
            allowed_currencies: self.allowed_currencies.clone(),
            breach: self.breach.map(RawBreach::breach),
            hold_lifetime_secs: self.hold.lifetime_secs,
            hold_on_expiry: self.hold.on_expiry,
            over_capture_percent: self.over_capture_percent,
            ..self.limits()
        }
    }
}

fn override_of(place: usize, raw: &RawOverride) -> Result<PolicyOverride, PolicyError> {
    let path = format!("overrides[{place}]");
    for (name, text) in [("approved_by", &raw.approved_by), ("reason", &raw.reason)] {
        if text.trim().is_empty() || text.len() > WORDS_LEN_MAX {
            return Err(PolicyError::field(&path, name, format!("must have 1 to {WORDS_LEN_MAX} characters")));
        }
    }
    let merchant =
        MerchantId::parse(&raw.merchant).map_err(|error| PolicyError::field(&path, "merchant", error.to_string()))?;
    let channel = raw.channel.as_deref().map(Channel::parse).transpose();
    let span = Span {
        from_ms: moment(&path, "from", Some(&raw.from))?.unwrap_or(i64::MIN),
        until_ms: moment(&path, "until", Some(&raw.until))?.unwrap_or(i64::MAX),
    };
    let fields = PolicyFields {
        allowed_channels: raw.allowed_channels.clone(),
        allowed_currencies: raw.allowed_currencies.clone(),
        breach: raw.breach.map(RawBreach::breach),
        hold_lifetime_secs: raw.hold.lifetime_secs,
        hold_on_expiry: raw.hold.on_expiry,
        over_capture_percent: raw.over_capture_percent,
        ..raw.limits()
    };
    let digest = xxhash_rust::xxh3::xxh3_64(format!("{raw:?}").as_bytes());
    Ok(PolicyOverride {
        version: format!("override:{merchant}#{:08x}", digest >> 32).into(),
        merchant,
        channel: channel.map_err(|error| PolicyError::field(&path, "channel", error.to_string()))?,
        currency: raw.currency.as_deref().map(|code| currency(&path, "currency", code)).transpose()?,
        span,
        fields,
        path,
    })
}

fn check_place(path: &str, scope: &Scope, raw: &RawPolicy) -> Result<(), PolicyError> {
    if raw.tier.is_some() && !matches!(scope, Scope::Merchant(_)) {
        return Err(PolicyError::field(path, "tier", "only a merchant names a tier".to_owned()));
    }
    match raw.level {
        Some(level) if !matches!(scope, Scope::Tier(_)) || !(1..=5).contains(&level) => {
            Err(PolicyError::field(path, "level", "is for tiers, from 1 to 5".to_owned()))
        }
        Some(_) | None => Ok(()),
    }
}

fn currency(path: &str, name: &str, code: &str) -> Result<Currency, PolicyError> {
    Currency::parse(code).map_err(|error| PolicyError::field(path, name, format!("`{code}`: {error}")))
}

fn moment(path: &str, name: &str, text: Option<&str>) -> Result<Option<i64>, PolicyError> {
    let Some(text) = text else { return Ok(None) };
    let problem = || {
        PolicyError::field(path, name, format!("`{text}` is neither a date, as in 2026-12-31, nor an RFC 3339 time"))
    };
    parse_moment(text).map(Some).ok_or_else(problem)
}

/// Reads an RFC 3339 time, or a date as midnight UTC; milliseconds since the epoch.
#[must_use]
pub fn parse_moment(text: &str) -> Option<i64> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.timestamp_millis());
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis())
}
