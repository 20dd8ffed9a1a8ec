//! The filter's metrics in Envoy's stats, under the names that the wasm filter has. A metric that Envoy does not define is not
//! counted; it must not stop a payment, nor let one through.

use filter::stats::{self, Stat};

use crate::abi::{ConfigHandle, MetricId, MetricKind};

/// Counter: panics of the filter that were caught, in callbacks and on its thread.
pub const PANICKED: &str = "sluice_panicked";

/// Gauge: calls to the servers that are not answered yet. Envoy's own metrics of a cluster do not know them.
pub const CALLS_ACTIVE: &str = "sluice_calls_active";

/// One configuration's metrics. Configurations of the same names share their values in Envoy.
#[derive(Debug)]
pub struct Metrics {
    handle: ConfigHandle,
    /// By [`Stat::ALL`].
    counters: [Option<MetricId>; Stat::ALL.len()],
    panicked: Option<MetricId>,
    calls_active: Option<MetricId>,
    check_ms: Option<MetricId>,
    batch_checks: Option<MetricId>,
}

impl Metrics {
    /// Defines them; only while the configuration is created. `enforcing`: the gauge of rules that enforce.
    #[must_use]
    pub fn define(handle: ConfigHandle, enforcing: u64) -> Self {
        let define = |kind, name| handle.define(kind, name);
        let counters = Stat::ALL.map(|stat| define(MetricKind::Counter, stat.name()));
        let panicked = define(MetricKind::Counter, PANICKED);
        let calls_active = define(MetricKind::Gauge, CALLS_ACTIVE);
        let check_ms = define(MetricKind::Histogram, stats::CHECK_MS);
        let batch_checks = define(MetricKind::Histogram, stats::BATCH_CHECKS);
        if let Some(gauge) = define(MetricKind::Gauge, stats::RULES_ENFORCING) {
            handle.set_gauge(gauge, enforcing);
        }
        Self { handle, counters, panicked, calls_active, check_ms, batch_checks }
    }

    #[must_use]
    pub fn handle(&self) -> &ConfigHandle {
        &self.handle
    }

    /// From any thread.
    pub fn count(&self, stat: Stat) {
        if let Some(Some(id)) = self.counters.get(stat.index()) {
            self.handle.increment(*id, 1);
        }
    }

    /// From any thread.
    pub fn count_panic(&self) {
        if let Some(id) = self.panicked {
            self.handle.increment(id, 1);
        }
    }

    /// From any thread.
    pub fn set_calls(&self, calls: usize) {
        if let Some(id) = self.calls_active {
            self.handle.set_gauge(id, u64::try_from(calls).unwrap_or(u64::MAX));
        }
    }

    /// From Envoy's threads only.
    pub fn record_check(&self, millis: u64) {
        if let Some(id) = self.check_ms {
            self.handle.record(id, millis);
        }
    }

    /// From Envoy's threads only.
    pub fn record_batch(&self, size: u64) {
        if let Some(id) = self.batch_checks {
            self.handle.record(id, size);
        }
    }
}
