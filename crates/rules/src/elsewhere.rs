//! The names under which a gateway may find a field in another part of the request than the rule reads it in.
//!
//! Rails, Servlet, Flask's `values`, PHP's `$_REQUEST` and others merge query, form and JSON members into one map, and differ in
//! which one wins. So a field may be in the places that its rule lists, and in no other place that a gateway may merge.

use super::config::Names;
use super::json::tokens;
use super::name::Name;
use super::params::decoded;
use super::{Field, Head, POINTER_TOKENS_MAX, Source};

/// A part of the request that gateways merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Query,
    Form,
    Json,
}

impl Part {
    const ALL: [Self; 3] = [Self::Query, Self::Form, Self::Json];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "the query",
            Self::Form => "the form",
            Self::Json => "the body's own object",
        }
    }

    const fn of(source: &Source) -> Option<Self> {
        match source {
            Source::Query { .. } => Some(Self::Query),
            Source::Form { .. } => Some(Self::Form),
            Source::Json { .. } => Some(Self::Json),
            Source::Header(_) | Source::Path(_) | Source::Metadata(_) | Source::Constant(_) => None,
        }
    }
}

/// The usual names of a field.
const fn usual(field: Field) -> &'static [&'static str] {
    match field {
        Field::Merchant => &["merchant", "merchant_id"],
        Field::Amount => &["amount"],
        Field::Currency => &["currency"],
        Field::OrderNo => &["order_no"],
        Field::PaymentNo => &["payment_no"],
        Field::Channel => &["channel"],
        Field::OperationNo => &["operation_no"],
        Field::Final => &["final"],
    }
}

/// Adds, for every field and every part of the request, the names that must not occur there. Listed sources are kept.
pub(super) fn refuse(fields: &[(Field, Vec<Source>)], names: &mut Names) {
    for (field, sources) in fields {
        for part in Part::ALL {
            let reason = || {
                let places: Vec<String> = sources.iter().map(Source::describe).collect();
                let (field, part) = (field.as_str(), part.as_str());
                format!(
                    "{field} ({}) must not be in {part} as well, where some gateways would read it",
                    places.join(", ")
                )
            };
            for name in of(*field, sources, part) {
                match part {
                    Part::Query => {
                        names.cookies.push((*field, name.clone()));
                        names.query.refuse(name, reason);
                    }
                    Part::Form => names.form.refuse(name, reason),
                    Part::Json => names.json.refuse_key(name, reason),
                }
            }
        }
    }
}

/// The names of a field that one part of the request must not have.
fn of(field: Field, sources: &[Source], part: Part) -> Vec<Name> {
    let (own, other): (Vec<&Source>, Vec<&Source>) = sources.iter().partition(|source| Part::of(source) == Some(part));
    let mut names: Vec<Name> =
        other.into_iter().flat_map(|source| from(source, part)).map(|name| Name::new(&name)).collect();
    names.extend(own.into_iter().filter_map(map_of));
    // In a body from which the field is read, the usual name may have another meaning: the sum of several payments.
    if part == Part::Query || sources.iter().all(|source| Part::of(source) != Some(part)) {
        names.extend(usual(field).iter().copied().map(Name::new));
    }
    names
}

/// The map that a parameter is a member of: if the map is a parameter itself, some gateways read one of the two, some the other.
fn map_of(source: &Source) -> Option<Name> {
    match source {
        Source::Query { name, .. } | Source::Form { name, .. } => name.split_once('[').map(|(map, _)| Name::map(map)),
        Source::Json { .. } | Source::Header(_) | Source::Path(_) | Source::Metadata(_) | Source::Constant(_) => None,
    }
}

/// The names of a source in another part of the request.
fn from(source: &Source, part: Part) -> Vec<String> {
    match source {
        Source::Query { name, .. } | Source::Form { name, .. } | Source::Path(name) => vec![name.clone()],
        // A header's name is rarely that of a body's member, and a body may use it with another meaning.
        Source::Header(name) if part == Part::Query => {
            let short = name.strip_prefix("x-").map(str::to_owned);
            short.into_iter().chain([name.clone()]).collect()
        }
        // The whole pointer as a name (`a.b`, `a[b]`), its first member, which includes the others, and its last one.
        Source::Json { pointer, .. } if part != Part::Json => {
            let tokens = tokens(pointer, POINTER_TOKENS_MAX).unwrap_or_default();
            let is_key = |token: &&String| !token.bytes().all(|byte| byte.is_ascii_digit());
            let ends = [tokens.iter().find(is_key), tokens.iter().rfind(is_key)];
            ends.into_iter().flatten().cloned().chain([tokens.join(".")]).collect()
        }
        Source::Json { .. } | Source::Header(_) | Source::Metadata(_) | Source::Constant(_) => Vec::new(),
    }
}

/// The fields that cookies name, with the cookies' values. By default PHP merges cookies into `$_REQUEST`, after everything else.
/// Other software uses cookies with such names for its own purposes, so they are allowed and must agree.
pub(super) fn cookies(head: &impl Head, names: &[(Field, Name)]) -> Vec<(Field, String)> {
    const COOKIE: &str = "cookie";
    if names.is_empty() || !head.may_have(COOKIE.len()) {
        return Vec::new();
    }
    let headers = head.header(COOKIE);
    if headers.is_empty() {
        return Vec::new();
    }
    let pairs = headers.iter().flat_map(|header| header.split(|byte| *byte == b';'));
    let pairs =
        pairs.filter_map(|pair| pair.iter().position(|byte| *byte == b'=').and_then(|at| pair.split_at_checked(at)));
    let mut found = Vec::new();
    for (name, value) in pairs {
        let name = decoded(name);
        let fields = names.iter().filter(|(_, own)| own.is_read_from(&name)).map(|(field, _)| *field);
        found.extend(fields.map(|field| (field, decoded(value.get(1..).unwrap_or_default()).into_owned())));
    }
    found
}
