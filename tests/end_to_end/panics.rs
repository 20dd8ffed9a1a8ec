//! The native module panics, in a callback or on its thread: that costs the payments that it had in hand, Envoy lives, and the next
//! payment is decided.

use std::time::{Duration, Instant};

use testkit::Result;
use testkit::books::{books_agree, settles_at, voids_done};
use testkit::build::{self, NativeModule};
use testkit::client::{Payment, Protocol};
use testkit::envoy::{EnvoyConfig, Host};
use testkit::stack::{Stack, StackOptions};
use testkit::{Service, wait};

use crate::no_answer::unavailable;
use crate::server::pay_until_admitted;
use crate::suite::{Suite, patient, wait_longer};

pub(crate) fn add(suite: &mut Suite) {
    let options = StackOptions { host: Some(Host::Native), change: Some(trapping), ..patient() };
    suite.owned("panics::q10_a_panic_costs_its_own_payment", options.clone(), its_own_payment);
    suite.owned("panics::q10_a_panic_of_the_thread_costs_what_waits", options, what_waits);
}

fn trapping(config: &mut EnvoyConfig) -> Result<()> {
    config.set_filter(&build::filter_native(NativeModule::Trapping, false)?)?;
    wait_longer(config)
}

async fn its_own_payment(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        let merchant = format!("panics-{protocol:?}");
        let before = stack.envoy.metric("sluice_panicked")?;
        let pay = |number: u32| Payment::new(&merchant, &format!("{merchant}-{number}"), 1_000);
        let mut client = stack.client(protocol).await?;
        unavailable(&client.send(pay(1).call().header("x-trap", "request")).await?)?;
        ensure!(stack.gateway.seen_order(&format!("{merchant}-1")).is_empty(), "the gateway saw it");
        // The payment is made, and its charge stays: what the filter would have reported of it is lost.
        ensure_eq!(client.send(pay(2).call().header("x-trap", "answer")).await?.status, 200);
        ensure_eq!(client.send(pay(3).call()).await?.status, 200, "the next one");
        ensure_eq!(stack.envoy.metric("sluice_panicked")? - before, 2.0);
        settles_at(stack, &merchant, (2_000, 2)).await?;
        books_agree(stack, &merchant).await?;
    }
    Ok(())
}

/// A payment waits for a server that hangs when the thread panics: it is answered at once, long before its deadline.
async fn what_waits(stack: &mut Stack) -> Result<()> {
    let order = |number: u32| Payment::new("thread", &format!("thread-{number}"), 1_000);
    pay_until_admitted(stack, Protocol::Http1, &order(0)).await?;
    stack.server.pause()?;
    let since = Instant::now();
    let mut waits = stack.client(Protocol::Http1).await?;
    let waiting = tokio::spawn(async move { waits.send(order(1).call()).await });
    wait::until_async("a call in flight", Duration::from_secs(5), || async {
        Ok((stack.envoy.metric("sluice_calls_active")? >= 1.0).then_some(()))
    })
    .await?;
    let mut panics = stack.client(Protocol::Http2).await?;
    let panicking = tokio::spawn(async move { panics.send(order(2).call().header("x-trap", "thread")).await });
    unavailable(&waiting.await??)?;
    ensure!(since.elapsed() < Duration::from_secs(5), "answered after {:?}", since.elapsed());
    stack.server.resume()?;
    ensure_eq!(panicking.await??.status, 200, "what came after the panic");
    ensure_eq!(stack.envoy.metric("sluice_panicked")?, 1.0);
    voids_done(stack).await?;
    settles_at(stack, "thread", (2_000, 2)).await?;
    pay_until_admitted(stack, Protocol::Http2, &order(1)).await?;
    settles_at(stack, "thread", (3_000, 3)).await?;
    books_agree(stack, "thread").await.map(drop)
}
