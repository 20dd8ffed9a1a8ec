//! What a check asks: read from the extensions that the proxy filter wrote, or, for Envoy's native filter, from the
//! request itself by the same rules.

use std::borrow::Cow;
use std::collections::HashMap;

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind;
use proto::extension;
use quota::rule::{Charge, Document, Found, Head, Refusal, Rule, Unmatched, Unreadable};
use quota::{AmountMinor, AttemptId, Channel, Code, Currency, MerchantId, Mode, OrderNo, PaymentNo, Unit};

/// Set by Envoy when it hands over only the beginning of a body.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// A command as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub merchant: MerchantId,
    pub currency: Currency,
    pub order_no: OrderNo,
    pub attempt: AttemptId,
    /// `None` voids the attempt.
    pub amount: Option<AmountMinor>,
    pub payment_no: Option<PaymentNo>,
    pub channel: Option<Channel>,
    pub mode: Mode,
    /// The trace id of `traceparent`, or empty.
    pub trace_id: String,
    /// Why an attempt is voided, or empty.
    pub reason: String,
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
            return match from_filter(extensions) {
                Ok(ask) => Self::Decide(Box::new(ask)),
                // The filter reads strictly itself, so this is a caller that is not our filter: never let through.
                Err(detail) => Self::Refuse(Mode::Enforce, refusal(detail)),
            };
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
}

fn refusal(detail: String) -> Refusal {
    Refusal { code: Code::BadRequest, detail }
}

fn from_filter(extensions: &HashMap<String, String>) -> Result<Ask, String> {
    let text = |key: &str| extensions.get(key).map(String::as_str);
    let required = |key: &str| text(key).ok_or_else(|| format!("{key} is missing"));
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let currency = Currency::parse(required(extension::CURRENCY)?).map_err(|e| failed(&e))?;
    let amount = match required(extension::ACTION)? {
        extension::ACTION_CONSUME => {
            let minor = required(extension::AMOUNT_MINOR)?;
            Some(AmountMinor::parse(minor, Unit::Minor, currency, true).map_err(|e| failed(&e))?)
        }
        extension::ACTION_VOID => None,
        other => return Err(format!("{} is {other:?}, neither consume nor void", extension::ACTION)),
    };
    let reason = text(extension::REASON).unwrap_or_default();
    if reason.len() > REASON_LEN_MAX {
        return Err(format!("{} is longer than {REASON_LEN_MAX} bytes", extension::REASON));
    }
    let mode = text(extension::MODE).unwrap_or(Mode::Enforce.as_str());
    Ok(Ask {
        merchant: MerchantId::parse(required(extension::MERCHANT)?).map_err(|e| failed(&e))?,
        currency,
        order_no: OrderNo::parse(required(extension::ORDER_NO)?).map_err(|e| failed(&e))?,
        attempt: AttemptId::from_text(required(extension::ATTEMPT)?),
        amount,
        payment_no: text(extension::PAYMENT_NO).map(PaymentNo::parse).transpose().map_err(|e| failed(&e))?,
        channel: text(extension::CHANNEL).map(Channel::parse).transpose().map_err(|e| failed(&e))?,
        mode: Mode::parse(mode).ok_or_else(|| format!("{} is {mode:?}", extension::MODE))?,
        trace_id: trace_id(text(extension::TRACEPARENT)),
        reason: reason.to_owned(),
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
    let charge = match read_charge(rule, &head, &captures, body) {
        Ok(charge) => charge,
        Err(refusal) => return Asked::Refuse(mode, refusal),
    };
    Asked::Decide(Box::new(Ask {
        merchant: charge.merchant,
        currency: charge.currency,
        order_no: charge.order_no,
        attempt: native_attempt(http),
        amount: Some(charge.amount),
        payment_no: charge.payment_no,
        channel: charge.channel,
        mode,
        trace_id: trace_id(http.headers.get("traceparent").map(String::as_str)),
        reason: String::new(),
    }))
}

fn read_charge(
    rule: &Rule,
    head: &NativeHead<'_>,
    captures: &quota::rule::Captures,
    body: &[u8],
) -> Result<Charge, Refusal> {
    let draft = rule.read_head(head, captures)?;
    let partial = head.http.headers.get(PARTIAL_BODY).is_some_and(|value| value != "false");
    if rule.needs_body() && (partial || body.len() > rule.body_bytes_max) {
        return Err(rule.too_large());
    }
    draft.finish(rule, body)
}

/// The route's word goes before the rule's. A word that is none enforces: a slip must not switch enforcement off.
fn route_mode(attributes: &AttributeContext, rule_mode: Mode) -> Mode {
    match attributes.context_extensions.get(extension::MODE) {
        Some(word) => Mode::parse(word).unwrap_or(Mode::Enforce),
        None => rule_mode,
    }
}

/// Envoy may ask twice for one request; both times it gives the same ids.
fn native_attempt(http: &HttpRequest) -> AttemptId {
    let request_id = http.headers.get("x-request-id").map_or("", String::as_str);
    AttemptId::from_text(&format!("native {} {request_id}", http.id))
}

/// The trace id of a W3C `traceparent`, `00-<32 hexadecimal digits>-…`; empty where there is none.
fn trace_id(traceparent: Option<&str>) -> String {
    let id = traceparent.and_then(|text| text.split('-').nth(1)).unwrap_or_default();
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) { id.to_owned() } else { String::new() }
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

    fn path(&self) -> &str {
        &self.http.path
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
