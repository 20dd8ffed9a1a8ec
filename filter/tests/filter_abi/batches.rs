//! Payments that arrive while a call is under way go together in the next one: each gets its own answer, whatever the order,
//! the number and the state of the others.

use std::collections::BTreeMap;

use serde_json::json;

use filter::batch::BATCH_MAX;

use super::host::GrpcCall;
use super::lost::is_lost;
use super::proxy::{Answer, PAUSE, Proxy, batch, passes, question, questions, refuses, store_away};
use super::{configuration, proxy};

/// The client left: no status, the flag DC.
pub(crate) const GONE: (Option<u16>, u64) = (None, 1 << 14);
/// The status by which the server says that it wants to decide one by itself.
pub(crate) const ALONE: Answer = Answer::Failed(proto::batch::ALONE);

/// A payment of this order, read from its head.
pub(crate) fn pay(proxy: &mut Proxy, order: &str) -> u32 {
    let context =
        proxy.open(&[(":method", "POST"), (":path", "/pay/m2?amount=10.50&currency=EUR"), ("idempotency-key", order)]);
    assert_eq!(proxy.headers(context, true), PAUSE);
    context
}

pub(crate) fn pay_many(proxy: &mut Proxy, orders: std::ops::Range<usize>) -> Vec<u32> {
    orders.map(|order| pay(proxy, &format!("o-{order}"))).collect()
}

/// Checks that wait and are sent beside the call of a single one.
const OVERLAP: usize = BATCH_MAX / 2;

/// Two calls are in flight, of one check and of [`OVERLAP`]: what comes now waits.
pub(crate) fn held_up(proxy: &mut Proxy) -> [GrpcCall; 2] {
    pay(proxy, "first");
    let first = proxy.one_call();
    pay_many(proxy, 900..900 + OVERLAP);
    [first, proxy.one_call()]
}

/// Both are answered, in their order.
pub(crate) fn answer_held_up(proxy: &mut Proxy, calls: &[GrpcCall; 2]) {
    proxy.answer(calls[0].token, &passes("ADMITTED"));
    proxy.answer(calls[1].token, &batch(&vec![passes("ADMITTED"); OVERLAP]));
}

/// So many wait, and are sent in one call: their streams, and the call.
pub(crate) fn waiting(proxy: &mut Proxy, count: usize) -> (Vec<u32>, GrpcCall) {
    assert!(count <= BATCH_MAX);
    let streams = if count < OVERLAP {
        pay(proxy, "first");
        let first = proxy.one_call();
        let streams = pay_many(proxy, 0..count);
        assert!(proxy.new_calls().is_empty(), "one call is in flight");
        proxy.answer(first.token, &passes("ADMITTED"));
        streams
    } else {
        let calls = held_up(proxy);
        let streams = pay_many(proxy, 0..count);
        assert!(proxy.new_calls().is_empty(), "two calls are in flight");
        answer_held_up(proxy, &calls);
        streams
    };
    (streams, proxy.one_call())
}

pub(crate) fn orders(questions: &[BTreeMap<String, String>]) -> Vec<&str> {
    questions.iter().map(|question| question["order_no"].as_str()).collect()
}

pub(crate) fn status(proxy: &mut Proxy, context: u32) -> Option<u32> {
    proxy.stream(context).reply.as_ref().map(|reply| reply.status)
}

/// Answers every call until none is under way, voids with success; what was asked of each action.
pub(crate) fn settle(proxy: &mut Proxy) -> Vec<String> {
    let mut sent = Vec::new();
    loop {
        let calls = proxy.new_calls();
        if calls.is_empty() {
            return sent;
        }
        for call in calls {
            let asked = if call.path.ends_with("BatchCheck") { questions(&call) } else { vec![question(&call)] };
            let answers: Vec<Answer> = asked
                .iter()
                .map(|asked| passes(if asked["action"] == "void" { "VOIDED" } else { "ADMITTED" }))
                .collect();
            sent.extend(asked.iter().map(|asked| format!("{} {}", asked["action"], asked["order_no"])));
            let answer = if let [one] = &answers[..] { one.clone() } else { batch(&answers) };
            proxy.answer(call.token, &answer);
        }
    }
}

#[test]
fn a_lone_payment_goes_at_once_and_those_that_come_meanwhile_go_together() {
    let mut proxy = proxy(&json!({}));
    let first = pay(&mut proxy, "a");
    let call = proxy.one_call();
    assert_eq!(question(&call)["order_no"], "a", "the standard call");
    let second = pay(&mut proxy, "b");
    assert!(proxy.new_calls().is_empty());
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(first) && !proxy.reached_gateway(second));
    let call = proxy.one_call();
    assert_eq!(question(&call)["order_no"], "b", "one that waits alone is asked by the standard call too");
    let rest = pay_many(&mut proxy, 0..5);
    proxy.answer(call.token, &passes("ADMITTED"));
    let call = proxy.one_call();
    assert_eq!(orders(&questions(&call)), ["o-0", "o-1", "o-2", "o-3", "o-4"]);
    assert_eq!((call.cluster.as_str(), call.timeout_ms), ("sluice_authz", 500));
    proxy.answer(call.token, &batch(&vec![passes("ADMITTED"); 5]));
    assert!(rest.iter().all(|stream| proxy.reached_gateway(*stream)));
    let attempts: std::collections::BTreeSet<String> =
        questions(&call).into_iter().map(|question| question["attempt"].clone()).collect();
    assert_eq!(attempts.len(), 5);
    // Nothing is left behind: the next one is alone again.
    pay(&mut proxy, "c");
    assert_eq!(question(&proxy.one_call())["order_no"], "c");
}

/// What each entry of a batch is answered, and what becomes of its payment under `on_error`: whether it reaches the gateway,
/// the status of its reply, and whether its attempt is voided.
type Row = (Answer, [(bool, Option<u32>, bool); 2]);

fn rows() -> Vec<Row> {
    let none = [(false, Some(503), true), (true, None, false)];
    vec![
        (passes("ADMITTED"), [(true, None, false); 2]),
        (refuses(), [(false, Some(429), false); 2]),
        (store_away(), none),
        (Answer::Failed(14), none),
        (Answer::Failed(4), none),
        (Answer::Failed(u32::MAX), none),
        (passes("DAILY_AMOUNT"), none),
        (passes("TOMBSTONED"), none),
        (Answer::Bytes(Vec::new()), none),
    ]
}

#[test]
fn each_stream_gets_its_own_answer() {
    for (at, on_error) in ["deny", "allow"].into_iter().enumerate() {
        let rows = rows();
        // Every answer at every position beside every other one.
        for shift in 0..rows.len() {
            let mut configuration = configuration(&json!({}));
            configuration["rules"][1]["on_error"] = json!(on_error);
            let mut proxy = Proxy::configured(&configuration);
            let (streams, call) = waiting(&mut proxy, BATCH_MAX);
            let row = |position: usize| &rows[(position * position + shift) % rows.len()];
            let answers: Vec<Answer> = (0..BATCH_MAX).map(|position| row(position).0.clone()).collect();
            proxy.answer(call.token, &batch(&answers));
            let mut voids = Vec::new();
            for (position, stream) in streams.iter().enumerate() {
                let (reached, reply, voided) = row(position).1[at];
                let what = format!("{on_error} {shift} {position}: {:?}", answers[position]);
                assert_eq!((proxy.reached_gateway(*stream), status(&mut proxy, *stream)), (reached, reply), "{what}");
                voids.extend(voided.then(|| format!("void o-{position}")));
                if reply == Some(429) {
                    assert!(proxy.stream(*stream).reply.as_ref().unwrap().body.contains("DAILY_AMOUNT"), "{what}");
                }
            }
            let mut sent = settle(&mut proxy);
            sent.sort();
            voids.sort();
            assert_eq!(sent, voids, "{on_error} {shift}");
        }
    }
}

#[test]
fn an_answer_that_does_not_fit_its_batch_is_none_for_anybody() {
    let admitted = passes("ADMITTED");
    let whole = |count: usize| batch(&vec![admitted.clone(); count]);
    let Answer::Bytes(bytes) = whole(5) else { panic!("bytes") };
    let mut unreadable: Vec<Answer> = (1..bytes.len()).map(|cut| Answer::Bytes(bytes[..cut].to_vec())).collect();
    unreadable.extend([0, 1, 4, 6, 32].map(whole));
    unreadable.extend([admitted, Answer::Bytes(vec![0xff; 60]), Answer::Bytes(vec![0; 400_000])]);
    unreadable.extend((1..=16).map(Answer::Failed));
    let mut proxy = proxy(&json!({}));
    for answer in unreadable {
        let (streams, call) = waiting(&mut proxy, 5);
        proxy.answer(call.token, &answer);
        if is_lost(&answer) {
            // The same questions go once more, to the next server.
            let again = proxy.one_call();
            assert_eq!(questions(&again), questions(&call), "{answer:?}");
            proxy.answer(again.token, &answer);
        }
        for stream in &streams {
            assert!(!proxy.reached_gateway(*stream), "{answer:?}");
            assert_eq!(status(&mut proxy, *stream), Some(503), "{answer:?}");
        }
        let mut sent = settle(&mut proxy);
        sent.sort();
        assert_eq!(sent, ["void o-0", "void o-1", "void o-2", "void o-3", "void o-4"], "{answer:?}");
    }
}

#[test]
fn half_a_call_goes_beside_the_one_in_flight() {
    let mut proxy = proxy(&json!({}));
    let first = pay(&mut proxy, "first");
    let call = proxy.one_call();
    let streams = pay_many(&mut proxy, 0..OVERLAP - 1);
    assert!(proxy.new_calls().is_empty());
    let last = pay(&mut proxy, "last");
    let second = proxy.one_call();
    assert_eq!(questions(&second).len(), OVERLAP);
    // The second is back before the first, and what comes now waits for the first one again.
    proxy.answer(second.token, &batch(&vec![refuses(); OVERLAP]));
    assert!(streams.iter().chain([&last]).all(|stream| status(&mut proxy, *stream) == Some(429)));
    let next = pay(&mut proxy, "next");
    assert!(proxy.new_calls().is_empty() && !proxy.reached_gateway(first));
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(first));
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(next));
}

#[test]
fn a_call_takes_32_and_the_rest_go_next() {
    let mut proxy = proxy(&json!({}));
    let calls = held_up(&mut proxy);
    let streams = pay_many(&mut proxy, 0..70);
    assert!(proxy.new_calls().is_empty(), "there is no third call");
    answer_held_up(&mut proxy, &calls);
    let calls = proxy.new_calls();
    assert_eq!(calls.iter().map(|call| questions(call).len()).collect::<Vec<_>>(), [32, 32]);
    assert_eq!(orders(&questions(&calls[1]))[..2], ["o-32", "o-33"]);
    proxy.answer(calls[0].token, &batch(&vec![refuses(); 32]));
    assert!(streams[..32].iter().all(|stream| status(&mut proxy, *stream) == Some(429)));
    assert!(proxy.new_calls().is_empty(), "six wait, and 32 are in flight");
    proxy.answer(calls[1].token, &batch(&vec![passes("ADMITTED"); 32]));
    let call = proxy.one_call();
    assert_eq!(questions(&call).len(), 6);
    proxy.answer(call.token, &batch(&vec![passes("ADMITTED"); 6]));
    assert!(streams[32..].iter().all(|stream| proxy.reached_gateway(*stream)));
    assert!(proxy.new_calls().is_empty());
}

#[test]
fn batch_max_is_a_setting() {
    // How many calls go while the first is in flight, and the sizes of all that follow it, the latest first.
    let table = [(1, 4, &[1, 1, 1, 1][..]), (2, 1, &[2, 2]), (3, 1, &[3, 1]), (32, 0, &[4])];
    for (batch_max, at_once, sizes) in table {
        let mut configuration = configuration(&json!({}));
        configuration["batch_max"] = json!(batch_max);
        let mut proxy = Proxy::configured(&configuration);
        pay(&mut proxy, "first");
        let first = proxy.one_call();
        let streams = pay_many(&mut proxy, 0..4);
        let mut calls = proxy.new_calls();
        assert_eq!(calls.len(), at_once, "{batch_max}");
        proxy.answer(first.token, &passes("ADMITTED"));
        let mut seen = Vec::new();
        loop {
            calls.extend(proxy.new_calls());
            // In any order: answers find their streams by their calls.
            let Some(call) = calls.pop() else { break };
            let size = if call.path.ends_with("BatchCheck") { questions(&call).len() } else { 1 };
            let answers = vec![passes("ADMITTED"); size];
            proxy.answer(call.token, &if size == 1 { passes("ADMITTED") } else { batch(&answers) });
            seen.push(size);
        }
        assert_eq!(seen, sizes, "{batch_max}");
        assert!(streams.iter().all(|stream| proxy.reached_gateway(*stream)));
    }
    for (batch_max, problem) in
        [(json!(0), "must be 1 to 32, it is 0"), (json!(33), "must be 1 to 32"), (json!("x"), "")]
    {
        let mut configuration = configuration(&json!({}));
        configuration["batch_max"] = batch_max;
        let mut proxy = Proxy::new(super::host::Host::default());
        assert!(!proxy.configure(&configuration));
        assert!(proxy.host().logs[0].contains(problem), "{:?}", proxy.host().logs);
    }
}

#[test]
fn clients_that_leave_before_sending_are_dropped_and_after_it_voided() {
    let mut proxy = proxy(&json!({}));
    pay(&mut proxy, "first");
    let first = proxy.one_call();
    let streams = pay_many(&mut proxy, 0..6);
    for gone in [0, 3, 5] {
        proxy.close(streams[gone], GONE.0, GONE.1);
        assert_eq!(proxy.state(streams[gone])["outcome"], "client_gone");
    }
    proxy.answer(first.token, &passes("ADMITTED"));
    let call = proxy.one_call();
    assert_eq!(orders(&questions(&call)), ["o-1", "o-2", "o-4"], "who left is not asked for");
    // Now one leaves whose question is on its way, whatever comes of it.
    proxy.close(streams[2], GONE.0, GONE.1);
    assert!(proxy.new_calls().is_empty());
    proxy.answer(call.token, &batch(&[passes("ADMITTED"), passes("ADMITTED"), refuses()]));
    assert!(proxy.reached_gateway(streams[1]) && !proxy.reached_gateway(streams[2]));
    assert_eq!((status(&mut proxy, streams[2]), status(&mut proxy, streams[4])), (None, Some(429)));
    assert_eq!(settle(&mut proxy), ["void o-2"]);
    assert_eq!(proxy.metric("sluice_client_gone"), 4);
    // All of them: the call that is under way is answered into the void, and holds no payment up meanwhile.
    let (streams, call) = waiting(&mut proxy, 3);
    let late = pay(&mut proxy, "late");
    proxy.close(late, GONE.0, GONE.1);
    for stream in &streams {
        assert!(proxy.new_calls().is_empty());
        proxy.close(*stream, GONE.0, GONE.1);
    }
    let next = pay(&mut proxy, "next");
    let beside = proxy.one_call();
    assert_eq!(orders(&questions(&beside)), ["next", "o-0", "o-1", "o-2"]);
    proxy.answer(call.token, &Answer::Failed(4));
    proxy.answer(beside.token, &batch(&[passes("ADMITTED"), passes("VOIDED"), passes("VOIDED"), passes("VOIDED")]));
    assert!(proxy.reached_gateway(next));
    assert!(settle(&mut proxy).is_empty());
}

#[test]
fn follow_ups_ride_in_the_calls_of_payments() {
    let mut proxy = proxy(&json!({}));
    let failed = waiting(&mut proxy, 3);
    proxy.answer(failed.1.token, &batch(&vec![passes("ADMITTED"); 3]));
    // A payment is under way while the gateway fails three others.
    pay(&mut proxy, "under-way");
    let call = proxy.one_call();
    for stream in &failed.0 {
        proxy.response_headers(*stream, 422, 0);
        proxy.close(*stream, Some(422), 0);
    }
    pay(&mut proxy, "next");
    assert!(proxy.new_calls().is_empty());
    proxy.answer(call.token, &passes("ADMITTED"));
    let call = proxy.one_call();
    let asked = questions(&call);
    assert_eq!(orders(&asked), ["next", "o-0", "o-1", "o-2"], "payments first");
    assert!(asked[1..].iter().all(|void| void["action"] == "void" && void["reason"] == "upstream_4xx"));
    // One is taken, one is to be sent again, one will never be taken.
    let never = super::proxy::encoded(Some(3), super::proxy::denied(400, &[("x-sluice-code", "BAD_REQUEST")], "{}"));
    proxy.answer(call.token, &batch(&[refuses(), passes("VOIDED"), Answer::Failed(14), never]));
    assert_eq!(proxy.metric("sluice_void_lost"), 1);
    while proxy.host().monotonic_ms < filter::follow_up::BACKOFF_MS {
        proxy.tick_when_due();
    }
    let again = proxy.one_call();
    assert_eq!(question(&again)["order_no"], "o-1");
    assert_eq!(again.timeout_ms, filter::follow_up::TIMEOUT_MS);
    // Follow-ups alone hold no payment up.
    let late = pay(&mut proxy, "late");
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(late));
    proxy.answer(again.token, &passes("VOIDED"));
    assert!(settle(&mut proxy).is_empty());
    assert_eq!((proxy.metric("sluice_void_sent"), proxy.metric("sluice_void_retried")), (3, 1));
}

/// However many payments there are, follow-ups get through; and the other way round.
#[test]
fn neither_payments_nor_follow_ups_starve() {
    let mut proxy = proxy(&json!({}));
    let (streams, call) = waiting(&mut proxy, 32);
    proxy.answer(call.token, &batch(&vec![passes("ADMITTED"); 32]));
    let mut in_flight = Vec::from(held_up(&mut proxy));
    for stream in streams {
        proxy.close(stream, Some(422), 0);
    }
    let (mut calls, mut voided) = (0, 0);
    while voided < 32 {
        pay_many(&mut proxy, 0..40);
        let oldest = in_flight.remove(0);
        let size = if oldest.path.ends_with("BatchCheck") { questions(&oldest).len() } else { 1 };
        let answers = vec![passes("VOIDED"); size];
        proxy.answer(oldest.token, &if size == 1 { passes("VOIDED") } else { batch(&answers) });
        let call = proxy.one_call();
        let asked = questions(&call);
        assert_eq!(asked.len(), 32);
        voided += asked.iter().filter(|asked| asked["action"] == "void").count();
        calls += 1;
        in_flight.push(call);
    }
    assert_eq!(calls, 8, "an eighth of each call");
}

#[test]
fn one_that_would_hold_up_its_batch_is_asked_alone() {
    let mut proxy = proxy(&json!({}));
    let (failed, call) = waiting(&mut proxy, 1);
    proxy.answer(call.token, &passes("ADMITTED"));
    pay(&mut proxy, "under-way");
    let under_way = proxy.one_call();
    proxy.close(failed[0], Some(422), 0);
    let streams = pay_many(&mut proxy, 1..6);
    proxy.host_mut().monotonic_ms += 10;
    proxy.answer(under_way.token, &passes("ADMITTED"));
    let call = proxy.one_call();
    assert_eq!(orders(&questions(&call)), ["o-1", "o-2", "o-3", "o-4", "o-5", "o-0"]);
    proxy.close(streams[4], GONE.0, GONE.1);
    proxy.host_mut().monotonic_ms += 90;
    proxy.answer(call.token, &batch(&[ALONE, passes("ADMITTED"), ALONE, refuses(), ALONE, ALONE]));
    assert!(proxy.reached_gateway(streams[1]));
    assert_eq!(status(&mut proxy, streams[3]), Some(429));
    // What is asked alone has what is left of its time, and several may be. One whose client left
    // meanwhile is taken back instead.
    let alone = proxy.new_calls();
    let asked: Vec<_> = alone.iter().map(question).collect();
    let own: Vec<_> = asked.iter().map(|asked| (asked["action"].as_str(), asked["order_no"].as_str())).collect();
    assert_eq!(own, [("void", "o-5"), ("consume", "o-1"), ("consume", "o-3"), ("void", "o-0")]);
    assert_eq!(alone.iter().map(|call| call.timeout_ms).collect::<Vec<_>>(), [2_000, 400, 400, 2_000]);
    // They hold no payment up.
    let next = pay(&mut proxy, "next");
    let call = proxy.one_call();
    proxy.answer(call.token, &passes("ADMITTED"));
    assert!(proxy.reached_gateway(next));
    // Alone, there is no second word of that kind.
    proxy.answer(alone[1].token, &ALONE);
    proxy.answer(alone[2].token, &passes("ADMITTED"));
    proxy.answer(alone[0].token, &passes("VOIDED"));
    assert!(proxy.reached_gateway(streams[2]));
    assert_eq!(status(&mut proxy, streams[0]), Some(503));
    proxy.answer(alone[3].token, &passes("VOIDED"));
    assert_eq!(settle(&mut proxy), ["void o-1"]);
}
