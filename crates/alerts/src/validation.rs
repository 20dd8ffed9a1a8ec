//! Checks of single fields of alert settings.

use lettre::Address;
use thiserror::Error;
use url::Url;

/// Most entries of any other list.
pub(crate) const LIST_MAX: usize = 20;
/// Longest id of a channel.
const ID_LEN_MAX: usize = 64;
/// Longest URL, in bytes.
const URL_LEN_MAX: usize = 2048;
/// Longest address that SMTP takes (RFC 5321, section 4.5.3.1.3), in bytes.
const MAIL_LEN_MAX: usize = 254;
/// Longest part of a domain name (RFC 1035, section 2.3.4), in bytes.
const LABEL_LEN_MAX: usize = 63;

/// An invalid field of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// As in `channels[0].url`.
    pub field: String,
    /// What it must be. Never contains a secret.
    pub problem: String,
}

pub(crate) type Check = Result<(), Invalid>;

pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), problem: problem.into() }
}

pub(crate) fn bounded(field: &str, len: usize, len_max: usize) -> Check {
    if len > len_max {
        return Err(invalid(field, format!("may have {len_max} entries")));
    }
    Ok(())
}

pub(crate) fn filled(field: &str, len: usize, len_max: usize) -> Check {
    if len == 0 {
        return Err(invalid(field, "must have one entry at least"));
    }
    bounded(field, len, len_max)
}

pub(crate) fn check_id(at: &str, id: &str) -> Check {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if (1..=ID_LEN_MAX).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    let problem = format!("must have 1 to {ID_LEN_MAX} lower-case letters, digits, - and _");
    Err(invalid(format!("{at}.id"), problem))
}

pub(crate) fn check_url(field: &str, url: &str) -> Check {
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
pub(crate) fn check_server(field: &str, url: &str) -> Check {
    check_url(field, url)?;
    if url.contains('?') {
        return Err(invalid(field, "must have no query: it names a server"));
    }
    Ok(())
}

pub(crate) fn check_mail(field: &str, address: &str) -> Check {
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
