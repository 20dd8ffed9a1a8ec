//! Metrics of the dependencies.

use std::time::Duration;

use super::Dependency;

crate::metrics! {
    /// The state of the dependencies: down until they are reported otherwise.
    pub struct HealthMetrics {
        redis_up: Gauge = "sluice_redis_up", "1 while Redis answers";
        postgres_up: Gauge = "sluice_postgres_up", "1 while Postgres answers";
        clock_offset_seconds: FloatGauge = "sluice_clock_offset_seconds",
            "This server's clock minus Redis' clock; beyond SLUICE_CLOCK_SKEW_MS_MAX the server decides nothing";
    }
}

impl HealthMetrics {
    /// Whether the dependency answered its last call.
    pub(super) fn set_up(&self, dependency: Dependency, up: bool) {
        let gauge = match dependency {
            Dependency::Redis => &self.redis_up,
            Dependency::Postgres => &self.postgres_up,
        };
        gauge.set(i64::from(up));
    }

    /// How far this server's clock is ahead of Redis'.
    pub(super) fn set_clock_offset_ms(&self, ahead_ms: i64) {
        let secs = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
        self.clock_offset_seconds.set(if ahead_ms < 0 { -secs } else { secs });
    }
}
