//! Checks of a policy, tier, binding or override by itself. Errors name the field.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, Utc};
use quota::{AmountMinor, Breach, Channel, Currency, MerchantId, Thresholds, Throttle, Trust};
use serde_json::Value;
use sluice_kit::database::change::ChangeError;
use sluice_policy::{PolicyFields, Span};

use super::error::of_policy;
use super::model::{ALL_CHANNELS, BindingInput, BreachAction, OverrideInput, PolicyInput, TierInput, TrustMode};

/// Longest accepted remarks or reason, in characters.
const WORDS_LEN_MAX: usize = 2_000;
/// Largest accepted metadata, in bytes of JSON.
const METADATA_BYTES_MAX: usize = 8 * 1024;
/// Years that a time may be in: RFC 3339 has no others.
const YEARS: RangeInclusive<i32> = 1..=9999;
/// Most names in a list of allowed channels or currencies.
const ALLOWED_NAMES_MAX: usize = 200;

impl PolicyInput {
    /// Checks everything that can be known from the policy alone.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub fn check(&self) -> Result<(), ChangeError> {
        let fields = self.fields()?;
        if self.merchant_id.is_some() && self.tier_id.is_some() {
            return Err(ChangeError::invalid("tier_id", "cannot be given together with merchant_id"));
        }
        self.merchant_id.as_deref().map(merchant).transpose()?;
        if channel(&self.channel)?.is_some() {
            fields.check_for_channel("").map_err(of_policy)?;
        }
        self.currency.as_deref().map(currency).transpose()?;
        if self.merchant_id.is_some() || self.tier_id.is_some() || self.currency.is_some() {
            fields.check_for_some("").map_err(of_policy)?;
        }
        if fields.is_empty() {
            return Err(ChangeError::invalid("daily_limit", "a policy must limit something: give one field at least"));
        }
        dates(self.effective_date, self.expiry_date)?;
        words("remarks", self.remarks.as_deref())?;
        match &self.metadata {
            Some(metadata) if metadata.to_string().len() > METADATA_BYTES_MAX || has_nul(metadata) => {
                let problem = format!("must have at most {METADATA_BYTES_MAX} bytes, and no NUL");
                Err(ChangeError::invalid("metadata", problem))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl OverrideInput {
    /// Checks everything that can be known from the override alone.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub fn check(&self) -> Result<(), ChangeError> {
        let fields = self.limit_fields()?;
        fields.check("").map_err(of_policy)?;
        if fields.is_empty() {
            return Err(ChangeError::invalid("daily_limit", "an override must name one limit at least"));
        }
        merchant(&self.merchant_id)?;
        channel(&self.channel)?;
        self.currency.as_deref().map(currency).transpose()?;
        dates(Some(self.effective_date), Some(self.expiry_date))?;
        required("reason", &self.reason)
    }
}

impl TierInput {
    /// Checks the tier.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub fn check(&self) -> Result<(), ChangeError> {
        let code = self.tier_code.as_bytes();
        if code.is_empty() || code.len() > 64 || !code.iter().all(u8::is_ascii_graphic) {
            return Err(ChangeError::invalid("tier_code", "must have 1 to 64 visible ASCII characters"));
        }
        if !(1..=5).contains(&self.tier_level) {
            return Err(ChangeError::invalid("tier_level", "must be 1 to 5"));
        }
        allowed(self.allowed_channels.as_deref(), self.allowed_currencies.as_deref())?;
        words("remarks", self.remarks.as_deref())
    }
}

impl BindingInput {
    /// Checks the binding.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field.
    pub fn check(&self) -> Result<(), ChangeError> {
        merchant(&self.merchant_id)?;
        dates(self.effective_date, self.expiry_date)?;
        required("change_reason", &self.change_reason)
    }
}

/// The lists of a tier as a policy.
pub(super) fn allowed(channels: Option<&[String]>, currencies: Option<&[String]>) -> Result<PolicyFields, ChangeError> {
    let fields = PolicyFields {
        allowed_channels: names("allowed_channels", channels)?,
        allowed_currencies: names("allowed_currencies", currencies)?,
        ..PolicyFields::default()
    };
    fields.check("").map_err(of_policy)?;
    Ok(fields)
}

/// Reads a merchant's id.
pub(super) fn merchant(text: &str) -> Result<MerchantId, ChangeError> {
    MerchantId::parse(text).map_err(|error| ChangeError::invalid("merchant_id", error.to_string()))
}

/// Reads a channel; `None` for all.
pub(super) fn channel(text: &str) -> Result<Option<Channel>, ChangeError> {
    if text == ALL_CHANNELS {
        return Ok(None);
    }
    Channel::parse(text).map(Some).map_err(|error| ChangeError::invalid("channel", error.to_string()))
}

/// Reads a currency.
pub(super) fn currency(text: &str) -> Result<Currency, ChangeError> {
    Currency::parse(text).map_err(|error| ChangeError::invalid("currency", error.to_string()))
}

/// The time in which something is in force.
pub(crate) fn span(from: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Result<Span, ChangeError> {
    let span = Span {
        from_ms: from.map_or(i64::MIN, |at| at.timestamp_millis()),
        until_ms: until.map_or(i64::MAX, |at| at.timestamp_millis()),
    };
    if span.from_ms < span.until_ms {
        return Ok(span);
    }
    Err(ChangeError::invalid("expiry_date", "must be after effective_date"))
}

/// Checks the time in which an input is to be in force.
fn dates(from: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Result<(), ChangeError> {
    for (field, at) in [("effective_date", from), ("expiry_date", until)] {
        if at.is_some_and(|at| !YEARS.contains(&at.year())) {
            let problem = format!("must be in the years {} to {}", YEARS.start(), YEARS.end());
            return Err(ChangeError::invalid(field, problem));
        }
    }
    span(from, until).map(drop)
}

/// Whether a text or name anywhere in it has the one character that Postgres cannot store.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn words(field: &'static str, text: Option<&str>) -> Result<(), ChangeError> {
    match text {
        Some(text) if text.chars().count() > WORDS_LEN_MAX || text.contains('\0') => {
            Err(ChangeError::invalid(field, format!("must have at most {WORDS_LEN_MAX} characters, and no NUL")))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn required(field: &'static str, text: &str) -> Result<(), ChangeError> {
    if text.trim().is_empty() {
        return Err(ChangeError::invalid(field, "must not be empty"));
    }
    words(field, Some(text))
}

pub(super) fn amount(field: &'static str, value: Option<u64>) -> Result<Option<AmountMinor>, ChangeError> {
    let problem = || ChangeError::invalid(field, format!("must be 0 to {}", AmountMinor::MAX));
    value.map(|value| AmountMinor::new(value).ok_or_else(problem)).transpose()
}

pub(super) fn over_capture(percent: Option<u32>) -> Result<Option<u8>, ChangeError> {
    percent.map(|value| percent_of("over_capture_percent", value, 0..=100)).transpose()
}

fn percent_of(field: &'static str, value: u32, range: RangeInclusive<u8>) -> Result<u8, ChangeError> {
    let problem = || ChangeError::invalid(field, format!("must be {} to {}", range.start(), range.end()));
    u8::try_from(value).ok().filter(|value| range.contains(value)).ok_or_else(problem)
}

pub(super) fn thresholds(percents: Option<&[u32]>) -> Result<Option<Thresholds>, ChangeError> {
    let read = |percents: &[u32]| Thresholds::new(percents.iter().copied());
    percents.map(read).transpose().map_err(|error| ChangeError::invalid("thresholds", error.to_string()))
}

pub(super) fn names(field: &'static str, names: Option<&[String]>) -> Result<Option<BTreeSet<String>>, ChangeError> {
    let Some(names) = names else { return Ok(None) };
    if names.len() > ALLOWED_NAMES_MAX {
        return Err(ChangeError::invalid(field, format!("must have at most {ALLOWED_NAMES_MAX} names")));
    }
    Ok(Some(names.iter().cloned().collect()))
}

pub(super) fn breach(action: Option<BreachAction>, throttle: [Option<u32>; 4]) -> Result<Option<Breach>, ChangeError> {
    match (action, throttle) {
        (Some(BreachAction::Throttle), [Some(per_minute), Some(burst), Some(delay_ms_max), Some(ceiling_percent)]) => {
            Ok(Some(Breach::Throttle(Throttle { per_minute, burst, delay_ms_max, ceiling_percent })))
        }
        (Some(BreachAction::Throttle), _) => Err(ChangeError::invalid(
            "breach",
            "throttle needs throttle_per_minute, throttle_burst, throttle_delay_ms_max and throttle_ceiling_percent",
        )),
        (Some(BreachAction::Reject), [None, None, None, None]) => Ok(Some(Breach::Reject)),
        (None, [None, None, None, None]) => Ok(None),
        (Some(BreachAction::Reject) | None, _) => {
            Err(ChangeError::invalid("breach", "must be throttle where a throttle field is given"))
        }
    }
}

/// `Some(None)` switches inherited trust off.
pub(super) fn trust(
    mode: Option<TrustMode>,
    [above_percent, share_percent, ttl_ms]: [Option<u32>; 3],
) -> Result<Option<Option<Trust>>, ChangeError> {
    match (mode, above_percent, share_percent, ttl_ms) {
        (Some(TrustMode::On), Some(above_percent), Some(share_percent), Some(ttl_ms)) => Ok(Some(Some(Trust {
            above_percent: percent_of("trust_above_percent", above_percent, 0..=Trust::ABOVE_PERCENT_MAX)?,
            share_percent: percent_of("trust_share_percent", share_percent, 1..=Trust::SHARE_PERCENT_MAX)?,
            ttl_ms,
        }))),
        (Some(TrustMode::On), _, _, _) => {
            Err(ChangeError::invalid("trust", "on needs trust_above_percent, trust_share_percent and trust_ttl_ms"))
        }
        (Some(TrustMode::Off), None, None, None) => Ok(Some(None)),
        (None, None, None, None) => Ok(None),
        (Some(TrustMode::Off) | None, _, _, _) => {
            Err(ChangeError::invalid("trust", "must be on where another field of trust is given"))
        }
    }
}
