//! B1: a call that is lost with its server is asked once more of the next one, within the payments' own deadlines.

use filter::batch::REPEAT_LEFT_MS;
use serde_json::json;

use super::batches::{ALONE, orders, pay, pay_many, settle, status};
use super::proxy;
use super::proxy::{Answer, batch, passes, question, questions, refuses};

/// What the proxy says where no server was there, or its connection was lost.
const LOST: [u32; 2] = [13, 14];

/// Whether a call that failed so is asked once more.
pub(crate) fn is_lost(answer: &Answer) -> bool {
    matches!(answer, Answer::Failed(status) if LOST.contains(status))
}

#[test]
fn b1_a_lost_call_is_asked_once_more() {
    for lost in LOST {
        for (answer, expected) in [(passes("ADMITTED"), None), (refuses(), Some(429))] {
            let mut proxy = proxy(&json!({}));
            let stream = pay(&mut proxy, "a");
            let first = proxy.one_call();
            proxy.host_mut().monotonic_ms += 7;
            proxy.answer(first.token, &Answer::Failed(lost));
            let second = proxy.one_call();
            assert_eq!(second.message, first.message, "the same attempt");
            assert_eq!((first.timeout_ms, second.timeout_ms), (500, 493), "within the payment's own deadline");
            assert_eq!((status(&mut proxy, stream), proxy.reached_gateway(stream)), (None, false));
            proxy.answer(second.token, &answer);
            assert_eq!((status(&mut proxy, stream), proxy.reached_gateway(stream)), (expected, expected.is_none()));
            assert_eq!(proxy.metric("sluice_asked_again"), 1);
            assert!(proxy.new_calls().is_empty());
        }
    }
}

#[test]
fn b1_twice_lost_is_no_answer() {
    let mut proxy = proxy(&json!({}));
    let stream = pay(&mut proxy, "a");
    for _ in 0..2 {
        let call = proxy.one_call();
        assert_eq!(question(&call)["action"], "consume");
        proxy.answer(call.token, &Answer::Failed(14));
    }
    assert_eq!(status(&mut proxy, stream), Some(503));
    assert_eq!(settle(&mut proxy), ["void a"]);
    assert_eq!((proxy.metric("sluice_asked_again"), proxy.metric("sluice_no_answer_denied")), (1, 1));
}

/// The proxy ends a call that took too long by the same status, and some milliseconds early: there is no time left for another.
#[test]
fn b1_a_call_that_was_too_late_is_not_asked_again() {
    for (after_ms, is_asked) in
        [(500 - REPEAT_LEFT_MS - 1, true), (500 - REPEAT_LEFT_MS, false), (499, false), (500, false)]
    {
        let mut proxy = proxy(&json!({}));
        let stream = pay(&mut proxy, "a");
        let call = proxy.one_call();
        proxy.host_mut().monotonic_ms += after_ms;
        proxy.answer(call.token, &Answer::Failed(14));
        assert_eq!(proxy.metric("sluice_asked_again"), u64::from(is_asked), "{after_ms}");
        if !is_asked {
            assert_eq!(status(&mut proxy, stream), Some(503), "{after_ms}");
            assert_eq!(settle(&mut proxy), ["void a"], "{after_ms}");
        }
    }
}

/// What the server itself says is an answer, however little it helps.
#[test]
fn b1_other_failures_are_not_asked_again() {
    for failed in [1, 2, 4, 5, 7, 8, 12, 16] {
        let mut proxy = proxy(&json!({}));
        let stream = pay(&mut proxy, "a");
        let call = proxy.one_call();
        proxy.answer(call.token, &Answer::Failed(failed));
        assert_eq!(status(&mut proxy, stream), Some(503), "{failed}");
        assert_eq!(settle(&mut proxy), ["void a"], "{failed}");
    }
}

/// Each of a batch is asked once more, with the others, and beside the next batch; who has left meanwhile is not. What the second
/// server wants to decide alone it is asked alone, and the attempt is known as one that the first may have charged.
#[test]
fn b1_a_lost_batch_is_asked_once_more() {
    let mut proxy = proxy(&json!({}));
    pay(&mut proxy, "first");
    let first = proxy.one_call();
    let streams = pay_many(&mut proxy, 0..4);
    proxy.answer(first.token, &passes("ADMITTED"));
    let call = proxy.one_call();
    assert_eq!(orders(&questions(&call)), ["o-0", "o-1", "o-2", "o-3"]);
    let next = pay(&mut proxy, "next");
    proxy.close(streams[0], None, 1 << 14);
    // The void of the one that left goes with what follows.
    proxy.answer(call.token, &Answer::Failed(14));
    let mut calls = proxy.new_calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    let again = calls.remove(0);
    assert_eq!(orders(&questions(&again)), ["o-1", "o-2", "o-3"]);
    assert_eq!(questions(&call)[1..], questions(&again)[..], "the same attempts");
    assert!(orders(&questions(&calls[0])).contains(&"next"));
    proxy.answer(calls[0].token, &batch(&[passes("ADMITTED"), passes("VOIDED")]));
    assert!(proxy.reached_gateway(next));
    proxy.answer(again.token, &batch(&[passes("ADMITTED"), ALONE, refuses()]));
    let alone = proxy.one_call();
    assert_eq!(question(&alone)["order_no"], "o-2");
    proxy.answer(alone.token, &Answer::Failed(14));
    assert!(proxy.reached_gateway(streams[1]));
    assert_eq!([status(&mut proxy, streams[2]), status(&mut proxy, streams[3])], [Some(503), Some(429)]);
    assert_eq!(settle(&mut proxy), ["void o-2"]);
    assert_eq!(proxy.metric("sluice_asked_again"), 3);
}

/// Follow-ups are sent again by their own queue.
#[test]
fn b1_a_lost_follow_up_waits_for_its_own_turn() {
    let mut proxy = proxy(&json!({}));
    let stream = pay(&mut proxy, "a");
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("ADMITTED"));
    proxy.close(stream, Some(422), 0);
    let void = proxy.one_call();
    assert_eq!(question(&void)["action"], "void");
    proxy.answer(void.token, &Answer::Failed(14));
    assert!(proxy.new_calls().is_empty());
    assert_eq!(proxy.metric("sluice_asked_again"), 0);
    while proxy.host().grpc_calls.len() == 2 {
        proxy.tick();
    }
    assert_eq!(settle(&mut proxy), ["void a"]);
}
