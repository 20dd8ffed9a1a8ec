//! The policy document's structure in YAML, before its values are validated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{PolicyFields, UnknownMerchants, WeekStart};
use quota::{AmountMinor, Breach, LimitName, OnExpiry, OnUnknownCredit, Thresholds, Throttle, Trust};

/// A limit, or `unlimited`, which removes an inherited one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a whole number from 0 to 9007199254740991, or `unlimited`")]
pub(super) enum Limit {
    Max(AmountMinor),
    Word(Unlimited),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unlimited {
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
pub(super) enum RawBreach {
    Word(Reject),
    Throttle(RawThrottle),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reject {
    Reject,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawThrottle {
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

/// When holders get rights of the account, or `off`. YAML 1.1 has `off` for a boolean; this parser has it for a text.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`off`, or above_percent (0 to 99), share_percent (1 to 50) and ttl_ms (100 to 60000), each a whole number"
)]
pub(super) enum RawTrust {
    Word(Off),
    On(Trust),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Off {
    Off,
}

impl RawTrust {
    const fn trust(self) -> Option<Trust> {
        match self {
            Self::Word(Off::Off) => None,
            Self::On(trust) => Some(trust),
        }
    }
}

/// A list of percentages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Percents(Thresholds);

impl<'de> Deserialize<'de> for Percents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percents = Vec::<u32>::deserialize(deserializer)?;
        Thresholds::new(percents).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHold {
    lifetime_secs: Option<u32>,
    on_expiry: Option<OnExpiry>,
}

/// Declares structs with the limits beside their own fields: `deny_unknown_fields` does not work through `flatten`.
macro_rules! with_limits {
    ($($(#[$meta:meta])* struct $name:ident $fields:tt)+) => {
        $(quota::for_each_limit!(with_each_limit!($(#[$meta])* struct $name $fields));)+
    };
}

/// Declares one of them, from the table of limits.
macro_rules! with_each_limit {
    (
        [$({
            $limit:ident, $key:ident, $column:ident, $kind:ident $(($period:ident))?, $level:ident $($place:literal)?,
            $alert:literal, $title:literal
        })+]
        $(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            single_min: Option<AmountMinor>,
            single_max: Option<Limit>,
            weight_bp: Option<u32>,
            units_per_payment: Option<AmountMinor>,
            $($key: Option<Limit>,)+
        }

        impl $name {
            pub(super) fn limits(&self) -> PolicyFields {
                let given = [$((LimitName::$limit, self.$key)),+];
                PolicyFields {
                    single_min: self.single_min,
                    single_max: self.single_max.map(Limit::max),
                    weight_bp: self.weight_bp,
                    units_per_payment: self.units_per_payment,
                    limits: given.into_iter().filter_map(|(limit, max)| Some((limit, max?.max()))).collect(),
                    ..PolicyFields::default()
                }
            }
        }
    };
}

with_limits! {
    /// The fields that differ for one currency.
    struct RawCurrency {}

    /// The fields that differ for one channel. It has no calendar: counters are the account's.
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
        /// Tiers only: their rank among tiers, 1 to 5.
        level: Option<u8>,
        #[serde(default)]
        priority: i32,
        effective_from: Option<String>,
        effective_until: Option<String>,
        timezone: Option<String>,
        cutoff_hour: Option<u32>,
        week_starts_on: Option<WeekStart>,
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
        on_unknown_credit: Option<OnUnknownCredit>,
        trust: Option<RawTrust>,
        thresholds: Option<Percents>,
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
        on_unknown_credit: Option<OnUnknownCredit>,
        trust: Option<RawTrust>,
        thresholds: Option<Percents>,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDocument {
    pub version: String,
    /// Whether merchants that the document does not name are refused.
    pub unknown_merchants: Option<UnknownMerchants>,
    pub default: Option<OneOrMany>,
    #[serde(default, deserialize_with = "unique")]
    pub tiers: BTreeMap<String, OneOrMany>,
    #[serde(default, deserialize_with = "unique")]
    pub merchants: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    pub overrides: Vec<RawOverride>,
}

/// A policy, or a list of several for the same scope.
#[derive(Debug)]
pub(super) enum OneOrMany {
    One(Box<RawPolicy>),
    Many(Vec<RawPolicy>),
}

impl OneOrMany {
    /// The policies, each with its own path.
    pub(super) fn with_paths(&self, path: &str) -> Vec<(String, &RawPolicy)> {
        match self {
            Self::One(policy) => vec![(path.to_owned(), policy)],
            Self::Many(policies) => {
                policies.iter().enumerate().map(|(index, policy)| (format!("{path}[{index}]"), policy)).collect()
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

/// A map without duplicate keys: if the last value won, the first would silently not be enforced.
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

impl RawPolicy {
    pub(super) fn fields(&self) -> PolicyFields {
        PolicyFields {
            timezone: self.timezone.clone(),
            cutoff_hour: self.cutoff_hour,
            week_starts_on: self.week_starts_on,
            allowed_channels: self.allowed_channels.clone(),
            allowed_currencies: self.allowed_currencies.clone(),
            breach: self.breach.map(RawBreach::breach),
            hold_lifetime_secs: self.hold.lifetime_secs,
            hold_on_expiry: self.hold.on_expiry,
            over_capture_percent: self.over_capture_percent,
            on_unknown_credit: self.on_unknown_credit,
            trust: self.trust.map(RawTrust::trust),
            thresholds: self.thresholds.map(|Percents(thresholds)| thresholds),
            ..self.limits()
        }
    }
}

impl RawChannel {
    pub(super) fn fields(&self) -> PolicyFields {
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

impl RawOverride {
    pub(super) fn fields(&self) -> PolicyFields {
        PolicyFields {
            allowed_channels: self.allowed_channels.clone(),
            allowed_currencies: self.allowed_currencies.clone(),
            breach: self.breach.map(RawBreach::breach),
            hold_lifetime_secs: self.hold.lifetime_secs,
            hold_on_expiry: self.hold.on_expiry,
            over_capture_percent: self.over_capture_percent,
            on_unknown_credit: self.on_unknown_credit,
            trust: self.trust.map(RawTrust::trust),
            thresholds: self.thresholds.map(|Percents(thresholds)| thresholds),
            ..self.limits()
        }
    }
}
