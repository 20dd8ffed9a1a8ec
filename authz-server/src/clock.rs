//! The one place that reads the wall clock and draws random numbers.

#![expect(clippy::disallowed_methods, reason = "this is the one place")]

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Now, in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Now, in UTC.
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// So many random bytes; `None` where the system has none.
#[must_use]
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).is_ok().then_some(bytes)
}

/// This process's name among servers: drawn at its start.
#[must_use]
pub fn server_id() -> Uuid {
    static ID: LazyLock<Uuid> = LazyLock::new(Uuid::now_v7);
    *ID
}

/// A new decision's id: UUIDv7, so that ids sort by time.
#[must_use]
pub fn decision_id() -> [u8; 16] {
    Uuid::now_v7().into_bytes()
}
