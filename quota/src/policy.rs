//! The policy for one charge: the limits of its account and the terms of its holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    AmountMinor, Calendar, Channel, Code, Currency, LimitKind, LimitName, PerPeriod, Period, ThresholdPolicy, Trust,
    Weight, WindowIds,
};

/// The limits of one window; [`AmountMinor::MAX`] where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Amount of charges.
    pub amount: AmountMinor,
    /// Number of charges.
    pub count: AmountMinor,
    /// Amount of refunds made in the window, whenever their charges were made.
    pub refunded: AmountMinor,
}

impl WindowLimits {
    /// Bounded only by what a counter can hold.
    pub const UNLIMITED: Self = Self { amount: AmountMinor::MAX, count: AmountMinor::MAX, refunded: AmountMinor::MAX };
}

/// The limits that depend on usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub windows: PerPeriod<WindowLimits>,
    /// Sum of the unsettled amounts of open holds.
    pub pending: AmountMinor,
}

/// What happens to a charge that would break an amount or count limit of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breach {
    /// It is refused.
    #[default]
    Reject,
    /// It is throttled, up to a ceiling.
    Throttle(Throttle),
}

/// The pace of charges above 100 % of a limit (generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Charges a minute; 1 to [`Throttle::PER_MINUTE_MAX`].
    pub per_minute: u32,
    /// Charges that may arrive at once; at least 1.
    pub burst: u32,
    /// How long the proxy may delay a charge. A charge that would wait longer is refused.
    pub delay_ms_max: u32,
    /// Percent of every window limit that is never exceeded; at least 100.
    pub ceiling_percent: u32,
}

impl Throttle {
    /// A charge every 60 µs: a clock in milliseconds cannot pace finer.
    pub const PER_MINUTE_MAX: u32 = 1_000_000;
    /// Largest burst.
    pub const BURST_MAX: u32 = 100_000;
    /// Longest delay of a request in the proxy.
    pub const DELAY_MS_MAX: u32 = 30_000;
    /// Highest ceiling.
    pub const CEILING_PERCENT_MAX: u32 = 1_000;
}

/// What happens to a charge on a credit line that the server has never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknownCredit {
    /// It is refused.
    #[default]
    Deny,
    /// The line does not bound it.
    Allow,
}

impl OnUnknownCredit {
    /// The word in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// What happens when a hold expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// The quota that is still held is returned.
    #[default]
    Void,
    /// The quota that is still held counts as captured.
    Settle,
}

/// How long a hold may stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTerms {
    /// Seconds from the hold on; 1 to [`HoldTerms::LIFETIME_SECS_MAX`].
    pub lifetime_secs: u32,
    pub on_expiry: OnExpiry,
}

impl HoldTerms {
    /// 400 days: longer than any card scheme keeps an authorisation.
    pub const LIFETIME_SECS_MAX: u32 = 34_560_000;
    /// Seven days, the usual validity of a card authorisation; then the quota is returned.
    pub const DEFAULT: Self = Self { lifetime_secs: 604_800, on_expiry: OnExpiry::Void };
}

impl Limits {
    /// No limits at all.
    pub const UNLIMITED: Self = Self { windows: PerPeriod::all(WindowLimits::UNLIMITED), pending: AmountMinor::MAX };

    /// The limits of one kind of window.
    #[must_use]
    pub const fn of(&self, period: Period) -> WindowLimits {
        *self.windows.of(period)
    }

    /// These limits, with others for one kind of window.
    #[must_use]
    pub const fn with(mut self, period: Period, limits: WindowLimits) -> Self {
        *self.windows.of_mut(period) = limits;
        self
    }
}

/// The policy of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Identifies the document of the policy, and its exact content.
    pub version: Arc<str>,
    pub calendar: Calendar,
    /// Whether the calendar is the account's own. A substitute for an unavailable policy does not have it, and must not move the
    /// account's windows: an id from a wrong zone would open a second day.
    pub calendar_known: bool,
    pub single_min: AmountMinor,
    pub single_max: AmountMinor,
    pub limits: Limits,
    /// What payments count against the amount limits.
    pub weight: Weight,
    pub breach: Breach,
    pub hold: HoldTerms,
    /// By how many percent of a hold its captures may exceed it; 0 to 100.
    pub over_capture_percent: u8,
    /// What happens to a charge on a credit line that the server has never read.
    pub on_unknown_credit: OnUnknownCredit,
    /// Whether holders get rights of the account, and how large ones; `None` where every payment is decided by the store.
    pub trust: Option<Trust>,
    /// The thresholds of the account's usage, over all channels. `None` where they are unknown: the limits of a substitute for an
    /// unavailable policy are not the account's.
    pub threshold_policy: Option<Arc<ThresholdPolicy>>,
    /// No policy names the merchant, and unknown merchants are refused: every charge is refused.
    pub merchant_unknown: bool,
    /// `None` allows every channel, and charges without one.
    pub allowed_channels: Option<BTreeSet<String>>,
    /// `None` allows every currency.
    pub allowed_currencies: Option<BTreeSet<String>>,
}

impl Policy {
    /// A policy that refuses nothing, in UTC.
    #[must_use]
    pub fn unlimited(version: Arc<str>) -> Self {
        Self {
            version,
            calendar: Calendar::UTC,
            calendar_known: true,
            single_min: AmountMinor::ZERO,
            single_max: AmountMinor::MAX,
            limits: Limits::UNLIMITED,
            weight: Weight::AMOUNT,
            breach: Breach::Reject,
            hold: HoldTerms::DEFAULT,
            over_capture_percent: 0,
            on_unknown_credit: OnUnknownCredit::Deny,
            trust: None,
            threshold_policy: Some(Arc::new(ThresholdPolicy::NOTHING)),
            merchant_unknown: false,
            allowed_channels: None,
            allowed_currencies: None,
        }
    }

    /// The windows that `now_ms` (milliseconds since the epoch) falls into. Without the account's own calendar they are
    /// [`WindowIds::default`], which leaves windows as they are stored.
    #[must_use]
    pub fn windows_at(&self, now_ms: i64) -> WindowIds {
        if self.calendar_known { self.calendar.windows_at(now_ms) } else { WindowIds::default() }
    }

    /// Whether the policy refuses anything at all.
    #[must_use]
    pub fn enforces(&self) -> bool {
        self.bounds_usage()
            || self.single_max != AmountMinor::MAX
            || self.single_min != AmountMinor::ZERO
            || self.merchant_unknown
            || self.allowed_channels.is_some()
            || self.allowed_currencies.is_some()
    }

    /// Whether a limit bounds what payments use: none on amounts does where no amount counts.
    fn bounds_usage(&self) -> bool {
        let counts = self.weight.counts(AmountMinor::MAX.get()) > 0;
        let set = |limit: &LimitName| limit.max(&self.limits) != AmountMinor::MAX.get();
        let applies = |limit: &LimitName| match limit.kind() {
            LimitKind::Amount(_) | LimitKind::Pending => counts,
            LimitKind::Count(_) | LimitKind::Refunded(_) => true,
        };
        LimitName::ALL.iter().any(|limit| set(limit) && applies(limit))
    }

    /// The first code with which the policy refuses a charge, independent of usage, if any.
    #[must_use]
    pub fn refuses(&self, amount: AmountMinor, currency: Currency, channel: Option<&Channel>) -> Option<Code> {
        let channel_allowed = self
            .allowed_channels
            .as_ref()
            .is_none_or(|allowed| channel.is_some_and(|channel| allowed.contains(channel.as_str())));
        let currency_allowed = self.allowed_currencies.as_ref().is_none_or(|allowed| allowed.contains(currency.code()));
        if self.merchant_unknown {
            Some(Code::MerchantUnknown)
        } else if !channel_allowed {
            Some(Code::ChannelNotAllowed)
        } else if !currency_allowed {
            Some(Code::CurrencyNotAllowed)
        } else if amount < self.single_min {
            Some(Code::BelowSingleMin)
        } else if amount > self.single_max {
            Some(Code::AboveSingleMax)
        } else {
            None
        }
    }
}
