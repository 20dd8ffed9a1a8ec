//! The compiled wasm module in wasmtime.

#[path = "batch_limits.rs"]
mod batch_limits;
#[path = "batches.rs"]
mod batches;
#[path = "calls.rs"]
mod calls;
#[path = "costs.rs"]
mod costs;
#[path = "delays.rs"]
mod delays;
#[path = "failing.rs"]
mod failing;
#[path = "flows.rs"]
mod flows;
#[path = "follow_ups.rs"]
mod follow_ups;
#[path = "host.rs"]
mod host;
#[path = "lost.rs"]
mod lost;
#[path = "memory.rs"]
mod memory;
#[path = "proxy.rs"]
mod proxy;
#[path = "requests.rs"]
mod requests;
#[path = "voids.rs"]
mod voids;

use serde_json::Value;

use crate::{BODY, HEAD_PAYMENT, PAYMENT, configuration};
use proxy::Proxy;

/// The problem of a configuration without servers.
const NO_SERVER: &str = "cluster: must name";

fn proxy(change: &Value) -> Proxy {
    Proxy::configured(&configuration(change))
}
