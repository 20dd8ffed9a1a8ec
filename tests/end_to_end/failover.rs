//! F2: Redis fails over to its replica under payments, as managed services and Sentinel do it: connections to the old primary stay,
//! or are closed when it is a replica already, and new ones lead to the successor.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::books::settles_at;
use testkit::client::{Payment, Protocol};
use testkit::failover::{address, demote, follow, kill_clients, promote};
use testkit::forward::Forwarder;
use testkit::redis::Redis;
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result};

use crate::server::pay_until_admitted;
use crate::suite::{Suite, patient};
use crate::traffic::{PATIENT, Traffic, roomy};

/// From the successor's address on, payments are decided again.
const BACK_WITHIN: Duration = Duration::from_secs(2);

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("failover::f2_connections_to_a_demoted_primary_stay_open", async || {
        with_replica(async |stack, successor| stay_open(stack, successor).await).await
    });
    suite.alone("failover::f2_sentinel_closes_the_connections_of_clients", async || {
        with_replica(async |stack, successor| closed_by_sentinel(stack, successor).await).await
    });
}

/// A stack that reaches Redis by an address that can lead elsewhere, and a replica of that Redis.
async fn with_replica(test: impl AsyncFnOnce(&mut Stack, Redis) -> Result<()>) -> Result<()> {
    let options = StackOptions { redis_through: Some(Forwarder::start()?), ..roomy(patient()) };
    let mut stack = Stack::start(&options)?;
    let replica = Redis::start()?;
    follow(&replica, &stack.redis).await?;
    test(&mut stack, replica).await.inspect_err(|_| stack.dir().keep())
}

fn forwarder(stack: &Stack) -> Result<&Forwarder> {
    stack.redis_through.as_ref().ok_or_else(|| Failure::new("the stack has no forwarder"))
}

/// No payment is refused: what the old primary refuses it has not done, and the successor is asked.
async fn stay_open(stack: &mut Stack, successor: Redis) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    traffic.answers(200).await?;
    promote(&successor, &stack.redis).await?;
    forwarder(stack)?.lead_to(address(&successor));
    demote(&stack.redis, &successor).await?;
    let old = std::mem::replace(&mut stack.redis, successor);
    traffic.answers(300).await?;
    follow_api(stack).await?;
    // And back, as after a second failover.
    promote(&old, &stack.redis).await?;
    forwarder(stack)?.lead_to(address(&old));
    demote(&stack.redis, &old).await?;
    let new = std::mem::replace(&mut stack.redis, old);
    traffic.answers(300).await?;
    let refused = traffic.judge(stack, PATIENT).await?;
    drop(new);
    ensure_eq!(refused, 0, "payments were refused");
    Ok(())
}

/// The API's own connection follows as well, and shows what the successor has.
async fn follow_api(stack: &Stack) -> Result<()> {
    let charge = json!({"merchant_id": "by-api", "currency": "USD", "amount": 700, "order_no": "by-api-1"});
    let answer = stack.caller().post("/quotas/consume", &charge).await?;
    ensure_eq!(answer.status, 200, "{}", answer.json());
    settles_at(stack, "by-api", (700, 1)).await
}

/// Sentinel demotes the old primary and ends its clients' connections; its address leads to the old one until the name is changed.
async fn closed_by_sentinel(stack: &mut Stack, successor: Redis) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    traffic.answers(200).await?;
    promote(&successor, &stack.redis).await?;
    demote(&stack.redis, &successor).await?;
    kill_clients(&stack.redis).await?;
    traffic.refusals(4).await?;
    forwarder(stack)?.lead_to(address(&successor));
    let since = Instant::now();
    let old = std::mem::replace(&mut stack.redis, successor);
    for protocol in Protocol::BOTH {
        pay_until_admitted(stack, protocol, &Payment::new("after", &format!("after-{protocol:?}"), 100)).await?;
    }
    let took = since.elapsed();
    ensure!(took < BACK_WITHIN, "payments were decided {took:?} after the address led to the successor");
    traffic.answers(200).await?;
    traffic.judge(stack, PATIENT).await?;
    drop(old);
    Ok(())
}
