//! The members of a change of a line: what a line does not have is refused, also where it is to be removed. A misspelt name would
//! otherwise leave in force what its author meant to remove.

use std::sync::LazyLock;

use serde_json::{Map, Value};
use sluice_lines::LineInput;
use utoipa::{PartialSchema, ToSchema};

use crate::admin::problem::{Answer, Problem};

/// The schema of a line, and those that it refers to by name.
struct Schemas {
    line: Value,
    named: Map<String, Value>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let mut named = Vec::new();
    LineInput::schemas(&mut named);
    let json = |schema| serde_json::to_value(schema).unwrap_or_default();
    Schemas {
        line: json(LineInput::schema()),
        named: named.into_iter().map(|(name, schema)| (name, json(schema))).collect(),
    }
});

/// Refuses the first member that no line has.
///
/// # Errors
/// A problem with the field.
pub(super) fn check(line: &Map<String, Value>) -> Answer<()> {
    match SCHEMAS.unknown(line, &SCHEMAS.line) {
        Some(path) => Err(Problem::field(format!("line.{path}"), "is no member of a credit line")),
        None => Ok(()),
    }
}

impl Schemas {
    /// The path of the first member that the schema does not have.
    fn unknown(&self, members: &Map<String, Value>, schema: &Value) -> Option<String> {
        // What is of free form has no members of its own.
        let known = self.properties(schema);
        if known.is_empty() {
            return None;
        }
        members.iter().find_map(|(name, value)| {
            let Some(schema) = known.iter().find(|(known, _)| *known == name).map(|(_, schema)| schema) else {
                return Some(name.clone());
            };
            let inner = self.unknown(value.as_object()?, schema)?;
            Some(format!("{name}.{inner}"))
        })
    }

    /// The properties of a schema, and of those that it is made of.
    fn properties<'a>(&'a self, schema: &'a Value) -> Vec<(&'a String, &'a Value)> {
        let named = schema["$ref"].as_str().and_then(|path| self.named.get(path.rsplit('/').next()?));
        let parts = ["oneOf", "allOf", "anyOf"].into_iter().flat_map(|of| schema[of].as_array().into_iter().flatten());
        let own = schema["properties"].as_object().into_iter().flatten();
        own.chain(named.into_iter().chain(parts).flat_map(|part| self.properties(part))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_that_no_line_has_are_refused_whatever_their_value() {
        for (line, unknown) in [
            (json!({"limit_base": 5, "remarks": null, "expires_on": null, "metadata": null}), None),
            (json!({"terms": {"listed_channels": null, "cycle": {"every_days": null, "monthly": {"day": 1}}}}), None),
            (json!({"terms": {"stages": null, "dunning": null, "materiality": {"absolute": null}}}), None),
            (json!({"metadata": {"anything": null, "deep": {"er": null}}}), None),
            (json!({"expires": null}), Some("line.expires")),
            (json!({"expires": 5}), Some("line.expires")),
            (json!({"state": null}), Some("line.state")),
            (json!({"terms": {"due_day": null}}), Some("line.terms.due_day")),
            (json!({"terms": {"cycle": {"weekly": null}}}), Some("line.terms.cycle.weekly")),
            (json!({"terms": {"cycle": {"monthly": {"days": null}}}}), Some("line.terms.cycle.monthly.days")),
            (json!({"terms": {"materiality": {"": null}}}), Some("line.terms.materiality.")),
        ] {
            let refused = check(line.as_object().unwrap()).map_err(|problem| serde_json::to_value(problem).unwrap());
            let field = refused.err().map(|problem| problem["field"].clone());
            assert_eq!(field.as_ref().and_then(Value::as_str), unknown, "{line}");
        }
    }
}
