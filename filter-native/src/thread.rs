//! The module's thread: one for the process. It has the connections, and runs the engine. A panic restarts it: the payments that wait
//! get no answer, and delays and follow-ups are kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use filter::trust::Holder;

use crate::abi::{self, Level};
use crate::client::Clients;
use crate::engine::{Calls, Engine, Message};

/// The thread's name, as `ps` and `top` show it.
const NAME: &str = "sluice";

/// Most messages of streams that wait for the thread. The queues behind it hold a part of that.
pub const BACKLOG_MAX: usize = 16_384;
/// Most of them where another check or delay is sent: room is left for follow-ups, which must not be lost.
const CHECKS_MAX: usize = BACKLOG_MAX / 8 * 7;
/// A thread that has taken nothing for so many milliseconds although something waits is stuck: no further payment waits for it.
pub const STUCK_MS: u64 = 2_000;

/// The way to the thread, and its clock.
pub trait Outlet: Send + Sync {
    /// Milliseconds of a clock that never goes back.
    fn now_ms(&self) -> u64;
    /// The rights of the process.
    fn holder(&self) -> Arc<Holder>;
    /// Passes a message to the thread.
    ///
    /// # Errors
    /// The message where the thread cannot take it: there is none, it is stuck, or too much waits for it.
    fn send(&self, message: Message) -> Result<(), Message>;
}

#[derive(Debug)]
struct Thread {
    clock: Clock,
    holder: Arc<Holder>,
    sender: UnboundedSender<Message>,
    backlog: Arc<Backlog>,
}

/// What streams have sent and the thread has not taken.
#[derive(Debug, Default)]
struct Backlog {
    waiting: AtomicUsize,
    /// When the thread last took something, or the first message began to wait.
    since_ms: AtomicU64,
}

impl Backlog {
    /// Whether one more may wait.
    fn admit(&self, message: &Message, now_ms: u64) -> bool {
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting == 0 {
            self.since_ms.store(now_ms, Ordering::Release);
        }
        let is_stuck = now_ms.saturating_sub(self.since_ms.load(Ordering::Acquire)) >= STUCK_MS;
        let fits = match message {
            Message::Check { .. } | Message::Delay { .. } => waiting < CHECKS_MAX && !is_stuck,
            Message::FollowUps { .. } => waiting < BACKLOG_MAX,
            // Their number is that of what waits already.
            Message::Open { .. } | Message::Close { .. } | Message::NoDelay { .. } | Message::Answer { .. } => true,
            #[cfg(feature = "trap")]
            Message::Panic => true,
        };
        if fits {
            self.waiting.fetch_add(1, Ordering::AcqRel);
        }
        fits
    }

    /// The thread has taken one.
    fn taken(&self, now_ms: u64) {
        self.since_ms.store(now_ms, Ordering::Release);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Outlet for Thread {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn holder(&self) -> Arc<Holder> {
        Arc::clone(&self.holder)
    }

    fn send(&self, message: Message) -> Result<(), Message> {
        if !self.backlog.admit(&message, self.now_ms()) {
            return Err(message);
        }
        self.sender.send(message).map_err(|SendError(message)| message)
    }
}

type Started = Result<Arc<dyn Outlet>, String>;

static OUTLET: OnceLock<Started> = OnceLock::new();
static TEST: RwLock<Option<fn() -> Arc<dyn Outlet>>> = RwLock::new(None);

/// The way to the thread, which is started when this is first called.
///
/// # Errors
/// When the system gives no thread.
pub fn outlet() -> Started {
    if let Some(outlet) = *TEST.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(outlet());
    }
    OUTLET.get_or_init(|| start().map_err(|error| format!("the filter's thread cannot be started: {error}"))).clone()
}

/// Has configurations use the outlets of a test's host instead.
pub fn replace(outlet: fn() -> Arc<dyn Outlet>) {
    *TEST.write().unwrap_or_else(PoisonError::into_inner) = Some(outlet);
}

fn start() -> std::io::Result<Arc<dyn Outlet>> {
    let clock = Clock(Instant::now());
    let (sender, receiver) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = Clients::new(sender.clone());
    let inbox = Inbox { clock, receiver, backlog: Arc::default() };
    let (backlog, holder) = (Arc::clone(&inbox.backlog), Arc::new(Holder::new(move || Some(clock.now_ms()))));
    let engine = Engine::new(Arc::clone(&holder));
    std::thread::Builder::new().name(NAME.to_owned()).spawn(move || run(&runtime, inbox, engine, clients))?;
    Ok(Arc::new(Thread { clock, holder, sender, backlog }))
}

/// The thread's end of the way.
#[derive(Debug)]
struct Inbox {
    clock: Clock,
    receiver: UnboundedReceiver<Message>,
    backlog: Arc<Backlog>,
}

impl Inbox {
    fn took(&self, message: &Message) {
        // Answers come from the thread itself.
        if !matches!(message, Message::Answer { .. }) {
            self.backlog.taken(self.clock.now_ms());
        }
    }
}

fn run(runtime: &Runtime, mut inbox: Inbox, mut engine: Engine, mut clients: Clients) {
    abi::run_in_batches();
    loop {
        let served = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(serve(&mut inbox, &mut engine, &mut clients));
        }));
        if served.is_ok() {
            return;
        }
        abi::log(Level::Error, "sluice: the filter's thread is restarted: payments that wait get no answer");
        if catch_unwind(AssertUnwindSafe(|| engine.recover())).is_err() {
            engine = engine.emptied();
        }
    }
}

/// Until no sender is left, which is never.
async fn serve(inbox: &mut Inbox, engine: &mut Engine, clients: &mut Clients) {
    let clock = inbox.clock;
    // Setting a timer costs more than waking once too often, so one that is early enough stays.
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut set_ms = 0;
    loop {
        let due_ms = engine.next_due_ms();
        if let Some(due_ms) = due_ms
            && (due_ms < set_ms || timer.is_elapsed())
        {
            let wait = Duration::from_millis(due_ms.saturating_sub(clock.now_ms()));
            timer.as_mut().reset(Instant::now().checked_add(wait).unwrap_or_else(Instant::now).into());
            set_ms = due_ms;
        }
        let mut next = tokio::select! {
            biased;
            message = inbox.receiver.recv() => match message {
                None => return,
                message => message,
            },
            () = timer.as_mut(), if due_ms.is_some() => None,
        };
        let now_ms = clock.now_ms();
        while let Some(message) = next {
            inbox.took(&message);
            engine.receive(message, now_ms, clients);
            next = inbox.receiver.try_recv().ok();
        }
        engine.turn(now_ms, clients);
    }
}

impl Calls for Clients {
    fn call(&mut self, call: crate::engine::Call) {
        self.start(call);
    }

    fn servers(&mut self, cluster: &Arc<str>, servers: Vec<crate::client::Server>) {
        self.open(cluster, servers);
    }

    fn end_unused(&mut self) {
        self.end_unused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_thread_gets_no_more_payments() {
        let backlog = Backlog::default();
        let report = Message::FollowUps { config: 1, follow_ups: Vec::new() };
        let check = || {
            let link = crate::link::Link::detached(1);
            Message::Check { config: 1, check: crate::link::Check::new(link, Vec::new(), 0, 1) }
        };
        // However long the thread has slept, the first message finds it awake.
        assert!(backlog.admit(&check(), 100_000));
        assert!(backlog.admit(&check(), 100_000 + STUCK_MS - 1));
        assert!(!backlog.admit(&check(), 100_000 + STUCK_MS));
        assert!(backlog.admit(&report, 100_000 + STUCK_MS), "a report is lost only if too much waits");
        backlog.taken(100_000 + STUCK_MS);
        assert!(backlog.admit(&check(), 100_000 + STUCK_MS));
        backlog.waiting.store(CHECKS_MAX, Ordering::Relaxed);
        assert!(!backlog.admit(&check(), 100_000 + STUCK_MS));
        assert!(backlog.admit(&report, 100_000 + STUCK_MS), "room is left for reports");
        backlog.waiting.store(BACKLOG_MAX, Ordering::Relaxed);
        assert!(!backlog.admit(&report, 100_000 + STUCK_MS));
        assert!(backlog.admit(&Message::Close { config: 1 }, 100_000 + STUCK_MS));
    }
}
