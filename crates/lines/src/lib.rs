//! Credit lines in Postgres: the entries of their books, in step with the journal, and the books that follow from them. The
//! arithmetic is that of `sluice-credit`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![warn(clippy::wildcard_enum_match_arm)]

mod books;
mod entry;
mod projection;
mod read;

pub use books::{Unreadable, books};
pub use entry::EntryKind;
pub use projection::EntryProjection;
pub use read::{StoredEntry, entries};
