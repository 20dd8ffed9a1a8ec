//! The admin API over HTTP, with real server, Redis and Postgres: every route's successes and refusals, who may ask what,
//! the examples of docs/api.md, and the mistakes of other quota services.
//!
//! All tests share one server and keep to merchants of their own. This `main` owns it, so that nothing outlives the summary.

mod access;
mod accounts;
mod alerts;
mod batches;
mod charges;
mod credit;
mod document;
mod example;
mod holds;
mod mistakes;
mod month;
mod outcomes;
mod own;
mod policies;
mod readme;
mod rights;
mod scorecards;
mod stream;
mod suite;
mod transfers;
mod usage_logs;
mod weights;

use std::process::ExitCode;

use suite::Suite;

fn main() -> ExitCode {
    let mut suite = Suite::default();
    charges::add(&mut suite);
    weights::add(&mut suite);
    holds::add(&mut suite);
    rights::add(&mut suite);
    accounts::add(&mut suite);
    alerts::add(&mut suite);
    batches::add(&mut suite);
    usage_logs::add(&mut suite);
    stream::add(&mut suite);
    access::add(&mut suite);
    mistakes::add(&mut suite);
    outcomes::add(&mut suite);
    example::add(&mut suite);
    credit::add(&mut suite);
    transfers::add(&mut suite);
    own::add(&mut suite);
    month::add(&mut suite);
    scorecards::add(&mut suite);
    document::add(&mut suite);
    suite.run()
}
