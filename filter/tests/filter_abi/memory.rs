//! The module's memory: payments leave none behind, however they end, and what is held is bounded by the streams that are open.

use serde_json::json;

use filter::batch::{BATCH_MAX, QUEUE_MAX};

use super::batches::{ALONE, GONE, answer_held_up, held_up, settle, status};
use super::costs::{USUAL, asked, pay};
use super::host::GrpcCall;
use super::proxy::{Answer, PAUSE, Proxy, batch, passes};
use super::{PAYMENT, proxy};

/// Most bytes of the module's memory for a stream whose body is awaited, and for one whose question waits.
const STREAM_BYTES_MAX: [usize; 2] = [1_000, 2_500];

#[test]
fn memory_does_not_grow_with_payments_and_is_bounded_by_streams() {
    let mut proxy = proxy(&json!({}));
    let many = |proxy: &mut Proxy, count: usize| {
        for _ in 0..count {
            pay(proxy, 33);
            proxy.host_mut().calls.clear();
        }
    };
    many(&mut proxy, 20);
    let before = proxy.memory_bytes();
    assert!(before <= 2 << 20, "{before}");
    many(&mut proxy, 600);
    assert_eq!(proxy.memory_bytes(), before, "after 20,000 payments");
    let waits: [fn(&mut Proxy); 2] = [
        |proxy| {
            let context = proxy.open(PAYMENT);
            proxy.headers(context, false);
        },
        |proxy| {
            asked(proxy);
        },
    ];
    for (wait, most) in waits.into_iter().zip(STREAM_BYTES_MAX) {
        let before = proxy.memory_bytes();
        for _ in 0..4_000 {
            wait(&mut proxy);
        }
        let bytes = (proxy.memory_bytes() - before) / 4_000;
        assert!(bytes <= most, "{bytes}");
    }
}

/// A client chooses how long the values are that a stream holds. Each length leaves its blocks free, and the next ones are others.
#[test]
fn memory_does_not_grow_with_the_sizes_that_clients_choose() {
    const STREAMS: usize = 20;
    const HELD_BYTES: usize = 20_000;
    let mut proxy = proxy(&json!({}));
    for size in (16..=1_024).step_by(16) {
        let cookies = vec![format!("amount={}", "1".repeat(size)); HELD_BYTES / size].join("; ");
        let headers = [USUAL, &[("cookie", cookies.as_str())]].concat();
        let streams: Vec<u32> = (0..STREAMS).map(|_| proxy.open(&headers)).collect();
        for stream in &streams {
            assert_eq!(proxy.headers(*stream, false), PAUSE);
        }
        leave(&mut proxy, &streams);
    }
    // One round holds less than two megabytes, all of them together 25.
    let bytes = proxy.memory_bytes();
    assert!(bytes <= 8 << 20, "{bytes}");
}

/// So many wait while two calls are in flight.
fn wait(proxy: &mut Proxy, count: usize) -> ([GrpcCall; 2], Vec<u32>) {
    let calls = held_up(proxy);
    (calls, (0..count).map(|_| asked(proxy)).collect())
}

/// A full batch is under way.
fn under_way(proxy: &mut Proxy) -> (GrpcCall, Vec<u32>) {
    let (calls, streams) = wait(proxy, BATCH_MAX);
    answer_held_up(proxy, &calls);
    (proxy.one_call(), streams)
}

fn leave(proxy: &mut Proxy, streams: &[u32]) {
    for stream in streams {
        proxy.close(*stream, GONE.0, GONE.1);
        proxy.host_mut().streams.remove(stream);
    }
}

fn all_are_answered(proxy: &mut Proxy, streams: &[u32], expected: Option<u32>) {
    assert!(streams.iter().all(|stream| status(proxy, *stream) == expected), "{expected:?}");
}

/// Sends the server what there is to send, and ends all streams.
fn end_all(proxy: &mut Proxy) {
    for _ in 0..8 {
        settle(proxy);
        proxy.tick_when_due();
    }
    let streams: Vec<u32> = proxy.host().streams.keys().copied().collect();
    for stream in streams {
        assert!(proxy.reached_gateway(stream) || status(proxy, stream).is_some(), "no stream waits");
        proxy.ended(stream);
        proxy.host_mut().streams.remove(&stream);
    }
    proxy.host_mut().calls.clear();
    assert!(proxy.new_calls().is_empty(), "nothing is left to send");
}

/// Ways in which payments end without their own answer.
const ENDINGS: [(&str, usize, fn(&mut Proxy)); 8] = [
    ("clients leave before their questions are sent", 60, |proxy| {
        let (calls, streams) = wait(proxy, 40);
        leave(proxy, &streams);
        answer_held_up(proxy, &calls);
        assert!(proxy.new_calls().is_empty(), "no payment is asked for");
    }),
    ("clients leave after their questions are sent", 60, |proxy| {
        let (call, streams) = under_way(proxy);
        leave(proxy, &streams);
        proxy.answer(call.token, &batch(&vec![passes("ADMITTED"); BATCH_MAX]));
        assert_eq!(settle(proxy).len(), BATCH_MAX, "their attempts are void");
    }),
    ("calls are lost, and payments overdue", 60, |proxy| {
        let (calls, streams) = wait(proxy, 40);
        let mut lost = Vec::from(calls);
        while status(proxy, streams[39]).is_none() {
            proxy.tick_when_due();
            lost.append(&mut proxy.new_calls());
        }
        for call in lost {
            proxy.answer(call.token, &Answer::Failed(4));
        }
        all_are_answered(proxy, &streams, Some(503));
    }),
    ("questions are asked alone", 60, |proxy| {
        let (call, streams) = under_way(proxy);
        proxy.answer(call.token, &batch(&vec![ALONE; BATCH_MAX]));
        let alone = proxy.new_calls();
        assert_eq!(alone.len(), BATCH_MAX);
        leave(proxy, &streams[..4]);
        alone.iter().for_each(|call| proxy.answer(call.token, &passes("ADMITTED")));
    }),
    ("a batch fails", 60, |proxy| {
        let (call, streams) = under_way(proxy);
        proxy.answer(call.token, &Answer::Failed(4));
        all_are_answered(proxy, &streams, Some(503));
    }),
    ("voids fail twice", 60, |proxy| {
        let (call, _) = under_way(proxy);
        proxy.answer(call.token, &Answer::Failed(4));
        for _ in 0..2 {
            let voids = proxy.one_call();
            proxy.answer(voids.token, &Answer::Failed(4));
            while proxy.host().grpc_calls.last().is_some_and(|last| last.token == voids.token) {
                proxy.tick_when_due();
            }
        }
    }),
    ("the proxy takes no call", 60, |proxy| {
        let (calls, streams) = wait(proxy, 40);
        proxy.host_mut().failing_grpc = Some(10);
        answer_held_up(proxy, &calls);
        while status(proxy, streams[39]).is_none() {
            proxy.tick_when_due();
        }
        proxy.host_mut().failing_grpc = None;
        all_are_answered(proxy, &streams, Some(503));
    }),
    ("the queue is full", 3, |proxy| {
        let (calls, streams) = wait(proxy, QUEUE_MAX);
        let refused: Vec<u32> = (0..40).map(|_| asked(proxy)).collect();
        all_are_answered(proxy, &refused, Some(503));
        leave(proxy, &streams[..100]);
        let fits: Vec<u32> = (0..40).map(|_| asked(proxy)).collect();
        all_are_answered(proxy, &fits, None);
        leave(proxy, &streams[100..]);
        leave(proxy, &fits);
        answer_held_up(proxy, &calls);
        assert!(proxy.new_calls().is_empty());
    }),
];

#[test]
fn memory_does_not_grow_however_payments_end() {
    for (name, times, ending) in ENDINGS {
        let mut proxy = proxy(&json!({}));
        let run = |proxy: &mut Proxy| {
            ending(proxy);
            end_all(proxy);
        };
        // What the first runs have freed is in pieces, which later ones fit in.
        (0..times.max(8)).for_each(|_| run(&mut proxy));
        let before = proxy.memory_bytes();
        (0..times).for_each(|_| run(&mut proxy));
        assert_eq!(proxy.memory_bytes(), before, "{name}");
    }
}
