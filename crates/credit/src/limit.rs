//! The limit in force: its base, times the grade's multiplier, below the stage's cap, unless a person has set another one.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::invalid::{ensure, within};
use crate::{AMOUNT_MAX, BasisPoints, InvalidMember};

/// A limit that a person has set, up to and with a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitOverride {
    /// In minor units.
    pub limit: i64,
    /// The last day on which it is in force.
    #[schema(value_type = String, format = Date)]
    pub expires_on: Date,
}

impl LimitOverride {
    /// Checks it on the day on which it is made.
    ///
    /// # Errors
    /// [`InvalidMember`] names the member that cannot be used.
    pub fn validate(&self, today: Date) -> Result<(), InvalidMember> {
        within("limit", self.limit, 0, AMOUNT_MAX)?;
        ensure(self.expires_on >= today, "expires_on", format!("is over: give {today} or later"))
    }
}

/// What the limit in force follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitFactors {
    /// The line's own limit, in minor units.
    pub limit_base: i64,
    /// The grade's multiplier.
    pub multiplier_bp: BasisPoints,
    /// The stage's cap. 10,000 is no cap.
    pub cap_bp: BasisPoints,
    pub overridden: Option<LimitOverride>,
}

/// The limit in force on a date, in minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EffectiveLimit {
    pub limit: i64,
    /// The same without the stage's cap: a charge that exceeds `limit` and not this is refused by the stage.
    pub uncapped: i64,
    /// A person has set it.
    pub is_overridden: bool,
}

impl LimitFactors {
    /// The limit in force on a date.
    #[must_use]
    pub fn limit_on(&self, date: Date) -> EffectiveLimit {
        if let Some(by_hand) = self.overridden.filter(|by_hand| date <= by_hand.expires_on) {
            let limit = by_hand.limit.clamp(0, AMOUNT_MAX);
            return EffectiveLimit { limit, uncapped: limit, is_overridden: true };
        }
        let is_capped = self.cap_bp < BasisPoints::FULL;
        let ratio = if is_capped { self.multiplier_bp.min(self.cap_bp) } else { self.multiplier_bp };
        EffectiveLimit {
            limit: ratio.of(self.limit_base),
            uncapped: self.multiplier_bp.of(self.limit_base),
            is_overridden: false,
        }
    }
}

impl EffectiveLimit {
    /// What a line with this net exposure may still use. What is prepaid adds to it.
    #[must_use]
    pub const fn available(&self, net_exposure: i64) -> i64 {
        let left = self.limit.saturating_sub(net_exposure);
        if left > 0 { left } else { 0 }
    }
}
