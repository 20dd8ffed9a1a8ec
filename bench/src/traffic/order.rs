//! One order: what it asks for, what is decided, what becomes of it, and the texts that follow from its number.

use std::fmt;
use std::time::Duration;

use proto::{LimitUsage, Problem, extension};
use quota::Code;

use super::orders::{self, MERCHANTS};
use testkit::client::Protocol;

/// Which rule an order goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Enforced,
    /// It goes on where the server gives no answer.
    Lenient,
    Shadow,
    /// Held, and captured when the gateway has made it.
    Sale,
}

/// What the decision server says of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Admitted,
    /// As a repetition.
    Replayed,
    /// Goes on after so many milliseconds.
    Delayed(u32),
    Refused(Code),
    Unusable(Unusable),
    /// As long as its merchant's day has room.
    Contested,
}

/// How one question goes without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Status(u32),
    /// The server says that its store gave no answer.
    Store,
    Empty,
    NoCode,
    Contradicts,
}

/// What the gateway does with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtGateway {
    Answers(u16),
    AnswersLate(u16, Duration),
    /// The head of its answer comes at once, and the rest later.
    AnswersSlowly(u16, Duration),
    Resets,
    ResetsAfterHead,
}

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    Never,
    /// Half of the head is all that it sends.
    InTheHead,
    /// Half of the body is all that it sends.
    InTheBody,
    /// So long after the whole request, answered or not.
    After(Duration),
    /// With the head of the answer.
    AtTheHead,
    /// It says that it will send no more, and reads on. HTTP/1.1 only.
    ByHalf,
}

/// In what pieces a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    One,
    Two,
    /// With a pause between them.
    Slow,
    /// And trailers.
    Trailers,
}

/// One order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub number: u64,
    pub route: Route,
    /// Minor units.
    pub amount: u64,
    pub decision: Decision,
    /// The server asks to be asked again, by itself, where it comes in a batch.
    pub alone: bool,
    pub at_gateway: AtGateway,
    pub leaves: Leaves,
    pub pieces: Pieces,
    /// Bytes of the body beyond what it must have.
    pub padding: usize,
    /// It is decided by policies.
    pub real: bool,
    pub seed: u32,
}

/// The name of a merchant.
pub(super) fn merchant(number: u64) -> String {
    format!("merchant{number}")
}

/// Every order's name begins so.
pub(super) fn prefix(seed: u32) -> String {
    format!("o{seed:08x}-")
}

impl Route {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Enforced => "/v1/payments",
            Self::Lenient => "/v1/lenient/payments",
            Self::Shadow => "/v1/shadow/payments",
            Self::Sale => "/v1/sales",
        }
    }

    /// What the server is asked for.
    pub(super) const fn action(self) -> &'static str {
        match self {
            Self::Enforced | Self::Lenient | Self::Shadow => extension::ACTION_CONSUME,
            Self::Sale => extension::ACTION_HOLD,
        }
    }

    /// In which mode.
    pub(super) const fn mode(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Enforced | Self::Lenient | Self::Sale => "enforce",
        }
    }

    /// Whether a payment goes on that was given no answer.
    pub(super) const fn goes_on(self) -> bool {
        matches!(self, Self::Lenient | Self::Shadow)
    }
}

impl AtGateway {
    /// The status of a whole answer.
    pub(super) const fn status(self) -> Option<u16> {
        match self {
            Self::Answers(status) | Self::AnswersLate(status, _) | Self::AnswersSlowly(status, _) => Some(status),
            Self::Resets | Self::ResetsAfterHead => None,
        }
    }
}

impl Order {
    pub(super) fn name(&self) -> String {
        format!("{}{:x}", prefix(self.seed), self.number)
    }

    /// Merchants are few, so that their names alone distinguish no answers.
    pub(super) fn merchant(&self) -> String {
        merchant(self.number % MERCHANTS)
    }

    /// The decision's id.
    pub(super) fn decision_id(&self) -> String {
        let (high, low) = orders::id(self.seed, self.number);
        format!(
            "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }

    /// The JSON text of the request.
    pub(super) fn body(&self) -> String {
        format!(
            r#"{{"merchant_id":"{}","order_no":"{}","amount":{},"currency":"USD","description":"{:.<padding$}"}}"#,
            self.merchant(),
            self.name(),
            self.amount,
            "",
            padding = self.padding
        )
    }

    /// The problem body of a refusal.
    pub(super) fn problem(&self, code: Code) -> Problem {
        let max = self.amount * 3;
        Problem {
            decision_id: Some(self.decision_id()),
            limit: Some(LimitUsage {
                name: "daily_amount".to_owned(),
                max,
                used: max - self.number % 100,
                remaining: self.number % 100,
                resets_at: None,
            }),
            ..Problem::new(code, Some(self.name()))
        }
    }

    /// What the gateway answers, by the headers that it received: code, decision id, and whether it repeats an answer.
    pub(super) fn gateway_body(&self, received: &DecisionHeaders) -> String {
        let DecisionHeaders { code, decision_id, replay } = received;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        serde_json::json!({"order_no": self.name(), "amount": self.amount, "code": text(code), "decision_id": text(decision_id),
            "replay": replay})
        .to_string()
    }

    /// Whether the request can be sent as it is over a protocol: trailers need HTTP/2, and half an end HTTP/1.1.
    pub(super) fn leaves_over(&self, protocol: Protocol) -> Leaves {
        match (self.leaves, protocol) {
            (Leaves::ByHalf, Protocol::Http2) => Leaves::After(Duration::from_millis(1)),
            (leaves, _) => leaves,
        }
    }
}

/// What the gateway reads of the decision in the request's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DecisionHeaders {
    pub code: Option<String>,
    pub decision_id: Option<String>,
    pub replay: bool,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, decision, alone, at_gateway, leaves, pieces, .. } = self;
        write!(
            f,
            "{} ({route:?}, {decision:?}, alone {alone}, {at_gateway:?}, leaves {leaves:?}, {pieces:?})",
            self.name()
        )
    }
}
