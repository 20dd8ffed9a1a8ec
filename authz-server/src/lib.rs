//! Sluice's decision server.
//!
//! `check` speaks Envoy's external authorization, `store` decides and consumes atomically, `journal` carries every event
//! to Postgres, `policy` knows the limits in force, `admin` answers operators. `run` wires them together.

pub mod policy;
pub mod store;
