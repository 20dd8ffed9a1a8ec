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

use super::address::Networks;
use super::notice::Notice;
use super::settings::Channel;
use crate::http::HttpError;

pub use email::{Mail, MailError};
pub use post::{Answer, Post, PostError, Poster};
pub use text::Text;

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
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// Of HTTP or SMTP, where there was an answer.
    pub status: Option<u16>,
    /// The beginning of the answer.
    pub response: Option<String>,
    /// Why it failed. No secrets.
    pub error: Option<String>,
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
    post: Poster,
    mail: Option<Arc<Mail>>,
}

impl Sender {
    /// Sends to where `networks` permits, and email by `mail` where the server has any.
    ///
    /// # Errors
    /// [`HttpError`] where the TLS library refuses its own defaults.
    pub fn new(networks: Networks, mail: Option<Mail>) -> Result<Self, HttpError> {
        Ok(Self { post: Poster::new(networks)?, mail: mail.map(Arc::new) })
    }

    /// One try, over within `timeout`.
    pub async fn send(&self, channel: &Channel, parcel: Parcel<'_>, timeout: Duration) -> Report {
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
            Ok(post) => Report::of(self.post.send(post, timeout).await),
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
        Self { outcome, status: None, response: None, error: Some(error.to_string()) }
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
        Self { outcome, status: Some(answer.status), response: Some(answer.beginning), error }
    }
}
