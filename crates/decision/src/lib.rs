//! What every caller of the store shares once a command is decided.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod operations;

pub mod spans;
