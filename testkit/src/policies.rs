//! The limits that the scenarios meet.

use std::time::{SystemTime, UNIX_EPOCH};

/// Smallest payment of every merchant, in cents.
pub const SINGLE_MIN: u64 = 100;
/// Largest payment of every merchant, in cents.
pub const SINGLE_MAX: u64 = 10_000;
/// What a day of every merchant takes, in cents.
pub const DAILY_AMOUNT: u64 = 15_000;

/// The document of the shared stack: small limits for everybody, and merchants with more room or other limits.
#[must_use]
pub fn document() -> String {
    with("v1", "")
}

/// The same with more merchants, each a line as in `name: {daily_count: 3}`.
#[must_use]
pub fn with(version: &str, merchants: &str) -> String {
    let zone = zone_at_noon();
    let more: String = merchants.lines().map(|line| format!("  {}\n", line.trim())).collect();
    format!(
        "version: {version}
default:
  timezone: {zone}
  single_min: {SINGLE_MIN}
  single_max: {SINGLE_MAX}
  daily_amount: {DAILY_AMOUNT}
tiers:
  roomy: {{daily_amount: 1000000000000}}
merchants:
  roomy: {{tier: roomy}}
{more}"
    )
}

/// A zone where it is noon: no day, month or year ends while the suite runs.
fn zone_at_noon() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let hour = i64::try_from(seconds / 3_600 % 24).unwrap_or_default();
    // The names count westwards: Etc/GMT-3 is three hours ahead of UTC.
    match hour - 12 {
        0 => "UTC".to_owned(),
        west => format!("Etc/GMT{west:+}"),
    }
}
