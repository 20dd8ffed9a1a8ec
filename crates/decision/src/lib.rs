//! From a request to a decision, for every caller of the store: the proxy, the APIs and the jobs. And the quota operations that the
//! APIs have in common.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod credit;
pub mod decider;
mod metrics;
pub mod operations;
pub mod request;
mod spans;
mod windows;

pub use metrics::DecisionMetrics;
