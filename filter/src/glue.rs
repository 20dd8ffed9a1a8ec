//! The SDK's side of the filter: its root context and http context, which translate only. Every decision is in `machine`,
//! `follow_up` and `delays`; what one worker's contexts share is in `worker`.
//!
//! The SDK holds the context that it calls borrowed, and brings the answer to a call to the context that it held active when
//! the call went out. A check belongs to its stream, and its answer may be dropped with it: the attempt was voided then. A
//! follow-up outlives its stream, so it goes out from the root context, which a stream reaches by the SDK's own
//! `proxy_on_queue_ready`: that call borrows the root and not the stream. It is the last thing that a callback does, since the
//! root stays active after it, and a check must go out from its stream. The proxy makes every call for the root and needs no
//! effective context set.
//!
//! A stream that is held back goes on from a root's tick, where the SDK holds the root and no stream. So what a stream knows is
//! shared (`http::Life`), and the tick makes the stream the proxy's effective context for what it asks of it.

#![expect(unsafe_code, reason = "a function of the SDK is called by its exported name")]

mod http;
mod root;
mod worker;

use std::rc::Rc;

use proxy_wasm::types::{BufferType, LogLevel};

use crate::abi;
use root::Root;
use worker::Worker;

/// Longest answer of the server that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static WORKER: Rc<Worker> = Rc::default();
}

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id, WORKER.with(Rc::clone))));
}}

unsafe extern "C" {
    /// Makes a root context the SDK's active one and runs its `on_queue_ready`. It panics for a root that is gone.
    safe fn proxy_on_queue_ready(root: u32, queue: u32);
}

/// Has a live root context send what waits in the worker's outbox.
fn wake(root: u32) {
    proxy_on_queue_ready(root, 0);
}

/// The message of the answer that the proxy is just delivering.
fn answer(grpc_status: u32, size: usize) -> Option<Vec<u8>> {
    if grpc_status != 0 {
        return None;
    }
    abi::buffer(BufferType::GrpcReceiveBuffer, size.min(ANSWER_BYTES_MAX)).ok().flatten()
}

fn warn(text: &str) {
    abi::log(LogLevel::Warn, &format!("sluice: {text}"));
}

fn error(text: &str) {
    abi::log(LogLevel::Error, text);
}
