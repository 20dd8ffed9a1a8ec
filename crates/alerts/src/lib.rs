//! Alerts for merchants and operators, and their delivery.
//!
//! `subject` lists what alerts are about. `marks` has the thresholds that the store does not count: merchants' own, and those of
//! credit lines. `settings` routes alerts to channels. `read` queries alerts and messages for the API.
//! `notifier` creates messages and sends them through `channel`, within the limits of `rate` and the policy of `egress`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod channel;
pub mod credit;
pub mod egress;
pub mod marks;
pub mod metrics;
pub mod monitor;
pub mod notice;
pub mod notifier;
pub mod orphans;
mod own;
pub mod projection;
pub mod raise;
pub mod rate;
pub mod read;
pub mod recount;
mod retry;
mod scope;
pub mod settings;
pub mod subject;
mod validation;
mod words;

pub use metrics::AlertMetrics;
pub use own::OwnThresholds;
pub use projection::{AlertProjection, LimitsInForce};
pub use scope::Scope;
pub use settings::Settings;
pub use subject::{Level, Subject};
pub use words::{Dunning, Watched};
