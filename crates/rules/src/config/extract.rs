//! The sources of a rule's fields, and the names that must be absent.

use serde::Deserialize;

use super::{POINTER_TOKENS_MAX, Problem, SOURCES_MAX, bounded, is_token};
use crate::json::Wanted;
use crate::name::Name;
use crate::params::Parameters;
use crate::path::Template;
use crate::{Action, Field, Need, Source};

/// Most entries of `absent`.
pub const ABSENT_MAX: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExtract {
    merchant: Vec<RawSource>,
    amount: Option<Vec<RawSource>>,
    currency: Vec<RawSource>,
    order_no: Option<Vec<RawSource>>,
    payment_no: Option<Vec<RawSource>>,
    channel: Option<Vec<RawSource>>,
    operation_no: Option<Vec<RawSource>>,
    r#final: Option<Vec<RawSource>>,
}

/// Exactly one of the members. A struct, not an enum, so that JSON and YAML write it alike.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    header: Option<String>,
    path: Option<String>,
    query: Option<String>,
    json: Option<String>,
    form: Option<String>,
    metadata: Option<Vec<String>>,
    constant: Option<String>,
}

/// A name that must not occur: exactly one of the members.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAbsent {
    query: Option<String>,
    json: Option<String>,
    form: Option<String>,
}

/// The names that a rule lists or refuses, by the part of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) query: Parameters,
    pub(crate) json: Wanted,
    pub(crate) form: Parameters,
    pub(crate) cookies: Vec<(Field, Name)>,
}

pub(super) type Fields = Vec<(Field, Vec<Source>)>;

pub(super) fn fields(raw: RawExtract, action: Action, path: &Template, names: &mut Names) -> Result<Fields, Problem> {
    // The currency comes before the amount, whose decimals it decides.
    let listed = [
        (Field::Merchant, Some(raw.merchant)),
        (Field::OrderNo, raw.order_no),
        (Field::Currency, Some(raw.currency)),
        (Field::Amount, raw.amount),
        (Field::PaymentNo, raw.payment_no),
        (Field::Channel, raw.channel),
        (Field::OperationNo, raw.operation_no),
        (Field::Final, raw.r#final),
    ];
    let mut fields = Vec::new();
    for (field, sources) in listed {
        let place = format!("extract.{}", field.as_str());
        let sources = match (sources, action.need(field)) {
            (Some(sources), Need::Required | Need::Optional) => sources,
            (None, Need::Optional | Need::No) => continue,
            (None, Need::Required) => return Err((place, format!("is needed for the action {}", action.as_str()))),
            (Some(_), Need::No) => return Err((place, format!("is of no use to the action {}", action.as_str()))),
        };
        if sources.is_empty() || sources.len() > SOURCES_MAX {
            let problem = format!("must list 1 to {SOURCES_MAX} sources, it lists {}", sources.len());
            return Err((place, problem));
        }
        let sources: Result<Vec<Source>, String> =
            sources.into_iter().map(|raw| source(raw, field, path, names)).collect();
        fields.push((field, sources.map_err(|problem| (place, problem))?));
    }
    Ok(fields)
}

/// The one member that is given.
fn only<T>(given: impl IntoIterator<Item = Option<T>>) -> Option<T> {
    let mut given = given.into_iter().flatten();
    given.next().filter(|_| given.next().is_none())
}

fn source(raw: RawSource, field: Field, path: &Template, names: &mut Names) -> Result<Source, String> {
    // The slots of query, json and form are given below.
    let given = [
        raw.header.map(Source::Header),
        raw.path.map(Source::Path),
        raw.query.map(|name| Source::Query { name, slot: 0 }),
        raw.json.map(|pointer| Source::Json { pointer, slot: 0 }),
        raw.form.map(|name| Source::Form { name, slot: 0 }),
        raw.metadata.map(Source::Metadata),
        raw.constant.map(Source::Constant),
    ];
    let source = only(given)
        .ok_or("a source has exactly one of header, path, query, json, form, metadata, constant".to_owned())?;
    let label = || format!("{} ({})", field.as_str(), source.describe());
    match &source {
        Source::Header(name) => header(name),
        Source::Path(name) if path.names().any(|own| own == name) => Ok(source),
        Source::Path(name) => Err(format!("path {name:?} is not captured by match.path")),
        Source::Query { name, .. } => {
            bounded(name).map_err(|problem| format!("query {problem}"))?;
            Ok(Source::Query { name: name.clone(), slot: names.query.list(name, label) })
        }
        Source::Form { name, .. } => {
            bounded(name).map_err(|problem| format!("form {problem}"))?;
            Ok(Source::Form { name: name.clone(), slot: names.form.list(name, label) })
        }
        Source::Json { pointer, .. } => {
            let slot = bounded(pointer).and_then(|()| names.json.add(pointer, POINTER_TOKENS_MAX));
            match slot {
                Ok(slot) => Ok(Source::Json { pointer: pointer.clone(), slot }),
                Err(problem) => Err(format!("json pointer {pointer:?} {problem}")),
            }
        }
        Source::Metadata(keys) => metadata(keys).map(|()| source),
        Source::Constant(text) => {
            bounded(text).map(|()| source.clone()).map_err(|problem| format!("constant {problem}"))
        }
    }
}

fn header(name: &str) -> Result<Source, String> {
    let name = name.to_ascii_lowercase();
    if !is_token(&name) {
        Err(format!("header {name:?} is not a header name"))
    } else if name.starts_with("x-sluice-") {
        Err(format!("header {name:?} is stripped from requests: only the proxy sets x-sluice-*"))
    } else {
        Ok(Source::Header(name))
    }
}

fn metadata(keys: &[String]) -> Result<(), String> {
    let fits = (2..=POINTER_TOKENS_MAX).contains(&keys.len());
    // A zero byte separates the keys in the proxy's own interface; `bounded` refuses it.
    if fits && keys.iter().all(|key| bounded(key).is_ok()) {
        Ok(())
    } else {
        Err(format!("metadata must be a namespace and 1 to {} keys, none of them empty", POINTER_TOKENS_MAX - 1))
    }
}

/// Adds what must not occur to the names of the rule.
pub(super) fn absent(raw: Vec<RawAbsent>, names: &mut Names) -> Result<(), String> {
    if raw.len() > ABSENT_MAX {
        return Err(format!("must list at most {ABSENT_MAX} names, it lists {}", raw.len()));
    }
    for entry in raw {
        let given = [
            entry.query.map(|name| Source::Query { name, slot: 0 }),
            entry.json.map(|pointer| Source::Json { pointer, slot: 0 }),
            entry.form.map(|name| Source::Form { name, slot: 0 }),
        ];
        let source = only(given).ok_or("an entry has exactly one of query, json, form")?;
        refuse(&source, names).map_err(|problem| format!("{} {problem}", source.describe()))?;
    }
    Ok(())
}

fn refuse(source: &Source, names: &mut Names) -> Result<(), String> {
    let reason = || format!("{}, or a name that some gateways read as it, must be absent", source.describe());
    let parameters = |parameters: &mut Parameters, name: &str| {
        bounded(name)?;
        if parameters.lists(name) {
            return Err("is a source of the rule".to_owned());
        }
        parameters.refuse(Name::new(name), reason);
        Ok(())
    };
    match source {
        Source::Query { name, .. } => parameters(&mut names.query, name),
        Source::Form { name, .. } => parameters(&mut names.form, name),
        Source::Json { pointer, .. } => {
            bounded(pointer).and_then(|()| names.json.refuse(pointer, POINTER_TOKENS_MAX, reason()))
        }
        Source::Header(_) | Source::Path(_) | Source::Metadata(_) | Source::Constant(_) => Ok(()),
    }
}
