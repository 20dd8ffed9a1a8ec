//! Checks on their way to the server. Usually one call is in flight; checks that arrive meanwhile wait and are sent together when it
//! returns. Follow-ups are sent in the same calls. Pure: times come in, and what to send goes out.
//!
//! A check that finds nothing in flight is sent at once and alone, so batching adds no latency. Where half a full call waits, and
//! no fewer checks than in the first call, a second one is sent beside it: the server has work while the proxy reads requests, and
//! the proxy while the server decides. A call that takes longer than
//! [`SLOW_MS`] blocks no other: the next one is sent in parallel. Nor does a call whose payments have all ended. Every check
//! keeps its own deadline, in the queue and in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::follow_up::{FollowUp, Kind, TIMEOUT_MS};

/// Most checks and follow-ups in one call. The proxy processes their answers nested, on its stack: some 300 refusals in one
/// callback were seen to overflow it.
pub const BATCH_MAX: usize = proto::batch::CHECKS_MAX;
/// Most checks, and most follow-ups, that wait in one queue. A worker that decides 10,000 payments a second answers so many
/// within the usual timeout of 500 ms; later ones would only time out, each with a body in memory.
pub const QUEUE_MAX: usize = 4096;
/// After so many milliseconds without an answer, a call no longer blocks the next one. A healthy server answers within a few.
pub const SLOW_MS: u64 = 25;
/// A check of a lost call is sent once more only if so many milliseconds are left until its deadline. The proxy reports a timed-out
/// call like a lost one, and on a busy worker its timer and the filter's clock are tens of milliseconds apart: a server that hangs
/// must not get twice the load.
pub const REPEAT_LEFT_MS: u64 = 100;
/// With so many calls in flight the next one waits for [`CROWDED_MS`] instead of [`SLOW_MS`]: 800 ms of calls that were all lost,
/// longer than the usual timeout. Checks that have to be sent alone do not count.
pub const CALLS_MAX: usize = 32;
/// Pause between calls while [`CALLS_MAX`] are in flight. There is always a next one, so that calls that are lost for as long as a
/// rule's `timeout_ms` allows do not block all others; with 30 s, the longest, some 330 are in flight.
pub const CROWDED_MS: u64 = 100;
/// A call's own timeout covers the deadlines of its checks that are at most so many milliseconds earlier.
pub const SLACK_MS: u64 = 5;
/// Fewest checks of a second call, where `batch_max` has room for them: one of four was seen to cost more than it gains.
const OVERLAP_MIN: usize = 8;
/// Most reports in a call that has no check.
pub const REPORTS_MAX: usize = proto::batch::ENTRIES_MAX;
/// With so many calls in flight that have no check, the next reports wait.
const REPORT_CALLS_MAX: usize = 4;
/// One of so many slots of a call is reserved for waiting follow-ups, so that payments cannot starve them.
const FOLLOW_UPS_SHARE: usize = 8;

/// In the queue, or not queued yet.
const QUEUED: u8 = 0;
/// The server may have acted on it.
const SENT: u8 = 1;
/// The proxy did not accept it.
const NOT_SENT: u8 = 2;
/// Its stream has its answer, or has ended: final.
const DONE: u8 = 3;

/// The check of one stream. The stream and the queue share it, so that both see its state; they may be on different threads. The
/// state changes in one step each: a check that its stream has given up is never sent afterwards.
#[derive(Debug)]
pub struct PendingCheck<S = u32> {
    /// How the host names the stream, as the number of its context.
    pub stream: S,
    pub message: Vec<u8>,
    pub started_ms: u64,
    pub deadline_ms: u64,
    state: AtomicU8,
    /// It was sent once more, because its call was lost.
    repeated: AtomicBool,
    /// Its answer is on the way to its stream.
    answered: AtomicBool,
}

impl<S> PendingCheck<S> {
    /// A check that is made now and waits for `timeout_ms` at most.
    #[must_use]
    pub fn new(stream: S, message: Vec<u8>, started_ms: u64, timeout_ms: u32) -> Arc<Self> {
        let deadline_ms = started_ms.saturating_add(u64::from(timeout_ms));
        Arc::new(Self {
            stream,
            message,
            started_ms,
            deadline_ms,
            state: AtomicU8::new(QUEUED),
            repeated: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        })
    }

    /// Whether the server may have acted on it.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.state.load(Ordering::Acquire) == SENT
    }

    /// Whether the proxy did not accept it.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.state.load(Ordering::Acquire) == NOT_SENT
    }

    /// Whether no stream waits for its answer.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE || self.answered.load(Ordering::Acquire)
    }

    /// It is sent now. `false` if its stream has given it up, so that it must not be sent.
    pub fn send(&self) -> bool {
        self.advance(SENT)
    }

    /// Its answer goes to its stream. `false` if it has one already, or is waited for no more.
    pub fn answer(&self) -> bool {
        self.state.load(Ordering::Acquire) != DONE && !self.answered.swap(true, Ordering::AcqRel)
    }

    fn advance(&self, next: u8) -> bool {
        let step = |state| (state != DONE).then_some(next);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
    }

    /// It was not sent, or the server reports that it did not act on it. If it was sent before, that server may still have acted on
    /// it.
    pub fn unsent(&self) {
        if !self.repeated.load(Ordering::Acquire) {
            self.advance(NOT_SENT);
        }
    }

    /// Whether it may be sent once more after its call was lost; not a second time, nor with [`REPEAT_LEFT_MS`] left or less.
    #[must_use]
    fn repeat(&self, now_ms: u64) -> bool {
        let has_time = now_ms.saturating_add(REPEAT_LEFT_MS) < self.deadline_ms;
        !self.is_over() && has_time && !self.repeated.swap(true, Ordering::AcqRel)
    }

    /// Its stream has its answer, or has ended: if it is not sent yet, it never will be. Returns whether the server may have acted
    /// on it.
    pub fn over(&self) -> bool {
        self.state.swap(DONE, Ordering::AcqRel) == SENT
    }
}

/// What is sent in one call, checks first.
#[derive(Debug)]
pub struct Batch<S = u32> {
    pub checks: Vec<Arc<PendingCheck<S>>>,
    pub follow_ups: Vec<FollowUp>,
}

impl<S> Default for Batch<S> {
    fn default() -> Self {
        Self { checks: Vec::new(), follow_ups: Vec::new() }
    }
}

impl<S> Batch<S> {
    /// The number of checks and follow-ups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.checks.len().saturating_add(self.follow_ups.len())
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty() && self.follow_ups.is_empty()
    }

    /// The encoded checks, in the order in which their results come.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let checks = self.checks.iter().map(|check| check.message.as_slice());
        checks.chain(self.follow_ups.iter().map(|follow_up| follow_up.message.as_slice()))
    }

    /// Takes out the checks that may be sent once more after the call was lost. The server knows a repetition by its attempt, so it
    /// is safe whatever the result of the first.
    pub fn take_repeatable(&mut self, now_ms: u64) -> Vec<Arc<PendingCheck<S>>> {
        let (again, over) = std::mem::take(&mut self.checks).into_iter().partition(|check| check.repeat(now_ms));
        self.checks = over;
        again
    }

    /// How long the call may take: until its last check's deadline. Follow-ups do not make a payment's call longer.
    #[must_use]
    pub fn timeout_ms(&self, now_ms: u64) -> u32 {
        let last = self.checks.iter().map(|check| check.deadline_ms).max();
        let left = |deadline_ms: u64| u32::try_from(deadline_ms.saturating_sub(now_ms)).unwrap_or(u32::MAX).max(1);
        last.map_or(TIMEOUT_MS, left)
    }
}

/// A call whose answer is awaited.
#[derive(Debug)]
struct Call<S> {
    batch: Batch<S>,
    since_ms: u64,
    deadline_ms: u64,
    /// Sent in parallel because the server requires it: it blocks no other call.
    alone: bool,
}

impl<S> Call<S> {
    fn has_checks(&self) -> bool {
        !self.batch.checks.is_empty()
    }

    /// Whether a payment waits for its answer.
    fn is_awaited(&self) -> bool {
        self.awaited().next().is_some()
    }

    /// The checks that have no answer yet.
    fn awaited(&self) -> impl Iterator<Item = &Arc<PendingCheck<S>>> {
        self.batch.checks.iter().filter(|check| !check.is_over())
    }
}

/// What may be sent now.
#[derive(Debug)]
pub struct Next<S = u32> {
    pub batch: Batch<S>,
    /// Checks whose deadline passed before they could be sent.
    pub late: Vec<Arc<PendingCheck<S>>>,
}

/// The checks of one worker to one cluster under one configuration.
#[derive(Debug)]
pub struct BatchQueue<S = u32> {
    batch_max: usize,
    checks: VecDeque<Arc<PendingCheck<S>>>,
    follow_ups: VecDeque<FollowUp>,
    /// When they are sent although no check goes.
    follow_ups_due_ms: u64,
    /// By token, the oldest first: no allocation for each call. Answers come in nearly the same order, and with batches there are few
    /// calls, so that the list is searched quickly.
    calls: VecDeque<(u32, Call<S>)>,
}

impl<S> Default for BatchQueue<S> {
    fn default() -> Self {
        Self::new(BATCH_MAX)
    }
}

impl<S> BatchQueue<S> {
    /// A `batch_max` of 1 means that each item is sent at once in a call of its own.
    #[must_use]
    pub fn new(batch_max: usize) -> Self {
        let batch_max = batch_max.clamp(1, BATCH_MAX);
        let (checks, follow_ups, calls) = Default::default();
        Self { batch_max, checks, follow_ups, follow_ups_due_ms: u64::MAX, calls }
    }

    /// Queues a check; [`BatchQueue::next`] decides whether it is sent at once. `false` if too many wait.
    #[must_use]
    pub fn push_check(&mut self, check: Arc<PendingCheck<S>>) -> bool {
        if self.checks.len() >= QUEUE_MAX {
            self.checks.retain(|waiting| !waiting.is_over());
        }
        let fits = self.checks.len() < QUEUE_MAX;
        if fits {
            self.checks.push_back(check);
        }
        fits
    }

    /// Queues a follow-up. A report may wait for others.
    ///
    /// # Errors
    /// Returns it if too many wait.
    pub fn push_follow_up(&mut self, follow_up: FollowUp, now_ms: u64) -> Result<(), FollowUp> {
        if self.follow_ups.len() >= QUEUE_MAX {
            return Err(follow_up);
        }
        let due_ms = now_ms.saturating_add(u64::from(follow_up.linger_ms));
        self.follow_ups_due_ms = self.follow_ups_due_ms.min(due_ms);
        self.follow_ups.push_back(follow_up);
        Ok(())
    }

    /// Whether no follow-up waits to be sent.
    #[must_use]
    pub fn has_no_follow_ups(&self) -> bool {
        self.follow_ups.is_empty()
    }

    /// What is to be sent now; an empty batch if nothing waits, or if a call is in flight that it has to wait for.
    pub fn next(&mut self, now_ms: u64) -> Next<S> {
        let mut next = Next { batch: Batch::default(), late: Vec::new() };
        if self.checks.is_empty() && self.follow_ups.is_empty() {
            return next;
        }
        if self.checks_free_ms() <= now_ms {
            let kept = self.batch_max.div_euclid(FOLLOW_UPS_SHARE).max(1).min(self.follow_ups.len());
            self.take_checks(&mut next, now_ms, self.batch_max.saturating_sub(kept).max(1));
        }
        let slots = if next.batch.checks.is_empty() {
            self.slots_alone(now_ms)
        } else {
            self.batch_max.saturating_sub(next.batch.checks.len())
        };
        next.batch.follow_ups.extend(self.follow_ups.drain(..slots.min(self.follow_ups.len())));
        if self.follow_ups.is_empty() {
            self.follow_ups_due_ms = u64::MAX;
        }
        next
    }

    /// How many follow-ups may go without a check. A payment never waits for them; they wait for each other and for payments, reports
    /// only for each other, and more of them go in a call: no stream waits for their answers.
    fn slots_alone(&self, now_ms: u64) -> usize {
        // A server of the release before refuses a call of so many: they are sent again in smaller ones.
        let is_report = |follow_up: &&FollowUp| follow_up.kind == Kind::Report && follow_up.tries <= 1;
        let reports = self.follow_ups.iter().take(REPORTS_MAX).take_while(is_report).count();
        let is_due = self.follow_ups_due_ms <= now_ms || reports == REPORTS_MAX;
        let others = self.calls().filter(|call| !call.has_checks()).count();
        if is_due && reports > 0 && self.batch_max > 1 && others < REPORT_CALLS_MAX {
            reports
        } else if is_due && self.free_ms(|_| true, |_| true) <= now_ms {
            self.batch_max
        } else {
            0
        }
    }

    /// When waiting follow-ups are sent if no call goes or returns before; `None` if none waits for a time to come.
    #[must_use]
    pub fn next_report_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.follow_ups_due_ms).filter(|due_ms| *due_ms > now_ms && *due_ms < u64::MAX)
    }

    fn calls(&self) -> impl Iterator<Item = &Call<S>> + Clone {
        self.calls.iter().map(|(_, call)| call)
    }

    fn checks_free_ms(&self) -> u64 {
        if self.may_overlap() { 0 } else { self.free_ms(Call::has_checks, Call::is_awaited) }
    }

    /// Whether a second call is worth its cost beside the one in flight: with few checks in it, it would cost every process more
    /// for a payment than the overlap gains. A slow call counts as in flight here, so that a server that hangs gets no more calls.
    fn may_overlap(&self) -> bool {
        let least = self.batch_max.div_ceil(2).max(OVERLAP_MIN.min(self.batch_max));
        // Most payments end here: the number with those that have ended is known at once.
        if self.checks.len() < least {
            return false;
        }
        let calls = self.calls().filter(|call| !call.alone && call.has_checks());
        let mut awaited = calls.clone().filter(|call| call.is_awaited());
        let (Some(only), None) = (awaited.next(), awaited.next()) else { return false };
        let least = least.max(only.awaited().count());
        let waiting = self.checks.iter().filter(|check| !check.is_over());
        waiting.take(least).count() == least && calls.count() < CALLS_MAX
    }

    /// The earliest time of the next call: after those that block it, and if too many calls count, after all of them.
    fn free_ms(&self, counts: impl Fn(&Call<S>) -> bool, holds_up: impl Fn(&Call<S>) -> bool) -> u64 {
        if self.batch_max == 1 {
            return 0;
        }
        let calls = self.calls().filter(|call| !call.alone && counts(call));
        let crowded = calls.clone().count() >= CALLS_MAX;
        let pause_ms = if crowded { CROWDED_MS } else { SLOW_MS };
        let latest = calls.filter(|call| crowded || holds_up(call)).map(|call| call.since_ms).max();
        latest.map_or(0, |since_ms| since_ms.saturating_add(pause_ms))
    }

    /// When a waiting check may be sent if no call returns before; `None` if none waits.
    #[must_use]
    pub fn next_send_ms(&self) -> Option<u64> {
        self.checks.iter().rev().any(|check| !check.is_over()).then(|| self.checks_free_ms())
    }

    fn take_checks(&mut self, next: &mut Next<S>, now_ms: u64, most: usize) {
        while next.batch.checks.len() < most {
            match self.checks.pop_front() {
                None => return,
                Some(check) if check.is_over() => {}
                Some(check) if check.deadline_ms <= now_ms => next.late.push(check),
                Some(check) => next.batch.checks.push(check),
            }
        }
    }

    /// A batch was sent under this token.
    pub fn sent(&mut self, token: u32, batch: Batch<S>, now_ms: u64, alone: bool) {
        for check in &batch.checks {
            check.send();
        }
        let deadline_ms = now_ms.saturating_add(u64::from(batch.timeout_ms(now_ms)));
        self.calls.push_back((token, Call { batch, since_ms: now_ms, deadline_ms, alone }));
    }

    /// The call of this token has ended: its answers are to be distributed.
    pub fn back(&mut self, token: u32) -> Option<Batch<S>> {
        let at = self.calls.iter().position(|(own, _)| *own == token)?;
        self.calls.remove(at).map(|(_, call)| call.batch)
    }

    /// Checks whose deadline has passed: waiting ones leave the queue, those in flight stay with their call.
    pub fn overdue(&mut self, now_ms: u64) -> Vec<Arc<PendingCheck<S>>> {
        let mut overdue: Vec<Arc<PendingCheck<S>>> = Vec::new();
        self.checks.retain(|check| {
            let late = check.deadline_ms <= now_ms && !check.is_over();
            if late {
                overdue.push(Arc::clone(check));
            }
            !late && !check.is_over()
        });
        let in_flight = self.calls().flat_map(|call| &call.batch.checks);
        overdue.extend(in_flight.filter(|check| !check.is_over() && check.deadline_ms <= now_ms).cloned());
        overdue
    }

    /// The earliest deadline that no call's own timeout covers.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let uncovered = |call: &Call<S>, check: &PendingCheck<S>| {
            check.deadline_ms.saturating_add(SLACK_MS) < call.deadline_ms && !check.is_over()
        };
        let in_flight = self.calls().flat_map(|call| {
            let checks = call.batch.checks.iter();
            checks.filter(move |check| uncovered(call, check)).map(|check| check.deadline_ms)
        });
        let waiting = self.checks.iter().filter(|check| !check.is_over());
        waiting.map(|check| check.deadline_ms).chain(in_flight).min()
    }

    /// The configuration is gone, and with it every answer. Returns the open checks and follow-ups.
    pub fn end(&mut self) -> Batch<S> {
        let mut left = Batch { checks: self.checks.drain(..).collect(), follow_ups: Vec::new() };
        left.follow_ups.extend(self.follow_ups.drain(..));
        for (_, call) in std::mem::take(&mut self.calls) {
            left.checks.extend(call.batch.checks);
            left.follow_ups.extend(call.batch.follow_ups);
        }
        left.checks.retain(|check| !check.is_over());
        left
    }
}

#[cfg(test)]
mod tests;
