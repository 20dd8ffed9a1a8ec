//! A scorecard to start from. Its points are a judgement, not estimated from data: replace it by a card that is fitted to your own
//! accounts, and run that as the challenger first. An account without any history scores 588, grade C; the best one 692, grade A.

use super::{Bands, Bin, Characteristic, Feature, Movement, Scorecard};

/// Bins by their last value, then the points beyond, then those of a missing value.
type Row = (Feature, &'static [(i64, i32)], i32, i32);

const ROWS: [Row; 17] = [
    // Behaviour.
    (Feature::RefusedRatioBp, &[(500, 6), (1_000, 3), (2_000, 0), (4_000, -6)], -12, 0),
    (Feature::GatewayFailedRatioBp, &[(200, 4), (500, 2), (1_000, 0), (2_500, -5)], -10, 0),
    (Feature::ExpiredHoldRatioBp, &[(100, 3), (500, 0), (1_500, -4)], -8, 0),
    (Feature::PeakHourShareBp, &[(2_000, 3), (3_500, 0), (6_000, -3)], -6, 0),
    (Feature::DailyAmountVolatilityBp, &[(5_000, 4), (10_000, 0), (20_000, -4)], -8, 0),
    (Feature::DistinctChannels, &[(3, 2), (6, 0)], -4, 0),
    // Payment history.
    (Feature::MonthsOpen, &[(2, -12), (5, -6), (11, 0), (23, 5)], 10, -12),
    (Feature::CyclesPaidInFullInRow, &[(0, -15), (2, -4), (5, 2), (11, 8)], 14, 0),
    (Feature::MeanDaysToPay, &[(7, 6), (14, 3), (30, 0), (45, -8)], -16, 0),
    (Feature::UtilisationBp, &[(3_000, 8), (6_000, 4), (8_000, 0), (9_500, -7)], -14, 0),
    (Feature::RepaymentsInThreeCycles, &[(0, -4), (2, 0), (6, 3)], 5, 0),
    (Feature::RepaidRatioBp, &[(4_999, -15), (7_999, -8), (9_899, -2)], 6, 0),
    // Overdue.
    (Feature::WorstDpd, &[(0, 10), (5, 2), (30, -10), (60, -30), (90, -50)], -80, 0),
    (Feature::TimesOver30Dpd, &[(0, 4), (1, -12)], -25, 0),
    (Feature::DunningLevel, &[(0, 3), (1, 0), (3, -6)], -15, 0),
    (Feature::Downgrades, &[(0, 2), (1, -6)], -12, 0),
    (Feature::Disputes, &[(0, 2), (2, -4)], -12, 0),
];

fn characteristic((feature, rows, beyond, missing_points): Row) -> Characteristic {
    let mut from = None;
    let mut bins = Vec::with_capacity(rows.len().saturating_add(1));
    for (to, points) in rows {
        bins.push(Bin { from, to: Some(*to), points: *points });
        from = to.checked_add(1);
    }
    bins.push(Bin { from, to: None, points: beyond });
    Characteristic { feature, bins, missing_points }
}

impl Default for Scorecard {
    fn default() -> Self {
        Self {
            version: "standard-1".to_owned(),
            base_points: 600,
            characteristics: ROWS.map(characteristic).into(),
            bands: Bands::default(),
            movement: Movement::default(),
        }
    }
}
