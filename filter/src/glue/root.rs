//! The root context: one configuration of the plugin, and the voids that went out under it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use super::http::Http;
use super::worker::Worker;
use super::{answer, error};
use crate::abi::{self, HostError};
use crate::config::{CONFIG_BYTES_MAX, Plugin};
use crate::stats::Stat;
use crate::voids::{Heard, TICK_MS, VOID_TIMEOUT_MS, Void, heard};
use crate::wire;

pub(super) struct Root {
    id: u32,
    worker: Rc<Worker>,
    plugin: Option<Rc<Plugin>>,
    /// The log has said that a route names an unknown mode.
    warned_mode: Rc<Cell<bool>>,
    /// Voids whose answers are awaited, by their tokens.
    sent: BTreeMap<u32, Void>,
}

impl Root {
    pub(super) fn new(id: u32, worker: Rc<Worker>) -> Self {
        worker.root_created(id);
        Self { id, worker, plugin: None, warned_mode: Rc::default(), sent: BTreeMap::new() }
    }

    fn configure(&mut self, size: usize) -> Result<(), String> {
        if size > CONFIG_BYTES_MAX {
            return Err(format!("it has {size} bytes, at most {CONFIG_BYTES_MAX} are read"));
        }
        let unreadable = |HostError(status)| format!("the proxy does not hand it out (status {status})");
        let text = abi::buffer(BufferType::PluginConfiguration, size).map_err(unreadable)?.unwrap_or_default();
        let plugin = Plugin::parse(&text)?;
        self.worker.start()?;
        let no_tick = |HostError(status)| format!("the proxy sets no timer for voids (status {status})");
        abi::set_tick_period(TICK_MS).map_err(no_tick)?;
        let (rules, enforcing) = (plugin.rules.rules().len(), plugin.enforcing());
        self.worker.record_enforcing(enforcing);
        abi::log(LogLevel::Info, &format!("sluice: configured, rules={rules} enforcing={enforcing}"));
        self.plugin = Some(Rc::new(plugin));
        self.warned_mode = Rc::default();
        Ok(())
    }

    /// The SDK holds this root active: the answer will come here.
    fn send(&mut self, void: Void) {
        match abi::grpc_call(&void.cluster, &void.message, VOID_TIMEOUT_MS) {
            Ok(token) => {
                self.sent.insert(token, void);
            }
            Err(HostError(_)) => self.worker.retry(void),
        }
    }
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, token: u32, grpc_status: u32, size: usize) {
        let Some(void) = self.sent.remove(&token) else { return };
        let message = answer(grpc_status, size);
        match heard(&wire::reply(grpc_status, message.as_deref())) {
            Heard::Yes => {}
            Heard::No => self.worker.retry(void),
            Heard::Never => self.worker.lost(&void),
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

    /// Voids of every root wait in one queue, and the newest root's tick serves it: it outlives the older ones.
    fn on_tick(&mut self) {
        if self.worker.is_newest(self.id) {
            for void in self.worker.due() {
                self.worker.count(Stat::VoidRetried);
                self.send(void);
            }
        }
    }

    /// A stream has put voids into the outbox.
    fn on_queue_ready(&mut self, _queue: u32) {
        for void in self.worker.take_outbox() {
            self.worker.count(Stat::VoidSent);
            self.send(Void { tries: 1, ..void });
        }
    }

    fn create_http_context(&self, _context: u32) -> Option<Box<dyn HttpContext>> {
        let (worker, warned_mode) = (Rc::clone(&self.worker), Rc::clone(&self.warned_mode));
        Some(Box::new(Http::new(self.id, worker, self.plugin.clone(), warned_mode)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Drop for Root {
    /// With a root context go the answers to its voids: they are sent again from another one.
    fn drop(&mut self) {
        self.worker.root_gone(self.id);
        for void in std::mem::take(&mut self.sent).into_values() {
            self.worker.retry(void);
        }
    }
}
