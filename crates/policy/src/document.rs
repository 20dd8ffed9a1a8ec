//! Reads a policy document into a set of policies.

mod raw;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveTime};

use super::set::{PolicyOverride, PolicyRule, PolicySet, Scope, Span, TierBinding};
use super::{PolicyError, PolicyFields, UnknownMerchants};
use quota::{Channel, Currency, MerchantId};
use raw::{OneOrMany, RawCurrency, RawDocument, RawOverride, RawPolicy};

/// Longest accepted version text.
const VERSION_LEN_MAX: usize = 64;
/// Longest accepted reason or approver of an override.
const WORDS_LEN_MAX: usize = 500;
/// Longest accepted tier code.
const TIER_LEN_MAX: usize = 64;

/// Reads a document into a set.
pub(super) fn read(text: &str) -> Result<PolicySet, PolicyError> {
    let raw = parse(text)?;
    if raw.version.is_empty()
        || raw.version.len() > VERSION_LEN_MAX
        || !raw.version.bytes().all(|b| b.is_ascii_graphic())
    {
        let problem = format!("must have 1 to {VERSION_LEN_MAX} visible ASCII characters");
        return Err(PolicyError::field("", "version", problem));
    }
    let digest = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    let version: Arc<str> = format!("{}#{:08x}", raw.version, digest >> 32).into();
    let unknown_merchants = raw.unknown_merchants;
    let mut reader = Reader { set: PolicySet::new(Arc::clone(&version)), version, unknown_merchants };
    match &raw.default {
        Some(policies) => reader.policies("default", &Scope::Default, policies)?,
        None => reader.refuse_unknown_merchants()?,
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
    for (index, raw) in raw.overrides.iter().enumerate() {
        reader.set.add_override(override_of(index, raw)?)?;
    }
    Ok(reader.set)
}

/// The raw document; an error names its field.
fn parse(text: &str) -> Result<RawDocument, PolicyError> {
    let read = serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(text));
    read.map_err(|error| {
        let field = error.path().to_string();
        let error = error.into_inner();
        // The parser's message for a tab.
        if let Some(line) = tab_indented(text).filter(|_| error.to_string().contains("cannot start any token")) {
            return PolicyError::Tab(line);
        }
        // A single dot is the document itself.
        if field == "." {
            return PolicyError::Syntax(error);
        }
        let text = error.to_string();
        // The parser's message starts with a part of the path, before the problem with its line and column.
        let problem =
            text.split_once(": ").filter(|(path, _)| field.starts_with(path)).map_or(&*text, |(_, rest)| rest);
        PolicyError::Field { field, problem: problem.to_owned() }
    })
}

/// The first line, from 1, that is indented by a tab, which YAML does not allow.
fn tab_indented(text: &str) -> Option<usize> {
    text.lines().position(|line| line.trim_start_matches(' ').starts_with('\t')).map(|line| line + 1)
}

/// Turns the document's policies into rules.
struct Reader {
    set: PolicySet,
    version: Arc<str>,
    unknown_merchants: Option<UnknownMerchants>,
}

impl Reader {
    /// Adds a default rule that refuses unknown merchants, where the document has no default policy.
    fn refuse_unknown_merchants(&mut self) -> Result<(), PolicyError> {
        let Some(unknown_merchants) = self.unknown_merchants.filter(|value| *value == UnknownMerchants::Refuse) else {
            return Ok(());
        };
        let rule = PolicyRule {
            path: "unknown_merchants".to_owned(),
            version: Arc::clone(&self.version),
            channel: None,
            currency: None,
            priority: 0,
            span: Span::ALWAYS,
            fields: PolicyFields { unknown_merchants: Some(unknown_merchants), ..PolicyFields::default() },
        };
        self.set.add(&Scope::Default, rule)
    }

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
        let mut fields = raw.fields();
        if *scope == Scope::Default {
            fields.unknown_merchants = self.unknown_merchants;
        }
        // A merchant with only a tier has no rule of its own.
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

fn override_of(index: usize, raw: &RawOverride) -> Result<PolicyOverride, PolicyError> {
    let path = format!("overrides[{index}]");
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
    let digest = xxhash_rust::xxh3::xxh3_64(format!("{raw:?}").as_bytes());
    Ok(PolicyOverride {
        version: format!("override:{merchant}#{:08x}", digest >> 32).into(),
        merchant,
        channel: channel.map_err(|error| PolicyError::field(&path, "channel", error.to_string()))?,
        currency: raw.currency.as_deref().map(|code| currency(&path, "currency", code)).transpose()?,
        span,
        fields: raw.fields(),
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
