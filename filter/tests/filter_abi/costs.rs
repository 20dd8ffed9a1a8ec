//! What a payment costs in the worker: calls into the proxy, instructions of the module, and allocations. They are exact, so
//! that a change that makes payments dearer has to say so here.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use prost::Message;
use proto::envoy::CheckResponse;
use serde_json::json;

use filter::config::Plugin;
use filter::machine::{BodyReader, Event, ModeWord, RequestHead, Stream, drive};
use filter::outcome::Ending;

use super::proxy::{Answer, CONTINUE, PAUSE, Proxy, batch, encoded, ok, passes, questions, refuses};
use super::{BODY, PAYMENT, configuration, proxy};

/// How far a count may be above its expectation, in percent.
const RISE_MAX: u64 = 2;

/// A request that is read, and waits for its answer. With HTTP/1 the proxy reports a body twice.
pub(super) fn asked(proxy: &mut Proxy) -> u32 {
    ask(proxy, PAYMENT, BODY)
}

fn ask(proxy: &mut Proxy, headers: &[(&str, &str)], body: &[u8]) -> u32 {
    let context = proxy.open(headers);
    assert_eq!(proxy.headers(context, false), PAUSE);
    proxy.body(context, body, false);
    proxy.body(context, b"", true);
    context
}

/// So many payments at once, from their headers to their logs.
pub(super) fn pay(proxy: &mut Proxy, count: usize) {
    pay_with(proxy, count, PAYMENT, BODY, &passes("ADMITTED"));
}

/// So many payments at once, each with this answer of the server.
fn pay_with(proxy: &mut Proxy, count: usize, headers: &[(&str, &str)], body: &[u8], answer: &Answer) {
    let streams: Vec<u32> = (0..count).map(|_| ask(proxy, headers, body)).collect();
    let mut calls = VecDeque::from(proxy.new_calls());
    while let Some(call) = calls.pop_front() {
        let size = if call.path.ends_with("BatchCheck") { questions(&call).len() } else { 1 };
        proxy.answer(call.token, &if size == 1 { answer.clone() } else { batch(&vec![answer.clone(); size]) });
        calls.extend(proxy.new_calls());
    }
    for context in streams {
        let refused = proxy.stream(context).reply.as_ref().map(|reply| u16::try_from(reply.status).unwrap());
        assert_eq!(proxy.reached_gateway(context), refused.is_none());
        if refused.is_none() {
            proxy.response_headers(context, 200, 0);
        }
        proxy.close(context, Some(refused.unwrap_or(200)), 0);
        proxy.host_mut().streams.remove(&context);
    }
}

/// One kind of request, and what one of them costs: exact counts. A module of another compiler may differ.
struct Cost {
    name: &'static str,
    /// How many are run, so that costs of a call to the server are shared as they are in practice.
    count: usize,
    run: fn(&mut Proxy, usize),
    /// Instructions of the module for each request.
    instructions: u64,
    /// Calls into the proxy for all of them, by function.
    calls: &'static [(&'static str, usize)],
    /// Buffers that the proxy had from the module for all of them.
    buffers: usize,
}

/// The headers of a payment as clients and the proxy write them.
pub(super) const USUAL: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/v1/merchants/m1/payments"),
    (":authority", "gateway.example"),
    (":scheme", "http"),
    ("content-type", "application/json"),
    ("content-length", "254"),
    ("user-agent", "wrk/4"),
    ("accept", "*/*"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-request-id", "0af76519-16cd-43dd-8448-eb211c80319c"),
    ("x-forwarded-proto", "http"),
];

/// A body of some 250 bytes.
const USUAL_BODY: &[u8] = br#"{"order_no": "o-123456789012", "amount": 1050, "currency": "USD", "note": "\u00e9 {}",
"customer": {"id": "c-1234567", "email": "someone@example.com"},
"description": "A payment of some 250 bytes, as the measurements have them", "method": "card", "x": 1}"#;

/// An admission as the server writes it: a whole decision id, and 300 bytes for the access log.
fn admission() -> Answer {
    let headers = [
        ("x-sluice-code", "ADMITTED"),
        ("x-sluice-decision-id", "0190d4e2-7b5a-7c3e-8f00-0123456789ab"),
        ("x-sluice-replay", "false"),
    ];
    let Answer::Bytes(bytes) = encoded(Some(0), ok(&headers)) else { panic!("an answer is bytes") };
    let mut response = CheckResponse::decode(bytes.as_slice()).unwrap();
    response.dynamic_metadata = vec![b'x'; 300];
    Answer::Bytes(response.encode_to_vec())
}

const COSTS: &[Cost] = &[
    Cost {
        name: "payments one after the other",
        count: 10,
        run: |proxy, count| (0..count).for_each(|_| pay_with(proxy, 1, USUAL, USUAL_BODY, &admission())),
        instructions: 40_239,
        calls: &[
            ("buffer", 20),
            ("clock", 20),
            ("count", 10),
            ("effective", 20),
            ("grpc", 10),
            ("header", 10),
            ("headers", 10),
            ("property", 20),
            ("record", 20),
            ("resume", 10),
            ("set", 30),
            ("state", 10),
        ],
        buffers: 50,
    },
    Cost {
        name: "payments in batches",
        count: 33,
        run: |proxy, count| (0..count / 11).for_each(|_| pay_with(proxy, 11, USUAL, USUAL_BODY, &admission())),
        instructions: 39_847,
        calls: &[
            ("buffer", 39),
            ("clock", 39),
            ("count", 6),
            ("effective", 39),
            ("grpc", 6),
            ("header", 33),
            ("headers", 33),
            ("property", 66),
            ("record", 39),
            ("resume", 33),
            ("set", 99),
            ("state", 33),
        ],
        buffers: 138,
    },
    Cost {
        name: "payments with a header that is removed",
        count: 10,
        run: |proxy, count| {
            let headers = [USUAL, &[("x-sluice-code", "ADMITTED")]].concat();
            (0..count).for_each(|_| pay_with(proxy, 1, &headers, USUAL_BODY, &admission()));
        },
        instructions: 42_269,
        calls: &[
            ("buffer", 20),
            ("clock", 20),
            ("count", 10),
            ("effective", 20),
            ("grpc", 10),
            ("header", 10),
            ("headers", 10),
            ("property", 20),
            ("record", 20),
            ("remove", 10),
            ("resume", 10),
            ("set", 30),
            ("state", 10),
        ],
        buffers: 50,
    },
    Cost {
        name: "refused payments",
        count: 10,
        run: |proxy, count| (0..count).for_each(|_| pay_with(proxy, 1, USUAL, USUAL_BODY, &refuses())),
        instructions: 44_788,
        calls: &[
            ("buffer", 20),
            ("clock", 20),
            ("count", 10),
            ("effective", 20),
            ("grpc", 10),
            ("headers", 10),
            ("property", 10),
            ("record", 20),
            ("respond", 10),
            ("state", 10),
        ],
        buffers: 30,
    },
    Cost {
        name: "requests that are no payments",
        count: 10,
        run: |proxy, count| {
            for _ in 0..count {
                let context = proxy.open(&[&[(":method", "GET"), (":path", "/v1/reports")], &USUAL[2..]].concat());
                assert_eq!(proxy.headers(context, true), CONTINUE);
                proxy.response_headers(context, 200, 0);
                proxy.close(context, Some(200), 0);
                proxy.host_mut().streams.remove(&context);
            }
        },
        instructions: 6_564,
        calls: &[("count", 10), ("headers", 10), ("property", 10)],
        buffers: 10,
    },
];

fn rises(expected: u64, counted: u64) -> bool {
    counted * 100 > expected * (100 + RISE_MAX)
}

/// The calls since `from` by function, as [`Cost::calls`] has them.
fn by_function(calls: &[String]) -> Vec<(&str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        *counts.entry(call.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// A rise fails, and a fall may be written down. Any change that makes a payment dearer writes the new expectation into [`COSTS`].
#[test]
fn a_payment_costs_what_is_written_here() {
    let mut proxy = proxy(&json!({}));
    let mut dearer = Vec::new();
    for Cost { name, count, run, instructions, calls, buffers } in COSTS {
        // The first of all, and the first that waits, set up what the others find.
        run(&mut proxy, *count);
        let before = (proxy.instructions(), proxy.host().calls.len(), proxy.host().buffers);
        proxy.spent.clear();
        run(&mut proxy, *count);
        let counted = (proxy.instructions() - before.0) / *count as u64;
        let made = by_function(&proxy.host().calls[before.1..]);
        let taken = proxy.host().buffers - before.2;
        println!("{name}: {counted} instructions, {made:?}, {taken} buffers");
        let sum = |calls: &[(&str, usize)]| calls.iter().map(|(_, count)| count).sum::<usize>();
        if rises(*instructions, counted) || sum(&made) > sum(calls) || taken > *buffers {
            let spent: Vec<(String, u64)> =
                proxy.spent.iter().map(|(callback, spent)| (callback.clone(), spent / *count as u64)).collect();
            dearer.push(format!(
                "{name}: {counted} instructions for each, {instructions} are expected; calls of {count}: {made:?}, expected \
                 {calls:?}; buffers {taken}, expected {buffers}. Instructions by callback: {spent:?}. If it has to be so, write \
                 `instructions: {counted}, calls: &{made:?}, buffers: {taken}` into COSTS of filter/tests/filter_abi/costs.rs"
            ));
        } else {
            assert_eq!(made, *calls, "{name}: other calls: write them into COSTS");
        }
    }
    assert!(dearer.is_empty(), "{}", dearer.join("\n"));
}

/// Allocations of the state machine for one request by its kind: headers, body, answer and log. The glue's and the SDK's are not
/// among them, and the proxy's own are [`Cost::buffers`].
const ALLOCATIONS: [(&str, u64); 3] = [("an admitted payment", 19), ("a refused payment", 19), ("no payment", 3)];

/// The allocations of one request from its headers to its log.
fn allocations(plugin: &Arc<Plugin>, path: &str, answer: &Answer) -> u64 {
    let Answer::Bytes(message) = answer else { panic!("an answer is bytes") };
    let is_path = |name: &str| name == ":path";
    let headers: Vec<(&[u8], &[u8])> = USUAL
        .iter()
        .map(|(name, value)| (name.as_bytes(), if is_path(name) { path.as_bytes() } else { value.as_bytes() }))
        .collect();
    let read: BodyReader<'_> = &|_| Ok(Cow::Borrowed(USUAL_BODY));
    let run = || {
        let mut stream = Stream::new(Arc::clone(plugin), 1);
        let head = RequestHead { headers: &headers, mode: ModeWord::Unset, metadata: &|_| Ok(None) };
        drive(&mut stream, Event::RequestHeaders { head, end: false }, &mut |_| Ok(()));
        drive(&mut stream, Event::RequestBody { size: USUAL_BODY.len(), end: true, read }, &mut |_| Ok(()));
        stream.check_sent();
        let reply = Event::Reply { grpc_status: 0, message: Some(message), check_ms: 1 };
        drive(&mut stream, reply, &mut |_| Ok(()));
        let ending = Ending { status: Some(200), ..Ending::default() };
        drive(&mut stream, Event::Log(ending), &mut |_| Ok(()));
    };
    // What is set up once is not counted.
    run();
    allocation_counter::measure(run).count_total
}

/// `cargo load` reports them, and docs/performance.md has its report.
#[test]
fn the_documents_have_the_counts_of_a_payment_in_batches() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance/module.json");
    let documented: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let cost = COSTS.iter().find(|cost| cost.name == "payments in batches").unwrap();
    let calls = cost.calls.iter().map(|(_, calls)| calls).sum::<usize>() as f64 / cost.count as f64;
    let calls = (calls * 100.0).round() / 100.0;
    assert_eq!(
        documented,
        json!({"instructions": cost.instructions, "host_calls": calls}),
        "docs/performance/module.json"
    );
}

#[test]
fn a_payment_allocates_what_is_written_here() {
    let plugin = Arc::new(Plugin::parse(configuration(&json!({})).to_string().as_bytes()).unwrap());
    let path = "/v1/merchants/m1/payments";
    let counted = [
        allocations(&plugin, path, &admission()),
        allocations(&plugin, path, &refuses()),
        allocations(&plugin, "/v1/reports", &admission()),
    ];
    for ((name, expected), counted) in ALLOCATIONS.into_iter().zip(counted) {
        println!("{name}: {counted} allocations");
        assert!(
            !rises(expected, counted),
            "{name}: {counted} allocations, {expected} are expected; if it has to be so, write {counted} into ALLOCATIONS of \
             filter/tests/filter_abi/costs.rs"
        );
    }
}

/// Calls into the proxy for each admitted and paid payment: headers, mode, a stripped header; body, time; context, histogram,
/// three headers for the gateway, going on; status, flags, filter state.
const HOST_CALLS: usize = 14;
/// Those for each call to the server: context, answer, time, the next call, histogram, counter.
const HOST_CALLS_OF_A_CALL: usize = 6;

#[test]
fn calls_of_a_payment_are_the_same_however_many_there_are() {
    let mut proxy = proxy(&json!({}));
    // The first of all, and the first that waits, set up what the others find.
    pay(&mut proxy, 2);
    for (count, calls_out) in [(1, 1), (2, 2), (11, 2), (33, 3), (65, 4)] {
        let before = proxy.host().calls.len();
        pay(&mut proxy, count);
        let calls = proxy.host().calls.len() - before;
        let expected = count * HOST_CALLS + calls_out * HOST_CALLS_OF_A_CALL;
        assert_eq!(calls, expected, "{count}: {:#?}", proxy.host().calls.iter().rev().take(40).collect::<Vec<_>>());
    }
}
