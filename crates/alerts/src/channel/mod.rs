//! The delivery channels: webhook, email, Bark, Gotify and Slack. Each writes a [`Notice`] in its receiver's form and sends it
//! once; retries are decided elsewhere.

mod bark;
mod email;
mod gotify;
mod post;
#[cfg(test)]
pub(crate) mod sample;
mod slack;
mod text;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::egress::EgressPolicy;
use super::notice::Notice;
use super::settings::{Channel, Scope};
use sluice_kit::http::HttpError;
use sluice_settings::Mail;

pub use email::Mailer;
pub use post::{Answer, Post, PostError, WebhookClient};
pub use text::Text;

/// Characters of an answer that are kept.
const RESPONSE_CHARS_MAX: usize = 1024;

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
        let prepared = match channel {
            Channel::Webhook(webhook) => webhook::write(webhook, delivery),
            Channel::Bark(bark) => Ok(bark::write(bark, delivery)),
            Channel::Gotify(gotify) => Ok(gotify::write(gotify, delivery)),
            Channel::Slack(slack) => Ok(slack::write(slack, delivery)),
            Channel::Email(email) => {
                return match &self.mail {
                    Some(mail) => mail.send(email, delivery, timeout).await,
                    None => Report::failed("no mail can be sent: set SLUICE_SMTP_URL and SLUICE_SMTP_FROM"),
                };
            }
        };
        match prepared {
            Ok(prepared) => Report::of(post.send(prepared, timeout).await),
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
