//! Where values come from: a flat YAML file, and over it the environment. Unknown names end here.

use std::collections::HashMap;
use std::path::PathBuf;

use quota::document_text;
use serde::Serialize;
use utoipa::ToSchema;

use super::CONFIG_FILE_ENV;
use super::error::SettingsError;
use super::table::{SPECS, Spec, present_name};

/// Variables with this prefix are ours: one without a setting is a typing error.
const PREFIX: &str = "SLUICE_";
/// Variables of the test stack that share the prefix.
const TOLERATED: [&str; 3] = ["SLUICE_ENVOY", "SLUICE_REDIS_SERVER", "SLUICE_POSTGRES_BIN"];
/// How many known names are suggested for an unknown one.
const NEAREST_NAMES: usize = 3;

/// Where a setting's value comes from, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SettingSource)]
pub enum Origin {
    Default,
    File,
    Environment,
    ConfigService,
    Database,
}

/// Where the values that are not defaults came from, by the setting's variable name.
pub(super) type Origins = HashMap<&'static str, Origin>;

/// A configuration file's text, and its path for messages.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub text: String,
}

impl ConfigFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`SettingsError::File`] with the path and the system's reason.
    pub fn read(path: PathBuf) -> Result<Self, SettingsError> {
        let refuse = |reason: String| SettingsError::File { path: path.display().to_string(), reason };
        let bytes = std::fs::read(&path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let text = document_text(&bytes).map_err(|error| refuse(error.to_string()))?.to_owned();
        Ok(Self { path, text })
    }
}

/// A value under the name that it was given.
#[derive(Debug)]
pub(super) struct Found {
    pub name: String,
    pub text: String,
    pub origin: Origin,
}

/// All values that were given, by the setting's variable name.
#[derive(Debug)]
pub(super) struct Sources(HashMap<&'static str, Found>);

impl Sources {
    pub(super) fn collect(
        env: impl Iterator<Item = (String, String)>,
        file: Option<ConfigFile>,
    ) -> Result<Self, SettingsError> {
        let mut found = file.map_or_else(|| Ok(HashMap::new()), read_file)?;
        for (name, text) in env {
            if let Some(spec) = SPECS.iter().find(|spec| spec.env == present_name(&name)) {
                // Where a setting is given by its former name too, the present one counts.
                let is_given = found.get(spec.env).is_some_and(|found| found.origin == Origin::Environment);
                if spec.env == name || !is_given {
                    found.insert(spec.env, Found { name, text, origin: Origin::Environment });
                }
            } else if is_ours(&name) && name != CONFIG_FILE_ENV && !TOLERATED.contains(&name.as_str()) {
                let known = SPECS.iter().map(|spec| spec.env).chain([CONFIG_FILE_ENV]);
                return Err(SettingsError::Unknown { nearest: nearest(&name, known), name });
            }
        }
        Ok(Self(found))
    }

    pub(super) fn found(&self, env: &str) -> Option<&Found> {
        self.0.get(env)
    }

    pub(super) fn origins(&self) -> Origins {
        self.0.iter().map(|(env, found)| (*env, found.origin)).collect()
    }

    pub(super) fn is_set(&self, env: &str) -> bool {
        self.0.contains_key(env)
    }
}

/// Whether the variable belongs to this server: it has a setting, or the prefix.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || SPECS.iter().any(|spec| spec.env == present_name(name))
}

fn read_file(file: ConfigFile) -> Result<HashMap<&'static str, Found>, SettingsError> {
    let path = file.path.display().to_string();
    let refuse = |reason: String| SettingsError::File { path: path.clone(), reason };
    // A file with nothing but comments is empty, not wrong.
    let document: Option<serde_yaml_ng::Mapping> = serde_yaml_ng::from_str(&file.text)
        .map_err(|error| refuse(format!("must be a flat mapping of settings: {error}")))?;
    let mut found = HashMap::new();
    for (key, value) in document.unwrap_or_default() {
        let key = scalar(&key).ok_or_else(|| refuse("a key is not a word".to_owned()))?;
        let spec = find_key(&key, &path)?;
        let text = scalar(&value).ok_or_else(|| refuse(format!("{key} must be a single text or number")))?;
        found.insert(spec.env, Found { name: format!("{key} in {path}"), text, origin: Origin::File });
    }
    Ok(found)
}

fn find_key(key: &str, path: &str) -> Result<&'static Spec, SettingsError> {
    SPECS.iter().find(|spec| spec.key == present_name(key)).ok_or_else(|| SettingsError::Unknown {
        name: format!("{key} in {path}"),
        nearest: nearest(key, SPECS.iter().map(|spec| spec.key)),
    })
}

fn scalar(value: &serde_yaml_ng::Value) -> Option<String> {
    use serde_yaml_ng::Value;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut ranked: Vec<_> = known.map(|known| (edits(name, known), known)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(NEAREST_NAMES).map(|(_, known)| known).collect()
}

/// Levenshtein's distance: how many letters must be changed, added or removed.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (b, diagonal_and_above) in to.bytes().zip(row.windows(2)) {
            let &[diagonal, above] = diagonal_and_above else {
                continue;
            };
            left = (left + 1).min(above + 1).min(diagonal + usize::from(a != b));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
