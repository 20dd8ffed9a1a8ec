//! Rights at the proxy: payments that go on without a call, exactly once in the books, and never more than the limit.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use testkit::books::{Entry, books_agree, day, seen_by, settles_at, voids_done};
use testkit::client::{Client, Payment, Protocol};
use testkit::envoy::{Envoy, EnvoyConfig};
use testkit::rights::ended_long_ago;
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, Service, wait};

use crate::suite::{self, Suite};
use crate::traffic::{PATIENT, Traffic, roomy};

const CLIENTS: usize = 64;
/// Payments of a merchant that is far from its limit.
const ROOMY: usize = 3_000;
/// The day's number of payments of one that is not.
const TIGHT: u64 = 1_500;
const POLICIES: &str = "version: trust\n\
    default: {timezone: UTC, daily_amount: 100000000, trust: {above_percent: 20, share_percent: 10, ttl_ms: 500}}\n\
    merchants:\n  tight: {daily_count: 1500}\n  central: {trust: off}\n";

pub(crate) fn add(suite: &mut Suite) {
    let options = || StackOptions { policies: Some(POLICIES.to_owned()), change: Some(trusting), ..suite::patient() };
    suite.owned("trust::payments_go_on_without_a_call", options(), without_a_call);
    let workers = |options| StackOptions { workers: 2, ..options };
    suite.owned("trust::exactly_what_fits_is_admitted", workers(options()), exactly_what_fits);
    suite.owned("trust::the_server_and_redis_are_killed", workers(trusted_traffic()), the_server_and_redis_are_killed);
    suite.owned("trust::the_proxy_is_killed", workers(options()), the_proxy_is_killed);
}

/// Stacks for [`Traffic`], whose merchants are trusted.
fn trusted_traffic() -> StackOptions {
    let mut options = StackOptions { change: Some(trusting), ..roomy(suite::patient()) };
    let trust = "{tier: roomy, trust: {above_percent: 20, share_percent: 10, ttl_ms: 500}}";
    options.policies = options.policies.map(|text| text.replace("{tier: roomy}", trust));
    options
}

/// Payments may be admitted from rights.
fn trusting(config: &mut EnvoyConfig) -> Result<()> {
    suite::wait_longer(config)?;
    let mut plugin = config.plugin()?;
    for rule in plugin["rules"].as_array_mut().into_iter().flatten() {
        if rule["name"] == "payments" {
            rule["trust"] = json!({"report_ms": 10});
        }
    }
    config.set_plugin(&plugin)
}

/// Sends payments of 10 each over all connections until `count` were sent; what became of them, by status and code.
async fn pay(clients: Vec<Client>, merchant: &'static str, from: usize, count: usize) -> Result<(Vec<Client>, Sent)> {
    let of = clients.len();
    let mut running = Vec::new();
    for (at, mut client) in clients.into_iter().enumerate() {
        running.push(tokio::spawn(async move {
            let mut sent = Sent::default();
            for number in (from + at..from + count).step_by(of) {
                let answer = client.send(Payment::new(merchant, &format!("{merchant}-{number}"), 10).call()).await?;
                match (answer.status, answer.code().as_str()) {
                    (200, _) => sent.admitted += 1,
                    (429, "DAILY_COUNT") => sent.refused += 1,
                    other => return Err(Failure::new(format!("{other:?}"))),
                }
            }
            Ok((client, sent))
        }));
    }
    let (mut clients, mut all) = (Vec::new(), Sent::default());
    for running in running {
        let (client, sent) = running.await??;
        clients.push(client);
        all.admitted += sent.admitted;
        all.refused += sent.refused;
    }
    Ok((clients, all))
}

#[derive(Debug, Default)]
struct Sent {
    admitted: u64,
    refused: u64,
}

/// Connections, spread over the proxies.
async fn clients<const N: usize>(proxies: [&Envoy; N]) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(Client::connect(proxies[number / 2 % N].address(), Protocol::BOTH[number % 2]).await?);
    }
    Ok(clients)
}

async fn without_a_call(stack: &mut Stack) -> Result<()> {
    let (clients, sent) = pay(clients([&stack.envoy]).await?, "roomy", 0, ROOMY).await?;
    ensure_eq!((sent.admitted, sent.refused), (ROOMY as u64, 0));
    let trusted = stack.envoy.metric("sluice_trusted")?;
    ensure!(trusted > ROOMY as f64 * 0.5, "{trusted} of {ROOMY} were admitted from rights");
    // Rights are returned, and what was admitted from them is counted once.
    settles_at(stack, "roomy", (ROOMY as u64 * 10, ROOMY as u64)).await?;
    let entries = books_agree(stack, "roomy").await?;
    let orders: BTreeSet<_> =
        entries.iter().filter(|entry| entry.action == "consume").map(|entry| &entry.order_no).collect();
    ensure_eq!(orders.len(), ROOMY, "each payment has a row");
    let pool = stack.postgres.pool().await?;
    let by_right: i64 =
        sqlx::query_scalar("SELECT count(*) FROM usage_log WHERE action_type = 'consume' AND right_id IS NOT NULL")
            .fetch_one(&pool)
            .await?;
    pool.close().await;
    ensure_eq!(by_right as f64, trusted, "each of them names its right");
    let logged = stack.envoy.access_log()?;
    let named = logged.iter().filter(|line| line["sluice"]["right_id"].is_string()).count();
    ensure!(named > 0, "{:?}", logged.last());
    // Without trust every payment is decided by the server.
    let (_, sent) = pay(clients, "central", 0, 200).await?;
    ensure_eq!((sent.admitted, stack.envoy.metric("sluice_trusted")?), (200, trusted));
    what_the_gateway_refuses_is_returned(stack).await
}

async fn what_the_gateway_refuses_is_returned(stack: &mut Stack) -> Result<()> {
    let mut client = stack.client(Protocol::Http1).await?;
    for number in 0..200 {
        let payment = Payment::new("failing", &format!("failing-{number}"), 10);
        let payment = if number % 2 == 1 { payment.gateway("fail-422") } else { payment };
        let answer = client.send(payment.call()).await?;
        ensure_eq!(answer.status, if number % 2 == 1 { 422 } else { 200 });
    }
    settles_at(stack, "failing", (100 * 10, 100)).await?;
    voids_done(stack).await?;
    books_agree(stack, "failing").await.map(drop)
}

/// two workers of each of two proxies have rights of one account, and 64 connections request more than it has room for.
async fn exactly_what_fits(stack: &mut Stack) -> Result<()> {
    let another = stack.envoy.another()?;
    let proxies = [&stack.envoy, &another];
    let (mut clients, mut from, mut admitted) = (clients(proxies).await?, 0, 0);
    for _ in 0..50 {
        let (again, sent) = pay(clients, "tight", from, 400).await?;
        (clients, from, admitted) = (again, from + 400, admitted + sent.admitted);
        ensure!(admitted <= TIGHT, "{admitted} of {TIGHT} were admitted");
        if admitted == TIGHT {
            break;
        }
        if sent.admitted == 0 {
            // All that is left is in rights that are not used: they are returned when they are over.
            settles_at(stack, "tight", (admitted * 10, admitted)).await?;
        }
    }
    ensure_eq!(admitted, TIGHT);
    for proxy in proxies {
        let trusted = proxy.metric("sluice_trusted")?;
        ensure!(trusted > 100.0, "hardly any was admitted from a right: {trusted}");
    }
    settles_at(stack, "tight", (TIGHT * 10, TIGHT)).await?;
    let (_, sent) = pay(clients, "tight", from, 64).await?;
    ensure_eq!((sent.admitted, sent.refused), (0, 64));
    books_agree(stack, "tight").await.map(drop)
}

/// What went on without a call is charged once the server and the store are there again, and what failed is voided.
async fn the_server_and_redis_are_killed(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    for _ in 0..2 {
        traffic.answers(400).await?;
        stack.server.kill()?;
        traffic.refusals(10).await?;
        stack.server.restart()?;
        let mut connection = stack.redis.connection().await?;
        redis::cmd("CONFIG").arg(&["SET", "appendfsync", "always"]).exec_async(&mut connection).await?;
        traffic.answers(400).await?;
        stack.redis.kill()?;
        traffic.refusals(10).await?;
        stack.redis.restart()?;
    }
    traffic.answers(400).await?;
    let trusted = stack.envoy.metric("sluice_trusted")?;
    ensure!(trusted > 300.0, "hardly any was admitted from a right: {trusted}");
    traffic.judge(stack, PATIENT).await.map(drop)
}

/// A proxy that dies takes with it what it has not reported: that stays counted, in rights that nothing returns. An operator ends
/// them when they are over, and a client's retry is charged once.
async fn the_proxy_is_killed(stack: &mut Stack) -> Result<()> {
    let paying = tokio::spawn(pay(clients([&stack.envoy]).await?, "roomy", 0, 1_000_000));
    wait::until_async("payments at the gateway", Duration::from_secs(60), || async {
        Ok((stack.gateway.count() >= 2_000).then_some(()))
    })
    .await?;
    stack.envoy.kill()?;
    ensure!(paying.await?.is_err(), "the proxy still answers");
    let orders = |entries: Vec<Entry>| -> BTreeSet<String> {
        entries.into_iter().filter(Entry::charged).map(|entry| entry.order_no).collect()
    };
    let charged = orders(books_agree(stack, "roomy").await?);
    let passed: BTreeSet<String> = seen_by(stack, "roomy").into_iter().filter_map(|seen| seen.order_no).collect();
    let unreported: Vec<&String> = passed.difference(&charged).collect();
    let (amount, count) = day(stack, "roomy").await?;
    let (recorded, missing) = (charged.len() as u64, unreported.len() as u64);
    ensure!(count >= recorded + missing, "{count} are counted, {recorded} recorded and {missing} not reported");
    ensure!(amount >= (recorded + missing) * 10, "{amount} is counted");
    ensure!(missing < passed.len() as u64 / 2, "{missing} of {} were not reported", passed.len());
    let lost = outstanding(stack, "roomy").await?;
    ensure!(!lost.is_empty(), "a proxy that died returned its rights");

    // What was not reported is paid again: the books get it once.
    stack.envoy.restart()?;
    let mut client = stack.client(Protocol::Http1).await?;
    for order in &unreported {
        let answer = client.send(Payment::new("roomy", order, 10).call()).await?;
        ensure_eq!(answer.status, 200, "{order}: {}", answer.json());
    }
    for right_id in &lost {
        ended_long_ago(&stack.redis, "roomy", right_id).await?;
    }
    are_found_orphaned(stack, &lost).await?;
    for right_id in &lost {
        let body = json!({"merchant_id": "roomy", "currency": "USD", "right_id": right_id, "reason": "its proxy died"});
        let answer = stack.caller().post("/quotas/release-right", &body).await?;
        ensure_eq!(answer.status, 200, "{}", answer.json());
    }
    let all = recorded + missing;
    settles_at(stack, "roomy", (all * 10, all)).await?;
    let entries = books_agree(stack, "roomy").await?;
    let orphaned: Vec<_> = entries.iter().filter(|entry| entry.action == "orphan_right").collect();
    ensure_eq!(orphaned.len(), lost.len(), "each loss is recorded once");
    ensure_eq!(orders(entries).len() as u64, all);
    Ok(())
}

/// The sweep finds the rights of holders that are lost: operators see them, and how many there are.
async fn are_found_orphaned(stack: &Stack, lost: &[String]) -> Result<()> {
    wait::until_async("the lost rights", Duration::from_secs(60), || async {
        let found = outstanding(stack, "roomy&orphaned=true").await?;
        let counted = stack.server.metric("sluice_rights_orphaned", &[]).unwrap_or_default();
        let all = lost.iter().all(|right_id| found.contains(right_id)) && counted == lost.len() as f64;
        Ok(all.then_some(()))
    })
    .await
}

/// The rights of an account that are outstanding.
async fn outstanding(stack: &Stack, merchant: &str) -> Result<Vec<String>> {
    let page = stack.caller().get(&format!("/rights?merchant_id={merchant}&limit=500")).await?.json();
    let items = page["items"].as_array().into_iter().flatten();
    Ok(items.filter_map(|item| item["right_id"].as_str().map(str::to_owned)).collect())
}
