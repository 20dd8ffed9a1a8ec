//! What a payment costs in the worker: calls into the proxy, instructions of the module, and memory. The first two are exact, so
//! that a change that makes payments dearer has to say so here.

use serde_json::json;

use crate::proxy::{PAUSE, Proxy, batch, passes};
use crate::{BODY, PAYMENT, proxy};

/// Calls into the proxy for each admitted and paid payment: headers, mode, a stripped header; body, time; context, histogram,
/// three headers for the gateway, going on; status, flags, filter state.
const HOST_CALLS: usize = 14;
/// Those for each call to the server: context, answer, time, the next call, histogram, counter.
const HOST_CALLS_OF_A_CALL: usize = 6;
/// Most instructions of the module for a payment.
const INSTRUCTIONS_MAX: u64 = 85_000;
/// Most bytes of the module's memory for a stream whose body is awaited, and for one whose question waits.
const STREAM_BYTES_MAX: [usize; 2] = [1_000, 2_500];

/// A request that is read, and waits for its answer. HTTP/1 tells of a body twice.
fn asked(proxy: &mut Proxy) -> u32 {
    let context = proxy.open(PAYMENT);
    assert_eq!(proxy.headers(context, false), PAUSE);
    proxy.body(context, BODY, false);
    proxy.body(context, b"", true);
    context
}

/// So many payments at once, from their headers to their logs.
fn pay(proxy: &mut Proxy, count: usize) {
    let streams: Vec<u32> = (0..count).map(|_| asked(proxy)).collect();
    let mut left = count;
    while left > 0 {
        let call = proxy.one_call();
        let size = if left == count { 1 } else { left.min(32) };
        proxy.answer(call.token, &if size == 1 { passes("ADMITTED") } else { batch(&vec![passes("ADMITTED"); size]) });
        left -= size;
    }
    for context in streams {
        assert!(proxy.reached_gateway(context));
        proxy.response_headers(context, 200, 0);
        proxy.close(context, Some(200), 0);
        proxy.host_mut().streams.remove(&context);
    }
}

#[test]
fn calls_and_instructions_of_a_payment() {
    let mut proxy = proxy(&json!({}));
    // The first of all, and the first that waits, set up what the others find.
    pay(&mut proxy, 2);
    for (count, calls_out) in [(1, 1), (2, 2), (11, 2), (33, 2), (65, 3)] {
        let (instructions, calls) = (proxy.instructions(), proxy.host().calls.len());
        pay(&mut proxy, count);
        let calls = proxy.host().calls.len() - calls;
        let expected = count * HOST_CALLS + calls_out * HOST_CALLS_OF_A_CALL;
        assert_eq!(calls, expected, "{count}: {:#?}", proxy.host().calls.iter().rev().take(40).collect::<Vec<_>>());
        let instructions = (proxy.instructions() - instructions) / count as u64;
        assert!(instructions <= INSTRUCTIONS_MAX, "{count}: {instructions}");
    }
}

#[test]
fn memory_does_not_grow_with_payments_and_is_bounded_by_streams() {
    let mut proxy = proxy(&json!({}));
    let many = |proxy: &mut Proxy, count: usize| {
        for _ in 0..count {
            pay(proxy, 33);
            proxy.host_mut().calls.clear();
        }
    };
    many(&mut proxy, 20);
    let before = proxy.memory_bytes();
    assert!(before <= 2 << 20, "{before}");
    many(&mut proxy, 600);
    assert_eq!(proxy.memory_bytes(), before, "after 20,000 payments");
    let waits: [fn(&mut Proxy); 2] = [
        |proxy| {
            let context = proxy.open(PAYMENT);
            proxy.headers(context, false);
        },
        |proxy| {
            asked(proxy);
        },
    ];
    for (wait, most) in waits.into_iter().zip(STREAM_BYTES_MAX) {
        let before = proxy.memory_bytes();
        for _ in 0..4_000 {
            wait(&mut proxy);
        }
        let bytes = (proxy.memory_bytes() - before) / 4_000;
        assert!(bytes <= most, "{bytes}");
    }
}
