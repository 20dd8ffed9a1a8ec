//! `quota.v1.QuotaService`, `quota.v1.CreditService` and `quota.v1.MerchantService` on the admin port of a real server with real Redis
//! and Postgres: their operations, refusals and callers, that quotas count with REST on one account, and that the others are those
//! of REST.

mod access;
mod batches;
mod bench;
mod both;
mod credit;
mod members;
mod merchants;
mod operations;
mod race;
mod refusals;
mod scorecards;
