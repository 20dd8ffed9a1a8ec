//! What a check asks: read from the extensions that the proxy filter wrote, or, for Envoy's native filter, from the
//! request itself by the same rules.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use proto::extension;
use quota::{
    AmountMinor, AttemptId, Channel, Code, Currency, Dry, MerchantId, Mode, OperationNo, OrderNo, PaymentNo,
    REPLAYS_MAX, Unit,
};
use sluice_rules::{Document, Found, Refusal, Request, Rule, Salvaged, Unmatched};

use super::answer::Subject;
use super::native::NativeHead;
use sluice_kit::clock;
use sluice_kit::telemetry::Trace;

/// Set by Envoy when it hands over only the beginning of a body.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// A command as it was asked for.
#[derive(Clone, Debug)]
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
    /// The rule by which the server read the request itself: Envoy's own filter asks, which cannot hold a request back.
    pub rule: Option<Arc<Rule>>,
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
    Refuse(Box<Refused>),
}

/// A payment that cannot be read.
#[derive(Debug)]
pub(super) struct Refused {
    pub mode: Mode,
    pub refusal: Refusal,
    /// What is known of it all the same.
    pub subject: Subject,
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
            (None, _) => Self::refuse(Mode::Enforce, "the check names no charge and carries no request".to_owned()),
            (_, None) => {
                Self::refuse(mode, "the server has no rules to read requests with: set SLUICE_RULES_FILE".to_owned())
            }
        }
    }

    /// Reads what the proxy filter wrote.
    pub(super) fn of_filter(extensions: &HashMap<String, String>) -> Self {
        match from_filter(extensions) {
            Ok(ask) => Self::Decide(Box::new(ask)),
            // The filter reads strictly itself, so this is a caller that is not our filter: never let through.
            Err(detail) => Self::refuse(Mode::Enforce, detail),
        }
    }

    fn refuse(mode: Mode, detail: String) -> Self {
        Self::Refuse(Box::new(Refused { mode, refusal: refusal(detail), subject: Subject::default() }))
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
        rule: None,
    })
}

fn from_request(attributes: &AttributeContext, http: &HttpRequest, rules: &Document) -> Asked {
    let head = NativeHead::new(attributes, http);
    let (rule, captures) = match rules.rules.find(&head) {
        Found::Rule(rule, captures) => (rule, captures),
        Found::Ambiguous(rule, refusal) => {
            let mode = route_mode(attributes, rule.mode);
            if mode == Mode::Off {
                return Asked::Pass;
            }
            let subject = subject(rule, rule.salvage(&head, &sluice_rules::Captures::default()));
            return Asked::Refuse(Box::new(Refused { mode, refusal, subject }));
        }
        Found::None => {
            return match rules.unmatched {
                Unmatched::Pass => Asked::Pass,
                Unmatched::Refuse => Asked::refuse(
                    route_mode(attributes, Mode::Enforce),
                    "no rule covers this method and path".to_owned(),
                ),
            };
        }
    };
    let mode = route_mode(attributes, rule.mode);
    if mode == Mode::Off {
        return Asked::Pass;
    }
    let mut known = Salvaged::default();
    match read_request(rule, &head, &captures, &mut known) {
        Ok((request, what, dry)) => {
            let ask = native_ask(&head, mode, request, what, dry);
            Asked::Decide(Box::new(Ask { rule: Some(Arc::clone(rule)), replays_max: rule.replays_max, ..ask }))
        }
        Err(refusal) => Asked::Refuse(Box::new(Refused { mode, refusal, subject: subject(rule, known) })),
    }
}

fn subject(rule: &Rule, known: Salvaged) -> Subject {
    Subject { rule: Some(rule.name.clone()), action: Some(rule.action.as_str()), attempt: None, known }
}

fn native_ask(head: &NativeHead<'_>, mode: Mode, request: Request, what: What, dry: Dry) -> Ask {
    Ask {
        merchant: request.merchant,
        currency: request.currency,
        order_no: request.order_no,
        attempt: native_attempt(),
        what,
        dry,
        operation_no: None,
        payment_no: request.payment_no,
        channel: request.channel,
        mode,
        trace: head.text("traceparent").and_then(Trace::parse),
        reason: String::new(),
        replays_max: None,
        rule: None,
    }
}

impl Ask {
    /// Whether Envoy's own filter asks.
    pub(super) const fn is_native(&self) -> bool {
        self.rule.is_some()
    }

    /// What the access log of a native route shows of it.
    pub(super) fn subject(&self) -> Subject {
        let amount = match self.what {
            What::Consume(amount) | What::Hold(amount) => Some(amount),
            What::Settle { amount, .. } | What::Refund { amount, .. } | What::Unknown { amount, .. } => amount,
            What::VoidAttempt | What::Void | What::Made => None,
        };
        let known = Salvaged {
            merchant: Some(self.merchant.clone()),
            order_no: self.order_no.clone(),
            currency: Some(self.currency),
            amount,
        };
        let own = self.rule.as_ref().map(|rule| subject(rule, known));
        own.map(|own| Subject { attempt: Some(self.attempt.to_string()), ..own }).unwrap_or_default()
    }
}

fn read_request(
    rule: &Rule,
    head: &NativeHead<'_>,
    captures: &sluice_rules::Captures,
    known: &mut Salvaged,
) -> Result<(Request, What, Dry), Refusal> {
    let mut draft = rule.read_head(head, captures).inspect_err(|_| *known = rule.salvage(head, captures))?;
    let partial = head.text(PARTIAL_BODY).is_some_and(|value| value != "false");
    let body = head.body();
    if draft.needs_body() && (partial || body.len() > rule.body_bytes_max) {
        *known = draft.salvage(rule, body);
        return Err(rule.too_large());
    }
    if draft.needs_body() && head.is_body_replaced() {
        let detail = "the body may hold bytes that Envoy has replaced by '!': set pack_as_bytes on its ext_authz";
        return Err(refusal(detail.into()));
    }
    if draft.needs_body() && body.is_empty() && announces_body(head) {
        return Err(refusal("the request has a body that Envoy did not hand over: set with_request_body".into()));
    }
    let read = draft.finish(rule, body).and_then(|request| {
        let (what, dry) = native_what(rule, &request)?;
        Ok((request, what, dry))
    });
    read.inspect_err(|_| *known = draft.salvage(rule, body))
}

/// Whether the headers say that a body follows. HTTP/2 need not say so; Envoy hands it over where it is set to.
fn announces_body(head: &NativeHead<'_>) -> bool {
    head.text("content-length").is_some_and(|length| length.trim() != "0") || head.text("transfer-encoding").is_some()
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
        sluice_rules::Action::Consume => Ok((What::Consume(amount), Dry::No)),
        sluice_rules::Action::Hold => Ok((What::Hold(amount), Dry::No)),
        sluice_rules::Action::Check => Ok((What::Consume(amount), Dry::Noted)),
        sluice_rules::Action::Settle | sluice_rules::Action::Refund | sluice_rules::Action::Void => Err(unanswered()),
    }
}

/// The route's word goes before the rule's. A word that is none enforces: a slip must not switch enforcement off.
fn route_mode(attributes: &AttributeContext, rule_mode: Mode) -> Mode {
    match attributes.context_extensions.get(extension::MODE) {
        Some(word) => Mode::parse(word).unwrap_or(Mode::Enforce),
        None => rule_mode,
    }
}

/// Each check of Envoy's own filter is an attempt of its own, also where Envoy asks a second time for one request: the server that
/// takes back an attempt whose answer came too late must not take the second one with it.
fn native_attempt() -> AttemptId {
    AttemptId(clock::decision_id())
}

/// The caller's span, as the proxy filter tells of it.
pub(super) fn told_caller(extensions: &HashMap<String, String>) -> Option<Trace> {
    extensions.get(extension::TRACEPARENT).and_then(|text| Trace::parse(text))
}

/// The caller's span, as far as it is told of.
pub(super) fn caller(attributes: &AttributeContext) -> Option<Trace> {
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let own = || Trace::parse(NativeHead::new(attributes, http?).text("traceparent")?);
    told_caller(&attributes.context_extensions).or_else(own)
}

#[cfg(test)]
mod tests;
