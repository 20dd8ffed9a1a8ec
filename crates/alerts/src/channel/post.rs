//! One POST to an external server: to a checked address, bounded in time and size, and with few redirects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::egress::{AddressError, EgressPolicy};
use sluice_kit::clock;
use sluice_kit::http::{self, HttpError};

/// How long one address may take to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the rest of an answer is waited for; it is only shown.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read: more than is kept, so that a secret in it is masked whole.
const ANSWER_BYTES_MAX: usize = 4096;
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Redirects of one request.
const REDIRECTS_MAX: u8 = 3;

/// A request.
#[derive(Debug)]
pub struct Post {
    pub url: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON.
    pub body: Vec<u8>,
    /// It has secrets for that server only: a redirect to another one is not followed.
    pub confidential: bool,
}

/// The last server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// Of the body, as text.
    pub beginning: String,
}

/// Why there is no answer. The text has host and port of the URL, and nothing else of it.
#[derive(Debug, Error)]
pub enum PostError {
    #[error("the URL {0}")]
    Url(&'static str),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{server}: {problem}")]
    Connection { server: String, problem: String },
    #[error("{server}: no connection within {} ms", .within.as_millis())]
    Connect { server: String, within: Duration },
    #[error("{server}: no answer within {} ms", .within.as_millis())]
    Timeout { server: String, within: Duration },
    #[error("{server}: the redirect {problem}")]
    Redirect { server: String, problem: &'static str },
}

/// The client. Clones share its TLS configuration; connections are not kept.
#[derive(Clone)]
pub struct WebhookClient {
    egress: EgressPolicy,
    tls: TlsConnector,
}

impl std::fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookClient").field("egress", &self.egress).finish_non_exhaustive()
    }
}

impl WebhookClient {
    /// Sends within `egress`, and trusts the system's certificate authorities.
    ///
    /// # Errors
    /// [`HttpError`] where the TLS library refuses its own defaults.
    pub fn new(egress: EgressPolicy) -> Result<Self, HttpError> {
        Self::trusting(http::system_roots(), egress)
    }

    fn trusting(roots: RootCertStore, egress: EgressPolicy) -> Result<Self, HttpError> {
        Ok(Self { egress, tls: Arc::new(http::tls(roots)?).into() })
    }

    /// The same client with another egress policy.
    #[must_use]
    pub fn within(&self, egress: EgressPolicy) -> Self {
        Self { egress, tls: self.tls.clone() }
    }

    /// Sends it and returns the answer, whatever its status. Takes at most `within`.
    ///
    /// # Errors
    /// [`PostError`]. Whether the receiver has the message is unknown then.
    pub async fn send(&self, post: Post, within: Duration) -> Result<Answer, PostError> {
        let deadline = Instant::now() + within;
        let mut url = check(&post.url)?;
        let body = Bytes::from(post.body);
        for _ in 0..=REDIRECTS_MAX {
            let request = request(&url, &post.headers, body.clone())?;
            let answer = self.send_once(&url, request, deadline);
            let (head, beginning) = match timeout_at(deadline, answer).await {
                Ok(result) => result?,
                Err(_) => return Err(PostError::Timeout { server: server(&url), within }),
            };
            match target(&url, &head, post.confidential)? {
                Some(next) => url = next,
                None => {
                    let retry_after = retry_after(head.headers());
                    return Ok(Answer { status: head.status().as_u16(), retry_after, beginning });
                }
            }
        }
        Err(PostError::Redirect { server: server(&url), problem: "is one too many" })
    }

    async fn send_once(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(Response<()>, String), PostError> {
        let port = url.port_or_known_default().unwrap_or_default();
        let host = host(url);
        let addresses = self.egress.resolve(&host, port).await?;
        let stream = connect(url, &addresses).await?;
        let answered = if url.scheme() == "https" {
            let name = ServerName::try_from(host).map_err(|error| broken(url, &error))?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| broken(url, &error))?;
            exchange(stream, request, deadline).await
        } else {
            exchange(stream, request, deadline).await
        };
        answered.map_err(|error| broken(url, &error))
    }
}

/// A connection to the first address that takes one.
async fn connect(url: &Url, addresses: &[SocketAddr]) -> Result<TcpStream, PostError> {
    let mut refused = PostError::Connect { server: server(url), within: CONNECT_TIMEOUT };
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => refused = broken(url, &error),
            Err(_) => {}
        }
    }
    Err(refused)
}

/// Speaks HTTP/1.1 for one request.
async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<(Response<()>, String), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = http1::Builder::new();
    let (mut sender, connection) = client.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let rest = deadline.min(Instant::now() + REST_TIMEOUT);
        Ok((Response::from_parts(head, ()), beginning(body, rest).await))
    };
    // The connection's end is also the end of the answer, complete or not.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = driven => std::future::pending().await,
    }
}

/// The part of the body that arrives in time, up to its bound.
async fn beginning(mut body: Incoming, deadline: Instant) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], AsRef::as_ref)),
            Ok(Some(Err(_)) | None) | Err(_) => break,
        }
    }
    bytes.truncate(ANSWER_BYTES_MAX);
    // Postgres takes no NUL in a text.
    String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}")
}

/// The target of a redirect, if the answer is one that may be followed.
fn target(url: &Url, head: &Response<()>, confidential: bool) -> Result<Option<Url>, PostError> {
    let refused = |problem| PostError::Redirect { server: server(url), problem };
    if !matches!(head.status().as_u16(), 301 | 302 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = head.headers().get(LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| refused("is no URL"))?;
    let next = url.join(location).map_err(|_| refused("is no URL"))?;
    let next = check(next.as_str()).map_err(|_| refused("leads to a URL that cannot be used"))?;
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err(refused("leads from https to http"));
    }
    if confidential && !is_same(url, &next) {
        return Err(refused("leads to another server"));
    }
    Ok(Some(next))
}

/// The same host and port; or from the usual port of http to that of https.
fn is_same(url: &Url, next: &Url) -> bool {
    url.host() == next.host() && url.port() == next.port()
}

fn check(text: &str) -> Result<Url, PostError> {
    let url = Url::parse(text).map_err(|_| PostError::Url("cannot be read"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(PostError::Url("must begin with http:// or https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(PostError::Url("must not hold a user name or password"));
    }
    Ok(url)
}

fn request(url: &Url, headers: &[(HeaderName, HeaderValue)], body: Bytes) -> Result<Request<Full<Bytes>>, PostError> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let unusable = |_| PostError::Url("cannot be used");
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target)
        .header(HOST, server(url))
        .header(CONNECTION, "close")
        .header(USER_AGENT, http::AGENT)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(unusable)?;
    request.headers_mut().extend(headers.iter().cloned());
    Ok(request)
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(secs) = text.parse() {
        return Some(Duration::from_secs(secs));
    }
    let at = DateTime::parse_from_rfc2822(text).ok()?;
    Some((at.to_utc() - clock::now()).to_std().unwrap_or_default())
}

/// Host and port as a `Host` header and an error have them.
fn server(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The host as a resolver takes it: IPv6 without brackets.
fn host(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Domain(name)) => name.to_owned(),
        None => String::new(),
    }
}

fn broken(url: &Url, error: &dyn std::error::Error) -> PostError {
    PostError::Connection { server: server(url), problem: http::chain(error) }
}

#[cfg(test)]
mod tests;
