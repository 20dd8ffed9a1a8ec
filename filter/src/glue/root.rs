//! The root context: one configuration of the plugin, the questions and follow-ups that go out under it, their answers, and the
//! tick.
//!
//! The proxy keeps a root for as long as it has streams, so a batch, which holds questions of its own root's streams only, is
//! never without its answer while somebody waits for it. Follow-ups outlive their root: they are sent again from another one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use super::stream::{self, Http};
use super::worker::{Due, Worker, with};
use super::{error, proxy_on_queue_ready, warn};
use crate::abi::{self, HostError};
use crate::batch::{Batch, Lane, Question};
use crate::config::{CONFIG_BYTES_MAX, Plugin};
use crate::delays::{TICK_MS, Timer};
use crate::follow_up::{FollowUp, Heard, heard};
use crate::record::{STATE_MESSAGE, STATE_NAME};
use crate::stats::Stat;
use crate::wire;

/// Longest answer of the server to one check that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Most routes whose unknown mode is named in the log.
const WARNED_ROUTES_MAX: usize = 64;
/// gRPC's DEADLINE_EXCEEDED, of a call that is not over yet.
const LATE: u32 = 4;
/// gRPC's INTERNAL and UNAVAILABLE: what the proxy says where no server was there, or its connection was lost.
const LOST: [u32; 2] = [13, 14];

/// What the SDK holds of a root.
pub(super) struct RootContext {
    root: Rc<Root>,
    worker: Rc<Worker>,
}

/// A root, shared with its streams.
pub(super) struct Root {
    pub(super) id: u32,
    plugin: RefCell<Option<Rc<Plugin>>>,
    lane: Cell<Lane>,
    timer: Cell<Timer>,
    /// Routes of which the log has said that they name an unknown mode.
    warned_routes: RefCell<BTreeSet<String>>,
    /// The proxy has told of its end, and makes no calls for it any more.
    gone: Cell<bool>,
}

impl Root {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            plugin: RefCell::default(),
            lane: Cell::default(),
            timer: Cell::default(),
            warned_routes: RefCell::default(),
            gone: Cell::default(),
        }
    }

    /// Whether a route is one more of those that the log has to name.
    pub(super) fn is_new_route(&self, route: String) -> bool {
        let mut warned = self.warned_routes.try_borrow_mut().ok();
        warned.as_mut().is_some_and(|warned| warned.len() < WARNED_ROUTES_MAX && warned.insert(route))
    }

    pub(super) fn plugin(&self) -> Option<Rc<Plugin>> {
        self.plugin.try_borrow().ok()?.clone()
    }

    fn configure(&self, worker: &Worker, size: usize) -> Result<(), String> {
        if size > CONFIG_BYTES_MAX {
            return Err(format!("it has {size} bytes, at most {CONFIG_BYTES_MAX} are read"));
        }
        let unreadable = |HostError(status)| format!("the proxy does not hand it out (status {status})");
        let text = abi::buffer(BufferType::PluginConfiguration, size).map_err(unreadable)?.unwrap_or_default();
        let plugin = Plugin::parse(&text)?;
        worker.start()?;
        let no_tick = |HostError(status)| format!("the proxy sets no timer (status {status})");
        abi::set_tick_period(TICK_MS).map_err(no_tick)?;
        let (rules, enforcing) = (plugin.rules.rules().len(), plugin.enforcing());
        worker.figures.record_enforcing(enforcing);
        if let Err(HostError(status)) = abi::declare_state(STATE_NAME, STATE_MESSAGE) {
            warn(&format!("the proxy declares no filter state (status {status}): the access log shows it encoded"));
        }
        let batch_max = plugin.batch_max;
        abi::log(
            LogLevel::Info,
            &format!("sluice: configured, rules={rules} enforcing={enforcing} batch_max={batch_max}"),
        );
        // Streams of the configuration before it are not kept waiting: the proxy gives every configuration a root of its own.
        worker.abandon(self.lane.replace(Lane::new(batch_max)).end());
        self.plugin.replace(Some(Rc::new(plugin)));
        self.timer.take();
        self.warned_routes.take();
        Ok(())
    }

    /// Asks a stream's question: at once, or in one of the calls to come.
    pub(super) fn ask(self: &Rc<Self>, worker: &Worker, question: &Rc<Question>) -> Result<(), HostError> {
        if self.gone.get() {
            return Err(HostError(0));
        }
        if !with(&self.lane, |lane| lane.ask(Rc::clone(question))) {
            worker.figures.count(Stat::QueueFull);
            return Err(HostError(0));
        }
        self.wake(worker);
        if question.is_unsent() {
            // The tick need not see to it: the stream does so now.
            question.over();
            return Err(HostError(0));
        }
        if !question.is_sent() {
            let goes_ms = with(&self.lane, |lane| lane.next_send_ms());
            self.hasten(worker, goes_ms.map_or(question.deadline_ms, |goes_ms| goes_ms.min(question.deadline_ms)));
        }
        Ok(())
    }

    /// Has this root send what waits, from within a stream's callback. It is the SDK's active context afterwards, which is of no
    /// consequence: nothing is sent from a stream.
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
        worker.figures.flush();
    }

    /// The end of a root's callback: takes what streams have to tell, and sends what may go out.
    fn finish(self: &Rc<Self>, worker: &Worker) {
        let outbox = worker.take_outbox();
        if !outbox.is_empty() {
            for follow_up in outbox {
                worker.figures.count(follow_up.kind.sent());
                self.tell(worker, FollowUp { tries: 1, ..follow_up });
            }
            self.send(worker);
        }
        worker.figures.flush();
    }

    /// Has a follow-up wait for the next call, or sends it alone where another cluster decided its attempt.
    fn tell(self: &Rc<Self>, worker: &Worker, follow_up: FollowUp) {
        let own = self.plugin().is_some_and(|plugin| plugin.cluster == follow_up.cluster);
        if self.gone.get() {
            worker.retry(follow_up);
        } else if own {
            let refused = with(&self.lane, |lane| lane.tell(follow_up));
            refused.unwrap_or_else(|follow_up| worker.retry(follow_up));
        } else {
            let cluster = Rc::clone(&follow_up.cluster);
            let batch = Batch { follow_ups: vec![follow_up], ..Batch::default() };
            self.call(worker, &cluster, batch, true);
        }
    }

    /// Sends what may go out now.
    fn send(self: &Rc<Self>, worker: &Worker) {
        let Some(plugin) = self.plugin().filter(|_| !self.gone.get()) else { return };
        let now_ms = worker.latest_ms();
        loop {
            let next = with(&self.lane, |lane| lane.next(now_ms));
            self.give_up(worker, next.late);
            if next.batch.is_empty() || !self.call(worker, &plugin.cluster, next.batch, false) {
                return;
            }
        }
    }

    /// Makes one call; `false` where the proxy does not take it.
    fn call(self: &Rc<Self>, worker: &Worker, cluster: &str, batch: Batch, alone: bool) -> bool {
        let now_ms = worker.latest_ms();
        let timeout_ms = batch.timeout_ms(now_ms);
        let Ok(token) = start(cluster, &batch, timeout_ms) else {
            worker.unsent(batch);
            self.hasten(worker, now_ms);
            return false;
        };
        worker.figures.record_batch(batch.len());
        with(&self.lane, |lane| lane.sent(token, batch, now_ms, alone));
        true
    }

    /// The server wants to decide it alone, and has done nothing about it.
    fn ask_alone(self: &Rc<Self>, worker: &Worker, question: Rc<Question>) {
        question.unsent();
        if question.deadline_ms <= worker.latest_ms() {
            return self.give_up(worker, vec![question]);
        }
        if let Some(plugin) = self.plugin() {
            self.call(worker, &plugin.cluster, Batch { questions: vec![question], ..Batch::default() }, true);
        }
    }

    /// The call was lost: its payments are asked for once more, of the next server, each until its own deadline.
    fn ask_again(self: &Rc<Self>, worker: &Worker, batch: &mut Batch) {
        let Some(plugin) = self.plugin().filter(|_| !self.gone.get()) else { return };
        let questions = batch.take_repeatable(worker.latest_ms());
        if !questions.is_empty() {
            questions.iter().for_each(|_| worker.figures.count(Stat::AskedAgain));
            self.call(worker, &plugin.cluster, Batch { questions, ..Batch::default() }, true);
        }
    }

    fn give_up(&self, worker: &Worker, questions: Vec<Rc<Question>>) {
        if !questions.is_empty() {
            worker.give_up(questions);
            self.hasten(worker, worker.latest_ms());
        }
    }

    /// Sees to it that a tick comes in time.
    pub(super) fn hasten(&self, worker: &Worker, due_ms: u64) {
        let earliest_ms = worker.next_due().map_or(due_ms, |next| next.min(due_ms));
        let mut timer = self.timer.get();
        let period = timer.hasten(worker.latest_ms(), earliest_ms);
        self.timer.set(timer);
        // Where the proxy does not set it, the tick that is set already will come, if late.
        if let Some(period_ms) = period {
            let _ = abi::set_tick_period(period_ms);
        }
    }

    fn set_timer(&self, worker: &Worker, now_ms: u64) {
        let (deadline, goes_ms) = with(&self.lane, |lane| (lane.next_deadline(), lane.next_send_ms()));
        let mut timer = self.timer.get();
        let period = timer.ticked(now_ms, [worker.next_due(), deadline, goes_ms].into_iter().flatten().min());
        // A period that cannot be set is tried again with the next stream or tick that asks for another one.
        let kept = period.is_some_and(|period_ms| abi::set_tick_period(period_ms).is_err());
        if !kept {
            self.timer.set(timer);
        }
    }

    /// Hands a call's answer out: to each stream its own, and to each follow-up.
    fn hand_out(self: &Rc<Self>, worker: &Worker, batch: Batch, grpc_status: u32, message: Option<&[u8]>) {
        let whole = wire::Outcome { grpc_status, response: message };
        let mut outcomes = match (batch.len(), message) {
            (1, _) => vec![whole],
            (count, Some(message)) => wire::results(message, count).unwrap_or_default(),
            (_, None) => Vec::new(),
        }
        .into_iter();
        let is_batch = batch.len() > 1;
        for question in batch.questions {
            match outcomes.next() {
                Some(outcome) if is_batch && outcome.grpc_status == proto::batch::ALONE && !question.is_over() => {
                    self.ask_alone(worker, question);
                }
                Some(outcome) => stream::answer(worker, &question, outcome),
                None => stream::answer(worker, &question, wire::Outcome { grpc_status, response: None }),
            }
        }
        for follow_up in batch.follow_ups {
            let outcome = outcomes.next().unwrap_or_default();
            if is_batch && outcome.grpc_status == proto::batch::ALONE {
                let cluster = Rc::clone(&follow_up.cluster);
                self.call(worker, &cluster, Batch { follow_ups: vec![follow_up], ..Batch::default() }, true);
                continue;
            }
            match heard(follow_up.kind, &wire::reply(outcome.grpc_status, outcome.response)) {
                Heard::Yes => {}
                Heard::No => worker.retry(follow_up),
                Heard::Never(code) => worker.refused(&follow_up, code),
            }
        }
    }

    /// Sees to the streams whose time has come.
    fn see_to_streams(self: &Rc<Self>, worker: &Worker, now_ms: u64) {
        let overdue = with(&self.lane, |lane| lane.overdue(now_ms));
        worker.give_up(overdue);
        let due = worker.due(now_ms);
        if due.is_empty() {
            return;
        }
        for (context, what) in due {
            match what {
                Due::Delay => stream::delay_over(worker, context),
                Due::NoAnswer(question) if question.is_sent() => {
                    stream::answer(worker, &question, wire::Outcome { grpc_status: LATE, response: None });
                }
                Due::NoAnswer(question) => stream::not_asked(worker, &question),
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

    /// One of the root's own callbacks: calls go out from it directly.
    fn during<T>(&self, act: impl FnOnce(&Rc<Root>, &Worker) -> T) -> T {
        self.worker.root_active.set(true);
        let result = act(&self.root, &self.worker);
        self.root.finish(&self.worker);
        self.worker.root_active.set(false);
        result
    }
}

impl Context for RootContext {
    /// The answer to a call, or its failure. What waits goes out before the answer is handed out, so that the server works
    /// meanwhile.
    fn on_grpc_call_response(&mut self, token: u32, grpc_status: u32, size: usize) {
        self.during(|root, worker| {
            let Some(mut batch) = with(&root.lane, |lane| lane.back(token)) else { return };
            let size_max = ANSWER_BYTES_MAX.saturating_mul(batch.len());
            let message = match grpc_status {
                0 => abi::buffer(BufferType::GrpcReceiveBuffer, size.min(size_max)).ok().flatten(),
                _ => None,
            };
            worker.now_ms();
            if LOST.contains(&grpc_status) {
                root.ask_again(worker, &mut batch);
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
                error(&format!("sluice: the plugin configuration is refused: {problem}"));
            }
            configured.is_ok()
        })
    }

    /// Follow-ups of every root wait for their next try in one queue, and the newest root's tick serves it: it outlives the older
    /// ones. Streams are seen to by any root's tick, since the one that they belong to may be gone.
    fn on_tick(&mut self) {
        self.during(|root, worker| {
            let now_ms = worker.tick(root.timer.get().period_ms());
            if worker.is_newest(root) {
                for follow_up in worker.retries(now_ms) {
                    worker.figures.count(follow_up.kind.retried());
                    root.tell(worker, follow_up);
                }
            }
            root.see_to_streams(worker, now_ms);
            // Also what waits for a call that is slow, or that the proxy did not take the last time.
            root.send(worker);
            root.set_timer(worker, now_ms);
        });
    }

    /// A stream has something to ask or to tell ([`Root::wake`]).
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
    /// With a root go the answers to its calls.
    fn drop(&mut self) {
        let Self { root, worker } = self;
        root.gone.set(true);
        worker.remove_root(root.id);
        worker.abandon(with(&root.lane, Lane::end));
        worker.figures.flush();
    }
}

/// One check goes as the standard call.
fn start(cluster: &str, batch: &Batch, timeout_ms: u32) -> Result<u32, HostError> {
    let mut messages = batch.messages();
    match (messages.next(), messages.next()) {
        (Some(check), None) => abi::grpc_call(cluster, wire::CHECK, check, timeout_ms),
        _ => abi::grpc_call(cluster, wire::BATCH_CHECK, &wire::batch(batch.messages()), timeout_ms),
    }
}
