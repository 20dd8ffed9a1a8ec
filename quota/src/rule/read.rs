//! Reads one request: first what the head of the request holds, then what the body does.

use std::borrow::Cow;

use super::json::Scalar;
use super::{Captures, Field, Need, Rule, Source};
use crate::{AmountMinor, Channel, Code, Currency, MerchantId, OperationNo, OrderNo, PaymentNo, Unit};

/// Longest text of an amount, in bytes: every amount that can be accepted is shorter.
pub const AMOUNT_LEN_MAX: usize = 64;

/// What a request asks for. What its rule's action requires is there ([`Action::need`](super::Action::need)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub merchant: MerchantId,
    /// `None` captures or refunds all that is left.
    pub amount: Option<AmountMinor>,
    pub currency: Currency,
    /// `None` on checks only.
    pub order_no: Option<OrderNo>,
    pub payment_no: Option<PaymentNo>,
    pub channel: Option<Channel>,
    /// The caller's number of a capture or refund, by which its repetition is known.
    pub operation_no: Option<OperationNo>,
    /// Whether a capture is the last one of its hold.
    pub is_final: bool,
}

/// Why a request is refused unasked: `BAD_REQUEST`, `BAD_AMOUNT`, `BODY_TOO_LARGE` or `UNSUPPORTED_CONTENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// Which field, which source and what is wrong. Safe to show: nothing of the request is repeated.
    pub detail: String,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// The proxy failed to hand out a part of the request, which is not the same as the part being absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What is known of a request before its body.
pub trait Head {
    /// Every value of a header, by its lower-case name.
    fn header(&self, name: &str) -> Vec<&[u8]>;
    /// The path with the query.
    fn path(&self) -> &str;
    /// A string in Envoy's dynamic metadata; `None` where it is not set.
    ///
    /// # Errors
    /// [`Unreadable`] where the proxy did not answer: never the same as absent, or a client could choose the next source.
    fn metadata(&self, path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable>;
}

/// How the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// Not at all.
    None,
    Json,
    Form,
}

/// A request whose body sources are still open.
#[derive(Clone, Debug)]
pub struct Draft {
    values: Vec<Vec<Option<Scalar>>>,
    body: Body,
}

impl Rule {
    /// Reads everything but the body, and refuses at once what the body cannot mend.
    ///
    /// # Errors
    /// [`Refusal`] where the head is contradictory, or announces a body that is too large or cannot be read.
    pub fn read_head(&self, head: &impl Head, captures: &Captures) -> Result<Draft, Refusal> {
        let body = self.body_kind(head)?;
        let mut values = Vec::with_capacity(self.fields.len());
        for (field, sources) in &self.fields {
            let read = |source| head_value(head, captures, source).map_err(|problem| refuse(*field, source, &problem));
            values.push(sources.iter().map(read).collect::<Result<_, _>>()?);
        }
        Ok(Draft { values, body })
    }

    fn body_kind(&self, head: &impl Head) -> Result<Body, Refusal> {
        if !self.needs_body() {
            return Ok(Body::None);
        }
        let unsupported = |detail: &str| Refusal::new(Code::UnsupportedContent, detail);
        let length =
            single(head, "content-length").map_err(|problem| bad(&format!("header content-length {problem}")))?;
        if let Some(length) = length {
            self.check_length(&length)?;
        }
        let coding = single(head, "content-encoding")
            .map_err(|problem| unsupported(&format!("header content-encoding {problem}")))?;
        if coding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
            return Err(unsupported("the body is compressed; send it with content-encoding identity"));
        }
        let media =
            single(head, "content-type").map_err(|problem| unsupported(&format!("header content-type {problem}")))?;
        let json = self.sources().any(|source| matches!(source, Source::Json { .. }));
        let form = self.sources().any(|source| matches!(source, Source::Form(_)));
        match media.as_deref().and_then(media_type) {
            Some(Body::Json) if json => Ok(Body::Json),
            Some(Body::Form) if form => Ok(Body::Form),
            _ => Err(unsupported(match (json, form) {
                (true, false) => "content-type must be application/json (or end in +json), in utf-8",
                (false, _) => "content-type must be application/x-www-form-urlencoded, in utf-8",
                (true, true) => "content-type must be application/json or application/x-www-form-urlencoded, in utf-8",
            })),
        }
    }

    fn check_length(&self, length: &str) -> Result<(), Refusal> {
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse::<usize>() {
            Ok(bytes) if digits && bytes <= self.body_bytes_max => Ok(()),
            _ if digits => Err(self.too_large()),
            _ => Err(bad("header content-length is not a number")),
        }
    }

    /// The refusal of a body longer than the rule reads.
    #[must_use]
    pub fn too_large(&self) -> Refusal {
        Refusal::new(Code::BodyTooLarge, format!("the body is larger than {} bytes", self.body_bytes_max))
    }
}

fn bad(detail: &str) -> Refusal {
    Refusal::new(Code::BadRequest, detail)
}

fn refuse(field: Field, source: &Source, problem: &str) -> Refusal {
    Refusal::new(Code::BadRequest, format!("{} ({}) {problem}", field.as_str(), source.describe()))
}

/// The one value of a header. Equal repetitions count as one.
fn single(head: &impl Head, name: &str) -> Result<Option<String>, String> {
    let values = head.header(name);
    let Some((first, rest)) = values.split_first() else {
        return Ok(None);
    };
    if rest.iter().any(|other| other != first) {
        return Err("is given more than once, with different values".to_owned());
    }
    text(first).map(Some)
}

fn text(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "is not UTF-8".to_owned())
}

fn media_type(value: &str) -> Option<Body> {
    let mut parts = value.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let utf8 = |part: &str| match part.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    let single = !essence.contains([',', ' ']) && essence.matches('/').count() == 1;
    match essence.as_str() {
        _ if !parts.all(utf8) => None,
        "application/x-www-form-urlencoded" => Some(Body::Form),
        "application/json" => Some(Body::Json),
        _ if single && essence.ends_with("+json") => Some(Body::Json),
        _ => None,
    }
}

fn head_value(head: &impl Head, captures: &Captures, source: &Source) -> Result<Option<Scalar>, String> {
    let found = match source {
        Source::Header(name) => single(head, name)?,
        Source::Path(name) => captures.get(name).map(str::to_owned),
        Source::Query(name) => {
            let query = head.path().split_once('?').map_or("", |(_, query)| query);
            parameter(query.split('#').next().unwrap_or_default().as_bytes(), name)?
        }
        Source::Metadata(path) => match head.metadata(path) {
            Ok(None) => None,
            Ok(Some(value)) if value.iter().all(u8::is_ascii_graphic) => Some(text(&value)?),
            Ok(Some(_)) => return Err("is not a string of visible ASCII characters".to_owned()),
            Err(Unreadable) => return Err("could not be read".to_owned()),
        },
        Source::Json { .. } | Source::Form(_) => None,
    };
    Ok(found.map(Scalar::Text))
}

/// The one value of a parameter in `application/x-www-form-urlencoded` text.
fn parameter(encoded: &[u8], name: &str) -> Result<Option<String>, String> {
    let mut values = form_urlencoded::parse(encoded).filter(|(own, _)| own == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err("is given more than once".to_owned()),
        (value, None) => Ok(value.map(Cow::into_owned)),
    }
}

impl Draft {
    /// Reads the body, where the rule has sources in it, and makes the request. `rule` is the one that made the draft.
    ///
    /// # Errors
    /// [`Refusal`] names the field, the source and what is wrong.
    pub fn finish(mut self, rule: &Rule, body: &[u8]) -> Result<Request, Refusal> {
        if self.body != Body::None && body.len() > rule.body_bytes_max {
            return Err(rule.too_large());
        }
        match self.body {
            Body::None => {}
            Body::Json => self.fill_json(rule, body)?,
            Body::Form => self.fill_form(rule, body)?,
        }
        let merchant = self.required(rule, Field::Merchant, |text| plain(MerchantId::parse(text)))?;
        let order_no = self.needed(rule, Field::OrderNo, |text| plain(OrderNo::parse(text)))?;
        let currency = self.required(rule, Field::Currency, |text| plain(Currency::parse(text)))?;
        Ok(Request {
            merchant,
            amount: self.needed(rule, Field::Amount, |text| own_amount(rule, currency, text))?,
            currency,
            order_no,
            payment_no: self.needed(rule, Field::PaymentNo, |text| plain(PaymentNo::parse(text)))?,
            channel: self.needed(rule, Field::Channel, |text| plain(Channel::parse(text)))?,
            operation_no: self.needed(rule, Field::OperationNo, |text| plain(OperationNo::parse(text)))?,
            is_final: self.needed(rule, Field::Final, is_final)?.unwrap_or(true),
        })
    }

    fn fill_json(&mut self, rule: &Rule, body: &[u8]) -> Result<(), Refusal> {
        let read = rule.wanted.read(body).map_err(|problem| bad(&problem))?;
        self.fill(rule, |_, source| match source {
            Source::Json { slot, .. } => Ok(read.get(*slot).cloned().flatten()),
            _ => Ok(None),
        })
    }

    fn fill_form(&mut self, rule: &Rule, body: &[u8]) -> Result<(), Refusal> {
        self.fill(rule, |field, source| match source {
            Source::Form(name) => match parameter(body, name) {
                Ok(value) => Ok(value.map(Scalar::Text)),
                Err(problem) => Err(refuse(field, source, &problem)),
            },
            _ => Ok(None),
        })
    }

    fn fill(
        &mut self,
        rule: &Rule,
        read: impl Fn(Field, &Source) -> Result<Option<Scalar>, Refusal>,
    ) -> Result<(), Refusal> {
        for ((field, sources), values) in rule.fields.iter().zip(&mut self.values) {
            for (source, value) in sources.iter().zip(values).filter(|(source, _)| source.is_body()) {
                *value = read(*field, source)?;
            }
        }
        Ok(())
    }

    /// The field's value, which must be there if the rule's action requires it.
    fn needed<T: PartialEq>(
        &self,
        rule: &Rule,
        field: Field,
        parse: impl Fn(&str) -> Result<T, (Code, String)>,
    ) -> Result<Option<T>, Refusal> {
        match rule.action.need(field) {
            Need::Required => self.required(rule, field, parse).map(Some),
            Need::Optional | Need::No => self.field(rule, field, parse),
        }
    }

    fn required<T: PartialEq>(
        &self,
        rule: &Rule,
        field: Field,
        parse: impl Fn(&str) -> Result<T, (Code, String)>,
    ) -> Result<T, Refusal> {
        self.field(rule, field, parse)?.ok_or_else(|| {
            let code = if field == Field::Amount { Code::BadAmount } else { Code::BadRequest };
            let sources = rule.fields.iter().filter(|(own, _)| *own == field).flat_map(|(_, sources)| sources);
            let places: Vec<String> = sources.map(Source::describe).collect();
            Refusal::new(code, format!("{} ({}) is missing", field.as_str(), places.join(", ")))
        })
    }

    /// The field's value: the first source that has one, and every other source that has one must agree.
    fn field<T: PartialEq>(
        &self,
        rule: &Rule,
        field: Field,
        parse: impl Fn(&str) -> Result<T, (Code, String)>,
    ) -> Result<Option<T>, Refusal> {
        let mut result: Option<T> = None;
        let own = rule.fields.iter().zip(&self.values).find(|((own, _), _)| *own == field);
        let Some(((_, sources), values)) = own else {
            return Ok(None);
        };
        for (source, value) in sources.iter().zip(values) {
            let is_optional = rule.action.need(field) == Need::Optional;
            let text = |value| scalar_text(field, is_optional, source, value);
            let Some(text) = value.as_ref().map_or(Ok(None), text)? else {
                continue;
            };
            let parsed = parse(text).map_err(|(code, problem)| {
                Refusal::new(code, format!("{} ({}): {problem}", field.as_str(), source.describe()))
            })?;
            match &result {
                Some(first) if *first != parsed => {
                    return Err(refuse(field, source, "differs from another source of the same field"));
                }
                Some(_) => {}
                None => result = Some(parsed),
            }
        }
        Ok(result)
    }
}

fn scalar_text<'a>(
    field: Field,
    is_optional: bool,
    source: &Source,
    value: &'a Scalar,
) -> Result<Option<&'a str>, Refusal> {
    let code = if field == Field::Amount { Code::BadAmount } else { Code::BadRequest };
    let wrong =
        |problem: &str| Err(Refusal::new(code, format!("{} ({}) {problem}", field.as_str(), source.describe())));
    match (value, field) {
        (Scalar::Text(text), _) | (Scalar::Number(text), Field::Amount) => Ok(Some(text)),
        (Scalar::Bool(text), Field::Final) => Ok(Some(text)),
        (Scalar::Number(_) | Scalar::Other, Field::Final) => wrong("is neither true nor false"),
        (Scalar::Number(_), Field::Currency) => wrong("is a number, not a string"),
        (Scalar::Number(text), _) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(text)),
        (Scalar::Number(_), _) => wrong("is a number that is not a plain integer"),
        (Scalar::Null, _) if is_optional => Ok(None),
        (Scalar::Null, _) => wrong("is null"),
        (Scalar::Bool(_) | Scalar::Other, _) => wrong("is not a string or a number"),
    }
}

fn plain<T, E: std::fmt::Display>(parsed: Result<T, E>) -> Result<T, (Code, String)> {
    parsed.map_err(|error| (Code::BadRequest, error.to_string()))
}

fn is_final(text: &str) -> Result<bool, (Code, String)> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err((Code::BadRequest, "must be true or false".to_owned())),
    }
}

fn own_amount(rule: &Rule, currency: Currency, text: &str) -> Result<AmountMinor, (Code, String)> {
    amount(text.as_bytes(), rule.unit, currency, rule.allow_zero).map_err(|problem| (Code::BadAmount, problem))
}

/// Reads an amount; the error does not repeat it.
pub(super) fn amount(text: &[u8], unit: Unit, currency: Currency, allow_zero: bool) -> Result<AmountMinor, String> {
    if text.len() > AMOUNT_LEN_MAX {
        return Err(format!("the amount is written with more than {AMOUNT_LEN_MAX} bytes"));
    }
    let text = std::str::from_utf8(text).map_err(|_| "the amount is not UTF-8".to_owned())?;
    AmountMinor::parse(text, unit, currency, allow_zero).map_err(|error| error.to_string())
}
