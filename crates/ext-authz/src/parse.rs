//! The content of a check: read from the extensions that the proxy filter wrote, or, for Envoy's native filter, from the request
//! itself by the same rules.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use proto::batched::Extension;
use proto::{extension, right};
use quota::{
    AmountMinor, AttemptId, Channel, Code, Currency, Effect, Mark, MerchantId, Mode, OperationId, OperationNo, OrderNo,
    PaymentNo, REPLAYS_MAX, ReleaseRight, Resolution, RightId, Share, Unit,
};
use sluice_rules::{Document, Found, Refusal, Request, Rule, Salvaged, Unmatched};

use super::answer::Subject;
use super::native::NativeHead;
use sluice_decision::request::{Operation, Request as DecisionRequest, capture_id};
use sluice_kit::clock;
use sluice_kit::telemetry::Trace;

/// Set by Envoy when it sends only the beginning of a body.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// A check that was read.
#[derive(Clone, Debug)]
pub(super) struct ParsedCheck {
    pub request: DecisionRequest,
    pub mode: Mode,
    /// The caller's span, as `traceparent` has it.
    pub trace: Option<Trace>,
    /// The right that the proxy filter asks for besides.
    pub wanted: Option<Share>,
    /// The rule by which the server read the request itself: Envoy's own filter calls, which cannot delay a request.
    pub rule: Option<Arc<Rule>>,
}

/// The result of parsing a check request.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Something to decide.
    Decide(Box<ParsedCheck>),
    /// No payment, or a route that is off: it passes unread.
    Pass,
    /// A payment that cannot be read.
    Refuse(Box<Refused>),
}

/// A payment that cannot be read.
#[derive(Debug)]
pub(super) struct Refused {
    pub mode: Mode,
    pub refusal: Refusal,
    /// What could still be read of it.
    pub subject: Subject,
}

/// Longest accepted reason.
const REASON_LEN_MAX: usize = 64;

impl Parsed {
    /// Reads a check request. `rules` are those of Envoy's native filter, if there are any.
    pub(super) fn read(attributes: &AttributeContext, rules: Option<&Document>) -> Self {
        let extensions = &attributes.context_extensions;
        if extensions.contains_key(extension::ACTION) {
            return Self::of_filter(&Extensions::Map(extensions));
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
    pub(super) fn of_filter(extensions: &Extensions<'_>) -> Self {
        match from_filter(extensions) {
            Ok(check) => Self::Decide(Box::new(check)),
            // The filter reads strictly itself, so this is a caller that is not our filter: never admitted.
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

impl Refused {
    /// A check whose extensions are not as the filter writes them.
    pub(super) fn not_of_filter(detail: &str) -> Self {
        Self { mode: Mode::Enforce, refusal: refusal(detail.to_owned()), subject: Subject::default() }
    }
}

/// More extensions than the filter ever writes: each is looked for among all.
const EXTENSIONS_MAX: usize = 32;

/// The extensions as the filter writes them.
#[derive(Debug)]
pub(super) enum Extensions<'a> {
    /// Of a single check.
    Map(&'a HashMap<String, String>),
    /// Of one of many, as they were received: there are too few to be worth a map.
    List(Vec<(&'a str, &'a str)>),
}

impl<'a> Extensions<'a> {
    pub(super) const NONE: Self = Self::List(Vec::new());

    /// Those of one of many checks.
    ///
    /// # Errors
    /// Why they are not as the filter writes them.
    pub(super) fn received(list: &'a [Extension]) -> Result<Self, &'static str> {
        if list.len() > EXTENSIONS_MAX {
            return Err("there are too many context_extensions");
        }
        let texts = |entry: &'a Extension| Some((str::from_utf8(&entry.key).ok()?, str::from_utf8(&entry.value).ok()?));
        let list = list.iter().map(texts).collect::<Option<_>>();
        list.map(Self::List).ok_or("context_extensions contain bytes that are no UTF-8")
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self {
            Self::Map(map) => map.get(key).map(String::as_str),
            Self::List(list) => list.iter().rfind(|(own, _)| *own == key).map(|(_, value)| *value),
        }
    }

    fn required(&self, key: &str) -> Result<&str, String> {
        self.text(key).ok_or_else(|| format!("{key} is missing"))
    }

    fn parsed<T, E: std::fmt::Display>(&self, key: &str, parse: fn(&str) -> Result<T, E>) -> Result<Option<T>, String> {
        self.text(key).map(parse).transpose().map_err(|error| format!("{key}: {error}"))
    }

    /// Whether a key is set; `value` is its only valid value.
    fn flag(&self, key: &str, value: &str) -> Result<bool, String> {
        match self.text(key) {
            None => Ok(false),
            Some(own) if own == value => Ok(true),
            Some(own) => Err(format!("{key} is {own:?}, it may only be {value:?}")),
        }
    }

    fn operation(&self, ids: &Ids<'_>, currency: Currency, effect: Effect) -> Result<Operation, String> {
        let amount = self
            .text(extension::AMOUNT_MINOR)
            .map(|minor| AmountMinor::parse(minor, Unit::Minor, currency, true))
            .transpose()
            .map_err(|error| format!("{}: {error}", extension::AMOUNT_MINOR))?;
        let charged = || amount.ok_or_else(|| format!("{} is missing", extension::AMOUNT_MINOR));
        match self.required(extension::ACTION)? {
            extension::ACTION_CONSUME => Ok(Operation::Consume(charged()?)),
            extension::ACTION_HOLD => Ok(Operation::Hold(charged()?)),
            extension::ACTION_SETTLE => {
                let last = self.last()?;
                // A capture tried before the gateway is called is subject to the policy's bound; one that it has made is booked.
                Ok(Operation::Settle { amount, id: ids.capture(last), last, reported: effect == Effect::Commit })
            }
            extension::ACTION_REFUND => {
                self.required(extension::OPERATION_NO)?;
                let reserve = self.flag(extension::STAGE, extension::STAGE_RESERVE)?;
                Ok(Operation::Refund { amount, id: ids.own(), reserve })
            }
            extension::ACTION_VOID => Ok(Operation::VoidAttempt),
            extension::ACTION_VOID_ORDER => Ok(Operation::Void),
            extension::ACTION_MADE => Ok(Operation::Resolve(Resolution::Made)),
            extension::ACTION_REPORT => Ok(Operation::Report { right: self.right()?, amount: charged()? }),
            extension::ACTION_RELEASE_RIGHT => {
                Ok(Operation::ReleaseRight(ReleaseRight { right: self.right()?, by_holder: true }))
            }
            extension::ACTION_UNKNOWN => {
                let last = self.last()?;
                Ok(Operation::MarkUnknown(Mark { subject: self.outcome_of(ids, last)?, amount }))
            }
            other => Err(format!(
                "{} is {other:?}, none of consume, hold, settle, refund, void, void_order, unknown, made, report and \
                 release_right",
                extension::ACTION
            )),
        }
    }

    /// Whether a capture is its hold's last one.
    fn last(&self) -> Result<bool, String> {
        Ok(!self.flag(extension::FINAL, extension::FINAL_NOT)?)
    }

    fn replays_max(&self) -> Result<Option<u8>, String> {
        let Some(text) = self.text(extension::REPLAYS_MAX) else { return Ok(None) };
        let max = text.parse().ok().filter(|max| *max <= REPLAYS_MAX);
        let problem = || format!("{} is {text:?}, not 0 to {REPLAYS_MAX}", extension::REPLAYS_MAX);
        max.map(Some).ok_or_else(problem)
    }

    fn right(&self) -> Result<RightId, String> {
        Ok(RightId(AttemptId::from_text(self.required(extension::RIGHT)?).0))
    }

    fn wanted(&self) -> Result<Option<Share>, String> {
        let Some(text) = self.text(extension::RIGHT_WANTED) else { return Ok(None) };
        let problem = || format!("{} is {text:?}, not a number of payments and an amount", extension::RIGHT_WANTED);
        right::parse_wanted(text).map(Some).ok_or_else(problem)
    }

    /// The operation whose outcome is unknown.
    fn outcome_of(&self, ids: &Ids<'_>, last: bool) -> Result<quota::Subject, String> {
        match self.required(extension::OUTCOME_OF)? {
            extension::ACTION_CONSUME | extension::ACTION_HOLD => Ok(quota::Subject::Charge),
            extension::ACTION_SETTLE => Ok(quota::Subject::Capture(ids.capture(last))),
            extension::ACTION_REFUND => {
                self.required(extension::OPERATION_NO).map(|_| quota::Subject::Refund(ids.own()))
            }
            extension::ACTION_VOID_ORDER => Ok(quota::Subject::Void),
            other => Err(format!(
                "{} is {other:?}, none of consume, hold, settle, refund and void_order",
                extension::OUTCOME_OF
            )),
        }
    }

    fn effect(&self) -> Result<Effect, String> {
        match self.text(extension::DRY) {
            None => Ok(Effect::Commit),
            Some(extension::DRY_SILENT) => Ok(Effect::DryRun),
            Some(extension::DRY_JOURNAL) => Ok(Effect::DryRunJournaled),
            Some(other) => Err(format!("{} is {other:?}, neither 1 nor journal", extension::DRY)),
        }
    }
}

/// The identity of an operation: its number, or its attempt if it has none.
struct Ids<'a> {
    operation_no: Option<&'a OperationNo>,
    attempt: AttemptId,
}

impl Ids<'_> {
    fn own(&self) -> OperationId {
        self.operation_no
            .map_or_else(|| OperationId::of(&self.attempt.to_string()), |number| OperationId::of(number.as_str()))
    }

    /// A last capture without a number is the order's only one, as it is for the API: a sale that is tried again is reported again,
    /// and counts once. One that others follow is identified by its attempt.
    fn capture(&self, last: bool) -> OperationId {
        if last && self.operation_no.is_none() { capture_id(None) } else { self.own() }
    }
}

fn from_filter(extensions: &Extensions<'_>) -> Result<ParsedCheck, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let currency = Currency::parse(extensions.required(extension::CURRENCY)?).map_err(|e| failed(&e))?;
    let attempt = AttemptId::from_text(extensions.required(extension::ATTEMPT)?);
    let operation_no = extensions.parsed(extension::OPERATION_NO, OperationNo::parse)?;
    let ids = Ids { operation_no: operation_no.as_ref(), attempt };
    let effect = extensions.effect()?;
    let operation = extensions.operation(&ids, currency, effect)?;
    let order_no = extensions.parsed(extension::ORDER_NO, OrderNo::parse)?;
    let is_of_account = matches!(operation, Operation::ReleaseRight(_));
    let order_no = order_no.filter(|_| !is_of_account);
    let is_dry_charge = matches!(operation, Operation::Consume(_)) && effect != Effect::Commit;
    if order_no.is_none() && !is_of_account && !is_dry_charge {
        return Err(format!("{} is missing", extension::ORDER_NO));
    }
    let reason = extensions.text(extension::REASON).unwrap_or_default();
    if reason.len() > REASON_LEN_MAX {
        return Err(format!("{} is longer than {REASON_LEN_MAX} bytes", extension::REASON));
    }
    let mode = extensions.text(extension::MODE).unwrap_or(Mode::Enforce.as_str());
    let merchant = MerchantId::parse(extensions.required(extension::MERCHANT)?).map_err(|e| failed(&e))?;
    let request = DecisionRequest {
        order_no,
        effect,
        payment_no: extensions.parsed(extension::PAYMENT_NO, PaymentNo::parse)?,
        channel: extensions.parsed(extension::CHANNEL, Channel::parse)?,
        reason: reason.to_owned(),
        replays_max: extensions.replays_max()?,
        operation_no,
        ..DecisionRequest::new(merchant, currency, attempt, operation)
    };
    Ok(ParsedCheck {
        request,
        mode: Mode::parse(mode).ok_or_else(|| format!("{} is {mode:?}", extension::MODE))?,
        trace: extensions.text(extension::TRACEPARENT).and_then(Trace::parse),
        wanted: extensions.wanted()?,
        rule: None,
    })
}

fn from_request(attributes: &AttributeContext, http: &HttpRequest, rules: &Document) -> Parsed {
    let head = NativeHead::new(attributes, http);
    let (rule, captures) = match rules.rules.find(&head) {
        Found::Rule(rule, captures) => (rule, captures),
        Found::Ambiguous(rule, refusal) => {
            let mode = route_mode(attributes, rule.mode);
            if mode == Mode::Off {
                return Parsed::Pass;
            }
            let subject = subject(rule, rule.salvage(&head, &sluice_rules::Captures::default()));
            return Parsed::Refuse(Box::new(Refused { mode, refusal, subject }));
        }
        Found::None => {
            return match rules.unmatched {
                Unmatched::Pass => Parsed::Pass,
                Unmatched::Refuse => Parsed::refuse(
                    route_mode(attributes, Mode::Enforce),
                    "no rule covers this method and path".to_owned(),
                ),
            };
        }
    };
    let mode = route_mode(attributes, rule.mode);
    if mode == Mode::Off {
        return Parsed::Pass;
    }
    let mut known = Salvaged::default();
    match read_request(rule, &head, &captures, &mut known) {
        Ok((request, operation, effect)) => {
            let check = native_check(&head, mode, rule, request, (operation, effect));
            Parsed::Decide(Box::new(check))
        }
        Err(refusal) => Parsed::Refuse(Box::new(Refused { mode, refusal, subject: subject(rule, known) })),
    }
}

fn subject(rule: &Rule, known: Salvaged) -> Subject {
    Subject { rule: Some(rule.name.clone()), action: Some(rule.action.as_str()), attempt: None, known }
}

fn native_check(
    head: &NativeHead<'_>,
    mode: Mode,
    rule: &Arc<Rule>,
    read: Request,
    (operation, effect): (Operation, Effect),
) -> ParsedCheck {
    let request = DecisionRequest {
        order_no: read.order_no,
        payment_no: read.payment_no,
        channel: read.channel,
        effect,
        replays_max: rule.replays_max,
        // Envoy's own filter cannot delay a request: a charge that would have to wait is refused until its turn.
        may_delay: false,
        ..DecisionRequest::new(read.merchant, read.currency, native_attempt(), operation)
    };
    let trace = head.text("traceparent").and_then(Trace::parse);
    ParsedCheck { request, mode, trace, wanted: None, rule: Some(Arc::clone(rule)) }
}

impl ParsedCheck {
    /// Its members in the access log of a native route.
    pub(super) fn subject(&self) -> Subject {
        let Some(rule) = &self.rule else { return Subject::default() };
        let request = &self.request;
        let known = Salvaged {
            merchant: Some(request.merchant.clone()),
            order_no: request.order_no.clone(),
            currency: Some(request.currency),
            amount: request.operation.amount(),
        };
        Subject { attempt: Some(request.attempt.to_string()), ..subject(rule, known) }
    }
}

fn read_request(
    rule: &Rule,
    head: &NativeHead<'_>,
    captures: &sluice_rules::Captures,
    known: &mut Salvaged,
) -> Result<(Request, Operation, Effect), Refusal> {
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
    let request = draft.finish(rule, body).inspect_err(|_| *known = draft.salvage(rule, body))?;
    let (operation, effect) = native_operation(rule, &request).inspect_err(|_| *known = known_of(&request))?;
    Ok((request, operation, effect))
}

/// What is known of a request that was read.
fn known_of(request: &Request) -> Salvaged {
    Salvaged {
        merchant: Some(request.merchant.clone()),
        order_no: request.order_no.clone(),
        currency: Some(request.currency),
        amount: request.amount,
    }
}

/// Whether the headers announce a body. HTTP/2 need not announce it; Envoy sends it if configured to.
fn announces_body(head: &NativeHead<'_>) -> bool {
    head.text("content-length").is_some_and(|length| length.trim() != "0") || head.text("transfer-encoding").is_some()
}

/// The operation of a rule's action here. Envoy's own filter does not see the gateway's answer, so an action that ends with it is
/// refused: it would never be ended.
fn native_operation(rule: &Rule, request: &Request) -> Result<(Operation, Effect), Refusal> {
    let unanswered = || {
        let action = rule.action.as_str();
        refusal(format!("the rule's action {action} needs the gateway's answer, which only the proxy filter sees"))
    };
    let amount = request.amount.ok_or_else(unanswered)?;
    match rule.action {
        _ if rule.needs_response() => Err(unanswered()),
        sluice_rules::Action::Consume => Ok((Operation::Consume(amount), Effect::Commit)),
        sluice_rules::Action::Hold => Ok((Operation::Hold(amount), Effect::Commit)),
        sluice_rules::Action::Check => Ok((Operation::Consume(amount), Effect::DryRunJournaled)),
        sluice_rules::Action::Settle | sluice_rules::Action::Refund | sluice_rules::Action::Void => Err(unanswered()),
    }
}

/// The route's mode goes before the rule's. An unknown mode enforces: a typing error must not switch enforcement off.
fn route_mode(attributes: &AttributeContext, rule_mode: Mode) -> Mode {
    match attributes.context_extensions.get(extension::MODE) {
        Some(word) => Mode::parse(word).unwrap_or(Mode::Enforce),
        None => rule_mode,
    }
}

/// Each check of Envoy's own filter is an attempt of its own, also if Envoy sends a second check for one request: the server that
/// voids an attempt whose answer came too late must not void the second one with it.
fn native_attempt() -> AttemptId {
    AttemptId(clock::decision_id())
}

/// The caller's span, as the proxy filter forwards it.
pub(super) fn filter_caller(extensions: &Extensions<'_>) -> Option<Trace> {
    extensions.text(extension::TRACEPARENT).and_then(Trace::parse)
}

/// The caller's span, as far as it is known.
pub(super) fn caller(attributes: &AttributeContext) -> Option<Trace> {
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let own = || Trace::parse(NativeHead::new(attributes, http?).text("traceparent")?);
    filter_caller(&Extensions::Map(&attributes.context_extensions)).or_else(own)
}

#[cfg(test)]
mod tests;
