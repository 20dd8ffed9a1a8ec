use quota::{AmountMinor, Trust};

use super::*;
use crate::zones::Zones;

fn merchant(id: &str) -> MerchantId {
    MerchantId::parse(id).unwrap()
}

fn usd() -> Currency {
    Currency::parse("USD").unwrap()
}

fn policy(version: &str, single_max: u64) -> Arc<Policy> {
    let single_max = AmountMinor::new(single_max).unwrap();
    Arc::new(Policy { single_max, ..Policy::unlimited(version.into()) })
}

/// Accounts with a queue that has room for everything.
struct Bench {
    accounts: Accounts,
    queue: mpsc::Sender<Arc<Cell>>,
    queued: mpsc::Receiver<Arc<Cell>>,
}

impl Bench {
    fn new() -> Self {
        let (queue, queued) = mpsc::channel(1_000);
        Self { accounts: Accounts::new(), queue, queued }
    }

    fn cells(&mut self, id: &str, channel: Option<&str>, used_at_ms: i64) -> Cells {
        let channel = channel.map(|name| Channel::parse(name).unwrap());
        let cells = self.accounts.cells(&merchant(id), usd(), channel.as_ref(), &self.queue);
        cells.all.use_at(used_at_ms);
        cells.channel.iter().for_each(|cell| cell.use_at(used_at_ms));
        cells
    }

    /// The channel's cell, as far as it is cached.
    fn peek(&self, id: &str, channel: &str) -> Option<Arc<Cell>> {
        self.accounts.peek(&merchant(id), usd(), Some(&Channel::parse(channel).unwrap()))?.channel
    }

    fn queued(&mut self) -> usize {
        std::iter::from_fn(|| self.queued.try_recv().ok()).count()
    }
}

#[test]
fn channels_that_are_made_up_push_out_nobody() {
    let mut bench = Bench::new();
    bench.cells("other", Some("card"), 0).all.known(policy("other", 1));
    let cells = bench.cells("m", Some("card"), 0);
    // Rights are the account's: a channel's answer has no trust.
    let trust = Some(Trust { above_percent: 20, share_percent: 5, ttl_ms: 2_000 });
    cells.all.known(Arc::new(Policy { trust, ..Policy::clone(&policy("all", 500)) }));
    cells.channel.unwrap().known(policy("card", 200));
    bench.queued();
    for number in 1..=1_000 {
        // Each is answered as the account is, or not at all.
        if let Some(cell) = bench.cells("m", Some(&format!("c{number}")), number).channel {
            match number % 3 {
                0 => cell.absent(),
                1 => cell.unknown(),
                _ => cell.known(policy(&format!("c{number}"), 500)),
            }
        }
    }
    assert_eq!(bench.accounts.all_cells().len(), 2 + 1 + CHANNELS_MAX);
    let kept = bench.peek("m", "card").unwrap();
    assert_eq!(kept.state().policy().unwrap().single_max.get(), 200);
    assert!(bench.peek("other", "card").is_some());
    // The one that was used longest ago made room.
    assert!(bench.peek("m", "c1000").is_some() && bench.peek("m", "c1").is_none());
}

#[test]
fn an_account_has_few_questions_in_the_queue() {
    let mut bench = Bench::new();
    for number in 0..100 {
        bench.cells("m", Some(&format!("c{number}")), number);
    }
    assert_eq!(bench.queued(), 1 + CHANNELS_MAX);
    assert!(bench.cells("m", Some("late"), 200).channel.is_none(), "every slot waits for its answer");
}

#[test]
fn looking_asks_nobody() {
    let mut bench = Bench::new();
    assert!(bench.peek("m", "card").is_none());
    assert_eq!((bench.accounts.len(), bench.queued()), (0, 0));
    bench.cells("m", None, 0);
    assert!(bench.peek("m", "card").is_none());
    assert_eq!((bench.accounts.len(), bench.queued()), (1, 1));
}

#[test]
fn a_calendar_outlives_its_account() {
    let mut bench = Bench::new();
    let zone = Calendar::new(Zones::compiled_in().zone("Asia/Shanghai").unwrap(), 6).unwrap();
    bench.cells("m", None, 0).all.known(Arc::new(Policy { calendar: zone.clone(), ..Policy::clone(&policy("a", 1)) }));
    bench.cells("absent", None, 0).all.absent();
    bench.cells("unknown", None, 0).all.unknown();
    for cell in bench.accounts.all_cells() {
        bench.accounts.evict(cell.account());
    }
    assert_eq!(bench.accounts.len(), 0);
    let table = [
        ("m", AccountCalendar::Answered(zone)),
        ("absent", AccountCalendar::Configured),
        ("unknown", AccountCalendar::Unknown),
        ("stranger", AccountCalendar::Unknown),
    ];
    for (id, expected) in table {
        assert_eq!(bench.accounts.calendar(&merchant(id), usd(), None), expected, "{id}");
        // Nor does it wait for the account to be known again.
        let all = bench.cells(id, None, 1).all;
        assert_eq!(bench.accounts.calendar(&merchant(id), usd(), Some(&all.state())), expected, "{id}");
    }
}
