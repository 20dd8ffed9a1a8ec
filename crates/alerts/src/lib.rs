//! Alerts: what a merchant or an operator is to hear of, and how they hear of it.
//!
//! `subject` names what alerts are about, `settings` who is told of which, `read` finds alerts and messages for the API.
//! `notifier` makes messages of them and sends them over the ways of `channel`, within `rate`, and nowhere that `address` forbids.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod address;
pub mod channel;
pub mod metrics;
pub mod monitor;
pub mod notice;
pub mod notifier;
pub mod projection;
pub mod raise;
pub mod rate;
pub mod read;
mod retry;
pub mod settings;
pub mod subject;
mod words;

pub use metrics::AlertMetrics;
pub use projection::AlertProjection;
pub use settings::{Scope, Settings};
pub use subject::{Level, Subject};
