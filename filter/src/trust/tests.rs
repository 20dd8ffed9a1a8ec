use std::sync::atomic::AtomicU64;

use quota::{Channel, Currency, MerchantId, OrderNo, Weight};

use super::*;

struct Bench {
    holder: Holder,
    now_ms: Arc<AtomicU64>,
    cluster: Arc<str>,
    number: u32,
}

impl Bench {
    fn new() -> Self {
        let now_ms = Arc::new(AtomicU64::new(1_000));
        let clock = Arc::clone(&now_ms);
        let holder = Holder::new(move || Some(clock.load(Ordering::Relaxed)).filter(|now_ms| *now_ms > 0));
        Self { holder, now_ms, cluster: "c".into(), number: 0 }
    }

    fn wait(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// A payment of an account; the id is that of its attempt.
    fn take(&mut self, merchant: &str, minor: u64) -> (String, Taken) {
        self.number = self.number.saturating_add(1);
        let id = format!("{:032x}", self.number);
        let taken = self.holder.take(&self.cluster, &request(merchant, minor), &id, || id.clone().into_bytes());
        (id, taken)
    }

    /// An account with a right of so much.
    fn granted(&mut self, merchant: &str, grant: Grant) -> String {
        let (id, taken) = self.take(merchant, 1);
        assert!(taken.right.is_none() && taken.wanted.is_some(), "{taken:?}");
        self.holder.answered(&id, Some(Answer::Granted(grant)));
        id
    }

    fn due(&self) -> Vec<String> {
        self.holder.due().into_iter().map(|follow_up| String::from_utf8(follow_up.message).unwrap()).collect()
    }
}

fn amount(minor: u64) -> AmountMinor {
    AmountMinor::new(minor).unwrap()
}

fn request(merchant: &str, minor: u64) -> Request {
    Request {
        merchant: MerchantId::parse(merchant).unwrap(),
        amount: Some(amount(minor)),
        currency: Currency::parse("USD").unwrap(),
        order_no: Some(OrderNo::parse("o").unwrap()),
        payment_no: None,
        channel: None,
        operation_no: None,
        is_final: true,
    }
}

fn grant(amount_minor: u64, count: u64) -> Grant {
    Grant {
        granted: Share { amount: amount_minor, count },
        ttl_ms: 2_000,
        single_min: AmountMinor::ZERO,
        single_max: AmountMinor::MAX,
        weight: Weight::AMOUNT,
    }
}

#[test]
fn the_first_payment_asks_and_the_next_are_admitted() {
    let mut bench = Bench::new();
    let (id, taken) = bench.take("m", 100);
    assert_eq!(taken, Taken { right: None, wanted: Some(Share { amount: 1_600, count: 16 }) });
    // Until the answer comes the server decides each payment, and no other right is asked for.
    assert_eq!(bench.take("m", 100).1, Taken::default());
    bench.holder.answered(&id, Some(Answer::Granted(grant(1_000, 10))));
    let (_, taken) = bench.take("m", 600);
    assert_eq!(taken.right.map(|unreported| unreported.right_id().to_string()), Some(id));
    assert_eq!(bench.take("m", 401).1.right, None, "more than is left of it");
    assert!(bench.take("other", 1).1.right.is_none(), "another account has none");
}

#[test]
fn bounds_of_one_payment_and_its_weight_are_the_grants() {
    let mut bench = Bench::new();
    let bounds = Grant { single_min: amount(10), single_max: amount(20), ..grant(1_000, 10) };
    bench.granted("m", bounds);
    for (minor, is_admitted) in [(9, false), (10, true), (20, true), (21, false)] {
        assert_eq!(bench.take("m", minor).1.right.is_some(), is_admitted, "{minor}");
    }
    // Each counts twice its amount.
    bench.granted("double", Grant { weight: Weight::share(20_000).unwrap(), ..grant(100, 10) });
    assert!(bench.take("double", 30).1.right.is_some());
    assert!(bench.take("double", 21).1.right.is_none());
    assert!(bench.take("double", 20).1.right.is_some());
}

#[test]
fn a_right_that_is_low_or_half_over_is_renewed_once() {
    let mut bench = Bench::new();
    bench.granted("m", grant(1_000, 100));
    assert_eq!(bench.take("m", 750).1.wanted, None);
    let (id, taken) = bench.take("m", 1);
    assert!(taken.right.is_some(), "what is left is used meanwhile");
    // Nearly used up: twice as much. Few of the number: twice what was used.
    assert_eq!(taken.wanted, Some(Share { amount: 2_000, count: 4 }));
    assert_eq!(bench.take("m", 1).1.wanted, None);
    bench.holder.answered(&id, Some(Answer::Granted(grant(2_000, 100))));
    bench.wait(999);
    assert_eq!(bench.take("m", 1).1.wanted, None);
    bench.wait(1);
    assert_eq!(bench.take("m", 1).1.wanted, Some(Share { amount: 4, count: 4 }));
}

#[test]
fn a_refusal_is_not_asked_about_for_a_while() {
    let mut bench = Bench::new();
    for (answer, pause_ms) in [(Some(Answer::Refused), PAUSE_MS), (None, PAUSE_UNANSWERED_MS)] {
        let (id, taken) = bench.take("m", 1);
        assert!(taken.wanted.is_some());
        bench.holder.answered(&id, answer);
        bench.wait(pause_ms - 1);
        assert_eq!(bench.take("m", 1).1, Taken::default(), "{answer:?}");
        bench.wait(1);
    }
    // One that was never sent needs no release.
    let (id, _) = bench.take("m", 1);
    bench.holder.not_asked(&id);
    bench.wait(UNANSWERED_MS);
    assert_eq!(bench.due().len(), 1, "only the one without an answer");
}

#[test]
fn a_right_is_returned_when_all_of_it_is_reported() {
    let mut bench = Bench::new();
    let id = bench.granted("m", grant(1_000, 10));
    let rights: Vec<_> = (0..2).map(|_| bench.take("m", 1).1.right.unwrap()).collect();
    bench.wait(1_999);
    assert_eq!(bench.due(), [""; 0], "it is in use");
    bench.wait(1);
    assert!(bench.take("m", 1).1.right.is_none(), "it is over");
    assert_eq!(bench.due(), [""; 0]);
    rights[0].acknowledge();
    rights[0].acknowledge();
    assert_eq!(bench.due(), [""; 0]);
    rights[1].acknowledge();
    assert_eq!(bench.due(), [id]);
    assert_eq!(bench.due(), [""; 0], "once");
}

#[test]
fn a_right_whose_payment_is_lost_is_never_returned() {
    let mut bench = Bench::new();
    bench.granted("m", grant(1_000, 10));
    drop(bench.take("m", 1).1.right.unwrap());
    bench.wait(100_000);
    assert_eq!(bench.due(), [""; 0]);
}

#[test]
fn what_was_asked_for_without_an_answer_is_returned() {
    let mut bench = Bench::new();
    let (lost, _) = bench.take("m", 1);
    let (unanswered, _) = bench.take("n", 1);
    bench.holder.answered(&unanswered, None);
    bench.wait(UNANSWERED_MS - 1);
    assert_eq!(bench.due(), [""; 0]);
    bench.wait(1);
    assert_eq!(bench.due(), [lost.clone(), unanswered]);
    // An answer that comes after all has no effect.
    bench.holder.answered(&lost, Some(Answer::Granted(grant(1_000, 10))));
    assert!(bench.take("m", 1).1.right.is_none());
}

#[test]
fn accounts_and_unreported_payments_are_bounded() {
    let mut bench = Bench::new();
    bench.granted("m", grant(1 << 40, 1 << 40));
    let unreported: Vec<_> = (0..UNREPORTED_MAX).filter_map(|_| bench.take("m", 1).1.right).collect();
    assert_eq!(unreported.len(), UNREPORTED_MAX as usize);
    assert_eq!(bench.take("m", 1).1, Taken::default(), "the server decides it");
    drop(unreported);
    assert!(bench.take("m", 1).1.right.is_some());
    for number in 1..ACCOUNTS_MAX {
        bench.take(&format!("m-{number}"), 1);
    }
    assert_eq!(bench.take("one-more", 1).1, Taken::default());
    // Accounts that nothing is left of make room.
    bench.wait(UNANSWERED_MS);
    bench.due();
    assert!(bench.take("one-more", 1).1.wanted.is_some());
}

/// A payment that no right can pay for does not replace a right that pays for others.
#[test]
fn a_larger_payment_asks_for_a_larger_right() {
    let mut bench = Bench::new();
    bench.granted("m", grant(1_600, 16));
    assert_eq!(bench.take("m", 5_000).1, Taken { right: None, wanted: Some(Share { amount: 80_000, count: 2 }) });
    bench.granted("bounded", Grant { single_max: amount(100), ..grant(1_600, 16) });
    assert_eq!(bench.take("bounded", 101).1, Taken::default());
    assert!(bench.take("bounded", 100).1.right.is_some());
}

#[test]
fn without_a_clock_no_right_is_used() {
    let mut bench = Bench::new();
    bench.granted("m", grant(1_600, 16));
    bench.now_ms.store(0, Ordering::Relaxed);
    assert_eq!(bench.take("m", 1).1, Taken::default());
    assert_eq!(bench.due(), [""; 0]);
}

#[test]
fn an_account_is_of_one_merchant_currency_channel_and_cluster() {
    let mut bench = Bench::new();
    bench.granted("m", grant(1_000, 10));
    let take = |change: fn(&mut Request), cluster: &str| {
        let mut request = request("m", 1);
        change(&mut request);
        bench.holder.take(&cluster.into(), &request, "00", Vec::new).right.is_some()
    };
    assert!(take(|_| {}, "c"));
    assert!(!take(|_| {}, "d"));
    assert!(!take(|request| request.currency = Currency::parse("EUR").unwrap(), "c"));
    assert!(!take(|request| request.channel = Some(Channel::parse("card").unwrap()), "c"));
}
