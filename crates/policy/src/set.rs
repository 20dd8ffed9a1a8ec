//! Policies of one or several sources: rules for a scope, a channel and a currency, each with its time and priority. A set
//! is compiled as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{PolicyBook, PolicyError, PolicyFields, compile, document};
use crate::zone::ZoneSource;
use quota::{Channel, Currency, MerchantId};

/// The period in which a rule applies: from `from_ms`, inclusive, to `until_ms`, exclusive. Milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_ms: i64,
    pub until_ms: i64,
}

impl Span {
    /// Always.
    pub const ALWAYS: Self = Self { from_ms: i64::MIN, until_ms: i64::MAX };

    /// Whether the rule applies at this moment.
    #[must_use]
    pub const fn holds_at(&self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms < self.until_ms
    }
}

/// The precedence of rules for the same slot: the higher priority, then the later start, then the later position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    priority: i32,
    from_ms: i64,
    position: usize,
}

/// A policy for one slot (channel and currency) of a scope.
#[derive(Clone, Debug)]
pub struct PolicyRule {
    /// Identifies the rule in errors.
    pub path: String,
    /// Identifies the rule in decisions.
    pub version: Arc<str>,
    /// `None` is every channel.
    pub channel: Option<Channel>,
    /// `None` is every currency.
    pub currency: Option<Currency>,
    /// Among the rules for the same slot of the same scope the highest wins.
    pub priority: i32,
    pub span: Span,
    pub fields: PolicyFields,
}

/// The membership of a merchant in a tier.
#[derive(Clone, Debug)]
pub struct TierBinding {
    /// Identifies the binding in errors.
    pub path: String,
    pub tier: String,
    pub priority: i32,
    pub span: Span,
}

/// Overrides all other rules of a merchant for a limited time, with an approval.
#[derive(Clone, Debug)]
pub struct PolicyOverride {
    /// Identifies the override in errors.
    pub path: String,
    /// Identifies it in decisions.
    pub version: Arc<str>,
    pub merchant: MerchantId,
    /// `None` is every channel.
    pub channel: Option<Channel>,
    /// `None` is every currency.
    pub currency: Option<Currency>,
    pub span: Span,
    pub fields: PolicyFields,
}

/// The merchants that a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Default,
    Tier(String),
    Merchant(MerchantId),
}

/// An item with its source and its rank within the source.
#[derive(Clone, Debug)]
pub(super) struct Ranked<T> {
    pub source: u8,
    pub rank: Rank,
    pub item: T,
}

/// All rules of one merchant.
#[derive(Clone, Debug, Default)]
pub(super) struct MerchantPolicies {
    pub rules: Vec<Ranked<PolicyRule>>,
    pub bindings: Vec<Ranked<TierBinding>>,
    pub overrides: Vec<PolicyOverride>,
}

/// All rules of one tier.
#[derive(Clone, Debug, Default)]
pub(super) struct TierPolicies {
    pub rules: Vec<Ranked<PolicyRule>>,
    /// The rules of the tier itself; they override its policies.
    pub own: Vec<Ranked<PolicyRule>>,
}

/// Policies of one or several sources.
#[derive(Clone, Debug)]
pub struct PolicySet {
    pub(super) version: Arc<str>,
    /// The number of the current source; earlier sources have lower numbers.
    pub(super) source: u8,
    added: usize,
    pub(super) default: Vec<Ranked<PolicyRule>>,
    pub(super) tiers: BTreeMap<String, TierPolicies>,
    pub(super) merchants: BTreeMap<MerchantId, MerchantPolicies>,
}

impl PolicySet {
    /// An empty set.
    #[must_use]
    pub fn new(version: impl Into<Arc<str>>) -> Self {
        Self {
            version: version.into(),
            source: 0,
            added: 0,
            default: Vec::new(),
            tiers: BTreeMap::new(),
            merchants: BTreeMap::new(),
        }
    }

    /// Reads a YAML document; see `docs/policies.md` for its fields.
    ///
    /// # Errors
    /// [`PolicyError`] names the field and what is wrong.
    pub fn from_yaml(text: &str) -> Result<Self, PolicyError> {
        document::read(text)
    }

    /// Starts the next source: its rules for a scope, a channel and a currency override those of earlier sources for the same,
    /// field by field.
    pub fn next_source(&mut self, version: &str) {
        self.source = self.source.saturating_add(1);
        self.version = format!("{}+{version}", self.version).into();
    }

    /// Whether the set has no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.default.is_empty() && self.tiers.is_empty() && self.merchants.is_empty()
    }

    /// Adds a tier without rules.
    pub fn add_tier(&mut self, tier: &str) {
        self.tiers.entry(tier.to_owned()).or_default();
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// [`PolicyError::Field`] for a field that cannot be as it is.
    pub fn add(&mut self, scope: &Scope, rule: PolicyRule) -> Result<(), PolicyError> {
        check(&rule.path, &rule.fields, rule.channel.as_ref())?;
        if *scope != Scope::Default || rule.channel.is_some() || rule.currency.is_some() {
            rule.fields.check_for_some(&rule.path)?;
        }
        check_span(&rule.path, rule.span, ["effective_from", "effective_until"])?;
        let ranked = self.ranked(rule.priority, rule.span, rule);
        match scope {
            Scope::Default => self.default.push(ranked),
            Scope::Tier(tier) => self.tiers.entry(tier.clone()).or_default().rules.push(ranked),
            Scope::Merchant(merchant) => self.merchants.entry(merchant.clone()).or_default().rules.push(ranked),
        }
        Ok(())
    }

    /// Adds a rule of a tier itself that overrides its policies, such as its lists of channels and currencies.
    ///
    /// # Errors
    /// [`PolicyError::Field`] for a field that cannot be as it is.
    pub fn add_to_tier(&mut self, tier: &str, rule: PolicyRule) -> Result<(), PolicyError> {
        check(&rule.path, &rule.fields, rule.channel.as_ref())?;
        let ranked = self.ranked(rule.priority, rule.span, rule);
        self.tiers.entry(tier.to_owned()).or_default().own.push(ranked);
        Ok(())
    }

    /// Binds a merchant to a tier. The tier may be added later.
    ///
    /// # Errors
    /// [`PolicyError::Field`] for an invalid period.
    pub fn bind(&mut self, merchant: &MerchantId, binding: TierBinding) -> Result<(), PolicyError> {
        check_span(&binding.path, binding.span, ["effective_from", "effective_until"])?;
        let ranked = self.ranked(binding.priority, binding.span, binding);
        self.merchants.entry(merchant.clone()).or_default().bindings.push(ranked);
        Ok(())
    }

    /// Adds an override.
    ///
    /// # Errors
    /// [`PolicyError::Field`] for a field that cannot be as it is.
    pub fn add_override(&mut self, item: PolicyOverride) -> Result<(), PolicyError> {
        check(&item.path, &item.fields, item.channel.as_ref())?;
        check_span(&item.path, item.span, ["from", "until"])?;
        if item.span.until_ms == i64::MAX {
            return Err(PolicyError::field(&item.path, "until", "an override must end".to_owned()));
        }
        self.merchants.entry(item.merchant.clone()).or_default().overrides.push(item);
        Ok(())
    }

    /// Computes which policy applies to which merchant, and when.
    ///
    /// # Errors
    /// [`PolicyError`] names the field where policies contradict each other, or reports a set that enforces nothing.
    pub fn compile(&self, zones: &dyn ZoneSource) -> Result<PolicyBook, PolicyError> {
        compile::compile(self, zones)
    }

    fn ranked<T>(&mut self, priority: i32, span: Span, item: T) -> Ranked<T> {
        self.added += 1;
        let rank = Rank { priority, from_ms: span.from_ms, position: self.added };
        Ranked { source: self.source, rank, item }
    }
}

fn check(path: &str, fields: &PolicyFields, channel: Option<&Channel>) -> Result<(), PolicyError> {
    fields.check(path)?;
    if channel.is_some() { fields.check_for_channel(path) } else { Ok(()) }
}

fn check_span(path: &str, span: Span, names: [&str; 2]) -> Result<(), PolicyError> {
    let [from, until] = names;
    if span.from_ms < span.until_ms {
        return Ok(());
    }
    Err(PolicyError::field(path, until, format!("must be after `{from}`")))
}
