// LEAD -> filter author: the owner fixes the package `proxy-wasm`; it must stay a dependency and be used. Plan after your
// report: SDK for contexts, callbacks and dispatch_grpc_call, your total `abi` for every other outbound call. Please do this
// yourself if you have time left (remove this note); else finish the tests so that they hold for either.
//! Sluice's filter for proxies that speak proxy-wasm (ABI 0.2.1).
//!
//! Deciding what to do with a stream is pure ([`machine`], [`voids`], [`config`] and what they use) and is tested
//! natively. Two modules exist in the compiled filter only: `abi`, the proxy's functions as total Rust functions, and
//! `glue`, the functions that the proxy calls.
//!
//! The filter speaks the ABI itself rather than through an SDK: the SDK's wrappers panic on statuses they do not expect, and
//! a panic costs every stream of the worker, so promise Q-10 could not be kept.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unreachable,
    clippy::string_slice
)]

pub mod config;
pub mod machine;
pub mod outcome;
pub mod record;
pub mod stats;
pub mod voids;
pub mod wire;

#[cfg(target_arch = "wasm32")]
mod abi;
#[cfg(target_arch = "wasm32")]
mod glue;
