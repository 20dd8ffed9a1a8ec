//! The main flows.

use serde_json::json;

use super::lost::is_lost;
use super::proxy::{Answer, CONTINUE, PAUSE, Proxy, denied, encoded, ok, passes, question, store_away};
use super::{BODY, HEAD_PAYMENT, NO_SERVER, PAYMENT, configuration, proxy};

#[test]
fn a_refused_configuration_leaves_the_old_one_in_force() {
    for (configuration, part) in [
        (json!({"cluster": "c", "rules": []}), "rules: must hold"),
        (json!({"rules": configuration(&json!({}))["rules"]}), NO_SERVER),
        (configuration(&json!({"timeout_ms": 0})), "rule \"payments\": timeout_ms: must be 1 to 30000, it is 0"),
        (json!(null), "invalid type"),
    ] {
        let mut fresh = Proxy::new(super::host::Host::default());
        assert!(!fresh.configure(&configuration));
        assert!(fresh.host().logs[0].contains(part), "{:?}", fresh.host().logs);
        let mut running = proxy(&json!({}));
        assert!(!running.configure(&configuration));
        let context = running.open(HEAD_PAYMENT);
        assert_eq!(running.headers(context, true), PAUSE);
        assert_eq!(question(&running.one_call())["order_no"], "o-2");
    }
}

#[test]
fn a_payment_without_body_sources_does_not_wait_for_a_body_without_fields() {
    let mut proxy = proxy(&json!({}));
    let context = proxy.open(&[HEAD_PAYMENT, &[("content-type", "text/plain")]].concat());
    proxy.stream(context).properties.insert("metadata.filter_metadata.jwt.channel".into(), b"card".to_vec());
    assert_eq!(proxy.headers(context, false), PAUSE);
    let call = proxy.one_call();
    let asked = question(&call);
    assert_eq!((asked["amount_minor"].as_str(), asked["channel"].as_str(), call.timeout_ms), ("1050", "card", 500));
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(context));
    assert_eq!(proxy.body(context, &[0; 5000], false), CONTINUE);
    assert_eq!(proxy.trailers(context), CONTINUE);
}

#[test]
fn x1_a_form_that_no_source_is_in_is_awaited_and_must_not_name_a_field() {
    let mut proxy = proxy(&json!({}));
    for (body, is_refused) in [(&b"note=1"[..], false), (b"Amount=9", true)] {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let context = proxy.open(&[HEAD_PAYMENT, &[form]].concat());
        assert_eq!(proxy.headers(context, false), PAUSE);
        assert!(proxy.new_calls().is_empty());
        assert_eq!(proxy.body(context, body, true), PAUSE);
        assert_eq!(proxy.new_calls().is_empty(), is_refused);
        assert!(!proxy.reached_gateway(context));
    }
}

#[test]
fn only_an_answer_that_admits_lets_an_enforced_payment_on() {
    let Answer::Bytes(admitted) = passes("ADMITTED") else { panic!("bytes") };
    let code = |code: &str| ok(&[("x-sluice-code", code)]);
    let mut refused: Vec<Answer> = (0..admitted.len()).map(|cut| Answer::Bytes(admitted[..cut].to_vec())).collect();
    refused.extend((1..=20).map(Answer::Failed));
    refused.extend([
        Answer::Bytes(vec![0xff; 10]),
        Answer::Bytes(vec![0; 70_000]),
        encoded(None, code("ADMITTED")),
        encoded(Some(0), None),
        encoded(Some(7), None),
        encoded(Some(7), code("ADMITTED")),
        encoded(Some(0), ok(&[])),
        encoded(Some(0), ok(&[("x-code", "ADMITTED")])),
        encoded(Some(0), code("admitted")),
        encoded(Some(0), code("DAILY_AMOUNT")),
        encoded(Some(0), code("VOIDED")),
        encoded(Some(0), denied(403, &[("x-sluice-code", "ADMITTED")], "")),
    ]);
    let mut proxy = proxy(&json!({}));
    for answer in refused {
        let context = proxy.open(PAYMENT);
        proxy.headers(context, false);
        proxy.body(context, BODY, true);
        let call = proxy.one_call();
        proxy.answer(call.token, &answer);
        if is_lost(&answer) {
            let again = proxy.one_call();
            assert_eq!(again.message, call.message, "{answer:?}");
            proxy.answer(again.token, &answer);
        }
        assert!(!proxy.reached_gateway(context), "{answer:?}");
        let reply = proxy.stream(context).reply.clone().unwrap();
        assert_eq!(reply.status, 503);
        assert!(reply.headers.contains(&("retry-after".into(), "1".into())));
        assert!(reply.headers.contains(&("content-type".into(), "application/problem+json".into())));
        assert!(reply.body.contains("\"code\":\"AUTHZ_UNAVAILABLE\""), "{}", reply.body);
        let void = proxy.one_call();
        let voided = question(&void);
        assert_eq!((voided["action"].as_str(), voided["reason"].as_str()), ("void", "check_timeout"), "{answer:?}");
        assert_eq!(voided["attempt"], question(&call)["attempt"]);
        proxy.answer(void.token, &passes("TOMBSTONED"));
        proxy.close(context, Some(503), 0);
        assert!(proxy.new_calls().is_empty());
    }
    assert!(proxy.metric("sluice_no_answer_denied") > 100);
    assert_eq!(proxy.metric("sluice_admitted"), 0);
}

#[test]
fn a_store_without_an_answer_is_no_answer_and_says_so() {
    for (on_error, mode, reached) in [("deny", None, false), ("allow", None, true), ("deny", Some("shadow"), true)] {
        for answer in [store_away(), passes("STORE_UNAVAILABLE")] {
            let mut proxy = proxy(&json!({"on_error": on_error}));
            let context = proxy.open(PAYMENT);
            if let Some(mode) = mode {
                proxy.set_mode(context, mode);
            }
            proxy.headers(context, false);
            proxy.body(context, BODY, true);
            let call = proxy.one_call();
            proxy.answer(call.token, &answer);
            assert_eq!(proxy.reached_gateway(context), reached, "{on_error} {mode:?}");
            if reached {
                let header = ("x-sluice-code".to_owned(), b"STORE_UNAVAILABLE".to_vec());
                assert!(proxy.stream(context).request_headers.contains(&header));
                assert!(proxy.new_calls().is_empty());
                // The server may have consumed: a payment that fails returns it.
                proxy.response_headers(context, 422, 0);
                assert_eq!(proxy.metric("sluice_no_answer_allowed"), 1);
            } else {
                let reply = proxy.stream(context).reply.clone().unwrap();
                assert_eq!(reply.status, 503);
                assert!(reply.headers.contains(&("x-sluice-code".into(), "STORE_UNAVAILABLE".into())));
                assert!(reply.headers.contains(&("retry-after".into(), "1".into())));
                assert!(reply.body.contains("\"code\":\"STORE_UNAVAILABLE\""), "{}", reply.body);
                assert_eq!(proxy.metric("sluice_no_answer_denied"), 1);
            }
            let void = question(&proxy.one_call());
            assert_eq!((&void["action"], &void["attempt"]), (&"void".to_owned(), &question(&call)["attempt"]));
            let state = proxy.ended(context);
            assert_eq!(
                (&state["code"], &state["detail"]),
                (&json!("STORE_UNAVAILABLE"), &json!("the quota store gave no answer"))
            );
        }
    }
}

#[test]
fn a_full_backlog_is_a_refusal() {
    let mut proxy = proxy(&json!({"on_error": "allow"}));
    let context = proxy.open(HEAD_PAYMENT);
    proxy.headers(context, true);
    let call = proxy.one_call();
    let refusal = denied(503, &[("x-sluice-code", "BACKLOG_FULL")], "{}");
    proxy.answer(call.token, &encoded(Some(14), refusal));
    assert!(!proxy.reached_gateway(context));
    assert_eq!(proxy.stream(context).reply.as_ref().map(|reply| reply.status), Some(503));
    assert!(proxy.new_calls().is_empty());
    assert_eq!(proxy.metric("sluice_refused"), 1);
}

/// The action of what the server is sent, if anything; it takes it.
fn sent_action(proxy: &mut Proxy) -> Option<String> {
    let calls = proxy.new_calls();
    assert!(calls.len() <= 1, "{calls:?}");
    let call = calls.first()?;
    proxy.answer(call.token, &passes("APPLIED"));
    Some(question(call)["action"].clone())
}

#[test]
fn no_answer_on_a_route_that_allows_lets_the_payment_on() {
    let mut proxy = proxy(&json!({"on_error": "allow"}));
    for (status, at_once, at_the_end) in [(200, None, None), (500, None, Some("unknown")), (422, Some("void"), None)] {
        let context = proxy.open(PAYMENT);
        proxy.headers(context, false);
        proxy.body(context, BODY, true);
        let call = proxy.one_call();
        proxy.answer(call.token, &Answer::Failed(4));
        assert!(proxy.reached_gateway(context));
        assert!(
            proxy.stream(context).request_headers.contains(&("x-sluice-code".into(), b"AUTHZ_UNAVAILABLE".to_vec()))
        );
        // The server may have consumed, and the payment is made: only the gateway's refusal returns the charge.
        assert!(proxy.new_calls().is_empty());
        proxy.response_headers(context, status, 0);
        assert_eq!(sent_action(&mut proxy).as_deref(), at_once, "{status}");
        proxy.close(context, Some(status), 0);
        assert_eq!(sent_action(&mut proxy).as_deref(), at_the_end, "{status}");
    }
    assert_eq!(proxy.metric("sluice_no_answer_allowed"), 3);
}
