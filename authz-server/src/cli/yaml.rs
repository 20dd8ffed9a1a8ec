//! Envoy's configuration files as the commands read them: any YAML or JSON, without Envoy's types.

use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_yaml_ng::{Mapping, Sequence, Value};
use thiserror::Error;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a file cannot be checked.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub(super) struct FileError {
    path: PathBuf,
    problem: String,
}

impl FileError {
    pub(super) fn new(path: &Path, problem: impl Display) -> Self {
        Self { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// The file's text.
pub(super) fn read(path: &Path) -> Result<String, FileError> {
    let bytes = fs::metadata(path).map_err(|error| FileError::new(path, error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(FileError::new(path, format!("has {bytes} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    fs::read_to_string(path).map_err(|error| FileError::new(path, error))
}

/// The text as YAML, of which JSON is a part.
pub(super) fn parse(path: &Path, text: &str) -> Result<Value, FileError> {
    let read = AsEnvoy(text).deserialize(serde_yaml_ng::Deserializer::from_str(text));
    let mut value = read.map_err(|error| FileError::new(path, error))?;
    value.apply_merge().map_err(|error| FileError::new(path, error))?;
    Ok(value)
}

/// Reads a text's values as Envoy does: without quotes, YAML 1.1's words for true and false are no texts.
#[derive(Clone, Copy, Debug)]
struct AsEnvoy<'a>(&'a str);

impl AsEnvoy<'_> {
    /// Whether a part of the text stands in quotes.
    fn is_quoted(&self, part: &str) -> bool {
        let start = part.as_ptr().addr().checked_sub(self.0.as_ptr().addr());
        let before = start.and_then(|start| self.0.as_bytes().get(start.checked_sub(1)?));
        matches!(before, Some(b'"' | b'\''))
    }
}

/// The words that YAML 1.2 reads as texts; `true` and `false` are values to both.
fn yaml_1_1_bool(word: &str) -> Option<bool> {
    match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

impl<'de> DeserializeSeed<'de> for AsEnvoy<'de> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AsEnvoy<'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    /// A document with nothing in it.
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    /// A text that does not stand in the file as it is: it has escapes or several lines.
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value, E> {
        let value = yaml_1_1_bool(text).filter(|_| !self.is_quoted(text));
        Ok(value.map_or_else(|| Value::String(text.to_owned()), Value::Bool))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut sequence = Sequence::new();
        while let Some(item) = items.next_element_seed(self)? {
            sequence.push(item);
        }
        Ok(Value::Sequence(sequence))
    }

    /// Keys are texts to Envoy, whatever they are.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut mapping = Mapping::new();
        while let Some(key) = members.next_key::<Value>()? {
            let value = members.next_value_seed(self)?;
            if mapping.contains_key(&key) {
                let key = key.as_str().unwrap_or_default();
                return Err(de::Error::custom(format!("the key {key:?} is there twice")));
            }
            mapping.insert(key, value);
        }
        Ok(Value::Mapping(mapping))
    }

    /// Envoy ignores tags.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        let (_, value) = tagged.variant::<String>()?;
        de::VariantAccess::newtype_variant_seed(value, self)
    }
}

/// Calls `visit` for a value and everything in it.
pub(super) fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    visit(value);
    match value {
        Value::Mapping(members) => members.values().for_each(|member| walk(member, visit)),
        Value::Sequence(items) => items.iter().for_each(|item| walk(item, visit)),
        Value::Tagged(tagged) => walk(&tagged.value, visit),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The type of a message that is packed into an `Any`.
pub(super) fn type_of(value: &Value) -> Option<&str> {
    value.get("@type")?.as_str()
}

/// The value at the end of a path of names.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(*name))
}

/// The members of a mapping whose keys are texts.
pub(super) fn members(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    let members = value.and_then(Value::as_mapping).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.as_str()?, value)))
}

/// The items of a list.
pub(super) fn items(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_sequence).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_envoy_reads_them() {
        let text = |text: &str| Value::from(text);
        let table = [
            ("v: off", Value::from(false)),
            ("# Größe\nv:   off # comment", Value::from(false)),
            ("{v: No}", Value::from(false)),
            ("{\"v\":ON}", Value::from(true)),
            ("w: &word off\nv: *word", Value::from(false)),
            ("v: true", Value::from(true)),
            ("v: oFF", text("oFF")),
            ("v: \"off\"", text("off")),
            ("v: 'off'", text("off")),
            ("# Größe\n{\"v\":\"off\"}", text("off")),
            ("v: |-\n  off", text("off")),
            ("v: officer", text("officer")),
            ("v: 5", Value::from(5)),
            ("v: ", Value::Null),
            ("v: [\"y\", y]", Value::from(vec![text("y"), Value::from(true)])),
            ("base: &base {v: n}\nv: off\n<<: *base", Value::from(false)),
        ];
        for (document, expected) in table {
            assert_eq!(parse(Path::new("f"), document).unwrap()["v"], expected, "{document}");
        }
        assert!(parse(Path::new("f"), "v: 1\nv: 2").unwrap_err().to_string().contains("the key \"v\" is there twice"));
        assert_eq!(parse(Path::new("f"), "").unwrap(), Value::Null);
    }
}
