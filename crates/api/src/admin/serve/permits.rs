//! The open connections: so many in all and so many of one client, and which of them makes room for a new one.
//!
//! A connection is idle while no request of it is in progress: before its first one, between two, and while a head arrives slowly.
//! One too many replaces the one that is idle longest, of the same client if the client has its share, so that unused connections
//! block no client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The part of an IPv6 address that belongs to one client (RFC 6177): it may use any address below.
const CLIENT_V6: u128 = !0 << 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub all: usize,
    pub per_client: usize,
}

/// The open connections of one listener.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    room: Room,
    since: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    clients: HashMap<IpAddr, Vec<Arc<Connection>>>,
    count: usize,
}

/// The state of an open connection.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    pub address: IpAddr,
    since: Instant,
    /// Requests whose answers are not over.
    under_way: AtomicUsize,
    /// Since when it is idle, in milliseconds since the listener began.
    idle_at_ms: AtomicU64,
    /// Activity: requests and parts of answers so far.
    signs: AtomicU64,
    leave: Notify,
}

/// A connection's place. Free again when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    places: Arc<ConnectionPermits>,
    client: IpAddr,
    pub connection: Arc<Connection>,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Connection>);

impl ConnectionPermits {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, since: Instant::now(), taken: Mutex::default() })
    }

    /// A place for a connection; none if all are taken by requests in progress.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let client = client(address);
        let mut taken = self.taken();
        let own = taken.clients.get(&client).map_or(0, Vec::len);
        if own >= self.room.per_client {
            taken.make_room(Some(client))?;
        } else if taken.count >= self.room.all {
            taken.make_room(None)?;
        }
        taken.last += 1;
        let connection = Arc::new(Connection::new(taken.last, address, self.since));
        taken.clients.entry(client).or_default().push(Arc::clone(&connection));
        taken.count += 1;
        Some(ConnectionPermit { places: Arc::clone(self), client, connection })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Ends the connection that is idle longest, of one client or of all.
    fn make_room(&mut self, of: Option<IpAddr>) -> Option<()> {
        let clients = self.clients.iter().filter(|(client, _)| of.is_none_or(|of| of == **client));
        let idle = clients.flat_map(|(client, open)| open.iter().map(move |connection| (*client, connection)));
        let idle = idle.filter(|(_, connection)| connection.is_idle());
        let (client, connection) = idle.min_by_key(|(_, connection)| connection.idle_at_ms.load(Ordering::Relaxed))?;
        connection.leave.notify_one();
        let id = connection.id;
        self.remove(client, id);
        Some(())
    }

    fn remove(&mut self, client: IpAddr, id: u64) {
        let Some(open) = self.clients.get_mut(&client) else { return };
        let before = open.len();
        open.retain(|connection| connection.id != id);
        self.count -= before - open.len();
        if open.is_empty() {
            self.clients.remove(&client);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.places.taken().remove(self.client, self.connection.id);
    }
}

impl Connection {
    fn new(id: u64, address: IpAddr, since: Instant) -> Self {
        Self {
            id,
            address: address.to_canonical(),
            since,
            under_way: AtomicUsize::new(0),
            idle_at_ms: AtomicU64::new(elapsed_ms(since)),
            signs: AtomicU64::new(0),
            leave: Notify::new(),
        }
    }

    /// A request began.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.sign();
        UnderWay(Arc::clone(self))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Records activity: something was sent or read.
    pub(super) fn sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends when its place was given to another connection.
    pub(super) async fn displaced(&self) {
        self.leave.notified().await;
    }

    /// Ends when there was no activity for that long.
    pub(super) async fn silence(&self, silent: Duration) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(silent).await;
            let now = self.signs.load(Ordering::Relaxed);
            if std::mem::replace(&mut seen, now) == now {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self(connection) = self;
        connection.idle_at_ms.store(elapsed_ms(connection.since), Ordering::Relaxed);
        connection.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The client of an address.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & CLIENT_V6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, per_client: usize) -> Arc<ConnectionPermits> {
        ConnectionPermits::new(Room { all, per_client })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn is_displaced(place: &ConnectionPermit) -> bool {
        tokio::time::timeout(Duration::ZERO, place.connection.displaced()).await.is_ok()
    }

    #[tokio::test]
    async fn x10_the_longest_idle_connection_of_a_client_makes_room() {
        let places = places(10, 2);
        let one = places.take(address("192.0.2.1")).unwrap();
        let other = places.take(address("192.0.2.2")).unwrap();
        let two = places.take(address("::ffff:192.0.2.1")).unwrap();
        let busy = one.connection.begin();
        // The first one is older, and has a request in progress.
        let three = places.take(address("192.0.2.1")).unwrap();
        let busy_too = three.connection.begin();
        assert!(is_displaced(&two).await && !is_displaced(&one).await && !is_displaced(&other).await);
        assert!(places.take(address("192.0.2.1")).is_none(), "every connection of the client is in use");
        drop((two, busy));
        assert!(places.take(address("192.0.2.1")).is_some());
        assert!(is_displaced(&one).await);
        drop((busy_too, one, three, other));
        let taken = places.taken();
        assert_eq!((taken.count, taken.clients.len()), (0, 0));
    }

    #[tokio::test]
    async fn x10_where_all_places_are_taken_an_idle_one_of_any_client_makes_room() {
        let places = places(2, 2);
        let one = places.take(address("192.0.2.1")).unwrap();
        let two = places.take(address("192.0.2.2")).unwrap();
        let _busy = one.connection.begin();
        let three = places.take(address("192.0.2.3")).unwrap();
        assert!(is_displaced(&two).await);
        let _busy_too = three.connection.begin();
        assert!(places.take(address("192.0.2.4")).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        assert_eq!(client(address("2001:db8:1:2:3::4")), client(address("2001:db8:1:2::9")));
        assert_ne!(client(address("2001:db8:1:2::9")), client(address("2001:db8:1:3::9")));
    }
}
