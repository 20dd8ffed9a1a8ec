//! The checks and follow-ups of one configuration on their way to the server, and the answers on their way back: what is sent and
//! when, what a lost call is repeated for, and which answer belongs to which stream. Pure: the host makes the calls ([`Carrier`]).

use std::sync::Arc;

use quota::Code;

use crate::batch::{Batch, BatchQueue, PendingCheck};
use crate::follow_up::{Acknowledgement, FollowUp};
use crate::stats::Stat;
use crate::trust::Holder;
use crate::wire::{self, Outcome};

/// Longest answer of the server to one check that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// gRPC's DEADLINE_EXCEEDED, of a call that has not ended yet.
pub const LATE: u32 = 4;
/// gRPC's INTERNAL and UNAVAILABLE: what a host returns if no server is available, or the connection was lost.
const LOST: [u32; 2] = [13, 14];

/// What the exchange needs of its host.
pub trait Carrier<S> {
    /// Milliseconds of a clock that never goes back.
    fn now_ms(&self) -> u64;
    /// Starts a call and returns its token; `None` if it is not accepted, and nothing was sent.
    fn call(&mut self, cluster: &Arc<str>, batch: &Batch<S>, timeout_ms: u32) -> Option<u32>;
    /// Passes a stream the answer to its check.
    fn answer(&mut self, check: &Arc<PendingCheck<S>>, outcome: Outcome<'_>);
    /// These get no answer any more: the rule's `on_error` is applied to those that still wait.
    fn give_up(&mut self, checks: Vec<Arc<PendingCheck<S>>>);
    /// The rights that payments are admitted from.
    fn holder(&self) -> Option<&Holder>;
    /// It has to be sent again later.
    fn retry(&mut self, follow_up: FollowUp);
    /// The server will not accept it; the code is the reason, if there is one.
    fn rejected(&mut self, follow_up: &FollowUp, code: Option<Code>);
    fn count(&mut self, stat: Stat);
}

/// The exchange under one configuration.
#[derive(Debug)]
pub struct Exchange<S> {
    cluster: Arc<str>,
    batch_max: usize,
    queue: BatchQueue<S>,
}

impl<S> Exchange<S> {
    #[must_use]
    pub fn new(cluster: Arc<str>, batch_max: usize) -> Self {
        Self { cluster, batch_max, queue: BatchQueue::new(batch_max) }
    }

    /// An empty one in its place.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self::new(Arc::clone(&self.cluster), self.batch_max)
    }

    /// Queues a check; [`Exchange::send`] sends it. `false` if too many wait.
    #[must_use]
    pub fn push_check(&mut self, host: &mut impl Carrier<S>, check: &Arc<PendingCheck<S>>) -> bool {
        let fits = self.queue.push_check(Arc::clone(check));
        if !fits {
            host.count(Stat::QueueFull);
        }
        fits
    }

    /// Queues a follow-up for the next call, or sends it alone if another cluster decided its attempt.
    pub fn push_follow_up(&mut self, host: &mut impl Carrier<S>, follow_up: FollowUp) {
        if follow_up.cluster == self.cluster {
            let now_ms = host.now_ms();
            self.queue.push_follow_up(follow_up, now_ms).unwrap_or_else(|follow_up| host.retry(follow_up));
        } else {
            self.send_follow_up_alone(host, follow_up);
        }
    }

    /// Sends what may be sent now.
    pub fn send(&mut self, host: &mut impl Carrier<S>) {
        loop {
            let next = self.queue.next(host.now_ms());
            if !next.late.is_empty() {
                host.give_up(next.late);
            }
            let cluster = Arc::clone(&self.cluster);
            if next.batch.is_empty() || !self.call(host, &cluster, next.batch, false) {
                return;
            }
        }
    }

    /// Makes one call; `false` if the host does not accept it. Checks that their streams have given up are left out.
    fn call(&mut self, host: &mut impl Carrier<S>, cluster: &Arc<str>, mut batch: Batch<S>, alone: bool) -> bool {
        batch.checks.retain(|check| check.send());
        if batch.is_empty() {
            return true;
        }
        let now_ms = host.now_ms();
        if let Some(token) = host.call(cluster, &batch, batch.timeout_ms(now_ms)) {
            self.queue.sent(token, batch, now_ms, alone);
            return true;
        }
        for check in &batch.checks {
            check.unsent();
        }
        abandon(host, batch);
        false
    }

    /// A call has ended. Waiting checks are sent before its answer is distributed, so that the server works meanwhile.
    pub fn answered(&mut self, host: &mut impl Carrier<S>, token: u32, grpc_status: u32, message: Option<&[u8]>) {
        let Some(mut batch) = self.queue.back(token) else { return };
        if LOST.contains(&grpc_status) {
            self.resend_lost(host, &mut batch);
        }
        self.send(host);
        self.hand_out(host, batch, grpc_status, message);
    }

    /// Most bytes that are read of the answer to a call of so many checks and follow-ups.
    #[must_use]
    pub fn answer_bytes_max(count: usize) -> usize {
        ANSWER_BYTES_MAX.saturating_mul(count)
    }

    /// The call was lost: its checks are sent once more, to the next server, each until its own deadline.
    fn resend_lost(&mut self, host: &mut impl Carrier<S>, batch: &mut Batch<S>) {
        let checks = batch.take_repeatable(host.now_ms());
        if !checks.is_empty() {
            checks.iter().for_each(|_| host.count(Stat::CheckRepeated));
            let cluster = Arc::clone(&self.cluster);
            self.call(host, &cluster, Batch { checks, ..Batch::default() }, true);
        }
    }

    /// Distributes a call's answer to its streams and follow-ups.
    fn hand_out(&mut self, host: &mut impl Carrier<S>, batch: Batch<S>, grpc_status: u32, message: Option<&[u8]>) {
        let whole = Outcome { grpc_status, response: message };
        let mut outcomes = match (batch.len(), message) {
            (1, _) => vec![whole],
            (count, Some(message)) => wire::results(message, count).unwrap_or_default(),
            (_, None) => Vec::new(),
        }
        .into_iter();
        let is_batch = batch.len() > 1;
        for check in batch.checks {
            match outcomes.next() {
                Some(outcome) if is_batch && outcome.grpc_status == proto::batch::ALONE && !check.is_over() => {
                    self.send_alone(host, check);
                }
                Some(outcome) => host.answer(&check, outcome),
                None => host.answer(&check, Outcome { grpc_status, response: None }),
            }
        }
        for follow_up in batch.follow_ups {
            let outcome = outcomes.next().unwrap_or_default();
            if is_batch && outcome.grpc_status == proto::batch::ALONE {
                self.send_follow_up_alone(host, follow_up);
                continue;
            }
            let reply = wire::reply(outcome.grpc_status, outcome.response);
            match follow_up.acknowledgement(&reply) {
                Acknowledgement::Done => follow_up.answered(host.holder(), &reply),
                Acknowledgement::Retry => host.retry(follow_up),
                Acknowledgement::Rejected(code) => {
                    follow_up.answered(host.holder(), &reply);
                    host.rejected(&follow_up, code);
                }
            }
        }
    }

    /// The server wants to decide it alone, and has not acted on it.
    fn send_alone(&mut self, host: &mut impl Carrier<S>, check: Arc<PendingCheck<S>>) {
        check.unsent();
        if check.deadline_ms <= host.now_ms() {
            return host.give_up(vec![check]);
        }
        let cluster = Arc::clone(&self.cluster);
        self.call(host, &cluster, Batch { checks: vec![check], ..Batch::default() }, true);
    }

    fn send_follow_up_alone(&mut self, host: &mut impl Carrier<S>, follow_up: FollowUp) {
        let cluster = Arc::clone(&follow_up.cluster);
        self.call(host, &cluster, Batch { follow_ups: vec![follow_up], ..Batch::default() }, true);
    }

    /// Gives up what waits or is in flight beyond its deadline.
    pub fn expire(&mut self, host: &mut impl Carrier<S>) {
        let overdue = self.queue.overdue(host.now_ms());
        if !overdue.is_empty() {
            host.give_up(overdue);
        }
    }

    /// When [`Exchange::send`] or [`Exchange::expire`] has something to do if no call returns before.
    #[must_use]
    pub fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        [self.queue.next_deadline(), self.queue.next_send_ms(), self.queue.next_report_ms(now_ms)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether no follow-up waits to be sent.
    #[must_use]
    pub fn has_no_follow_ups(&self) -> bool {
        self.queue.has_no_follow_ups()
    }

    /// The configuration is gone, and with it every answer.
    pub fn end(&mut self, host: &mut impl Carrier<S>) {
        let batch = self.queue.end();
        abandon(host, batch);
    }
}

/// It gets no answer any more. Checks that the server may have acted on keep their state.
fn abandon<S>(host: &mut impl Carrier<S>, batch: Batch<S>) {
    for check in batch.checks.iter().filter(|check| !check.is_sent()) {
        check.unsent();
    }
    if !batch.checks.is_empty() {
        host.give_up(batch.checks);
    }
    for follow_up in batch.follow_ups {
        host.retry(follow_up);
    }
}
