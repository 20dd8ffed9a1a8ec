//! The decision rule through the reference ledger: tables of commands and their answers, and properties of any sequence of
//! commands. The store suite runs the same tables.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clocks;
mod exposure;
mod ledger;
mod properties;
mod rights;
mod table;
#[path = "../../src/zones.rs"]
mod zones;
