//! The API's SQL: its own tables, and what it reads of the journal's.

pub(crate) mod access_tokens;
pub(crate) mod accounts;
pub mod idempotency_keys;
pub(crate) mod usage_log;
