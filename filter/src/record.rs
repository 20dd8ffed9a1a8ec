//! What the access log shows of one payment: an encoded `google.protobuf.Struct` in the stream's filter state, which the log's format
//! shows as an object (docs/access-log.md). Envoy's own ext_authz has the server write the same members.

use std::rc::Rc;
use std::sync::Arc;

use quota::{AmountMinor, Code, Currency, MerchantId, Mode, OrderNo};
use sluice_rules::{Rule, Salvaged};

use crate::wire::Attempt;
use crate::wire::structure::{Structure, name};

/// The name of the filter state: `filter_state['wasm.sluice']` in the expressions of an access log.
pub const STATE_NAME: &str = "sluice";
/// The type of the filter state's message.
pub const STATE_MESSAGE: &str = "google.protobuf.Struct";

/// The outcome of the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went to the gateway.
    Forwarded,
    /// The proxy answered it.
    Refused,
    /// The gateway did not make it, and its charge was voided.
    Voided,
    /// The gateway made it, and its charge was kept.
    Kept,
    /// The gateway captured, and the server is notified.
    Settled,
    /// The gateway captured an amount that cannot be read: the hold stays open until it expires.
    Unsettled,
    /// The gateway refunded, and the server is notified.
    Refunded,
    /// The gateway voided the authorisation, and the server is notified.
    OrderVoided,
    /// The gateway did not do what was requested, and nothing had been changed for it.
    Unchanged,
    /// Whether it was made is unknown; its charge was kept.
    Unknown,
    /// Its stream ended before it was decided; if it was charged, the charge was voided.
    ClientGone,
}

impl Outcome {
    /// The value in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Refused => "refused",
            Self::Voided => "voided",
            Self::Kept => "kept",
            Self::Settled => "settled",
            Self::Unsettled => "unsettled",
            Self::Refunded => "refunded",
            Self::OrderVoided => "order_voided",
            Self::Unchanged => "unchanged",
            Self::Unknown => "unknown",
            Self::ClientGone => "client_gone",
        }
    }
}

/// The data of one payment.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub code: Option<Code>,
    pub mode: Option<Mode>,
    pub rule: Option<Arc<Rule>>,
    pub attempt: Option<Rc<Attempt>>,
    /// Of a payment that could not be read.
    pub salvaged: Salvaged,
    pub decision_id: Option<String>,
    /// The right that it was admitted from, without a decision of the server.
    pub right_id: Option<Arc<str>>,
    pub replay: bool,
    pub check_ms: Option<u64>,
    /// How long it was delayed.
    pub delay_ms: Option<u32>,
    /// Why the filter itself refused, or would have.
    pub detail: Option<String>,
    pub outcome: Option<Outcome>,
    /// The server's own members for the log, encoded as the record is.
    pub decided: Vec<u8>,
}

impl Record {
    /// The encoded object. Members that are not known are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Salvaged { merchant, order_no, currency, amount } = &self.salvaged;
        let request = self.attempt.as_ref().map(|attempt| &attempt.request);
        let merchant = request.map(|request| &request.merchant).or(merchant.as_ref());
        let order = request.and_then(|request| request.order_no.as_ref()).or(order_no.as_ref());
        let currency = request.map(|request| request.currency).or(*currency);
        let amount = request.and_then(|request| request.amount).or(*amount);
        let mut object = Structure::new(self.decided.len());
        object.text(name!("decision_id"), self.decision_id.as_deref());
        object.text(name!("right_id"), self.right_id.as_deref());
        object.text(name!("outcome"), self.outcome.map(Outcome::as_str));
        object.text(name!("code"), self.code.map(Code::as_str));
        object.text(name!("mode"), self.mode.map(Mode::as_str));
        object.text(name!("rule"), self.rule.as_ref().map(|rule| rule.name.as_str()));
        object.text(name!("action"), self.rule.as_ref().map(|rule| rule.action.as_str()));
        object.text(name!("merchant"), merchant.map(MerchantId::as_str));
        object.text(name!("order"), order.map(OrderNo::as_str));
        object.number(name!("amount_minor"), amount.map(AmountMinor::get));
        object.text(name!("currency"), currency.map(Currency::code));
        object.flag(name!("replay"), self.replay);
        object.text(name!("attempt"), self.attempt.as_ref().map(|attempt| attempt.id.as_str()));
        object.number(name!("check_ms"), self.check_ms);
        object.number(name!("delay_ms"), self.delay_ms.map(u64::from));
        object.text(name!("detail"), self.detail.as_deref());
        object.finish(&self.decided)
    }
}
