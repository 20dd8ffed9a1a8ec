//! What the access log shows of one payment, as compact JSON in the stream's filter state.

use std::rc::Rc;
use std::sync::Arc;

use quota::rule::Rule;
use quota::{Code, Mode};
use serde::Serialize;

use crate::wire::Attempt;

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

/// What is known of one payment.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub code: Option<Code>,
    pub mode: Option<Mode>,
    pub rule: Option<Arc<Rule>>,
    pub attempt: Option<Rc<Attempt>>,
    pub decision_id: Option<String>,
    pub replay: bool,
    pub check_ms: Option<u64>,
    /// How long it was held back.
    pub delay_ms: Option<u32>,
    /// Why the filter itself refused, or would have.
    pub detail: Option<String>,
    pub outcome: Option<Outcome>,
}

/// One line's worth. Members that are not known are left out.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    check_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

/// A line of an admitted payment is some 250 bytes: room for most, so that writing moves nothing.
const LINE_BYTES: usize = 384;

impl Record {
    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let request = self.attempt.as_ref().map(|attempt| &attempt.request);
        let line = Line {
            code: self.code,
            mode: self.mode,
            rule: self.rule.as_ref().map(|rule| rule.name.as_str()),
            merchant: request.map(|request| request.merchant.as_str()),
            order: request.and_then(|request| Some(request.order_no.as_ref()?.as_str())),
            decision_id: self.decision_id.as_deref(),
            replay: self.replay,
            check_ms: self.check_ms,
            delay_ms: self.delay_ms,
            detail: self.detail.as_deref(),
            outcome: self.outcome,
        };
        let mut text = Vec::with_capacity(LINE_BYTES);
        match serde_json::to_writer(&mut text, &line) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}
