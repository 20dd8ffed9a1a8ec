//! Email as text and HTML, through the operator's mail server.

use std::time::Duration;

use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::response::Response;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use thiserror::Error as ThisError;
use tokio::time::timeout;

use super::text::Text;
use super::{Outcome, Parcel, Report};
use crate::alert::settings::Email;
use crate::settings::Secret;

/// So much of an answer is kept, in characters.
const ANSWER_CHARS_MAX: usize = 1024;
/// Answers about who we are, which an operator can mend; every other 5yz is about the message (RFC 5321, RFC 4954).
const MENDABLE: [u16; 5] = [500, 530, 534, 535, 538];

/// Why the server's mail settings cannot be used. No secrets.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum MailError {
    #[error(
        "SLUICE_SMTP_URL cannot be used: it must be as in smtps://user:password@host:465 or smtp://host:587?tls=required"
    )]
    Url,
    #[error("SLUICE_SMTP_FROM is no mail address, as in sluice@example.com or Sluice <sluice@example.com>")]
    From,
    #[error("SLUICE_SMTP_URL and SLUICE_SMTP_FROM are of use only together: set both or none")]
    Half,
}

/// The operator's mail server, and who writes.
#[derive(Debug)]
pub struct Mail {
    url: Secret,
    from: Mailbox,
}

impl Mail {
    /// Takes both settings; `None` where there is neither.
    ///
    /// # Errors
    /// [`MailError`] for what cannot be used.
    pub fn new(url: Option<&Secret>, from: Option<&str>) -> Result<Option<Self>, MailError> {
        let (url, from) = match (url, from) {
            (None, None) => return Ok(None),
            (Some(url), Some(from)) => (url.clone(), from.parse().map_err(|_| MailError::From)?),
            (Some(_), None) | (None, Some(_)) => return Err(MailError::Half),
        };
        AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose()).map_err(|_| MailError::Url)?;
        Ok(Some(Self { url, from }))
    }

    pub(super) async fn send(&self, email: &Email, parcel: Parcel<'_>, within: Duration) -> Report {
        let message = match self.write(email, parcel) {
            Ok(message) => message,
            Err(error) => return Report::failed(error),
        };
        let Ok(transport) = AsyncSmtpTransport::<Tokio1Executor>::from_url(self.url.expose()) else {
            return Report::failed(MailError::Url);
        };
        let transport = transport.timeout(Some(within)).build();
        match timeout(within, transport.send(message)).await {
            Ok(Ok(response)) => Report {
                outcome: Outcome::Sent,
                status: Some(u16::from(response.code())),
                response: Some(answer(&response)),
                error: None,
            },
            Ok(Err(error)) => failed(&error),
            Err(_) => Report::failed(format!("the mail server gave no answer within {} ms", within.as_millis())),
        }
    }

    fn write(&self, email: &Email, parcel: Parcel<'_>) -> Result<Message, String> {
        let text = Text::of(parcel.notice);
        // The same at every try, so that a mail box knows a repetition.
        let id = format!("<{}@{}>", parcel.id, self.from.email.domain());
        let mut message = Message::builder().from(self.from.clone()).subject(&text.title).message_id(Some(id));
        for to in &email.to {
            message = message.to(to.parse().map_err(|_| format!("{to} is no mail address"))?);
        }
        let bodies = MultiPart::alternative_plain_html(text.plain(), text.html());
        message.multipart(bodies).map_err(|error| error.to_string())
    }
}

fn failed(error: &Error) -> Report {
    let status = error.status().map(u16::from);
    let words = format!("the mail server: {}", crate::http::chain(error));
    let mendable = status.is_some_and(|status| MENDABLE.contains(&status));
    let report = if error.is_permanent() && !mendable { Report::refused(words) } else { Report::failed(words) };
    Report { status, ..report }
}

fn answer(response: &Response) -> String {
    response.message().collect::<Vec<_>>().join(" ").chars().take(ANSWER_CHARS_MAX).collect()
}
