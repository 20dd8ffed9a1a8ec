//! Rules: which requests are payments, and where in a request the fields of the charge are.
//!
//! A rules document is parsed into valid [`Rule`]s once; [`RuleSet::find`] names the rule of a request, and
//! [`Rule::read_head`] followed by [`Draft::finish`] reads the [`Request`]. The proxy filter and the server (for Envoy's
//! native ext_authz) share this code; they supply the request's parts ([`Head`]).

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
    SEGMENTS_MAX, SERVERS_MAX, SOURCES_MAX, STATUSES_MAX, TEXT_LEN_MAX, TIMEOUT_MS_MAX,
};
pub use normal::Case;
pub use params::PARAMETERS_MAX;
pub use path::Captures;
pub use read::{AMOUNT_LEN_MAX, Draft, Head, Refusal, Request, Unreadable, length_bit, query};
pub use salvage::Salvaged;
pub use source::Source;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use config::Names;
use normal::Normal;
use overrides::Overrides;
use path::{Readings, Template};
use quota::{AmountMinor, Code, Currency, Mode, Unit};

/// How a payment is handled when the server returns no usable answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The payment is answered 503.
    #[default]
    Deny,
    /// The payment goes through, uncounted where the server did not consume it.
    Allow,
}

/// How a request that no rule matches is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// It goes through: the listener serves more than payments.
    #[default]
    Pass,
    /// It is refused: the listener serves payments only.
    Refuse,
}

/// By [`Field`]: which of a rule's fields it is, and how many sources come before its own.
type Places = [Option<(usize, usize)>; 8];

/// Where each field is in a rule.
fn places(fields: &[(Field, Vec<Source>)]) -> Places {
    let (mut places, mut start) = (Places::default(), 0);
    for (at, (field, sources)) in fields.iter().enumerate() {
        places[*field as usize] = Some((at, start));
        start += sources.len();
    }
    places
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
    /// The statuses by which a gateway refuses a payment: the default for returning a charge. Others may be sent after the
    /// payment was made, and a client can provoke some of them (406 by its `accept`, 408 by its pace).
    pub const REFUSALS: [u16; 11] = [400, 401, 402, 403, 404, 405, 410, 413, 415, 422, 429];

    /// Whether an answer with this status means that the payment was not made.
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

/// That payments of a rule may be admitted from rights, and reported to the server afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleTrust {
    /// How long reports wait for each other, in milliseconds.
    pub report_ms: u32,
}

impl RuleTrust {
    /// The usual wait.
    pub const REPORT_MS_DEFAULT: u32 = 10;
    /// The longest one: what a proxy that ends has not reported stays counted and unnamed.
    pub const REPORT_MS_MAX: u32 = 1_000;
}

/// One kind of payment request and how it is enforced. Valid by construction.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub action: Action,
    /// When a hold is captured; unused for other actions.
    pub settle: SettleOn,
    /// The header of the gateway's answer with the amount that was captured, by its lower-case name.
    pub settle_amount_header: Option<String>,
    /// The header of the gateway's answer with the outcome, by its lower-case name: `made`, `not_made` or `unknown`.
    pub outcome_header: Option<String>,
    pub unit: Unit,
    pub allow_zero: bool,
    /// The mode, unless the route sets another one.
    pub mode: Mode,
    pub on_error: OnError,
    /// Longest body that is read.
    pub body_bytes_max: usize,
    /// How long the proxy waits for the server's answer.
    pub timeout_ms: u32,
    pub void_on: VoidOn,
    /// How many repetitions of an admitted order are allowed, as separate requests; `None` for any number.
    pub replays_max: Option<u8>,
    /// Whether its payments may be admitted from rights; `None` where each is decided by the server.
    pub trust: Option<RuleTrust>,
    methods: Vec<String>,
    path: Template,
    fields: Vec<(Field, Vec<Source>)>,
    places: Places,
    names: Names,
    normal: Normal,
}

impl Rule {
    /// Whether any source is in the body. Even without one the body may be needed, to check that it does not contradict the
    /// request: [`Draft::needs_body`].
    fn reads_body(&self) -> bool {
        self.names.json.is_read() || self.names.form.is_read()
    }

    /// Whether the rule acts on the gateway's answer in a way that only the proxy filter can: without the filter the second step
    /// of the operation would be missing.
    #[must_use]
    pub const fn needs_response(&self) -> bool {
        match self.action {
            Action::Consume | Action::Check => false,
            Action::Hold => matches!(self.settle, SettleOn::Success),
            Action::Settle | Action::Refund | Action::Void => true,
        }
    }

    /// Reads the captured amount that the gateway reports, in the rule's unit. Zero is a valid amount.
    ///
    /// # Errors
    /// The problem with the text, without repeating it.
    pub fn captured(&self, text: &[u8], currency: Currency) -> Result<AmountMinor, String> {
        if text.len() > AMOUNT_LEN_MAX {
            return Err(format!("the amount is written with more than {AMOUNT_LEN_MAX} bytes"));
        }
        let text = std::str::from_utf8(text).map_err(|_| "the amount is not UTF-8".to_owned())?;
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

    /// The sources of a field, and the position of the first among all of the rule.
    fn field(&self, field: Field) -> Option<(usize, &[Source])> {
        let (at, start) = (*self.places.get(field as usize)?)?;
        self.fields.get(at).map(|(_, sources)| (start, sources.as_slice()))
    }

    /// Every place that is read.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.fields.iter().flat_map(|(_, sources)| sources)
    }

    /// Methods are compared without case: some gateways do, and no payment may bypass its rule. A HEAD runs the handler of a GET.
    fn has_method(&self, method: &str) -> bool {
        let has = |method: &str| self.methods.iter().any(|own| own.eq_ignore_ascii_case(method));
        has(method) || method.eq_ignore_ascii_case("HEAD") && has("GET")
    }

    /// Whether a request's own method, and the override methods that it names, are of this rule.
    fn match_method(&self, method: &str, overrides: &Overrides) -> MethodMatch {
        let own = self.has_method(method);
        if overrides.methods().any(|other| self.has_method(other) != own) {
            MethodMatch::Ambiguous
        } else if own {
            MethodMatch::Yes
        } else {
            MethodMatch::No
        }
    }
}

/// Whether a request's method is one of a rule's.
enum MethodMatch {
    No,
    Yes,
    /// For some gateways, but not for others.
    Ambiguous,
}

/// The rule of a request.
#[derive(Debug)]
pub enum Found<'a> {
    /// No rule matches.
    None,
    /// This rule, with the captures of its template.
    Rule(&'a Arc<Rule>, Captures),
    /// A lenient gateway would read this rule's path, a strict one another path: the request must be refused.
    Ambiguous(&'a Arc<Rule>, Refusal),
}

fn ambiguous<'a>(rule: &'a Arc<Rule>, detail: &str) -> Found<'a> {
    Found::Ambiguous(rule, Refusal::new(Code::BadRequest, detail))
}

/// Every rule of a document, in its order. At least one, and at least one that is not off.
#[derive(Clone, Debug)]
pub struct RuleSet(Vec<Arc<Rule>>);

impl RuleSet {
    /// Returns the first rule that a request matches. The query is ignored, unless a front controller takes the path from it.
    ///
    /// A path is read in several ways. The plain reading drops empty segments, decodes percent escapes once inside each
    /// segment and resolves `.` and `..`. The lenient one first decodes until nothing changes, reads `\` as `/`, and drops
    /// `;` parameters, blanks and trailing dots, as some gateways do. Literals are compared without ASCII case, and a trailing
    /// slash is ignored. Where the readings disagree about a rule, the request is ambiguous; so it is where a router maps
    /// the path to the rule's by a format, an index or a front controller, and no rule has exactly that path.
    #[must_use]
    pub fn find(&self, head: &impl Head) -> Found<'_> {
        let readings = Readings::of(head.path());
        let (mut overrides, mut found, mut spelled) = (None, None, None);
        for rule in &self.0 {
            let matched = rule.path.matches(&readings);
            if matched == path::Match::No {
                continue;
            }
            match rule.match_method(&head.method(), overrides.get_or_insert_with(|| Overrides::of(head))) {
                MethodMatch::No => continue,
                MethodMatch::Ambiguous => return ambiguous(rule, "the request names another method besides its own"),
                MethodMatch::Yes => {}
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
