//! What bounds the waiting of payments that share calls: deadlines, the queue, calls that the proxy does not take, and
//! configurations that change meanwhile. At last everything at once.

use std::collections::BTreeMap;

use serde_json::json;

use filter::batch::{CALLS_MAX, CROWDED_MS, QUEUE_MAX, SLOW_MS};
use filter::delays::TICK_MS;

use super::batches::{ALONE, GONE, answer_held_up, held_up, orders, pay, pay_many, settle, status, waiting};
use super::host::GrpcCall;
use super::proxy::{Answer, CONTINUE, PAUSE, Proxy, batch, passes, question, questions, refuses};
use super::{BODY, PAYMENT, configuration, proxy};

#[test]
fn every_question_keeps_its_own_deadline() {
    let mut configuration = configuration(&json!({}));
    configuration["rules"][1]["timeout_ms"] = json!(90);
    let mut proxy = Proxy::configured(&configuration);
    // The first hangs; what waits behind it goes with what is left of its time.
    pay(&mut proxy, "hangs");
    let hanging = proxy.one_call();
    proxy.host_mut().monotonic_ms = 4;
    let early = pay(&mut proxy, "early");
    proxy.host_mut().monotonic_ms = 24;
    let late = pay(&mut proxy, "late");
    assert!(proxy.new_calls().is_empty());
    proxy.tick_when_due();
    let call = proxy.one_call();
    assert_eq!(orders(&questions(&call)), ["early", "late"]);
    assert_eq!((proxy.host().monotonic_ms, call.timeout_ms), (25, 89), "as long as the last one may wait");
    // The proxy ends the call that hangs. The early one's time is over first, while its question is under way: the timer sees to it.
    proxy.host_mut().monotonic_ms = 90;
    proxy.answer(hanging.token, &Answer::Failed(4));
    while status(&mut proxy, early).is_none() {
        proxy.tick_when_due();
    }
    assert_eq!(proxy.host().monotonic_ms, 94);
    assert_eq!((status(&mut proxy, early), status(&mut proxy, late)), (Some(503), None));
    proxy.answer(call.token, &batch(&[passes("ADMITTED"), passes("ADMITTED")]));
    assert!(!proxy.reached_gateway(early) && proxy.reached_gateway(late));
    let mut sent = settle(&mut proxy);
    sent.sort();
    assert_eq!(sent, ["void early", "void hangs"]);
}

/// Nothing but the timer wakes the filter: a payment that waits behind a lost call is asked for all the same.
#[test]
fn a_payment_behind_a_lost_call_is_asked_for_in_time() {
    for timeout_ms in [100, 500, 30_000] {
        let mut configuration = configuration(&json!({}));
        configuration["rules"][1]["timeout_ms"] = json!(timeout_ms);
        let mut proxy = Proxy::configured(&configuration);
        proxy.host_mut().monotonic_ms = 1_000;
        let lost = pay(&mut proxy, "lost");
        assert_eq!(question(&proxy.one_call())["order_no"], "lost");
        proxy.host_mut().monotonic_ms += 5;
        let behind = pay(&mut proxy, "behind");
        assert!(proxy.new_calls().is_empty());
        proxy.tick_when_due();
        assert_eq!(proxy.host().monotonic_ms, 1_000 + SLOW_MS, "{timeout_ms}");
        let call = proxy.one_call();
        assert_eq!((question(&call)["order_no"].as_str(), call.timeout_ms), ("behind", timeout_ms - 20));
        // The one that comes next waits for this call in its turn.
        proxy.host_mut().monotonic_ms += 1;
        let third = pay(&mut proxy, "third");
        proxy.tick_when_due();
        assert_eq!(proxy.host().monotonic_ms, 1_000 + 2 * SLOW_MS, "{timeout_ms}");
        let third_call = proxy.one_call();
        proxy.answer(call.token, &passes("ADMITTED"));
        proxy.answer(third_call.token, &passes("ADMITTED"));
        assert!(proxy.reached_gateway(behind) && proxy.reached_gateway(third) && !proxy.reached_gateway(lost));
        proxy.tick_when_due();
        assert_eq!(proxy.host().tick_period_ms, TICK_MS, "nothing waits");
    }
}

/// A pool of servers of which one hangs, and a slow route whose answers are all lost: who is asked in turn with them is decided.
#[test]
fn lost_calls_cost_their_own_payments_only() {
    type IsLost = fn(&GrpcCall, usize) -> bool;
    // Every second call is lost; or every one with a payment of the route that waits for 30 seconds, one in 100 ms.
    let table: [(&str, IsLost, usize); 2] =
        [("every second call", |_, number| number % 2 == 1, 85), ("a slow route", |call, _| call.timeout_ms > 500, 65)];
    for (name, is_lost, decided_percent) in table {
        let mut configuration = configuration(&json!({}));
        configuration["rules"][0]["timeout_ms"] = json!(30_000);
        let mut proxy = Proxy::configured(&configuration);
        let (mut streams, mut under_way, mut number) = (Vec::new(), Vec::new(), 0);
        let mut most = 0;
        for now_ms in 1..=6_000_u64 {
            proxy.host_mut().monotonic_ms = now_ms;
            under_way.sort_by_key(|(ends_ms, _, _)| *ends_ms);
            while under_way.first().is_some_and(|(ends_ms, _, _)| *ends_ms <= now_ms) {
                let (_, call, lost): (u64, GrpcCall, bool) = under_way.remove(0);
                let asked = if call.path.ends_with("BatchCheck") { questions(&call).len() } else { 1 };
                let answer = match (lost, asked) {
                    (true, _) => Answer::Failed(4),
                    (false, 1) => passes("ADMITTED"),
                    (false, count) => batch(&vec![passes("ADMITTED"); count]),
                };
                proxy.answer(call.token, &answer);
            }
            if proxy.host().tick_due_ms <= now_ms {
                proxy.tick_when_due();
            }
            if now_ms <= 5_000 {
                streams.push(pay(&mut proxy, &format!("o-{now_ms}")));
            }
            if name == "a slow route" && now_ms % 100 == 0 {
                let slow = proxy.open(PAYMENT);
                proxy.headers(slow, false);
                proxy.body(slow, BODY, true);
            }
            for call in proxy.new_calls() {
                let lost = is_lost(&call, number);
                number += 1;
                let takes_ms = if lost { u64::from(call.timeout_ms) } else { 2 };
                under_way.push((now_ms + takes_ms, call, lost));
            }
            most = most.max(under_way.len());
        }
        let decided = streams.iter().filter(|stream| proxy.reached_gateway(**stream)).count();
        let answered = streams.iter().filter(|stream| status(&mut proxy, **stream) == Some(503)).count();
        assert_eq!(decided + answered, streams.len(), "{name}");
        assert!(decided * 100 >= streams.len() * decided_percent, "{name}: {decided} of {}", streams.len());
        assert!(most <= CALLS_MAX + 6_000 / usize::try_from(CROWDED_MS).unwrap(), "{name}: {most}");
    }
}

/// What a server that hangs costs: every payment is answered at its own deadline, by its rule, and never asked for again.
#[test]
fn a_server_that_hangs_holds_no_payment_longer_than_its_deadline() {
    for (on_error, timeout_ms) in [("deny", 500), ("allow", 500), ("deny", 100), ("allow", 1)] {
        let mut configuration = configuration(&json!({}));
        configuration["rules"][1]["on_error"] = json!(on_error);
        configuration["rules"][1]["timeout_ms"] = json!(timeout_ms);
        let mut proxy = Proxy::configured(&configuration);
        let mut streams: Vec<(u32, u64)> = Vec::new();
        let mut calls: Vec<(u64, GrpcCall)> = Vec::new();
        let mut sent = 0;
        let mut done = 0;
        for now_ms in 0..2_500_u64 {
            proxy.host_mut().monotonic_ms = now_ms;
            if now_ms < 1_500 {
                for order in 0..3 {
                    streams.push((pay(&mut proxy, &format!("{now_ms}-{order}")), now_ms));
                }
            }
            // The proxy ends calls whose time is over.
            let over: Vec<GrpcCall> =
                calls.iter().filter(|(ends_ms, _)| *ends_ms <= now_ms).map(|(_, call)| call.clone()).collect();
            calls.retain(|(ends_ms, _)| *ends_ms > now_ms);
            for call in over {
                proxy.answer(call.token, &Answer::Failed(4));
            }
            if proxy.host().tick_due_ms <= now_ms {
                proxy.tick_when_due();
            }
            for call in proxy.new_calls() {
                sent += 1;
                calls.push((now_ms + u64::from(call.timeout_ms), call));
            }
            while let Some((stream, asked_ms)) = streams.get(done).copied() {
                let answered = status(&mut proxy, stream) == Some(503) || proxy.reached_gateway(stream);
                if !answered {
                    assert!(
                        now_ms <= asked_ms + timeout_ms + 10,
                        "{on_error} {timeout_ms}: {asked_ms} waits at {now_ms}"
                    );
                    break;
                }
                assert!(now_ms >= asked_ms + timeout_ms, "{on_error} {timeout_ms}: {asked_ms} gave up at {now_ms}");
                done += 1;
            }
        }
        assert_eq!(done, streams.len(), "{on_error} {timeout_ms}");
        let (denied, allowed) = (proxy.metric("sluice_no_answer_denied"), proxy.metric("sluice_no_answer_allowed"));
        assert_eq!((denied + allowed, sent > 0), (4_500, true));
        assert_eq!(proxy.metric("sluice_queue_full"), 0);
    }
}

#[test]
fn the_queue_is_bounded() {
    for (on_error, reached) in [("deny", false), ("allow", true)] {
        let mut configuration = configuration(&json!({}));
        configuration["rules"][1]["on_error"] = json!(on_error);
        let mut proxy = Proxy::configured(&configuration);
        let calls = held_up(&mut proxy);
        let streams = pay_many(&mut proxy, 0..QUEUE_MAX);
        let context =
            proxy.open(&[(":method", "POST"), (":path", "/pay/m2?amount=1&currency=EUR"), ("idempotency-key", "full")]);
        assert_eq!(proxy.headers(context, true), if reached { CONTINUE } else { PAUSE });
        assert_eq!(status(&mut proxy, context), (!reached).then_some(503));
        assert_eq!(proxy.metric("sluice_queue_full"), 1);
        // A client that leaves makes room at once.
        proxy.close(streams[0], GONE.0, GONE.1);
        proxy.close(streams[40], GONE.0, GONE.1);
        for (next, fits) in [("next", true), ("last", true), ("more", false)] {
            let context = proxy.open(&[
                (":method", "POST"),
                (":path", "/pay/m2?amount=1&currency=EUR"),
                ("idempotency-key", next),
            ]);
            let waits = proxy.headers(context, true) == PAUSE && status(&mut proxy, context).is_none();
            assert_eq!(waits, fits, "{next}");
        }
        assert_eq!(proxy.metric("sluice_queue_full"), 2);
        answer_held_up(&mut proxy, &calls);
        let first = proxy.new_calls().remove(0);
        assert_eq!(orders(&questions(&first))[0], "o-1");
    }
}

/// The proxy loads another configuration while a batch is under way: streams of the old one keep their root, and their answers.
#[test]
fn a_configuration_is_swapped_while_a_batch_is_in_flight() {
    let mut proxy = proxy(&json!({}));
    let (streams, call) = waiting(&mut proxy, 3);
    let queued = pay(&mut proxy, "queued");
    let newer = 1_000_000_u32;
    let mut second = configuration(&json!({}));
    second["rules"][1]["on_error"] = json!("allow");
    assert!(proxy.configure_root(newer, &second));
    let of_newer = proxy.open_under(
        newer,
        &[(":method", "POST"), (":path", "/pay/m2?amount=1&currency=EUR"), ("idempotency-key", "newer")],
    );
    proxy.headers(of_newer, true);
    let newer_call = proxy.one_call();
    assert_eq!(question(&newer_call)["order_no"], "newer", "one call in flight for each configuration");
    proxy.answer(call.token, &batch(&[passes("ADMITTED"), refuses(), passes("ADMITTED")]));
    let own: Vec<_> =
        streams.iter().map(|stream| (proxy.reached_gateway(*stream), status(&mut proxy, *stream))).collect();
    assert_eq!(own, [(true, None), (false, Some(429)), (true, None)]);
    proxy.answer_to(newer, newer_call.token, &Answer::Failed(4));
    assert!(proxy.reached_gateway(of_newer), "by its own rule");
    let call = proxy.one_call();
    assert_eq!(question(&call)["order_no"], "queued");
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(queued));
}

/// Everything at once, by chance: whatever happens, each stream gets the answer that was meant for it, or is void.
#[test]
fn by_chance_each_gets_its_own() {
    let mut seed = 0x5eed_u64;
    let mut chance = move |of: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % of
    };
    let mut proxy = proxy(&json!({}));
    let mut open: Vec<(u32, String)> = Vec::new();
    let mut calls: Vec<GrpcCall> = Vec::new();
    let mut expected: BTreeMap<String, &str> = BTreeMap::new();
    let (mut number, mut misdelivered) = (0, 0);
    let mut voids = 0;
    for _ in 0..8_000 {
        match chance(10) {
            0..=4 => {
                number += 1;
                let order = format!("n-{number}");
                open.push((pay(&mut proxy, &order), order));
            }
            5 if !open.is_empty() => {
                let at = usize::try_from(chance(open.len() as u64)).unwrap();
                let (stream, _) = open.swap_remove(at);
                let status = status(&mut proxy, stream).map(|status| u16::try_from(status).unwrap());
                proxy.close(stream, status, if status.is_none() { GONE.1 } else { 0 });
            }
            6 => {
                proxy.host_mut().monotonic_ms += 1;
            }
            _ => {
                calls.extend(proxy.new_calls());
                if calls.is_empty() {
                    continue;
                }
                let at = usize::try_from(chance(calls.len() as u64)).unwrap();
                let call = calls.swap_remove(at);
                let asked = if call.path.ends_with("BatchCheck") { questions(&call) } else { vec![question(&call)] };
                let several = asked.len() > 1;
                let answers: Vec<Answer> = asked
                    .iter()
                    .map(|asked| {
                        let order = asked["order_no"].clone();
                        if asked["action"] == "void" {
                            voids += 1;
                            return passes("VOIDED");
                        }
                        let (word, answer) = match chance(8) {
                            0 => ("refused", refuses()),
                            1 => ("none", Answer::Failed(4)),
                            2 if several => ("alone", ALONE),
                            _ => ("admitted", passes("ADMITTED")),
                        };
                        expected.insert(order, word);
                        answer
                    })
                    .collect();
                let answer = if let [one] = &answers[..] { one.clone() } else { batch(&answers) };
                proxy.answer(call.token, &answer);
                for (stream, order) in &open {
                    let got = match status(&mut proxy, *stream) {
                        Some(429) => "refused",
                        Some(503) => "none",
                        Some(_) => "?",
                        None if proxy.reached_gateway(*stream) => "admitted",
                        None => continue,
                    };
                    misdelivered += usize::from(expected.get(order) != Some(&got));
                }
            }
        }
    }
    assert_eq!(misdelivered, 0);
    assert!(number > 2_000 && voids > 40, "{number} {voids}");
    calls.extend(proxy.new_calls());
    for call in calls {
        proxy.answer(call.token, &Answer::Failed(4));
    }
    settle(&mut proxy);
    for _ in 0..10 {
        proxy.tick();
        settle(&mut proxy);
    }
    open.retain(|(stream, _)| status(&mut proxy, *stream).is_none() && !proxy.reached_gateway(*stream));
    assert!(open.is_empty(), "{open:?}");
}
