//! Attempts taken back: after the gateway's answer, when clients leave in each phase, and again until the server
//! acknowledges.

use serde_json::json;

use super::proxy::{Answer, Proxy, encoded, passes, question};
use super::{BODY, HEAD_PAYMENT, PAYMENT, configuration, proxy};

/// The client left: no status, the flag DC.
const GONE: (Option<u16>, u64) = (None, 1 << 14);

/// An admitted payment on its way to the gateway, with its attempt.
pub(crate) fn admitted(proxy: &mut Proxy) -> (u32, String) {
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
        (&json!({}), &[200], Some(200), 1 << 14, "kept", ""),
        (&json!({}), &[422], Some(422), 0, "voided", "upstream_4xx"),
        (&json!({}), &[100, 429], Some(429), 0, "voided", "upstream_4xx"),
        (&json!({}), &[302], Some(302), 0, "unknown", ""),
        (&json!({}), &[406], Some(406), 0, "unknown", ""),
        (&json!({}), &[408], Some(408), 0, "unknown", ""),
        (&json!({}), &[409], Some(409), 0, "unknown", ""),
        (&json!({}), &[100, 500], Some(500), 0, "unknown", ""),
        (&json!({}), &[504], Some(504), 0, "unknown", ""),
        (&json!({}), &[504], Some(504), 1 << 2, "unknown", ""),
        (&json!({}), &[503], Some(503), 1 << 5, "voided", "upstream_unreached"),
        (&json!({}), &[503], Some(503), 1 << 1, "voided", "upstream_unreached"),
        (&json!({}), &[503], Some(503), 1 << 6, "unknown", ""),
        (&json!({}), &[200], Some(200), 1 << 23, "unknown", ""),
        (&json!({}), &[], None, 1 << 14, "unknown", ""),
        (&json!({}), &[101], Some(101), 0, "unknown", ""),
        (&json!({}), &[], Some(500), 0, "unknown", ""),
        (&json!({}), &[], Some(403), 0, "voided", "upstream_4xx"),
        (&json!({}), &[], None, 1 << 5, "voided", "upstream_unreached"),
        (&own, &[500], Some(500), 0, "unknown", ""),
        (&own, &[422], Some(422), 0, "unknown", ""),
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
        let calls = proxy.new_calls();
        assert_eq!(calls.len(), usize::from(*outcome != "kept"), "{what}");
        let (voids, marks) = calls.into_iter().partition::<Vec<_>, _>(|call| question(call)["action"] == "void");
        assert_eq!(voids.len(), usize::from(*outcome == "voided"), "{what}");
        for mark in &marks {
            let asked = question(mark);
            let said = ["action", "attempt", "order_no", "amount_minor", "outcome_of"].map(|name| asked[name].as_str());
            assert_eq!(said, ["unknown", attempt.as_str(), "o-1", "1050", "consume"], "{what}");
            assert!(!asked["reason"].is_empty(), "{what}");
        }
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

/// What the proxy says of its tries, and what a refusal of the last one is worth then.
#[test]
fn f7_a_refusal_after_another_try_is_unknown() {
    let tries = |number: u64| ("upstream.request_attempt_count", number.to_le_bytes().to_vec());
    let address = ("upstream.address", b"127.0.0.1:80".to_vec());
    let table = [
        (vec![tries(1), address.clone()], "voided"),
        (vec![tries(2), address.clone()], "unknown"),
        (vec![tries(3)], "unknown"),
        // Without a count the proxy has not tried, unless it has chosen a host.
        (vec![], "voided"),
        (vec![address], "unknown"),
    ];
    for (properties, outcome) in table {
        for (status, flags) in [(422, 0), (503, 1 << 5), (503, 1 << 1)] {
            let mut proxy = proxy(&json!({}));
            let (context, _) = admitted(&mut proxy);
            let own = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            proxy.stream(context).properties.extend(own);
            proxy.response_headers(context, status, flags);
            proxy.close(context, Some(status), flags);
            assert_eq!(proxy.state(context)["outcome"], outcome, "{properties:?} {status} {flags}");
            let said = question(&proxy.one_call())["action"].clone();
            assert_eq!(said, if outcome == "voided" { "void" } else { "unknown" }, "{properties:?} {status} {flags}");
        }
        // A success is one however often it was tried.
        let mut proxy = proxy(&json!({}));
        let (context, _) = admitted(&mut proxy);
        proxy.stream(context).properties.extend(properties.into_iter().map(|(name, value)| (name.to_owned(), value)));
        proxy.response_headers(context, 200, 0);
        proxy.close(context, Some(200), 0);
        assert_eq!(proxy.state(context)["outcome"], "kept");
    }
}

/// The gateway's own word goes before its status, whatever the client does while the answer is delivered.
#[test]
fn x2_the_gateway_says_the_outcome_in_a_header() {
    let table: [(u16, &[&str], u64, &str); 9] = [
        (406, &["made"], 0, "kept"),
        (500, &["made"], 1 << 14, "kept"),
        (200, &["not_made"], 0, "voided"),
        (200, &["not_made"], 1 << 14, "voided"),
        (422, &["unknown"], 0, "unknown"),
        (422, &["maybe"], 0, "unknown"),
        (200, &["made", "not_made"], 0, "unknown"),
        (200, &[], 0, "kept"),
        (422, &[], 0, "voided"),
    ];
    for (status, said, flags, outcome) in table {
        let mut proxy = proxy(&json!({"outcome_header": "X-Payment-Outcome"}));
        let (context, _) = admitted(&mut proxy);
        proxy.stream(context).response_headers =
            said.iter().map(|word| ("x-payment-outcome".to_owned(), word.as_bytes().to_vec())).collect();
        proxy.response_headers(context, status, 0);
        proxy.close(context, Some(status), flags);
        assert_eq!(proxy.state(context)["outcome"], outcome, "{status} {said:?}");
        let sent: Vec<String> = proxy.new_calls().iter().map(|call| question(call)["action"].clone()).collect();
        let expected: &[&str] = match outcome {
            "voided" => &["void"],
            "unknown" => &["unknown"],
            _ => &[],
        };
        assert_eq!(sent, expected, "{status} {said:?}");
        let unreadable = matches!(said, ["maybe"] | ["made", "not_made"]);
        assert_eq!(proxy.metric("sluice_outcome_unreadable"), u64::from(unreadable), "{status} {said:?}");
    }
}

#[test]
fn a_client_that_leaves_while_its_answer_is_delivered_still_has_its_charge_returned() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.response_headers(context, 422, 0);
    assert_eq!(question(&proxy.one_call())["attempt"], attempt);
    proxy.close(context, Some(422), 1 << 14);
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
    // While the answer is pending: the attempt is voided when the answer is there. Whatever it says, no client is
    // there to take it.
    for late in [passes("ADMITTED"), super::proxy::refuses(), Answer::Failed(4)] {
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
fn without_batches_a_void_waits_for_no_answer() {
    let mut configuration = configuration(&json!({}));
    configuration["batch_max"] = json!(1);
    let mut proxy = Proxy::configured(&configuration);
    for late in [passes("ADMITTED"), super::proxy::refuses(), Answer::Failed(4)] {
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
fn a_void_is_sent_again_until_the_server_acknowledges_it() {
    for failing in [
        Answer::Failed(4),
        Answer::Bytes(vec![0xff]),
        encoded(Some(7), None),
        super::proxy::refuses(),
        passes("STORE_UNAVAILABLE"),
        passes("ADMITTED"),
        super::proxy::store_away(),
    ] {
        let mut proxy = proxy(&json!({}));
        let (context, attempt) = admitted(&mut proxy);
        proxy.close(context, Some(422), 0);
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
fn a_void_that_is_never_acknowledged_is_given_up_counted_and_named() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.close(context, Some(422), 0);
    for _ in 0..5000 {
        for void in proxy.new_calls() {
            proxy.answer(void.token, &Answer::Failed(4));
        }
        proxy.tick();
    }
    assert_eq!(proxy.metric("sluice_void_lost"), 1);
    assert_eq!(proxy.metric("sluice_void_retried"), u64::from(filter::follow_up::TRIES_MAX - 1));
    let line = proxy.host().logs.last().unwrap().clone();
    assert!(line.contains(&attempt) && line.contains("merchant=m1 order=o-1"), "{line}");
}

#[test]
fn a_void_that_the_server_will_never_take_is_lost_at_once() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.close(context, Some(422), 0);
    let void = proxy.one_call();
    let refusal = super::proxy::denied(400, &[("x-sluice-code", "BAD_REQUEST")], "{}");
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
    proxy.response_headers(failed, 422, 0);
    let void = proxy.one_call();
    assert_eq!(question(&void)["attempt"], attempt);
    for (context, call) in waiting.iter().rev() {
        proxy.answer(call.token, &passes("ADMITTED"));
        assert!(proxy.reached_gateway(*context));
    }
    proxy.close(failed, Some(422), 0);
    proxy.answer(void.token, &Answer::Failed(4));
    proxy.tick();
    assert_eq!(question(&proxy.one_call())["attempt"], attempt);
    // What the root sent leaves nothing behind in the streams that follow.
    let (next, _) = admitted(&mut proxy);
    assert!(proxy.stream(next).resumed);
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
