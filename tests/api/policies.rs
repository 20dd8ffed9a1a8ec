//! The limits that the tests meet.

use std::time::{SystemTime, UNIX_EPOCH};

/// Everybody's limits, and some merchants with others.
const DOCUMENT: &str = "
version: api
default:
  timezone: ZONE
  single_min: 100
  single_max: 1000000
  daily_amount: 5000000
  monthly_amount: 100000000
merchants:
  figures: {daily_amount: 500000}
  race: {daily_amount: 1000000}
  race-2: {daily_amount: 1000000}
  second-thoughts: {over_capture_percent: 10}
  limited-daily: {daily_amount: 1500}
  limited-monthly: {daily_amount: unlimited, monthly_amount: 1500}
  limited-yearly: {daily_amount: unlimited, monthly_amount: unlimited, yearly_amount: 1500}
  limited-daily-count: {daily_count: 1}
  limited-monthly-count: {monthly_count: 1}
  limited-yearly-count: {yearly_count: 1}
  limited-pending: {pending_amount: 1500}
  limited-refunds-daily: {refund_daily_amount: 500}
  limited-refunds-monthly: {refund_monthly_amount: 500}
  choosy:
    allowed_channels: [card, wallet]
    allowed_currencies: [USD, EUR]
    channels:
      wallet: {single_max: 500}
  by-channel:
    channels:
      wallet: {over_capture_percent: 10, refund_daily_amount: 500}
  paced:
    daily_amount: 1000
    breach: {throttle: {per_minute: 1, burst: 1, delay_ms_max: 0, ceiling_percent: 300}}
  weighed: &weighed
    daily_amount: 1000
    channels:
      card: {weight_bp: 12500}
      transfer: {weight_bp: 3333}
      voucher: {units_per_payment: 300}
  weighed-returns: *weighed
  trusted: &trusted {trust: {above_percent: 20, share_percent: 10, ttl_ms: 60000}}
  trusted-2: *trusted
  trusted-3: *trusted
  briefly-trusted: {trust: {above_percent: 20, share_percent: 10, ttl_ms: 100}}
  short-holds: {hold: {lifetime_secs: 60, on_expiry: void}}
";

pub(crate) fn document() -> String {
    DOCUMENT.replace("ZONE", &zone_at_noon())
}

/// The document that is shipped, at noon.
pub(crate) fn shipped() -> std::io::Result<String> {
    let text = std::fs::read_to_string(testkit::dirs::workspace().join("deploy/policies.yaml"))?;
    Ok(text.replace("timezone: UTC", &format!("timezone: {}", zone_at_noon())))
}

/// A zone where it is noon: no day, month or year ends while the tests run.
fn zone_at_noon() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let hour = i64::try_from(seconds / 3_600 % 24).unwrap_or_default();
    // The names count westwards: Etc/GMT-3 is three hours ahead of UTC.
    match hour - 12 {
        0 => "UTC".to_owned(),
        west => format!("Etc/GMT{west:+}"),
    }
}
