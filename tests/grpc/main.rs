//! `quota.v1.QuotaService` on the admin port of a real server with real Redis and Postgres: its operations, its refusals, its
//! callers, and that it counts with REST on one account.

mod access;
mod batches;
mod bench;
mod operations;
mod race;
mod refusals;
