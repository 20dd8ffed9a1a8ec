//! The inputs about behaviour, from what an account did in the days that are looked back on.

use super::{Feature, Inputs};
use crate::BasisPoints;

/// Bits of a daily amount that volatility is computed with: their squares, times [`SQUARED_BP`], still fit in 128 bits.
const AMOUNT_BITS: u32 = 43;
/// The most days that volatility is computed of: as many as [`Behaviour::LOOK_BACK_DAYS`].
const DAYS_MAX: usize = 90;
/// The square of all basis points.
const SQUARED_BP: u128 = 100_000_000;

/// What an account did. Amounts are minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Charges and holds, each once.
    pub charges: i64,
    /// Those that were refused.
    pub refused: i64,
    /// Those that were admitted, and then failed at the gateway.
    pub gateway_failed: i64,
    /// Holds that were admitted.
    pub holds: i64,
    /// Those that expired without a capture.
    pub expired_holds: i64,
    /// What was admitted in each hour of the day.
    pub hours: Vec<i64>,
    /// What was admitted on each day, days without a charge among them.
    pub days: Vec<i64>,
    /// The most channels that charges were admitted by on one day.
    pub channels: i64,
}

impl Behaviour {
    /// How many days it looks back at most.
    pub const LOOK_BACK_DAYS: i64 = 90;

    /// Sets the inputs that follow from it. One is left out where there is nothing to take it from.
    pub fn add_to(&self, inputs: &mut Inputs) {
        let admitted = self.charges.saturating_sub(self.refused);
        let busiest = self.hours.iter().max().copied().unwrap_or_default();
        let all_hours = self.hours.iter().fold(0, |sum: i64, amount| sum.saturating_add(*amount));
        let values = [
            (Feature::RefusedRatioBp, ratio_bp(self.refused, self.charges)),
            (Feature::GatewayFailedRatioBp, ratio_bp(self.gateway_failed, admitted)),
            (Feature::ExpiredHoldRatioBp, ratio_bp(self.expired_holds, self.holds)),
            (Feature::PeakHourShareBp, ratio_bp(busiest, all_hours)),
            (Feature::DailyAmountVolatilityBp, volatility_bp(&self.days)),
            (Feature::DistinctChannels, (admitted > 0).then_some(self.channels)),
        ];
        values.into_iter().filter_map(|(feature, value)| Some((feature, value?))).for_each(|(feature, value)| {
            inputs.set(feature, value);
        });
    }
}

/// A part of a whole in basis points; none of nothing.
pub(crate) fn ratio_bp(part: i64, whole: i64) -> Option<i64> {
    let ratio = (i128::from(part) * i128::from(BasisPoints::FULL.0)).checked_div(i128::from(whole))?;
    i64::try_from(ratio).ok()
}

/// The standard deviation of amounts, of their mean: √(n·Σx² − (Σx)²) / Σx. None where they are fewer than two, or all 0.
fn volatility_bp(days: &[i64]) -> Option<i64> {
    let days = days.get(..days.len().min(DAYS_MAX)).filter(|days| days.len() > 1)?;
    let bits = 64_u32.saturating_sub(days.iter().max()?.max(&0).leading_zeros());
    // The ratio is that of the leading bits of the largest amount.
    let shift = bits.saturating_sub(AMOUNT_BITS);
    let amounts = || days.iter().map(|amount| u128::from(amount.max(&0).unsigned_abs() >> shift));
    let sum: u128 = amounts().sum();
    let squares: u128 = amounts().map(|amount| amount * amount).sum();
    let variance = (days.len() as u128 * squares).saturating_sub(sum * sum);
    i64::try_from((variance * SQUARED_BP).isqrt().checked_div(sum)?).ok()
}
