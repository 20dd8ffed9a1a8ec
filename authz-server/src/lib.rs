//! Sluice's decision server.
//!
//! `check` speaks Envoy's external authorization, `store` decides and consumes atomically, `journal` carries every event
//! to Postgres, `policy` knows the limits in force, `alert` tells of them, `outcomes` keeps what the gateway left open, `admin` answers operators. `run` wires them together.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin;
pub mod alert;
pub mod check;
pub mod cli;
pub mod clock;
pub mod database;
mod decision;
pub mod health;
pub mod http;
pub mod journal;
pub mod live;
pub mod metrics;
pub mod operations;
pub mod outcomes;
pub mod policy;
pub mod process;
mod refusal;
pub mod run;
pub mod secret;
pub mod settings;
pub mod store;
pub mod sweep;
pub mod telemetry;
pub mod zones;
