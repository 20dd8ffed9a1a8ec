//! What each part saw of each order.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the decision server gave its question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Given {
    /// It was not asked.
    #[default]
    Unasked,
    Admission,
    Refusal,
    /// It was asked and gave nothing that can be acted on.
    Nothing,
}

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With the gateway's answer; `decided` says that the gateway received a decision.
    Passed { status: u16, decided: bool },
    /// The gateway's answer broke off, as it should.
    BrokeOff,
    /// With the refusal that the order's number says.
    Refused,
    /// With the filter's own 503, and this code.
    Unanswered(String),
    /// The client left.
    Left,
}

/// One order.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    pub ended: Option<Ended>,
    /// How long that took.
    pub took: Duration,
    pub given: Given,
    /// The id of the decision as the client or the gateway received it, where a number does not say it.
    pub decision_id: Option<String>,
    /// The attempt that the server was asked about.
    pub attempt: String,
    /// How often it was asked, batch and alone.
    pub asked: u32,
    /// Voids and captures of the attempt that the server has taken.
    pub voids: u32,
    pub settles: u32,
    pub at_gateway: u32,
    /// The gateway has answered 2xx.
    pub made: bool,
}

/// All orders of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pages: Mutex<Vec<Page>>,
    strange: Mutex<Vec<String>>,
    batches: Mutex<BTreeMap<usize, u64>>,
}

/// At most so many oddities are kept; a run with one has failed.
const STRANGE_MAX: usize = 20;

impl Ledger {
    pub(super) fn new(orders: u64) -> Self {
        let pages = vec![Page::default(); usize::try_from(orders).unwrap_or_default()];
        Self { pages: Mutex::new(pages), ..Self::default() }
    }

    /// Changes an order's page. Nothing where the run has no such order.
    pub(super) fn with<T>(&self, number: u64, change: impl FnOnce(&mut Page) -> T) -> Option<T> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(number).ok().and_then(|number| pages.get_mut(number)).map(change)
    }

    /// Something that must not be.
    pub(super) fn strange(&self, what: String) {
        let mut strange = self.strange.lock().unwrap_or_else(PoisonError::into_inner);
        if strange.len() < STRANGE_MAX {
            strange.push(what);
        }
    }

    pub(super) fn all_strange(&self) -> Vec<String> {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call came with so many questions.
    pub(super) fn called(&self, questions: usize) {
        *self.batches.lock().unwrap_or_else(PoisonError::into_inner).entry(questions).or_default() += 1;
    }

    /// Calls by the number of their questions.
    pub(super) fn batches(&self) -> BTreeMap<usize, u64> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn pages(&self) -> Vec<Page> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u64,
    /// Answered by the gateway, whole or broken off by it.
    pub passed: u64,
    pub refused: u64,
    /// Answered 503 by the filter.
    pub unanswered: u64,
    pub left: u64,
    pub voided: u64,
    /// Never asked about: the client left before, or the time for an answer was over.
    pub unasked: u64,
    /// Taken back although the server was not asked about them.
    pub voided_unasked: u64,
    /// The longest that a client waited for a whole answer.
    pub longest: Duration,
    /// The longest that a client waited for the filter's 503.
    pub longest_unanswered: Duration,
    /// Calls to the server by the number of their questions.
    pub batches: BTreeMap<usize, u64>,
}

impl Tally {
    /// The run in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { requests, passed, refused, unanswered, left, voided, longest, longest_unanswered, .. } = self;
        let calls: u64 = self.batches.values().sum();
        let questions: u64 = self.batches.iter().map(|(size, calls)| *size as u64 * calls).sum();
        let largest = self.batches.last_key_value().map_or(0, |(size, _)| *size);
        format!(
            "{requests} requests: {passed} passed, {refused} refused, {unanswered} unanswered, {left} left, {voided} voided; \
             {questions} questions in {calls} calls, {largest} in the largest; {} ms the longest, {} ms unanswered",
            longest.as_millis(),
            longest_unanswered.as_millis()
        )
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.passed += other.passed;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.left += other.left;
        self.voided += other.voided;
        self.unasked += other.unasked;
        self.voided_unasked += other.voided_unasked;
        self.longest = self.longest.max(other.longest);
        self.longest_unanswered = self.longest_unanswered.max(other.longest_unanswered);
        for (size, calls) in &other.batches {
            *self.batches.entry(*size).or_default() += calls;
        }
    }
}
