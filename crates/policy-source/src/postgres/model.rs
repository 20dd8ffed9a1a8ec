//! Policies, tiers, bindings and overrides as in the admin API and the tables, and their conversion to rules.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use quota::{LimitName, OnExpiry, OnUnknownCredit};
use serde::{Deserialize, Serialize};
use sluice_kit::database::change::ChangeError;
use sluice_policy::{PolicyFields, WeekStart};
use strum::IntoStaticStr;
use utoipa::ToSchema;
use uuid::Uuid;

use super::checks::{amount, breach, names, over_capture, thresholds, trust};
use super::error::of_policy;

/// The word for every channel.
pub const ALL_CHANNELS: &str = "all";

/// What happens past a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BreachAction {
    Reject,
    /// Paced by the `throttle_*` fields, which must all be given then.
    Throttle,
}

/// What becomes of a hold that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HoldExpiry {
    Void,
    Settle,
}

/// Whether holders get rights of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrustMode {
    /// Every payment is decided by the store.
    Off,
    /// By the terms of the `trust_*` fields, which must all be given then.
    On,
}

/// What becomes of merchants that no policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownMerchants {
    /// They have the default policy.
    Default,
    /// Every charge of theirs is refused.
    Refuse,
}

/// Where a policy is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum PolicyState {
    Draft,
    Approved,
    Active,
    Inactive,
}

/// The state in the words of the merchant-quota API: drafts and approved policies are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum PolicyStatus {
    Pending,
    Active,
    Inactive,
}

/// Declares types with the limits beside their own fields: `deny_unknown_fields` does not work through `flatten`.
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
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            /// Smallest amount of one payment. All amounts are minor units; 9007199254740991 lifts an inherited limit.
            pub single_trans_min: Option<u64>,
            /// Largest amount of one payment.
            pub single_trans_max: Option<u64>,
            $(#[doc = concat!("Limit: ", $title, ".")] pub $column: Option<u64>,)+
        }

        impl $name {
            pub(super) fn limit_fields(&self) -> Result<PolicyFields, ChangeError> {
                let mut limits = HashMap::new();
                for (limit, given) in [$((LimitName::$limit, self.$column)),+] {
                    if let Some(max) = amount(limit.column(), given)? {
                        limits.insert(limit, max);
                    }
                }
                Ok(PolicyFields {
                    single_min: amount("single_trans_min", self.single_trans_min)?,
                    single_max: amount("single_trans_max", self.single_trans_max)?,
                    limits,
                    ..PolicyFields::default()
                })
            }
        }
    };
}

/// The same with all fields of a policy.
macro_rules! with_policy {
    ($($(#[$meta:meta])* struct $name:ident { $($own:tt)* })+) => {
        with_limits! {$(
            $(#[$meta])*
            struct $name {
                $($own)*
                /// IANA zone of days, weeks, months and years. Only in a policy for all channels.
                timezone: Option<String>,
                /// Hour at which the business day begins, 0 to 23. Only in a policy for all channels.
                cutoff_hour: Option<u32>,
                /// The day on which a week begins; Monday where none is given. Only in a policy for all channels.
                #[schema(value_type = Option<String>, pattern = "^(monday|tuesday|wednesday|thursday|friday|saturday|sunday)$", example = "monday")]
                week_starts_on: Option<WeekStart>,
                /// Channels that may be charged. Only in a policy for all channels.
                allowed_channels: Option<Vec<String>>,
                /// ISO 4217 codes that may be charged.
                allowed_currencies: Option<Vec<String>>,
                /// The share of each amount that counts against the amount limits, in basis points, rounded up: 5000 for a half; 10000
                /// where none is given. Bounds of one payment, limits on refunds and credit lines are about the amount itself.
                #[schema(minimum = 0, maximum = 1_000_000, example = 5_000)]
                weight_bp: Option<u32>,
                /// What every payment counts against the amount limits instead of its amount, minor units; not beside `weight_bp`.
                units_per_payment: Option<u64>,
                /// What happens past a limit.
                breach: Option<BreachAction>,
                /// Payments a minute past the limit.
                throttle_per_minute: Option<u32>,
                /// Payments that may come at once.
                throttle_burst: Option<u32>,
                /// How long the proxy may hold a payment back.
                throttle_delay_ms_max: Option<u32>,
                /// Percent of every limit that is never exceeded.
                throttle_ceiling_percent: Option<u32>,
                /// How long a hold may stay open.
                hold_lifetime_secs: Option<u32>,
                /// What becomes of a hold that ran out.
                hold_on_expiry: Option<HoldExpiry>,
                /// By how many percent captures may exceed their hold, 0 to 100.
                over_capture_percent: Option<u32>,
                /// What happens to a charge on a credit line that the server has never read, as where it was started without
                /// Postgres: `deny` (where none is given) or `allow`. Only in a policy for all channels.
                #[schema(value_type = Option<String>, pattern = "^(deny|allow)$", example = "deny")]
                on_unknown_credit: Option<OnUnknownCredit>,
                /// Whether holders, such as workers of the proxy, get rights of the account and admit payments from them without a
                /// call; off where none is given. Only in a policy for all channels.
                trust: Option<TrustMode>,
                /// Percent of each limit that must be left for a right.
                #[schema(minimum = 0, maximum = 99, example = 20)]
                trust_above_percent: Option<u32>,
                /// Percent of what is left of a limit that one right may take.
                #[schema(minimum = 1, maximum = 50, example = 5)]
                trust_share_percent: Option<u32>,
                /// Milliseconds after which nothing is admitted from a right any more.
                #[schema(minimum = 100, maximum = 60_000, example = 2_000)]
                trust_ttl_ms: Option<u32>,
                /// Percentages of the account's limits at which usage raises an alert, each 1 to 1000: at most eight, none for nothing.
                /// 80 and 100 where none are given. Only in a policy for all channels.
                #[schema(max_items = 8, example = json!([80, 100]))]
                thresholds: Option<Vec<u32>>,
                /// Whether merchants that no policy, tier or override names have the default policy, or every charge of theirs is
                /// refused. Only in a policy for everybody, all channels and all currencies.
                unknown_merchants: Option<UnknownMerchants>,
            }
        )+}

        $(impl $name {
            /// The policy's fields, each checked by itself.
            ///
            /// # Errors
            /// [`ChangeError::Invalid`] names the field.
            pub fn fields(&self) -> Result<PolicyFields, ChangeError> {
                let throttle = [
                    self.throttle_per_minute,
                    self.throttle_burst,
                    self.throttle_delay_ms_max,
                    self.throttle_ceiling_percent,
                ];
                let terms = [self.trust_above_percent, self.trust_share_percent, self.trust_ttl_ms];
                let fields = PolicyFields {
                    timezone: self.timezone.clone(),
                    cutoff_hour: self.cutoff_hour,
                    week_starts_on: self.week_starts_on,
                    allowed_channels: names("allowed_channels", self.allowed_channels.as_deref())?,
                    allowed_currencies: names("allowed_currencies", self.allowed_currencies.as_deref())?,
                    weight_bp: self.weight_bp,
                    units_per_payment: amount("units_per_payment", self.units_per_payment)?,
                    breach: breach(self.breach, throttle)?,
                    hold_lifetime_secs: self.hold_lifetime_secs,
                    hold_on_expiry: self.hold_on_expiry.map(HoldExpiry::rule),
                    over_capture_percent: over_capture(self.over_capture_percent)?,
                    on_unknown_credit: self.on_unknown_credit,
                    trust: trust(self.trust, terms)?,
                    thresholds: thresholds(self.thresholds.as_deref())?,
                    unknown_merchants: self.unknown_merchants.map(UnknownMerchants::rule),
                    ..self.limit_fields()?
                };
                fields.check("").map_err(of_policy)?;
                Ok(fields)
            }
        })+
    };
}

with_policy! {
    /// A policy as a caller gives it. A field that is left out is inherited: a merchant's policy lies over its tier's, a
    /// tier's over the one for everybody.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    struct PolicyInput {
        /// Whose limits. With neither merchant nor tier it is everybody's.
        merchant_id: Option<String>,
        /// The tier whose limits.
        tier_id: Option<Uuid>,
        /// The channel it is for; `all`, which is the default, for every one.
        #[serde(default = "all_channels")]
        channel: String,
        /// ISO 4217 code it is for; every currency without one.
        currency: Option<String>,
        /// Since when it holds; since ever without one.
        effective_date: Option<DateTime<Utc>>,
        /// The first moment at which it holds no more; never without one.
        expiry_date: Option<DateTime<Utc>>,
        /// Among active policies for the same scope, channel and currency the highest wins.
        #[serde(default)]
        priority: i32,
        /// What callers keep with it: at most 8 KiB of JSON.
        metadata: Option<serde_json::Value>,
        /// Words for people.
        remarks: Option<String>,
    }

    /// The limits in an answer of the policy service.
    struct LimitsAnswer {}

    /// One version of a policy.
    struct LimitPolicy {
        policy_id: Uuid,
        version: i32,
        merchant_id: Option<String>,
        tier_id: Option<Uuid>,
        channel: String,
        currency: Option<String>,
        effective_date: Option<DateTime<Utc>>,
        expiry_date: Option<DateTime<Utc>>,
        priority: i32,
        state: PolicyState,
        status: PolicyStatus,
        created_by: String,
        created_at: DateTime<Utc>,
        /// Everybody who wrote this version; none of them may approve it.
        edited_by: Vec<String>,
        updated_at: DateTime<Utc>,
        approved_by: Option<String>,
        approved_at: Option<DateTime<Utc>>,
        metadata: Option<serde_json::Value>,
        remarks: Option<String>,
        /// Number of changes of this version.
        revision: i64,
    }
}

with_limits! {
    /// Other limits for a merchant for a time, as a caller asks for them.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    struct OverrideInput {
        merchant_id: String,
        /// The channel it is for; `all`, which is the default, for every one.
        #[serde(default = "all_channels")]
        channel: String,
        /// ISO 4217 code it is for; every currency without one.
        currency: Option<String>,
        effective_date: DateTime<Utc>,
        /// The first moment at which it holds no more.
        expiry_date: DateTime<Utc>,
        reason: String,
    }

    /// Other limits for a merchant for a time. They hold once another person than who asked has approved them.
    struct Override {
        override_id: Uuid,
        merchant_id: String,
        channel: String,
        currency: Option<String>,
        effective_date: DateTime<Utc>,
        expiry_date: DateTime<Utc>,
        reason: String,
        created_by: String,
        created_at: DateTime<Utc>,
        approved_by: Option<String>,
        approved_at: Option<DateTime<Utc>>,
        revoked_by: Option<String>,
        revoked_at: Option<DateTime<Utc>>,
    }
}

/// A tier as a caller gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TierInput {
    /// As in starter, basic, professional, enterprise or premium.
    pub tier_code: String,
    /// 1 to 5.
    pub tier_level: u32,
    /// Channels that the tier's merchants may charge; every one without.
    pub allowed_channels: Option<Vec<String>>,
    /// ISO 4217 codes that the tier's merchants may charge; every one without.
    pub allowed_currencies: Option<Vec<String>>,
    pub remarks: Option<String>,
}

/// A group of merchants with the same limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tier {
    pub tier_id: Uuid,
    pub tier_code: String,
    pub tier_level: u32,
    pub allowed_channels: Option<Vec<String>>,
    pub allowed_currencies: Option<Vec<String>>,
    pub remarks: Option<String>,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub revision: i64,
}

/// That a merchant is of a tier, as a caller asks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingInput {
    pub merchant_id: String,
    pub tier_id: Uuid,
    /// Since when; now without one.
    pub effective_date: Option<DateTime<Utc>>,
    /// The first moment at which it is so no more; never without one.
    pub expiry_date: Option<DateTime<Utc>>,
    pub change_reason: String,
}

/// That a merchant is of a tier. Of several that hold, the one that began last counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Binding {
    pub binding_id: Uuid,
    pub merchant_id: String,
    pub tier_id: Uuid,
    pub effective_date: DateTime<Utc>,
    pub expiry_date: Option<DateTime<Utc>>,
    pub changed_by: String,
    pub change_reason: String,
    pub created_at: DateTime<Utc>,
    pub ended_by: Option<String>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// One change of a policy, tier, binding or override.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    pub history_id: i64,
    /// The table: `limit_policy`, `tier`, `merchant_tier`, `policy_override`, `credit_line` or `credit_scorecard`.
    pub object: String,
    pub object_id: Uuid,
    /// As in `create`, `update`, `approve`, `activate`, `deactivate`, `revoke`.
    pub action: String,
    pub actor: String,
    pub reason: Option<String>,
    pub at: DateTime<Utc>,
    /// The row before; absent where it is new.
    pub old: Option<serde_json::Value>,
    /// The row after.
    pub new: Option<serde_json::Value>,
}

impl Override {
    /// The override's limits.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub fn fields(&self) -> Result<PolicyFields, ChangeError> {
        self.limit_fields()
    }
}

impl HoldExpiry {
    const fn rule(self) -> OnExpiry {
        match self {
            Self::Void => OnExpiry::Void,
            Self::Settle => OnExpiry::Settle,
        }
    }
}

impl UnknownMerchants {
    const fn rule(self) -> sluice_policy::UnknownMerchants {
        match self {
            Self::Default => sluice_policy::UnknownMerchants::Default,
            Self::Refuse => sluice_policy::UnknownMerchants::Refuse,
        }
    }
}

fn all_channels() -> String {
    ALL_CHANNELS.to_owned()
}
