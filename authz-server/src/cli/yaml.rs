//! Envoy's configuration files as the commands read them: any YAML or JSON, without Envoy's types.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;
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
    let mut value: Value = serde_yaml_ng::from_str(text).map_err(|error| FileError::new(path, error))?;
    value.apply_merge().map_err(|error| FileError::new(path, error))?;
    Ok(value)
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
