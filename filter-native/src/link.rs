//! What a stream on its worker and the module's thread share: the way back to the worker, and what waits there.
//!
//! The scheduler is used and dropped under one lock, and the stream drops it at its end: the thread cannot reach a worker that is
//! gone.

use std::sync::{Arc, Mutex, PoisonError};

use filter::batch::PendingCheck;
use filter::machine::NotSentReason;

use crate::abi::Scheduler;

/// The check of a stream.
pub type Check = PendingCheck<Arc<Link>>;

/// What the thread has for a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The server's answer, or the call's failure. `batch`: how many were in the call, once for each call.
    Reply { grpc_status: u32, message: Option<Vec<u8>>, check_ms: u64, batch: Option<usize> },
    /// The check was never sent.
    NotSent(NotSentReason),
    /// The delay is over.
    DelayOver,
    /// Too many are delayed already.
    NotDelayed,
}

/// One stream's place on both sides.
#[derive(Debug)]
pub struct Link {
    /// Differs from that of every other stream for a long time.
    pub number: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    scheduler: Option<Scheduler>,
    incoming: Vec<Incoming>,
}

impl Link {
    #[must_use]
    pub fn new(number: u32, scheduler: Scheduler) -> Arc<Self> {
        Arc::new(Self { number, state: Mutex::new(State { scheduler: Some(scheduler), incoming: Vec::new() }) })
    }

    /// One whose stream has ended.
    #[cfg(test)]
    pub(crate) fn detached(number: u32) -> Arc<Self> {
        Arc::new(Self { number, state: Mutex::new(State { scheduler: None, incoming: Vec::new() }) })
    }

    /// From the thread: passes something to the stream. `false` if it has ended.
    pub fn send(&self, incoming: Incoming) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { scheduler: Some(scheduler), incoming: waiting } = &mut *state else { return false };
        waiting.push(incoming);
        if waiting.len() == 1 {
            scheduler.commit();
        }
        true
    }

    /// From the worker: what has come.
    pub fn receive(&self) -> Vec<Incoming> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).incoming)
    }

    /// From the worker: the stream has ended.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.scheduler = None;
        state.incoming.clear();
    }
}
