//! How each type of setting is read from text.

use std::net::IpAddr;
use std::path::PathBuf;

use strum::{EnumString, IntoStaticStr};

use super::error::SettingsError;
use super::source::Found;
use super::table::Spec;
use sluice_kit::http::{HttpUrl, Networks};
use sluice_kit::secret::{REDACTED, Secret};
use sluice_kit::telemetry::{LogFilter, Sampler};

/// How bearer tokens are signed (RFC 7518). Its word is the name in a token's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "UPPERCASE")]
pub enum JwtAlgorithm {
    /// By a secret that signer and server share.
    Hs256,
    /// By an RSA key of a key set.
    Rs256,
    /// By a key on the curve P-256 of a key set.
    Es256,
}

/// A sampler of OpenTelemetry by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesSampler(String);

impl TracesSampler {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A port, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalPort(Option<u16>);

impl OptionalPort {
    /// The text for no port.
    const OFF: &str = "off";

    /// The port.
    #[must_use]
    pub const fn get(self) -> Option<u16> {
        self.0
    }
}

/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// A type that a setting may have.
pub(super) trait Value: Sized {
    /// Whether the value must not be printed.
    const SECRET: bool = false;
    /// Whether a present but empty text is a value.
    const EMPTY_ALLOWED: bool = false;
    /// Whether the setting may be left out although it has no default.
    const OPTIONAL: bool = false;

    /// Reads the text; `Err` describes what was expected.
    fn parse(spec: &Spec, text: &str) -> Result<Self, String>;

    /// The value as text that reads as the same value; none where there is none. A secret shows as such.
    fn show(&self) -> Option<String>;

    /// The value of a setting that is neither set nor has a default.
    fn absent(spec: &Spec) -> Result<Self, SettingsError> {
        Err(SettingsError::Missing { name: spec.env, doc: spec.doc.trim() })
    }
}

/// Reads one setting from what was found for it, else from its default.
pub(super) fn read<T: Value>(spec: &Spec, found: Option<&Found>) -> Result<T, SettingsError> {
    let (name, text) = match (found, spec.default) {
        (Some(found), _) => (found.name.as_str(), found.text.as_str()),
        (None, Some(default)) => (spec.env, default),
        (None, None) => return T::absent(spec),
    };
    if text.is_empty() && !T::EMPTY_ALLOWED {
        return Err(SettingsError::Empty { name: name.to_owned() });
    }
    T::parse(spec, text).map_err(|expected| {
        // A URL that should contain no password may contain one all the same.
        let value = if T::SECRET || text.contains('@') { REDACTED } else { text };
        SettingsError::Invalid { name: name.to_owned(), value: value.to_owned(), expected }
    })
}

impl<T: Value> Value for Option<T> {
    const SECRET: bool = T::SECRET;
    const EMPTY_ALLOWED: bool = T::EMPTY_ALLOWED;
    const OPTIONAL: bool = true;

    fn parse(spec: &Spec, text: &str) -> Result<Self, String> {
        T::parse(spec, text).map(Some)
    }

    fn absent(_: &Spec) -> Result<Self, SettingsError> {
        Ok(None)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

impl Value for u64 {
    fn parse(spec: &Spec, text: &str) -> Result<Self, String> {
        let (min, max) = spec.range.unwrap_or((0, Self::MAX));
        // Only digits: the integer parser would take a leading plus sign, which a range error could not explain.
        let value = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
        value.filter(|value| (min..=max).contains(value)).ok_or_else(|| format!("a whole number from {min} to {max}"))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u16 {
    fn parse(spec: &Spec, text: &str) -> Result<Self, String> {
        let wide = u64::parse(spec, text)?;
        Self::try_from(wide).map_err(|_| format!("a whole number of at most {}", Self::MAX))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for OptionalPort {
    fn parse(spec: &Spec, text: &str) -> Result<Self, String> {
        if text == Self::OFF {
            return Ok(Self(None));
        }
        let port = u16::parse(spec, text).map_err(|_| format!("a port from 0 to {}, or {}", u16::MAX, Self::OFF))?;
        Ok(Self(Some(port)))
    }

    fn show(&self) -> Option<String> {
        Some(self.0.map_or_else(|| Self::OFF.to_owned(), |port| port.to_string()))
    }
}

impl Value for IpAddr {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "an IP address, as in 0.0.0.0 or ::1".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for PathBuf {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl Value for String {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err("text without control characters".to_owned());
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for Secret {
    const SECRET: bool = true;
    const EMPTY_ALLOWED: bool = true;

    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }

    fn show(&self) -> Option<String> {
        Some(REDACTED.to_owned())
    }
}

impl Value for LogFilter {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| Self::EXPECTED.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.as_str().to_owned())
    }
}

impl Value for bool {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "true or false".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for HttpUrl {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        let expected = "a URL that starts with http:// or https://, without user, password, query and fragment";
        Self::parse(text).ok_or_else(|| expected.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.as_str().to_owned())
    }
}

impl Value for Networks {
    const EMPTY_ALLOWED: bool = true;

    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "networks with commas between, as in 10.1.0.0/16,fd00::/8".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for JwtAlgorithm {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "HS256, RS256 or ES256".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.into_str().to_owned())
    }
}

impl Value for TracesSampler {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        let known = Sampler::NAMES.contains(&text).then(|| Self(text.to_owned()));
        known.ok_or_else(|| format!("one of {}", Sampler::NAMES.join(", ")))
    }

    fn show(&self) -> Option<String> {
        Some(self.as_str().to_owned())
    }
}

impl Value for Ratio {
    fn parse(_: &Spec, text: &str) -> Result<Self, String> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or_else(|| "a number from 0 to 1, as in 0.25".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}
