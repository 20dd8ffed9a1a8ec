//! What a payment costs in exact counts: instructions of the server and of Redis, and bytes of the journal. They do not spread as
//! times do, so that a small difference between two builds can be seen, and a test can hold them.
//!
//! The programs run under callgrind. Needs valgrind, see [`Callgrind::find`].

mod payments;
mod redis;
mod server;

use std::path::Path;

use serde::Serialize;
use testkit::callgrind::Callgrind;
use testkit::{Failure, Result};

pub use payments::{BATCH, Payments};
pub use redis::{JournalBytes, RedisCounts};

/// A count for one payment: where it goes alone, and as its share of [`BATCH`] that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PerPayment {
    pub alone: u64,
    pub batched: u64,
}

/// All counts of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Instructions of the server's decision thread.
    pub server_instructions: PerPayment,
    /// Instructions of Redis' main thread for the script call, without the journal's reads.
    pub redis_instructions: PerPayment,
    pub journal_bytes: JournalBytes,
}

/// Counts everything with this server's program. It takes about half a minute.
///
/// # Errors
/// Where a part cannot be started, or a payment is not admitted.
pub async fn all(callgrind: &Callgrind, server: &Path) -> Result<Counts> {
    let RedisCounts { instructions, journal_bytes } = redis::count(callgrind).await?;
    let server_instructions = self::server::count(callgrind, server).await?;
    Ok(Counts { server_instructions, redis_instructions: instructions, journal_bytes })
}

/// What [`all`] counts of Redis and the journal.
///
/// # Errors
/// Where Redis cannot be started, or a payment is not admitted.
pub async fn redis(callgrind: &Callgrind) -> Result<RedisCounts> {
    redis::count(callgrind).await
}

/// What [`all`] counts of the server.
///
/// # Errors
/// Where a part cannot be started, or a payment is not admitted.
pub async fn server(callgrind: &Callgrind, program: &Path) -> Result<PerPayment> {
    server::count(callgrind, program).await
}

/// A payment that was not admitted would cost something else.
fn ensure_admitted(code: &str) -> Result<()> {
    if code == quota::Code::Admitted.as_str() { Ok(()) } else { Err(Failure::new(format!("a payment got {code}"))) }
}
