//! Sluice's stack for tests, demo and load: finds, starts and stops real Envoy, Redis, Postgres and the server, with a tiny
//! payment gateway behind them and clients in front.

#[macro_use]
mod ensure;

pub mod api;
pub mod books;
pub mod build;
pub mod callgrind;
pub mod checks;
pub mod client;
pub mod credit;
pub mod dirs;
pub mod envoy;
pub mod failover;
pub mod failure;
pub mod fake;
pub mod forward;
pub mod gateway;
pub mod policies;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod procfs;
pub mod random;
pub mod redis;
pub mod rights;
pub mod server;
pub mod sse;
pub mod stack;
pub mod tools;
pub mod wait;

pub use failure::{Context, Failure, Result};
pub use process::Service;
