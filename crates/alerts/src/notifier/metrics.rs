//! The notifier's metrics at `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sqlx::PgPool;

use crate::channel::Channel;
use sluice_kit::metrics::Part;

/// How often messages are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// Latency buckets: 5 ms, doubling, 13 of them, up to 20 s.
const LATENCY_FIRST_SECS: f64 = 0.005;
const LATENCY_FACTOR: f64 = 2.0;
const LATENCY_BUCKETS: u16 = 13;
/// The result of a try, or `held` for a message that was not tried.
const OUTCOMES: [&str; 3] = ["sent", "failed", "held"];

type Label = (&'static str, &'static str);

/// The metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct NotifierMetrics {
    tries: Family<[Label; 2], Counter>,
    seconds: Family<[Label; 1], Histogram, fn() -> Histogram>,
    dead: Family<[Label; 1], Counter>,
    pending: Gauge,
    waiting: Gauge,
    counted_at: Arc<Mutex<Option<Instant>>>,
}

impl Default for NotifierMetrics {
    fn default() -> Self {
        let seconds: fn() -> Histogram =
            || Histogram::new(exponential_buckets(LATENCY_FIRST_SECS, LATENCY_FACTOR, LATENCY_BUCKETS));
        let metrics = Self {
            tries: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            dead: Family::default(),
            pending: Gauge::default(),
            waiting: Gauge::default(),
            counted_at: Arc::default(),
        };
        metrics.begin();
        metrics
    }
}

impl Part for NotifierMetrics {
    fn register(&self, r: &mut Registry) {
        let tries = self.tries.clone();
        r.register("sluice_alert_deliveries", "Messages sent, failed tries, and messages held back", tries);
        r.register("sluice_alert_delivery_seconds", "Time of one try to send a message", self.seconds.clone());
        r.register("sluice_alert_messages_dead", "Messages that were given up", self.dead.clone());
        let pending = self.pending.clone();
        r.register(
            "sluice_alert_messages_pending",
            "Messages to be sent, from the server that delivers alerts",
            pending,
        );
        let held = self.waiting.clone();
        r.register(
            "sluice_alert_messages_held",
            "Messages that wait for a digest, from the server that delivers alerts",
            held,
        );
    }
}

impl NotifierMetrics {
    /// Every series exists from the start: a rate misses the first increment of a new series.
    fn begin(&self) {
        for channel in Channel::KINDS {
            drop(self.dead.get_or_create(&[("channel", channel)]));
            drop(self.seconds.get_or_create(&[("channel", channel)]));
            for outcome in OUTCOMES {
                drop(self.tries.get_or_create(&[("channel", channel), ("outcome", outcome)]));
            }
        }
    }

    pub(super) fn tried(&self, channel: &str, sent: bool, took: Duration) {
        self.count_one(channel, if sent { "sent" } else { "failed" });
        self.seconds.get_or_create(&[("channel", known(channel))]).observe(took.as_secs_f64());
    }

    pub(super) fn held(&self, channel: &str) {
        self.count_one(channel, "held");
    }

    pub(super) fn dead(&self, channel: &str) {
        self.dead.get_or_create(&[("channel", known(channel))]).inc();
    }

    /// Counts waiting messages, every [`COUNT_INTERVAL`].
    pub(super) async fn count(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        if !self.is_due() {
            return Ok(());
        }
        let statement = "SELECT (SELECT count(*) FROM alert_message WHERE state = 'pending'), \
            (SELECT count(*) FROM alert_message WHERE state = 'held')";
        let (pending, held): (i64, i64) = sqlx::query_as(statement).fetch_one(pool).await?;
        self.pending.set(pending);
        self.waiting.set(held);
        Ok(())
    }

    /// Clears the gauges: another server reports them now.
    pub(super) fn reset(&self) {
        self.pending.set(0);
        self.waiting.set(0);
    }

    fn is_due(&self) -> bool {
        let mut counted_at = self.counted_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = counted_at.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL);
        if due {
            *counted_at = Some(Instant::now());
        }
        due
    }

    fn count_one(&self, channel: &str, outcome: &'static str) {
        self.tries.get_or_create(&[("channel", known(channel)), ("outcome", outcome)]).inc();
    }
}

/// The label's value for a kind from Postgres.
fn known(channel: &str) -> &'static str {
    Channel::KINDS.iter().find(|known| **known == channel).unwrap_or(&"unknown")
}
