//! What is the wasm host's own: the calls into the proxy one by one, the timer, root contexts, and calls out that the proxy does not
//! take.

use serde_json::{Value, json};

use filter::batch::SLOW_MS;

use super::batches::{answer_held_up, held_up, orders, pay, pay_many, settle, status, waiting};
use super::delays::delayed;
use super::follow_ups::{CAPTURE, capturing};
use super::host::{GrpcCall, Host, ROOT};
use super::proxy::{Answer, PAUSE, Proxy, batch, delays, passes, question, questions, refuses};
use super::voids::admitted;
use super::{BODY, PAYMENT, configuration, proxy};

/// The calls since a mark, and a new mark.
fn since(proxy: &Proxy, mark: &mut usize) -> Vec<String> {
    let calls = proxy.host().calls[*mark..].to_vec();
    *mark += calls.len();
    calls
}

/// What the access log shows of the first stream's payment, and these members.
fn logged(more: &Value) -> Value {
    let mut record = json!({"mode": "enforce", "rule": "payments", "action": "consume", "merchant": "m1", "order": "o-1",
        "amount_minor": 1050.0, "currency": "USD", "attempt": "5a5a5a5a5a5a5a5a0000000000000001"});
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    record
}

#[test]
fn an_admitted_payment_call_by_call() {
    let mut proxy = proxy(&json!({}));
    let mut mark = proxy.host().calls.len();
    let context = proxy.open(PAYMENT);
    assert_eq!(proxy.headers(context, false), PAUSE);
    assert_eq!(
        since(&proxy, &mut mark),
        ["headers 0", "property xds.route_metadata.filter_metadata.sluice.mode", "remove 0 x-sluice-code"]
    );
    assert_eq!(proxy.body(context, BODY, true), PAUSE);
    assert_eq!(
        since(&proxy, &mut mark),
        ["buffer 0", "clock 1", "grpc sluice_authz Check 300", "record sluice_batch_checks 1"]
    );
    let call = proxy.one_call();
    let asked = question(&call);
    let expected = [
        ("action", "consume"),
        ("amount_minor", "1050"),
        ("attempt", "5a5a5a5a5a5a5a5a0000000000000001"),
        ("currency", "USD"),
        ("merchant", "m1"),
        ("mode", "enforce"),
        ("order_no", "o-1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    assert_eq!(asked, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    proxy.host_mut().monotonic_ms = 7;
    proxy.answer(call.token, &passes("ADMITTED"));
    assert_eq!(
        since(&proxy, &mut mark),
        [
            format!("effective {ROOT}"),
            "buffer 5".into(),
            "clock 1".into(),
            format!("effective {context}"),
            "record sluice_check_ms 7".into(),
            "set 0 x-sluice-code: ADMITTED".into(),
            "set 0 x-sluice-decision-id: d-1".into(),
            "set 0 x-sluice-replay: false".into(),
            "resume 0".into(),
            "count sluice_admitted 1".into(),
        ]
    );
    assert!(proxy.reached_gateway(context));
    proxy.response_headers(context, 200, 0);
    proxy.close(context, Some(200), 0);
    assert_eq!(since(&proxy, &mut mark), ["header 2 :status", "property response.flags", "state sluice"]);
    let state = logged(&json!({"code": "ADMITTED", "decision_id": "d-1", "check_ms": 7.0, "outcome": "kept"}));
    assert_eq!(proxy.state(context), state);
    assert!(proxy.new_calls().is_empty());
}

#[test]
fn a_refused_payment_call_by_call() {
    let mut proxy = proxy(&json!({}));
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, BODY, true);
    let call = proxy.one_call();
    let mut mark = proxy.host().calls.len();
    proxy.answer(call.token, &refuses());
    assert_eq!(
        since(&proxy, &mut mark),
        [
            format!("effective {ROOT}"),
            "buffer 5".into(),
            "clock 1".into(),
            format!("effective {context}"),
            "record sluice_check_ms 0".into(),
            "respond 429".into(),
            "count sluice_refused 1".into(),
        ]
    );
    let reply = proxy.stream(context).reply.clone().unwrap();
    assert_eq!(reply.body, "{\"code\":\"DAILY_AMOUNT\"}");
    assert!(reply.headers.contains(&("retry-after".into(), "60".into())), "{:?}", reply.headers);
    proxy.response_headers(context, 429, 0);
    proxy.close(context, Some(429), 0);
    assert!(!proxy.reached_gateway(context));
    // Nothing is voided that was not consumed.
    assert_eq!(since(&proxy, &mut mark), ["state sluice"]);
    let state = logged(&json!({"code": "DAILY_AMOUNT", "decision_id": "d-2", "check_ms": 0.0, "outcome": "refused"}));
    assert_eq!(proxy.state(context), state);
}

#[test]
fn the_start_call_by_call() {
    let proxy = proxy(&json!({}));
    let calls = &proxy.host().calls;
    assert_eq!(calls[..2], ["buffer 7", "random"]);
    assert!(calls[2..].iter().any(|call| call == "define 0 sluice_admitted"));
    assert!(calls[2..].iter().any(|call| call == "define 1 sluice_rules_enforcing"));
    assert!(calls[2..].iter().any(|call| call == "define 2 sluice_check_ms"));
    assert_eq!(
        calls[calls.len() - 4..],
        ["tick_period 250", "record sluice_rules_enforcing 2", "foreign declare_property", "log 2"]
    );
}

#[test]
fn an_answer_to_no_call_does_nothing() {
    let mut proxy = proxy(&json!({}));
    let calls = proxy.host().calls.len();
    proxy.answer(99, &passes("ADMITTED"));
    proxy.answer(99, &Answer::Failed(4));
    proxy.call::<_, ()>(ROOT, "proxy_on_queue_ready", (ROOT, 7_u32));
    assert_eq!(proxy.host().calls.len(), calls);
}

#[test]
fn a_stream_without_a_configuration_goes_nowhere() {
    let mut proxy = Proxy::new(Host::default());
    let context = proxy.open(PAYMENT);
    assert_eq!(proxy.headers(context, false), PAUSE);
    assert_eq!(proxy.body(context, BODY, true), PAUSE);
    assert_eq!(proxy.trailers(context), PAUSE);
    proxy.close(context, None, 1 << 14);
    assert!(!proxy.reached_gateway(context) && proxy.new_calls().is_empty());
}

/// Calls into the proxy for a batch, in their order: the next call goes out before any stream receives its answer.
#[test]
fn a_batch_call_by_call() {
    let mut proxy = proxy(&json!({}));
    let (streams, call) = waiting(&mut proxy, 3);
    pay(&mut proxy, "next");
    let mark = proxy.host().calls.len();
    proxy.host_mut().monotonic_ms += 4;
    proxy.answer(call.token, &batch(&[passes("ADMITTED"), refuses(), passes("ADMITTED")]));
    let calls: Vec<&str> = proxy.host().calls[mark..].iter().map(String::as_str).collect();
    let effective: Vec<String> = streams.iter().map(|stream| format!("effective {stream}")).collect();
    let headers = ["set 0 x-sluice-code: ADMITTED", "set 0 x-sluice-decision-id: d-1", "set 0 x-sluice-replay: false"];
    let admitted = [&["record sluice_check_ms 4"], &headers[..], &["resume 0"]].concat();
    let expected = [
        &["effective 1", "buffer 5", "clock 1", "grpc sluice_authz Check 496", "record sluice_batch_checks 1"][..],
        &[effective[0].as_str()][..],
        &admitted[..],
        &[effective[1].as_str(), "record sluice_check_ms 4", "respond 429"],
        &[effective[2].as_str()],
        &admitted[..],
        // What was counted is written once.
        &["count sluice_admitted 2", "count sluice_refused 1"],
    ]
    .concat();
    assert_eq!(calls, expected);
}

/// Setting the timer is a call into the proxy: a worker whose calls are answered sets it now and then, not for each payment.
#[test]
fn a_busy_worker_seldom_sets_its_timer() {
    let mut proxy = proxy(&json!({}));
    let mut under_way: Option<(u64, GrpcCall)> = None;
    let set = |proxy: &Proxy| proxy.host().calls.iter().filter(|call| call.starts_with("tick_period")).count();
    let before = set(&proxy);
    let mut paid = 0;
    for now_ms in 1..=1_000_u64 {
        proxy.host_mut().monotonic_ms = now_ms;
        if let Some((_, call)) = under_way.take_if(|(ends_ms, _)| *ends_ms <= now_ms) {
            let asked = if call.path.ends_with("BatchCheck") { questions(&call).len() } else { 1 };
            let answers = vec![passes("ADMITTED"); asked];
            proxy.answer(call.token, &if asked == 1 { passes("ADMITTED") } else { batch(&answers) });
        }
        if proxy.host().tick_due_ms <= now_ms {
            proxy.tick_when_due();
        }
        for order in 0..5 {
            pay(&mut proxy, &format!("{now_ms}-{order}"));
            paid += 1;
        }
        for call in proxy.new_calls() {
            assert!(under_way.replace((now_ms + 2, call)).is_none(), "one call in flight");
        }
    }
    let set = set(&proxy) - before;
    assert!(set <= 2 * 1_000 / usize::try_from(SLOW_MS).unwrap() + 1, "{set} times for {paid} payments");
}

/// A call that the proxy does not take: the payment that asks is answered at once, those that waited at the next tick,
/// and nothing is voided.
#[test]
fn questions_that_cannot_be_sent_are_answered_by_their_rules() {
    for (on_error, reached, reply) in [("deny", false, Some(503)), ("allow", true, None)] {
        let mut configuration = configuration(&json!({}));
        configuration["rules"][1]["on_error"] = json!(on_error);
        let mut proxy = Proxy::configured(&configuration);
        let calls = held_up(&mut proxy);
        let streams = pay_many(&mut proxy, 0..40);
        proxy.host_mut().failing_grpc = Some(10);
        answer_held_up(&mut proxy, &calls);
        // Those of the call that failed, and the next ones with the tick.
        for _ in 0..2 {
            proxy.tick();
        }
        for stream in streams {
            assert_eq!((proxy.reached_gateway(stream), status(&mut proxy, stream)), (reached, reply), "{on_error}");
            assert!(proxy.ended(stream)["detail"].as_str().unwrap().contains("could not be sent"));
        }
        assert!(proxy.host().monotonic_ms < 10);
        proxy.host_mut().failing_grpc = None;
        assert!(settle(&mut proxy).is_empty());
        let next = pay(&mut proxy, "next");
        assert_eq!(settle(&mut proxy), ["consume next"]);
        assert!(proxy.reached_gateway(next));
    }
}

/// A root that is configured anew is not asked for its old calls any more: what was sent is void, what waited was never asked.
#[test]
fn a_root_that_is_configured_anew_leaves_no_stream_waiting() {
    for (on_error, reached, voids) in [("deny", false, &["void o-0", "void o-1"][..]), ("allow", true, &[])] {
        let mut configuration = configuration(&json!({}));
        configuration["rules"][1]["on_error"] = json!(on_error);
        let mut proxy = Proxy::configured(&configuration);
        let (streams, call) = waiting(&mut proxy, 2);
        let queued = pay(&mut proxy, "queued");
        assert!(proxy.configure(&configuration));
        proxy.tick();
        for stream in [streams[0], streams[1], queued] {
            let answered = (proxy.reached_gateway(stream), status(&mut proxy, stream));
            assert_eq!(answered, (reached, (!reached).then_some(503)), "{on_error}");
        }
        let mark = proxy.host().calls.len();
        proxy.answer(call.token, &batch(&[passes("ADMITTED"), passes("ADMITTED")]));
        assert_eq!(proxy.host().calls[mark..], ["effective 1"], "no stream takes its answer any more");
        assert_eq!(settle(&mut proxy), voids, "{on_error}");
        assert!(proxy.ended(queued)["detail"].as_str().unwrap().contains("could not be sent"));
        // A payment that goes on without an answer, and fails, is taken back where the server may have consumed.
        if reached {
            proxy.response_headers(streams[0], 422, 0);
            assert_eq!(settle(&mut proxy), ["void o-0"]);
        }
    }
}

/// No proxy takes a root from its streams. If one did, no stream would hang: another root's tick answers them.
#[test]
fn a_root_that_goes_before_its_streams_leaves_none_waiting() {
    let mut proxy = proxy(&json!({}));
    let (streams, call) = waiting(&mut proxy, 2);
    let queued = pay(&mut proxy, "queued");
    let newer = 1_000_000_u32;
    assert!(proxy.configure_root(newer, &configuration(&json!({}))));
    let body = proxy.open(PAYMENT);
    proxy.headers(body, false);
    proxy.call::<_, u32>(ROOT, "proxy_on_done", (ROOT,));
    proxy.call::<_, ()>(ROOT, "proxy_on_delete", (ROOT,));
    proxy.body(body, BODY, true);
    assert_eq!(status(&mut proxy, body), Some(503), "no root can ask for it any more");
    proxy.host_mut().monotonic_ms += 250;
    proxy.call::<_, ()>(newer, "proxy_on_tick", (newer,));
    for stream in [streams[0], streams[1], queued] {
        assert_eq!(status(&mut proxy, stream), Some(503));
    }
    let void = proxy.one_call();
    let asked = questions(&void);
    assert_eq!(orders(&asked), ["o-0", "o-1"], "what was sent is taken back");
    let calls = proxy.host().calls.len();
    proxy.answer(call.token, &batch(&[passes("ADMITTED"), passes("ADMITTED")]));
    assert_eq!(proxy.host().calls.len(), calls, "no stream takes its answer any more");
}

#[test]
fn a_delayed_payment_call_by_call() {
    let mut proxy = proxy(&json!({}));
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, BODY, true);
    let call = proxy.one_call();
    let mark = proxy.host().calls.len();
    proxy.answer(call.token, &delays(300));
    let answered = proxy.host().calls[mark..].to_vec();
    let expected = [
        "set 0 x-sluice-code: ADMITTED",
        "set 0 x-sluice-delay-ms: 300",
        "clock 1",
        "tick_period 250",
        "count sluice_admitted 1",
        "count sluice_delayed 1",
    ];
    let admitted = answered.iter().position(|call| call == expected[0]).unwrap();
    assert_eq!(answered[admitted..], expected);
    // What else comes of the request is held back with it.
    assert_eq!(proxy.body(context, &[], true), PAUSE);
    assert_eq!(proxy.trailers(context), PAUSE);
    let mark = proxy.host().calls.len();
    proxy.tick();
    assert_eq!(proxy.host().calls[mark..], ["clock 1", "tick_period 50"]);
    proxy.tick();
    assert_eq!(proxy.host().monotonic_ms, 300);
    let ticked = &proxy.host().calls[mark + 2..];
    let expected = [
        "clock 1".to_owned(),
        format!("effective {context}"),
        "resume 0".to_owned(),
        "effective 1".to_owned(),
        "tick_period 250".to_owned(),
    ];
    assert_eq!(ticked, expected);
    assert!(proxy.reached_gateway(context));
    // The gateway's answer decides as ever.
    proxy.response_headers(context, 422, 0);
    assert_eq!(question(&proxy.one_call())["reason"], "upstream_4xx");
    proxy.close(context, Some(422), 0);
    let expected = serde_json::json!({"code": "ADMITTED", "mode": "enforce", "rule": "payments", "action": "consume", "merchant": "m1",
        "order": "o-1", "amount_minor": 1050.0, "currency": "USD", "check_ms": 0.0, "delay_ms": 300.0, "outcome": "voided"});
    let mut state = proxy.state(context);
    ensure_attempt(&mut state);
    assert_eq!(state, expected);
}

#[test]
fn a_timer_that_is_late_or_early_loses_no_payment() {
    let mut proxy = proxy(&json!({}));
    let (stream, _) = delayed(&mut proxy, 100);
    // Early: the proxy's timers have a clock of their own.
    proxy.host_mut().tick_period_ms = 99;
    proxy.tick();
    assert!(!proxy.reached_gateway(stream));
    assert_eq!(proxy.host().tick_period_ms, 1);
    proxy.host_mut().tick_period_ms = 5_000;
    proxy.tick();
    assert!(proxy.reached_gateway(stream));
}

#[test]
fn streams_of_an_older_configuration_go_on_by_the_newer_ones_timer() {
    let mut proxy = proxy(&json!({}));
    let (stream, _) = delayed(&mut proxy, 200);
    let newer = 1_000_000_u32;
    proxy.call::<_, ()>(newer, "proxy_on_context_create", (newer, 0_u32));
    let size = u32::try_from(proxy.host().configuration.len()).unwrap();
    assert_eq!(proxy.call::<_, u32>(newer, "proxy_on_configure", (newer, size)), 1);
    proxy.host_mut().monotonic_ms += 250;
    proxy.call::<_, ()>(newer, "proxy_on_tick", (newer,));
    assert!(proxy.reached_gateway(stream));
}

#[test]
fn voids_outlive_their_configuration() {
    let mut proxy = proxy(&json!({}));
    let (context, attempt) = admitted(&mut proxy);
    proxy.close(context, Some(422), 0);
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
fn an_amount_in_headers_that_cannot_be_read_settles_nothing() {
    // Headers that the proxy does not hand out could have said another amount.
    let mut proxy = capturing();
    let context = proxy.open(PAYMENT);
    proxy.headers(context, false);
    proxy.body(context, CAPTURE.as_bytes(), true);
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("APPLIED"));
    let at = proxy.host().calls.len() + 1;
    proxy.host_mut().fail = Some((at, 10));
    proxy.response_headers(context, 200, 0);
    assert_eq!(proxy.host().calls[at], "headers 2");
    proxy.close(context, Some(200), 0);
    assert_eq!(proxy.state(context)["outcome"], "unsettled");
    assert_eq!(question(&proxy.one_call())["action"], "unknown");
}

/// A count of tries that cannot be read may be any.
#[test]
fn f7_tries_that_cannot_be_read_are_unknown() {
    for (status, flags) in [(422, 0), (503, 1 << 5), (503, 1 << 1)] {
        let mut proxy = proxy(&json!({}));
        let (context, _) = admitted(&mut proxy);
        proxy.stream(context).properties.insert("upstream.request_attempt_count".into(), vec![1]);
        proxy.response_headers(context, status, flags);
        proxy.close(context, Some(status), flags);
        assert_eq!(proxy.state(context)["outcome"], "unknown", "{status} {flags}");
        assert_eq!(question(&proxy.one_call())["action"], "unknown");
    }
}

/// Takes the attempt's id out of a record: 32 hexadecimal digits.
fn ensure_attempt(state: &mut serde_json::Value) {
    let attempt = state.as_object_mut().unwrap().remove("attempt").unwrap();
    assert_eq!(attempt.as_str().unwrap().len(), 32, "{attempt}");
}
