//! What the contexts of one worker's VM share: attempt ids, the voids on their way, metrics. A worker is one thread. Nothing is
//! held borrowed while the proxy is called, so a call back could not find anything borrowed.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};

use proxy_wasm::types::MetricType;

use super::error;
use crate::abi;
use crate::stats::{self, Stat};
use crate::voids::{Void, Voids};

#[derive(Default)]
pub(super) struct Worker {
    /// Random, so that attempts of different workers and proxies differ.
    attempt_prefix: OnceCell<u64>,
    attempts: Cell<u64>,
    metrics: OnceCell<Metrics>,
    /// Live root contexts.
    roots: Cell<BTreeSet<u32>>,
    /// Voids that a stream has decided on and no root context has sent yet: empty between two callbacks.
    outbox: Cell<Vec<Void>>,
    voids: Cell<Voids>,
}

struct Metrics {
    counters: BTreeMap<Stat, u32>,
    rules_enforcing: Option<u32>,
    check_ms: Option<u32>,
}

/// Changes what a cell holds. `change` calls neither the proxy nor the cell.
fn with<T: Default, R>(cell: &Cell<T>, change: impl FnOnce(&mut T) -> R) -> R {
    let mut value = cell.take();
    let result = change(&mut value);
    cell.set(value);
    result
}

impl Worker {
    /// Once per VM: random bytes for attempt ids, and the metrics.
    pub(super) fn start(&self) -> Result<(), String> {
        if self.attempt_prefix.get().is_none() {
            let prefix =
                getrandom::u64().map_err(|error| format!("there is no randomness for attempt ids: {error}"))?;
            let _ = self.attempt_prefix.set(prefix);
            let _ = self.metrics.set(Metrics::define());
        }
        Ok(())
    }

    pub(super) fn next_attempt(&self) -> Option<u128> {
        let prefix = self.attempt_prefix.get()?;
        self.attempts.set(self.attempts.get().checked_add(1)?);
        Some((u128::from(*prefix) << 64) | u128::from(self.attempts.get()))
    }

    pub(super) fn root_created(&self, root: u32) {
        with(&self.roots, |roots| roots.insert(root));
    }

    pub(super) fn root_gone(&self, root: u32) {
        with(&self.roots, |roots| roots.remove(&root));
    }

    pub(super) fn is_newest(&self, root: u32) -> bool {
        with(&self.roots, |roots| roots.last() == Some(&root))
    }

    /// A void that a stream decided on.
    pub(super) fn put(&self, void: Void) {
        with(&self.outbox, |outbox| outbox.push(void));
    }

    pub(super) fn take_outbox(&self) -> Vec<Void> {
        self.outbox.take()
    }

    /// Sends what the streams of `root` have put. Only at the end of a stream's callback: the root is the SDK's active context
    /// afterwards.
    pub(super) fn send_outbox(&self, root: u32) {
        if with(&self.outbox, |outbox| outbox.is_empty()) {
            return;
        }
        if with(&self.roots, |roots| roots.contains(&root)) {
            super::wake(root);
        }
        // Without its root, a void waits for the tick of another one.
        for void in self.take_outbox() {
            self.retry(void);
        }
    }

    /// The voids that are due at this tick.
    pub(super) fn due(&self) -> Vec<Void> {
        with(&self.voids, Voids::tick)
    }

    pub(super) fn retry(&self, void: Void) {
        if let Err(lost) = with(&self.voids, |voids| voids.retry(void)) {
            self.lost(&lost);
        }
    }

    pub(super) fn lost(&self, void: &Void) {
        self.count(Stat::VoidLost);
        error(&format!("sluice: a void is lost, its charge stays: {}", void.label));
    }

    // A figure that cannot be written must not stop a payment, nor let one through.
    pub(super) fn count(&self, stat: Stat) {
        if let Some(id) = self.metrics.get().and_then(|metrics| metrics.counters.get(&stat)) {
            let _ = abi::increment_metric(*id);
        }
    }

    pub(super) fn record_check(&self, millis: u64) {
        self.record(|metrics| metrics.check_ms, millis);
    }

    pub(super) fn record_enforcing(&self, rules: u64) {
        self.record(|metrics| metrics.rules_enforcing, rules);
    }

    fn record(&self, metric: impl FnOnce(&Metrics) -> Option<u32>, value: u64) {
        if let Some(id) = self.metrics.get().and_then(metric) {
            let _ = abi::record_metric(id, value);
        }
    }
}

impl Metrics {
    /// A metric that the proxy does not define is not counted.
    fn define() -> Self {
        let counter = |stat: Stat| Some((stat, abi::define_metric(MetricType::Counter, stat.name()).ok()?));
        Self {
            counters: Stat::ALL.into_iter().filter_map(counter).collect(),
            rules_enforcing: abi::define_metric(MetricType::Gauge, stats::RULES_ENFORCING).ok(),
            check_ms: abi::define_metric(MetricType::Histogram, stats::CHECK_MS).ok(),
        }
    }
}
