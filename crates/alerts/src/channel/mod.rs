//! The ways to a person: webhook, email, Bark, Gotify and Slack. Each writes a [`Notice`] in its receiver's form and hands it
//! over once; when to try again is not decided here.

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

use super::address::Reach;
use super::notice::Notice;
use super::settings::{Channel, Scope};
use sluice_kit::http::HttpError;
use sluice_settings::Mail;

pub use email::Mailer;
pub use post::{Answer, Post, PostError, Poster};
pub use text::Text;

/// So much of an answer is kept, in characters.
const RESPONSE_CHARS_MAX: usize = 1024;

/// What is handed over.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The same at every try.
    pub id: Uuid,
    pub notice: &'a Notice,
    /// The time of this try, seconds since the epoch.
    pub now_secs: i64,
    /// The span of this try, where the receiver can go on with it.
    pub traceparent: Option<&'a str>,
    /// Recipients that have it already.
    pub told: &'a [String],
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
    /// Of several recipients those that took it now.
    pub told: Vec<String>,
}

/// Whether the receiver has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// It may be tried again, not before so much time where the receiver named one.
    Failed {
        retry_after: Option<Duration>,
    },
    /// It is of no use to try again.
    Refused,
}

/// Hands messages over. Clones share what they use.
#[derive(Clone, Debug)]
pub struct Sender {
    operators: Poster,
    merchants: Poster,
    mail: Option<Arc<Mailer>>,
}

impl Sender {
    /// Sends as far as operators' and merchants' messages may go, and email by `mail` where the server has any.
    ///
    /// # Errors
    /// [`HttpError`] where the TLS library refuses its own defaults.
    pub fn new(operators: Reach, merchants: Reach, mail: Option<Mail>) -> Result<Self, HttpError> {
        let operators = Poster::new(operators)?;
        Ok(Self {
            merchants: operators.within(merchants),
            operators,
            mail: mail.map(|mail| Arc::new(Mailer::new(mail))),
        })
    }

    /// One try on a channel of somebody's settings, over within `timeout`.
    pub async fn send(&self, scope: &Scope, channel: &Channel, parcel: Parcel<'_>, timeout: Duration) -> Report {
        self.attempt(scope, channel, parcel, timeout).await.masked(channel)
    }

    async fn attempt(&self, scope: &Scope, channel: &Channel, parcel: Parcel<'_>, timeout: Duration) -> Report {
        let post = match scope {
            Scope::Operators => &self.operators,
            Scope::Merchant(_) => &self.merchants,
        };
        let prepared = match channel {
            Channel::Webhook(webhook) => webhook::write(webhook, parcel),
            Channel::Bark(bark) => Ok(bark::write(bark, parcel)),
            Channel::Gotify(gotify) => Ok(gotify::write(gotify, parcel)),
            Channel::Slack(slack) => Ok(slack::write(slack, parcel)),
            Channel::Email(email) => {
                return match &self.mail {
                    Some(mail) => mail.send(email, parcel, timeout).await,
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
        Self { outcome, status: None, response: None, error: Some(error.to_string()), told: Vec::new() }
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
            410 => (Outcome::Refused, Some("the receiver says that it is gone for good".to_owned())),
            status => {
                let outcome = Outcome::Failed { retry_after: answer.retry_after };
                (outcome, Some(format!("answered with status {status}")))
            }
        };
        Self { outcome, status: Some(answer.status), response: Some(answer.beginning), error, told: Vec::new() }
    }

    /// Without what the channel keeps secret: servers like to say back what they were sent.
    fn masked(self, channel: &Channel) -> Self {
        let response = self.response.map(|text| channel.masked(&text).chars().take(RESPONSE_CHARS_MAX).collect());
        Self { response, error: self.error.map(|text| channel.masked(&text)), ..self }
    }
}
