//! The fields of one policy: each is optional, and overrides that of the policy below.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::{PolicyError, UnknownMerchants, WeekStart};
use crate::zone::{ZoneError, ZoneSource, check_zone_name};
use quota::{
    AmountMinor, Breach, Calendar, Channel, Currency, HoldTerms, LimitName, OnExpiry, OnUnknownCredit, Policy,
    ThresholdPolicy, Thresholds, Throttle, Trust, Weight,
};

/// The fields of one policy. `None` is inherited; [`AmountMinor::MAX`] removes an inherited limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFields {
    /// IANA name of the zone of days, weeks, months and years.
    pub timezone: Option<String>,
    /// Hour at which the business day begins.
    pub cutoff_hour: Option<u32>,
    /// The day on which a week begins.
    pub week_starts_on: Option<WeekStart>,
    pub allowed_channels: Option<BTreeSet<String>>,
    pub allowed_currencies: Option<BTreeSet<String>>,
    pub single_min: Option<AmountMinor>,
    pub single_max: Option<AmountMinor>,
    /// The limits on usage that are set.
    pub limits: HashMap<LimitName, AmountMinor>,
    /// The share of amounts that counts against the amount limits, in basis points; not beside `units_per_payment`.
    pub weight_bp: Option<u32>,
    /// What every payment counts against the amount limits instead of its amount, minor units.
    pub units_per_payment: Option<AmountMinor>,
    pub breach: Option<Breach>,
    pub hold_lifetime_secs: Option<u32>,
    pub hold_on_expiry: Option<OnExpiry>,
    pub over_capture_percent: Option<u8>,
    pub on_unknown_credit: Option<OnUnknownCredit>,
    /// When holders get rights of the account; `Some(None)` switches inherited trust off.
    pub trust: Option<Option<Trust>>,
    /// Percentages of the limits at which usage is reported.
    pub thresholds: Option<Thresholds>,
    /// Whether merchants that no policy names are refused; only set in the default policy.
    pub unknown_merchants: Option<UnknownMerchants>,
}

impl PolicyFields {
    /// Whether no field is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The policy of these fields alone.
    ///
    /// # Errors
    /// [`PolicyError::Field`] names the first invalid field.
    pub fn alone(&self, version: &str, zones: &dyn ZoneSource) -> Result<Policy, PolicyError> {
        self.check("")?;
        let version: Arc<str> = version.into();
        let mut fold = Fold::new(Arc::clone(&version));
        fold.apply("", self, zones)?;
        fold.finish("", version)
    }

    /// Checks every field by itself. The zone's name is resolved where policies are compiled.
    ///
    /// # Errors
    /// [`PolicyError::Field`] names the first invalid one, below `path`.
    pub fn check(&self, path: &str) -> Result<(), PolicyError> {
        if let Some(zone) = &self.timezone {
            check_zone_name(zone).map_err(|error| of_zone(path, &error))?;
        }
        within(path, "cutoff_hour", self.cutoff_hour, 0, 23)?;
        within(path, "hold.lifetime_secs", self.hold_lifetime_secs, 1, HoldTerms::LIFETIME_SECS_MAX)?;
        within(path, "over_capture_percent", self.over_capture_percent.map(u32::from), 0, 100)?;
        within(path, "weight_bp", self.weight_bp, 0, Weight::BP_MAX)?;
        if self.weight_bp.is_some() && self.units_per_payment.is_some() {
            let problem = "cannot be given together with weight_bp: a payment counts a share of its amount, or a price";
            return Err(PolicyError::field(path, "units_per_payment", problem.to_owned()));
        }
        for name in self.allowed_channels.iter().flatten() {
            Channel::parse(name)
                .map_err(|error| PolicyError::field(path, "allowed_channels", format!("`{name}`: {error}")))?;
        }
        for code in self.allowed_currencies.iter().flatten() {
            Currency::parse(code)
                .map_err(|error| PolicyError::field(path, "allowed_currencies", format!("`{code}`: {error}")))?;
        }
        match self.breach {
            Some(Breach::Throttle(throttle)) => check_throttle(path, throttle),
            Some(Breach::Reject) | None => Ok(()),
        }?;
        self.trust.flatten().map_or(Ok(()), |trust| check_trust(path, trust))?;
        match (self.single_min, self.single_max) {
            (Some(min), Some(max)) => check_single(path, min, max),
            (_, _) => Ok(()),
        }
    }

    /// What payments count against the amount limits; the fields have been checked.
    fn weight(&self) -> Option<Weight> {
        self.units_per_payment.map(Weight::price).or_else(|| self.weight_bp.and_then(Weight::share))
    }

    /// Checks that no field is set that only the default policy for all channels and currencies may set.
    ///
    /// # Errors
    /// [`PolicyError::Field`] names the field.
    pub fn check_for_some(&self, path: &str) -> Result<(), PolicyError> {
        match self.unknown_merchants {
            Some(_) => {
                let problem = "may only be set in the default policy for all channels and currencies";
                Err(PolicyError::field(path, "unknown_merchants", problem.to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Checks that no field is set that cannot differ by channel: counters and rights are the account's, so all its channels share
    /// the windows.
    ///
    /// # Errors
    /// [`PolicyError::Field`] names the field.
    pub fn check_for_channel(&self, path: &str) -> Result<(), PolicyError> {
        let refused = [
            ("timezone", self.timezone.is_some()),
            ("cutoff_hour", self.cutoff_hour.is_some()),
            ("week_starts_on", self.week_starts_on.is_some()),
            ("allowed_channels", self.allowed_channels.is_some()),
            ("thresholds", self.thresholds.is_some()),
            ("on_unknown_credit", self.on_unknown_credit.is_some()),
            ("trust", self.trust.is_some()),
            ("unknown_merchants", self.unknown_merchants.is_some()),
        ];
        match refused.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                let problem = "cannot differ by channel; give it in the policy for all channels";
                Err(PolicyError::field(path, name, problem.to_owned()))
            }
            None => Ok(()),
        }
    }
}

/// A policy that is merged from its parts.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    zone: TimeZone,
    cutoff_hour: u32,
    week_starts_on: WeekStart,
    thresholds: Thresholds,
    unknown_merchants: UnknownMerchants,
    policy: Policy,
}

impl Fold {
    /// Starts without limits, in UTC.
    pub(super) fn new(version: Arc<str>) -> Self {
        Self {
            zone: TimeZone::UTC,
            cutoff_hour: 0,
            week_starts_on: WeekStart::default(),
            thresholds: Thresholds::DEFAULT,
            unknown_merchants: UnknownMerchants::Default,
            policy: Policy::unlimited(version),
        }
    }

    /// Overrides fields with those that are set. They have been checked.
    pub(super) fn apply(
        &mut self,
        path: &str,
        fields: &PolicyFields,
        zones: &dyn ZoneSource,
    ) -> Result<(), PolicyError> {
        if let Some(zone) = &fields.timezone {
            self.zone = zones.zone(zone).map_err(|error| of_zone(path, &error))?;
        }
        put(&mut self.cutoff_hour, fields.cutoff_hour);
        put(&mut self.week_starts_on, fields.week_starts_on);
        put(&mut self.thresholds, fields.thresholds);
        put(&mut self.unknown_merchants, fields.unknown_merchants);
        let policy = &mut self.policy;
        put(&mut policy.allowed_channels, fields.allowed_channels.clone().map(Some));
        put(&mut policy.allowed_currencies, fields.allowed_currencies.clone().map(Some));
        put(&mut policy.single_min, fields.single_min);
        put(&mut policy.single_max, fields.single_max);
        let limits = &mut policy.limits;
        for (limit, max) in &fields.limits {
            *limit.max_mut(limits) = *max;
        }
        put(&mut policy.weight, fields.weight());
        put(&mut policy.breach, fields.breach);
        put(&mut policy.hold.lifetime_secs, fields.hold_lifetime_secs);
        put(&mut policy.hold.on_expiry, fields.hold_on_expiry);
        put(&mut policy.over_capture_percent, fields.over_capture_percent);
        put(&mut policy.on_unknown_credit, fields.on_unknown_credit);
        put(&mut policy.trust, fields.trust);
        Ok(())
    }

    /// Applies the setting for unknown merchants.
    pub(super) fn mark_unknown_merchant(&mut self) {
        self.policy.merchant_unknown = self.unknown_merchants == UnknownMerchants::Refuse;
    }

    /// The policy with its version, if its parts are consistent.
    pub(super) fn finish(mut self, path: &str, version: Arc<str>) -> Result<Policy, PolicyError> {
        check_single(path, self.policy.single_min, self.policy.single_max)?;
        let cutoff = || PolicyError::field(path, "cutoff_hour", format!("{} is not 0 to 23", self.cutoff_hour));
        let calendar = Calendar::new(self.zone, self.cutoff_hour).ok_or_else(cutoff)?;
        self.policy.calendar = calendar.with_week_start(self.week_starts_on.weekday());
        self.policy.threshold_policy = Some(Arc::new(ThresholdPolicy::new(&self.policy.limits, self.thresholds)));
        self.policy.version = version;
        Ok(self.policy)
    }
}

fn put<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn of_zone(path: &str, error: &ZoneError) -> PolicyError {
    PolicyError::field(path, "timezone", error.to_string())
}

fn check_single(path: &str, min: AmountMinor, max: AmountMinor) -> Result<(), PolicyError> {
    if min <= max {
        return Ok(());
    }
    Err(PolicyError::field(path, "single_min", format!("{min} is above the largest amount of one payment, {max}")))
}

fn check_throttle(path: &str, throttle: Throttle) -> Result<(), PolicyError> {
    let Throttle { per_minute, burst, delay_ms_max, ceiling_percent } = throttle;
    within(path, "breach.throttle.per_minute", Some(per_minute), 1, Throttle::PER_MINUTE_MAX)?;
    within(path, "breach.throttle.burst", Some(burst), 1, Throttle::BURST_MAX)?;
    within(path, "breach.throttle.delay_ms_max", Some(delay_ms_max), 0, Throttle::DELAY_MS_MAX)?;
    within(path, "breach.throttle.ceiling_percent", Some(ceiling_percent), 100, Throttle::CEILING_PERCENT_MAX)
}

fn check_trust(path: &str, trust: Trust) -> Result<(), PolicyError> {
    let Trust { above_percent, share_percent, ttl_ms } = trust;
    let (ttl_ms_min, ttl_ms_max) = Trust::TTL_MS.into_inner();
    within(path, "trust.above_percent", Some(above_percent.into()), 0, Trust::ABOVE_PERCENT_MAX.into())?;
    within(path, "trust.share_percent", Some(share_percent.into()), 1, Trust::SHARE_PERCENT_MAX.into())?;
    within(path, "trust.ttl_ms", Some(ttl_ms), ttl_ms_min, ttl_ms_max)
}

fn within(path: &str, name: &str, value: Option<u32>, min: u32, max: u32) -> Result<(), PolicyError> {
    match value {
        Some(value) if !(min..=max).contains(&value) => {
            Err(PolicyError::field(path, name, format!("{value} is not {min} to {max}")))
        }
        Some(_) | None => Ok(()),
    }
}
