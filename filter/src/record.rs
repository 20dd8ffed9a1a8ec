//! What the access log shows of one payment, as compact JSON in the stream's filter state.

use quota::{Code, Mode};
use serde::Serialize;

/// The name of the filter state: `%FILTER_STATE(wasm.sluice:PLAIN)%` in an access log.
pub const STATE_NAME: &str = "sluice";

/// What became of the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It went to the gateway.
    Forwarded,
    /// The proxy answered it.
    Refused,
    /// The gateway did not make it, and its charge was returned.
    Voided,
    /// The gateway made it, and its charge was kept.
    Kept,
    /// The gateway captured, and the server is told.
    Settled,
    /// The gateway captured an amount that cannot be read: the hold stays open until it expires.
    Unsettled,
    /// The gateway refunded, and the server is told.
    Refunded,
    /// The gateway voided the authorisation, and the server is told.
    OrderVoided,
    /// The gateway did not do what was asked, and nothing had been changed for it.
    Unchanged,
    /// Nobody can tell; its charge was kept.
    Unknown,
    /// Its stream ended before it was decided; if it was charged, that was returned.
    ClientGone,
}

/// One line's worth. Members that are not known are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merchant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_ms: Option<u64>,
    /// How long it was held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u32>,
    /// Why the filter itself refused, or would have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl Record {
    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
