//! The limits in force: a typed document with a default, tiers and merchants, compiled into one policy per account.

mod document;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{AmountMinor, Calendar, Channel, Code, Currency, MerchantId, Period};

pub use document::PolicyError;

/// Amount and number of charges of one window. What has no limit has [`AmountMinor::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    pub amount: AmountMinor,
    pub count: AmountMinor,
}

impl WindowLimits {
    /// Bounded only by what a counter can hold.
    pub const UNLIMITED: Self = Self { amount: AmountMinor::MAX, count: AmountMinor::MAX };
}

/// The limits that depend on what was consumed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub day: WindowLimits,
    pub month: WindowLimits,
    pub year: WindowLimits,
    /// Sum of what open holds have not settled yet.
    pub pending: AmountMinor,
    /// Sum of refunds made in a day, whenever their charges were.
    pub refund_daily: AmountMinor,
    /// Sum of refunds made in a month.
    pub refund_monthly: AmountMinor,
}

/// What happens to a charge that would break an amount or count limit of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breach {
    /// It is refused.
    #[default]
    Reject,
    /// It is paced, up to a ceiling.
    Throttle(Throttle),
}

/// The pace of charges past 100 % of a limit (generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Charges a minute; 1 to [`Throttle::PER_MINUTE_MAX`].
    pub per_minute: u32,
    /// Charges that may come at once; at least 1.
    pub burst: u32,
    /// How long the proxy may hold a charge back. One that would wait longer is refused.
    pub delay_ms_max: u32,
    /// Percent of every window limit that is never exceeded; at least 100.
    pub ceiling_percent: u32,
}

impl Throttle {
    /// A charge every 60 µs: finer pacing than a clock in milliseconds shows would be none.
    pub const PER_MINUTE_MAX: u32 = 1_000_000;
    /// Largest burst.
    pub const BURST_MAX: u32 = 100_000;
    /// Longest delay: what a proxy may hold a request for.
    pub const DELAY_MS_MAX: u32 = 30_000;
    /// Highest ceiling.
    pub const CEILING_PERCENT_MAX: u32 = 1_000;
}

/// What becomes of a hold that nobody settled or voided in its time.
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
    /// Seven days, the usual life of a card authorisation; then the quota is returned.
    pub const DEFAULT: Self = Self { lifetime_secs: 604_800, on_expiry: OnExpiry::Void };
}

impl Limits {
    /// No limits at all.
    pub const UNLIMITED: Self = Self {
        day: WindowLimits::UNLIMITED,
        month: WindowLimits::UNLIMITED,
        year: WindowLimits::UNLIMITED,
        pending: AmountMinor::MAX,
        refund_daily: AmountMinor::MAX,
        refund_monthly: AmountMinor::MAX,
    };

    /// The limits of one kind of window.
    #[must_use]
    pub const fn of(&self, period: Period) -> WindowLimits {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
            Period::Year => self.year,
        }
    }
}

/// All that is in force for one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Names the document that the policy came from, and its exact content.
    pub version: Arc<str>,
    pub calendar: Calendar,
    pub single_min: AmountMinor,
    pub single_max: AmountMinor,
    pub limits: Limits,
    pub breach: Breach,
    pub hold: HoldTerms,
    /// By how many percent of a hold its captures may exceed it; 0 to 100.
    pub over_capture_percent: u8,
    /// `None` allows every channel, also a charge that names none.
    pub allowed_channels: Option<BTreeSet<String>>,
    /// `None` allows every currency.
    pub allowed_currencies: Option<BTreeSet<String>>,
}

impl Policy {
    /// What the policy says of a charge whatever was consumed before: the first code that refuses it, if any.
    #[must_use]
    pub fn refuses(&self, amount: AmountMinor, currency: Currency, channel: Option<&Channel>) -> Option<Code> {
        let channel_allowed = self
            .allowed_channels
            .as_ref()
            .is_none_or(|allowed| channel.is_some_and(|channel| allowed.contains(channel.as_str())));
        let currency_allowed = self.allowed_currencies.as_ref().is_none_or(|allowed| allowed.contains(currency.code()));
        if !channel_allowed {
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

/// One merchant's, tier's or the default policy, with its variants by currency.
#[derive(Clone, Debug)]
struct Entry {
    base: Arc<Policy>,
    by_currency: HashMap<&'static str, Arc<Policy>>,
}

impl Entry {
    fn policy(&self, currency: Currency) -> &Arc<Policy> {
        self.by_currency.get(currency.code()).unwrap_or(&self.base)
    }
}

/// A compiled policy document.
#[derive(Clone, Debug)]
pub struct PolicyBook {
    version: Arc<str>,
    default: Option<Entry>,
    merchants: HashMap<String, Entry>,
}

impl PolicyBook {
    /// Reads a YAML document; see `docs/policies.md` for its fields.
    ///
    /// # Errors
    /// [`PolicyError`] names the field and what is wrong; nothing of a document with an error is taken.
    pub fn from_yaml(text: &str) -> Result<Self, PolicyError> {
        document::compile(text)
    }

    /// The document's own version followed by a digest of its text, so that an edit without a new version still shows.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The policy in force for an account: the merchant's, else the default; `None` where the document has neither.
    #[must_use]
    pub fn effective(&self, merchant: &MerchantId, currency: Currency) -> Option<&Arc<Policy>> {
        let entry = self.merchants.get(merchant.as_str()).or(self.default.as_ref())?;
        Some(entry.policy(currency))
    }

    /// Number of merchants that the document names.
    #[must_use]
    pub fn merchants(&self) -> usize {
        self.merchants.len()
    }
}

#[cfg(test)]
mod tests;
