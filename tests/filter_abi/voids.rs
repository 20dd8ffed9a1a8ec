//! Attempts taken back: after the gateway's answer, when clients leave in each phase, and again until the server has heard.

use serde_json::json;

use crate::host::ROOT;
use crate::proxy::{Answer, Proxy, encoded, passes, question};
use crate::{BODY, HEAD_PAYMENT, PAYMENT, configuration, proxy};

/// The client left: no status, the flag DC.
const GONE: (Option<u16>, u64) = (None, 1 << 14);

/// An admitted payment on its way to the gateway, with its attempt.
fn admitted(proxy: &mut Proxy) -> (u32, String) {
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, BODY, true);
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(context));
    (context, question(&call)["attempt"].clone())
}

#[test]
fn the_gateways_answer_decides_about_the_charge() {
    let own = json!({"void_on": {"statuses": ["402"], "except": []}});
    let table: &[(&serde_json::Value, &[u16], Option<u16>, u64, &str, &str)] = &[
        // the rule, response headers, the log's status and flags, the outcome, the void's reason
        (&json!({}), &[200], Some(200), 0, "kept", ""),
        (&json!({}), &[201], Some(201), 0, "kept", ""),
        (&json!({}), &[100, 200], Some(200), 0, "kept", ""),
        (&json!({}), &[422], Some(422), 0, "voided", "upstream_4xx"),
        (&json!({}), &[100, 500], Some(500), 0, "voided", "upstream_5xx"),
        (&json!({}), &[409], Some(409), 0, "kept", ""),
        (&json!({}), &[504], Some(504), 0, "unknown", ""),
        (&json!({}), &[504], Some(504), 1 << 2, "unknown", ""),
        (&json!({}), &[503], Some(503), 1 << 5, "voided", "upstream_unreached"),
        (&json!({}), &[503], Some(503), 1 << 1, "voided", "upstream_unreached"),
        (&json!({}), &[503], Some(503), 1 << 6, "unknown", ""),
        (&json!({}), &[200], Some(200), 1 << 23, "unknown", ""),
        (&json!({}), &[], None, 1 << 14, "unknown", ""),
        (&json!({}), &[], Some(500), 0, "voided", "upstream_5xx"),
        (&json!({}), &[], None, 1 << 5, "voided", "upstream_unreached"),
        (&own, &[500], Some(500), 0, "kept", ""),
        (&own, &[402], Some(402), 0, "voided", "upstream_4xx"),
    ];
    for (change, statuses, status, flags, outcome, reason) in table {
        let what = format!("{change} {statuses:?} {status:?} {flags}");
        let mut proxy = proxy(change);
        let (context, attempt) = admitted(&mut proxy);
        for status in *statuses {
            proxy.response_headers(context, *status, if *status < 200 { 0 } else { *flags });
        }
        proxy.close(context, *status, *flags);
        let voids = proxy.new_calls();
        assert_eq!(voids.len(), usize::from(*outcome == "voided"), "{what}");
        for void in &voids {
            let asked = question(void);
            let expected = [
                ("action", "void"),
                ("attempt", attempt.as_str()),
                ("currency", "USD"),
                ("merchant", "m1"),
                ("mode", "enforce"),
                ("order_no", "o-1"),
                ("reason", reason),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ];
            assert_eq!(asked, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into(), "{what}");
        }
        assert_eq!(proxy.state(context)["outcome"], *outcome, "{what}");
        assert_eq!(proxy.metric("sluice_unknown"), u64::from(*outcome == "unknown"), "{what}");
    }
}

#[test]
fn a_failed_try_that_the_proxy_repeated_is_unknown() {
    let mut proxy = proxy(&json!({}));
    let (context, _) = admitted(&mut proxy);
    let tries = 2_u64.to_le_bytes().to_vec();
    proxy.stream(context).properties.insert("upstream.request_attempt_count".into(), tries);
    proxy.response_headers(context, 503, 1 << 5);
    proxy.close(context, Some(503), 1 << 5);
    assert!(proxy.new_calls().is_empty());
    assert_eq!(proxy.state(context)["outcome"], "unknown");
}

#[test]
fn a_client_that_leaves_while_its_answer_is_delivered_still_has_its_charge_returned() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.response_headers(context, 500, 0);
    assert_eq!(question(&proxy.one_call())["attempt"], attempt);
    proxy.close(context, Some(500), 1 << 14);
    assert!(proxy.new_calls().is_empty(), "once");
}

#[test]
fn a_client_may_leave_in_any_phase() {
    let mut proxy = proxy(&json!({}));
    // Before anything, and while the body comes: nothing was asked.
    let context = proxy.open(PAYMENT);
    proxy.close(context, GONE.0, GONE.1);
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, &BODY[..20], false);
    proxy.close(context, GONE.0, GONE.1);
    assert_eq!(proxy.state(context)["outcome"], "client_gone");
    assert!(proxy.new_calls().is_empty());
    // While the answer is pending: the attempt is voided when the answer is there. Whatever it says, nobody is there to take it.
    for late in [passes("ADMITTED"), crate::proxy::refuses(), Answer::Failed(4)] {
        let context = proxy.open(PAYMENT);
        proxy.headers(context, false);
        proxy.body(context, BODY, true);
        let call = proxy.one_call();
        proxy.close(context, GONE.0, GONE.1);
        assert!(proxy.new_calls().is_empty(), "one call is in flight");
        proxy.answer(call.token, &late);
        let void = proxy.one_call();
        let asked = question(&void);
        assert_eq!((asked["action"].as_str(), asked["reason"].as_str()), ("void", "client_gone"));
        assert_eq!(asked["attempt"], question(&call)["attempt"]);
        proxy.answer(void.token, &passes("VOIDED"));
        assert!(!proxy.reached_gateway(context) && proxy.stream(context).reply.is_none());
        assert_eq!(proxy.state(context)["outcome"], "client_gone");
    }
    // After the proxy's own answer: nothing is open.
    let context = proxy.open(&[(":method", "POST"), (":path", "/v1/merchants/m1/payments")]);
    proxy.headers(context, false);
    proxy.close(context, GONE.0, GONE.1);
    assert!(proxy.new_calls().is_empty());
    assert_eq!(proxy.metric("sluice_client_gone"), 4);
}

/// A payment that is not batched has a void that may overtake it.
#[test]
fn without_batches_a_void_waits_for_nobody() {
    let mut configuration = configuration(&json!({}));
    configuration["batch_max"] = json!(1);
    let mut proxy = Proxy::configured(&configuration);
    for late in [passes("ADMITTED"), crate::proxy::refuses(), Answer::Failed(4)] {
        let context = proxy.open(PAYMENT);
        proxy.headers(context, false);
        proxy.body(context, BODY, true);
        let call = proxy.one_call();
        proxy.close(context, GONE.0, GONE.1);
        let void = proxy.one_call();
        let asked = question(&void);
        assert_eq!((asked["action"].as_str(), asked["reason"].as_str()), ("void", "client_gone"));
        assert_eq!(asked["attempt"], question(&call)["attempt"]);
        proxy.answer(void.token, &passes("TOMBSTONED"));
        proxy.answer(call.token, &late);
        assert!(!proxy.reached_gateway(context) && proxy.stream(context).reply.is_none());
        assert!(proxy.new_calls().is_empty());
        assert_eq!(proxy.state(context)["outcome"], "client_gone");
    }
}

#[test]
fn a_void_is_sent_again_until_the_server_has_heard() {
    for failing in [
        Answer::Failed(4),
        Answer::Bytes(vec![0xff]),
        encoded(Some(7), None),
        crate::proxy::refuses(),
        passes("STORE_UNAVAILABLE"),
        passes("ADMITTED"),
        crate::proxy::store_away(),
    ] {
        let mut proxy = proxy(&json!({}));
        let (context, attempt) = admitted(&mut proxy);
        proxy.close(context, Some(500), 0);
        let mut ticks = 0;
        for tries in 1..=4 {
            let void = proxy.one_call();
            assert_eq!(question(&void)["attempt"], attempt);
            if tries == 4 {
                proxy.answer(void.token, &passes("VOIDED"));
                break;
            }
            proxy.answer(void.token, &failing);
            while proxy.host().grpc_calls.len() == usize::try_from(void.token).unwrap() {
                proxy.tick();
                ticks += 1;
            }
        }
        assert_eq!(ticks, 1 + 2 + 4);
        for _ in 0..300 {
            proxy.tick();
        }
        assert!(proxy.new_calls().is_empty());
        assert_eq!((proxy.metric("sluice_void_sent"), proxy.metric("sluice_void_retried")), (1, 3));
        assert_eq!(proxy.metric("sluice_void_lost"), 0);
    }
}

#[test]
fn a_void_that_nobody_ever_hears_is_given_up_counted_and_named() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.close(context, Some(500), 0);
    for _ in 0..5000 {
        for void in proxy.new_calls() {
            proxy.answer(void.token, &Answer::Failed(4));
        }
        proxy.tick();
    }
    assert_eq!(proxy.metric("sluice_void_lost"), 1);
    assert_eq!(proxy.metric("sluice_void_retried"), u64::from(filter::follow_up::TRIES_MAX - 1));
    let line = proxy.host().logs.last().unwrap();
    assert!(line.contains(&attempt) && line.contains("merchant=m1 order=o-1"), "{line}");
}

#[test]
fn a_void_that_the_server_will_never_take_is_lost_at_once() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.close(context, Some(500), 0);
    let void = proxy.one_call();
    let refusal = crate::proxy::denied(400, &[("x-sluice-code", "BAD_REQUEST")], "{}");
    proxy.answer(void.token, &encoded(Some(3), refusal));
    assert_eq!(proxy.metric("sluice_void_lost"), 1);
    assert!(proxy.host().logs.last().unwrap().contains(&attempt));
    for _ in 0..300 {
        proxy.tick();
    }
    assert!(proxy.new_calls().is_empty());
}

#[test]
fn a_check_and_a_void_find_their_own_contexts_again() {
    let mut configuration = configuration(&json!({}));
    configuration["batch_max"] = json!(1);
    let mut proxy = Proxy::configured(&configuration);
    // A stream voids while others wait for their answers, which come in another order.
    let (failed, attempt) = admitted(&mut proxy);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let context = proxy.open(HEAD_PAYMENT);
            proxy.headers(context, true);
            (context, proxy.one_call())
        })
        .collect();
    proxy.response_headers(failed, 500, 0);
    let void = proxy.one_call();
    assert_eq!(question(&void)["attempt"], attempt);
    for (context, call) in waiting.iter().rev() {
        proxy.answer(call.token, &passes("ADMITTED"));
        assert!(proxy.reached_gateway(*context));
    }
    proxy.close(failed, Some(500), 0);
    proxy.answer(void.token, &Answer::Failed(4));
    proxy.tick();
    assert_eq!(question(&proxy.one_call())["attempt"], attempt);
    // What the root sent leaves nothing behind in the streams that follow.
    let (next, _) = admitted(&mut proxy);
    assert!(proxy.stream(next).resumed);
}

#[test]
fn voids_outlive_their_configuration() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.close(context, Some(500), 0);
    let lost = proxy.one_call();
    // The proxy loads a new configuration into the same VM, and drops the old root with the answer it waited for.
    let newer = 1000_u32;
    proxy.call::<_, ()>(newer, "proxy_on_context_create", (newer, 0_u32));
    let size = u32::try_from(proxy.host().configuration.len()).unwrap();
    assert_eq!(proxy.call::<_, u32>(newer, "proxy_on_configure", (newer, size)), 1);
    proxy.call::<_, u32>(ROOT, "proxy_on_done", (ROOT,));
    proxy.call::<_, ()>(ROOT, "proxy_on_delete", (ROOT,));
    proxy.host_mut().monotonic_ms += 250;
    proxy.call::<_, ()>(newer, "proxy_on_tick", (newer,));
    assert_eq!(question(&proxy.one_call())["attempt"], attempt);
    proxy.answer(lost.token, &passes("VOIDED"));
}

#[test]
fn attempts_have_ids_of_their_own() {
    let mut proxy = proxy(&json!({}));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let context = proxy.open(HEAD_PAYMENT);
        proxy.headers(context, true);
        let call = proxy.one_call();
        assert!(seen.insert(question(&call)["attempt"].clone()));
        proxy.answer(call.token, &passes("ADMITTED"));
    }
}
