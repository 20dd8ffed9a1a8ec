//! Metrics of calls of Redis.

use std::time::Duration;

use strum::{IntoStaticStr, VariantNames};

/// Buckets: 0.1 ms, doubling, 12 of them, up to 200 ms; calls are given up at 150 ms by default.
const FIRST_SECS: f64 = 0.000_1;
const BUCKETS: u16 = 12;

/// What a call is for. Its word is a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum Use {
    /// Commands decided and applied by the script.
    Decide,
    /// Accounts and orders read as they are.
    Read,
}

sluice_kit::metrics! {
    /// Metrics of calls of Redis.
    pub struct RedisMetrics {
        seconds: Histogram(FIRST_SECS, BUCKETS)["use"] = "sluice_redis_seconds",
            "Time of one call of Redis in seconds, by use", Use::VARIANTS.iter().map(|used| [*used]);
    }
}

impl RedisMetrics {
    /// Records the time of one call, successful or not.
    pub fn took(&self, used: Use, duration: Duration) {
        self.seconds.of([used.into_str()]).observe(duration.as_secs_f64());
    }
}
