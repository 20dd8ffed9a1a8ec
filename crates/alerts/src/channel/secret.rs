//! Secrets of channels, and what is shown in their place.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::validation::{Check, check_url, invalid};
use sluice_settings::Secret;

/// What is shown in place of a secret.
pub(super) const MASK: &str = "********";
/// Longest device key or token, in bytes.
const TOKEN_LEN_MAX: usize = 256;

/// A secret of a channel: read as it is, written as a mask. A mask that is read means the stored secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelSecret(Secret);

impl ChannelSecret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Secret::new(text))
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for ChannelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ChannelSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for ChannelSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl ChannelSecret {
    /// Replaces the mask by the stored secret.
    pub(super) fn keep(&mut self, stored: &Self) {
        if self.expose() == MASK {
            *self = stored.clone();
        }
    }

    /// The same for a URL that is a secret as a whole: its mask names the server.
    pub(super) fn keep_url(&mut self, stored: Option<&Self>) {
        if let Some(stored) = stored.filter(|stored| masked_url(stored.expose()) == self.expose()) {
            *self = stored.clone();
        }
    }
}

pub(super) fn check_token(field: &str, token: &ChannelSecret) -> Check {
    let text = token.expose();
    if text == MASK {
        return Err(invalid(field, "is a mask, and no secret is stored for this channel and server: give it again"));
    }
    if (1..=TOKEN_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(invalid(field, format!("must have 1 to {TOKEN_LEN_MAX} visible ASCII characters")))
}

/// Checks a URL that is a secret as a whole.
pub(super) fn check_secret_url(field: &str, url: &ChannelSecret) -> Check {
    if url.expose().contains(MASK) {
        return Err(invalid(field, "is a mask without a stored URL: give the whole URL"));
    }
    check_url(field, url.expose())
}

/// A URL that is a secret, as it is shown.
fn masked_url(url: &str) -> String {
    let server = url.split_once("://").and_then(|(scheme, rest)| {
        let host = rest.split(['/', '?', '#']).next()?;
        Some(format!("{scheme}://{host}/{MASK}"))
    });
    server.unwrap_or_else(|| MASK.to_owned())
}

pub(super) fn server_only<S: Serializer>(url: &ChannelSecret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&masked_url(url.expose()))
}
