//! What is the native host's own: its kinds of metadata, configurations that come and go, and its thread.

use serde_json::json;

use super::batches::{GONE, pay, pay_many, settle, status, waiting};
use super::delays::delayed;
use super::host::Host;
use super::proxy::{Answer, Proxy, batch, passes, question, questions, refuses};
use super::voids::admitted;
use super::{BODY, HEAD_PAYMENT, PAYMENT, configuration, proxy};

/// A bare `off` in YAML is no text: the route is enforced, and the log names it once.
#[test]
fn a_mode_that_is_no_text_is_unknown() {
    let mut proxy = proxy(&json!({}));
    for _ in 0..2 {
        let context = proxy.open(PAYMENT);
        proxy.stream(context).properties.insert("xds.route_metadata.filter_metadata.?sluice.mode".into(), vec![0]);
        proxy.stream(context).properties.insert("xds.route_name".into(), b"r".to_vec());
        proxy.headers(context, false);
        proxy.body(context, BODY, true);
        for call in proxy.new_calls() {
            assert_eq!(question(&call)["mode"], "enforce");
            proxy.answer(call.token, &refuses());
        }
        assert_eq!(status(&mut proxy, context), Some(429));
    }
    assert_eq!(proxy.metric("sluice_unknown_mode"), 2);
    let warnings = proxy.host().logs.iter().filter(|line| line.contains("route \"r\"")).count();
    assert_eq!(warnings, 1);
}

#[test]
fn metadata_is_a_text_a_number_or_unreadable() {
    for (name, value, refused) in [
        ("metadata.filter_metadata.jwt.channel", &b"card"[..], false),
        ("metadata.filter_metadata.#jwt.channel", b"7", true),
        ("metadata.filter_metadata.?jwt.channel", b"", true),
        ("metadata.filter_metadata.jwt.other", b"x", false),
    ] {
        let mut proxy = proxy(&json!({}));
        let context = proxy.open(HEAD_PAYMENT);
        proxy.stream(context).properties.insert(name.into(), value.to_vec());
        proxy.headers(context, true);
        assert_eq!(status(&mut proxy, context).is_some(), refused, "{name}");
        assert_eq!(proxy.new_calls().is_empty(), refused, "{name}");
    }
}

#[test]
fn voids_outlive_their_configuration() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.close(context, Some(422), 0);
    let lost = proxy.one_call();
    // Envoy loads a new configuration, and drops the old one with the answer that it waited for.
    assert!(proxy.configure_root(1_000, &configuration(&json!({}))));
    proxy.drop_root(super::host::ROOT);
    proxy.answer(lost.token, &passes("VOIDED"));
    while proxy.host().grpc_calls.len() == 2 {
        proxy.tick();
    }
    let void = proxy.one_call();
    assert_eq!(question(&void)["attempt"], attempt);
    // The last configuration is dropped, and its voids are sent all the same.
    proxy.answer(void.token, &Answer::Failed(14));
    proxy.drop_root(1_000);
    while proxy.host().grpc_calls.len() == 3 {
        proxy.tick();
    }
    assert_eq!(question(&proxy.one_call())["attempt"], attempt);
}

#[test]
fn a_configuration_says_what_the_native_host_cannot() {
    let mut nested = configuration(&json!({}));
    nested["rules"][1]["extract"]["channel"] = json!([{"metadata": ["jwt", "payload", "channel"]}]);
    let mut tls = configuration(&json!({}));
    tls["servers"] = json!(["https://authz"]);
    for (configuration, part) in [(nested, "claim_to_headers"), (tls, "TLS is not possible here")] {
        let mut proxy = Proxy::new(Host::default());
        assert!(!proxy.configure(&configuration));
        assert!(proxy.host().logs[0].contains(part), "{:?}", proxy.host().logs);
    }
}

/// The thread panics: what waits for an answer is decided by its rule, and what was sent is voided; delays and voids go on.
#[test]
fn a_panic_of_the_thread_leaves_no_payment_waiting() {
    for (on_error, reached) in [("deny", false), ("allow", true)] {
        let mut configuration = configuration(&json!({}));
        configuration["rules"][1]["on_error"] = json!(on_error);
        let mut proxy = Proxy::configured(&configuration);
        let (held, _) = delayed(&mut proxy, 100);
        let (failed, attempt) = admitted(&mut proxy);
        let (sent, call) = waiting(&mut proxy, 2);
        let queued = pay(&mut proxy, "queued");
        proxy.close(failed, Some(422), 0);
        proxy.engine.recover();
        proxy.run();
        for stream in [sent[0], sent[1], queued] {
            let answered = (proxy.reached_gateway(stream), status(&mut proxy, stream));
            assert_eq!(answered, (reached, (!reached).then_some(503)), "{on_error}");
        }
        assert_eq!(proxy.metric("sluice_panicked"), 1);
        // An answer to an earlier call has no effect.
        proxy.answer(call.token, &batch(&[passes("ADMITTED"), passes("ADMITTED")]));
        let mut voids = Vec::new();
        for _ in 0..4 {
            voids.extend(settle(&mut proxy));
            proxy.tick();
        }
        voids.sort();
        let expected: &[&str] = if reached { &["void o-1"] } else { &["void o-0", "void o-1", "void o-1"] };
        assert_eq!(voids, expected, "{on_error} {attempt}");
        assert!(proxy.reached_gateway(held));
        let next = pay(&mut proxy, "next");
        assert_eq!(settle(&mut proxy), ["consume next"]);
        assert!(proxy.reached_gateway(next));
    }
}

/// A client that leaves while its answer is on the way to the worker: the worker knows that the check was sent.
#[test]
fn an_answer_that_meets_the_streams_end_is_voided() {
    let mut proxy = proxy(&json!({}));
    let streams = pay_many(&mut proxy, 0..1);
    let call = proxy.one_call();
    proxy.close(streams[0], GONE.0, GONE.1);
    proxy.answer(call.token, &passes("ADMITTED"));
    assert_eq!(settle(&mut proxy), ["void o-0"]);
    assert_eq!(proxy.metric("sluice_client_gone"), 1);
}

/// A stream that Envoy destroys without an end is ended all the same.
#[test]
fn a_stream_that_is_dropped_is_voided() {
    let mut other = proxy(&json!({}));
    let (_, attempt) = admitted(&mut other);
    other.drop_streams();
    let unknown = question(&other.one_call());
    assert_eq!((unknown["action"].as_str(), unknown["attempt"].as_str()), ("unknown", attempt.as_str()));
}

/// Envoy answers a gRPC request with `grpc-status: 0` for a module that names no status: each refusal has one.
#[test]
fn a_refused_grpc_request_has_the_status_of_its_refusal() {
    for (content_type, expected) in
        [("application/grpc", Some("14")), ("application/grpc+proto", Some("14")), ("application/json", None)]
    {
        let mut proxy = proxy(&json!({}));
        let mut headers = HEAD_PAYMENT.to_vec();
        headers.push(("content-type", content_type));
        let context = proxy.open(&headers);
        proxy.headers(context, true);
        let call = proxy.one_call();
        proxy.answer(call.token, &refuses());
        let reply = proxy.stream(context).reply.clone().unwrap();
        let grpc_status = reply.headers.iter().find(|(name, _)| name == "grpc-status");
        assert_eq!(grpc_status.map(|(_, value)| value.as_str()), expected, "{content_type}");
        assert_eq!(reply.status, 429);
    }
}

/// Envoy refuses the newest configuration after the module took it, or it is removed: the thread counts under the one that is left.
#[test]
fn the_thread_counts_under_a_configuration_that_envoy_has() {
    let mut proxy = proxy(&json!({}));
    let (context, _) = admitted(&mut proxy);
    assert!(proxy.configure_root(1_000, &configuration(&json!({}))));
    proxy.drop_root(1_000);
    proxy.close(context, Some(422), 0);
    assert_eq!(settle(&mut proxy).len(), 1);
    assert_eq!(proxy.metric("sluice_void_sent"), 1);
}

/// The servers of a configuration end with it, and with what is still to be sent to them.
#[test]
fn servers_end_with_their_last_use() {
    let mut proxy = proxy(&json!({}));
    let (context, _) = admitted(&mut proxy);
    let mut other = configuration(&json!({}));
    other["servers"] = json!(["http://other"]);
    assert!(proxy.configure_root(1_000, &other));
    proxy.close(context, Some(422), 0);
    let void = proxy.one_call();
    proxy.drop_root(super::host::ROOT);
    assert_eq!(proxy.host().clusters.len(), 2, "a void is on its way");
    proxy.answer(void.token, &Answer::Failed(14));
    while proxy.host().grpc_calls.len() == 2 {
        proxy.tick();
    }
    let again = proxy.one_call();
    assert_eq!((&again.cluster, &again.message), (&void.cluster, &void.message), "to the servers that charged it");
    proxy.answer(again.token, &passes("VOIDED"));
    assert_eq!(proxy.host().clusters.len(), 1);
    proxy.drop_root(1_000);
    assert!(proxy.host().clusters.is_empty());
}

/// Envoy drops all configurations at once, while voids are under way and wait.
#[test]
fn voids_outlive_all_configurations() {
    let mut proxy = proxy(&json!({}));
    assert!(proxy.configure_root(1_000, &configuration(&json!({}))));
    let (under_way, first) = admitted(&mut proxy);
    let (waits, second) = admitted(&mut proxy);
    proxy.close(under_way, Some(422), 0);
    proxy.one_call();
    proxy.close(waits, Some(422), 0);
    proxy.drop_roots(&[super::host::ROOT, 1_000]);
    let mut expected = vec![first, second];
    expected.sort();
    assert_eq!(voids(&mut proxy), expected);
}

/// The attempts of the voids that are sent from now on, all of which are answered; in order.
fn voids(proxy: &mut Proxy) -> Vec<String> {
    let mut voided = Vec::new();
    for _ in 0..20 {
        proxy.tick();
        for call in proxy.new_calls() {
            let batch_of = call.path.ends_with("BatchCheck");
            let asked = if batch_of { questions(&call) } else { vec![question(&call)] };
            voided.extend(asked.iter().map(|own| own["attempt"].clone()));
            let answer = vec![passes("VOIDED"); asked.len()];
            proxy.answer(call.token, &if batch_of { batch(&answer) } else { answer[0].clone() });
        }
    }
    voided.sort();
    voided
}

/// The thread panics while it sends follow-ups: they are sent again, each once.
#[test]
fn a_follow_up_in_hand_survives_a_panic() {
    let mut proxy = proxy(&json!({}));
    let (under_way, first) = admitted(&mut proxy);
    let (in_hand, second) = admitted(&mut proxy);
    proxy.close(under_way, Some(422), 0);
    let lost = proxy.one_call();
    proxy.answer(lost.token, &Answer::Failed(14));
    proxy.host_mut().panics = true;
    proxy.close(in_hand, Some(422), 0);
    assert_eq!(proxy.metric("sluice_panicked"), 1);
    let mut expected = vec![first, second];
    expected.sort();
    assert_eq!(voids(&mut proxy), expected);
}
