//! Policies against real Postgres, real HTTP and a real server: who may change them, how a change reaches every server, and
//! what holds while a source is away.

mod bench;
mod reach;
mod scopes;
mod service;
mod states;
mod windows;
mod zones;
