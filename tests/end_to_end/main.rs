//! The whole of Sluice, end to end: payments through real Envoy with real server, Redis and Postgres, in tables of scenarios,
//! and what happens to them while parts hang, die and come back. Every promise that can break between the parts is tried here.
//!
//! Scenarios that only send payments share one stack and keep to merchants of their own; those that break parts start one
//! for themselves. This `main` owns the shared one, so that nothing outlives the summary.

#[macro_use]
extern crate testkit;

mod alerts;
mod batches;
mod collector;
mod contract;
mod credit;
mod failover;
mod fake;
mod gateway;
mod grpc;
mod holds;
mod late;
mod logs;
mod names;
mod no_answer;
mod observed;
mod orders;
mod outages;
mod outcomes;
mod panics;
mod passing;
mod payments;
mod policy;
mod proxy;
mod race;
mod raw;
mod refused;
mod requests;
mod rolling;
mod routes;
mod server;
mod socket;
mod stream;
mod suite;
mod thousands;
mod throttle;
mod tracing;
mod traffic;
mod trust;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use suite::Suite;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut suite = Suite::new();
    payments::add(&mut suite);
    requests::add(&mut suite);
    raw::add(&mut suite);
    passing::add(&mut suite);
    gateway::add(&mut suite);
    no_answer::add(&mut suite);
    refused::add(&mut suite);
    routes::add(&mut suite);
    policy::add(&mut suite);
    race::add(&mut suite);
    server::add(&mut suite);
    socket::add(&mut suite);
    late::add(&mut suite);
    outages::add(&mut suite);
    credit::add(&mut suite);
    trust::add(&mut suite);
    rolling::add(&mut suite);
    failover::add(&mut suite);
    outcomes::add(&mut suite);
    stream::add(&mut suite);
    proxy::add(&mut suite);
    panics::add(&mut suite);
    observed::add(&mut suite);
    grpc::add(&mut suite);
    holds::add(&mut suite);
    orders::add(&mut suite);
    throttle::add(&mut suite);
    tracing::add(&mut suite);
    batches::add(&mut suite);
    thousands::add(&mut suite);
    contract::add(&mut suite);
    alerts::add(&mut suite);
    suite.run(&arguments)
}
