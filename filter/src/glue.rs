//! The SDK's side of the filter: its root context and http context, which translate only. Every decision is in `machine`, `batch`,
//! `follow_up` and `delays`; what one worker's contexts share is in `worker`.
//!
//! The SDK delivers the answer to a call to the context that was active when the call was made, and the answer to a batch belongs
//! to many streams. So every call is made from a root context, which a stream's callback reaches by the SDK's own
//! `proxy_on_queue_ready`: that makes the root active, and borrows it and not the stream. The proxy makes every call for the root
//! and needs no effective context set.
//!
//! Answers arrive at the root, and delayed payments are resumed from its tick, where the SDK holds the root and no stream. So a
//! stream's state is shared (`stream::StreamContext`), and the root makes the stream the proxy's effective context before it acts
//! on it. The proxy does that (resuming, answering) after the callback, so there is no callback meanwhile.

#![expect(unsafe_code, reason = "a function of the SDK is called by its exported name")]

mod metrics;
mod root;
mod stream;
mod worker;

use std::rc::Rc;

use proxy_wasm::types::LogLevel;

use crate::abi;
use root::RootContext;
use worker::Worker;

thread_local! {
    static WORKER: Rc<Worker> = Rc::default();
}

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(RootContext::new(id, WORKER.with(Rc::clone))));
}}

unsafe extern "C" {
    /// Makes a root context the SDK's active one and runs its `on_queue_ready`. It panics for a root that is gone, and within a
    /// root's own callback.
    safe fn proxy_on_queue_ready(root: u32, queue: u32);
}

fn warn(text: &str) {
    abi::log(LogLevel::Warn, &format!("sluice: {text}"));
}

fn error(text: &str) {
    abi::log(LogLevel::Error, text);
}
