//! Checks settings: every channel can be sent to, every route names existing channels. Replaces masks by stored secrets.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lettre::Address;
use thiserror::Error;
use url::Url;

use super::channel::{MASK, mask_of, masked_url};
use super::{Channel, ChannelSecret, Route, Scope, Settings};

/// Most channels.
const CHANNELS_MAX: usize = 20;
/// Most routes.
const ROUTES_MAX: usize = 50;
/// Most entries of any other list.
const LIST_MAX: usize = 20;
/// Most secrets that sign one message.
const SECRETS_MAX: usize = 4;
/// Longest id of a channel.
const ID_LEN_MAX: usize = 64;
/// Longest URL, in bytes.
const URL_LEN_MAX: usize = 2048;
/// Longest device key or token, in bytes.
const TOKEN_LEN_MAX: usize = 256;
/// Longest address that SMTP takes (RFC 5321, section 4.5.3.1.3), in bytes.
const MAIL_LEN_MAX: usize = 254;
/// Longest part of a domain name (RFC 1035, section 2.3.4), in bytes.
const LABEL_LEN_MAX: usize = 63;
/// Prefix of a webhook's secret (Standard Webhooks).
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a webhook's secret (Standard Webhooks).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Percentages that a policy may have.
const PERCENTS: std::ops::RangeInclusive<u32> = 1..=quota::Thresholds::PERCENT_MAX;
/// A day.
const DIGEST_MINUTES_MAX: u32 = 24 * 60;

/// An invalid field of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// As in `channels[0].url`.
    pub field: String,
    /// What it must be. Never contains a secret.
    pub problem: String,
}

type Check = Result<(), Invalid>;

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), problem: problem.into() }
}

impl Settings {
    /// Takes the secrets of the present settings where these have masks, and checks everything.
    ///
    /// # Errors
    /// [`Invalid`] names the first invalid field.
    pub fn check(mut self, scope: &Scope, present: &Self) -> Result<Self, Invalid> {
        bounded("channels", self.channels.len(), CHANNELS_MAX)?;
        bounded("routes", self.routes.len(), ROUTES_MAX)?;
        if !(1..=DIGEST_MINUTES_MAX).contains(&self.digest_minutes) {
            return Err(invalid("digest_minutes", format!("must be from 1 to {DIGEST_MINUTES_MAX}")));
        }
        let mut ids = Vec::new();
        for (index, channel) in self.channels.iter_mut().enumerate() {
            let at = format!("channels[{index}]");
            check_id(&at, channel.id())?;
            if ids.iter().any(|id| id == channel.id()) {
                return Err(invalid(format!("{at}.id"), "is the id of another channel"));
            }
            ids.push(channel.id().to_owned());
            channel.keep(&at, present.channel(channel.id()))?;
            channel.check(&at)?;
        }
        for (index, route) in self.routes.iter().enumerate() {
            route.check(&format!("routes[{index}]"), scope, &ids)?;
        }
        Ok(self)
    }
}

impl Channel {
    /// Replaces masks by stored secrets. A key must be given again for another server than it was given for.
    fn keep(&mut self, at: &str, present: Option<&Self>) -> Check {
        match (self, present) {
            (Self::Webhook(new), present) => {
                let kept: &[ChannelSecret] = match present {
                    Some(Self::Webhook(present)) => &present.secrets,
                    Some(_) | None => &[],
                };
                for (index, secret) in new.secrets.iter_mut().enumerate() {
                    if secret.expose().starts_with(MASK) {
                        let found = kept.iter().enumerate().find(|(number, _)| mask_of(number + 1) == secret.expose());
                        let (_, found) = found.ok_or_else(|| {
                            invalid(
                                format!("{at}.secrets[{index}]"),
                                "is a mask without a stored secret: give the secret",
                            )
                        })?;
                        *secret = found.clone();
                    }
                }
                Ok(())
            }
            (Self::Bark(new), Some(Self::Bark(present))) if present.url == new.url => {
                new.device_key.keep(&present.device_key);
                Ok(())
            }
            (Self::Gotify(new), Some(Self::Gotify(present))) if present.url == new.url => {
                new.token.keep(&present.token);
                Ok(())
            }
            (Self::Slack(new), Some(Self::Slack(present))) if masked_url(present.url.expose()) == new.url.expose() => {
                new.url = present.url.clone();
                Ok(())
            }
            (Self::Bark(_) | Self::Gotify(_) | Self::Slack(_) | Self::Email(_), _) => Ok(()),
        }
    }

    fn check(&self, at: &str) -> Check {
        match self {
            Self::Webhook(webhook) => {
                check_url(&format!("{at}.url"), &webhook.url)?;
                filled(&format!("{at}.secrets"), webhook.secrets.len(), SECRETS_MAX)?;
                let mut secrets = webhook.secrets.iter().enumerate();
                secrets.try_for_each(|(index, secret)| check_secret(&format!("{at}.secrets[{index}]"), secret))
            }
            Self::Email(email) => {
                filled(&format!("{at}.to"), email.to.len(), LIST_MAX)?;
                let mut to = email.to.iter().enumerate();
                to.try_for_each(|(index, address)| check_mail(&format!("{at}.to[{index}]"), address))
            }
            Self::Bark(bark) => {
                check_server(&format!("{at}.url"), &bark.url)?;
                check_token(&format!("{at}.device_key"), &bark.device_key)
            }
            Self::Gotify(gotify) => {
                check_server(&format!("{at}.url"), &gotify.url)?;
                check_token(&format!("{at}.token"), &gotify.token)
            }
            Self::Slack(slack) => {
                let field = format!("{at}.url");
                if slack.url.expose().contains(MASK) {
                    return Err(invalid(field, "is a mask without a stored URL: give the whole URL"));
                }
                check_url(&field, slack.url.expose())
            }
        }
    }
}

impl ChannelSecret {
    fn keep(&mut self, present: &Self) {
        if self.expose() == MASK {
            *self = present.clone();
        }
    }
}

impl Route {
    fn check(&self, at: &str, scope: &Scope, ids: &[String]) -> Check {
        if let Some(types) = &self.types {
            let field = format!("{at}.types");
            named(&field, types.len())?;
            let foreign = types.iter().position(|subject| subject.is_operators() && *scope != Scope::Operators);
            if let Some(index) = foreign {
                return Err(invalid(format!("{field}[{index}]"), "concerns operators only"));
            }
        }
        if let Some(levels) = &self.levels {
            named(&format!("{at}.levels"), levels.len())?;
        }
        if let Some(thresholds) = &self.thresholds {
            let field = format!("{at}.thresholds");
            named(&field, thresholds.len())?;
            if let Some(index) = thresholds.iter().position(|percent| !PERCENTS.contains(percent)) {
                let range = format!("must be from {} to {}", PERCENTS.start(), PERCENTS.end());
                return Err(invalid(format!("{field}[{index}]"), range));
            }
        }
        let field = format!("{at}.channels");
        filled(&field, self.channels.len(), LIST_MAX)?;
        match self.channels.iter().position(|id| !ids.contains(id)) {
            Some(index) => Err(invalid(format!("{field}[{index}]"), "must be the id of a channel of these settings")),
            None => Ok(()),
        }
    }
}

fn bounded(field: &str, len: usize, len_max: usize) -> Check {
    if len > len_max {
        return Err(invalid(field, format!("may have {len_max} entries")));
    }
    Ok(())
}

fn filled(field: &str, len: usize, len_max: usize) -> Check {
    if len == 0 {
        return Err(invalid(field, "must have one entry at least"));
    }
    bounded(field, len, len_max)
}

fn named(field: &str, len: usize) -> Check {
    if len == 0 {
        return Err(invalid(field, "must have one entry at least, or be absent for all"));
    }
    bounded(field, len, LIST_MAX)
}

fn check_id(at: &str, id: &str) -> Check {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if (1..=ID_LEN_MAX).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    let problem = format!("must have 1 to {ID_LEN_MAX} lower-case letters, digits, - and _");
    Err(invalid(format!("{at}.id"), problem))
}

fn check_url(field: &str, url: &str) -> Check {
    if url.len() > URL_LEN_MAX {
        return Err(invalid(field, format!("may have {URL_LEN_MAX} bytes")));
    }
    let problem = "must be an http:// or https:// URL with a host, and without a user, a password and a fragment";
    // The parser ignores white space and control characters.
    let parsed = Url::parse(url).ok().filter(|_| url.bytes().all(|byte| byte.is_ascii_graphic()));
    let good = parsed.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && (url.username(), url.password(), url.fragment()) == ("", None, None)
    });
    if good { Ok(()) } else { Err(invalid(field, problem)) }
}

/// A URL that a path is added to.
fn check_server(field: &str, url: &str) -> Check {
    check_url(field, url)?;
    if url.contains('?') {
        return Err(invalid(field, "must have no query: it names a server"));
    }
    Ok(())
}

fn check_secret(field: &str, secret: &ChannelSecret) -> Check {
    let bytes = secret.expose().strip_prefix(SECRET_PREFIX).and_then(|text| BASE64_STANDARD.decode(text).ok());
    if bytes.is_some_and(|bytes| SECRET_BYTES.contains(&bytes.len())) {
        return Ok(());
    }
    let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
    Err(invalid(field, format!("must be {SECRET_PREFIX} and base64 of {least} to {most} random bytes")))
}

fn check_token(field: &str, token: &ChannelSecret) -> Check {
    let text = token.expose();
    if text == MASK {
        return Err(invalid(field, "is a mask, and no secret is stored for this channel and server: give it again"));
    }
    if (1..=TOKEN_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(invalid(field, format!("must have 1 to {TOKEN_LEN_MAX} visible ASCII characters")))
}

fn check_mail(field: &str, address: &str) -> Check {
    let visible = address.len() <= MAIL_LEN_MAX && address.bytes().all(|byte| byte.is_ascii_graphic());
    let read = address.parse::<Address>().ok().filter(|_| visible);
    if read.is_some_and(|read| is_plain_mailbox(read.user()) && is_public_domain(read.domain())) {
        return Ok(());
    }
    Err(invalid(field, "must be one mail address at a domain name, as in alerts@example.com"))
}

/// No quoted text, and none of the characters that made mail servers relay to another host (`%`, `!`, and `/` for files and pipes).
fn is_plain_mailbox(user: &str) -> bool {
    user.bytes().all(|byte| !matches!(byte, b'"' | b'%' | b'!' | b'|' | b'/' | b'\\'))
}

/// Domain names of two labels or more: no IP address in any notation, and no host that only the mail server knows.
fn is_public_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let signs = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        signs && (1..=LABEL_LEN_MAX).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let Some((name, top)) = domain.rsplit_once('.') else { return false };
    let is_number = top.starts_with(|first: char| first.is_ascii_digit());
    let is_this_machine = top.eq_ignore_ascii_case("localhost") || domain.eq_ignore_ascii_case("localhost.localdomain");
    name.split('.').all(is_label) && is_label(top) && !is_number && !is_this_machine
}
