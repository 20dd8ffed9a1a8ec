//! Addresses of services.

use hyper::Uri;

/// The address of a service: `http://` or `https://`, a host, and perhaps a path. It holds no user and no password, so that
/// it may be printed, and ends without a slash, so that a path can follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// Takes an absolute address; `None` for anything else, and for one with credentials, query or fragment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let fits = matches!(uri.scheme_str(), Some("http" | "https")) && plain && uri.query().is_none();
        // The parser drops a fragment silently.
        (fits && !text.contains('#')).then(|| Self(text.trim_end_matches('/').to_owned()))
    }

    /// The address without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
