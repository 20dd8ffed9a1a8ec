//! The module's thread: one for the process. It has the connections, and runs the engine. A panic restarts it: the payments that wait
//! get no answer, and delays and follow-ups are kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use crate::abi::{self, Level};
use crate::client::Clients;
use crate::engine::{Calls, Engine, Message};

/// The thread's name, as `ps` and `top` show it.
const NAME: &str = "sluice";

/// The way to the thread, and its clock.
pub trait Outlet: Send + Sync {
    /// Milliseconds of a clock that never goes back.
    fn now_ms(&self) -> u64;
    /// `false` if there is no thread.
    fn send(&self, message: Message) -> bool;
}

#[derive(Debug)]
struct Thread {
    clock: Clock,
    sender: UnboundedSender<Message>,
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

    fn send(&self, message: Message) -> bool {
        self.sender.send(message).is_ok()
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
    std::thread::Builder::new().name(NAME.to_owned()).spawn(move || run(&runtime, clock, receiver, clients))?;
    Ok(Arc::new(Thread { clock, sender }))
}

fn run(runtime: &Runtime, clock: Clock, mut receiver: UnboundedReceiver<Message>, mut clients: Clients) {
    abi::run_in_batches();
    let mut engine = Engine::default();
    loop {
        let served = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(serve(clock, &mut receiver, &mut engine, &mut clients));
        }));
        if served.is_ok() {
            return;
        }
        abi::log(Level::Error, "sluice: the filter's thread is restarted: payments that wait get no answer");
        if catch_unwind(AssertUnwindSafe(|| engine.recover())).is_err() {
            engine = Engine::default();
        }
    }
}

/// Until no sender is left, which is never.
async fn serve(clock: Clock, receiver: &mut UnboundedReceiver<Message>, engine: &mut Engine, clients: &mut Clients) {
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
            message = receiver.recv() => match message {
                None => return,
                message => message,
            },
            () = timer.as_mut(), if due_ms.is_some() => None,
        };
        let now_ms = clock.now_ms();
        while let Some(message) = next {
            engine.receive(message, now_ms, clients);
            next = receiver.try_recv().ok();
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
}
