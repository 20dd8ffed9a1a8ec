//! One server and the connection to it: how it is made, used and lost.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::uri::{PathAndQuery, Scheme, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::grpc::{UNAVAILABLE, UNIMPLEMENTED, exchange};
use super::{AVOIDED, CONNECT_TIMEOUT, PING_INTERVAL, Server};
use crate::engine::Call;

/// The methods that are called.
const METHODS: [[&str; 2]; 3] = [filter::wire::CHECK, filter::wire::BATCH_CHECK, HEALTH];
const HEALTH: [&str; 2] = ["grpc.health.v1.Health", "Check"];
/// How long the answer to a question about a server's health may take, in milliseconds.
const HEALTH_TIMEOUT_MS: u32 = 500;

/// One server and the connection to it.
pub(super) struct Endpoint {
    server: Server,
    /// Of each method, in the order of [`METHODS`].
    uris: [Option<Uri>; 3],
    connection: Mutex<Connection>,
    /// Notifies the calls that wait for a connection of the cluster.
    settled: Arc<Notify>,
}

#[derive(Default)]
struct Connection {
    sender: Option<SendRequest<Bytes>>,
    /// A task makes one.
    is_pending: bool,
    /// How many tries there were.
    tries: usize,
    avoided_until: Option<Instant>,
}

/// One try to connect. Its end is its result, whatever ends it.
struct Try {
    endpoint: Arc<Endpoint>,
    sender: Option<SendRequest<Bytes>>,
}

impl Drop for Try {
    fn drop(&mut self) {
        let mut connection = self.endpoint.lock();
        connection.is_pending = false;
        connection.sender = self.sender.take();
        if connection.sender.is_none() {
            connection.avoid();
        }
        drop(connection);
        self.endpoint.settled.notify_waiters();
    }
}

impl Connection {
    fn avoid(&mut self) {
        self.avoided_until = Instant::now().checked_add(AVOIDED);
    }
}

/// A connection to the first of these servers that has one. Where none has, all are tried, and the first connection is taken; `None`
/// if every try fails or lasts too long.
pub(super) async fn connected(
    endpoints: &[Arc<Endpoint>],
    settled: &Notify,
) -> Option<(Arc<Endpoint>, SendRequest<Bytes>)> {
    let mut tries = Vec::new();
    for endpoint in endpoints {
        if let Some(sender) = endpoint.sender().await {
            return Some((Arc::clone(endpoint), sender));
        }
        tries.push((endpoint, endpoint.connect()));
    }
    let first = async {
        loop {
            let changed = settled.notified();
            for (endpoint, _) in &tries {
                if let Some(sender) = endpoint.sender().await {
                    return Some((Arc::clone(endpoint), sender));
                }
            }
            tries.retain(|(endpoint, number)| endpoint.is_pending(*number));
            if tries.is_empty() {
                return None;
            }
            changed.await;
        }
    };
    timeout(CONNECT_TIMEOUT, first).await.ok().flatten()
}

impl Endpoint {
    pub(super) fn new(server: Server, settled: Arc<Notify>) -> Self {
        let uri = |[service, method]: [&str; 2]| {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(server.authority()?);
            parts.path_and_query = Some(PathAndQuery::try_from(format!("/{service}/{method}")).ok()?);
            Uri::from_parts(parts).ok()
        };
        Self { uris: METHODS.map(uri), server, connection: Mutex::default(), settled }
    }

    pub(super) fn uri(&self, method: [&str; 2]) -> Option<Uri> {
        let at = METHODS.iter().position(|own| *own == method)?;
        self.uris.get(at).cloned().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        self.lock().avoided_until.is_some_and(|until| now < until)
    }

    pub(super) fn avoid(&self) {
        self.lock().avoid();
    }

    /// A connection that takes another call. One that is gone says so at once.
    async fn sender(&self) -> Option<SendRequest<Bytes>> {
        let sender = self.lock().sender.clone()?;
        sender.ready().await.ok()
    }

    fn is_pending(&self, number: usize) -> bool {
        let connection = self.lock();
        connection.is_pending && connection.tries == number
    }

    /// Has a task connect, unless one does already. Returns the number of the try.
    fn connect(self: &Arc<Self>) -> usize {
        let mut connection = self.lock();
        if !connection.is_pending {
            connection.is_pending = true;
            connection.sender = None;
            connection.tries = connection.tries.wrapping_add(1);
            let (endpoint, number) = (Arc::clone(self), connection.tries);
            tokio::spawn(async move {
                let mut own = Try { endpoint, sender: None };
                own.sender = own.endpoint.dial(number).await;
            });
        }
        connection.tries
    }

    /// A name is looked up for each connection, by a thread that the system's resolver keeps for as long as it likes: the try lasts as
    /// long, so that there is one such thread for each server at most.
    async fn dial(self: &Arc<Self>, number: usize) -> Option<SendRequest<Bytes>> {
        match &self.server {
            Server::Tcp(place) => {
                let addresses: Vec<SocketAddr> = lookup_host(place).await.ok()?.collect();
                timeout(CONNECT_TIMEOUT, self.dial_any(addresses, number)).await.ok().flatten()
            }
            Server::Unix(path) => {
                let dial = async { self.handshake(UnixStream::connect(path).await.ok()?, number).await };
                timeout(CONNECT_TIMEOUT, dial).await.ok().flatten()
            }
        }
    }

    /// The next address of the name, and if that does not answer the others.
    async fn dial_any(self: &Arc<Self>, addresses: Vec<SocketAddr>, number: usize) -> Option<SendRequest<Bytes>> {
        let count = addresses.len();
        let first = number.checked_rem(count)?;
        for address in addresses.into_iter().cycle().skip(first).take(count) {
            if let Ok(stream) = TcpStream::connect(address).await {
                stream.set_nodelay(true).ok()?;
                return self.handshake(stream, number).await;
            }
        }
        None
    }

    async fn handshake<T>(self: &Arc<Self>, stream: T, number: usize) -> Option<SendRequest<Bytes>>
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
        // The connection ends with its endpoint, and must not keep it.
        let endpoint = Arc::downgrade(self);
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
            // One that a later connection has replaced says nothing of the server.
            if let Some(endpoint) = endpoint.upgrade() {
                let mut connection = endpoint.lock();
                if connection.tries == number {
                    connection.avoid();
                }
            }
        });
        Some(sender)
    }

    /// Whether the server says that it serves. One without the service is taken as it is.
    async fn serves(self: &Arc<Self>) -> bool {
        const SERVING: &[u8] = &[0x08, 0x01];
        let service = filter::wire::CHECK[0].as_bytes();
        let mut message = vec![0x0a, u8::try_from(service.len()).unwrap_or_default()];
        message.extend_from_slice(service);
        let call = Call {
            token: 0,
            cluster: Arc::from(""),
            method: HEALTH,
            message,
            timeout_ms: HEALTH_TIMEOUT_MS,
            answer_bytes_max: 1 << 10,
        };
        let asked = async {
            let own = std::slice::from_ref(self);
            let (_, sender) = connected(own, &self.settled).await.ok_or(UNAVAILABLE)?;
            exchange(sender, self.uri(HEALTH), &call).await
        };
        match timeout(Duration::from_millis(u64::from(HEALTH_TIMEOUT_MS)), asked).await {
            Ok(Ok(answer)) => answer.as_deref() == Some(SERVING),
            Ok(Err(status)) => status == UNIMPLEMENTED,
            Err(_) => false,
        }
    }
}

/// Asks a server for its health, where there are others to use instead, for as long as its cluster is there.
pub(super) async fn watch(endpoint: Weak<Endpoint>) {
    while let Some(endpoint) = endpoint.upgrade() {
        if !endpoint.serves().await {
            endpoint.avoid();
        }
        drop(endpoint);
        sleep(AVOIDED.div_f32(2.0)).await;
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
