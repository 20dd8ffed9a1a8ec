//! B1: two servers behind the shipped Envoy configuration. Stopped and started one after the other under payments none is lost; killed,
//! no more than are under way.

use std::time::{Duration, Instant};

use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, Service, wait};

use crate::suite::{Suite, prompt};
use crate::traffic::{PROMPT, Traffic, roomy};

/// Envoy asks for the health of a server once a second.
const DRAIN_MS: &str = "3000";
/// What one server is asked for between two steps.
const PAYMENTS: u64 = 200;
/// A health check passes within two intervals.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// Payments that a killed server may cost: those under way on it, one of each client.
const KILLED_MAX: u64 = 8;

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("rolling::b1_a_rolling_restart_loses_no_payment", two_servers(), rolling_restart);
    suite.owned("rolling::b1_a_killed_server_costs_what_is_under_way", two_servers(), one_is_killed);
    suite.owned("rolling::b1_a_lone_server_decides_while_it_drains", lone(), a_lone_server_drains);
}

fn lone() -> StackOptions {
    let mut options = roomy(prompt());
    options.server_env.insert("SLUICE_DRAIN_MS".to_owned(), DRAIN_MS.to_owned());
    options
}

fn two_servers() -> StackOptions {
    StackOptions { two_servers: true, ..lone() }
}

/// Waits until Envoy takes so many servers for healthy.
fn healthy(stack: &Stack, servers: usize) -> Result<()> {
    wait::until(&format!("{servers} healthy servers"), BACK_WITHIN, || {
        let text = stack.envoy.admin("/clusters")?;
        let flags = text.lines().filter(|line| line.starts_with("sluice_authz::") && line.contains("::health_flags::"));
        Ok((flags.filter(|line| line.ends_with("::healthy")).count() == servers).then_some(()))
    })
}

async fn rolling_restart(stack: &mut Stack) -> Result<()> {
    healthy(stack, 2)?;
    let traffic = Traffic::start_both_ways(stack).await?;
    traffic.answers(PAYMENTS).await?;
    let status = stack.server.process().stop()?;
    ensure!(status.success(), "the first server ended with {status}");
    traffic.answers(PAYMENTS).await?;
    stack.server.restart()?;
    healthy(stack, 2)?;
    traffic.answers(PAYMENTS).await?;
    let second = stack.second.as_mut().ok_or_else(|| Failure::new("there is one server only"))?;
    let status = second.process().stop()?;
    ensure!(status.success(), "the second server ended with {status}");
    traffic.answers(PAYMENTS).await?;
    second.restart()?;
    healthy(stack, 2)?;
    traffic.answers(PAYMENTS).await?;
    ensure_eq!(traffic.judge(stack, PROMPT).await?, 0, "payments were refused");
    Ok(())
}

async fn one_is_killed(stack: &mut Stack) -> Result<()> {
    healthy(stack, 2)?;
    let traffic = Traffic::start_both_ways(stack).await?;
    traffic.answers(PAYMENTS).await?;
    stack.second.as_mut().ok_or_else(|| Failure::new("there is one server only"))?.kill()?;
    traffic.answers(2 * PAYMENTS).await?;
    let refused = traffic.judge(stack, PROMPT).await?;
    ensure!(refused <= KILLED_MAX, "{refused} payments were refused");
    Ok(())
}

/// It says that it will stop, decides what still comes, and ends in time.
async fn a_lone_server_drains(stack: &mut Stack) -> Result<()> {
    healthy(stack, 1)?;
    let traffic = Traffic::start_both_ways(stack).await?;
    traffic.answers(PAYMENTS).await?;
    let since = Instant::now();
    stack.server.process().terminate()?;
    wait::until("a server that drains", BACK_WITHIN, || {
        let (status, body) = stack.server.get("/ready/payments")?;
        Ok((status == 503 && body.contains("\"status\":\"draining\"")).then_some(()))
    })?;
    healthy(stack, 0)?;
    traffic.answers(20).await?;
    ensure_eq!(traffic.refused(), 0, "payments were refused while the server drained");
    ensure!(stack.server.get("/health")?.0 == 200, "the server is gone while it drains");
    let status = stack.server.process().stop()?;
    let took = since.elapsed();
    ensure!(status.success(), "the server ended with {status}");
    ensure!(took < Duration::from_secs(10), "it took {took:?}");
    stack.server.restart()?;
    healthy(stack, 1)?;
    traffic.answers(20).await?;
    traffic.judge(stack, PROMPT).await.map(drop)
}
