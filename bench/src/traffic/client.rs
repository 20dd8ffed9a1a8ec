//! The clients of a run: connections of both protocols that send one order after the other, leave when the order's number says
//! so, and hold each answer against its own request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::header;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::answers::Judged;
use super::ledger::{Ended, Ledger};
use super::order::{AtGateway, Leaves, Order, Pieces};
use super::orders::Orders;
use super::{answers, raw};
use testkit::client::{CallBody, Part, Protocol};
use testkit::{Failure, Result};

/// Longer than every deadline on the way; a request that takes this long hangs.
const HUNG_AFTER: Duration = Duration::from_secs(40);
/// Between the pieces of a slow body.
const PAUSE: Duration = Duration::from_millis(3);
/// An order that was not sent because its connection had ended is sent on another one, so often at most.
const CONNECTIONS_MAX: usize = 5;

/// Connections of a run.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// HTTP/1.1 connections, each with one request at a time.
    pub http1: usize,
    /// HTTP/2 connections.
    pub http2: usize,
    /// Requests at a time on each HTTP/2 connection.
    pub streams: usize,
}

/// What the clients share.
#[derive(Debug)]
pub(super) struct Clients {
    pub address: SocketAddr,
    pub orders: Orders,
    pub ledger: Arc<Ledger>,
    /// The next order, and the end.
    next: AtomicU64,
    end: AtomicU64,
}

impl Clients {
    pub(super) fn new(address: SocketAddr, orders: Orders, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { address, orders, ledger, next: AtomicU64::new(0), end: AtomicU64::new(0) })
    }

    /// Sends so many orders more, over all lanes at once, and returns when each has ended. `with` is run meanwhile, to its end.
    pub(super) async fn send<F>(self: &Arc<Self>, lanes: Lanes, orders: u64, with: F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        self.end.fetch_add(orders, Ordering::Relaxed);
        let mut working = JoinSet::new();
        for _ in 0..lanes.http1 {
            working.spawn(Arc::clone(self).work(Protocol::Http1, Arc::default()));
        }
        for _ in 0..lanes.http2 {
            let connection = Arc::<Mutex<Connection>>::default();
            for _ in 0..lanes.streams {
                working.spawn(Arc::clone(self).work(Protocol::Http2, Arc::clone(&connection)));
            }
        }
        let ended = async {
            while let Some(ended) = working.join_next().await {
                ended.map_err(|error| Failure::new(error.to_string()))?;
            }
            Ok::<(), Failure>(())
        };
        tokio::try_join!(ended, with).map(drop)
    }

    /// How many orders were taken up so far.
    pub(super) fn taken(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.end.load(Ordering::Relaxed))
    }

    /// How many orders were to be sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Order> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.end.load(Ordering::Relaxed) {
            // Taken by no client, so that a later call goes on here.
            self.next.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(self.orders.order(number))
    }

    async fn work(self: Arc<Self>, protocol: Protocol, connection: Arc<Mutex<Connection>>) {
        while let Some(order) = self.take() {
            let since = Instant::now();
            let judged = match timeout(HUNG_AFTER, self.pay(protocol, &connection, &order)).await {
                Ok(Ok(judged)) => Some(judged),
                Ok(Err(failure)) => {
                    self.ledger.strange(format!("{order} over {protocol:?}: {failure}"));
                    None
                }
                Err(_) => {
                    self.ledger.strange(format!("{order} over {protocol:?}: no end within {HUNG_AFTER:?}"));
                    None
                }
            };
            let Some((ended, decision_id)) = judged else { continue };
            self.ledger.with(order.number, |page| {
                page.ended = Some(ended);
                page.took = since.elapsed();
                page.decision_id = decision_id;
            });
        }
    }

    async fn pay(&self, protocol: Protocol, connection: &Mutex<Connection>, order: &Order) -> Result<Judged> {
        const LEFT: Judged = (Ended::Left, None);
        match order.leaves_over(protocol) {
            Leaves::InTheHead => raw::half_a_head(self.address, protocol, order).await.map(|()| LEFT),
            Leaves::ByHalf => {
                let answer = raw::half_a_connection(self.address, order).await?;
                answers::is_of(order, &String::from_utf8_lossy(&answer))?;
                Ok(LEFT)
            }
            Leaves::InTheBody => {
                let sent = self.exchange(protocol, connection, order).await;
                // The decision may come before the end of the body only where it needs none.
                leave(protocol, connection).await;
                match sent {
                    Err(_) => Ok(LEFT),
                    Ok(Exchanged { status, .. }) => Err(Failure::new(format!("half a request was answered {status}"))),
                }
            }
            Leaves::After(time) => match timeout(time, self.exchange(protocol, connection, order)).await {
                Ok(exchanged) => answers::judge(order, exchanged?),
                Err(_) => {
                    leave(protocol, connection).await;
                    Ok(LEFT)
                }
            },
            Leaves::AtTheHead => {
                let response = self.begin(protocol, connection, order).await?;
                if response.headers().contains_key(header::CODE) || order.at_gateway == AtGateway::Resets {
                    return answers::judge(order, finish(response).await);
                }
                drop(response);
                leave(protocol, connection).await;
                Ok(LEFT)
            }
            Leaves::Never => answers::judge(order, self.exchange(protocol, connection, order).await?),
        }
    }

    /// The request anew, where its failure says that it was not taken up.
    fn again(&self, protocol: Protocol, order: &Order, failure: Failure) -> Result<Request<CallBody>> {
        if failure.to_string().contains(NOT_TAKEN_UP) { request(self.address, protocol, order) } else { Err(failure) }
    }

    async fn exchange(&self, protocol: Protocol, connection: &Mutex<Connection>, order: &Order) -> Result<Exchanged> {
        Ok(finish(self.begin(protocol, connection, order).await?).await)
    }

    /// Sends the request and reads the head of its answer. A request is sent once; a connection that has ended before is made
    /// anew.
    async fn begin(
        &self,
        protocol: Protocol,
        connection: &Mutex<Connection>,
        order: &Order,
    ) -> Result<Response<Incoming>> {
        let mut request = request(self.address, protocol, order)?;
        for _ in 0..CONNECTIONS_MAX {
            let (generation, mut sender) = Connection::sender(connection, self.address, protocol).await?;
            let sent = match &mut sender {
                Sender::Http1(sender) => sender.lock().await.try_send_request(request).await,
                Sender::Http2(sender) => sender.try_send_request(request).await,
            };
            match sent {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => request = self.again(protocol, order, error.into_error().into())?,
                },
            }
            connection.lock().await.replace(generation);
        }
        Err(Failure::new(format!("{CONNECTIONS_MAX} connections ended before the request was sent")))
    }
}

/// More than any run has on one connection at a time, and less than Envoy takes.
const STREAMS_MAX: usize = 1_000;
/// Streams that are reset on one connection before the next request has another; those under way may follow. Envoy ends a connection
/// with all its streams where a thousand were reset in a short time, or most of five hundred.
const RESETS_MAX: u32 = 100;
/// What HTTP/2 clients say of a request that the other side did not take up because it takes no more on this connection
/// (RFC 9113, section 6.8). Had it been taken up all the same, it would be found twice.
const NOT_TAKEN_UP: &str = "not a result of an error";

/// A client that leaves over HTTP/1.1 ends its connection; over HTTP/2 its stream was reset when the call was dropped.
async fn leave(protocol: Protocol, connection: &Mutex<Connection>) {
    let mut connection = connection.lock().await;
    match protocol {
        Protocol::Http1 => connection.close(),
        Protocol::Http2 => connection.reset(),
    }
}

/// An answer with its body, which may have broken off.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: std::result::Result<Bytes, String>,
}

async fn finish(response: Response<Incoming>) -> Exchanged {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string());
    Exchanged { status: head.status.as_u16(), headers: head.headers, body }
}

/// A connection of a lane, made when it is needed.
#[derive(Debug, Default)]
struct Connection {
    open: Option<(Sender, JoinHandle<()>)>,
    /// Counts the connections of this lane.
    generation: u64,
    /// Streams of this connection that were reset.
    resets: u32,
}

#[derive(Clone, Debug)]
enum Sender {
    Http1(Arc<Mutex<http1::SendRequest<CallBody>>>),
    Http2(http2::SendRequest<CallBody>),
}

impl Connection {
    async fn sender(connection: &Mutex<Self>, address: SocketAddr, protocol: Protocol) -> Result<(u64, Sender)> {
        let mut connection = connection.lock().await;
        if let Some((sender, _)) = &connection.open {
            if sender.is_ready().await {
                return Ok((connection.generation, sender.clone()));
            }
            let generation = connection.generation;
            connection.replace(generation);
        }
        let (sender, driver) = open(address, protocol).await?;
        connection.open = Some((sender.clone(), driver));
        connection.generation += 1;
        connection.resets = 0;
        Ok((connection.generation, sender))
    }

    /// The next request makes a new connection, unless another one has done so. What is under way on the old one ends there: the
    /// proxy may have said that it takes no more, and be answering still.
    fn replace(&mut self, generation: u64) {
        if self.generation == generation {
            self.open = None;
        }
    }

    fn reset(&mut self) {
        self.resets += 1;
        if self.resets >= RESETS_MAX {
            self.open = None;
        }
    }

    fn close(&mut self) {
        if let Some((_, driver)) = self.open.take() {
            driver.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl Sender {
    async fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.lock().await.ready().await.is_ok(),
            Self::Http2(sender) => sender.clone().ready().await.is_ok(),
        }
    }
}

async fn open(address: SocketAddr, protocol: Protocol) -> Result<(Sender, JoinHandle<()>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(stream);
    Ok(match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(stream).await?;
            (Sender::Http1(Arc::new(Mutex::new(sender))), tokio::spawn(async move { drop(connection.await) }))
        }
        Protocol::Http2 => {
            // Until Envoy has said how many streams it takes, too. A request that waits for that cannot leave.
            let mut builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.initial_max_send_streams(STREAMS_MAX).handshake(stream).await?;
            (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
        }
    })
}

fn request(address: SocketAddr, protocol: Protocol, order: &Order) -> Result<Request<CallBody>> {
    let path = order.route.path();
    let builder = Request::builder().method("POST").header("content-type", "application/json");
    let builder = match protocol {
        Protocol::Http1 => builder.uri(path).header("host", address.to_string()),
        Protocol::Http2 => builder.uri(format!("http://{address}{path}")).version(Version::HTTP_2),
    };
    Ok(builder.body(CallBody::from(parts(order, protocol)))?)
}

fn parts(order: &Order, protocol: Protocol) -> Vec<Part> {
    let body = Bytes::from(order.body());
    let (half, rest) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
    if order.leaves == Leaves::InTheBody {
        return vec![Part::Data(half), Part::Pause(PAUSE), Part::Abort];
    }
    match (order.pieces, protocol) {
        (Pieces::One, _) => vec![Part::Data(body)],
        (Pieces::Slow, _) => vec![Part::Data(half), Part::Pause(PAUSE), Part::Data(rest)],
        (Pieces::Trailers, Protocol::Http2) => {
            let trailer = (header::RATE_LIMIT.parse().ok(), hyper::header::HeaderValue::from_static("0"));
            let trailers = trailer.0.map(|name| HeaderMap::from_iter([(name, trailer.1)])).unwrap_or_default();
            vec![Part::Data(half), Part::Data(rest), Part::Trailers(trailers)]
        }
        (Pieces::Two | Pieces::Trailers, _) => vec![Part::Data(half), Part::Data(rest)],
    }
}
