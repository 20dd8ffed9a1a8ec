//! Messages for the channels' tests.

use chrono::DateTime;
use uuid::Uuid;

use super::Delivery;
use crate::Level;
use crate::channel::{ChannelSecret, Webhook};
use crate::notice::{Alert, Change, Notice};

pub(crate) fn alert() -> Alert {
    Alert {
        alert_id: Uuid::from_u128(7),
        merchant_id: Some("M-1".to_owned()),
        currency: Some("USD".to_owned()),
        subject: "daily_amount".to_owned(),
        alert_type: "daily_80".to_owned(),
        alert_level: Level::Warning,
        threshold: Some(80),
        remaining_below: None,
        message: "80 % of the daily limit is used".to_owned(),
        window_id: Some(20_260_101),
        current_used: Some(8_000),
        limit: Some(10_000),
        usage_percent: Some(80.into()),
        policy_version: Some("1".to_owned()),
        event_id: Some(Uuid::from_u128(8)),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
        raised_at: DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default(),
        is_resolved: false,
        resolved_at: None,
        resolved_by: None,
        resolve_reason: None,
        resolve_notes: None,
    }
}

/// Changes in [`digest`].
pub(crate) const DIGEST_LEN: usize = 120;

/// More changes than a digest names, in long texts with many characters that must be escaped.
pub(crate) fn digest() -> Notice {
    let mut alert = alert();
    alert.message =
        "The \"day's\" amount <a> & <b> has reached 80 % of its limit: 850.00 USD of 1000.00 USD, 85 %".repeat(3);
    Notice::digest(vec![Notice::of(Change::Raised, alert); DIGEST_LEN], DateTime::from_timestamp_nanos(0))
}

pub(crate) fn notice() -> Notice {
    Notice::of(Change::Raised, alert())
}

pub(crate) fn delivery(notice: &Notice) -> Delivery<'_> {
    let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    Delivery { id: Uuid::from_u128(9), notice, now_secs: 1_700_000_000, traceparent, delivered_to: &[] }
}

pub(crate) fn webhook(url: &str) -> Webhook {
    let secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
    Webhook { id: "ops".to_owned(), url: url.to_owned(), secrets: secrets.map(ChannelSecret::new).to_vec() }
}
