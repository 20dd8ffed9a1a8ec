//! The policy in force for an account as callers of the merchant-quota API read it.

use chrono::Utc;
use quota::{AmountMinor, Breach, Channel, Currency, LimitName, Limits, MerchantId, OnExpiry, Policy};
use serde::Serialize;
use sluice_policy::WeekStart;
use utoipa::ToSchema;

use super::postgres::model::{ALL_CHANNELS, BreachAction, HoldExpiry, TrustMode};

/// Declares the limits, from the table of limits.
macro_rules! effective_limits {
    ([$({
        $limit:ident, $key:ident, $column:ident, $kind:ident $(($period:ident))?, $level:ident $($place:literal)?,
        $alert:literal, $title:literal
    })+]) => {
        /// The limits of a policy in force.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
        pub struct EffectiveLimits {
            $(#[doc = concat!("Limit: ", $title, ".")] pub $column: Option<u64>,)+
        }

        impl From<&Limits> for EffectiveLimits {
            fn from(limits: &Limits) -> Self {
                Self { $($column: limit(LimitName::$limit.max(limits)),)+ }
            }
        }
    };
}

quota::for_each_limit!(effective_limits!());

/// The answer to `GET /api/v1/limit-policies/effective`. A limit that is absent does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EffectivePolicy {
    pub merchant_id: String,
    pub currency: String,
    /// The channel that was asked for; `all` without one.
    pub channel: String,
    /// Names what the policy was made of, as decisions do.
    pub version: String,
    pub timezone: String,
    pub cutoff_hour: u32,
    /// The day on which a week begins.
    #[schema(value_type = String, example = "monday")]
    pub week_starts_on: WeekStart,
    pub single_min: u64,
    pub single_max: Option<u64>,
    /// The same as `single_min`.
    pub single_trans_min: u64,
    /// The same as `single_max`.
    pub single_trans_max: Option<u64>,
    #[serde(flatten)]
    pub limits: EffectiveLimits,
    pub allowed_channels: Option<Vec<String>>,
    pub allowed_currencies: Option<Vec<String>>,
    /// The share of each amount that counts against the amount limits, in basis points; absent where `units_per_payment` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_bp: Option<u32>,
    /// What every payment counts instead of its amount; absent where `weight_bp` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units_per_payment: Option<u64>,
    pub breach: BreachAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_per_minute: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_delay_ms_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_ceiling_percent: Option<u32>,
    pub hold_lifetime_secs: u32,
    pub hold_on_expiry: HoldExpiry,
    pub over_capture_percent: u8,
    /// What happens to a charge on a credit line that the server has never read: `deny` or `allow`.
    #[schema(value_type = String, example = "deny")]
    pub on_unknown_credit: &'static str,
    /// Whether holders get rights of the account.
    pub trust: TrustMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_above_percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_share_percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_ttl_ms: Option<u32>,
    /// Percentages of the limits at which usage raises an alert, rising.
    pub thresholds: Vec<u16>,
    /// No policy names the merchant, and such merchants are refused: every charge is.
    pub merchant_unknown: bool,
    /// When this was so.
    pub at: chrono::DateTime<Utc>,
}

impl EffectivePolicy {
    /// Converts a policy to the API's fields.
    #[must_use]
    pub fn new(
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        policy: &Policy,
        at: chrono::DateTime<Utc>,
    ) -> Self {
        let throttle = match policy.breach {
            Breach::Reject => None,
            Breach::Throttle(throttle) => Some(throttle),
        };
        let names = |set: &Option<std::collections::BTreeSet<String>>| set.iter().flatten().cloned().collect();
        Self {
            merchant_id: merchant.to_string(),
            currency: currency.code().to_owned(),
            channel: channel.map_or(ALL_CHANNELS, Channel::as_str).to_owned(),
            version: policy.version.to_string(),
            timezone: policy.calendar.zone_name().to_owned(),
            cutoff_hour: policy.calendar.cutoff_hour(),
            week_starts_on: WeekStart::of(&policy.calendar),
            single_min: policy.single_min.get(),
            single_max: limit(policy.single_max.get()),
            single_trans_min: policy.single_min.get(),
            single_trans_max: limit(policy.single_max.get()),
            limits: EffectiveLimits::from(&policy.limits),
            allowed_channels: policy.allowed_channels.as_ref().map(|_| names(&policy.allowed_channels)),
            allowed_currencies: policy.allowed_currencies.as_ref().map(|_| names(&policy.allowed_currencies)),
            weight_bp: Some(policy.weight.bp()).filter(|bp| *bp > 0),
            units_per_payment: (policy.weight.bp() == 0).then(|| policy.weight.units_per_payment().get()),
            breach: if throttle.is_some() { BreachAction::Throttle } else { BreachAction::Reject },
            throttle_per_minute: throttle.map(|throttle| throttle.per_minute),
            throttle_burst: throttle.map(|throttle| throttle.burst),
            throttle_delay_ms_max: throttle.map(|throttle| throttle.delay_ms_max),
            throttle_ceiling_percent: throttle.map(|throttle| throttle.ceiling_percent),
            hold_lifetime_secs: policy.hold.lifetime_secs,
            hold_on_expiry: match policy.hold.on_expiry {
                OnExpiry::Void => HoldExpiry::Void,
                OnExpiry::Settle => HoldExpiry::Settle,
            },
            over_capture_percent: policy.over_capture_percent,
            on_unknown_credit: policy.on_unknown_credit.as_str(),
            trust: if policy.trust.is_some() { TrustMode::On } else { TrustMode::Off },
            trust_above_percent: policy.trust.map(|trust| trust.above_percent),
            trust_share_percent: policy.trust.map(|trust| trust.share_percent),
            trust_ttl_ms: policy.trust.map(|trust| trust.ttl_ms),
            thresholds: policy
                .threshold_policy
                .as_ref()
                .map(|threshold_policy| threshold_policy.thresholds().percents().to_vec())
                .unwrap_or_default(),
            merchant_unknown: policy.merchant_unknown,
            at,
        }
    }
}

fn limit(max: u64) -> Option<u64> {
    (max != AmountMinor::MAX.get()).then_some(max)
}
