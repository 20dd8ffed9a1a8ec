//! The one client for outgoing HTTP: bounded in time and size, follows no redirect, and names the URL in every error
//! without its query or credentials.

mod networks;
mod url;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tracing::warn;

pub use networks::Networks;
pub use url::HttpUrl;

/// Connections that are kept open to one host.
const IDLE_PER_HOST_MAX: usize = 4;
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest accepted URL.
const URL_LEN_MAX: usize = 8 * 1024;
/// The user agent.
pub const AGENT: &str = concat!("sluice/", env!("CARGO_PKG_VERSION"));

/// Why a request failed. `url` is scheme, host and path.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The client itself cannot be made.
    #[error("the HTTP client cannot be set up: {0}")]
    SetUp(String),
    /// Not a URL that can be requested.
    #[error("{url} cannot be requested: {problem}")]
    Url { url: String, problem: &'static str },
    /// The connection could not be made, or broke.
    #[error("{url}: {problem}")]
    Connection { url: String, problem: String },
    /// No whole answer in time.
    #[error("{url}: no answer within {} ms", .within.as_millis())]
    Timeout { url: String, within: Duration },
    /// Another status than 200. A redirect is one as well: it is not followed.
    #[error("{url}: answered with status {status}")]
    Status {
        url: String,
        status: u16,
        /// Whether the answer declares its body as JSON, as a service's own answers do and few proxies' do.
        is_json: bool,
    },
    /// A body above the caller's bound.
    #[error("{url}: the answer has more than {bytes_max} bytes")]
    TooLarge { url: String, bytes_max: usize },
    /// A body of another form than expected.
    #[error("{url}: the answer cannot be read: {problem}")]
    Body { url: String, problem: String },
}

/// Calls other services. Cheap to clone; connections are shared and kept open.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    timeout: Duration,
}

impl Client {
    /// A client whose every request, body included, ends within `timeout`. It trusts the system's certificate authorities.
    ///
    /// # Errors
    /// [`HttpError::SetUp`] where the TLS library refuses its own defaults.
    pub fn new(timeout: Duration) -> Result<Self, HttpError> {
        Self::trusting(system_roots(), timeout)
    }

    fn trusting(roots: RootCertStore, timeout: Duration) -> Result<Self, HttpError> {
        let tls = tls(roots)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .build(connector.wrap_connector(tcp));
        Ok(Self { pool, timeout })
    }

    /// GET; the body of an answer with status 200.
    ///
    /// # Errors
    /// [`HttpError`]; a body above `bytes_max` is not read to its end.
    pub async fn get_bytes(&self, url: &str, bytes_max: usize) -> Result<Bytes, HttpError> {
        let shown = shown(url);
        let request = request(url).map_err(|problem| HttpError::Url { url: shown.clone(), problem })?;
        match tokio::time::timeout(self.timeout, self.answer(request, &shown, bytes_max)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout { url: shown, within: self.timeout }),
        }
    }

    /// GET of a JSON document.
    ///
    /// # Errors
    /// [`HttpError`]; [`HttpError::Body`] for a document of another form.
    pub async fn get_json<T: DeserializeOwned>(&self, url: &str, bytes_max: usize) -> Result<T, HttpError> {
        let body = self.get_bytes(url, bytes_max).await?;
        let refused = |problem: String| HttpError::Body { url: shown(url), problem };
        let text = quota::document_text(&body).map_err(|error| refused(format!("it {error}")))?;
        serde_json::from_str(text).map_err(|error| refused(error.to_string()))
    }

    async fn answer(&self, request: Request<Empty<Bytes>>, url: &str, bytes_max: usize) -> Result<Bytes, HttpError> {
        let broken = |problem: String| HttpError::Connection { url: url.to_owned(), problem };
        let response = self.pool.request(request).await.map_err(|error| broken(chain(&error)))?;
        if response.status() != StatusCode::OK {
            let (status, is_json) = (response.status().as_u16(), is_json(response.headers()));
            return Err(HttpError::Status { url: url.to_owned(), status, is_json });
        }
        match Limited::new(response.into_body(), bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLarge { url: url.to_owned(), bytes_max }),
            Err(error) => Err(broken(chain(error.as_ref()))),
        }
    }
}

/// TLS that trusts `roots`.
pub fn tls(roots: RootCertStore) -> Result<ClientConfig, HttpError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::SetUp(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Whether a text is a URL that this client can request; the error describes what is wrong with it.
///
/// # Errors
/// What must be changed, as the end of a sentence.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    request(url).map(drop)
}

fn request(url: &str) -> Result<Request<Empty<Bytes>>, &'static str> {
    if url.len() > URL_LEN_MAX {
        return Err("it is too long");
    }
    let uri: Uri = url.parse().map_err(|_| "it is not a URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err("it must begin with http:// or https:// and name a host");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it must not hold a user name or password");
    }
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    Ok(request)
}

/// Whether the body is `application/json` or, as RFC 9457 has it, `application/problem+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/problem+json"].iter().any(|json| essence.eq_ignore_ascii_case(json))
}

/// Scheme, host and path: a query or a password in a URL must not be logged.
fn shown(url: &str) -> String {
    match url.parse::<Uri>() {
        Ok(uri) => {
            let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
            let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{scheme}://{host}{port}{}", uri.path())
        }
        Err(_) => "the URL".to_owned(),
    }
}

/// An error with its causes: the outermost is little more than "client error".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A system without any (a bare container) can still use plain HTTP; every https URL fails with an unknown issuer.
pub fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, refused) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        warn!(refused, errors = found.errors.len(), "no certificate authorities found, https cannot be used");
    }
    roots
}

#[cfg(test)]
mod tests;
