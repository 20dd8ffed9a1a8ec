//! The delivery channels. Each has a file of its own with its settings, and is listed in [`channels!`]. It writes a [`Notice`] in its
//! receiver's form; it is sent once, retries are decided elsewhere.

mod bark;
mod email;
mod gotify;
mod post;
#[cfg(test)]
pub(crate) mod sample;
mod secret;
mod slack;
mod teams;
mod text;
mod webhook;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::egress::EgressPolicy;
use super::notice::Notice;
use super::scope::Scope;
use super::validation::Check;
use sluice_kit::http::HttpError;
use sluice_settings::Mail;

use secret::MASK;

pub use bark::Bark;
pub use email::{Email, Mailer};
pub use gotify::Gotify;
pub use post::{Answer, Post, PostError, WebhookClient};
pub use secret::ChannelSecret;
pub use slack::Slack;
pub use teams::Teams;
pub use text::Text;
pub use webhook::Webhook;

/// Characters of an answer that are kept.
const RESPONSE_CHARS_MAX: usize = 1024;

/// A part of a secret URL that is shorter is a word like `services`, not a secret by itself.
const SECRET_PART_LEN_MIN: usize = 9;

/// A kind of channel: its settings, and how it is sent to.
trait Kind {
    /// As in `kind`, in `alert_message.channel_kind` and in metrics.
    const NAME: &'static str;

    /// The channel's own name.
    fn id(&self) -> &str;

    /// The URL that is called; `None` for mail.
    fn url(&self) -> Option<&str>;

    /// The secrets, each with its JSON pointer in the channel.
    fn secrets(&self) -> Vec<(String, &ChannelSecret)>;

    /// The URL, where all of it is a secret.
    fn secret_url(&self) -> Option<&str> {
        None
    }

    /// Replaces masks by the secrets of the stored channel of the same id. `at` names the channel, as in `channels[0]`.
    fn keep(&mut self, at: &str, stored: Option<&Self>) -> Check;

    /// Checks the fields.
    fn check(&self, at: &str) -> Check;

    /// What is to be sent; the error is a problem of the channel's settings.
    fn prepare<'a>(&'a self, delivery: Delivery<'_>) -> Result<Prepared<'a>, &'static str>;
}

/// A kind that is a URL, which is a secret as a whole, and an `id`; the file has a function `write` for the request.
macro_rules! secret_url_kind {
    ($kind:ident, $name:literal) => {
        impl $crate::channel::Kind for $kind {
            const NAME: &'static str = $name;

            fn id(&self) -> &str {
                &self.id
            }

            fn url(&self) -> Option<&str> {
                Some(self.url.expose())
            }

            fn secrets(&self) -> Vec<(String, &$crate::channel::ChannelSecret)> {
                vec![("/url".to_owned(), &self.url)]
            }

            fn secret_url(&self) -> Option<&str> {
                Some(self.url.expose())
            }

            fn keep(&mut self, _at: &str, stored: Option<&Self>) -> $crate::validation::Check {
                self.url.keep_url(stored.map(|stored| &stored.url));
                Ok(())
            }

            fn check(&self, at: &str) -> $crate::validation::Check {
                $crate::channel::secret::check_secret_url(&format!("{at}.url"), &self.url)
            }

            fn prepare<'a>(
                &'a self,
                delivery: $crate::channel::Delivery<'_>,
            ) -> Result<$crate::channel::Prepared<'a>, &'static str> {
                Ok($crate::channel::Prepared::Post(write(self, delivery)))
            }
        }
    };
}
use secret_url_kind;

/// What is to be sent.
#[derive(Debug)]
enum Prepared<'a> {
    Post(Post),
    Mail(&'a Email),
}

/// The kinds of channels, by the names of their types in lower case.
macro_rules! channels {
    ($($kind:ident),+ $(,)?) => {
        /// Where messages can go.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        #[schema(as = AlertChannel)]
        pub enum Channel {
            $($kind($kind),)+
        }

        impl Channel {
            /// The names of all kinds.
            pub const KINDS: &[&str] = &[$($kind::NAME),+];

            /// As in `alert_message.channel_kind`.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $kind::NAME,)+
                }
            }

            /// Its own name.
            #[must_use]
            pub fn id(&self) -> &str {
                match self {
                    $(Self::$kind(channel) => channel.id(),)+
                }
            }

            /// The URL that is called; `None` for mail.
            #[must_use]
            pub fn url(&self) -> Option<&str> {
                match self {
                    $(Self::$kind(channel) => channel.url(),)+
                }
            }

            /// The secrets, each with its JSON pointer in the channel.
            pub(crate) fn secrets(&self) -> Vec<(String, &ChannelSecret)> {
                match self {
                    $(Self::$kind(channel) => channel.secrets(),)+
                }
            }

            fn secret_url(&self) -> Option<&str> {
                match self {
                    $(Self::$kind(channel) => channel.secret_url(),)+
                }
            }

            /// Replaces masks by the secrets of the stored channel, where it is of the same kind.
            pub(crate) fn keep(&mut self, at: &str, stored: Option<&Self>) -> Check {
                match self {
                    $(Self::$kind(channel) => {
                        let stored = stored.and_then(|stored| if let Self::$kind(own) = stored { Some(own) } else { None });
                        channel.keep(at, stored)
                    })+
                }
            }

            /// Checks the fields.
            pub(crate) fn check(&self, at: &str) -> Check {
                match self {
                    $(Self::$kind(channel) => channel.check(at),)+
                }
            }

            fn prepare<'a>(&'a self, delivery: Delivery<'_>) -> Result<Prepared<'a>, &'static str> {
                match self {
                    $(Self::$kind(channel) => channel.prepare(delivery),)+
                }
            }
        }
    };
}

channels!(Webhook, Email, Bark, Gotify, Slack, Teams);

impl Channel {
    /// A receiver's text without the channel's secrets. Of a secret URL, the path and its long parts are secrets too.
    #[must_use]
    pub fn masked(&self, text: &str) -> String {
        let mut secrets: Vec<String> = self.secrets().iter().map(|(_, secret)| secret.expose().to_owned()).collect();
        let path = self.secret_url().and_then(|url| url.split_once("://")?.1.split_once('/'));
        if let Some((_, path)) = path {
            let parts = path.split(['/', '?', '&', '=']).filter(|part| part.len() >= SECRET_PART_LEN_MIN);
            secrets.extend(parts.chain((!path.is_empty()).then_some(path)).map(str::to_owned));
        }
        // Some JSON has its slashes escaped.
        secrets.extend(secrets.clone().iter().map(|secret| secret.replace('/', "\\/")));
        secrets.sort_by_key(|secret| Reverse(secret.len()));
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The same at every try.
    pub id: Uuid,
    pub notice: &'a Notice,
    /// The time of this try, seconds since the epoch.
    pub now_secs: i64,
    /// The span of this try, where the receiver can continue it.
    pub traceparent: Option<&'a str>,
    /// Recipients that have it already.
    pub delivered_to: &'a [String],
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// Of HTTP or SMTP, where there was an answer.
    pub status: Option<u16>,
    /// The beginning of the answer. No secrets.
    pub response: Option<String>,
    /// Why it failed. No secrets.
    pub error: Option<String>,
    /// Of several recipients those that took it in this try.
    pub delivered_to: Vec<String>,
}

/// Whether the receiver has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// It may be tried again; not before `retry_after`, where the receiver gave one.
    Failed {
        retry_after: Option<Duration>,
    },
    /// Another try is of no use.
    Refused,
}

/// Sends messages. Clones share their clients.
#[derive(Clone, Debug)]
pub struct Sender {
    operators: WebhookClient,
    merchants: WebhookClient,
    mail: Option<Arc<Mailer>>,
}

impl Sender {
    /// Sends within the egress policies of operators and merchants, and email by `mail` where it is configured.
    ///
    /// # Errors
    /// [`HttpError`] where the TLS library refuses its own defaults.
    pub fn new(operators: EgressPolicy, merchants: EgressPolicy, mail: Option<Mail>) -> Result<Self, HttpError> {
        let operators = WebhookClient::new(operators)?;
        Ok(Self {
            merchants: operators.within(merchants),
            operators,
            mail: mail.map(|mail| Arc::new(Mailer::new(mail))),
        })
    }

    /// One try on a channel of a scope's settings, over within `timeout`.
    pub async fn send(&self, scope: &Scope, channel: &Channel, delivery: Delivery<'_>, timeout: Duration) -> Report {
        self.attempt(scope, channel, delivery, timeout).await.masked(channel)
    }

    async fn attempt(&self, scope: &Scope, channel: &Channel, delivery: Delivery<'_>, timeout: Duration) -> Report {
        let post = match scope {
            Scope::Operators => &self.operators,
            Scope::Merchant(_) => &self.merchants,
        };
        match channel.prepare(delivery) {
            Ok(Prepared::Post(prepared)) => Report::of(post.send(prepared, timeout).await),
            Ok(Prepared::Mail(email)) => match &self.mail {
                Some(mail) => mail.send(email, delivery, timeout).await,
                None => Report::failed("no mail can be sent: set SLUICE_SMTP_URL and SLUICE_SMTP_FROM"),
            },
            Err(problem) => Report::failed(problem),
        }
    }
}

/// A request with a secret in it to a path below the server's URL.
fn json_post(base: &str, path: &str, headers: Vec<(HeaderName, HeaderValue)>, body: &serde_json::Value) -> Post {
    let url = format!("{}/{path}", base.trim_end_matches('/'));
    Post { url, headers, body: body.to_string().into_bytes(), confidential: true }
}

impl Report {
    pub(super) fn failed(error: impl ToString) -> Self {
        let outcome = Outcome::Failed { retry_after: None };
        Self { outcome, status: None, response: None, error: Some(error.to_string()), delivered_to: Vec::new() }
    }

    pub(super) fn refused(error: impl ToString) -> Self {
        Self { outcome: Outcome::Refused, ..Self::failed(error) }
    }

    fn of(answer: Result<Answer, PostError>) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Self::failed(error),
        };
        let (outcome, error) = match answer.status {
            200..=299 => (Outcome::Sent, None),
            410 => (Outcome::Refused, Some("the receiver is gone for good (410)".to_owned())),
            status => {
                let outcome = Outcome::Failed { retry_after: answer.retry_after };
                (outcome, Some(format!("answered with status {status}")))
            }
        };
        Self { outcome, status: Some(answer.status), response: Some(answer.beginning), error, delivered_to: Vec::new() }
    }

    /// Masks the channel's secrets: servers often echo what they were sent.
    fn masked(self, channel: &Channel) -> Self {
        let response = self.response.map(|text| channel.masked(&text).chars().take(RESPONSE_CHARS_MAX).collect());
        Self { response, error: self.error.map(|text| channel.masked(&text)), ..self }
    }
}
