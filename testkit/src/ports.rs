//! Loopback ports for servers that must be given theirs.
//!
//! They lie below the range from which the kernel takes ports for outgoing connections, so that a port stays free while
//! its server is down for a moment in a restart test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::failure::{Failure, Result};

const FIRST: u16 = 15_000;
const COUNT: u32 = 16_000;

/// An address on loopback.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A port that nothing listens on. Each call gives another one; another process may still be faster, so starters retry.
///
/// # Errors
/// When every port of the range is taken.
pub fn free() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes begin at different places, so that two test runs side by side rarely meet.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.subsec_nanos());
    let start = std::process::id().wrapping_mul(7919).wrapping_add(now / 1000);
    let _ = NEXT.compare_exchange(0, start % COUNT + 1, Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + u16::try_from(offset).unwrap_or_default();
        if TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::new(format!("no free port on loopback from {FIRST} on")))
}

/// Starts something on a fresh port, and again on another when the failure says that the port was taken meanwhile.
///
/// # Errors
/// The last start's.
pub fn with_free_ports<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        match start() {
            Err(failure) if port_was_taken(&failure) => {}
            other => return other,
        }
    }
    start()
}

fn port_was_taken(failure: &Failure) -> bool {
    let words = failure.to_string().to_ascii_lowercase();
    words.contains("address already in use") || words.contains("addrinuse") || words.contains("os error 98")
}
