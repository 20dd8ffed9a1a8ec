//! The base of every part of the server: the clock, HTTP, the database, health, metrics, retries, the stop and telemetry.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod clock;
pub mod database;
pub mod health;
pub mod http;
pub mod metrics;
pub mod process;
pub mod retry;
pub mod secret;
pub mod shutdown;
pub mod telemetry;
