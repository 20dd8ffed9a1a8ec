//! Email as text and HTML, through the operator's mail server.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use lettre::address::Envelope;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::response::Response;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::time::{Instant, timeout_at};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::secret::ChannelSecret;
use super::text::Text;
use super::{Delivery, Kind, Outcome, Prepared, Report};
use crate::validation::{Check, LIST_MAX, check_mail, filled};
use sluice_settings::{Mail, MailError};

/// Recipients that are sent to at a time: all of it goes to one mail server.
const AT_ONCE: usize = 4;

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// Why a recipient did not take a mail: the status, where there was an answer, and a text.
type Refusal = (Option<u16>, String);

/// Sends through the operator's mail server.
#[derive(Debug)]
pub struct Mailer(Mail);

impl Mailer {
    /// With these settings.
    #[must_use]
    pub const fn new(mail: Mail) -> Self {
        Self(mail)
    }

    /// Each recipient has a transaction of its own, so that a refused one does not affect the others. Takes at most `within`.
    pub(super) async fn send(&self, email: &Email, delivery: Delivery<'_>, within: Duration) -> Report {
        let message = match self.write(email, delivery) {
            Ok(message) => message.formatted(),
            Err(error) => return Report::failed(error),
        };
        let Ok(transport) = Transport::from_url(self.0.url.expose()) else { return Report::failed(MailError::Url) };
        let transport = transport.timeout(Some(within)).build();
        let deadline = Instant::now() + within;
        let late = || (None, format!("the mail server gave no answer within {} ms", within.as_millis()));
        let (transport, message, late) = (&transport, &message, &late);
        let send = |to| async move {
            let sent = timeout_at(deadline, self.send_to(transport, to, message)).await;
            (to, sent.unwrap_or_else(|_| Err(late())))
        };
        let others = email.to.iter().filter(|to| !delivery.delivered_to.contains(to));
        let tries: Vec<_> = others.map(String::as_str).map(send).collect();
        report(stream::iter(tries).buffer_unordered(AT_ONCE).collect().await)
    }

    async fn send_to(&self, transport: &Transport, to: &str, message: &[u8]) -> Result<Response, Refusal> {
        let failed = |error: &dyn std::error::Error| format!("the mail server: {}", sluice_kit::http::chain(error));
        let to = to.parse::<Mailbox>().map_err(|_| (None, "is no mail address".to_owned()))?;
        let envelope = Envelope::new(Some(self.0.from.email.clone()), vec![to.email]);
        let envelope = envelope.map_err(|error| (None, failed(&error)))?;
        let sent = transport.send_raw(&envelope, message).await;
        sent.map_err(|error| (error.status().map(u16::from), failed(&error)))
    }

    fn write(&self, email: &Email, delivery: Delivery<'_>) -> Result<Message, String> {
        let text = Text::of(delivery.notice);
        // The same for every recipient and try, so that a mailbox detects a repetition.
        let id = format!("<{}@{}>", delivery.id, self.0.from.email.domain());
        let mut message = Message::builder().from(self.0.from.clone()).subject(&text.title).message_id(Some(id));
        for to in email.to.iter().filter_map(|to| to.parse().ok()) {
            message = message.to(to);
        }
        let bodies = MultiPart::alternative_plain_html(text.plain(), text.html());
        message.multipart(bodies).map_err(|error| error.to_string())
    }
}

/// Sent when every recipient took it. Otherwise the error names those that did not, and the status is one of theirs.
fn report(results: Vec<(&str, Result<Response, Refusal>)>) -> Report {
    let (mut delivered_to, mut response, mut refused) = (Vec::new(), None, BTreeMap::<Refusal, Vec<&str>>::new());
    for (to, result) in results {
        match result {
            Ok(answer) => {
                delivered_to.push(to.to_owned());
                response = Some(answer);
            }
            Err(refusal) => refused.entry(refusal).or_default().push(to),
        }
    }
    let Some(((status, _), _)) = refused.last_key_value() else {
        let status = response.as_ref().map(|response| u16::from(response.code()));
        let words = response.map(|response| response.message().collect::<Vec<_>>().join(" "));
        return Report { outcome: Outcome::Sent, status, response: words, error: None, delivered_to };
    };
    let words = refused.iter().map(|((_, words), to)| format!("{}: {words}", to.join(", ")));
    Report { status: *status, delivered_to, ..Report::failed(words.collect::<Vec<_>>().join("; ")) }
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

impl Kind for Email {
    const NAME: &'static str = "email";

    fn id(&self) -> &str {
        &self.id
    }

    fn url(&self) -> Option<&str> {
        None
    }

    fn secrets(&self) -> Vec<(String, &ChannelSecret)> {
        Vec::new()
    }

    fn keep(&mut self, _at: &str, _stored: Option<&Self>) -> Check {
        Ok(())
    }

    fn check(&self, at: &str) -> Check {
        filled(&format!("{at}.to"), self.to.len(), LIST_MAX)?;
        let mut to = self.to.iter().enumerate();
        to.try_for_each(|(index, address)| check_mail(&format!("{at}.to[{index}]"), address))
    }

    fn prepare<'a>(&'a self, _delivery: Delivery<'_>) -> Result<Prepared<'a>, &'static str> {
        Ok(Prepared::Mail(self))
    }
}
