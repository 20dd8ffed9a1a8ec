//! Payments that are held back: the timer that wakes them, and what may happen meanwhile.

use serde_json::json;

use filter::delays::{DELAY_MS_MAX, RESUMED_PER_TICK_MAX, TICK_MS, WAITING_MAX};

use super::proxy::{Proxy, delays, passes, question};
use super::{HEAD_PAYMENT, proxy};

/// The client left: no status, the flag DC.
const GONE: (Option<u16>, u64) = (None, 1 << 14);

/// A payment that is held back for so long from now on, with its attempt.
pub(crate) fn delayed(proxy: &mut Proxy, delay_ms: u32) -> (u32, String) {
    let context = proxy.open(HEAD_PAYMENT);
    proxy.headers(context, true);
    let call = proxy.one_call();
    proxy.answer(call.token, &delays(delay_ms));
    assert!(!proxy.reached_gateway(context));
    (context, question(&call)["attempt"].clone())
}

#[test]
fn each_stream_goes_on_at_its_own_time() {
    let mut proxy = proxy(&json!({}));
    let delays_ms = [260, 100, 40, 1_000, 100, 30_000, DELAY_MS_MAX + 1];
    let streams: Vec<u32> = delays_ms.iter().map(|delay_ms| delayed(&mut proxy, *delay_ms).0).collect();
    let mut went_on = Vec::new();
    while proxy.host().monotonic_ms < 40_000 {
        proxy.tick();
        for (stream, delay_ms) in streams.iter().zip(delays_ms) {
            if proxy.stream(*stream).resumed && !went_on.iter().any(|(own, _)| own == stream) {
                went_on.push((*stream, delay_ms));
                // To the millisecond, by a timer that is set for it.
                assert_eq!(proxy.host().monotonic_ms, u64::from(delay_ms.min(DELAY_MS_MAX)));
            }
        }
    }
    let order: Vec<u32> = went_on.iter().map(|(_, delay_ms)| *delay_ms).collect();
    assert_eq!(order, [40, 100, 100, 260, 1_000, 30_000, DELAY_MS_MAX + 1]);
    assert_eq!(proxy.host().tick_period_ms, TICK_MS, "nothing waits, so the timer is slow again");
    assert_eq!(proxy.metric("sluice_delayed"), 7);
}

#[test]
fn a_client_that_leaves_meanwhile_gets_its_quota_back() {
    let mut proxy = proxy(&json!({}));
    let (gone, attempt) = delayed(&mut proxy, 100);
    let (stays, _) = delayed(&mut proxy, 150);
    proxy.close(gone, GONE.0, GONE.1);
    let void = proxy.one_call();
    let asked = question(&void);
    assert_eq!((asked["action"].as_str(), asked["reason"].as_str()), ("void", "client_gone"));
    assert_eq!(asked["attempt"], attempt);
    proxy.answer(void.token, &passes("VOIDED"));
    for _ in 0..5 {
        proxy.tick();
    }
    assert!(!proxy.reached_gateway(gone) && proxy.reached_gateway(stays));
    assert_eq!(proxy.state(gone)["outcome"], "client_gone");
    assert_eq!(proxy.metric("sluice_client_gone"), 1);
    assert!(proxy.new_calls().is_empty());
}

#[test]
fn many_that_are_due_at_once_go_on_in_parts() {
    let mut proxy = proxy(&json!({}));
    let streams: Vec<u32> = (0..RESUMED_PER_TICK_MAX * 2 + 1).map(|_| delayed(&mut proxy, 200).0).collect();
    let gone_on = |proxy: &mut Proxy| streams.iter().filter(|stream| proxy.stream(**stream).resumed).count();
    for expected in [RESUMED_PER_TICK_MAX, RESUMED_PER_TICK_MAX * 2, streams.len()] {
        proxy.tick();
        assert_eq!(gone_on(&mut proxy), expected);
    }
    assert_eq!(proxy.host().monotonic_ms, 202, "the rest follows at once");
}

#[test]
fn too_many_are_refused_and_charged_nothing() {
    let mut proxy = proxy(&json!({}));
    let first = delayed(&mut proxy, 1_000).0;
    for _ in 1..WAITING_MAX {
        delayed(&mut proxy, 1_000);
    }
    let (refused, attempt) = delayed(&mut proxy, 1_000);
    let reply = proxy.stream(refused).reply.clone().unwrap();
    assert_eq!(reply.status, 429);
    assert!(reply.headers.contains(&("retry-after".into(), "1".into())), "{:?}", reply.headers);
    assert!(reply.body.contains("\"code\":\"THROTTLED\""), "{}", reply.body);
    let call = proxy.one_call();
    let void = question(&call);
    assert_eq!((void["attempt"].as_str(), void["reason"].as_str()), (attempt.as_str(), "not_delayed"));
    proxy.answer(call.token, &passes("VOIDED"));
    // A client that leaves makes room.
    proxy.close(first, GONE.0, GONE.1);
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("VOIDED"));
    let next = delayed(&mut proxy, 1_000).0;
    assert!(proxy.stream(next).reply.is_none());
    assert_eq!((proxy.metric("sluice_delayed"), proxy.metric("sluice_not_delayed")), (WAITING_MAX as u64 + 1, 1));
}

#[test]
fn no_payment_waits_on_a_shadow_route() {
    let mut proxy = proxy(&json!({}));
    let context = proxy.open(HEAD_PAYMENT);
    proxy.set_mode(context, "shadow");
    proxy.headers(context, true);
    let call = proxy.one_call();
    proxy.answer(call.token, &delays(1_000));
    assert!(proxy.reached_gateway(context));
    assert_eq!(proxy.metric("sluice_delayed"), 0);
}
