//! Notifications of alerts, with a real server, Redis and Postgres: who is notified of what over which channel, how
//! often, and once however much breaks in between.

mod bad_receivers;
mod bench;
mod crashes;
mod held;
mod internal;
mod mail;
mod push;
mod receiver;
mod routes;
mod tidy;
mod webhooks;
