//! Sluice's filter for proxies that speak proxy-wasm (ABI 0.2.1).
//!
//! Deciding what to do with a stream is pure ([`machine`], [`batch`], [`exchange`], [`follow_up`], [`delays`], [`config`] and what they use) and
//! is tested natively. Three modules exist in the compiled filter only: `glue`, the SDK's root and http contexts, `abi`, the proxy's
//! functions as total Rust functions, and `pool`, its memory.
//!
//! # Where the compiled filter can still trap
//!
//! The filter's own code has no panic in it, and a failing call into the proxy is a value to it. The SDK panics where a proxy
//! breaks the ABI. A trap ends the worker's VM: with `failure_policy: FAIL_RELOAD` the next request gets a fresh one. The requests
//! that the old VM held, waiting or in progress, are stuck: Envoy ends them when their client leaves or their stream has been idle
//! for too long. So a trap lets no payment through; it loses the VM's checks and follow-ups: charges stay, holds expire. The SDK's
//! panics, and why Envoy does not reach them:
//!
//! - Calling a root context from a stream's callback (`proxy_on_queue_ready`), which the filter does for every call to the server:
//!   it does so only while the root is there, and never within a root's own callback.
//! - A call to the server that fails with a status other than parse failure (no such cluster) and internal failure (no
//!   connection to be had). Envoy has a third one only where a cluster's name reads as an encoded service description, and
//!   [`config`] refuses such names.
//! - Making a call's own context effective before its answer is delivered. The SDK does so for contexts that it still holds,
//!   and Envoy keeps a context until it has notified the SDK of its end.
//! - A callback for a context that was never created or is gone, and a second creation of one. Envoy numbers its contexts in
//!   order of creation and calls nothing before it or after the end.
//! - A second call with the token of one that is still awaited. Envoy numbers the calls of a VM.
//! - A callback while another one runs. Envoy makes what could call back (going on, answering, resetting) wait for the end of
//!   the callback.
//! - No memory left, as in every Rust program.
//!
//! Randomness is not among them: neither the SDK's maps nor the filter's own take any from the proxy.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unreachable,
    clippy::string_slice
)]

pub mod batch;
pub mod config;
pub mod delays;
pub mod exchange;
pub mod follow_up;
pub mod machine;
pub mod outcome;
pub mod record;
pub mod stats;
pub mod trust;
pub mod wire;

#[cfg(target_arch = "wasm32")]
mod abi;
#[cfg(target_arch = "wasm32")]
mod glue;
#[cfg(target_arch = "wasm32")]
mod pool;
