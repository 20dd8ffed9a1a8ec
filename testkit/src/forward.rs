//! A forwarder of TCP connections whose target changes: connections stay where they lead to, new ones lead to the new target. So do
//! the addresses of managed services and the names that Sentinel keeps.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::Result;
use crate::ports::{self, loopback, with_free_ports};

/// Bytes that are handed on at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// Forwards until the process ends.
#[derive(Clone, Debug)]
pub struct Forwarder {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
}

impl Forwarder {
    /// Listens on a free port. Connections are closed at once until there is a target.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> Result<Self> {
        let listener = with_free_ports(|| Ok(TcpListener::bind(loopback(ports::free()?))?))?;
        let forwarder = Self { address: listener.local_addr()?, target: Arc::default() };
        let target = Arc::clone(&forwarder.target);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(io::Result::ok) {
                let target = *target.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(server) = target.and_then(|target| TcpStream::connect(target).ok()) {
                    // A connection that cannot be carried is closed, as one without a target is.
                    let _ = carry(&client, &server);
                }
            }
        });
        Ok(forwarder)
    }

    /// Where new connections lead from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Hands bytes on in both directions, each until its sender ends.
fn carry(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    for (from, to) in [(client, server), (server, client)] {
        from.set_nodelay(true)?;
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || hand_on(from, to));
    }
    Ok(())
}

fn hand_on(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; CHUNK_BYTES];
    while let Ok(size @ 1..) = from.read(&mut bytes) {
        if to.write_all(bytes.get(..size).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
