//! The notifier's metrics at `/metrics`.

use std::time::Duration;

use sqlx::PgPool;

use crate::channel::Channel;

/// Latency buckets: 5 ms, doubling, 13 of them, up to 20 s.
const FIRST_SECS: f64 = 0.005;
const BUCKETS: u16 = 13;
/// The result of a try, or `held` for a message that was not tried.
const OUTCOMES: [&str; 3] = ["sent", "failed", "held"];

sluice_kit::metrics! {
    /// The notifier's metrics.
    pub struct NotifierMetrics {
        tries: Counter["channel", "outcome"] = "sluice_alert_deliveries",
            "Messages sent, failed tries, and messages held back",
            Channel::KINDS.iter().flat_map(|channel| OUTCOMES.map(|outcome| [*channel, outcome]));
        seconds: Histogram(FIRST_SECS, BUCKETS)["channel"] = "sluice_alert_delivery_seconds",
            "Time of one try to send a message", Channel::KINDS.iter().map(|channel| [*channel]);
        dead: Counter["channel"] = "sluice_alert_messages_dead", "Messages that were given up",
            Channel::KINDS.iter().map(|channel| [*channel]);
        pending: Gauge = "sluice_alert_messages_pending",
            "Messages to be sent, from the server that delivers alerts";
        waiting: Gauge = "sluice_alert_messages_held",
            "Messages that wait for a digest, from the server that delivers alerts";
    }
}

impl NotifierMetrics {
    pub(super) fn tried(&self, channel: &str, sent: bool, took: Duration) {
        self.tries.of([known(channel), if sent { "sent" } else { "failed" }]).inc();
        self.seconds.of([known(channel)]).observe(took.as_secs_f64());
    }

    pub(super) fn held(&self, channel: &str) {
        self.tries.of([known(channel), "held"]).inc();
    }

    pub(super) fn dead(&self, channel: &str) {
        self.dead.of([known(channel)]).inc();
    }

    /// Counts waiting messages.
    pub(super) async fn count(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
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
}

/// The label's value for a kind from Postgres.
fn known(channel: &str) -> &'static str {
    Channel::KINDS.iter().find(|known| **known == channel).unwrap_or(&"unknown")
}
