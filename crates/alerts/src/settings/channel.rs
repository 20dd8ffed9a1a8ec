//! The kinds of channels, and their secrets, which are never shown.

use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use sluice_settings::Secret;

/// What is shown in place of a secret.
pub(super) const MASK: &str = "********";
/// A part of a secret URL that is shorter is a word like `services`, not a secret by itself.
const SECRET_PART_LEN_MIN: usize = 9;

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

/// Where messages can go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[schema(as = AlertChannel)]
pub enum Channel {
    Webhook(Webhook),
    Email(Email),
    Bark(Bark),
    Gotify(Gotify),
    Slack(Slack),
}

/// A POST of JSON, signed as Standard Webhooks has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookChannel)]
pub struct Webhook {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    #[schema(max_length = 2048)]
    pub url: String,
    /// Each signs every message; the first is the newest. Base64 of 24 to 64 bytes after `whsec_`. Shown as a mask and its
    /// number; a mask that is sent keeps the secret of that number.
    #[serde(serialize_with = "numbered")]
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 4)]
    pub secrets: Vec<ChannelSecret>,
}

/// Mail, as text and HTML, by the server's SMTP settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmailChannel)]
pub struct Email {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    #[schema(min_items = 1, max_items = 20)]
    pub to: Vec<String>,
}

/// A Bark server's `/push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BarkChannel)]
pub struct Bark {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    /// Of the server, as in `https://api.day.app`.
    #[schema(max_length = 2048)]
    pub url: String,
    /// Shown as a mask, which keeps it where it is sent with the same server.
    #[schema(value_type = String, max_length = 256)]
    pub device_key: ChannelSecret,
}

/// A Gotify server's `/message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GotifyChannel)]
pub struct Gotify {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    /// Of the server.
    #[schema(max_length = 2048)]
    pub url: String,
    /// Of the application. Shown as a mask, which keeps it where it is sent with the same server.
    #[schema(value_type = String, max_length = 256)]
    pub token: ChannelSecret,
}

/// An incoming webhook of Slack, or of what takes the same messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SlackChannel)]
pub struct Slack {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    /// Anyone who has it can write. Shown as the server and a mask, which keeps it where it is sent.
    #[serde(serialize_with = "server_only")]
    #[schema(value_type = String, max_length = 2048)]
    pub url: ChannelSecret,
}

impl Channel {
    /// Its own name.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Webhook(webhook) => &webhook.id,
            Self::Email(email) => &email.id,
            Self::Bark(bark) => &bark.id,
            Self::Gotify(gotify) => &gotify.id,
            Self::Slack(slack) => &slack.id,
        }
    }

    /// As in `alert_message.channel_kind`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
            Self::Bark(_) => "bark",
            Self::Gotify(_) => "gotify",
            Self::Slack(_) => "slack",
        }
    }

    /// The secrets, each with its place in the channel's JSON.
    pub(super) fn secrets(&self) -> Vec<(String, &ChannelSecret)> {
        match self {
            Self::Webhook(webhook) => webhook
                .secrets
                .iter()
                .enumerate()
                .map(|(place, secret)| (format!("/secrets/{place}"), secret))
                .collect(),
            Self::Email(_) => Vec::new(),
            Self::Bark(bark) => vec![("/device_key".to_owned(), &bark.device_key)],
            Self::Gotify(gotify) => vec![("/token".to_owned(), &gotify.token)],
            Self::Slack(slack) => vec![("/url".to_owned(), &slack.url)],
        }
    }

    /// A receiver's text without the channel's secrets. Of a secret URL, the path and its long parts are secrets too.
    #[must_use]
    pub fn masked(&self, text: &str) -> String {
        let mut secrets: Vec<String> = self.secrets().iter().map(|(_, secret)| secret.expose().to_owned()).collect();
        if let Self::Slack(slack) = self
            && let Some((_, path)) = slack.url.expose().split_once("://").and_then(|(_, rest)| rest.split_once('/'))
        {
            let parts = path.split(['/', '?', '&', '=']).filter(|part| part.len() >= SECRET_PART_LEN_MIN);
            secrets.extend(parts.chain((!path.is_empty()).then_some(path)).map(str::to_owned));
        }
        // Some JSON has its slashes escaped.
        secrets.extend(secrets.clone().iter().map(|secret| secret.replace('/', "\\/")));
        secrets.sort_by_key(|secret| Reverse(secret.len()));
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }
}

/// The mask of the secret with a number, from 1.
pub(super) fn mask_of(number: usize) -> String {
    format!("{MASK}{number}")
}

fn numbered<S: Serializer>(secrets: &[ChannelSecret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq((1..=secrets.len()).map(mask_of))
}

/// A URL that is a secret, as it is shown.
pub(super) fn masked_url(url: &str) -> String {
    let server = url.split_once("://").and_then(|(scheme, rest)| {
        let host = rest.split(['/', '?', '#']).next()?;
        Some(format!("{scheme}://{host}/{MASK}"))
    });
    server.unwrap_or_else(|| MASK.to_owned())
}

fn server_only<S: Serializer>(url: &ChannelSecret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&masked_url(url.expose()))
}
