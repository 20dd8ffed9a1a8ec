//! What the contexts of one worker's VM share: attempt ids, the clock, follow-ups on their way, streams that are held back,
//! metrics. A worker is one thread. Nothing here is held borrowed while the proxy is called, so a call back could not find
//! anything borrowed.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Weak;

use proxy_wasm::types::MetricType;
use quota::Code;

use super::error;
use super::http::Life;
use crate::abi;
use crate::delays::Delays;
use crate::follow_up::{FollowUp, FollowUps};
use crate::stats::{self, Stat};

/// A stream that is held back, for as long as it is there.
type Waiting = Weak<RefCell<Life>>;

#[derive(Default)]
pub(super) struct Worker {
    /// Random, so that attempts of different workers and proxies differ.
    attempt_prefix: OnceCell<u64>,
    attempts: Cell<u64>,
    metrics: OnceCell<Metrics>,
    /// Live root contexts.
    roots: Cell<BTreeSet<u32>>,
    /// The latest time that is known, of a clock that never goes back.
    now_ms: Cell<u64>,
    /// What a stream has decided on and no root context has sent yet: empty between two callbacks.
    outbox: Cell<Vec<FollowUp>>,
    follow_ups: Cell<FollowUps>,
    delays: Cell<Delays<Waiting>>,
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

    /// The time in milliseconds; where the proxy does not say, the latest that is known.
    pub(super) fn now_ms(&self) -> u64 {
        let latest = self.now_ms.get();
        let now = abi::monotonic_ms().map_or(latest, |now| now.max(latest));
        self.now_ms.set(now);
        now
    }

    /// The time at a tick. Without a clock time goes on by ticks, so that nobody waits for ever.
    pub(super) fn tick(&self, period_ms: u32) -> u64 {
        let latest = self.now_ms.get();
        let now = abi::monotonic_ms().unwrap_or_else(|| latest.saturating_add(u64::from(period_ms)));
        self.now_ms.set(now.max(latest));
        self.now_ms.get()
    }

    /// Keeps a stream until its time. `false` where too many wait.
    pub(super) fn hold_back(&self, due_ms: u64, context: u32, stream: Waiting) -> bool {
        with(&self.delays, |delays| delays.put(due_ms, context, stream))
    }

    pub(super) fn let_go(&self, due_ms: u64, context: u32) {
        with(&self.delays, |delays| delays.remove(due_ms, context));
    }

    /// Streams whose time has come.
    pub(super) fn due_streams(&self, now_ms: u64) -> Vec<(u32, Waiting)> {
        with(&self.delays, |delays| delays.due(now_ms))
    }

    /// When the first stream is due.
    pub(super) fn next_stream(&self) -> Option<u64> {
        with(&self.delays, |delays| delays.next())
    }

    /// What a stream has decided to tell the server.
    pub(super) fn put(&self, follow_up: FollowUp) {
        with(&self.outbox, |outbox| outbox.push(follow_up));
    }

    pub(super) fn take_outbox(&self) -> Vec<FollowUp> {
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
        // Without its root, a follow-up waits for the tick of another one.
        for follow_up in self.take_outbox() {
            self.retry(follow_up);
        }
    }

    /// The follow-ups that are due at this tick.
    pub(super) fn due(&self, now_ms: u64) -> Vec<FollowUp> {
        with(&self.follow_ups, |follow_ups| follow_ups.due(now_ms))
    }

    pub(super) fn retry(&self, follow_up: FollowUp) {
        if let Err(lost) = with(&self.follow_ups, |follow_ups| follow_ups.retry(follow_up)) {
            self.lost(&lost, "nobody took it");
        }
    }

    /// The server will not take it.
    pub(super) fn refused(&self, follow_up: &FollowUp, code: Option<Code>) {
        self.lost(follow_up, code.map_or("the server cannot read it", Code::as_str));
    }

    fn lost(&self, follow_up: &FollowUp, why: &str) {
        self.count(follow_up.kind.lost());
        error(&format!("sluice: a {} is lost ({why}): {}", follow_up.kind.as_str(), follow_up.label));
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
