//! Sluice's filter as an Envoy dynamic module (docs/native-host.md): the pure machine of the crate `filter` behind Envoy's C ABI.
//!
//! A stream runs on its worker ([`stream`]). Checks and follow-ups go to one thread of the process ([`thread`]), which has the
//! connections to the servers ([`client`]), the queues and the timers ([`engine`]); its answers come back to the worker by the ABI's
//! scheduler ([`link`]). The ABI is one module ([`abi`]), the only one with unsafe code.
//!
//! # Panics
//!
//! The module is part of Envoy's process. Each callback is caught: the request is answered 503, or reset, and a counter counts.
//! A panic on the thread restarts it: the payments that wait are decided by their rule's `on_error`. What is left can end Envoy: a
//! stack overflow, no memory, and an error in the unsafe code.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unreachable,
    clippy::string_slice
)]

pub mod abi;
pub mod client;
pub mod config;
pub mod engine;
pub mod link;
pub mod metrics;
pub mod stream;
pub mod thread;
