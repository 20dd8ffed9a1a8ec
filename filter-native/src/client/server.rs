//! Where a decision server is.

use std::path::PathBuf;

use http::uri::Authority;

/// The place of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Host and port.
    Tcp(String),
    Unix(PathBuf),
}

impl Server {
    /// Reads `http://host:port` or `unix:/path`.
    ///
    /// # Errors
    /// A sentence that says what is possible.
    pub fn parse(url: &str) -> Result<Self, String> {
        let refused = || format!("servers: {url:?} must be http://host:port or unix:/path; TLS is not possible here");
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(refused()) };
        }
        let place = url.strip_prefix("http://").ok_or_else(refused)?;
        let place = place.strip_suffix('/').unwrap_or(place);
        let authority: Authority = place.parse().map_err(|_| refused())?;
        let port = authority.port_u16().unwrap_or(80);
        if authority.host().is_empty() || place.contains('@') {
            return Err(refused());
        }
        Ok(Self::Tcp(format!("{}:{port}", authority.host())))
    }

    pub(super) fn authority(&self) -> Option<Authority> {
        match self {
            Self::Tcp(place) => place.parse().ok(),
            Self::Unix(_) => Some(Authority::from_static("localhost")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers() {
        let tcp = |place: &str| Ok(Server::Tcp(place.to_owned()));
        let table = [
            ("http://127.0.0.1:40023", tcp("127.0.0.1:40023")),
            ("http://authz/", tcp("authz:80")),
            ("http://[::1]:7", tcp("[::1]:7")),
            ("unix:/run/s", Ok(Server::Unix("/run/s".into()))),
            ("unix:///run/s", Ok(Server::Unix("/run/s".into()))),
            ("unix:run", Err(())),
            ("https://a", Err(())),
            ("http://a/b", Err(())),
            ("http://", Err(())),
            ("http://u@a:1", Err(())),
            ("127.0.0.1:1", Err(())),
        ];
        for (url, expected) in table {
            assert_eq!(Server::parse(url).map_err(drop), expected, "{url}");
        }
    }
}
