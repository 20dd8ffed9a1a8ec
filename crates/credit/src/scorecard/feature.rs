//! What a scorecard looks at: named integers, ratios in basis points.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One input of a scorecard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Charges that were refused, of all.
    RefusedRatioBp,
    /// Charges that the gateway failed, of those admitted.
    GatewayFailedRatioBp,
    /// Holds that expired, of all.
    ExpiredHoldRatioBp,
    /// The part of the amount that falls into the busiest hour of the day.
    PeakHourShareBp,
    /// Standard deviation of the daily amount, of its mean.
    DailyAmountVolatilityBp,
    /// The most channels in use on one day.
    DistinctChannels,
    /// Whole months since the line was opened.
    MonthsOpen,
    /// The last cycles in a row that were paid in full by their due date.
    CyclesPaidInFullInRow,
    /// Mean days from the close of a cycle to its payment in full.
    MeanDaysToPay,
    /// Mean amount of the last three cycles, of the limit.
    UtilisationBp,
    /// Repayments that paid the last three cycles.
    RepaymentsInThreeCycles,
    /// What was paid of the last three cycles, of their amount.
    RepaidRatioBp,
    /// The most days past due in the last 12 months.
    WorstDpd,
    /// How often more than 30 days past due were reached in the last 12 months.
    #[serde(rename = "times_over_30_dpd")]
    TimesOver30Dpd,
    /// The most steps of dunning after the due date that were reached in the last 12 months.
    DunningLevel,
    /// Times that the grade went down in the last 12 months.
    Downgrades,
    /// Disputes in the last 12 months.
    Disputes,
}

impl Feature {
    /// Every feature: behaviour, payment history, overdue.
    pub const ALL: [Self; 17] = [
        Self::RefusedRatioBp,
        Self::GatewayFailedRatioBp,
        Self::ExpiredHoldRatioBp,
        Self::PeakHourShareBp,
        Self::DailyAmountVolatilityBp,
        Self::DistinctChannels,
        Self::MonthsOpen,
        Self::CyclesPaidInFullInRow,
        Self::MeanDaysToPay,
        Self::UtilisationBp,
        Self::RepaymentsInThreeCycles,
        Self::RepaidRatioBp,
        Self::WorstDpd,
        Self::TimesOver30Dpd,
        Self::DunningLevel,
        Self::Downgrades,
        Self::Disputes,
    ];

    /// The name in documents and reason codes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefusedRatioBp => "refused_ratio_bp",
            Self::GatewayFailedRatioBp => "gateway_failed_ratio_bp",
            Self::ExpiredHoldRatioBp => "expired_hold_ratio_bp",
            Self::PeakHourShareBp => "peak_hour_share_bp",
            Self::DailyAmountVolatilityBp => "daily_amount_volatility_bp",
            Self::DistinctChannels => "distinct_channels",
            Self::MonthsOpen => "months_open",
            Self::CyclesPaidInFullInRow => "cycles_paid_in_full_in_row",
            Self::MeanDaysToPay => "mean_days_to_pay",
            Self::UtilisationBp => "utilisation_bp",
            Self::RepaymentsInThreeCycles => "repayments_in_three_cycles",
            Self::RepaidRatioBp => "repaid_ratio_bp",
            Self::WorstDpd => "worst_dpd",
            Self::TimesOver30Dpd => "times_over_30_dpd",
            Self::DunningLevel => "dunning_level",
            Self::Downgrades => "downgrades",
            Self::Disputes => "disputes",
        }
    }
}

/// The values that are known of one account. One that is missing gets the points for that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Inputs(pub BTreeMap<Feature, i64>);

impl Inputs {
    /// One value; `None` where it is not known.
    #[must_use]
    pub fn get(&self, feature: Feature) -> Option<i64> {
        self.0.get(&feature).copied()
    }

    /// Sets one value.
    pub fn set(&mut self, feature: Feature, value: i64) {
        self.0.insert(feature, value);
    }
}
