//! Questions on their way to the server. One call is in flight; what is asked meanwhile waits and goes together when it is
//! back. Follow-ups ride in the same calls. Pure: times come in, and what to send goes out.
//!
//! A question that finds nothing in flight goes at once and alone, so that batching costs nobody time. A call that takes longer
//! than [`SLOW_MS`] holds nobody up either: the next one goes beside it. Nor does one whose payments are all over. Every question
//! keeps its own deadline, in the queue and in flight.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::follow_up::{FollowUp, TIMEOUT_MS};

/// Most questions and follow-ups in one call. Their answers are carried out by the proxy one inside the other, on its stack:
/// some 300 refusals in one callback were seen to overflow it.
pub const BATCH_MAX: usize = proto::batch::CHECKS_MAX;
/// Most questions, and most follow-ups, that wait in one queue. A worker that decides 10,000 payments a second answers so many
/// within the usual timeout of 500 ms; whoever comes after them would wait in vain, holding a body in memory.
pub const QUEUE_MAX: usize = 4096;
/// After so many milliseconds without its answer a call holds up the next one no longer. A healthy server answers within a few.
pub const SLOW_MS: u64 = 25;
/// A question of a lost call is asked once more only where so many milliseconds of its time are left. The proxy ends a call whose time is
/// over as it ends one that is lost, and on a busy worker its timer and the filter's clock are tens of milliseconds apart: a server
/// that hangs must not be asked twice as much.
pub const REPEAT_LEFT_MS: u64 = 100;
/// With so many calls in flight the next one waits for [`CROWDED_MS`] instead of [`SLOW_MS`]: 800 ms of calls that were all lost,
/// longer than the usual timeout. Questions that have to be asked alone do not count.
pub const CALLS_MAX: usize = 32;
/// Pause between calls where [`CALLS_MAX`] are in flight. There is always a next one, so that calls that are lost for as long as a
/// rule's `timeout_ms` allows do not take the places of all others; with 30 s, the longest, some 330 are in flight.
pub const CROWDED_MS: u64 = 100;
/// A call's own timeout stands for the deadlines of its questions that are so many milliseconds earlier at most.
pub const SLACK_MS: u64 = 5;
/// One of so many places of a call is kept for follow-ups that wait, so that payments cannot starve them.
const FOLLOW_UPS_SHARE: usize = 8;

/// Where a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the queue, or nowhere yet.
    Waiting,
    /// The server may have acted on it.
    Sent,
    /// The proxy did not take it.
    Unsent,
    /// Its stream has its answer, or has ended.
    Over,
}

/// What one stream asks. The stream and the queue share it, so that each knows what became of it.
#[derive(Debug)]
pub struct Question {
    /// The number of the stream's context.
    pub stream: u32,
    pub message: Vec<u8>,
    pub asked_ms: u64,
    pub deadline_ms: u64,
    place: Cell<Place>,
    /// It was asked once more, because its call was lost.
    repeated: Cell<bool>,
}

impl Question {
    /// A question that is asked now and waits for `timeout_ms` at most.
    #[must_use]
    pub fn new(stream: u32, message: Vec<u8>, asked_ms: u64, timeout_ms: u32) -> Rc<Self> {
        let deadline_ms = asked_ms.saturating_add(u64::from(timeout_ms));
        Rc::new(Self {
            stream,
            message,
            asked_ms,
            deadline_ms,
            place: Cell::new(Place::Waiting),
            repeated: Cell::new(false),
        })
    }

    /// Whether the server may have acted on it.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.place.get() == Place::Sent
    }

    /// Whether the proxy did not take it.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.place.get() == Place::Unsent
    }

    /// Whether nobody waits for its answer.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.place.get() == Place::Over
    }

    /// It went out.
    pub fn sent(&self) {
        self.place.set(Place::Sent);
    }

    /// It did not go out, or the server says that it did nothing about it. Where it was asked before, that server may have acted on
    /// it all the same.
    pub fn unsent(&self) {
        if !self.repeated.get() {
            self.place.set(Place::Unsent);
        }
    }

    /// Whether it may be asked once more now that its call was lost; it may not a second time, nor with [`REPEAT_LEFT_MS`] left or less.
    #[must_use]
    fn repeat(&self, now_ms: u64) -> bool {
        let has_time = now_ms.saturating_add(REPEAT_LEFT_MS) < self.deadline_ms;
        !self.is_over() && has_time && !self.repeated.replace(true)
    }

    /// Its stream has its answer, or has ended: what is not sent yet never will be.
    pub fn over(&self) {
        self.place.set(Place::Over);
    }
}

/// What goes out in one call, questions first.
#[derive(Debug, Default)]
pub struct Batch {
    pub questions: Vec<Rc<Question>>,
    pub follow_ups: Vec<FollowUp>,
}

impl Batch {
    /// How many there are of both.
    #[must_use]
    pub fn len(&self) -> usize {
        self.questions.len().saturating_add(self.follow_ups.len())
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.follow_ups.is_empty()
    }

    /// The encoded checks, in the order in which their results come.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let questions = self.questions.iter().map(|question| question.message.as_slice());
        questions.chain(self.follow_ups.iter().map(|follow_up| follow_up.message.as_slice()))
    }

    /// Takes out the questions that may be asked once more, the call having been lost. A repetition is known by its attempt, so that
    /// it is safe whatever became of the first.
    pub fn take_repeatable(&mut self, now_ms: u64) -> Vec<Rc<Question>> {
        let (again, over) =
            std::mem::take(&mut self.questions).into_iter().partition(|question| question.repeat(now_ms));
        self.questions = over;
        again
    }

    /// How long the call may take: until its last question's deadline. Follow-ups do not make a payment's call longer.
    #[must_use]
    pub fn timeout_ms(&self, now_ms: u64) -> u32 {
        let last = self.questions.iter().map(|question| question.deadline_ms).max();
        let left = |deadline_ms: u64| u32::try_from(deadline_ms.saturating_sub(now_ms)).unwrap_or(u32::MAX).max(1);
        last.map_or(TIMEOUT_MS, left)
    }
}

/// A call whose answer is awaited.
#[derive(Debug)]
struct Call {
    batch: Batch,
    since_ms: u64,
    deadline_ms: u64,
    /// Asked beside the others because the server said so: it holds nobody up.
    alone: bool,
}

impl Call {
    fn has_questions(&self) -> bool {
        !self.batch.questions.is_empty()
    }

    /// Whether a payment waits for its answer.
    fn is_awaited(&self) -> bool {
        self.batch.questions.iter().any(|question| !question.is_over())
    }
}

/// What may go out now.
#[derive(Debug, Default)]
pub struct Next {
    pub batch: Batch,
    /// Questions whose time was over before they could go.
    pub late: Vec<Rc<Question>>,
}

/// The questions of one worker to one cluster under one configuration.
#[derive(Debug)]
pub struct Lane {
    batch_max: usize,
    questions: VecDeque<Rc<Question>>,
    follow_ups: VecDeque<FollowUp>,
    calls: BTreeMap<u32, Call>,
}

impl Default for Lane {
    fn default() -> Self {
        Self::new(BATCH_MAX)
    }
}

impl Lane {
    /// A `batch_max` of 1 means that everything goes at once in a call of its own.
    #[must_use]
    pub fn new(batch_max: usize) -> Self {
        let batch_max = batch_max.clamp(1, BATCH_MAX);
        Self { batch_max, questions: VecDeque::new(), follow_ups: VecDeque::new(), calls: BTreeMap::new() }
    }

    /// Takes a question; [`Lane::next`] says whether it goes at once. `false` where too many wait.
    #[must_use]
    pub fn ask(&mut self, question: Rc<Question>) -> bool {
        if self.questions.len() >= QUEUE_MAX {
            self.questions.retain(|waiting| !waiting.is_over());
        }
        let fits = self.questions.len() < QUEUE_MAX;
        if fits {
            self.questions.push_back(question);
        }
        fits
    }

    /// Takes a follow-up.
    ///
    /// # Errors
    /// Gives it back where too many wait.
    pub fn tell(&mut self, follow_up: FollowUp) -> Result<(), FollowUp> {
        if self.follow_ups.len() >= QUEUE_MAX {
            return Err(follow_up);
        }
        self.follow_ups.push_back(follow_up);
        Ok(())
    }

    /// What is to go out now; an empty batch where nothing waits or a call is in flight that it has to wait for.
    pub fn next(&mut self, now_ms: u64) -> Next {
        let mut next = Next::default();
        if self.questions_free_ms() <= now_ms {
            let kept = self.batch_max.div_euclid(FOLLOW_UPS_SHARE).max(1).min(self.follow_ups.len());
            self.take_questions(&mut next, now_ms, self.batch_max.saturating_sub(kept).max(1));
        }
        // A payment never waits for follow-ups alone; they wait for each other and for payments.
        if !next.batch.questions.is_empty() || self.free_ms(|_| true, |_| true) <= now_ms {
            let places = self.batch_max.saturating_sub(next.batch.questions.len());
            next.batch.follow_ups.extend(self.follow_ups.drain(..places.min(self.follow_ups.len())));
        }
        next
    }

    fn questions_free_ms(&self) -> u64 {
        self.free_ms(Call::has_questions, Call::is_awaited)
    }

    /// From when on the next call may go: after those that hold it up, and where the calls that count are too many, after all of
    /// them.
    fn free_ms(&self, counts: impl Fn(&Call) -> bool, holds_up: impl Fn(&Call) -> bool) -> u64 {
        if self.batch_max == 1 {
            return 0;
        }
        let calls = self.calls.values().filter(|call| !call.alone && counts(call));
        let crowded = calls.clone().count() >= CALLS_MAX;
        let pause_ms = if crowded { CROWDED_MS } else { SLOW_MS };
        let latest = calls.filter(|call| crowded || holds_up(call)).map(|call| call.since_ms).max();
        latest.map_or(0, |since_ms| since_ms.saturating_add(pause_ms))
    }

    /// When a question that waits may go if no call is back before; `None` where none waits.
    #[must_use]
    pub fn next_send_ms(&self) -> Option<u64> {
        self.questions.iter().rev().any(|question| !question.is_over()).then(|| self.questions_free_ms())
    }

    fn take_questions(&mut self, next: &mut Next, now_ms: u64, most: usize) {
        while next.batch.questions.len() < most {
            match self.questions.pop_front() {
                None => return,
                Some(question) if question.is_over() => {}
                Some(question) if question.deadline_ms <= now_ms => next.late.push(question),
                Some(question) => next.batch.questions.push(question),
            }
        }
    }

    /// A batch went out under this token.
    pub fn sent(&mut self, token: u32, batch: Batch, now_ms: u64, alone: bool) {
        for question in &batch.questions {
            question.sent();
        }
        let deadline_ms = now_ms.saturating_add(u64::from(batch.timeout_ms(now_ms)));
        self.calls.insert(token, Call { batch, since_ms: now_ms, deadline_ms, alone });
    }

    /// The call of this token is over: its answer is to be handed out.
    pub fn back(&mut self, token: u32) -> Option<Batch> {
        self.calls.remove(&token).map(|call| call.batch)
    }

    /// Questions whose time is over: those that wait leave the queue, those in flight stay with their call.
    pub fn overdue(&mut self, now_ms: u64) -> Vec<Rc<Question>> {
        let mut overdue: Vec<Rc<Question>> = Vec::new();
        self.questions.retain(|question| {
            let late = question.deadline_ms <= now_ms && !question.is_over();
            if late {
                overdue.push(Rc::clone(question));
            }
            !late && !question.is_over()
        });
        let in_flight = self.calls.values().flat_map(|call| &call.batch.questions);
        overdue.extend(in_flight.filter(|question| !question.is_over() && question.deadline_ms <= now_ms).cloned());
        overdue
    }

    /// The earliest deadline that no call's own timeout stands for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let uncovered = |call: &Call, question: &Question| {
            question.deadline_ms.saturating_add(SLACK_MS) < call.deadline_ms && !question.is_over()
        };
        let in_flight = self.calls.values().flat_map(|call| {
            let questions = call.batch.questions.iter();
            questions.filter(move |question| uncovered(call, question)).map(|question| question.deadline_ms)
        });
        let waiting = self.questions.iter().filter(|question| !question.is_over());
        waiting.map(|question| question.deadline_ms).chain(in_flight).min()
    }

    /// The configuration is gone, and with it every answer: what was asked and what was to be told.
    pub fn end(&mut self) -> Batch {
        let mut left = Batch { questions: self.questions.drain(..).collect(), follow_ups: Vec::new() };
        left.follow_ups.extend(self.follow_ups.drain(..));
        for call in std::mem::take(&mut self.calls).into_values() {
            left.questions.extend(call.batch.questions);
            left.follow_ups.extend(call.batch.follow_ups);
        }
        left.questions.retain(|question| !question.is_over());
        left
    }
}

#[cfg(test)]
mod tests;
