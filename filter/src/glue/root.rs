//! The root context: one configuration of the plugin, the checks and follow-ups that are sent under it, their answers, and the
//! tick.
//!
//! The proxy keeps a root for as long as it has streams. A batch holds checks of its own root's streams only, so it gets its answer
//! while a stream waits for it. Follow-ups outlive their root: they are resent from another one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use super::stream::{self, Http};
use super::worker::{Due, Worker, with};
use super::{error, proxy_on_queue_ready, warn};
use crate::abi::{self, HostError};
use crate::batch::{Batch, BatchQueue, PendingCheck};
use crate::config::{CONFIG_BYTES_MAX, Plugin};
use crate::delays::{TICK_MS, Timer};
use crate::follow_up::{Acknowledgement, FollowUp};
use crate::record::{STATE_MESSAGE, STATE_NAME};
use crate::stats::Stat;
use crate::wire;

/// Longest answer of the server to one check that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Most routes whose unknown mode is named in the log.
const WARNED_ROUTES_MAX: usize = 64;
/// gRPC's DEADLINE_EXCEEDED, of a call that has not ended yet.
const LATE: u32 = 4;
/// gRPC's INTERNAL and UNAVAILABLE: what the proxy returns if no server is available, or the connection was lost.
const LOST: [u32; 2] = [13, 14];

/// What the SDK holds of a root.
pub(super) struct RootContext {
    root: Rc<Root>,
    worker: Rc<Worker>,
}

/// A root, shared with its streams.
pub(super) struct Root {
    pub(super) id: u32,
    plugin: RefCell<Option<Arc<Plugin>>>,
    queue: RefCell<BatchQueue>,
    timer: Cell<Timer>,
    /// Routes with an unknown mode that were logged.
    warned_routes: RefCell<BTreeSet<String>>,
    /// The proxy has announced its end, and makes no calls for it any more.
    gone: Cell<bool>,
}

impl Root {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            plugin: RefCell::default(),
            queue: RefCell::default(),
            timer: Cell::default(),
            warned_routes: RefCell::default(),
            gone: Cell::default(),
        }
    }

    /// Whether a route still has to be logged.
    pub(super) fn is_new_route(&self, route: String) -> bool {
        let mut warned = self.warned_routes.try_borrow_mut().ok();
        warned.as_mut().is_some_and(|warned| warned.len() < WARNED_ROUTES_MAX && warned.insert(route))
    }

    pub(super) fn plugin(&self) -> Option<Arc<Plugin>> {
        self.plugin.try_borrow().ok()?.clone()
    }

    fn configure(&self, worker: &Worker, size: usize) -> Result<(), String> {
        if size > CONFIG_BYTES_MAX {
            return Err(format!("it has {size} bytes, at most {CONFIG_BYTES_MAX} are read"));
        }
        let unreadable = |HostError(status)| format!("the proxy does not return it (status {status})");
        let text = abi::buffer(BufferType::PluginConfiguration, size).map_err(unreadable)?.unwrap_or_default();
        let plugin = Plugin { holder: Some(Arc::clone(&worker.holder)), ..Plugin::parse(&text)? };
        worker.start()?;
        let no_tick = |HostError(status)| format!("the proxy cannot set the timer (status {status})");
        abi::set_tick_period(TICK_MS).map_err(no_tick)?;
        let (rules, enforcing) = (plugin.rules.rules().len(), plugin.enforcing());
        worker.metrics.record_enforcing(enforcing);
        if let Err(HostError(status)) = abi::declare_state(STATE_NAME, STATE_MESSAGE) {
            warn(&format!(
                "the proxy cannot declare the filter state (status {status}): the access log shows it encoded"
            ));
        }
        let batch_max = plugin.batch_max;
        abi::log(
            LogLevel::Info,
            &format!("sluice: configured, rules={rules} enforcing={enforcing} batch_max={batch_max}"),
        );
        // No stream of an earlier configuration waits here: the proxy gives every configuration a root of its own.
        worker.abandon(with(&self.queue, |queue| std::mem::replace(queue, BatchQueue::new(batch_max))).end());
        self.plugin.replace(Some(Arc::new(plugin)));
        self.timer.take();
        self.warned_routes.take();
        Ok(())
    }

    /// Sends a stream's check: at once, or in a later call.
    pub(super) fn submit_check(self: &Rc<Self>, worker: &Worker, check: &Arc<PendingCheck>) -> Result<(), HostError> {
        if self.gone.get() {
            return Err(HostError(0));
        }
        if !with(&self.queue, |queue| queue.push_check(Arc::clone(check))) {
            worker.metrics.count(Stat::QueueFull);
            return Err(HostError(0));
        }
        self.wake(worker);
        if check.is_unsent() {
            // The tick need not handle it: the stream does so now.
            check.over();
            return Err(HostError(0));
        }
        if !check.is_sent() {
            let goes_ms = with(&self.queue, |queue| queue.next_send_ms());
            self.schedule_tick(worker, goes_ms.map_or(check.deadline_ms, |goes_ms| goes_ms.min(check.deadline_ms)));
        }
        Ok(())
    }

    /// Makes this root send what waits, from within a stream's callback. It is the SDK's active context afterwards, which has no
    /// effect: nothing is sent from a stream.
    fn wake(&self, worker: &Worker) {
        if !self.gone.get() && !worker.root_active.get() {
            proxy_on_queue_ready(self.id, 0);
        }
    }

    /// The end of a stream's callback.
    pub(super) fn finish_stream(&self, worker: &Worker) {
        if worker.has_outbox() {
            self.wake(worker);
            // Without its root, a follow-up waits for the tick of another one.
            worker.take_outbox().into_iter().for_each(|follow_up| worker.retry(follow_up));
        }
        worker.metrics.flush();
    }

    /// The end of a root's callback: takes the streams' follow-ups, and sends what may be sent.
    fn finish(self: &Rc<Self>, worker: &Worker) {
        let outbox = worker.take_outbox();
        if !outbox.is_empty() {
            for follow_up in outbox {
                if let Some(stat) = follow_up.kind.sent() {
                    worker.metrics.count(stat);
                }
                self.submit_follow_up(worker, FollowUp { tries: 1, ..follow_up });
            }
            self.send(worker);
        }
        worker.metrics.flush();
    }

    /// Queues a follow-up for the next call, or sends it alone if another cluster decided its attempt.
    fn submit_follow_up(self: &Rc<Self>, worker: &Worker, follow_up: FollowUp) {
        let own = self.plugin().is_some_and(|plugin| plugin.cluster == follow_up.cluster);
        if self.gone.get() {
            worker.retry(follow_up);
        } else if own {
            let now_ms = worker.latest_ms();
            let refused = with(&self.queue, |queue| queue.push_follow_up(follow_up, now_ms));
            refused.unwrap_or_else(|follow_up| worker.retry(follow_up));
            if let Some(due_ms) = with(&self.queue, |queue| queue.next_report_ms(now_ms)) {
                self.schedule_tick(worker, due_ms);
            }
        } else {
            let cluster = Arc::clone(&follow_up.cluster);
            let batch = Batch { follow_ups: vec![follow_up], ..Batch::default() };
            self.call(worker, &cluster, batch, true);
        }
    }

    /// Sends what may be sent now.
    fn send(self: &Rc<Self>, worker: &Worker) {
        let Some(plugin) = self.plugin().filter(|_| !self.gone.get()) else { return };
        let now_ms = worker.latest_ms();
        loop {
            let next = with(&self.queue, |queue| queue.next(now_ms));
            self.give_up(worker, next.late);
            if next.batch.is_empty() || !self.call(worker, &plugin.cluster, next.batch, false) {
                return;
            }
        }
    }

    /// Makes one call; `false` if the proxy does not accept it.
    fn call(self: &Rc<Self>, worker: &Worker, cluster: &str, batch: Batch, alone: bool) -> bool {
        let now_ms = worker.latest_ms();
        let timeout_ms = batch.timeout_ms(now_ms);
        let Ok(token) = start(cluster, &batch, timeout_ms) else {
            worker.unsent(batch);
            self.schedule_tick(worker, now_ms);
            return false;
        };
        worker.metrics.record_batch(batch.len());
        with(&self.queue, |queue| queue.sent(token, batch, now_ms, alone));
        true
    }

    /// The server wants to decide it alone, and has not acted on it.
    fn send_alone(self: &Rc<Self>, worker: &Worker, check: Arc<PendingCheck>) {
        check.unsent();
        if check.deadline_ms <= worker.latest_ms() {
            return self.give_up(worker, vec![check]);
        }
        if let Some(plugin) = self.plugin() {
            self.call(worker, &plugin.cluster, Batch { checks: vec![check], ..Batch::default() }, true);
        }
    }

    /// The call was lost: its checks are sent once more, to the next server, each until its own deadline.
    fn resend_lost(self: &Rc<Self>, worker: &Worker, batch: &mut Batch) {
        let Some(plugin) = self.plugin().filter(|_| !self.gone.get()) else { return };
        let checks = batch.take_repeatable(worker.latest_ms());
        if !checks.is_empty() {
            checks.iter().for_each(|_| worker.metrics.count(Stat::CheckRepeated));
            self.call(worker, &plugin.cluster, Batch { checks, ..Batch::default() }, true);
        }
    }

    fn give_up(&self, worker: &Worker, checks: Vec<Arc<PendingCheck>>) {
        if !checks.is_empty() {
            worker.give_up(checks);
            self.schedule_tick(worker, worker.latest_ms());
        }
    }

    /// Makes sure that a tick comes in time.
    pub(super) fn schedule_tick(&self, worker: &Worker, due_ms: u64) {
        let earliest_ms = worker.next_due().map_or(due_ms, |next| next.min(due_ms));
        let mut timer = self.timer.get();
        let period = timer.schedule_tick(worker.latest_ms(), earliest_ms);
        self.timer.set(timer);
        // If the proxy does not set it, the tick that is set already will come, but late.
        if let Some(period_ms) = period {
            let _ = abi::set_tick_period(period_ms);
        }
    }

    fn set_timer(&self, worker: &Worker, now_ms: u64) {
        let (deadline, goes_ms, report_ms) =
            with(&self.queue, |queue| (queue.next_deadline(), queue.next_send_ms(), queue.next_report_ms(now_ms)));
        let mut timer = self.timer.get();
        let period =
            timer.ticked(now_ms, [worker.next_due(), deadline, goes_ms, report_ms].into_iter().flatten().min());
        // A period that cannot be set is tried again by the next stream or tick that needs another one.
        let kept = period.is_some_and(|period_ms| abi::set_tick_period(period_ms).is_err());
        if !kept {
            self.timer.set(timer);
        }
    }

    /// Distributes a call's answer to its streams and follow-ups.
    fn hand_out(self: &Rc<Self>, worker: &Worker, batch: Batch, grpc_status: u32, message: Option<&[u8]>) {
        let whole = wire::Outcome { grpc_status, response: message };
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
                    self.send_alone(worker, check);
                }
                Some(outcome) => stream::answer(worker, &check, outcome),
                None => stream::answer(worker, &check, wire::Outcome { grpc_status, response: None }),
            }
        }
        for follow_up in batch.follow_ups {
            let outcome = outcomes.next().unwrap_or_default();
            if is_batch && outcome.grpc_status == proto::batch::ALONE {
                let cluster = Arc::clone(&follow_up.cluster);
                self.call(worker, &cluster, Batch { follow_ups: vec![follow_up], ..Batch::default() }, true);
                continue;
            }
            let reply = wire::reply(outcome.grpc_status, outcome.response);
            match follow_up.acknowledgement(&reply) {
                Acknowledgement::Done => follow_up.answered(Some(&worker.holder), &reply),
                Acknowledgement::Retry => worker.retry(follow_up),
                Acknowledgement::Rejected(code) => {
                    follow_up.answered(Some(&worker.holder), &reply);
                    worker.refused(&follow_up, code);
                }
            }
        }
    }

    /// Processes the streams that are due.
    fn process_due_streams(self: &Rc<Self>, worker: &Worker, now_ms: u64) {
        let overdue = with(&self.queue, |queue| queue.overdue(now_ms));
        worker.give_up(overdue);
        let due = worker.due(now_ms);
        if due.is_empty() {
            return;
        }
        for (context, what) in due {
            match what {
                Due::Delay => stream::delay_over(worker, context),
                Due::NoAnswer(check) if check.is_sent() => {
                    stream::answer(worker, &check, wire::Outcome { grpc_status: LATE, response: None });
                }
                Due::NoAnswer(check) => stream::not_sent(worker, &check),
            }
        }
        // What follows in this callback is the root's.
        let _ = abi::set_effective_context(self.id);
    }
}

impl RootContext {
    pub(super) fn new(id: u32, worker: Rc<Worker>) -> Self {
        let root = Rc::new(Root::new(id));
        worker.put_root(id);
        Self { root, worker }
    }

    /// One of the root's own callbacks: calls are made from it directly.
    fn during<T>(&self, act: impl FnOnce(&Rc<Root>, &Worker) -> T) -> T {
        self.worker.root_active.set(true);
        let result = act(&self.root, &self.worker);
        self.root.finish(&self.worker);
        self.worker.root_active.set(false);
        result
    }
}

impl Context for RootContext {
    /// The answer to a call, or its failure. Waiting checks are sent before the answer is distributed, so that the server works
    /// meanwhile.
    fn on_grpc_call_response(&mut self, token: u32, grpc_status: u32, size: usize) {
        self.during(|root, worker| {
            let Some(mut batch) = with(&root.queue, |queue| queue.back(token)) else { return };
            let size_max = ANSWER_BYTES_MAX.saturating_mul(batch.len());
            let message = match grpc_status {
                0 => abi::buffer(BufferType::GrpcReceiveBuffer, size.min(size_max)).ok().flatten(),
                _ => None,
            };
            worker.now_ms();
            if LOST.contains(&grpc_status) {
                root.resend_lost(worker, &mut batch);
            }
            root.send(worker);
            root.hand_out(worker, batch, grpc_status, message.as_deref());
        });
    }
}

impl proxy_wasm::traits::RootContext for RootContext {
    fn on_configure(&mut self, size: usize) -> bool {
        self.during(|root, worker| {
            let configured = root.configure(worker, size);
            if let Err(problem) = &configured {
                error(&format!("sluice: plugin configuration is refused: {problem}"));
            }
            configured.is_ok()
        })
    }

    /// Follow-ups of every root wait for their next try in one queue, and the newest root's tick serves it: it outlives the older
    /// ones. Streams are processed by any root's tick, since the one that they belong to may be gone.
    fn on_tick(&mut self) {
        self.during(|root, worker| {
            let now_ms = worker.tick(root.timer.get().period_ms());
            if worker.is_newest(root) {
                for follow_up in worker.retries(now_ms) {
                    worker.metrics.count(follow_up.kind.retried());
                    root.submit_follow_up(worker, follow_up);
                }
                for follow_up in worker.holder.due() {
                    root.submit_follow_up(worker, FollowUp { tries: 1, ..follow_up });
                }
            }
            root.process_due_streams(worker, now_ms);
            // Also what waits for a slow call, or what the proxy did not accept the last time.
            root.send(worker);
            root.set_timer(worker, now_ms);
        });
    }

    /// A stream has a check or a follow-up to send ([`Root::wake`]).
    fn on_queue_ready(&mut self, _queue: u32) {
        self.during(|root, worker| root.send(worker));
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http::new(Rc::clone(&self.worker), Rc::clone(&self.root), context)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Drop for RootContext {
    /// The answers to a root's calls are lost with it.
    fn drop(&mut self) {
        let Self { root, worker } = self;
        root.gone.set(true);
        worker.remove_root(root.id);
        worker.abandon(with(&root.queue, BatchQueue::end));
        worker.metrics.flush();
    }
}

/// One check is sent as the standard call.
fn start(cluster: &str, batch: &Batch, timeout_ms: u32) -> Result<u32, HostError> {
    let mut messages = batch.messages();
    match (messages.next(), messages.next()) {
        (Some(check), None) => abi::grpc_call(cluster, wire::CHECK, check, timeout_ms),
        _ => abi::grpc_call(cluster, wire::BATCH_CHECK, &wire::batch(batch.messages()), timeout_ms),
    }
}
