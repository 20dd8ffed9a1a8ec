//! The one character that no text of a request may have: Postgres stores no NUL, neither in text nor in JSON.

use serde_json::Value;

use crate::admin::problem::{Answer, Problem};

/// What is wrong with such a field.
pub(super) const DETAIL: &str = "must have no NUL character";
/// How JSON writes it; unescaped it is not valid JSON.
const ESCAPED: &[u8] = br"\u0000";

/// Refuses a JSON body with a NUL in a text or name. Invalid JSON is left to the reader of the body.
pub(super) fn refuse(body: &[u8]) -> Answer<()> {
    // Nearly every body ends here. Those with a backslash before it (`\\u0000`) are parsed in vain, which costs time only.
    if !body.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(());
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
    match find(&value) {
        Some(path) if path.is_empty() => Err(Problem::new(super::Kind::BadRequest).detail(DETAIL)),
        Some(path) => Err(Problem::field(path.trim_start_matches('.'), DETAIL)),
        None => Ok(()),
    }
}

/// The path of the first one; for a name, that of its object.
fn find(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(place, item)| find(item).map(|rest| format!("[{place}]{rest}")))
        }
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            if name.contains('\0') { Some(String::new()) } else { find(value).map(|rest| format!(".{name}{rest}")) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_found_wherever_it_is() {
        for (body, field) in [
            (r#"{"a":{"b":[1,{"c":"x\u0000"}]}}"#, Some("a.b[1].c")),
            (r#"{"a":"\u0000"}"#, Some("a")),
            (r#"{"a":{"x\u0000":1}}"#, Some("a")),
            (r#"[["\u0000"]]"#, Some("[0][0]")),
        ] {
            let problem = serde_json::to_value(refuse(body.as_bytes()).unwrap_err()).unwrap();
            assert_eq!(problem.get("field").and_then(Value::as_str), field, "{body}");
            assert_eq!(problem["status"], 400, "{body}");
        }
        assert!(refuse(br#"{"\u0000":1}"#).is_err());
        for body in [r#"{"a":"\\u0000"}"#, r#"{"a":"\u00001"#, r#"{"a":"u0000"}"#, "{}", ""] {
            assert!(refuse(body.as_bytes()).is_ok(), "{body}");
        }
    }
}
