//! Sluice's decision server: its command line ([`cli`]) and the wiring of its parts ([`run`]). What the parts are, and which of them
//! may know which, is in ARCHITECTURE.md.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// A decision makes some hundred small allocations; glibc's allocator took a fifth of a decision thread's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod cli;
pub mod run;
