//! The decision server goes away, hangs, is killed in the middle of its work and comes back, under payments. No payment waits
//! longer than its time, none is lost, none is counted twice.

use std::time::{Duration, Instant};

use e2e::client::{Client, Payment, Protocol};
use e2e::stack::{Stack, StackOptions};
use e2e::{Context, Failure, Result, Service, wait};

use crate::books::{books_agree, settles_at, voids_done};
use crate::logs::outcome;
use crate::no_answer::unavailable;
use crate::suite::{Suite, options};

/// The filter's own time is half a second; the rest is a busy machine's.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Envoy notices a dead connection within two seconds, and tries a dead server again with growing pauses.
const BACK_WITHIN: Duration = Duration::from_secs(20);

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("server::is_down", async || {
        let mut stack = Stack::start(&patient()?)?;
        is_down(&mut stack).await.inspect_err(|_| stack.dir().keep())
    });
    suite.owned("server::hangs_and_goes_on", options(), hangs_and_goes_on);
    suite.owned("server::the_client_leaves_while_it_hangs", options(), the_client_leaves_while_it_hangs);
}

/// Ten seconds for a check, so that an answer that comes sooner was not waited for.
fn patient() -> Result<StackOptions> {
    let mut plugin = StackOptions::shipped_plugin()?;
    for rule in plugin["rules"].as_array_mut().into_iter().flatten() {
        rule["timeout_ms"] = 10_000.into();
    }
    Ok(StackOptions { plugin: Some(plugin), ..options() })
}

/// Where nothing listens, payments are refused at once.
async fn is_down(stack: &mut Stack) -> Result<()> {
    stack.server.kill()?;
    for protocol in Protocol::BOTH {
        for path in ["/v1/payments", "/native/v1/payments"] {
            let merchant = format!("down-{protocol:?}");
            let order = format!("{merchant}-{}", path.len());
            let since = Instant::now();
            let answer = stack.send(protocol, Payment::new(&merchant, &order, 6_000).path(path).call()).await?;
            let took = since.elapsed();
            ensure!(took < Duration::from_secs(5), "{path}: answered after {took:?}");
            ensure!(stack.gateway.seen_order(&order).is_empty(), "{path}: the gateway saw it");
            if path == "/v1/payments" {
                unavailable(&answer)?;
            } else {
                // Envoy's own filter has no body for this.
                ensure_eq!(answer.status, 503, "{path}");
            }
        }
    }
    stack.server.restart()?;
    let payment = Payment::new("down-after", "down-after-1", 6_000);
    pay_until_admitted(stack, Protocol::Http1, &payment).await?;
    voids_done(stack).await?;
    settles_at(stack, "down-after", (6_000, 1)).await
}

/// A client's own repetition of a payment that was answered 503, until it is admitted.
pub(crate) async fn pay_until_admitted(stack: &Stack, protocol: Protocol, payment: &Payment) -> Result<()> {
    wait::until_async("an admitted payment", BACK_WITHIN, || async {
        let answer = stack.send(protocol, payment.call()).await?;
        match answer.status {
            200 => Ok(Some(())),
            503 => Ok(None),
            _ => Err(Failure::new(format!("{} {}", answer.status, answer.json()))),
        }
    })
    .await
}

/// The server hangs, as in a long pause of its machine: payments are answered in time. When it goes on, what it charges late
/// is returned, and the retry of the same order is charged once.
async fn hangs_and_goes_on(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        let merchant = format!("hanging-{protocol:?}");
        let payment = Payment::new(&merchant, &format!("{merchant}-1"), 6_000);
        let mut client = stack.client(protocol).await?;
        ensure_eq!(client.send(Payment::new(&merchant, &format!("{merchant}-0"), 1_000).call()).await?.status, 200);
        stack.server.pause()?;
        for _ in 0..3 {
            let since = Instant::now();
            let answer = client.send(payment.call()).await?;
            let took = since.elapsed();
            ensure!(took < ANSWERED_WITHIN, "answered after {took:?}");
            unavailable(&answer)?;
        }
        ensure!(stack.gateway.seen_order(&format!("{merchant}-1")).is_empty(), "the gateway saw it");
        stack.server.resume()?;
        voids_done(stack).await.context("before the retry")?;
        settles_at(stack, &merchant, (1_000, 1)).await.context("before the retry")?;
        pay_until_admitted(stack, protocol, &payment).await?;
        voids_done(stack).await?;
        settles_at(stack, &merchant, (7_000, 2)).await?;
        books_agree(stack, &merchant).await?;
    }
    Ok(())
}

/// A client that leaves while its payment is being decided, and comes back with the same order before, while and after the
/// first attempt is taken back.
async fn the_client_leaves_while_it_hangs(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        let merchant = format!("impatient-{protocol:?}");
        let order = format!("{merchant}-1");
        let payment = Payment::new(&merchant, &order, 6_000);
        let mut client = stack.client(protocol).await?;
        ensure_eq!(client.send(Payment::new(&merchant, &format!("{merchant}-0"), 1_000).call()).await?.status, 200);
        stack.server.pause()?;
        leave_while_pending(stack, protocol, client, &payment).await?;
        ensure_eq!(outcome(&stack.envoy, &order)?, "client_gone");
        stack.server.resume()?;
        pay_until_admitted(stack, protocol, &payment).await?;
        voids_done(stack).await?;
        settles_at(stack, &merchant, (7_000, 2)).await?;
        ensure_eq!(stack.gateway.seen_order(&order).len(), 1, "payments at the gateway");
        // The order is as good as any other: a repetition counts nothing, and another amount is a conflict.
        let again = stack.send(protocol, payment.call()).await?;
        ensure_eq!(again.status, 200, "{}", again.json());
        let other = stack.send(protocol, Payment::new(&merchant, &order, 6_001).call()).await?;
        ensure_eq!((other.status, other.code().as_str()), (409, "IDEMPOTENCY_CONFLICT"));
        settles_at(stack, &merchant, (7_000, 2)).await?;
        books_agree(stack, &merchant).await?;
    }
    Ok(())
}

/// Sends a payment and leaves as soon as the server was asked: HTTP/1.1 closes its connection, HTTP/2 resets the stream.
async fn leave_while_pending(stack: &Stack, protocol: Protocol, mut client: Client, payment: &Payment) -> Result<()> {
    let gone = stack.envoy.metric("sluice_client_gone")?;
    let pending = wait::until_async("a pending check", Duration::from_secs(5), || async {
        Ok((stack.envoy.metric("envoy_cluster_upstream_rq_active")? >= 1.0).then_some(()))
    });
    tokio::select! {
        answer = client.send(payment.call()) => return Err(Failure::new(format!("answered: {answer:?}"))),
        pending = pending => pending?,
    }
    // HTTP/2 resets the stream of a dropped call; HTTP/1.1 has nothing to reset but the connection.
    let client = Some(client).filter(|_| protocol == Protocol::Http2);
    wait::until_async("the client gone", Duration::from_secs(5), || async {
        Ok((stack.envoy.metric("sluice_client_gone")? > gone).then_some(()))
    })
    .await?;
    drop(client);
    Ok(())
}
