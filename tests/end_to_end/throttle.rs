//! Payments past their limit are held back at the proxy, for real and without holding up anybody else.

use std::time::{Duration, Instant};

use proto::header;
use testkit::books::{books_agree, settles_at};
use testkit::client::{Answer, Payment, Protocol, send_once};
use testkit::policies;
use testkit::stack::{Stack, StackOptions};
use testkit::{Result, wait};

use crate::logs::{lines_of, outcome};
use crate::suite::{Suite, patient};

/// Longer than the longest delay here.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// What each merchant's day takes before the pace begins.
const DAY: u64 = 1_000;

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("throttle::payments_wait_for_their_turn", throttled(), wait_for_their_turn);
    suite.owned("throttle::a_client_that_leaves_gets_its_quota_back", throttled(), a_client_leaves);
    suite.owned("throttle::a_turn_too_far_away_is_refused", throttled(), too_far_away);
}

/// Merchants for each protocol: some are paced every 1.5 seconds, some every 30 seconds, some never wait.
fn throttled() -> StackOptions {
    let pace = |name: &str, per_minute: u32, delay_ms_max: u32| {
        let merchants = Protocol::BOTH.map(|protocol| {
            format!(
                "{name}-{protocol:?}: {{daily_amount: {DAY}, breach: {{throttle: {{per_minute: {per_minute}, burst: 1, \
                 delay_ms_max: {delay_ms_max}, ceiling_percent: 1000}}}}}}"
            )
        });
        merchants.join("\n")
    };
    let merchants = [pace("paced", 40, 30_000), pace("slow", 2, 30_000), pace("prompt", 2, 0)].join("\n");
    StackOptions { policies: Some(policies::with("v1", &merchants)), ..patient() }
}

/// Uses the day up, and the turn that is free at once.
async fn use_up(stack: &Stack, protocol: Protocol, merchant: &str) -> Result<()> {
    for (number, cents) in [(1, DAY), (2, 100)] {
        let payment = Payment::new(merchant, &format!("{merchant}-{number}"), cents);
        let answer = stack.send(protocol, payment.call()).await?;
        ensure_eq!(answer.status, 200, "{}", answer.json());
    }
    Ok(())
}

async fn timed(stack: &Stack, protocol: Protocol, payment: &Payment) -> Result<(Answer, Duration)> {
    let began = Instant::now();
    let answer = stack.send(protocol, payment.call()).await?;
    Ok((answer, began.elapsed()))
}

/// The delay that the gateway was sent.
fn delay_of(stack: &Stack, order: &str) -> Result<Option<u64>> {
    let seen = stack.gateway.seen_order(order);
    ensure_eq!(seen.len(), 1, "requests of {order} at the gateway");
    Ok(seen[0].headers.get(header::DELAY_MS).and_then(|value| value.to_str().ok()?.parse().ok()))
}

/// Three payments at once past the limit: each takes at least as long as its delay, and they go on in their turns.
async fn wait_for_their_turn(stack: &mut Stack) -> Result<()> {
    let stack = &*stack;
    for protocol in Protocol::BOTH {
        let merchant = format!("paced-{protocol:?}");
        use_up(stack, protocol, &merchant).await?;
        let payments = [3, 4, 5].map(|number| Payment::new(&merchant, &format!("{merchant}-{number}"), 100));
        let [first, second, third] = &payments;
        let all = tokio::try_join!(
            timed(stack, protocol, first),
            timed(stack, protocol, second),
            timed(stack, protocol, third)
        )?;
        let mut delays = Vec::new();
        for (number, (answer, took)) in [3, 4, 5].into_iter().zip([all.0, all.1, all.2]) {
            ensure_eq!(answer.status, 200, "{}", answer.json());
            let order = format!("{merchant}-{number}");
            let delay_ms = delay_of(stack, &order)?.unwrap_or_default();
            ensure!(took >= Duration::from_millis(delay_ms), "{order} took {took:?}, its delay was {delay_ms} ms");
            ensure_eq!(lines_of(&stack.envoy, &order, 1)?[0]["sluice"]["outcome"], "kept");
            if delay_ms > 0 {
                ensure_eq!(lines_of(&stack.envoy, &order, 1)?[0]["sluice"]["delay_ms"], delay_ms);
            }
            delays.push((delay_ms, order));
        }
        delays.sort();
        // The last turn of three is more than a second away even if the first two came late.
        ensure!(delays[2].0 > 1_000, "{delays:?}");
        let arrived = stack.gateway.seen().into_iter().filter_map(|seen| seen.order_no);
        let arrived: Vec<_> = arrived.filter(|order| delays.iter().any(|(_, own)| own == order)).collect();
        let turns: Vec<_> = delays.iter().map(|(_, order)| order.clone()).collect();
        ensure_eq!(arrived, turns, "the order at the gateway");
        settles_at(stack, &merchant, (DAY + 400, 5)).await?;
        books_agree(stack, &merchant).await?;
    }
    let delayed = stack.envoy.metric("sluice_delayed")?;
    ensure!(delayed >= 2.0, "{delayed} were held back");
    ensure!(stack.envoy.metric("sluice_host_failed")?.abs() < 0.5, "a call into the proxy failed");
    Ok(())
}

/// Half a minute is more than anybody waits: the client goes, its quota comes back, and the payment never reaches the gateway.
/// Others are answered meanwhile, by the same worker.
async fn a_client_leaves(stack: &mut Stack) -> Result<()> {
    let stack = &*stack;
    for (number, protocol) in (1_u32..).zip(Protocol::BOTH) {
        let merchant = format!("slow-{protocol:?}");
        let order = format!("{merchant}-3");
        use_up(stack, protocol, &merchant).await?;
        let payment = Payment::new(&merchant, &order, 100);
        let sending = tokio::spawn(send_once(stack.envoy.address(), protocol, payment.call()));
        wait::until("a payment that is held back", SEEN_WITHIN, || {
            Ok((stack.envoy.metric("sluice_delayed")? >= f64::from(number)).then_some(()))
        })?;
        settles_at(stack, &merchant, (DAY + 200, 3)).await?;
        let others = Payment::new(&format!("other-{protocol:?}"), &format!("other-{protocol:?}-1"), 100);
        ensure_eq!(stack.send(protocol, others.call()).await?.status, 200);
        ensure!(!sending.is_finished(), "it was answered before its turn");
        sending.abort();
        settles_at(stack, &merchant, (DAY + 100, 2)).await?;
        ensure_eq!(outcome(&stack.envoy, &order)?, "client_gone");
        ensure!(stack.gateway.seen_order(&order).is_empty(), "it reached the gateway");
        let entries = books_agree(stack, &merchant).await?;
        let last = entries.last().map(|entry| (entry.code.clone(), entry.reason.clone()));
        ensure_eq!(last, Some(("VOIDED".to_owned(), Some("client_gone".to_owned()))));
    }
    Ok(())
}

/// Where no payment may wait, the next one is refused, and its answer states when to come again; nothing is charged for
/// it.
async fn too_far_away(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        let merchant = format!("prompt-{protocol:?}");
        use_up(stack, protocol, &merchant).await?;
        // On either kind of route: Envoy's own filter cannot hold anything back anyway.
        for (number, path) in [(3, "/v1/payments"), (4, "/native/v1/payments")] {
            let payment = Payment::new(&merchant, &format!("{merchant}-{number}"), 100).path(path);
            let answer = stack.send(protocol, payment.call()).await?;
            ensure_eq!((answer.status, answer.code().as_str()), (429, "THROTTLED"), "{path}");
            let retry_after = answer.header(header::RETRY_AFTER).and_then(|value| value.parse::<u64>().ok());
            ensure!(retry_after.is_some_and(|seconds| (1..=30).contains(&seconds)), "{path}: {retry_after:?}");
        }
        settles_at(stack, &merchant, (DAY + 100, 2)).await?;
        books_agree(stack, &merchant).await?;
    }
    Ok(())
}
