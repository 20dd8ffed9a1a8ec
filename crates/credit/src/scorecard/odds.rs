//! From points to odds. 600 points are odds of 50 : 1 that an account pays, and 20 points double them. So the factor is
//! 20 / ln 2 = 28.8539, the offset 600 − 28.8539 × ln 50 = 487.12, and a score is offset + factor × ln(odds) (N. Siddiqi, Credit Risk
//! Scorecards, 2006). Here the odds are a table of the twenty steps of one doubling, and shifts.

/// The score whose odds are [`ODDS_AT_ANCHOR`] : 1.
pub const SCORE_ANCHOR: i32 = 600;
/// The odds at [`SCORE_ANCHOR`].
pub const ODDS_AT_ANCHOR: u64 = 50;
/// The points that double the odds.
pub const POINTS_TO_DOUBLE: i32 = 20;

/// 2^(n / 20), times 10^9, for n from 0 to 19.
const STEPS: [u64; 20] = [
    1_000_000_000,
    1_035_264_924,
    1_071_773_463,
    1_109_569_472,
    1_148_698_355,
    1_189_207_115,
    1_231_144_413,
    1_274_560_627,
    1_319_507_911,
    1_366_040_257,
    1_414_213_562,
    1_464_085_696,
    1_515_716_567,
    1_569_168_196,
    1_624_504_793,
    1_681_792_831,
    1_741_101_127,
    1_802_500_925,
    1_866_065_983,
    1_931_872_658,
];
/// Doublings beyond which odds stay as they are.
const DOUBLINGS_MAX: i32 = 40;

/// The odds of a score, in thousandths: 50,000 for 600 points.
#[must_use]
pub fn odds_milli(score: i32) -> u64 {
    let points = score.saturating_sub(SCORE_ANCHOR);
    let (doublings, step) = (points.div_euclid(POINTS_TO_DOUBLE), points.rem_euclid(POINTS_TO_DOUBLE));
    let step = usize::try_from(step).ok().and_then(|step| STEPS.get(step)).copied().unwrap_or(1_000_000_000);
    let scaled = u128::from(ODDS_AT_ANCHOR) * 1_000 * u128::from(step);
    let shift = doublings.clamp(-DOUBLINGS_MAX, DOUBLINGS_MAX);
    let odds = if shift < 0 { scaled >> shift.unsigned_abs() } else { scaled << shift.unsigned_abs() };
    u64::try_from(odds / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The probability of default that the odds of a score stand for, in basis points: 196 for 600 points.
#[must_use]
pub fn default_probability_bp(score: i32) -> u32 {
    let one_in = u128::from(odds_milli(score)) + 1_000;
    u32::try_from((10_000_000 + one_in / 2) / one_in).unwrap_or(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_double_with_twenty_points() {
        let table =
            [(600, 50_000, 196), (620, 100_000, 99), (580, 25_000, 385), (660, 400_000, 25), (540, 6_250, 1_379)];
        for (score, odds, probability) in table {
            assert_eq!((odds_milli(score), default_probability_bp(score)), (odds, probability), "{score}");
        }
        for score in 400..1_000 {
            let exact = 50_000.0 * ((f64::from(score) - 600.0) / 20.0).exp2();
            assert!((odds_milli(score) as f64 - exact).abs() <= 1.0 + exact / 1e8, "{score}");
            // The constants of the formula: factor 28.8539, offset 487.12.
            let back = 487.12 + 28.8539 * (exact / 1_000.0).ln();
            assert!((back - f64::from(score)).abs() < 0.05, "{score} {back}");
            assert!(odds_milli(score + 1) > odds_milli(score), "{score}");
            assert!(default_probability_bp(score + 1) <= default_probability_bp(score), "{score}");
        }
        assert_eq!(default_probability_bp(i32::MIN), 10_000);
        assert_eq!(default_probability_bp(i32::MAX), 0);
    }
}
