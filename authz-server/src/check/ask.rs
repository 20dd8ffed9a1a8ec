//! What a check asks: read from the extensions that the proxy filter wrote, or, for Envoy's native filter, from the
//! request itself by the same rules.

use std::borrow::Cow;
use std::collections::HashMap;

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind;
use proto::extension;
use quota::rule::{self, Document, Found, Head, Refusal, Request, Rule, Unmatched, Unreadable};
use quota::{
    AmountMinor, AttemptId, Channel, Code, Currency, Dry, MerchantId, Mode, OperationNo, OrderNo, PaymentNo,
    REPLAYS_MAX, Unit,
};

use crate::clock;
use crate::telemetry::Trace;

/// Set by Envoy when it hands over only the beginning of a body.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// A command as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub merchant: MerchantId,
    pub currency: Currency,
    /// `None` on dry runs of a charge only.
    pub order_no: Option<OrderNo>,
    pub attempt: AttemptId,
    pub what: What,
    pub dry: Dry,
    pub operation_no: Option<OperationNo>,
    pub payment_no: Option<PaymentNo>,
    pub channel: Option<Channel>,
    pub mode: Mode,
    /// The caller's span, as `traceparent` tells of it.
    pub trace: Option<Trace>,
    /// Why an attempt is voided, or empty.
    pub reason: String,
    /// How many repetitions of a charge its rule lets through; `None` for any number.
    pub replays_max: Option<u8>,
    /// Whether Envoy's own filter asks, which cannot hold a request back.
    pub is_native: bool,
}

/// What is asked for, before a policy is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Consume(AmountMinor),
    Hold(AmountMinor),
    /// A capture, of all that is held where it names no amount; the hold's last one, or not.
    Settle {
        amount: Option<AmountMinor>,
        last: bool,
    },
    /// A refund, of all that is left where it names no amount; made already, or reserved.
    Refund {
        amount: Option<AmountMinor>,
        reserve: bool,
    },
    VoidAttempt,
    Void,
    /// What an attempt asked for, whose outcome is unknown.
    Unknown {
        of: OutcomeOf,
        amount: Option<AmountMinor>,
        last: bool,
    },
    /// The order's charge was made.
    Made,
}

/// What an unknown outcome is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutcomeOf {
    Charge,
    Capture,
    Refund,
    Void,
}

/// What a check request turned out to be.
#[derive(Debug)]
pub(super) enum Asked {
    /// Something to decide.
    Decide(Box<Ask>),
    /// No payment, or a route that is off: it goes through unread.
    Pass,
    /// A payment that cannot be read.
    Refuse(Mode, Refusal),
}

/// Longest accepted reason.
const REASON_LEN_MAX: usize = 64;

impl Asked {
    /// Reads a check request. `rules` are those of Envoy's native filter, where there are any.
    pub(super) fn read(attributes: &AttributeContext, rules: Option<&Document>) -> Self {
        let extensions = &attributes.context_extensions;
        if extensions.contains_key(extension::ACTION) {
            return Self::of_filter(extensions);
        }
        let mode = route_mode(attributes, Mode::Enforce);
        match (attributes.request.as_ref().and_then(|request| request.http.as_ref()), rules) {
            (Some(http), Some(rules)) => from_request(attributes, http, rules),
            (None, _) => {
                Self::Refuse(Mode::Enforce, refusal("the check names no charge and carries no request".into()))
            }
            (_, None) => Self::Refuse(
                mode,
                refusal("the server has no rules to read requests with: set SLUICE_RULES_FILE".into()),
            ),
        }
    }

    /// Reads what the proxy filter wrote.
    pub(super) fn of_filter(extensions: &HashMap<String, String>) -> Self {
        match from_filter(extensions) {
            Ok(ask) => Self::Decide(Box::new(ask)),
            // The filter reads strictly itself, so this is a caller that is not our filter: never let through.
            Err(detail) => Self::Refuse(Mode::Enforce, refusal(detail)),
        }
    }
}

fn refusal(detail: String) -> Refusal {
    Refusal { code: Code::BadRequest, detail }
}

/// The extensions as the filter writes them.
struct Extensions<'a>(&'a HashMap<String, String>);

impl Extensions<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn required(&self, key: &str) -> Result<&str, String> {
        self.text(key).ok_or_else(|| format!("{key} is missing"))
    }

    fn parsed<T, E: std::fmt::Display>(&self, key: &str, parse: fn(&str) -> Result<T, E>) -> Result<Option<T>, String> {
        self.text(key).map(parse).transpose().map_err(|error| format!("{key}: {error}"))
    }

    /// Whether a key is there, whose only value this is.
    fn flag(&self, key: &str, value: &str) -> Result<bool, String> {
        match self.text(key) {
            None => Ok(false),
            Some(own) if own == value => Ok(true),
            Some(own) => Err(format!("{key} is {own:?}, it may only be {value:?}")),
        }
    }

    fn what(&self, currency: Currency) -> Result<What, String> {
        let amount = self
            .text(extension::AMOUNT_MINOR)
            .map(|minor| AmountMinor::parse(minor, Unit::Minor, currency, true))
            .transpose()
            .map_err(|error| format!("{}: {error}", extension::AMOUNT_MINOR))?;
        let charged = || amount.ok_or_else(|| format!("{} is missing", extension::AMOUNT_MINOR));
        match self.required(extension::ACTION)? {
            extension::ACTION_CONSUME => Ok(What::Consume(charged()?)),
            extension::ACTION_HOLD => Ok(What::Hold(charged()?)),
            extension::ACTION_SETTLE => {
                Ok(What::Settle { amount, last: !self.flag(extension::FINAL, extension::FINAL_NOT)? })
            }
            extension::ACTION_REFUND => {
                self.required(extension::OPERATION_NO)?;
                Ok(What::Refund { amount, reserve: self.flag(extension::STAGE, extension::STAGE_RESERVE)? })
            }
            extension::ACTION_VOID => Ok(What::VoidAttempt),
            extension::ACTION_VOID_ORDER => Ok(What::Void),
            extension::ACTION_MADE => Ok(What::Made),
            extension::ACTION_UNKNOWN => Ok(What::Unknown {
                of: self.outcome_of()?,
                amount,
                last: !self.flag(extension::FINAL, extension::FINAL_NOT)?,
            }),
            other => Err(format!(
                "{} is {other:?}, none of consume, hold, settle, refund, void, void_order, unknown and made",
                extension::ACTION
            )),
        }
    }

    fn replays_max(&self) -> Result<Option<u8>, String> {
        let Some(text) = self.text(extension::REPLAYS_MAX) else { return Ok(None) };
        let max = text.parse().ok().filter(|max| *max <= REPLAYS_MAX);
        let problem = || format!("{} is {text:?}, not 0 to {REPLAYS_MAX}", extension::REPLAYS_MAX);
        max.map(Some).ok_or_else(problem)
    }

    fn outcome_of(&self) -> Result<OutcomeOf, String> {
        match self.required(extension::OUTCOME_OF)? {
            extension::ACTION_CONSUME | extension::ACTION_HOLD => Ok(OutcomeOf::Charge),
            extension::ACTION_SETTLE => Ok(OutcomeOf::Capture),
            extension::ACTION_REFUND => self.required(extension::OPERATION_NO).map(|_| OutcomeOf::Refund),
            extension::ACTION_VOID_ORDER => Ok(OutcomeOf::Void),
            other => Err(format!(
                "{} is {other:?}, none of consume, hold, settle, refund and void_order",
                extension::OUTCOME_OF
            )),
        }
    }

    fn dry(&self) -> Result<Dry, String> {
        match self.text(extension::DRY) {
            None => Ok(Dry::No),
            Some(extension::DRY_SILENT) => Ok(Dry::Silent),
            Some(extension::DRY_JOURNAL) => Ok(Dry::Noted),
            Some(other) => Err(format!("{} is {other:?}, neither 1 nor journal", extension::DRY)),
        }
    }
}

fn from_filter(extensions: &HashMap<String, String>) -> Result<Ask, String> {
    let extensions = Extensions(extensions);
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let currency = Currency::parse(extensions.required(extension::CURRENCY)?).map_err(|e| failed(&e))?;
    let (what, dry) = (extensions.what(currency)?, extensions.dry()?);
    let order_no = extensions.parsed(extension::ORDER_NO, OrderNo::parse)?;
    if order_no.is_none() && !(matches!(what, What::Consume(_)) && dry != Dry::No) {
        return Err(format!("{} is missing", extension::ORDER_NO));
    }
    let reason = extensions.text(extension::REASON).unwrap_or_default();
    if reason.len() > REASON_LEN_MAX {
        return Err(format!("{} is longer than {REASON_LEN_MAX} bytes", extension::REASON));
    }
    let mode = extensions.text(extension::MODE).unwrap_or(Mode::Enforce.as_str());
    Ok(Ask {
        merchant: MerchantId::parse(extensions.required(extension::MERCHANT)?).map_err(|e| failed(&e))?,
        currency,
        order_no,
        attempt: AttemptId::from_text(extensions.required(extension::ATTEMPT)?),
        what,
        dry,
        operation_no: extensions.parsed(extension::OPERATION_NO, OperationNo::parse)?,
        payment_no: extensions.parsed(extension::PAYMENT_NO, PaymentNo::parse)?,
        channel: extensions.parsed(extension::CHANNEL, Channel::parse)?,
        mode: Mode::parse(mode).ok_or_else(|| format!("{} is {mode:?}", extension::MODE))?,
        trace: extensions.text(extension::TRACEPARENT).and_then(Trace::parse),
        reason: reason.to_owned(),
        replays_max: extensions.replays_max()?,
        is_native: false,
    })
}

fn from_request(attributes: &AttributeContext, http: &HttpRequest, rules: &Document) -> Asked {
    let (rule, captures) = match rules.rules.find(&http.method, &http.path) {
        Found::Rule(rule, captures) => (rule, captures),
        Found::Ambiguous(rule, refusal) => return Asked::Refuse(route_mode(attributes, rule.mode), refusal),
        Found::None => {
            return match rules.unmatched {
                Unmatched::Pass => Asked::Pass,
                Unmatched::Refuse => Asked::Refuse(
                    route_mode(attributes, Mode::Enforce),
                    refusal("no rule is meant by this request".into()),
                ),
            };
        }
    };
    let mode = route_mode(attributes, rule.mode);
    if mode == Mode::Off {
        return Asked::Pass;
    }
    let head = NativeHead { attributes, http };
    let body = if http.raw_body.is_empty() { http.body.as_bytes() } else { &http.raw_body };
    match read_request(rule, &head, &captures, body) {
        Ok((request, what, dry)) => {
            let ask = native_ask(http, mode, request, what, dry);
            Asked::Decide(Box::new(Ask { replays_max: rule.replays_max, ..ask }))
        }
        Err(refusal) => Asked::Refuse(mode, refusal),
    }
}

fn native_ask(http: &HttpRequest, mode: Mode, request: Request, what: What, dry: Dry) -> Ask {
    Ask {
        merchant: request.merchant,
        currency: request.currency,
        order_no: request.order_no,
        attempt: native_attempt(http),
        what,
        dry,
        operation_no: None,
        payment_no: request.payment_no,
        channel: request.channel,
        mode,
        trace: http.headers.get("traceparent").and_then(|text| Trace::parse(text)),
        reason: String::new(),
        replays_max: None,
        is_native: true,
    }
}

fn read_request(
    rule: &Rule,
    head: &NativeHead<'_>,
    captures: &rule::Captures,
    body: &[u8],
) -> Result<(Request, What, Dry), Refusal> {
    let draft = rule.read_head(head, captures)?;
    let partial = head.http.headers.get(PARTIAL_BODY).is_some_and(|value| value != "false");
    if draft.needs_body() && (partial || body.len() > rule.body_bytes_max) {
        return Err(rule.too_large());
    }
    if draft.needs_body() && body.is_empty() && announces_body(head.http) {
        return Err(refusal("the request has a body that Envoy did not hand over: set with_request_body".into()));
    }
    let request = draft.finish(rule, body)?;
    let (what, dry) = native_what(rule, &request)?;
    Ok((request, what, dry))
}

/// Whether the headers say that a body follows. HTTP/2 need not say so; Envoy hands it over where it is set to.
fn announces_body(http: &HttpRequest) -> bool {
    let length = http.headers.get("content-length").is_some_and(|length| length.trim() != "0");
    length || http.headers.contains_key("transfer-encoding")
}

/// What a rule's action asks for here. Envoy's own filter does not see the gateway's answer, so an action that would end
/// with it is refused: it would begin something that nobody ends.
fn native_what(rule: &Rule, request: &Request) -> Result<(What, Dry), Refusal> {
    let unanswered = || {
        let action = rule.action.as_str();
        refusal(format!("the rule's action {action} needs the gateway's answer, which only the proxy filter sees"))
    };
    let amount = request.amount.ok_or_else(unanswered)?;
    match rule.action {
        _ if rule.needs_response() => Err(unanswered()),
        rule::Action::Consume => Ok((What::Consume(amount), Dry::No)),
        rule::Action::Hold => Ok((What::Hold(amount), Dry::No)),
        rule::Action::Check => Ok((What::Consume(amount), Dry::Noted)),
        rule::Action::Settle | rule::Action::Refund | rule::Action::Void => Err(unanswered()),
    }
}

/// The route's word goes before the rule's. A word that is none enforces: a slip must not switch enforcement off.
fn route_mode(attributes: &AttributeContext, rule_mode: Mode) -> Mode {
    match attributes.context_extensions.get(extension::MODE) {
        Some(word) => Mode::parse(word).unwrap_or(Mode::Enforce),
        None => rule_mode,
    }
}

/// Envoy may ask twice for one request; both times it gives the same ids. Where it asks another server the second time, the attempt
/// is another one: the first server takes back what it decided for nobody, and must not take this one with it.
fn native_attempt(http: &HttpRequest) -> AttemptId {
    let request_id = http.headers.get("x-request-id").map_or("", String::as_str);
    AttemptId::from_text(&format!("native {} {} {request_id}", clock::server_id(), http.id))
}

/// The caller's span, as the proxy filter tells of it.
pub(super) fn told_caller(extensions: &HashMap<String, String>) -> Option<Trace> {
    extensions.get(extension::TRACEPARENT).and_then(|text| Trace::parse(text))
}

/// The caller's span, as far as it is told of.
pub(super) fn caller(attributes: &AttributeContext) -> Option<Trace> {
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let own = || Trace::parse(http?.headers.get("traceparent")?);
    told_caller(&attributes.context_extensions).or_else(own)
}

/// A request as Envoy's native filter hands it over.
struct NativeHead<'a> {
    attributes: &'a AttributeContext,
    http: &'a HttpRequest,
}

impl Head for NativeHead<'_> {
    /// Envoy joins repeated headers with commas, so a comma separates two values.
    fn header(&self, name: &str) -> Vec<&[u8]> {
        let joined = self.http.headers.get(name);
        joined.map(|values| values.split(',').map(|value| value.trim().as_bytes()).collect()).unwrap_or_default()
    }

    fn path(&self) -> &[u8] {
        self.http.path.as_bytes()
    }

    fn metadata(&self, path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable> {
        let Some((namespace, keys)) = path.split_first() else {
            return Ok(None);
        };
        let metadata = self.attributes.metadata_context.as_ref();
        let root = metadata.and_then(|metadata| metadata.filter_metadata.get(namespace));
        Ok(root.and_then(|root| lookup(root, keys)).map(|text| Cow::Borrowed(text.as_bytes())))
    }
}

fn lookup<'a>(root: &'a Struct, keys: &[String]) -> Option<&'a str> {
    let (key, rest) = keys.split_first()?;
    match (root.fields.get(key)?.kind.as_ref()?, rest) {
        (Kind::StringValue(text), []) => Some(text),
        (Kind::StructValue(inner), rest) => lookup(inner, rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
