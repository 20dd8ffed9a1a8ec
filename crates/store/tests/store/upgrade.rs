//! Values of the previous format: read, upgraded in place, and left as they are while servers of that release are running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use quota::{Account, Action, Command, Limits, Period, Record, Reply, Weight};
use sluice_store::packed::{self, PackedError};
use sluice_store::{AuditContext, MemoryStore, RedisStore, SCRIPT, Store, StoreError, StoreTime, keys};
use testkit::random::Random;
use testkit::redis::Redis;

use crate::generate::Generator;
use crate::previous::Previous;
use crate::sequence::agree;
use crate::support::{SHARDS, connect, flush, open, open_with_script};

const SEEDS: [u64; 4] = [1, 15, 30, 46_218_876_197_238];
const COMMANDS_PER_SEED: usize = 2_000;

/// Commands as the release before knew them: nothing of them concerns a credit line or a weight.
struct Commands {
    generator: Generator,
    /// What both servers have decided, so that commands are made for the orders and accounts that exist.
    reference: MemoryStore,
}

impl Commands {
    fn new(seed: u64) -> Self {
        Self { generator: Generator::new(seed), reference: MemoryStore::new(SHARDS) }
    }

    /// The next command, the store's time, and what the core answers.
    fn next(&mut self) -> (Command, i64, Option<Reply>) {
        let plan = self.generator.plan();
        let mut command = self.generator.command(&plan, &self.reference.ledger(), |_| 0);
        command.backlog_max = u32::MAX;
        forget_news(&mut command);
        let expected = self.reference.ledger().apply_at(&command, plan.store_ms).ok();
        self.reference.ledger().drain();
        (command, plan.store_ms, expected)
    }
}

/// A command as that release could get it.
fn forget_news(command: &mut Command) {
    command.credit = None;
    if let Action::Consume(charge) | Action::Hold(charge, _) = &mut command.action {
        charge.weight = Weight::AMOUNT;
    }
    if let Action::Post(_) = command.action {
        command.action = Action::Roll;
        command.order_no = None;
    }
    if let Some(order) = &mut command.history {
        order.credit_cycle = 0;
        order.weight = Weight::AMOUNT;
    }
}

/// A database, and servers of both releases on it.
struct Both {
    url: String,
    database: usize,
    previous: Previous,
    present: RedisStore,
    time: Arc<AtomicI64>,
}

impl Both {
    async fn open(url: &str, database: usize) -> Self {
        flush(url, database).await;
        let time = Arc::new(AtomicI64::new(0));
        let present = open_with_script(url, database, SCRIPT).with_time(StoreTime::At(Arc::clone(&time)));
        Self { url: url.to_owned(), database, previous: Previous::open(url, database).await, present, time }
    }

    async fn by_present(&self, command: &Command, store_ms: i64) -> Result<Option<Reply>, String> {
        self.time.store(store_ms, Ordering::SeqCst);
        match self.present.apply(command, &AuditContext::default()).await {
            Ok(reply) => Ok(Some(reply)),
            Err(StoreError::NotBegun) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Every value, as Redis has it; of an event its number, the account after it, and what it closed and crossed.
    async fn values(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut connection = connect(&self.url, self.database).await;
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        let mut values = BTreeMap::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
            let value = match kind.as_str() {
                "string" => vec![redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap()],
                "zset" => {
                    let members = redis::cmd("ZRANGE").arg(&key).arg("0").arg("-1").arg("WITHSCORES").to_owned();
                    members.query_async(&mut connection).await.unwrap()
                }
                _ => self.events(&key).await,
            };
            values.insert(key, value);
        }
        // What a server of the present release writes besides.
        values.retain(|key, _| key.contains('}'));
        values
    }

    async fn events(&self, key: &str) -> Vec<Vec<u8>> {
        let mut connection = connect(&self.url, self.database).await;
        let range = redis::cmd("XRANGE").arg(key).arg("-").arg("+").to_owned();
        let entries: redis::streams::StreamRangeReply = range.query_async(&mut connection).await.unwrap();
        let fields = |entry: &redis::streams::StreamId| {
            let field = |name: &str| entry.get::<Vec<u8>>(name).unwrap_or_default();
            // The record of a plain charge is the account alone; the present release may give it in full.
            let record = field("d");
            let account = if record[0] == 7 { record[48..200].to_vec() } else { record };
            [entry.id.clone().into_bytes(), account, field("w"), field("a")]
        };
        entries.ids.iter().flat_map(fields).collect()
    }
}

/// One database has servers of both releases, in any order; the other one only the release before. Every answer and every value
/// is the same, to the byte: neither release can detect the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_rolling_upgrade_both_releases_work_beside_each_other() {
    let redis = Redis::start().unwrap();
    for seed in SEEDS {
        let mut commands = Commands::new(seed);
        let mut random = Random::new(seed);
        let mut alone = Both::open(&redis.url(), 0).await;
        let mut both = Both::open(&redis.url(), 1).await;
        both.present = both.present.in_rolling_upgrade();
        for number in 0..COMMANDS_PER_SEED {
            let (command, store_ms, _) = commands.next();
            let expected = alone.previous.apply(&command, store_ms).await;
            let got = if random.one_in(2) {
                both.previous.apply(&command, store_ms).await
            } else {
                both.by_present(&command, store_ms).await
            };
            agree(&got, &expected, format_args!("seed {seed}, {number}: {command:#?} at {store_ms}")).unwrap();
        }
        let (got, expected) = (both.values().await, alone.values().await);
        assert!(expected.len() > 100, "{}", expected.len());
        for (key, value) in &expected {
            assert_eq!(got.get(key), Some(value), "seed {seed}: {key}");
        }
        assert_eq!(got.len(), expected.len(), "seed {seed}");
    }
}

/// The last server of the release before has stopped: its accounts and orders go on, and each is written in the present format by
/// the first command that changes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_upgrade_values_go_on_and_are_rewritten() {
    let redis = Redis::start().unwrap();
    for seed in SEEDS {
        let mut commands = Commands::new(seed);
        let mut servers = Both::open(&redis.url(), 0).await;
        let mut changed = BTreeMap::new();
        for number in 0..COMMANDS_PER_SEED {
            let (command, store_ms, expected) = commands.next();
            let upgraded = number >= COMMANDS_PER_SEED / 2;
            let got = if upgraded {
                servers.by_present(&command, store_ms).await
            } else {
                servers.previous.apply(&command, store_ms).await
            };
            agree(&got, &Ok(expected), format_args!("seed {seed}, {number}: {command:#?} at {store_ms}")).unwrap();
            let Ok(Some(Reply { record: Record { code, replay, .. }, .. })) = got else { continue };
            if upgraded && code == quota::Code::Admitted && !replay && command.effect == quota::Effect::Commit {
                let shard = quota::shard_of(&command.merchant, SHARDS);
                let order = keys::order(shard, &command.merchant, command.order_no.as_ref());
                changed.insert(order, command.decision_id);
                changed.insert(keys::account(shard, &command.merchant, command.currency), command.decision_id);
            }
        }
        let values = servers.values().await;
        assert!(changed.len() > 20, "{}", changed.len());
        for (key, decision_id) in changed {
            let format = values.get(&key).map(|value| value[0][0]);
            let is_present = format.is_some_and(|format| [6, 8, 9].contains(&format));
            assert!(is_present && (format != Some(6) || key.contains(":o:")), "seed {seed}: {key} by {decision_id:?}");
        }
    }
}

/// A credit line bounds charges at once, also in a rolling upgrade: its account is upgraded, and keeps its exposure from then on.
#[tokio::test]
async fn a_credit_line_upgrades_its_account() {
    let redis = Redis::start().unwrap();
    let mut servers = Both::open(&redis.url(), 0).await;
    servers.present = servers.present.in_rolling_upgrade();
    let mut steps = Vec::new();
    for (number, order) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let row = crate::table::Row::consume(order, "1", 40).limits(Limits::UNLIMITED).without_thresholds();
        let row = if number > 0 { row.credit(90, 20_261_101) } else { row };
        let command = row.command(number);
        let key = keys::account(quota::shard_of(&command.merchant, SHARDS), &command.merchant, command.currency);
        let reply = servers.by_present(&command, command.now_ms).await.unwrap().unwrap();
        let format = servers.values().await[&key][0][0];
        steps.push((format, reply.record.code, reply.record.credit.map_or(0, |credit| credit.exposure_after)));
    }
    use quota::Code::{Admitted, CreditExhausted};
    assert_eq!(steps, [(6, Admitted, 0), (10, Admitted, 40), (10, Admitted, 80), (10, CreditExhausted, 80)]);
}

/// Where the calendar is unknown, no window moves; the record has the present format all the same, and so has the account then.
#[tokio::test]
async fn an_account_is_upgraded_without_a_calendar() {
    let redis = Redis::start().unwrap();
    let mut servers = Both::open(&redis.url(), 0).await;
    let charge = |number, order| {
        let row = crate::table::Row::consume(order, "1", 40).limits(Limits::UNLIMITED);
        let command = row.without_thresholds().command(number);
        Command { windows: quota::WindowIds::default(), ..command }
    };
    let first = Command { windows: crate::table::Row::consume("a", "1", 40).command(1).windows, ..charge(1, "a") };
    servers.previous.apply(&first, first.now_ms).await.unwrap().unwrap();
    // A refusal changes nothing, a charge does.
    let refused = Command {
        action: Action::Refund(quota::Refund::under(None, None, quota::OperationId::of("r"), false)),
        ..charge(2, "b")
    };
    for (command, code) in [(refused, quota::Code::OrderUnknown), (charge(3, "c"), quota::Code::Admitted)] {
        let reply = servers.by_present(&command, command.now_ms).await.unwrap().unwrap();
        assert_eq!((reply.record.code, reply.record.windows.day.id), (code, 20_261_121));
    }
    let account = servers.present.account(&first.merchant, first.currency).await.unwrap().unwrap();
    assert_eq!(
        (account.windows.day.amount, account.windows.week.id, account.windows.week.amount),
        (80, 20_261_116, 80)
    );
}

/// Values of every format that was ever in use: the previous one is read and rewritten, older ones are refused with what to do, and
/// stay.
#[tokio::test]
async fn values_of_every_format() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let mut connection = connect(&redis.url(), 0).await;
    for golden in goldens() {
        flush(&redis.url(), 0).await;
        let command = crate::table::Row::consume("golden", "9", 0).limits(Limits::UNLIMITED).command(1);
        let shard = quota::shard_of(&command.merchant, SHARDS);
        let key = match golden.kind {
            "account" => keys::account(shard, &command.merchant, command.currency),
            "order" => keys::order(shard, &command.merchant, command.order_no.as_ref()),
            "merchant" => keys::merchant(shard, &command.merchant),
            other => panic!("{other}"),
        };
        redis::cmd("SET").arg(&key).arg(&golden.value).exec_async(&mut connection).await.unwrap();
        let result = store.apply(&command, &AuditContext::default()).await;
        let after: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        match (golden.kind, golden.format) {
            ("account" | "order", 1..=4) | ("account", 11) => {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(&format!("another format ({})", golden.format)), "{error}");
                assert_eq!(after, golden.value);
                let read = packed::account(&golden.value).map(drop).or(packed::order(&golden.value).map(drop));
                assert_eq!(read, Err(PackedError::Format(golden.format)));
            }
            _ => {
                result.unwrap_or_else(|error| panic!("{} {}: {error}", golden.format, golden.kind));
                if golden.kind == "account" {
                    let before = packed::account(&golden.value).unwrap();
                    assert!([8, 9, 10, 13].contains(&after[0]), "{}", after[0]);
                    check_upgraded(&before, &packed::account(&after).unwrap());
                }
            }
        }
    }
}

/// All that the account had counted is there; the charge of 0 is in the windows of its own time.
fn check_upgraded(before: &Account, after: &Account) {
    let rolled = before.rolled(crate::table::Row::consume("golden", "9", 0).command(1).windows);
    for period in Period::ALL {
        let (before, after) = (rolled.of(period), after.of(period));
        assert_eq!((after.id, after.epoch, after.amount), (before.id, before.epoch, before.amount), "{period:?}");
        assert_eq!((after.count, after.refunded), (before.count + 1, before.refunded), "{period:?}");
    }
    assert_eq!((after.pending, after.version), (before.pending, before.version + 1));
}

struct Golden {
    format: u8,
    kind: &'static str,
    value: Vec<u8>,
}

/// `formats/goldens.txt`: format, kind, and the value in hexadecimal digits.
fn goldens() -> Vec<Golden> {
    let lines = include_str!("formats/goldens.txt").lines().filter(|line| !line.starts_with('#'));
    let goldens = lines.map(|line| {
        let [format, kind, digits] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let value = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        Golden { format: format.parse().unwrap(), kind, value: value.collect() }
    });
    goldens.collect()
}
