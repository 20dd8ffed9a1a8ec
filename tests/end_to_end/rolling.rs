//! B1: two servers behind the shipped Envoy configuration. Stopped and started one after the other under payments none is lost; killed,
//! no more than are under way. Two that become healthy at the same moment are both known to Envoy at that moment.

use std::time::{Duration, Instant};

use serde_yaml_ng::Value;
use testkit::client::{Client, Payment, Protocol};
use testkit::envoy::{EnvoyConfig, Host};
use testkit::server::Server;
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, Service, wait};

use crate::suite::{Suite, patient, prompt, wait_longer};
use crate::traffic::{PROMPT, Traffic, roomy};

/// Envoy asks for the health of a server once a second.
const DRAIN_MS: &str = "3000";
/// What one server is asked for between two steps.
const PAYMENTS: u64 = 200;
/// A health check passes within two intervals.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// Payments that a killed server may cost: those under way on it, one of each client.
const KILLED_MAX: u64 = 8;

/// Payments after one of two servers was killed: each of both ways meets both servers.
const AFTERWARDS: usize = 20;
/// Within this time of each other two servers become healthy together: Envoy's default would hold the second one back for a second.
const TOGETHER: Duration = Duration::from_millis(600);
/// Tries until two servers become healthy together.
const TRIES: usize = 10;
/// Three health checks of each server, each of which takes half a second where the server hangs: then the time is over for which Envoy's
/// default would hold back a change after they became unhealthy.
const CHECKS: f64 = 6.0;

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("rolling::b1_a_rolling_restart_loses_no_payment", two_servers(), rolling_restart);
    suite.owned("rolling::b1_a_killed_server_costs_what_is_under_way", two_servers(), one_is_killed);
    // The native host has no cluster of Envoy between itself and the servers.
    if Host::chosen().is_ok_and(|host| host == Host::Wasm) {
        let options = StackOptions { change: Some(checked_often), ..two_servers() };
        suite.owned("rolling::b1_servers_that_come_back_together_are_both_known", options, back_together);
    }
    suite.owned("rolling::b1_a_lone_server_decides_while_it_drains", lone(), a_lone_server_drains);
}

/// With long deadlines: Envoy's own filter learns nothing of a charge whose answer crosses its deadline, so that a payment which a busy
/// machine decides late would be refused and charged. It tries no payment again: there is no other server.
fn lone() -> StackOptions {
    draining(StackOptions { change: Some(one_try), ..patient() })
}

fn one_try(config: &mut EnvoyConfig) -> Result<()> {
    wait_longer(config)?;
    config.http_filter("envoy.filters.http.ext_authz")?["typed_config"]["grpc_service"]["retry_policy"] = Value::Null;
    Ok(())
}

fn two_servers() -> StackOptions {
    StackOptions { two_servers: true, ..draining(prompt()) }
}

/// Servers are asked for their health five times a second: at the shipped interval two that come back may be up to a second apart.
fn checked_often(config: &mut EnvoyConfig) -> Result<()> {
    config.set_health_interval("sluice_authz", "0.2s")
}

fn draining(options: StackOptions) -> StackOptions {
    let mut options = roomy(options);
    options.server_env.insert("SLUICE_DRAIN_MS".to_owned(), DRAIN_MS.to_owned());
    options
}

/// Waits until Envoy takes so many servers for healthy.
fn healthy(stack: &Stack, servers: usize) -> Result<()> {
    wait::until(&format!("{servers} healthy servers"), BACK_WITHIN, || {
        Ok((healthy_now(stack)? == servers).then_some(()))
    })
}

fn healthy_now(stack: &Stack) -> Result<usize> {
    let text = stack.envoy.admin("/clusters")?;
    let flags = text.lines().filter(|line| line.starts_with("sluice_authz::") && line.contains("::health_flags::"));
    Ok(flags.filter(|line| line.ends_with("::healthy")).count())
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
    let refused = traffic.judge_after_a_kill(stack, PROMPT).await?;
    ensure!(refused <= KILLED_MAX, "{refused} payments were refused");
    Ok(())
}

/// Two servers become healthy together. The one that Envoy calls first is killed at once: payments are decided by the other. If
/// Envoy collected changes of health, as it does by default, it would not know the other one yet.
async fn back_together(stack: &mut Stack) -> Result<()> {
    healthy(stack, 2)?;
    let mut client = stack.client(Protocol::Http1).await?;
    for round in 0..TRIES {
        let since = both_become_healthy(stack)?;
        let before = calls(stack)?;
        pay(&mut client, &format!("first-{round}"), false).await?;
        let called = calls(stack)?.iter().zip(before).position(|(calls, before)| *calls > before);
        let called = called.ok_or_else(|| Failure::new("the payment was decided by neither server"))?;
        if since.elapsed() > TOGETHER {
            continue;
        }
        both(stack)?[called].kill()?;
        for number in 0..AFTERWARDS {
            pay(&mut client, &format!("after-{number}"), number % 2 == 1).await?;
        }
        return Ok(());
    }
    Err(Failure::new(format!("two servers did not become healthy together in {TRIES} tries")))
}

/// Servers that hung until Envoy took none for healthy answer again. Returns when the first one became healthy.
fn both_become_healthy(stack: &mut Stack) -> Result<Instant> {
    for server in both(stack)? {
        server.pause()?;
    }
    healthy(stack, 0)?;
    let checks = "envoy_cluster_health_check_attempt";
    let so_far = stack.envoy.metric(checks)?;
    wait::until("more health checks", BACK_WITHIN, || {
        Ok((stack.envoy.metric(checks)? >= so_far + CHECKS).then_some(()))
    })?;
    for server in both(stack)? {
        server.resume()?;
    }
    wait::until("a healthy server", BACK_WITHIN, || Ok((healthy_now(stack)? > 0).then_some(())))?;
    let since = Instant::now();
    healthy(stack, 2)?;
    Ok(since)
}

fn both(stack: &mut Stack) -> Result<[&mut Server; 2]> {
    let second = stack.second.as_mut().ok_or_else(|| Failure::new("there is one server only"))?;
    Ok([&mut stack.server, second])
}

/// How often Envoy has called the first server, and the second.
fn calls(stack: &mut Stack) -> Result<[u64; 2]> {
    let text = stack.envoy.admin("/clusters")?;
    let of = |server: &mut Server| {
        let name = format!("sluice_authz::{}::rq_total::", server.grpc_address());
        let calls = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        calls.ok_or_else(|| Failure::new(format!("no {name} in {text}")))
    };
    let [first, second] = both(stack)?.map(of);
    Ok([first?, second?])
}

/// Pays an order by the filter, or by Envoy's own.
async fn pay(client: &mut Client, order: &str, native: bool) -> Result<()> {
    let payment = Payment::new("busy0", order, 100);
    let payment = if native { payment.path("/native/v1/payments") } else { payment };
    let answer = client.send(payment.call()).await?;
    ensure_eq!(answer.status, 200, "{order}: {}", answer.json());
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
