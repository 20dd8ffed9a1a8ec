//! Rules: which requests are payments, and where in a request the charge is written.
//!
//! A rules document is parsed into valid [`Rule`]s once; [`RuleSet::find`] names the rule of a request, and
//! [`Rule::read_head`] followed by [`Draft::finish`] reads the [`Request`]. The proxy filter and the server (for Envoy's
//! native ext_authz) share this code; how a request's parts are obtained is left to them ([`Head`]).

mod action;
mod config;
mod elsewhere;
mod json;
mod name;
mod normal;
mod overrides;
mod params;
mod path;
mod read;
mod salvage;
mod source;

#[cfg(test)]
mod tests;

pub use action::{Action, Need, SettleOn};
pub use config::{
    ABSENT_MAX, BATCH_MAX, BODY_BYTES_MAX, Document, METHODS_MAX, POINTER_TOKENS_MAX, RULES_MAX, RuleError,
    SEGMENTS_MAX, SOURCES_MAX, STATUSES_MAX, TEXT_LEN_MAX, TIMEOUT_MS_MAX,
};
pub use normal::Case;
pub use params::PARAMETERS_MAX;
pub use path::Captures;
pub use read::{AMOUNT_LEN_MAX, Draft, Head, Refusal, Request, Unreadable};
pub use salvage::Salvaged;
pub use source::Source;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use config::Names;
use normal::Normal;
use overrides::Overrides;
use path::{Readings, Template};
use quota::{AmountMinor, Code, Currency, Mode, Unit};

/// What happens to a payment when the server gives no usable answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The payment is answered 503.
    #[default]
    Deny,
    /// The payment goes through, uncounted where the server did not consume it.
    Allow,
}

/// What happens to a request that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// It goes through: the listener serves more than payments.
    #[default]
    Pass,
    /// It is refused: the listener serves payments only.
    Refuse,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Merchant,
    Amount,
    Currency,
    OrderNo,
    PaymentNo,
    Channel,
    OperationNo,
    Final,
}

impl Field {
    /// The name in configuration and in refusals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merchant => "merchant",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::OrderNo => "order_no",
            Self::PaymentNo => "payment_no",
            Self::Channel => "channel",
            Self::OperationNo => "operation_no",
            Self::Final => "final",
        }
    }
}

/// The statuses of the gateway's answer that return the charge. Only 4xx and 5xx can be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoidOn {
    client_errors: bool,
    server_errors: bool,
    statuses: Vec<u16>,
    except: Vec<u16>,
}

impl VoidOn {
    /// The statuses by which a gateway refuses a payment: what returns a charge unless a rule says otherwise. Others may come
    /// after the payment was made, and a client can provoke some of them (406 by its `accept`, 408 by its pace).
    pub const REFUSALS: [u16; 11] = [400, 401, 402, 403, 404, 405, 410, 413, 415, 422, 429];

    /// Whether an answer of this status says that the payment was not made.
    #[must_use]
    pub fn covers(&self, status: u16) -> bool {
        let class = match status {
            400..=499 => self.client_errors,
            500..=599 => self.server_errors,
            _ => false,
        };
        (class || self.statuses.contains(&status)) && !self.except.contains(&status)
    }
}

/// One kind of payment request and how it is enforced. Valid by construction.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub action: Action,
    /// When a hold is captured; of no meaning for other actions.
    pub settle: SettleOn,
    /// The header of the gateway's answer with the amount that was captured, by its lower-case name.
    pub settle_amount_header: Option<String>,
    /// The header of the gateway's answer with the outcome, by its lower-case name: `made`, `not_made` or `unknown`.
    pub outcome_header: Option<String>,
    pub unit: Unit,
    pub allow_zero: bool,
    /// What holds where the route says nothing else.
    pub mode: Mode,
    pub on_error: OnError,
    /// Longest body that is read.
    pub body_bytes_max: usize,
    /// How long the proxy waits for the server's answer.
    pub timeout_ms: u32,
    pub void_on: VoidOn,
    /// How many repetitions of an admitted order are let through, by requests of their own; `None` for any number.
    pub replays_max: Option<u8>,
    methods: Vec<String>,
    path: Template,
    fields: Vec<(Field, Vec<Source>)>,
    names: Names,
    normal: Normal,
}

impl Rule {
    /// Whether any source is in the body. Of a request whose rule has none, the body may be needed all the same, so that it does not
    /// say something else: [`Draft::needs_body`].
    fn reads_body(&self) -> bool {
        self.sources().any(Source::is_body)
    }

    /// Whether the rule acts on the gateway's answer in a way that only the proxy filter can: what was asked would stay
    /// without its second half.
    #[must_use]
    pub const fn needs_response(&self) -> bool {
        match self.action {
            Action::Consume | Action::Check => false,
            Action::Hold => matches!(self.settle, SettleOn::Success),
            Action::Settle | Action::Refund | Action::Void => true,
        }
    }

    /// Reads the amount that the gateway says it has captured, in the rule's unit. Nothing captured is an amount, too.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    pub fn captured(&self, text: &[u8], currency: Currency) -> Result<AmountMinor, String> {
        read::amount(text, self.unit, currency, true)
    }

    /// The methods of the rule's requests.
    #[must_use]
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// A path that the rule matches.
    #[must_use]
    pub fn example(&self) -> String {
        self.path.example()
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.fields.iter().flat_map(|(_, sources)| sources)
    }

    /// Methods are compared without case: some gateways do, and a payment must not slip past. A HEAD runs what answers a GET.
    fn has_method(&self, method: &str) -> bool {
        let has = |method: &str| self.methods.iter().any(|own| own.eq_ignore_ascii_case(method));
        has(method) || method.eq_ignore_ascii_case("HEAD") && has("GET")
    }

    /// What a request's own method, and those that it names besides, say of this rule.
    fn is_meant_by(&self, method: &str, overrides: &Overrides) -> Meant {
        let own = self.has_method(method);
        if overrides.methods().any(|other| self.has_method(other) != own) {
            Meant::Unclear
        } else if own {
            Meant::Yes
        } else {
            Meant::No
        }
    }
}

/// Whether a request's method is one of a rule's.
enum Meant {
    No,
    Yes,
    /// For some gateways, and not for others.
    Unclear,
}

/// The rule of a request.
#[derive(Debug)]
pub enum Found<'a> {
    /// No rule is meant.
    None,
    /// This rule, with what its template captured.
    Rule(&'a Arc<Rule>, Captures),
    /// A lenient gateway would read this rule's path, a strict one another: the request must be refused.
    Ambiguous(&'a Arc<Rule>, Refusal),
}

fn ambiguous<'a>(rule: &'a Arc<Rule>, detail: &str) -> Found<'a> {
    Found::Ambiguous(rule, Refusal::new(Code::BadRequest, detail))
}

/// Every rule of a document, in its order. At least one, and at least one that is not off.
#[derive(Clone, Debug)]
pub struct RuleSet(Vec<Arc<Rule>>);

impl RuleSet {
    /// Names the first rule that a request matches. The query plays no part, unless a front controller takes the path from it.
    ///
    /// A path is read in several ways. The plain reading drops empty segments, decodes percent escapes once inside each
    /// segment and resolves `.` and `..`. The lenient one first decodes until nothing changes, takes `\` for `/`, and drops
    /// `;` parameters, blanks and trailing dots, as some gateways do. Literals are compared without ASCII case, and a trailing
    /// slash means nothing. Where the readings disagree about a rule, the request is ambiguous; so it is where a router takes
    /// the path for the rule's by a format, an index or a front controller, and no rule has that very path.
    #[must_use]
    pub fn find(&self, head: &impl Head) -> Found<'_> {
        let readings = Readings::of(head.path());
        let (mut overrides, mut found, mut spelled) = (None, None, None);
        for rule in &self.0 {
            let matched = rule.path.matches(&readings);
            if matched == path::Match::No {
                continue;
            }
            match rule.is_meant_by(&head.method(), overrides.get_or_insert_with(|| Overrides::of(head))) {
                Meant::No => continue,
                Meant::Unclear => return ambiguous(rule, "the request names another method besides its own"),
                Meant::Yes => {}
            }
            match matched {
                path::Match::Ambiguous => return ambiguous(rule, "the path can be read in two ways"),
                path::Match::Yes(captures) if head.is_replaced(head.path()) => {
                    drop(captures);
                    return ambiguous(rule, "the path may hold bytes that Envoy has replaced: set encode_raw_headers");
                }
                path::Match::Yes(captures) => found = found.or(Some((rule, captures))),
                path::Match::Spelling => spelled = spelled.or(Some(rule)),
                path::Match::No => {}
            }
        }
        match (found, spelled) {
            (Some((rule, captures)), _) => Found::Rule(rule, captures),
            (None, Some(rule)) => {
                ambiguous(rule, "some gateways take the path for another one: write it as the rule does")
            }
            (None, None) => Found::None,
        }
    }

    /// The rules in their order.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.0
    }
}
