//! The SDK's side of the filter: its root context and http context, which translate only. Every decision is in `machine`, `batch`,
//! `follow_up` and `delays`; what one worker's contexts share is in `worker`.
//!
//! The SDK brings the answer to a call to the context that it held active when the call went out, and the answer to a batch
//! belongs to many streams. So every call goes out from a root context, which a stream's callback reaches by the SDK's own
//! `proxy_on_queue_ready`: that makes the root active, and borrows it and not the stream. The proxy makes every call for the root
//! and needs no effective context set.
//!
//! Answers come to the root, and payments that are held back go on from its tick, where the SDK holds the root and no stream. So
//! what a stream knows is shared (`stream::Life`), and the root makes the stream the proxy's effective context for what it asks of
//! it. The proxy carries that out (going on, answering) after the callback, so nobody calls back meanwhile.

#![expect(unsafe_code, reason = "a function of the SDK is called by its exported name")]

mod figures;
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
