//! gRPC calls to the decision servers: one HTTP/2 connection to each, and for each call the next server that is connected.
//!
//! A connection is made when a call needs it, by a task of its own: a call that waits for it may end before it does. A server that
//! refuses a connection, loses one, does not answer a ping or reports that it stops is passed over for a moment where there is
//! another one.

mod endpoint;
pub mod grpc;
mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout};

use crate::engine::{Call, Message};
use endpoint::{Endpoint, connected, watch};
use grpc::{DEADLINE_EXCEEDED, INTERNAL, OK, UNAVAILABLE, exchange};
pub use server::Server;

/// How long a connection may take, and how long a call waits for one.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Pause between two pings, and how long one may take: a server that hangs is noticed within two seconds.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a server that failed is passed over where there is another one.
pub const AVOIDED: Duration = Duration::from_secs(1);

/// The clients of every configuration.
pub struct Clients {
    answers: UnboundedSender<Message>,
    /// By the names of their servers.
    clusters: BTreeMap<Box<str>, Opened>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("clusters", &self.clusters.keys()).finish_non_exhaustive()
    }
}

struct Opened {
    cluster: Arc<Cluster>,
    /// The name as each configuration has it. Its streams, calls and follow-ups share it: while one of them is there, so is the
    /// cluster.
    names: Vec<Weak<str>>,
}

struct Cluster {
    endpoints: Vec<Arc<Endpoint>>,
    /// Notifies the calls that wait for a connection.
    settled: Arc<Notify>,
    next: AtomicUsize,
    is_watched: AtomicBool,
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

    /// Takes the servers of a configuration. Connections of an equal one stay; new ones are made when a call needs them.
    pub fn open(&mut self, name: &Arc<str>, servers: Vec<Server>) {
        let opened = self
            .clusters
            .entry(Box::from(&**name))
            .or_insert_with(|| Opened { cluster: Arc::new(Cluster::new(servers)), names: Vec::new() });
        opened.names.push(Arc::downgrade(name));
    }

    /// Ends the clusters that nothing names any more. A call that is under way keeps its own.
    pub fn end_unused(&mut self) {
        self.clusters.retain(|_, opened| {
            opened.names.retain(|name| name.strong_count() > 0);
            !opened.names.is_empty()
        });
    }

    /// Starts a call, which ends with a [`Message::Answer`].
    pub fn start(&self, call: Call) {
        let reply = Reply { token: call.token, answers: self.answers.clone(), answer: (INTERNAL, None) };
        let Some(cluster) = self.clusters.get(&*call.cluster).map(|opened| Arc::clone(&opened.cluster)) else {
            return reply.finish((UNAVAILABLE, None));
        };
        cluster.begin_watch();
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
    fn new(servers: Vec<Server>) -> Self {
        let settled = Arc::new(Notify::new());
        let endpoint = |server| Arc::new(Endpoint::new(server, Arc::clone(&settled)));
        let endpoints = servers.into_iter().map(endpoint).collect();
        Self { endpoints, settled, next: AtomicUsize::new(0), is_watched: AtomicBool::new(false) }
    }

    /// From the first call on: a configuration that Envoy only validates connects to nothing.
    fn begin_watch(&self) {
        if self.endpoints.len() > 1 && !self.is_watched.swap(true, Ordering::Relaxed) {
            self.endpoints.iter().for_each(|endpoint| drop(tokio::spawn(watch(Arc::downgrade(endpoint)))));
        }
    }

    /// The message of an answer, or the status of a failure.
    async fn call(&self, call: &Call) -> Result<Option<Vec<u8>>, u32> {
        let (endpoint, sender) = connected(&self.endpoints(), &self.settled).await.ok_or(UNAVAILABLE)?;
        let answer = exchange(sender, endpoint.uri(call.method), call).await;
        if answer.as_ref().is_err_and(|status| *status == UNAVAILABLE) {
            endpoint.avoid();
        }
        answer
    }

    /// The servers in the order in which they are tried: in turn, and last those that have just failed.
    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let count = self.endpoints.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or_default();
        let now = Instant::now();
        let turned = self.endpoints.iter().cycle().skip(first).take(count).map(Arc::clone);
        let (avoided, good): (Vec<_>, Vec<_>) = turned.partition(|endpoint| endpoint.is_avoided(now));
        good.into_iter().chain(avoided).collect()
    }
}
