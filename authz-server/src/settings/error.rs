//! Why settings are refused. Every message carries the name as the operator wrote it and says what to do.

use thiserror::Error;

/// A refused configuration. No message holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A `SLUICE_*` variable or file key that no setting has.
    #[error("{name} is not a setting; the nearest known names are {}", .nearest.join(", "))]
    Unknown { name: String, nearest: Vec<&'static str> },
    /// A value of the wrong form or outside its range.
    #[error("{name} is '{value}'; it must be {expected}")]
    Invalid { name: String, value: String, expected: String },
    /// Present without a value, which is more often a template gone wrong than a wish for the default.
    #[error("{name} is empty; give it a value or remove it")]
    Empty { name: String },
    /// A setting that has no default.
    #[error("{name} is not set; {doc}")]
    Missing { name: &'static str, doc: &'static str },
    /// Two ways to say the same thing.
    #[error("{one} and {other} are both set; keep one of them")]
    Conflict { one: &'static str, other: &'static str },
    /// An inner deadline that does not end before the outer one.
    #[error(
        "{outer} is {outer_ms}; it must be greater than {inner}, which is {inner_ms}, because the one waits for the other"
    )]
    Nesting { outer: &'static str, outer_ms: u64, inner: &'static str, inner_ms: u64 },
    /// A variable whose bytes are no text.
    #[error("{name} is not valid UTF-8; write it as text")]
    NotText { name: String },
    /// A file that cannot be read or is no flat mapping.
    #[error("the configuration file {path}: {reason}")]
    File { path: String, reason: String },
}
