//! Metrics of calls of Redis.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use sluice_kit::metrics::Part;

/// Buckets: 0.1 ms, doubling, 12 of them, up to 200 ms; calls are given up at 150 ms by default.
const FIRST_SECS: f64 = 0.000_1;
const FACTOR: f64 = 2.0;
const BUCKETS: u16 = 12;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Commands decided and applied by the script.
    Decide,
    /// Accounts and orders read as they are.
    Read,
}

impl Use {
    const ALL: [Self; 2] = [Self::Decide, Self::Read];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Read => "read",
        }
    }
}

type Seconds = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;

/// The metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct RedisMetrics {
    seconds: Seconds,
}

impl Default for RedisMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(FIRST_SECS, FACTOR, BUCKETS));
        Self { seconds: Family::new_with_constructor(histogram) }
    }
}

impl Part for RedisMetrics {
    fn register(&self, r: &mut Registry) {
        // Series exist from the start: a rate misses the first increment of a new series.
        Use::ALL.iter().for_each(|used| drop(self.seconds.get_or_create(&[("use", used.as_str())])));
        r.register("sluice_redis_seconds", "Time of one call of Redis in seconds, by use", self.seconds.clone());
    }
}

impl RedisMetrics {
    /// Records the time of one call, successful or not.
    pub fn took(&self, used: Use, duration: Duration) {
        self.seconds.get_or_create(&[("use", used.as_str())]).observe(duration.as_secs_f64());
    }
}
