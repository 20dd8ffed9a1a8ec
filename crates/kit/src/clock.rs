//! The one place that reads the wall clock and draws random numbers.

#![expect(clippy::disallowed_methods, reason = "this is the one place")]

#[cfg(debug_assertions)]
use std::path::PathBuf;
#[cfg(debug_assertions)]
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// Now, in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(shift_ms())
}

/// Now, in UTC.
#[must_use]
pub fn now() -> DateTime<Utc> {
    let now = Utc::now();
    TimeDelta::try_milliseconds(shift_ms()).and_then(|shift| now.checked_add_signed(shift)).unwrap_or(now)
}

/// Builds with debug assertions only, which tests start: the error of this clock in milliseconds, from a file that the
/// environment names. Other builds read neither.
#[cfg(debug_assertions)]
fn shift_ms() -> i64 {
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("TEST_CLOCK_SHIFT_FILE").map(PathBuf::from));
    let text = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

#[cfg(not(debug_assertions))]
const fn shift_ms() -> i64 {
    0
}

/// By how much a test moves the store's clock together with this one, milliseconds: builds with debug assertions only, where the
/// environment has `TEST_CLOCK_SHIFTS_STORE`. 0 otherwise.
#[must_use]
pub fn store_shift_ms() -> i64 {
    #[cfg(debug_assertions)]
    static SHIFTED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("TEST_CLOCK_SHIFTS_STORE").is_some());
    #[cfg(debug_assertions)]
    if *SHIFTED {
        return shift_ms();
    }
    0
}

/// So many random bytes; `None` where the system has none.
#[must_use]
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).is_ok().then_some(bytes)
}

/// A new decision's id: UUIDv7, so that ids sort by time.
#[must_use]
pub fn decision_id() -> [u8; 16] {
    Uuid::now_v7().into_bytes()
}
