//! `quota.v1.QuotaService` and `quota.v1.CreditService` on the admin port of a real server with real Redis and Postgres: their
//! operations, refusals and callers, that quotas count with REST on one account, and that credit lines are those of REST.

mod access;
mod batches;
mod bench;
mod both;
mod credit;
mod members;
mod operations;
mod race;
mod refusals;
mod scorecards;
