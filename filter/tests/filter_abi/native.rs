//! The native module's code behind Envoy's C ABI, in a host that has its functions.

#[path = "batch_limits.rs"]
mod batch_limits;
#[path = "batches.rs"]
mod batches;
#[path = "delays.rs"]
mod delays;
#[path = "flows.rs"]
mod flows;
#[path = "follow_ups.rs"]
mod follow_ups;
#[path = "native_host.rs"]
mod host;
#[path = "lost.rs"]
mod lost;
#[path = "native_own.rs"]
mod own;
#[path = "native_proxy.rs"]
mod proxy;
#[path = "requests.rs"]
mod requests;
#[path = "voids.rs"]
mod voids;

use serde_json::Value;

use crate::{BODY, HEAD_PAYMENT, PAYMENT, configuration};
use proxy::Proxy;

/// The problem of a configuration without servers.
const NO_SERVER: &str = "servers: must name";

fn proxy(change: &Value) -> Proxy {
    Proxy::configured(&configuration(change))
}
