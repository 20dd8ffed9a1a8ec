//! The configuration service's document: a flat JSON object of file keys.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::live::Layer;
use crate::{HttpUrl, Origin};
use sluice_kit::http::{Client, HttpError};

/// Largest document: far more than all settings need.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// Queries the service once. Does not check whether the values are valid.
pub(super) async fn fetch(client: &Client, url: &HttpUrl) -> Result<Layer, HttpError> {
    let document: Document = client.get_json(url.as_str(), DOCUMENT_BYTES_MAX).await?;
    Ok(Layer { values: document.0, ..Layer::empty(Origin::ConfigService) })
}

/// A setting's value as JSON has it, as the text that a file would have.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Document(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a flat object of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut values = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            let refuse = |problem: &str| Err(A::Error::custom(format_args!("{key} {problem}")));
            let Some(text) = scalar(&value) else {
                return refuse("must be a single text, number, true or false");
            };
            // Which of the two counts would be a guess.
            if values.contains_key(&key) {
                return refuse("is there twice");
            }
            values.insert(key, text);
        }
        Ok(Document(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_flat_objects_without_repetition() {
        let good = br#"{"log":"debug","redis_timeout_ms":7,"enable_config_client":true}"#;
        let values = serde_json::from_slice::<Document>(good).unwrap().0;
        let expected = [("enable_config_client", "true"), ("log", "debug"), ("redis_timeout_ms", "7")];
        assert!(values.iter().map(|(key, text)| (key.as_str(), text.as_str())).eq(expected), "{values:?}");
        let table = [
            (r#"{"log":"a","log":"b"}"#, "log is there twice"),
            (r#"{"log":null}"#, "log must be a single text"),
            (r#"{"log":["a"]}"#, "log must be a single text"),
            (r#"{"log":{"a":1}}"#, "log must be a single text"),
            (r#"["log"]"#, "a flat object of settings"),
            (r#"{"log":"a"} x"#, "trailing"),
            ("<html>", "expected value"),
            ("", "EOF"),
        ];
        for (text, part) in table {
            let error = serde_json::from_str::<Document>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
