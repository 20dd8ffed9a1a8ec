//! The rules document: its raw form and its validation. A document that would enforce nothing is refused.

use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::name::Name;
use super::normal::{Case, Normal};
use super::overrides::PARAMETER;
use super::path::Template;
use super::{Action, Field, OnError, Rule, RuleSet, RuleTrust, SettleOn, Unmatched, VoidOn, elsewhere};
use quota::{Mode, REPLAYS_MAX, Unit, document_text};

mod extract;

pub use extract::ABSENT_MAX;
pub(super) use extract::Names;
use extract::{RawAbsent, RawExtract, absent, fields};

/// Most rules of a document.
pub const RULES_MAX: usize = 256;
/// Most methods of a rule.
pub const METHODS_MAX: usize = 16;
/// Most sources of a field.
pub const SOURCES_MAX: usize = 8;
/// Most segments of a path template.
pub const SEGMENTS_MAX: usize = 32;
/// Most tokens of a JSON pointer, and so the depth of the reader's stack.
pub const POINTER_TOKENS_MAX: usize = 16;
/// Most entries of `void_on.statuses` and of `void_on.except`.
pub const STATUSES_MAX: usize = 64;
/// Most decision servers.
pub const SERVERS_MAX: usize = 16;
/// Longest name of a rule, method, header, parameter, form field, pointer, metadata key or cluster, in bytes.
pub const TEXT_LEN_MAX: usize = 256;
/// Largest `body_bytes_max`: a worker may hold this much for each pending request.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Largest `timeout_ms`.
pub const TIMEOUT_MS_MAX: u32 = 30_000;
/// Largest `batch_max`: the most checks that one call accepts.
pub const BATCH_MAX: usize = 32;

const BODY_BYTES_DEFAULT: usize = 64 << 10;
const TIMEOUT_MS_DEFAULT: u32 = 500;

/// Some frameworks use the method in a body instead of the request's own.
const METHOD_IN_BODY: &str = "the body names a method (_method), which some gateways take for the request's own";

/// Why a document is refused: the place, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct RuleError {
    place: String,
    problem: String,
}

impl RuleError {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// The whole document, in the proxy's plugin configuration and in the server's rules file.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawDocument")]
pub struct Document {
    /// Envoy's name of the cluster that serves decisions. The filter needs it, the server does not.
    pub cluster: Option<String>,
    /// URLs of the decision servers. The native host needs them instead of the cluster.
    pub servers: Vec<String>,
    /// Most checks that the proxy filter sends in one call; 1 sends each check separately. The server does not need it.
    pub batch_max: usize,
    pub unmatched: Unmatched,
    pub rules: RuleSet,
}

impl Document {
    /// Reads a JSON document.
    ///
    /// # Errors
    /// [`RuleError`] names the rule and the field, or the position of invalid JSON.
    pub fn from_json(document: &[u8]) -> Result<Self, RuleError> {
        let refused = |problem: String| RuleError::new("the rules document", problem);
        let text = document_text(document).map_err(|error| refused(error.to_string()))?;
        let raw: RawDocument = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        raw.try_into()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocument {
    cluster: Option<String>,
    #[serde(default)]
    servers: Vec<String>,
    batch_max: Option<usize>,
    #[serde(default)]
    unmatched: Unmatched,
    rules: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: String,
    r#match: RawMatch,
    #[serde(default)]
    action: Action,
    settle: Option<SettleOn>,
    settle_amount_header: Option<String>,
    outcome_header: Option<String>,
    extract: RawExtract,
    #[serde(default)]
    absent: Vec<RawAbsent>,
    #[serde(default)]
    case: RawCase,
    #[serde(default)]
    strip_leading_zeros: Vec<String>,
    unit: Unit,
    #[serde(default)]
    allow_zero: bool,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    on_error: OnError,
    body_bytes_max: Option<usize>,
    timeout_ms: Option<u32>,
    void_on: Option<RawVoidOn>,
    replays: Option<RawReplays>,
    trust: Option<RawTrust>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    methods: Vec<String>,
    path: String,
    #[serde(default)]
    dots: Dots,
}

/// The meaning of a dot in the captured last segment of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dots {
    /// Routers with format suffixes would read another value, so the request is refused.
    #[default]
    Refuse,
    /// It belongs to the value: the gateway's router has no format suffixes.
    Keep,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    merchant: Option<Case>,
    currency: Option<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVoidOn {
    statuses: Vec<String>,
    #[serde(default)]
    except: Vec<u16>,
}

/// How further requests for an order that is charged already are decided.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "`pass`, `refuse` or a number from 0 to 31")]
enum RawReplays {
    Word(Replays),
    Number(u64),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Replays {
    Pass,
    Refuse,
}

/// That payments may be admitted from rights.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrust {
    report_ms: Option<u32>,
}

impl TryFrom<RawDocument> for Document {
    type Error = RuleError;

    fn try_from(raw: RawDocument) -> Result<Self, RuleError> {
        if let Some(cluster) = &raw.cluster {
            bounded(cluster).map_err(|problem| RuleError::new("cluster", problem))?;
        }
        if raw.servers.len() > SERVERS_MAX {
            let problem = format!("must hold at most {SERVERS_MAX} URLs, it has {}", raw.servers.len());
            return Err(RuleError::new("servers", problem));
        }
        raw.servers
            .iter()
            .try_for_each(|server| bounded(server).map_err(|problem| RuleError::new("servers", problem)))?;
        let batch_max = within(raw.batch_max.unwrap_or(BATCH_MAX), 1, BATCH_MAX)
            .map_err(|problem| RuleError::new("batch_max", problem))?;
        Ok(Self {
            cluster: raw.cluster,
            servers: raw.servers,
            batch_max,
            unmatched: raw.unmatched,
            rules: RuleSet::try_from(raw.rules)?,
        })
    }
}

impl TryFrom<Vec<RawRule>> for RuleSet {
    type Error = RuleError;

    fn try_from(raw: Vec<RawRule>) -> Result<Self, RuleError> {
        if raw.is_empty() || raw.len() > RULES_MAX {
            return Err(RuleError::new("rules", format!("must hold 1 to {RULES_MAX} rules, it has {}", raw.len())));
        }
        let rules: Vec<Rule> = raw.into_iter().map(Rule::try_from).collect::<Result<_, _>>()?;
        for (at, rule) in rules.iter().enumerate() {
            if rules.iter().take(at).any(|other| other.name == rule.name) {
                return Err(RuleError::new(format!("rule {:?}", rule.name), "name: is used by another rule"));
            }
        }
        if rules.iter().all(|rule| rule.mode == Mode::Off) {
            return Err(RuleError::new("rules", "every rule's mode is off, so nothing would be enforced"));
        }
        Ok(Self(rules.into_iter().map(Arc::new).collect()))
    }
}

impl TryFrom<RawRule> for Rule {
    type Error = RuleError;

    fn try_from(raw: RawRule) -> Result<Self, RuleError> {
        let place = format!("rule {:?}", raw.name.chars().take(TEXT_LEN_MAX).collect::<String>());
        build(raw).map_err(|(field, problem)| RuleError::new(place, format!("{field}: {problem}")))
    }
}

type Problem = (String, String);

fn build(raw: RawRule) -> Result<Rule, Problem> {
    let at = |field: &str| {
        let field = field.to_owned();
        move |problem: String| (field, problem)
    };
    bounded(&raw.name).map_err(at("name"))?;
    let methods = methods(raw.r#match.methods).map_err(at("match.methods"))?;
    let path =
        Template::parse(&raw.r#match.path, SEGMENTS_MAX, raw.r#match.dots == Dots::Keep).map_err(at("match.path"))?;
    let mut names = Names::default();
    let fields = fields(raw.extract, raw.action, &path, &mut names)?;
    absent(raw.absent, &mut names).map_err(at("absent"))?;
    elsewhere::refuse(&fields, &mut names);
    names.form.refuse(Name::new(PARAMETER), || METHOD_IN_BODY.to_owned());
    names.json.refuse_key(Name::new(PARAMETER), || METHOD_IN_BODY.to_owned());
    let normal = normal(raw.case, &raw.strip_leading_zeros)?;
    let settle = settle(raw.action, raw.settle).map_err(at("settle"))?;
    let settle_amount_header = settle_amount_header(raw.action, settle, raw.settle_amount_header);
    let body_bytes_max = within(raw.body_bytes_max.unwrap_or(BODY_BYTES_DEFAULT), 1, BODY_BYTES_MAX);
    let timeout_ms = within(raw.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT), 1, TIMEOUT_MS_MAX);
    let rule = Rule {
        name: raw.name,
        action: raw.action,
        settle,
        settle_amount_header: settle_amount_header.map_err(at("settle_amount_header"))?,
        outcome_header: outcome_header(raw.action, raw.outcome_header).map_err(at("outcome_header"))?,
        unit: raw.unit,
        allow_zero: raw.allow_zero,
        mode: raw.mode,
        on_error: raw.on_error,
        body_bytes_max: body_bytes_max.map_err(at("body_bytes_max"))?,
        timeout_ms: timeout_ms.map_err(at("timeout_ms"))?,
        void_on: void_on(raw.void_on).map_err(at("void_on"))?,
        trust: trust(raw.action, raw.replays, raw.trust)?,
        replays_max: replays_max(raw.action, raw.replays).map_err(at("replays"))?,
        methods,
        path,
        places: super::places(&fields),
        fields,
        names,
        normal,
    };
    rule.check_constants().map_err(|(field, problem)| (format!("extract.{}", field.as_str()), problem))?;
    Ok(rule)
}

fn normal(case: RawCase, strip_leading_zeros: &[String]) -> Result<Normal, Problem> {
    let upper_currency = match case.currency {
        None => false,
        Some(Case::Upper) => true,
        Some(Case::Lower) => {
            return Err(("case.currency".to_owned(), "must be upper, as ISO 4217 writes its codes".to_owned()));
        }
    };
    let merchant = Field::Merchant.as_str();
    match strip_leading_zeros.iter().find(|field| *field != merchant) {
        Some(field) => Err(("strip_leading_zeros".to_owned(), format!("is for {merchant} only, not for {field:?}"))),
        None => {
            Ok(Normal { merchant_case: case.merchant, strip_zeros: !strip_leading_zeros.is_empty(), upper_currency })
        }
    }
}

fn replays_max(action: Action, replays: Option<RawReplays>) -> Result<Option<u8>, String> {
    match (action, replays) {
        (_, None) => Ok(None),
        (Action::Settle | Action::Refund | Action::Void | Action::Check, Some(_)) => {
            Err(format!("is for the actions consume and hold, this one is {}", action.as_str()))
        }
        (Action::Consume | Action::Hold, Some(RawReplays::Word(Replays::Pass))) => Ok(None),
        (Action::Consume | Action::Hold, Some(RawReplays::Word(Replays::Refuse))) => Ok(Some(0)),
        (Action::Consume | Action::Hold, Some(RawReplays::Number(number))) => {
            let max = u8::try_from(number).ok().filter(|max| *max <= REPLAYS_MAX);
            max.map(Some).ok_or_else(|| format!("must be pass, refuse or 0 to {REPLAYS_MAX}, it is {number}"))
        }
    }
}

fn trust(action: Action, replays: Option<RawReplays>, trust: Option<RawTrust>) -> Result<Option<RuleTrust>, Problem> {
    let Some(RawTrust { report_ms }) = trust else { return Ok(None) };
    let problem = |text: String| Err(("trust".to_owned(), text));
    match (action, replays) {
        (Action::Hold | Action::Settle | Action::Refund | Action::Void | Action::Check, _) => {
            problem(format!("is for the action consume, this one is {}", action.as_str()))
        }
        (Action::Consume, Some(RawReplays::Word(Replays::Refuse) | RawReplays::Number(_))) => {
            problem("cannot be combined with replays: a right admits a repetition without knowing the first".to_owned())
        }
        (Action::Consume, Some(RawReplays::Word(Replays::Pass)) | None) => {
            let report_ms = within(report_ms.unwrap_or(RuleTrust::REPORT_MS_DEFAULT), 1, RuleTrust::REPORT_MS_MAX);
            let report_ms = report_ms.map_err(|problem| ("trust.report_ms".to_owned(), problem))?;
            Ok(Some(RuleTrust { report_ms }))
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(value: T, min: T, max: T) -> Result<T, String> {
    if value < min || value > max { Err(format!("must be {min} to {max}, it is {value}")) } else { Ok(value) }
}

fn bounded(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > TEXT_LEN_MAX {
        return Err(format!("must have 1 to {TEXT_LEN_MAX} bytes, it has {}", text.len()));
    }
    if text.chars().any(char::is_control) { Err("must not hold control characters".to_owned()) } else { Ok(()) }
}

fn methods(methods: Vec<String>) -> Result<Vec<String>, String> {
    if methods.is_empty() || methods.len() > METHODS_MAX {
        return Err(format!("must name 1 to {METHODS_MAX} methods, it names {}", methods.len()));
    }
    match methods.iter().find(|method| !is_token(method)) {
        Some(method) => Err(format!("{method:?} is not an HTTP method")),
        None => Ok(methods),
    }
}

/// A token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    bounded(text).is_ok() && text.bytes().all(allowed)
}

fn settle(action: Action, settle: Option<SettleOn>) -> Result<SettleOn, String> {
    match (action, settle) {
        (Action::Hold, settle) => Ok(settle.unwrap_or_default()),
        (_, None) => Ok(SettleOn::default()),
        (_, Some(_)) => Err(format!("is for the action hold, this one is {}", action.as_str())),
    }
}

fn settle_amount_header(action: Action, settle: SettleOn, name: Option<String>) -> Result<Option<String>, String> {
    let Some(name) = name else { return Ok(None) };
    match (action, settle) {
        (Action::Settle, _) | (Action::Hold, SettleOn::Success) => {}
        (Action::Hold, SettleOn::Later) => return Err("is never read where settle is later".to_owned()),
        (Action::Consume | Action::Refund | Action::Void | Action::Check, _) => {
            return Err(format!("is for the actions hold and settle, this one is {}", action.as_str()));
        }
    }
    answer_header(&name).map(Some)
}

fn outcome_header(action: Action, name: Option<String>) -> Result<Option<String>, String> {
    match (action, name) {
        (_, None) => Ok(None),
        (Action::Check, Some(_)) => Err("is of no use to the action check, which changes nothing".to_owned()),
        (Action::Consume | Action::Hold | Action::Settle | Action::Refund | Action::Void, Some(name)) => {
            answer_header(&name).map(Some)
        }
    }
}

/// The lower-case name of a header of the gateway's answer.
fn answer_header(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    if is_token(&name) { Ok(name) } else { Err(format!("{name:?} is not a header name")) }
}

fn void_on(raw: Option<RawVoidOn>) -> Result<VoidOn, String> {
    let Some(raw) = raw else {
        let statuses = VoidOn::REFUSALS.to_vec();
        return Ok(VoidOn { client_errors: false, server_errors: false, statuses, except: Vec::new() });
    };
    if raw.statuses.len() > STATUSES_MAX || raw.except.len() > STATUSES_MAX {
        return Err(format!("takes at most {STATUSES_MAX} statuses and exceptions"));
    }
    let mut parsed = VoidOn { client_errors: false, server_errors: false, statuses: Vec::new(), except: raw.except };
    for status in &raw.statuses {
        match (status.as_str(), status.parse::<u16>()) {
            ("4xx", _) => parsed.client_errors = true,
            ("5xx", _) => parsed.server_errors = true,
            (_, Ok(code @ 400..=599)) => parsed.statuses.push(code),
            _ => return Err(format!("statuses: {status:?} is not 4xx, 5xx or 400 to 599")),
        }
    }
    match parsed.except.iter().find(|code| !(400..=599).contains(*code)) {
        Some(code) => Err(format!("except: {code} is not 400 to 599")),
        None => Ok(parsed),
    }
}
