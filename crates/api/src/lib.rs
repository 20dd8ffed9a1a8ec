//! The admin API over REST and gRPC, and the live stream of payments and alerts.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin;
pub mod live;
