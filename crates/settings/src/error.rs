//! Why settings are refused. Every message carries the name as the operator wrote it and says what to do.

use thiserror::Error;

use super::mail::MailError;
use super::table::SPECS;

/// A refused configuration. No message holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A `SLUICE_*` variable or file key that no setting has.
    #[error("{name} is not a setting; the nearest known names are {}", .nearest.join(", "))]
    Unknown { name: String, nearest: Vec<&'static str> },
    /// A value of the wrong form or outside its range.
    #[error("{name} is '{value}'; it must be {expected}")]
    Invalid { name: String, value: String, expected: String },
    /// Present without a value, which is more often a broken template than a request for the default.
    #[error("{name} is empty; give it a value or remove it")]
    Empty { name: String },
    /// A setting that has no default.
    #[error("{name} is not set; {doc}")]
    Missing { name: &'static str, doc: &'static str },
    /// Two settings for the same thing.
    #[error("{one} and {other} are both set; keep one of them")]
    Conflict { one: &'static str, other: &'static str },
    /// An inner deadline that does not end before the outer one.
    #[error(
        "{outer} is {outer_ms}; it must be greater than {inner}, which is {inner_ms}, because the one waits for the other"
    )]
    Nesting { outer: &'static str, outer_ms: u64, inner: &'static str, inner_ms: u64 },
    /// A setting that has no effect without another one, or beside another value of it.
    #[error("{name} is '{value}', which {needs}")]
    Needs { name: &'static str, value: String, needs: &'static str },
    /// A change of a setting that is read once, at the start.
    #[error("{name} cannot change while the server runs; set it in the file or the environment and restart")]
    NotLive { name: String },
    /// A variable whose bytes are no text.
    #[error("{name} is not valid UTF-8; write it as text")]
    NotText { name: String },
    /// Settings of the mail server that cannot be used.
    #[error(transparent)]
    Mail(MailError),
    /// A file that cannot be read or is no flat mapping.
    #[error("the configuration file {path}: {reason}")]
    File { path: String, reason: String },
}

impl SettingsError {
    /// The file key of the setting at fault; the name as it was given where no setting has it.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        let name = match self {
            Self::Unknown { name, .. }
            | Self::Invalid { name, .. }
            | Self::Empty { name }
            | Self::NotLive { name }
            | Self::NotText { name } => name.as_str(),
            Self::Missing { name, .. } | Self::Needs { name, .. } => name,
            Self::Conflict { one, .. } => one,
            Self::Nesting { outer, .. } => outer,
            Self::Mail(_) => "SLUICE_SMTP_URL",
            Self::File { .. } => return None,
        };
        // Where the value was found follows the name.
        let name = name.split_once(" in ").map_or(name, |(name, _)| name);
        let spec = SPECS.iter().find(|spec| spec.env == name);
        Some(spec.map_or(name, |spec| spec.key).to_owned())
    }
}
