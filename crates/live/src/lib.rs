//! The live stream of decisions, alerts and changes of credit lines for operators and merchants, read from Postgres and never from the path of a payment,
//! and metrics of accounts and alerts.
//!
//! `cursor` is a stream's position, `feed` reads from there, `wake` shortens the wait for alerts, `usage` keeps the metrics.
//! The API serves it.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cursor;
mod feed;
pub mod metrics;
mod snapshot;
mod usage;
mod wake;

pub use cursor::{Cursor, CursorError};
pub use feed::{Change, Feed, Filter, Item, Kind, Reader};
pub use metrics::StreamMetrics;
pub use snapshot::Snapshot;
pub use usage::{Usage, UsageError};
pub use wake::{Wake, Waker};
