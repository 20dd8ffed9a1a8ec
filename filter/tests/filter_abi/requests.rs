//! Requests: bodies in every chunking, limits, modes, stripped headers.

use proptest::prelude::*;
use serde_json::json;

use super::proxy::{CONTINUE, PAUSE, Proxy, passes, question, refuses};
use super::{BODY, PAYMENT, proxy};

/// How a body may end: with its last chunk, with an empty chunk after it, or with trailers.
const ENDINGS: [&str; 3] = ["last", "empty", "trailers"];

/// Sends a body in chunks; every callback must hold the request.
fn send(proxy: &mut Proxy, chunks: &[&[u8]], ending: &str) -> u32 {
    let context = proxy.open(PAYMENT);
    assert_eq!(proxy.headers(context, false), PAUSE);
    for (at, chunk) in chunks.iter().enumerate() {
        let end = ending == "last" && at + 1 == chunks.len();
        assert_eq!(proxy.body(context, chunk, end), PAUSE);
    }
    match ending {
        "empty" => assert_eq!(proxy.body(context, b"", true), PAUSE),
        "trailers" => assert_eq!(proxy.trailers(context), PAUSE),
        _ => {}
    }
    assert!(!proxy.reached_gateway(context));
    context
}

fn sent_whole(proxy: &mut Proxy, chunks: &[&[u8]], ending: &str) {
    let context = send(proxy, chunks, ending);
    let call = proxy.one_call();
    let asked = question(&call);
    assert_eq!((asked["order_no"].as_str(), asked["amount_minor"].as_str()), ("o-1", "1050"), "{chunks:?} {ending}");
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.stream(context).resumed);
    proxy.close(context, Some(200), 0);
}

#[test]
fn every_chunking_of_a_body_is_the_same_charge() {
    let mut proxy = proxy(&json!({}));
    for ending in ENDINGS {
        for at in 0..=BODY.len() {
            let (first, second) = BODY.split_at(at);
            sent_whole(&mut proxy, &[first, second], ending);
        }
        let bytes: Vec<&[u8]> = BODY.chunks(1).collect();
        sent_whole(&mut proxy, &bytes, ending);
        let with_empty: Vec<&[u8]> = BODY.chunks(3).flat_map(|chunk| [chunk, b""]).collect();
        sent_whole(&mut proxy, &with_empty, ending);
    }
}

#[test]
fn trailers_without_a_body_are_no_way_around() {
    let mut proxy = proxy(&json!({}));
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    assert_eq!(proxy.trailers(context), PAUSE);
    assert_eq!(proxy.stream(context).reply.clone().unwrap().status, 400);
    assert!(!proxy.reached_gateway(context));
}

#[test]
fn bodies_over_the_limit_are_answered_at_once() {
    let mut proxy = proxy(&json!({}));
    for (size, status) in [(1000, 400), (1001, 413), (5000, 413)] {
        for chunk in [1, 700, 5000] {
            let context = proxy.open(PAYMENT);
            proxy.headers(context, false);
            let body = vec![b' '; size];
            let mut sent = 0;
            for piece in body.chunks(chunk) {
                sent += piece.len();
                assert_eq!(proxy.body(context, piece, sent == size), PAUSE);
                // At the first byte too many, whatever is still to come.
                assert_eq!(proxy.stream(context).reply.is_some(), sent > 1000 || sent == size, "{sent} of {size}");
            }
            assert_eq!(proxy.stream(context).reply.clone().unwrap().status, status, "{size} by {chunk}");
            assert!(!proxy.reached_gateway(context));
        }
    }
    let context = proxy.open(&[PAYMENT, &[("content-length", "1001")]].concat());
    proxy.headers(context, false);
    assert_eq!(proxy.stream(context).reply.clone().unwrap().status, 413);
    let context = proxy.open(&[PAYMENT, &[("content-encoding", "gzip")]].concat());
    proxy.headers(context, false);
    let reply = proxy.stream(context).reply.clone().unwrap();
    assert_eq!((reply.status, reply.body.contains("urn:sluice:problem:unsupported_content")), (415, true));
    assert!(proxy.new_calls().is_empty());
}

#[test]
fn clients_cannot_set_what_only_sluice_may() {
    let mut proxy = proxy(&json!({}));
    let own =
        [("x-sluice-code", "ADMITTED"), ("x-sluice-anything", "1"), ("X-Sluice-Replay", "true"), ("x-sluice", "stays")];
    for (path, mode) in
        [("/v1/merchants/m1/payments", None), ("/v1/merchants/m1/payments", Some("off")), ("/other", None)]
    {
        let context = proxy.open(&[&[(":method", "POST"), (":path", path)], &own[..]].concat());
        if let Some(mode) = mode {
            proxy.set_mode(context, mode);
        }
        proxy.headers(context, false);
        let left: Vec<String> = proxy.stream(context).request_headers.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(left, [":method", ":path", "x-sluice"], "{path} {mode:?}");
    }
}

#[test]
fn trailers_cannot_either() {
    let own = [("x-sluice-code", "ADMITTED"), ("X-SLUICE-of-tomorrow", "1"), ("grpc-status", "0")];
    let own = own.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    for (path, mode, admits) in [
        ("/v1/merchants/m1/payments", None, true),
        ("/v1/merchants/m1/payments", None, false),
        ("/v1/merchants/m1/payments", Some("off"), true),
        ("/v1/merchants/m1/payments", Some("shadow"), true),
        ("/other", None, true),
    ] {
        let mut proxy = proxy(&json!({}));
        let headers = [(":method", "POST"), (":path", path), ("content-type", "application/json")];
        let context = proxy.open(&headers);
        if let Some(mode) = mode {
            proxy.set_mode(context, mode);
        }
        proxy.stream(context).request_trailers = own.to_vec();
        proxy.headers(context, false);
        proxy.body(context, BODY, false);
        proxy.trailers(context);
        assert_eq!(proxy.stream(context).request_trailers, [own[2].clone()], "{path} {mode:?}");
        for call in proxy.new_calls() {
            proxy.answer(call.token, &if admits { passes("ADMITTED") } else { refuses() });
        }
        assert_eq!(proxy.reached_gateway(context), admits, "{path} {mode:?}");
    }
}

#[test]
fn a_route_says_what_is_done_with_refusals() {
    let table: &[(&str, &str, bool)] = &[
        // the rule's mode, the route's word, whether a refused payment goes on
        ("enforce", "", false),
        ("enforce", "enforce", false),
        ("enforce", "shadow", true),
        ("shadow", "", true),
        ("shadow", "enforce", false),
        ("off", "enforce", false),
        ("shadow", "Shadow", false),
        ("shadow", "disabled", false),
        ("shadow", "\u{0}\u{0}\u{0}", false),
    ];
    for (rule_mode, word, goes_on) in table {
        let mut proxy = proxy(&json!({"mode": rule_mode}));
        let context = proxy.open(PAYMENT);
        if !word.is_empty() {
            proxy.set_mode(context, word);
        }
        proxy.headers(context, false);
        proxy.body(context, BODY, true);
        let call = proxy.one_call();
        let mode = if *goes_on { "shadow" } else { "enforce" };
        assert_eq!(question(&call)["mode"], mode, "{rule_mode} {word}");
        // A server of the contract answers a shadow question with a pass and the code.
        proxy.answer(call.token, &if *goes_on { passes("DAILY_AMOUNT") } else { refuses() });
        assert_eq!(proxy.reached_gateway(context), *goes_on, "{rule_mode} {word:?}");
        let unknown = !["", "enforce", "shadow"].contains(word);
        assert_eq!(proxy.metric("sluice_unknown_mode"), u64::from(unknown), "{word:?}");
        assert_eq!(proxy.host().logs.iter().any(|line| line.contains("unknown mode")), unknown, "{word:?}");
        proxy.response_headers(context, 422, 0);
        proxy.close(context, Some(422), 0);
        assert!(proxy.new_calls().is_empty(), "a refused charge is not voided");
        assert_eq!(proxy.state(context)["code"], "DAILY_AMOUNT");
        assert_eq!(proxy.state(context)["mode"], mode);
    }
}

#[test]
fn shadow_and_off_let_everything_on() {
    let mut proxy = proxy(&json!({}));
    for body in [&b"not json"[..], b"{}", &[b'x'; 2000]] {
        let context = proxy.open(PAYMENT);
        proxy.set_mode(context, "shadow");
        proxy.headers(context, false);
        assert_eq!(proxy.body(context, body, true), CONTINUE);
        assert!(proxy.reached_gateway(context));
        assert_eq!(proxy.ended(context)["outcome"], "forwarded");
        let context = proxy.open(PAYMENT);
        proxy.set_mode(context, "off");
        assert_eq!(proxy.headers(context, false), CONTINUE);
        assert_eq!(proxy.body(context, body, false), CONTINUE);
        assert_eq!(proxy.trailers(context), CONTINUE);
        let state = json!({"mode": "off", "rule": "payments", "action": "consume", "outcome": "forwarded"});
        assert_eq!(proxy.ended(context), state);
    }
    assert!(proxy.new_calls().is_empty());
    assert_eq!((proxy.metric("sluice_bad_request"), proxy.metric("sluice_off")), (3, 3));
    // In shadow, no answer lets the payment on as well.
    let context = proxy.open(PAYMENT);
    proxy.set_mode(context, "shadow");
    proxy.headers(context, false);
    proxy.body(context, BODY, true);
    let call = proxy.one_call();
    proxy.answer(call.token, &super::proxy::Answer::Failed(4));
    assert!(proxy.reached_gateway(context));
}

#[test]
fn a_request_without_a_rule_passes_or_is_refused() {
    for (unmatched, passes) in [("pass", true), ("refuse", false)] {
        let mut configuration = super::configuration(&json!({}));
        configuration["unmatched"] = json!(unmatched);
        let mut proxy = Proxy::configured(&configuration);
        let context = proxy.open(&[(":method", "POST"), (":path", "/elsewhere")]);
        proxy.headers(context, false);
        assert_eq!(proxy.reached_gateway(context), passes);
        assert_eq!(proxy.stream(context).reply.as_ref().map(|reply| reply.status), (!passes).then_some(400));
        assert_eq!(proxy.metric("sluice_unmatched"), 1);
    }
}

#[test]
fn bodies_of_any_bytes_neither_trap_nor_pass() {
    let shared = std::cell::RefCell::new(proxy(&json!({})));
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..Default::default() });
    let bodies = (proptest::collection::vec(any::<u8>(), 0..1100), 1_usize..400, 0_usize..3);
    runner
        .run(&bodies, |(body, chunk, ending)| {
            let mut proxy = shared.borrow_mut();
            let chunks: Vec<&[u8]> = if body.is_empty() { vec![b""] } else { body.chunks(chunk).collect() };
            let context = send(&mut proxy, &chunks, ENDINGS[ending]);
            prop_assert!(proxy.stream(context).reply.is_some());
            proxy.close(context, Some(400), 0);
            prop_assert!(proxy.new_calls().is_empty());
            Ok(())
        })
        .unwrap();
    let mut proxy = shared.into_inner();
    let deep = [b"{\"order_no\":".to_vec(), vec![b'['; 900]].concat();
    send(&mut proxy, &[&deep], "last");
    let minus = format!("{{\"order_no\": \"o\", \"currency\": \"USD\", \"amount\": \"{}\"}}", "-".repeat(900));
    let context = send(&mut proxy, &[minus.as_bytes()], "last");
    assert_eq!(proxy.ended(context)["code"], "BAD_AMOUNT");
}
