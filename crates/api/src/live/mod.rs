//! What operators and merchants watch: the live stream of decisions and alerts, read from Postgres and never from the way of
//! a payment, and figures of accounts and alerts.
//!
//! `place` is where a stream stands, `feed` reads on from there, `wake` shortens the wait for alerts, `usage` keeps the
//! figures. [`crate::admin`] serves it.

mod feed;
pub mod figures;
mod place;
mod snapshot;
mod usage;
mod wake;

pub use feed::{Change, Feed, Filter, Item, Kind, Reader};
pub use figures::Figures;
pub use place::{Place, PlaceError};
pub use snapshot::Snapshot;
pub use usage::{Usage, UsageError};
pub use wake::{Wake, Waker};
