//! The operator's mail server.

use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, Tokio1Executor};
use thiserror::Error as ThisError;

use sluice_kit::secret::Secret;

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

/// The operator's mail server, and the sender.
#[derive(Debug)]
pub struct Mail {
    pub url: Secret,
    pub from: Mailbox,
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
}
