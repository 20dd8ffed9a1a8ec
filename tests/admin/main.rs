//! The admin API of a real server with real Redis and Postgres: who is let in and who is not, what is done once, what is
//! bounded, and what the usage log shows.

mod access;
mod bench;
mod bodies;
mod bounds;
mod corrections;
mod database;
mod idempotency;
mod jwt;
mod keys;
mod logs;
mod pooler;
mod ports;
mod statements;
mod transfers;
mod words;
