//! The decision server goes away, hangs, is killed in the middle of its work and comes back, under payments. No payment waits
//! longer than its time, none is lost, none is counted twice.

use std::time::{Duration, Instant};

use testkit::books::{books_agree, settles_at, voids_done};
use testkit::client::{Answer, Client, Payment, Protocol};
use testkit::envoy::Host;
use testkit::stack::Stack;
use testkit::{Context, Failure, Result, Service, wait};

use crate::logs::outcome;
use crate::no_answer::unavailable;
use crate::suite::{Suite, patient, prompt};

/// The filter's own time is half a second; the rest is a busy machine's.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Envoy notices a dead connection within two seconds, and tries a dead server again with growing pauses.
const BACK_WITHIN: Duration = Duration::from_secs(20);

pub(crate) fn add(suite: &mut Suite) {
    // With ten seconds for a check: an answer that comes sooner was not waited for.
    suite.owned("server::is_down", patient(), is_down);
    suite.owned("server::hangs_and_goes_on", prompt(), hangs_and_goes_on);
    suite.owned("server::hangs_and_goes_on_natively", prompt(), hangs_natively);
    suite.owned("server::the_client_leaves_while_it_hangs", prompt(), the_client_leaves_while_it_hangs);
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
    let answer = pay_until_decided(stack, protocol, payment).await?;
    ensure_eq!(answer.status, 200, "{}", answer.json());
    Ok(())
}

/// The same, until it is answered otherwise than 503.
async fn pay_until_decided(stack: &Stack, protocol: Protocol, payment: &Payment) -> Result<Answer> {
    wait::until_async("a decided payment", BACK_WITHIN, || async {
        Ok(Some(stack.send(protocol, payment.call()).await?).filter(|answer| answer.status != 503))
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
        pay_until_admitted(stack, protocol, &Payment::new(&merchant, &format!("{merchant}-0"), 1_000)).await?;
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

/// The same through Envoy's own ext_authz, which voids nothing: the server returns what it charged too late by itself.
async fn hangs_natively(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        let merchant = format!("native-{protocol:?}");
        let payment = |number: u32, cents: u64| {
            Payment::new(&merchant, &format!("{merchant}-{number}"), cents).path("/native/v1/payments")
        };
        pay_until_admitted(stack, protocol, &payment(0, 1_000)).await?;
        stack.server.pause()?;
        for number in 1..=3 {
            let since = Instant::now();
            let answer = stack.send(protocol, payment(number, 1_000).call()).await?;
            let took = since.elapsed();
            ensure!(answer.status == 503 && took < ANSWERED_WITHIN, "{} after {took:?}", answer.status);
        }
        stack.server.resume()?;
        pay_until_admitted(stack, protocol, &payment(4, 1_000)).await?;
        settles_at(stack, &merchant, (2_000, 2)).await?;
        for number in 1..=3 {
            let order = format!("{merchant}-{number}");
            ensure!(stack.gateway.seen_order(&order).is_empty(), "{order} reached the gateway");
        }
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
        let client = stack.client(protocol).await?;
        pay_until_admitted(stack, protocol, &Payment::new(&merchant, &format!("{merchant}-0"), 1_000)).await?;
        stack.server.pause()?;
        leave_while_pending(stack, protocol, client, &payment).await?;
        ensure_eq!(outcome(&stack.envoy, &order)?, "client_gone");
        stack.server.resume()?;
        pay_until_admitted(stack, protocol, &payment).await?;
        voids_done(stack).await?;
        settles_at(stack, &merchant, (7_000, 2)).await?;
        ensure_eq!(stack.gateway.seen_order(&order).len(), 1, "payments at the gateway");
        // The order is as good as any other: a repetition counts nothing, and another amount is a conflict.
        pay_until_admitted(stack, protocol, &payment).await?;
        let other = pay_until_decided(stack, protocol, &Payment::new(&merchant, &order, 6_001)).await?;
        ensure_eq!((other.status, other.code().as_str()), (409, "IDEMPOTENCY_CONFLICT"));
        settles_at(stack, &merchant, (7_000, 2)).await?;
        books_agree(stack, &merchant).await?;
    }
    Ok(())
}

/// Sends a payment and leaves as soon as the server was asked: HTTP/1.1 closes its connection, HTTP/2 resets the stream.
async fn leave_while_pending(stack: &Stack, protocol: Protocol, mut client: Client, payment: &Payment) -> Result<()> {
    let gone = stack.envoy.metric("sluice_client_gone")?;
    let active = match stack.envoy.host() {
        Host::Wasm => "envoy_cluster_upstream_rq_active",
        Host::Native => "sluice_calls_active",
    };
    let pending = wait::until_async("a pending check", Duration::from_secs(5), || async {
        Ok((stack.envoy.metric(active)? >= 1.0).then_some(()))
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
