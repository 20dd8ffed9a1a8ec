//! What the contexts of one worker's VM share: who is there, attempt ids, the clock, follow-ups on their way, streams that wait for a
//! tick. A worker is one thread. What a cell holds is taken out of it for a moment only, and the proxy is
//! not called meanwhile.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use quota::Code;

use super::error;
use super::figures::Figures;
use super::root::Root;
use super::stream::Life;
use crate::abi;
use crate::batch::{Batch, Question};
use crate::delays::Delays;
use crate::follow_up::{FollowUp, FollowUps};

/// What a stream waits for until a tick.
pub(super) enum Due {
    /// The time until which it is held back.
    Delay,
    /// That its question is answered by the rule, for want of an answer.
    NoAnswer(Rc<Question>),
}

type Streams = HashMap<u32, Rc<RefCell<Life>>, BuildHasherDefault<Numbers>>;

#[derive(Default)]
pub(super) struct Worker {
    /// Random, so that attempts of different workers and proxies differ.
    attempt_prefix: OnceCell<u64>,
    attempts: Cell<u64>,
    pub(super) figures: Figures,
    /// Live root contexts.
    roots: Cell<BTreeSet<u32>>,
    /// A root's callback runs: the SDK holds that root borrowed and active.
    pub(super) root_active: Cell<bool>,
    streams: Cell<Streams>,
    /// The latest time that is known, of a clock that never goes back.
    now_ms: Cell<u64>,
    /// What streams have decided on and no root has sent yet: empty between two callbacks.
    outbox: Cell<Vec<FollowUp>>,
    follow_ups: Cell<FollowUps>,
    due: Cell<Delays<Due>>,
}

/// Changes what a cell holds. `change` calls neither the proxy nor the cell.
pub(super) fn with<T: Default, R>(cell: &Cell<T>, change: impl FnOnce(&mut T) -> R) -> R {
    let mut value = cell.take();
    let result = change(&mut value);
    cell.set(value);
    result
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

impl Worker {
    /// Once per VM: random bytes for attempt ids, and the figures.
    pub(super) fn start(&self) -> Result<(), String> {
        if self.attempt_prefix.get().is_none() {
            let prefix =
                getrandom::u64().map_err(|error| format!("there is no randomness for attempt ids: {error}"))?;
            let _ = self.attempt_prefix.set(prefix);
            self.figures.define();
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

    pub(super) fn put_stream(&self, context: u32, life: Rc<RefCell<Life>>) {
        with(&self.streams, |streams| streams.insert(context, life));
    }

    pub(super) fn stream(&self, context: u32) -> Option<Rc<RefCell<Life>>> {
        with(&self.streams, |streams| streams.get(&context).cloned())
    }

    pub(super) fn remove_stream(&self, context: u32) {
        with(&self.streams, |streams| streams.remove(&context));
    }

    /// The time in milliseconds; where the proxy does not say, the latest that is known.
    pub(super) fn now_ms(&self) -> u64 {
        let latest = self.now_ms.get();
        let now = abi::monotonic_ms().map_or(latest, |now| now.max(latest));
        self.now_ms.set(now);
        now
    }

    /// The latest time that is known. It is at most one tick old.
    pub(super) fn latest_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// The time at a tick. Without a clock time goes on by ticks, so that nobody waits for ever.
    pub(super) fn tick(&self, period_ms: u32) -> u64 {
        let latest = self.now_ms.get();
        let now = abi::monotonic_ms().unwrap_or_else(|| latest.saturating_add(u64::from(period_ms)));
        self.now_ms.set(now.max(latest));
        self.now_ms.get()
    }

    /// Keeps a stream until its time. `false` where too many wait.
    pub(super) fn hold_back(&self, due_ms: u64, context: u32) -> bool {
        with(&self.due, |due| due.put(due_ms, context, Due::Delay))
    }

    pub(super) fn let_go(&self, due_ms: u64, context: u32) {
        with(&self.due, |due| due.remove(due_ms, context));
    }

    /// Has a tick see to a stream, however many wait.
    pub(super) fn see_to(&self, due_ms: u64, context: u32, what: Due) {
        with(&self.due, |due| due.put_anyway(due_ms, context, what));
    }

    /// Has a tick answer questions by their rules.
    pub(super) fn give_up(&self, questions: Vec<Rc<Question>>) {
        for question in questions {
            self.see_to(question.deadline_ms.min(self.latest_ms()), question.stream, Due::NoAnswer(question));
        }
    }

    /// The streams that a tick is to see to.
    pub(super) fn due(&self, now_ms: u64) -> Vec<(u32, Due)> {
        with(&self.due, |due| due.due(now_ms))
    }

    /// When the first stream is to be seen to.
    pub(super) fn next_due(&self) -> Option<u64> {
        with(&self.due, |due| due.next())
    }

    /// What a stream has decided to tell the server.
    pub(super) fn put(&self, follow_up: FollowUp) {
        with(&self.outbox, |outbox| outbox.push(follow_up));
    }

    pub(super) fn has_outbox(&self) -> bool {
        with(&self.outbox, |outbox| !outbox.is_empty())
    }

    pub(super) fn take_outbox(&self) -> Vec<FollowUp> {
        self.outbox.take()
    }

    /// The follow-ups that are to be tried again at this tick.
    pub(super) fn retries(&self, now_ms: u64) -> Vec<FollowUp> {
        with(&self.follow_ups, |follow_ups| follow_ups.due(now_ms))
    }

    pub(super) fn retry(&self, follow_up: FollowUp) {
        if let Err(lost) = with(&self.follow_ups, |follow_ups| follow_ups.retry(follow_up)) {
            self.lost(&lost, "nobody took it");
        }
    }

    /// Nothing of it went out.
    pub(super) fn unsent(&self, batch: Batch) {
        for question in &batch.questions {
            question.unsent();
        }
        self.abandon(batch);
    }

    /// No answer comes to it any more. What the server may have acted on stays known as such.
    pub(super) fn abandon(&self, batch: Batch) {
        for question in batch.questions.iter().filter(|question| !question.is_sent()) {
            question.unsent();
        }
        self.give_up(batch.questions);
        for follow_up in batch.follow_ups {
            self.retry(follow_up);
        }
    }

    /// The server will not take it.
    pub(super) fn refused(&self, follow_up: &FollowUp, code: Option<Code>) {
        self.lost(follow_up, code.map_or("the server cannot read it", Code::as_str));
    }

    fn lost(&self, follow_up: &FollowUp, why: &str) {
        self.figures.count(follow_up.kind.lost());
        error(&format!("sluice: a {} is lost ({why}): {}", follow_up.kind.as_str(), follow_up.label));
    }
}
