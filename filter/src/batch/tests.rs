#![expect(clippy::arithmetic_side_effects, reason = "a test counts")]

use super::*;
use crate::follow_up::Kind;

fn check(stream: u32, started_ms: u64, timeout_ms: u32) -> Arc<PendingCheck> {
    PendingCheck::new(stream, vec![1], started_ms, timeout_ms)
}

fn follow_up(label: usize) -> FollowUp {
    FollowUp { tries: 1, ..FollowUp::new(Kind::Void, "c".into(), vec![2], label.to_string()) }
}

/// A queue with its calls, numbered as they go out.
struct Played {
    queue: BatchQueue,
    token: u32,
    now_ms: u64,
}

impl Played {
    fn new(batch_max: usize) -> Self {
        Self { queue: BatchQueue::new(batch_max), token: 0, now_ms: 1_000 }
    }

    fn check(&mut self, stream: u32) -> Arc<PendingCheck> {
        let check = check(stream, self.now_ms, 500);
        assert!(self.queue.push_check(Arc::clone(&check)));
        check
    }

    /// What is sent now: streams, then labels.
    fn sends(&mut self) -> (Vec<u32>, Vec<String>) {
        let Next { batch, late } = self.queue.next(self.now_ms);
        assert!(late.is_empty());
        let streams = batch.checks.iter().map(|check| check.stream).collect();
        let labels = batch.follow_ups.iter().map(|follow_up| follow_up.label.clone()).collect();
        if !batch.is_empty() {
            self.token += 1;
            self.queue.sent(self.token, batch, self.now_ms, false);
        }
        (streams, labels)
    }

    fn back(&mut self, token: u32) -> Batch {
        self.queue.back(token).unwrap()
    }
}

fn labels(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|label| label.to_string()).collect()
}

#[test]
fn one_goes_at_once_and_the_others_together_when_it_is_back() {
    let mut played = Played::new(BATCH_MAX);
    let first = played.check(1);
    assert_eq!(played.sends(), (vec![1], vec![]));
    assert!(first.is_sent());
    let others: Vec<_> = (2..=16).map(|stream| played.check(stream)).collect();
    assert_eq!(played.sends(), (vec![], vec![]));
    assert!(others.iter().all(|other| !other.is_sent()));
    assert_eq!(played.back(1).checks[0].stream, 1);
    assert!(played.queue.back(1).is_none(), "once");
    (17..=40).for_each(|stream| drop(played.check(stream)));
    assert_eq!(played.sends(), ((2..=33).collect(), vec![]), "as many as one call takes, in their order");
    assert_eq!(played.sends().0.len(), 0);
    played.back(2);
    assert_eq!(played.sends(), ((34..=40).collect(), vec![]));
}

#[test]
fn a_second_call_goes_where_half_a_call_waits_and_no_fewer_than_wait_for_the_first() {
    // Checks in the call in flight, and how many others must wait until the next one is sent.
    let table =
        [(32, 1, 16), (32, 16, 16), (32, 17, 17), (32, 20, 20), (32, 32, 32), (20, 3, 10), (12, 1, 8), (8, 1, 8)];
    for (batch_max, in_flight, least) in table.into_iter().chain([(7, 1, 7), (2, 1, 2), (2, 2, 2)]) {
        let mut played = Played::new(batch_max);
        (0..in_flight).for_each(|stream| drop(played.check(stream)));
        assert_eq!(played.sends().0.len(), usize::try_from(in_flight).unwrap());
        for waiting in 1..least {
            played.check(100 + waiting);
            assert_eq!(played.sends().0.len(), 0, "{in_flight}: {waiting}");
        }
        assert_eq!(played.queue.next_send_ms(), Some(played.now_ms + SLOW_MS));
        played.check(200);
        assert_eq!(played.sends().0.len(), least as usize, "{in_flight}");
        // There is no third one, until one of them is back.
        (300..400).for_each(|stream| drop(played.check(stream)));
        assert_eq!(played.sends().0.len(), 0);
        played.back(1);
        assert_eq!(played.sends().0.len(), batch_max);
    }
    // Streams that have ended do not wait: neither in the queue nor for the first call.
    let mut played = Played::new(BATCH_MAX);
    let first: Vec<_> = (0..20).map(|stream| played.check(stream)).collect();
    assert_eq!(played.sends().0.len(), 20);
    for stream in 100..115 {
        played.check(stream).over();
    }
    (200..216).for_each(|stream| drop(played.check(stream)));
    assert_eq!(played.sends().0.len(), 0);
    for check in &first[..4] {
        check.over();
    }
    assert_eq!(played.sends().0, (200..216).collect::<Vec<_>>());
    // A slow call counts; one whose checks are asked alone, or one with follow-ups only, does not.
    let mut played = Played::new(BATCH_MAX);
    played.check(1);
    assert_eq!(played.sends().0, [1]);
    played.now_ms += SLOW_MS;
    played.check(2);
    assert_eq!(played.sends().0, [2]);
    (100..140).for_each(|stream| drop(played.check(stream)));
    assert_eq!(played.sends().0.len(), 0, "two are in flight");
    let mut played = Played::new(BATCH_MAX);
    let alone = Batch { checks: vec![check(1, played.now_ms, 500)], ..Batch::default() };
    played.queue.sent(100, alone, played.now_ms, true);
    played.queue.push_follow_up(follow_up(0), 0).unwrap();
    assert_eq!(played.sends(), (vec![], labels(0..1)));
    played.check(2);
    assert_eq!(played.sends().0, [2]);
    (100..116).for_each(|stream| drop(played.check(stream)));
    assert_eq!(played.sends().0.len(), 16);
    // Calls that have no payment left count only where there are too many.
    let mut played = Played::new(BATCH_MAX);
    for stream in 1..u32::try_from(CALLS_MAX).unwrap() {
        let gone = played.check(stream);
        assert_eq!(played.sends().0, [stream]);
        gone.over();
    }
    played.check(100);
    assert_eq!(played.sends().0, [100]);
    (200..300).for_each(|stream| drop(played.check(stream)));
    assert_eq!(played.sends().0.len(), 0, "too many");
    played.back(1);
    assert_eq!(played.sends().0.len(), BATCH_MAX);
}

#[test]
fn without_batches_everything_goes_at_once() {
    let mut played = Played::new(1);
    for stream in 1..=100 {
        played.check(stream);
        played.queue.push_follow_up(follow_up(0), 0).unwrap();
        assert_eq!(played.sends(), (vec![stream], vec![]));
        assert_eq!(played.sends(), (vec![], labels(0..1)));
        assert_eq!(played.sends(), (vec![], vec![]));
    }
}

#[test]
fn follow_ups_ride_along_and_never_hold_a_payment_up() {
    let mut played = Played::new(BATCH_MAX);
    played.queue.push_follow_up(follow_up(0), 0).unwrap();
    assert_eq!(played.sends(), (vec![], labels(0..1)), "nothing is in flight");
    (1..=2).for_each(|label| played.queue.push_follow_up(follow_up(label), 0).unwrap());
    assert_eq!(played.sends(), (vec![], vec![]), "they wait for each other");
    played.check(1);
    assert_eq!(played.sends(), (vec![1], labels(1..3)), "a payment does not, and takes them with it");
    // However many payments wait, follow-ups keep a share of each call; alone they fill one.
    (0..80).for_each(|label| played.queue.push_follow_up(follow_up(label), 0).unwrap());
    (0..60).for_each(|stream| drop(played.check(stream)));
    played.back(2);
    assert_eq!(played.sends(), ((0..28).collect(), labels(0..4)));
    played.back(3);
    assert_eq!(played.sends(), ((28..56).collect(), labels(4..8)));
    played.back(4);
    assert_eq!(played.sends(), ((56..60).collect(), labels(8..36)));
    played.back(5);
    assert_eq!(played.sends(), (vec![], vec![]), "the first is not back yet");
    played.back(1);
    assert_eq!(played.sends(), (vec![], labels(36..68)));
    // The smallest batches have room for both.
    let mut played = Played::new(2);
    played.queue.push_follow_up(follow_up(0), 0).unwrap();
    (1..=2).for_each(|stream| drop(played.check(stream)));
    assert_eq!(played.sends(), (vec![1], labels(0..1)));
}

#[test]
fn a_slow_call_holds_nobody_up_and_many_slow_ones_space_out_the_next() {
    let mut played = Played::new(BATCH_MAX);
    assert_eq!(played.queue.next_send_ms(), None, "nothing waits");
    for number in 1..=40 {
        let queued = played.check(number);
        assert_eq!(played.sends(), (vec![number], vec![]));
        assert_eq!(played.queue.next_send_ms(), None, "nothing waits");
        let pause_ms = if usize::try_from(number).unwrap() < CALLS_MAX { SLOW_MS } else { CROWDED_MS };
        let waits = played.check(100 + number);
        assert_eq!(played.queue.next_send_ms(), Some(played.now_ms + pause_ms), "{number}");
        played.now_ms += pause_ms - 1;
        assert_eq!(played.sends().0.len(), 0, "{number}");
        waits.over();
        assert_eq!(played.queue.next_send_ms(), None, "a stream that ended does not wait");
        played.now_ms += 1;
        assert!(!queued.is_over());
    }
    // With one slot free they are sent as before.
    (1..=9).for_each(|token| drop(played.back(token)));
    played.check(41);
    assert_eq!(played.sends().0, [41]);
    played.now_ms += SLOW_MS;
    played.check(42);
    assert_eq!(played.sends().0.len(), 0, "the last slot is taken again");
    played.now_ms += CROWDED_MS - SLOW_MS;
    assert_eq!(played.sends().0, [42]);
}

#[test]
fn a_call_whose_payments_are_over_holds_nobody_up_but_counts() {
    let mut played = Played::new(BATCH_MAX);
    for number in 1..=u32::try_from(CALLS_MAX).unwrap() {
        let first = played.check(number);
        let second = played.check(100 + number);
        assert_eq!(played.sends().0, [number, 100 + number]);
        first.over();
        assert_eq!(played.sends().0.len(), 0);
        second.over();
    }
    played.check(7);
    played.queue.push_follow_up(follow_up(0), 0).unwrap();
    assert_eq!(played.sends(), (vec![], vec![]), "however they ended, there are so many");
    played.back(1);
    assert_eq!(played.sends(), (vec![7], labels(0..1)));
    // Follow-ups are not urgent: a call blocks them until it returns or is slow.
    let mut played = Played::new(BATCH_MAX);
    let gone = played.check(1);
    played.sends();
    gone.over();
    played.queue.push_follow_up(follow_up(0), 0).unwrap();
    assert_eq!(played.sends(), (vec![], vec![]));
    played.now_ms += SLOW_MS;
    assert_eq!(played.sends(), (vec![], labels(0..1)));
}

#[test]
fn what_is_asked_alone_holds_nobody_up() {
    let mut played = Played::new(BATCH_MAX);
    for token in 100..150 {
        let batch = Batch { checks: vec![check(token, played.now_ms, 500)], ..Batch::default() };
        played.queue.sent(token, batch, played.now_ms, true);
    }
    played.check(1);
    assert_eq!(played.sends().0, [1]);
    assert_eq!(played.back(120).checks[0].stream, 120);
}

#[test]
fn whose_stream_has_ended_is_not_sent() {
    let mut played = Played::new(BATCH_MAX);
    played.check(1);
    played.sends();
    let waiting: Vec<_> = (2..=5).map(|stream| played.check(stream)).collect();
    waiting[0].over();
    waiting[2].over();
    played.back(1);
    assert_eq!(played.sends().0, [3, 5]);
    assert!(!waiting[0].is_sent() && waiting[1].is_sent());
}

#[test]
fn the_queues_are_bounded() {
    let mut queue = BatchQueue::default();
    let queued = (0..QUEUE_MAX + 1).filter(|_| queue.push_check(check(1, 0, 500))).count();
    assert_eq!(queued, QUEUE_MAX);
    assert!(!queue.push_check(check(1, 0, 500)), "no stream has ended");
    for gone in [0, 7, QUEUE_MAX - 1] {
        queue.checks[gone].over();
    }
    let queued = (0..5).filter(|_| queue.push_check(check(1, 0, 500))).count();
    assert_eq!(queued, 3, "a stream that ends makes room at once");
    let queued = (0..QUEUE_MAX + 1).filter(|label| queue.push_follow_up(follow_up(*label), 0).is_ok()).count();
    assert_eq!(queued, QUEUE_MAX);
}

#[test]
fn every_question_has_its_own_deadline() {
    let streams = |checks: Vec<Arc<PendingCheck>>| checks.iter().map(|own| own.stream).collect::<Vec<_>>();
    let mut queue = BatchQueue::default();
    let table = [(1, 0, 500), (2, 100, 100), (3, 150, 500), (4, 199, 30_000)];
    for (stream, started_ms, timeout_ms) in table {
        assert!(queue.push_check(check(stream, started_ms, timeout_ms)));
    }
    assert_eq!(queue.next_deadline(), Some(200));
    // Those whose deadline passes before they are sent are returned.
    let next = queue.next(200);
    assert_eq!(streams(next.late), [2]);
    assert_eq!(streams(next.batch.checks.clone()), [1, 3, 4]);
    // The call takes as long as its last check may.
    assert_eq!(next.batch.timeout_ms(200), 29_999);
    queue.sent(1, next.batch, 200, false);
    assert_eq!(queue.next_deadline(), Some(500));
    assert!(queue.overdue(499).is_empty());
    let late = queue.overdue(500);
    late[0].over();
    assert_eq!(streams(late), [1]);
    assert!(queue.overdue(500).is_empty());
    assert_eq!(queue.next_deadline(), Some(650));
    // In the queue as well.
    assert!(queue.push_check(check(5, 600, 20)));
    assert_eq!(queue.next_deadline(), Some(620));
    assert_eq!(streams(queue.overdue(620)), [5]);
    assert_eq!((queue.checks.len(), queue.next_deadline()), (0, Some(650)));
}

#[test]
fn a_calls_own_timeout_stands_for_deadlines_close_to_it() {
    for (started_ms, expected) in [(0, None), (SLACK_MS, None), (SLACK_MS + 1, Some(500))] {
        let mut queue = BatchQueue::default();
        assert!(queue.push_check(check(1, 0, 500)) && queue.push_check(check(2, started_ms, 500)));
        let batch = queue.next(started_ms).batch;
        queue.sent(1, batch, started_ms, false);
        assert_eq!(queue.next_deadline(), expected, "{started_ms}");
    }
    let alone: Batch = Batch { follow_ups: vec![follow_up(1)], ..Batch::default() };
    assert_eq!(alone.timeout_ms(5), TIMEOUT_MS);
    let overdue = Batch { checks: vec![check(1, 0, 5)], ..Batch::default() };
    assert_eq!(overdue.timeout_ms(9), 1, "never without a timeout");
}

#[test]
fn what_a_configuration_leaves_behind() {
    let mut played = Played::new(BATCH_MAX);
    let queued: Vec<_> = (1..=4).map(|stream| played.check(stream)).collect();
    played.queue.push_follow_up(follow_up(1), 0).unwrap();
    played.sends();
    played.check(5);
    played.queue.push_follow_up(follow_up(2), 0).unwrap();
    queued[1].over();
    let left = played.queue.end();
    assert_eq!(left.checks.iter().map(|own| own.stream).collect::<Vec<_>>(), [5, 1, 3, 4]);
    assert_eq!(left.follow_ups.iter().map(|own| own.label.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    assert!(played.queue.end().is_empty() && played.queue.back(1).is_none());
}
