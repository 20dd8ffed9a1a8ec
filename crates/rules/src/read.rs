//! Reads one request: first its head, then its body.

mod body;
mod head;

use std::borrow::Cow;

use body::Body;
pub(super) use head::is_same_variable;
pub use head::{Head, Unreadable, length_bit, query};
use head::{single, singles, text};

use super::json::Scalar;
use super::{Captures, Field, Need, Rule, Source, elsewhere};
use quota::{AmountMinor, Channel, Code, Currency, MerchantId, OperationNo, OrderNo, PaymentNo, Unit};

/// Longest text of an amount, in bytes: every amount that can be accepted is shorter.
pub const AMOUNT_LEN_MAX: usize = 64;

/// The fields of a request. Those that its rule's action requires are set ([`Action::need`](super::Action::need)).
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
    /// The caller's number of a capture or refund, which identifies its repetitions.
    pub operation_no: Option<OperationNo>,
    /// Whether a capture is the last one of its hold.
    pub is_final: bool,
}

/// Why a request is refused without a check: `BAD_REQUEST`, `BAD_AMOUNT`, `BODY_TOO_LARGE` or `UNSUPPORTED_CONTENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// The field, the source and the problem. Safe to show: nothing of the request is repeated.
    pub detail: String,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// A request whose body is not read yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// By field and source, in the rule's order.
    values: Vec<Option<Scalar<'static>>>,
    /// The values of fields in cookies, which must be the same.
    cookies: Vec<(Field, String)>,
    body: Body,
}

impl Rule {
    /// Reads everything but the body, and refuses a request at once where the body cannot change the result.
    ///
    /// # Errors
    /// [`Refusal`] where the head is contradictory, or announces a body that is too large or cannot be read.
    pub fn read_head(&self, head: &impl Head, captures: &Captures) -> Result<Draft, Refusal> {
        let body = self.body_kind(head)?;
        let query = self.names.query.read(head.query()).map_err(|problem| bad(&problem))?;
        let mut values = Vec::with_capacity(self.sources().count());
        for (field, sources) in &self.fields {
            for source in sources {
                let value = head_value(head, captures, &query, source);
                let text = value.map_err(|problem| refuse(*field, source, &problem))?;
                values.push(text.map(|text| Scalar::Text(Cow::Owned(text))));
            }
        }
        Ok(Draft { values, cookies: elsewhere::cookies(head, &self.names.cookies), body })
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

pub(super) fn head_value(
    head: &impl Head,
    captures: &Captures,
    query: &[Option<String>],
    source: &Source,
) -> Result<Option<String>, String> {
    Ok(match source {
        Source::Header(name) => single(head, name)?.map(str::to_owned),
        Source::Path(name) => captures.get(name).map(str::to_owned),
        Source::Query { slot, .. } => query.get(*slot).cloned().flatten(),
        Source::Metadata(path) => match head.metadata(path) {
            Ok(None) => None,
            Ok(Some(value)) if value.iter().all(u8::is_ascii_graphic) => Some(text(&value)?.to_owned()),
            Ok(Some(_)) => return Err("is not a string of visible ASCII characters".to_owned()),
            Err(Unreadable) => return Err("could not be read".to_owned()),
        },
        Source::Constant(text) => Some(text.clone()),
        Source::Json { .. } | Source::Form { .. } => None,
    })
}

/// What was read of a body, by the slots of the rule's sources.
enum BodyValues<'b> {
    None,
    Json(Vec<Option<Scalar<'b>>>),
    Form(Vec<Option<Scalar<'b>>>),
}

impl<'b> BodyValues<'b> {
    /// The value of a source in the body.
    fn value(&self, source: &Source) -> Option<&Scalar<'b>> {
        match (self, source) {
            (Self::Json(read), Source::Json { slot, .. }) | (Self::Form(read), Source::Form { slot, .. }) => {
                read.get(*slot)?.as_ref()
            }
            (Self::None | Self::Json(_) | Self::Form(_), _) => None,
        }
    }
}

impl Draft {
    /// Whether the body is needed before the charge can be read: for the rule's sources, or because a gateway may find in it
    /// a field that the rule reads elsewhere.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        self.body != Body::None
    }

    /// The value of a source, by its position among all of the rule.
    pub(super) fn value(&self, at: usize) -> Option<&Scalar<'static>> {
        self.values.get(at)?.as_ref()
    }

    /// Reads the body, where the rule has sources in it, and returns the request. `rule` is the one that created the draft.
    ///
    /// # Errors
    /// [`Refusal`] names the field, the source and the problem.
    pub fn finish(&mut self, rule: &Rule, body: &[u8]) -> Result<Request, Refusal> {
        if self.needs_body() && body.len() > rule.body_bytes_max {
            return Err(rule.too_large());
        }
        let read = match self.body {
            Body::None => BodyValues::None,
            // The body is required only if the rule has sources in it.
            _ if body.is_empty() && !rule.reads_body() => BodyValues::None,
            Body::Json => BodyValues::Json(rule.names.json.read(body).map_err(|problem| bad(&problem))?),
            Body::Form => {
                let read = rule.names.form.read(body).map_err(|problem| bad(&problem))?;
                BodyValues::Form(read.into_iter().map(|text| Some(Scalar::Text(Cow::Owned(text?)))).collect())
            }
            Body::Opaque => return Err(opaque()),
        };
        let request = self.request(rule, &read);
        if request.is_err() {
            self.keep(rule, &read);
        }
        request
    }

    fn request(&self, rule: &Rule, read: &BodyValues<'_>) -> Result<Request, Refusal> {
        let fields = Fields { draft: self, rule, read };
        let merchant = fields.required(Field::Merchant, |text| merchant(rule, text))?;
        let order_no = fields.needed(Field::OrderNo, |text| plain(OrderNo::parse(text)))?;
        let currency = fields.required(Field::Currency, |text| currency(rule, text))?;
        Ok(Request {
            merchant,
            amount: fields.needed(Field::Amount, |text| own_amount(rule, currency, text))?,
            currency,
            order_no,
            payment_no: fields.needed(Field::PaymentNo, |text| plain(PaymentNo::parse(text)))?,
            channel: fields.needed(Field::Channel, |text| plain(Channel::parse(text)))?,
            operation_no: fields.needed(Field::OperationNo, |text| plain(OperationNo::parse(text)))?,
            is_final: fields.needed(Field::Final, is_final)?.unwrap_or(true),
        })
    }

    /// Keeps what was read of the body of a refused request, for [`Draft::salvage`].
    fn keep(&mut self, rule: &Rule, read: &BodyValues<'_>) {
        let values = self.values.iter_mut().zip(rule.sources());
        for (value, source) in values.filter(|(_, source)| source.is_body()) {
            *value = read.value(source).and_then(Scalar::kept);
        }
    }
}

/// The fields of one request.
struct Fields<'a, 'b> {
    draft: &'a Draft,
    rule: &'a Rule,
    read: &'a BodyValues<'b>,
}

impl Fields<'_, '_> {
    /// The field's value, which is mandatory if the rule's action requires it.
    fn needed<T: PartialEq>(
        &self,
        field: Field,
        parse: impl Fn(&str) -> Result<T, (Code, String)>,
    ) -> Result<Option<T>, Refusal> {
        match self.rule.action.need(field) {
            Need::Required => self.required(field, parse).map(Some),
            Need::Optional | Need::No => self.field(field, parse),
        }
    }

    fn required<T: PartialEq>(
        &self,
        field: Field,
        parse: impl Fn(&str) -> Result<T, (Code, String)>,
    ) -> Result<T, Refusal> {
        self.field(field, parse)?.ok_or_else(|| {
            let code = if field == Field::Amount { Code::BadAmount } else { Code::BadRequest };
            let sources = self.rule.fields.iter().filter(|(own, _)| *own == field).flat_map(|(_, sources)| sources);
            let places: Vec<String> = sources.map(Source::describe).collect();
            Refusal::new(code, format!("{} ({}) is missing", field.as_str(), places.join(", ")))
        })
    }

    /// The field's value: the first source that has one, and every other source that has one must agree.
    fn field<T: PartialEq>(
        &self,
        field: Field,
        parse: impl Fn(&str) -> Result<T, (Code, String)>,
    ) -> Result<Option<T>, Refusal> {
        let mut result: Option<T> = None;
        let Some((start, sources)) = self.rule.field(field) else {
            return Ok(None);
        };
        let is_optional = self.rule.action.need(field) == Need::Optional;
        for (at, source) in (start..).zip(sources) {
            let value = if source.is_body() { self.read.value(source) } else { self.draft.value(at) };
            let text = |value| scalar_text(field, is_optional, source, value);
            let Some(text) = value.map_or(Ok(None), text)? else {
                continue;
            };
            let parsed = parse(text).map_err(|(code, problem)| {
                let hint = blank_hint(source, text);
                Refusal::new(code, format!("{} ({}): {problem}{hint}", field.as_str(), source.describe()))
            })?;
            match &result {
                Some(first) if *first != parsed => {
                    return Err(refuse(field, source, "differs from another source of the same field"));
                }
                Some(_) => {}
                None => result = Some(parsed),
            }
        }
        let mut cookies = self.draft.cookies.iter().filter(|(own, _)| *own == field);
        if cookies.any(|(_, text)| parse(text).ok() != result) {
            return Err(bad(&format!("{} differs in a cookie, where some gateways would read it", field.as_str())));
        }
        Ok(result)
    }
}

fn scalar_text<'a>(
    field: Field,
    is_optional: bool,
    source: &Source,
    value: &'a Scalar<'_>,
) -> Result<Option<&'a str>, Refusal> {
    let code = if field == Field::Amount { Code::BadAmount } else { Code::BadRequest };
    let wrong =
        |problem: &str| Err(Refusal::new(code, format!("{} ({}) {problem}", field.as_str(), source.describe())));
    match (value, field) {
        (Scalar::Text(text), _) => Ok(Some(text)),
        (Scalar::Number(text), Field::Amount) => Ok(Some(text)),
        (Scalar::Bool(text), Field::Final) => Ok(Some(text)),
        (Scalar::Number(_) | Scalar::Other, Field::Final) => wrong("is neither true nor false"),
        (Scalar::Number(_), Field::Currency) => wrong("is a number, not a string"),
        (Scalar::Number(text), _) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            match text.parse::<u64>().ok().and_then(AmountMinor::new) {
                Some(_) => Ok(Some(text)),
                None => wrong("is a number above 9007199254740991, which some gateways round: write it as a string"),
            }
        }
        (Scalar::Number(_), _) => wrong("is a number that is not a plain integer"),
        (Scalar::Null, _) if is_optional => Ok(None),
        (Scalar::Null, _) => wrong("is null"),
        (Scalar::Bool(_) | Scalar::Other, _) => wrong("is not a string or a number"),
    }
}

/// A hint for a blank in a parameter's value, which most often was a `+`.
fn blank_hint(source: &Source, text: &str) -> &'static str {
    match source {
        Source::Query { .. } | Source::Form { .. } if text.contains(' ') => {
            "; it has a blank, which is what a '+' means here: write %2B for a plus sign"
        }
        Source::Query { .. }
        | Source::Form { .. }
        | Source::Header(_)
        | Source::Path(_)
        | Source::Json { .. }
        | Source::Metadata(_)
        | Source::Constant(_) => "",
    }
}

fn opaque() -> Refusal {
    let detail = "the body may hold fields that some gateways would read, and it is not JSON or a plain form in utf-8";
    Refusal::new(Code::UnsupportedContent, detail)
}

fn merchant(rule: &Rule, text: &str) -> Result<MerchantId, (Code, String)> {
    plain(MerchantId::parse(&rule.normal.merchant(text)))
}

fn currency(rule: &Rule, text: &str) -> Result<Currency, (Code, String)> {
    plain(Currency::parse(&rule.normal.currency(text)))
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
    amount(text, rule.unit, currency, rule.allow_zero).map_err(|problem| (Code::BadAmount, problem))
}

impl Rule {
    /// Reads every constant like a request's value. An amount in a currency that only the request names may have the most
    /// decimals of any currency.
    pub(super) fn check_constants(&self) -> Result<(), (Field, String)> {
        let constants = |field| {
            let sources = self.fields.iter().filter(move |(own, _)| *own == field).flat_map(|(_, sources)| sources);
            sources.filter_map(|source| if let Source::Constant(text) = source { Some(text.as_str()) } else { None })
        };
        let any = || Currency::all().max_by_key(|currency| currency.exponent());
        let known = constants(Field::Currency).find_map(|text| currency(self, text).ok()).or_else(any);
        for (field, _) in &self.fields {
            if constants(*field).count() > 1 {
                return Err((*field, "lists more than one constant".to_owned()));
            }
            for text in constants(*field) {
                check_constant(self, *field, known, text)
                    .map_err(|(_, problem)| (*field, format!("constant {text:?}: {problem}")))?;
            }
        }
        Ok(())
    }
}

fn check_constant(rule: &Rule, field: Field, known: Option<Currency>, text: &str) -> Result<(), (Code, String)> {
    match field {
        Field::Merchant => merchant(rule, text).map(drop),
        Field::Amount => known.map_or(Ok(()), |currency| own_amount(rule, currency, text).map(drop)),
        Field::Currency => currency(rule, text).map(drop),
        Field::OrderNo => plain(OrderNo::parse(text)).map(drop),
        Field::PaymentNo => plain(PaymentNo::parse(text)).map(drop),
        Field::Channel => plain(Channel::parse(text)).map(drop),
        Field::OperationNo => plain(OperationNo::parse(text)).map(drop),
        Field::Final => is_final(text).map(drop),
    }
}

/// Reads an amount; the error does not repeat it.
pub(super) fn amount(text: &str, unit: Unit, currency: Currency, allow_zero: bool) -> Result<AmountMinor, String> {
    if text.len() > AMOUNT_LEN_MAX {
        return Err(format!("the amount is written with more than {AMOUNT_LEN_MAX} bytes"));
    }
    AmountMinor::parse(text, unit, currency, allow_zero).map_err(|error| error.to_string())
}
