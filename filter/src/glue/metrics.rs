//! The worker's metrics in the proxy's stats. What is counted within a callback is written once at its end: each write is a call
//! into the proxy, and one callback may decide many payments. A metric that cannot be written must not stop a payment, nor let
//! one through.

use std::cell::{Cell, OnceCell};

use proxy_wasm::types::MetricType;

use crate::abi;
use crate::stats::{self, Stat};

#[derive(Default)]
pub(super) struct FilterMetrics {
    /// The proxy's ids of the metrics.
    ids: OnceCell<Ids>,
    /// By [`Stat::ALL`]; what is counted and not written yet.
    counts: [Cell<u32>; Stat::ALL.len()],
    /// One bit for each that was counted.
    counted: Cell<u32>,
}

const _: () = assert!(Stat::ALL.len() <= 32);

struct Ids {
    counters: [Option<u32>; Stat::ALL.len()],
    rules_enforcing: Option<u32>,
    check_ms: Option<u32>,
    batch_checks: Option<u32>,
}

fn bit(at: usize) -> u32 {
    u32::try_from(at).ok().and_then(|at| 1_u32.checked_shl(at)).unwrap_or_default()
}

impl FilterMetrics {
    /// Once per VM. A metric that the proxy does not define is not counted.
    pub(super) fn define(&self) {
        let define = |kind, name| abi::define_metric(kind, name).ok();
        self.ids.get_or_init(|| Ids {
            counters: Stat::ALL.map(|stat| define(MetricType::Counter, stat.name())),
            rules_enforcing: define(MetricType::Gauge, stats::RULES_ENFORCING),
            check_ms: define(MetricType::Histogram, stats::CHECK_MS),
            batch_checks: define(MetricType::Histogram, stats::BATCH_CHECKS),
        });
    }

    pub(super) fn count(&self, stat: Stat) {
        if let Some(count) = self.counts.get(stat.index()) {
            count.set(count.get().saturating_add(1));
            self.counted.set(self.counted.get() | bit(stat.index()));
        }
    }

    /// Writes what was counted.
    pub(super) fn flush(&self) {
        let Some(ids) = self.ids.get() else { return };
        let mut counted = self.counted.take();
        while counted != 0 {
            let at = usize::try_from(counted.trailing_zeros()).unwrap_or_default();
            counted &= !bit(at);
            if let (Some(count), Some(Some(id))) = (self.counts.get(at), ids.counters.get(at)) {
                let _ = abi::increment_metric(*id, count.take());
            }
        }
    }

    pub(super) fn record_check(&self, millis: u64) {
        self.record(|ids| ids.check_ms, millis);
    }

    pub(super) fn record_batch(&self, checks: usize) {
        self.record(|ids| ids.batch_checks, u64::try_from(checks).unwrap_or(u64::MAX));
    }

    pub(super) fn record_enforcing(&self, rules: u64) {
        self.record(|ids| ids.rules_enforcing, rules);
    }

    fn record(&self, metric: impl FnOnce(&Ids) -> Option<u32>, value: u64) {
        if let Some(id) = self.ids.get().and_then(metric) {
            let _ = abi::record_metric(id, value);
        }
    }
}
