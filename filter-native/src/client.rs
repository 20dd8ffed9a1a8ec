//! gRPC calls to the decision servers: one HTTP/2 connection to each, and for each call the next server that is there.
//!
//! A connection is made when a call needs it, and a call that finds no server fails at once. A server that refuses a connection, loses
//! one, does not answer a ping or reports that it stops is passed over for a moment where there is another one.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, timeout};

use crate::engine::{Call, Message};

/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Pause between two pings, and how long one may take: a server that hangs is noticed within two seconds.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a server that failed is passed over where there is another one.
pub const AVOIDED: Duration = Duration::from_secs(1);

/// gRPC's codes, as far as calls fail by them here.
const OK: u32 = 0;
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// The methods that are called.
const METHODS: [[&str; 2]; 3] = [filter::wire::CHECK, filter::wire::BATCH_CHECK, HEALTH];
const HEALTH: [&str; 2] = ["grpc.health.v1.Health", "Check"];

/// The bytes before a message: whether it is compressed, and its length.
const FRAME_HEADER: usize = 5;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

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

    fn authority(&self) -> Option<Authority> {
        match self {
            Self::Tcp(place) => place.parse().ok(),
            Self::Unix(_) => Some(Authority::from_static("localhost")),
        }
    }
}

/// The clients of every configuration.
pub struct Clients {
    answers: UnboundedSender<Message>,
    /// By the names of their servers.
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("clusters", &self.clusters.keys()).finish_non_exhaustive()
    }
}

struct Cluster {
    endpoints: Vec<Arc<Endpoint>>,
    next: AtomicUsize,
}

/// One server and the connection to it.
struct Endpoint {
    server: Server,
    /// Of each method, in the order of [`METHODS`].
    uris: [Option<Uri>; 3],
    /// Held while a connection is made, so that one is made for all calls that wait for it.
    connection: tokio::sync::Mutex<Connection>,
    avoided_until: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Connection {
    sender: Option<SendRequest<Bytes>>,
    /// When the last try failed.
    failed_at: Option<Instant>,
    tries: usize,
}

/// Answers a call with a failure where its task ends without an answer, as by a panic.
struct Reply {
    token: u32,
    answers: UnboundedSender<Message>,
    answer: (u32, Option<Vec<u8>>),
}

impl Reply {
    fn finish(mut self, answer: (u32, Option<Vec<u8>>)) {
        self.answer = answer;
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let (grpc_status, message) = std::mem::take(&mut self.answer);
        let _ = self.answers.send(Message::Answer { token: self.token, grpc_status, message });
    }
}

impl Clients {
    #[must_use]
    pub fn new(answers: UnboundedSender<Message>) -> Self {
        Self { answers, clusters: BTreeMap::new() }
    }

    /// Takes the servers of a configuration. Connections of an equal one stay.
    pub fn open(&mut self, cluster: &Arc<str>, servers: Vec<Server>) {
        self.clusters.entry(Arc::clone(cluster)).or_insert_with(|| {
            let endpoints: Vec<_> = servers.into_iter().map(Endpoint::new).map(Arc::new).collect();
            if endpoints.len() > 1 {
                endpoints.iter().map(Arc::clone).for_each(|endpoint| drop(tokio::spawn(endpoint.watch())));
            }
            Arc::new(Cluster { endpoints, next: AtomicUsize::new(0) })
        });
    }

    /// Starts a call, which ends with a [`Message::Answer`].
    pub fn start(&self, call: Call) {
        let reply = Reply { token: call.token, answers: self.answers.clone(), answer: (INTERNAL, None) };
        let Some(cluster) = self.clusters.get(&call.cluster).map(Arc::clone) else {
            return reply.finish((UNAVAILABLE, None));
        };
        tokio::spawn(async move {
            let wait = Duration::from_millis(u64::from(call.timeout_ms));
            reply.finish(match timeout(wait, cluster.call(&call)).await {
                Ok(Ok(message)) => (OK, message),
                Ok(Err(status)) => (status, None),
                Err(_) => (DEADLINE_EXCEEDED, None),
            });
        });
    }
}

impl Cluster {
    /// The message of an answer, or the status of a failure.
    async fn call(&self, call: &Call) -> Result<Option<Vec<u8>>, u32> {
        for endpoint in self.endpoints() {
            if let Some(sender) = endpoint.connected().await {
                let answer = exchange(sender, endpoint, call).await;
                if answer.as_ref().is_err_and(|status| *status == UNAVAILABLE) {
                    endpoint.avoid();
                }
                return answer;
            }
        }
        Err(UNAVAILABLE)
    }

    /// The servers in the order in which they are tried: in turn, and last those that have just failed.
    fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let count = self.endpoints.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or_default();
        let now = Instant::now();
        let turned = self.endpoints.iter().cycle().skip(first).take(count);
        let (avoided, good): (Vec<_>, Vec<_>) = turned.partition(|endpoint| endpoint.is_avoided(now));
        good.into_iter().chain(avoided)
    }
}

impl Endpoint {
    fn new(server: Server) -> Self {
        let uri = |[service, method]: [&str; 2]| {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(server.authority()?);
            parts.path_and_query = Some(PathAndQuery::try_from(format!("/{service}/{method}")).ok()?);
            Uri::from_parts(parts).ok()
        };
        Self {
            uris: METHODS.map(uri),
            server,
            connection: tokio::sync::Mutex::default(),
            avoided_until: Mutex::default(),
        }
    }

    fn is_avoided(&self, now: Instant) -> bool {
        let until = *self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    fn avoid(&self) {
        let until = Instant::now().checked_add(AVOIDED);
        *self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// A connection that takes another call; `None` if there is none to be had.
    async fn connected(self: &Arc<Self>) -> Option<SendRequest<Bytes>> {
        let asked_at = Instant::now();
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.sender.take() {
            // A connection that is gone says so at once.
            if let Ok(sender) = sender.ready().await {
                connection.sender = Some(sender.clone());
                return Some(sender);
            }
        }
        if connection.failed_at.is_some_and(|failed_at| failed_at >= asked_at) {
            return None;
        }
        connection.tries = connection.tries.wrapping_add(1);
        let tries = connection.tries;
        match timeout(CONNECT_TIMEOUT, self.connect(tries)).await {
            Ok(Some(sender)) => {
                connection.sender = Some(sender.clone());
                Some(sender)
            }
            Ok(None) | Err(_) => {
                connection.failed_at = Some(Instant::now());
                self.avoid();
                None
            }
        }
    }

    async fn connect(self: &Arc<Self>, tries: usize) -> Option<SendRequest<Bytes>> {
        match &self.server {
            Server::Tcp(place) => {
                let addresses: Vec<SocketAddr> = lookup_host(place).await.ok()?.collect();
                let count = addresses.len();
                let first = tries.checked_rem(count)?;
                // The next address of the name, and if that does not answer the others.
                for address in addresses.into_iter().cycle().skip(first).take(count) {
                    if let Ok(stream) = TcpStream::connect(address).await {
                        stream.set_nodelay(true).ok()?;
                        return self.handshake(stream).await;
                    }
                }
                None
            }
            Server::Unix(path) => self.handshake(UnixStream::connect(path).await.ok()?).await,
        }
    }

    async fn handshake<T>(self: &Arc<Self>, stream: T) -> Option<SendRequest<Bytes>>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, mut connection) = Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake::<_, Bytes>(stream)
            .await
            .ok()?;
        let pings = connection.ping_pong();
        let endpoint = Arc::clone(self);
        tokio::spawn(async move {
            let hangs = async {
                match pings {
                    Some(pings) => until_silent(pings).await,
                    None => std::future::pending().await,
                }
            };
            // Dropping the connection fails the calls that are on it.
            tokio::select! {
                _ = connection => {}
                () = hangs => {}
            }
            endpoint.avoid();
        });
        Some(sender)
    }

    /// Asks a server for its health, where there are others to use instead.
    async fn watch(self: Arc<Self>) {
        const SERVING: &[u8] = &[0x08, 0x01];
        let service = filter::wire::CHECK[0].as_bytes();
        let mut message = vec![0x0a, u8::try_from(service.len()).unwrap_or_default()];
        message.extend_from_slice(service);
        let timeout_ms = 500;
        loop {
            let call = Call {
                token: 0,
                cluster: Arc::from(""),
                method: HEALTH,
                message: message.clone(),
                timeout_ms,
                answer_bytes_max: 1 << 10,
            };
            let asked = async {
                let sender = self.connected().await.ok_or(UNAVAILABLE)?;
                exchange(sender, &self, &call).await
            };
            let answer = timeout(Duration::from_millis(u64::from(timeout_ms)), asked).await;
            // A server without the service is taken as it is.
            let serves = match answer {
                Ok(Ok(answer)) => answer.as_deref() == Some(SERVING),
                Ok(Err(status)) => status == UNIMPLEMENTED,
                Err(_) => false,
            };
            if !serves {
                self.avoid();
            }
            sleep(AVOIDED.div_f32(2.0)).await;
        }
    }
}

/// Returns when a ping is not answered in time.
async fn until_silent(mut pings: h2::PingPong) {
    loop {
        sleep(PING_INTERVAL).await;
        if !matches!(timeout(PING_INTERVAL, pings.ping(h2::Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// One call on a connection.
async fn exchange(mut sender: SendRequest<Bytes>, endpoint: &Endpoint, call: &Call) -> Result<Option<Vec<u8>>, u32> {
    let at = METHODS.iter().position(|method| *method == call.method).ok_or(INTERNAL)?;
    let uri = endpoint.uris.get(at).and_then(Option::as_ref).ok_or(INTERNAL)?;
    let request = request(uri.clone(), call.timeout_ms).ok_or(INTERNAL)?;
    let lost = |_: h2::Error| UNAVAILABLE;
    let (response, mut body) = sender.send_request(request, false).map_err(lost)?;
    body.send_data(framed(&call.message), true).map_err(lost)?;
    let (head, mut body) = response.await.map_err(lost)?.into_parts();
    if let Some(status) = grpc_status(&head.headers) {
        return if status == OK { Ok(None) } else { Err(status) };
    }
    if head.status != StatusCode::OK {
        return Err(status_of(head.status));
    }
    let longest = call.answer_bytes_max.saturating_add(FRAME_HEADER);
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(lost)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
        if bytes.len() > longest {
            return Err(RESOURCE_EXHAUSTED);
        }
    }
    let trailers = poll_fn(|context| body.poll_trailers(context)).await.map_err(lost)?;
    match trailers.as_ref().and_then(grpc_status).unwrap_or(UNKNOWN) {
        OK => unframed(bytes).ok_or(INTERNAL),
        status => Err(status),
    }
}

fn request(uri: Uri, timeout_ms: u32) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(format!("{timeout_ms}m")).ok()?);
    Some(request)
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len().saturating_add(FRAME_HEADER));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The message of one frame. Without a frame there is none; `None` if the bytes are anything else.
fn unframed(bytes: BytesMut) -> Option<Option<Vec<u8>>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let (header, message) = bytes.split_at_checked(FRAME_HEADER)?;
    let [0, length @ ..] = header else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (usize::try_from(length).ok()? == message.len()).then(|| Some(message.to_vec()))
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN))
}

/// gRPC's own table for answers that are no gRPC.
fn status_of(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
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

    #[test]
    fn frames_are_one_whole_message() {
        for message in [&b""[..], b"a", &[7; 300]] {
            assert_eq!(unframed(BytesMut::from(framed(message))), Some(Some(message.to_vec())));
        }
        assert_eq!(unframed(BytesMut::new()), Some(None));
        for bytes in [&b"\0"[..], b"\x01\0\0\0\x01a", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab", b"HTTP/1.1 200"] {
            assert_eq!(unframed(BytesMut::from(bytes)), None, "{bytes:?}");
        }
    }
}
