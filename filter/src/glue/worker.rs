//! What the contexts of one worker's VM share: the live roots, attempt ids, the clock, follow-ups on their way, streams that wait
//! for a tick. A worker is one thread. A cell is borrowed for a moment only, and the proxy is not called meanwhile.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use quota::Code;

use super::error;
use super::metrics::FilterMetrics;
use super::root::Root;
use super::stream::StreamContext;
use crate::abi;
use crate::batch::{Batch, PendingCheck};
use crate::delays::Delays;
use crate::follow_up::{FollowUp, FollowUps};
use crate::trust::Holder;

/// What a stream waits for until a tick.
pub(super) enum Due {
    /// The end of its delay.
    Delay,
    /// Its check has no answer: the rule's `on_error` is applied.
    NoAnswer(Arc<PendingCheck>),
}

type Streams = HashMap<u32, Rc<RefCell<StreamContext>>, BuildHasherDefault<Numbers>>;

pub(super) struct Worker {
    /// Random, so that attempts of different workers and proxies differ.
    attempt_prefix: OnceCell<u64>,
    attempts: Cell<u64>,
    pub(super) metrics: FilterMetrics,
    /// Live root contexts.
    roots: RefCell<BTreeSet<u32>>,
    /// A root's callback runs: the SDK holds that root borrowed and active.
    pub(super) root_active: Cell<bool>,
    streams: RefCell<Streams>,
    /// The latest known time of the monotonic clock.
    now_ms: Cell<u64>,
    /// Follow-ups that streams have put and no root has sent yet: empty between two callbacks.
    outbox: RefCell<Vec<FollowUp>>,
    follow_ups: RefCell<FollowUps>,
    /// The rights of this worker, whatever the configuration.
    pub(super) holder: Arc<Holder>,
    due: RefCell<Delays<Due>>,
}

/// Changes what a cell holds. `change` calls neither the proxy nor the cell: the cell is never borrowed here.
pub(super) fn with<T: Default, R>(cell: &RefCell<T>, change: impl FnOnce(&mut T) -> R) -> R {
    match cell.try_borrow_mut() {
        Ok(mut value) => change(&mut value),
        Err(_) => change(&mut T::default()),
    }
}

/// Hashes the proxy's own numbers, which no client chooses. The standard library's hash maps take randomness from the proxy and
/// panic where it has none.
#[derive(Default)]
pub(super) struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // The golden ratio's bits: numbers in a row are spread over all bits.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            attempt_prefix: OnceCell::default(),
            attempts: Cell::default(),
            metrics: FilterMetrics::default(),
            roots: RefCell::default(),
            root_active: Cell::default(),
            streams: RefCell::default(),
            now_ms: Cell::default(),
            outbox: RefCell::default(),
            follow_ups: RefCell::default(),
            holder: Arc::new(Holder::new(abi::monotonic_ms)),
            due: RefCell::default(),
        }
    }
}

impl Worker {
    /// Once per VM: random bytes for attempt ids, and the metrics.
    pub(super) fn start(&self) -> Result<(), String> {
        if self.attempt_prefix.get().is_none() {
            let prefix = getrandom::u64().map_err(|error| format!("no randomness for attempt ids: {error}"))?;
            let _ = self.attempt_prefix.set(prefix);
            self.metrics.define();
        }
        Ok(())
    }

    pub(super) fn next_attempt(&self) -> Option<u128> {
        let prefix = self.attempt_prefix.get()?;
        self.attempts.set(self.attempts.get().checked_add(1)?);
        Some((u128::from(*prefix) << 64) | u128::from(self.attempts.get()))
    }

    pub(super) fn put_root(&self, id: u32) {
        with(&self.roots, |roots| roots.insert(id));
    }

    pub(super) fn remove_root(&self, id: u32) {
        with(&self.roots, |roots| roots.remove(&id));
    }

    pub(super) fn is_newest(&self, root: &Root) -> bool {
        with(&self.roots, |roots| roots.last() == Some(&root.id))
    }

    pub(super) fn put_stream(&self, context: u32, shared: Rc<RefCell<StreamContext>>) {
        with(&self.streams, |streams| streams.insert(context, shared));
    }

    pub(super) fn stream(&self, context: u32) -> Option<Rc<RefCell<StreamContext>>> {
        with(&self.streams, |streams| streams.get(&context).cloned())
    }

    pub(super) fn remove_stream(&self, context: u32) {
        with(&self.streams, |streams| streams.remove(&context));
    }

    /// The time in milliseconds; if the proxy does not return it, the latest known time.
    pub(super) fn now_ms(&self) -> u64 {
        let latest = self.now_ms.get();
        let now = abi::monotonic_ms().map_or(latest, |now| now.max(latest));
        self.now_ms.set(now);
        now
    }

    /// The latest known time. It is at most one tick old.
    pub(super) fn latest_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// The time at a tick. Without a clock, time advances by ticks, so that no stream waits for ever.
    pub(super) fn tick(&self, period_ms: u32) -> u64 {
        let latest = self.now_ms.get();
        let now = abi::monotonic_ms().unwrap_or_else(|| latest.saturating_add(u64::from(period_ms)));
        self.now_ms.set(now.max(latest));
        self.now_ms.get()
    }

    /// Delays a stream until `due_ms`. `false` if too many wait.
    pub(super) fn delay(&self, due_ms: u64, context: u32) -> bool {
        with(&self.due, |due| due.put(due_ms, context, Due::Delay))
    }

    pub(super) fn cancel(&self, due_ms: u64, context: u32) {
        with(&self.due, |due| due.remove(due_ms, context));
    }

    /// Schedules a stream for a tick, however many wait.
    pub(super) fn defer(&self, due_ms: u64, context: u32, what: Due) {
        with(&self.due, |due| due.put_anyway(due_ms, context, what));
    }

    /// Lets a tick apply `on_error` to these checks.
    pub(super) fn give_up(&self, checks: Vec<Arc<PendingCheck>>) {
        for check in checks {
            self.defer(check.deadline_ms.min(self.latest_ms()), check.stream, Due::NoAnswer(check));
        }
    }

    /// The streams that a tick has to process.
    pub(super) fn due(&self, now_ms: u64) -> Vec<(u32, Due)> {
        with(&self.due, |due| due.due(now_ms))
    }

    /// When the first stream is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        with(&self.due, |due| due.next())
    }

    /// A follow-up of a stream.
    pub(super) fn put(&self, follow_up: FollowUp) {
        with(&self.outbox, |outbox| outbox.push(follow_up));
    }

    pub(super) fn has_outbox(&self) -> bool {
        with(&self.outbox, |outbox| !outbox.is_empty())
    }

    pub(super) fn take_outbox(&self) -> Vec<FollowUp> {
        with(&self.outbox, std::mem::take)
    }

    /// The follow-ups to retry at this tick.
    pub(super) fn retries(&self, now_ms: u64) -> Vec<FollowUp> {
        with(&self.follow_ups, |follow_ups| follow_ups.due(now_ms))
    }

    pub(super) fn retry(&self, follow_up: FollowUp) {
        if let Err(lost) = with(&self.follow_ups, |follow_ups| follow_ups.retry(follow_up)) {
            self.lost(&lost, "not delivered");
        }
    }

    /// Nothing of it was sent.
    pub(super) fn unsent(&self, batch: Batch) {
        for check in &batch.checks {
            check.unsent();
        }
        self.abandon(batch);
    }

    /// It gets no answer any more. Checks that the server may have acted on keep their state.
    pub(super) fn abandon(&self, batch: Batch) {
        for check in batch.checks.iter().filter(|check| !check.is_sent()) {
            check.unsent();
        }
        self.give_up(batch.checks);
        for follow_up in batch.follow_ups {
            self.retry(follow_up);
        }
    }

    /// The server will not accept it.
    pub(super) fn refused(&self, follow_up: &FollowUp, code: Option<Code>) {
        self.lost(follow_up, code.map_or("the server cannot read it", Code::as_str));
    }

    fn lost(&self, follow_up: &FollowUp, why: &str) {
        self.metrics.count(follow_up.kind.lost());
        error(&format!("sluice: {} is lost ({why}): {}", follow_up.kind.as_str(), follow_up.label));
    }
}
