//! The root context: one configuration of the plugin, the follow-ups that went out under it, and the tick.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use super::http::{Http, Shared};
use super::worker::Worker;
use super::{answer, error};
use crate::abi::{self, HostError};
use crate::config::{CONFIG_BYTES_MAX, Plugin};
use crate::delays::{TICK_MS, Timer};
use crate::follow_up::{FollowUp, Heard, TIMEOUT_MS, heard};
use crate::wire;

pub(super) struct Root {
    shared: Rc<Shared>,
    plugin: Option<Rc<Plugin>>,
    /// Follow-ups whose answers are awaited, by their tokens.
    sent: BTreeMap<u32, FollowUp>,
}

impl Root {
    pub(super) fn new(id: u32, worker: Rc<Worker>) -> Self {
        worker.root_created(id);
        Self { shared: shared(id, worker), plugin: None, sent: BTreeMap::new() }
    }

    fn worker(&self) -> &Worker {
        &self.shared.worker
    }

    fn configure(&mut self, size: usize) -> Result<(), String> {
        if size > CONFIG_BYTES_MAX {
            return Err(format!("it has {size} bytes, at most {CONFIG_BYTES_MAX} are read"));
        }
        let unreadable = |HostError(status)| format!("the proxy does not hand it out (status {status})");
        let text = abi::buffer(BufferType::PluginConfiguration, size).map_err(unreadable)?.unwrap_or_default();
        let plugin = Plugin::parse(&text)?;
        self.worker().start()?;
        let no_tick = |HostError(status)| format!("the proxy sets no timer (status {status})");
        abi::set_tick_period(TICK_MS).map_err(no_tick)?;
        let (rules, enforcing) = (plugin.rules.rules().len(), plugin.enforcing());
        self.worker().record_enforcing(enforcing);
        abi::log(LogLevel::Info, &format!("sluice: configured, rules={rules} enforcing={enforcing}"));
        self.plugin = Some(Rc::new(plugin));
        // Streams of the configuration before it keep what they share.
        self.shared = shared(self.shared.id, Rc::clone(&self.shared.worker));
        Ok(())
    }

    /// The SDK holds this root active: the answer will come here.
    fn send(&mut self, follow_up: FollowUp) {
        match abi::grpc_call(&follow_up.cluster, &follow_up.message, TIMEOUT_MS) {
            Ok(token) => {
                self.sent.insert(token, follow_up);
            }
            Err(HostError(_)) => self.worker().retry(follow_up),
        }
    }

    /// Sends what streams have put into the outbox.
    fn send_outbox(&mut self) {
        for follow_up in self.worker().take_outbox() {
            self.worker().count(follow_up.kind.sent());
            self.send(FollowUp { tries: 1, ..follow_up });
        }
    }

    /// Lets the streams go on whose time has come.
    fn resume(&mut self, now_ms: u64) {
        let due = self.worker().due_streams(now_ms);
        if due.is_empty() {
            return;
        }
        for (context, life) in due {
            let Some(stream) = life.upgrade() else { continue };
            match (abi::set_effective_context(context), stream.try_borrow_mut()) {
                (Ok(()), Ok(mut stream)) => stream.delay_over(),
                // The proxy does not let us at the stream now. While it is there, it will be tried again.
                (Err(HostError(_)), _) | (_, Err(_)) => {
                    self.worker().hold_back(now_ms.saturating_add(u64::from(TICK_MS)), context, life);
                }
            }
        }
        // What follows in this callback is the root's.
        let _ = abi::set_effective_context(self.shared.id);
        self.send_outbox();
    }

    fn set_timer(&self, now_ms: u64) {
        let mut timer = self.shared.timer.get();
        let period = timer.ticked(now_ms, self.worker().next_stream());
        // A period that cannot be set is tried again with the next stream or tick that asks for another one.
        let kept = period.is_some_and(|period_ms| abi::set_tick_period(period_ms).is_err());
        if !kept {
            self.shared.timer.set(timer);
        }
    }
}

/// A fresh timer has the period that [`Root::configure`] sets.
fn shared(id: u32, worker: Rc<Worker>) -> Rc<Shared> {
    Rc::new(Shared { id, worker, timer: Cell::new(Timer::default()), warned_mode: Cell::new(false) })
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, token: u32, grpc_status: u32, size: usize) {
        let Some(follow_up) = self.sent.remove(&token) else { return };
        let message = answer(grpc_status, size);
        match heard(follow_up.kind, &wire::reply(grpc_status, message.as_deref())) {
            Heard::Yes => {}
            Heard::No => self.worker().retry(follow_up),
            Heard::Never(code) => self.worker().refused(&follow_up, code),
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let configured = self.configure(size);
        if let Err(problem) = &configured {
            error(&format!("sluice: the plugin configuration is refused: {problem}"));
        }
        configured.is_ok()
    }

    /// Follow-ups of every root wait in one queue, and the newest root's tick serves it: it outlives the older ones. Streams
    /// that are held back go on by any root's tick, since the one that they belong to may be gone.
    fn on_tick(&mut self) {
        let now_ms = self.worker().tick(self.shared.timer.get().period_ms());
        if self.worker().is_newest(self.shared.id) {
            for follow_up in self.worker().due(now_ms) {
                self.worker().count(follow_up.kind.retried());
                self.send(follow_up);
            }
        }
        self.resume(now_ms);
        self.set_timer(now_ms);
    }

    /// A stream has put something into the outbox.
    fn on_queue_ready(&mut self, _queue: u32) {
        self.send_outbox();
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http::new(Rc::clone(&self.shared), context, self.plugin.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Drop for Root {
    /// With a root context go the answers to its follow-ups: they are sent again from another one.
    fn drop(&mut self) {
        self.worker().root_gone(self.shared.id);
        for follow_up in std::mem::take(&mut self.sent).into_values() {
            self.worker().retry(follow_up);
        }
    }
}
