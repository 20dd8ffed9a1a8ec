//! What the server is sent after the gateway has captured, refunded or voided; and again until it acknowledges.

use serde_json::{Value, json};

use super::PAYMENT;
use super::proxy as configured;
use super::proxy::{Answer, Proxy, denied, encoded, passes, question};

/// A rule of this action that reads these fields from the body.
fn rule(action: &str, fields: &[&str], more: &Value) -> Value {
    let mut rule = json!({"action": action, "extract": {
        "merchant": [{"path": "merchant"}], "currency": [{"json": "/currency"}], "order_no": [{"json": "/order_no"}]}});
    for field in fields {
        rule["extract"][*field] = json!([{"json": format!("/{field}")}]);
    }
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

/// A request that the gateway carries out, with what was asked before.
fn done(proxy: &mut Proxy, body: &str, code: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, body.as_bytes(), true);
    let call = proxy.one_call();
    proxy.answer(call.token, &passes(code));
    assert!(proxy.reached_gateway(context), "{:?}", proxy.stream(context).reply);
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    proxy.stream(context).response_headers = headers.collect();
    proxy.response_headers(context, 201, 0);
    assert!(proxy.new_calls().is_empty(), "before the answer has ended nothing is certain");
    proxy.close(context, Some(201), 0);
    vec![own(&question(&call)), proxy.state(context)["outcome"].as_str().unwrap().to_owned()]
}

fn own(question: &std::collections::BTreeMap<String, String>) -> String {
    let common = ["attempt", "merchant", "currency", "order_no", "mode", "traceparent"];
    let own = question.iter().filter(|(name, _)| !common.contains(&name.as_str()));
    let words: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
    words.join(" ")
}

#[test]
fn each_deed_is_tried_before_and_reported_after() {
    let hold = json!({"settle_amount_header": "X-Captured"});
    type Row<'a> = (Value, &'a str, &'a str, &'a [(&'a str, &'a str)], [&'a str; 3]);
    let table: &[Row<'_>] = &[
        (
            rule("hold", &["amount"], &hold),
            r#"{"order_no": "o", "currency": "USD", "amount": 500}"#,
            "ADMITTED",
            &[("content-type", "text/plain"), ("x-captured", "300")],
            ["action=hold amount_minor=500", "settled", "action=settle amount_minor=300"],
        ),
        (
            rule("hold", &["amount"], &json!({})),
            r#"{"order_no": "o", "currency": "USD", "amount": 500}"#,
            "ADMITTED",
            &[("x-captured", "300")],
            ["action=hold amount_minor=500", "settled", "action=settle"],
        ),
        (
            rule("settle", &["amount", "operation_no", "final"], &json!({})),
            r#"{"order_no": "o", "currency": "USD", "amount": 200, "operation_no": "c-1", "final": false}"#,
            "APPLIED",
            &[],
            [
                "action=settle amount_minor=200 dry=1 final=0 operation_no=c-1",
                "settled",
                "action=settle amount_minor=200 final=0 operation_no=c-1",
            ],
        ),
        (
            rule("refund", &["amount", "operation_no"], &json!({})),
            r#"{"order_no": "o", "currency": "USD", "operation_no": "r-1"}"#,
            "APPLIED",
            &[],
            ["action=refund operation_no=r-1 stage=reserve", "refunded", "action=refund operation_no=r-1"],
        ),
        (
            rule("void", &[], &json!({})),
            r#"{"order_no": "o", "currency": "USD"}"#,
            "VOIDED",
            &[],
            ["action=void_order dry=1", "order_voided", "action=void_order"],
        ),
    ];
    for (change, body, code, headers, [asked, outcome, reported]) in table {
        let mut proxy = configured(change);
        assert_eq!(done(&mut proxy, body, code, headers), [*asked, *outcome], "{change}");
        let call = proxy.one_call();
        assert_eq!(own(&question(&call)), *reported, "{change}");
        assert_eq!(call.timeout_ms, filter::follow_up::TIMEOUT_MS);
        proxy.answer(call.token, &passes("APPLIED"));
        for _ in 0..10 {
            proxy.tick();
        }
        assert!(proxy.new_calls().is_empty());
        assert_eq!((proxy.metric("sluice_confirm_sent"), proxy.metric("sluice_confirm_retried")), (1, 0));
        assert_eq!((proxy.metric("sluice_confirm_lost"), proxy.metric("sluice_void_sent")), (0, 0));
    }
}

pub(crate) const CAPTURE: &str = r#"{"order_no": "o", "currency": "USD", "amount": 200, "operation_no": "c-1"}"#;

pub(crate) fn capturing() -> Proxy {
    configured(&rule("settle", &["amount", "operation_no"], &json!({"settle_amount_header": "x-captured"})))
}

#[test]
fn a_capture_is_sent_again_until_the_server_acknowledges_it() {
    let mut proxy = capturing();
    done(&mut proxy, CAPTURE, "APPLIED", &[]);
    let full = encoded(Some(14), denied(503, &[("x-sluice-code", "BACKLOG_FULL")], "{}"));
    let failing = [Answer::Failed(14), full, super::proxy::store_away(), passes("TOMBSTONED")];
    let first = proxy.one_call();
    let mut call = first.clone();
    for failing in failing {
        proxy.answer(call.token, &failing);
        let sent = proxy.host().grpc_calls.len();
        for _ in 0..40 {
            proxy.tick();
            if proxy.host().grpc_calls.len() > sent {
                break;
            }
        }
        call = proxy.one_call();
        assert_eq!(call.message, first.message, "the very same again");
    }
    proxy.answer(call.token, &passes("APPLIED"));
    for _ in 0..300 {
        proxy.tick();
    }
    assert!(proxy.new_calls().is_empty());
    assert_eq!((proxy.metric("sluice_confirm_sent"), proxy.metric("sluice_confirm_retried")), (1, 4));
    assert_eq!(proxy.metric("sluice_confirm_lost"), 0);
}

#[test]
fn what_the_server_will_never_take_is_counted_and_named_once() {
    let refusals = [
        ("ORDER_CLOSED", 409),
        ("ORDER_UNKNOWN", 404),
        ("IDEMPOTENCY_CONFLICT", 409),
        ("CAPTURE_EXCEEDS_HOLD", 403),
        ("BAD_REQUEST", 400),
    ];
    for (code, status) in refusals {
        let mut proxy = capturing();
        done(&mut proxy, CAPTURE, "APPLIED", &[]);
        let call = proxy.one_call();
        let refusal = denied(status, &[("x-sluice-code", code)], "{}");
        proxy.answer(call.token, &encoded(Some(7), refusal));
        for _ in 0..300 {
            proxy.tick();
        }
        assert!(proxy.new_calls().is_empty(), "{code}");
        assert_eq!(proxy.metric("sluice_confirm_lost"), 1, "{code}");
        let line = proxy.host().logs.last().unwrap().clone();
        assert!(line.contains(code) && line.contains("settle") && line.contains("merchant=m1 order=o"), "{line}");
    }
}

#[test]
fn an_amount_that_cannot_be_read_settles_nothing() {
    for headers in [&[("x-captured", "12.50")][..], &[("x-captured", "1"), ("X-Captured", "2")]] {
        let mut proxy = capturing();
        assert_eq!(done(&mut proxy, CAPTURE, "APPLIED", headers)[1], "unsettled");
        assert!(own(&question(&proxy.one_call())).ends_with("outcome_of=settle reason=amount_unreadable"));
        assert_eq!(proxy.metric("sluice_amount_unreadable"), 1);
        let line = proxy.host().logs.last().unwrap().clone();
        assert!(line.contains("nothing is settled") && line.contains("merchant=m1 order=o"), "{line}");
    }
}

/// A body of these fields, admitted, with the gateway's answer and the log's flags: the outcome, and what is reported.
fn ended(change: &Value, body: &str, code: &str, status: u16, flags: u64) -> (String, Vec<String>) {
    let mut proxy = configured(change);
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, body.as_bytes(), true);
    let call = proxy.one_call();
    proxy.answer(call.token, &passes(code));
    proxy.response_headers(context, status, 0);
    proxy.close(context, Some(status), flags);
    let reported: Vec<String> = proxy.new_calls().iter().map(|call| own(&question(call))).collect();
    let outcome = proxy.state(context)["outcome"].as_str().unwrap().to_owned();
    let (marks, reported): (Vec<_>, Vec<_>) =
        reported.into_iter().partition(|asked| asked.starts_with("action=unknown"));
    assert_eq!(marks.len(), usize::from(outcome == "unknown"), "{marks:?}");
    assert_eq!(proxy.metric("sluice_unknown"), u64::from(outcome == "unknown"));
    (outcome, reported)
}

/// The gateway's own word goes before what the client does during the answer, and only a success is a deed.
#[test]
fn a_conflict_reports_nothing_and_a_client_that_leaves_undoes_no_capture() {
    const LEFT: u64 = 1 << 14;
    const RESET: u64 = 1 << 6;
    let body = r#"{"order_no": "o", "currency": "USD", "amount": 200, "operation_no": "n"}"#;
    let no_header = json!({});
    let header = json!({"settle_amount_header": "x-captured"});
    let captured = "action=settle amount_minor=200 operation_no=n";
    let table: &[(Value, &str, &str)] = &[
        (rule("hold", &["amount"], &no_header), "ADMITTED", "action=settle"),
        (rule("hold", &["amount"], &header), "ADMITTED", "action=settle"),
        (rule("settle", &["amount", "operation_no"], &no_header), "APPLIED", captured),
        (rule("settle", &["amount", "operation_no"], &header), "APPLIED", captured),
        (rule("refund", &["amount", "operation_no"], &no_header), "APPLIED", ""),
        (rule("void", &[], &no_header), "APPLIED", ""),
    ];
    for (change, code, reported) in table {
        let (outcome, seen) = ended(change, body, code, 200, LEFT);
        assert_eq!(seen.join(" + "), *reported, "{change}");
        assert_eq!(outcome, if reported.is_empty() { "unknown" } else { "settled" }, "{change}");
        for (status, flags) in
            [(406, 0), (408, 0), (409, 0), (409, LEFT), (302, 0), (500, 0), (502, 0), (200, RESET), (200, RESET | LEFT)]
        {
            let expected = ("unknown".to_owned(), Vec::new());
            assert_eq!(ended(change, body, code, status, flags), expected, "{change} {status} {flags}");
        }
    }
}

#[test]
fn a_gateway_that_refuses_has_done_nothing() {
    let mut proxy = capturing();
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, CAPTURE.as_bytes(), true);
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("APPLIED"));
    proxy.response_headers(context, 422, 0);
    proxy.close(context, Some(422), 0);
    assert!(proxy.new_calls().is_empty());
    assert_eq!(proxy.state(context)["outcome"], "unchanged");
}

#[test]
fn a_check_asks_and_leaves_nothing_behind() {
    let mut proxy = configured(&rule("check", &["amount"], &json!({})));
    let body = r#"{"order_no": "o", "currency": "USD", "amount": 5}"#;
    for (answer, status, reached) in [(passes("ADMITTED"), 500, true), (super::proxy::refuses(), 429, false)] {
        let context = proxy.open(PAYMENT);
        proxy.headers(context, false);
        proxy.body(context, body.as_bytes(), true);
        let call = proxy.one_call();
        assert_eq!(own(&question(&call)), "action=consume amount_minor=5 dry=journal");
        proxy.answer(call.token, &answer);
        assert_eq!(proxy.reached_gateway(context), reached);
        proxy.response_headers(context, status, 0);
        proxy.close(context, Some(status), 0);
        assert!(proxy.new_calls().is_empty());
    }
}
