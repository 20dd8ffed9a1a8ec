//! Normalizes merchants and currencies where the gateway treats several spellings as the same.

use std::borrow::Cow;

use serde::Deserialize;

/// How letters are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    Upper,
    Lower,
}

/// How a rule normalizes a text before it is used as an identifier.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Normal {
    pub(super) merchant_case: Option<Case>,
    /// Whether a merchant of digits only loses its leading zeros, except for the last digit.
    pub(super) strip_zeros: bool,
    pub(super) upper_currency: bool,
}

impl Normal {
    pub(super) fn merchant<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = match text.trim_start_matches('0') {
            _ if !self.strip_zeros || !text.bytes().all(|byte| byte.is_ascii_digit()) => text,
            "" => text.get(text.len().saturating_sub(1)..).unwrap_or_default(),
            stripped => stripped,
        };
        match self.merchant_case {
            None => Cow::Borrowed(text),
            Some(Case::Upper) => Cow::Owned(text.to_ascii_uppercase()),
            Some(Case::Lower) => Cow::Owned(text.to_ascii_lowercase()),
        }
    }

    pub(super) fn currency<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.upper_currency { Cow::Owned(text.to_ascii_uppercase()) } else { Cow::Borrowed(text) }
    }
}
