//! The store suite: the same tables and the same generated sequences for every store, and each reply of the Redis script
//! compared with the reference ledger's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cut;
mod generate;
#[path = "../../quota/src/decide/table.rs"]
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::time::Duration;

use authz_server::settings::Secret;
use authz_server::store::{MemoryStore, Notes, RedisStore, RedisStoreConfig, SCRIPT, Store, StoreError, keys, packed};
use e2e::Service;
use e2e::redis::Redis;
use generate::Generator;
use prost::Message;
use proto::journal::EventContext;
use quota::{Action, Code, Command, Limits, MerchantId, OrderNo};
use table::Row;

/// Sequences of a normal run. Seeds that once failed stay in this file.
const SEEDS: &str = include_str!("seeds.txt");
const COMMANDS_PER_SEED: usize = 4_000;
/// Both stores together see at least this many commands in a normal run.
const COMMANDS_MIN: usize = 200_000;
const SHARDS: u16 = 4;
/// A Redis has this many databases; each sequence gets one of its own.
const DATABASES: usize = 16;

fn seeds() -> Vec<u64> {
    let lines = SEEDS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().unwrap()).collect()
}

/// `url` ends with a slash; a database's number follows it.
fn client(url: &str, database: usize) -> redis::Client {
    redis::Client::open(format!("{url}{database}")).unwrap()
}

fn open_with(url: &str, shards: u16, timeout_ms: u64) -> RedisStore {
    let timeout = Duration::from_millis(timeout_ms);
    RedisStore::open(&RedisStoreConfig { url: Secret::new(url), shards, timeout }).unwrap()
}

fn open(url: &str, database: usize) -> RedisStore {
    let timeout = Duration::from_secs(10);
    RedisStore::open(&RedisStoreConfig { url: Secret::new(format!("{url}{database}")), shards: SHARDS, timeout })
        .unwrap()
}

async fn connect(url: &str, database: usize) -> redis::aio::MultiplexedConnection {
    // Reading a whole stream takes its time in a debug build.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client(url, database).get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

async fn flush(url: &str, database: usize) {
    redis::cmd("FLUSHDB").exec_async(&mut connect(url, database).await).await.unwrap();
}

/// Waits until the store answers again.
async fn until_answered(store: &RedisStore, command: &Command) {
    let answered = async || Ok(store.apply(command, &Notes::default()).await.ok());
    e2e::wait::until_async("an answer", Duration::from_secs(20), answered).await.unwrap();
}

fn table_commands() -> Vec<Command> {
    let mut commands = Vec::new();
    table::each(&mut |_, rows| commands.extend(rows.iter().enumerate().map(|(number, row)| row.command(number))));
    commands
}

async fn check_rows(store: &impl Store, name: &str, rows: &[Row]) {
    for (number, row) in rows.iter().enumerate() {
        let record = store.apply(&row.command(number), &Notes::default()).await.unwrap().record;
        let got = (record.code, record.replay, (record.day.amount_after, record.day.count_after));
        assert_eq!(got, (row.code, row.replay, row.day), "{name}, row {number}: {row}");
    }
}

async fn check_tables(redis: Option<&Redis>) {
    let mut tables = Vec::new();
    table::each(&mut |name, rows| tables.push((name.to_owned(), rows.to_vec())));
    assert!(!tables.is_empty());
    for (name, rows) in &tables {
        match redis {
            None => check_rows(&MemoryStore::new(SHARDS), name, rows).await,
            Some(redis) => {
                flush(&redis.url(), 0).await;
                check_rows(&open(&redis.url(), 0), name, rows).await;
            }
        }
    }
}

/// Replies by code, to show that a run met them all.
type Seen = BTreeMap<(&'static str, bool), usize>;

/// Ends with the two sides where they differ.
fn agree<T: PartialEq + Debug>(got: &T, expected: &T, place: impl Display) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{place}\n  got      {got:?}\n  expected {expected:?}")) }
}

/// Gives one sequence to a script and to the reference, and compares replies, states and events.
async fn run_sequence(url: String, database: usize, seed: u64, script: String) -> Result<Seen, String> {
    flush(&url, database).await;
    let timeout = Duration::from_secs(10);
    let config = RedisStoreConfig { url: Secret::new(format!("{url}{database}")), shards: SHARDS, timeout };
    let store = RedisStore::open_with_script(&config, &script).unwrap();
    let reference = MemoryStore::new(SHARDS);
    let mut generator = Generator::new(seed);
    let mut waiting = BTreeMap::<u16, u64>::new();
    let mut seen = Seen::new();
    for number in 0..COMMANDS_PER_SEED {
        let command = {
            let ledger = reference.ledger();
            generator.command(&ledger, |merchant| waiting.get(&quota::shard_of(merchant, SHARDS)).copied().unwrap_or(0))
        };
        let expected = reference.apply(&command, &Notes::default()).await.unwrap();
        let got = store.apply(&command, &Notes::default()).await.map_err(|error| error.to_string())?;
        agree(&got, &expected, format_args!("seed {seed}, command {number}: {command:#?}"))?;
        if got.event_seq.is_some() {
            *waiting.entry(quota::shard_of(&command.merchant, SHARDS)).or_default() += 1;
        }
        *seen.entry((got.record.code.as_str(), got.record.replay)).or_default() += 1;
        if number % 16 == 0 {
            compare_state(&store, &reference, &command, seed, number).await?;
        }
    }
    compare_events(&url, database, &reference, seed).await?;
    Ok(seen)
}

async fn compare_state(
    store: &RedisStore,
    reference: &MemoryStore,
    command: &Command,
    seed: u64,
    number: usize,
) -> Result<(), String> {
    let Command { merchant, currency, order_no, .. } = command;
    let account = store.account(merchant, *currency).await.unwrap();
    agree(&account.as_ref(), &reference.ledger().account(merchant, *currency), format_args!("seed {seed}, {number}"))?;
    let order = store.order(merchant, order_no).await.unwrap();
    agree(&order.as_ref(), &reference.ledger().order(merchant, order_no), format_args!("seed {seed}, {number}"))
}

/// the streams hold just the reference's events, in order, numbered without gaps.
async fn compare_events(url: &str, database: usize, reference: &MemoryStore, seed: u64) -> Result<(), String> {
    let mut connection = connect(url, database).await;
    let events = reference.ledger().drain();
    for shard in 0..SHARDS {
        let expected = events.iter().filter(|event| quota::shard_of(&event.command.merchant, SHARDS) == shard);
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg(keys::stream(shard)).arg("-").arg("+").query_async(&mut connection).await.unwrap();
        let got = entries.ids.iter().map(|entry| {
            let context = EventContext::decode(entry.get::<Vec<u8>>("c").unwrap().as_slice()).unwrap();
            let record = packed::record(&entry.get::<Vec<u8>>("d").unwrap()).unwrap();
            (entry.id.clone(), context.event_id, context.order_no, record)
        });
        let expected = expected.map(|event| {
            let command = &event.command;
            let order_no = command.order_no.as_str().to_owned();
            (format!("0-{}", event.seq), command.decision_id.to_vec(), order_no, event.record)
        });
        let (got, expected) = (got.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        agree(&got, &expected, format_args!("seed {seed}, shard {shard}"))?;
    }
    compare_conservation(&events, reference, seed);
    Ok(())
}

/// each account's counters are the sum of what its events say they added, window by window.
fn compare_conservation(events: &[quota::Event], reference: &MemoryStore, seed: u64) {
    let mut sums = BTreeMap::<(String, &str, u32), (i128, i128)>::new();
    for event in events {
        let record = &event.record;
        for window in [record.day, record.month, record.year] {
            let key = (event.command.merchant.to_string(), event.command.currency.code(), window.id);
            let (amount, count) = sums.entry(key).or_default();
            *amount += i128::from(window.amount_after) - i128::from(window.amount_before);
            *count += i128::from(window.count_after) - i128::from(window.count_before);
        }
    }
    let ledger = reference.ledger();
    let keys = sums.keys().map(|(merchant, currency, _)| (merchant.clone(), *currency)).collect::<Vec<_>>();
    for (merchant, code) in keys {
        let currency = quota::Currency::parse(code).unwrap();
        let Some(account) = ledger.account(&MerchantId::parse(&merchant).unwrap(), currency) else {
            continue;
        };
        for counter in [account.day, account.month, account.year] {
            let sum = sums.get(&(merchant.clone(), code, counter.id)).copied().unwrap_or_default();
            assert_eq!(
                sum,
                (counter.amount.into(), counter.count.into()),
                "seed {seed}, {merchant} {code} {}",
                counter.id
            );
        }
    }
}

/// between the two implementations.
async fn check_differential(redis: &Redis) {
    let seeds = seeds();
    assert!(seeds.len() * COMMANDS_PER_SEED >= COMMANDS_MIN, "too few seeds");
    let mut seen = Seen::new();
    for group in seeds.chunks(DATABASES) {
        let mut running = tokio::task::JoinSet::new();
        for (database, seed) in group.iter().enumerate() {
            running.spawn(run_sequence(redis.url(), database, *seed, SCRIPT.to_owned()));
        }
        while let Some(sequence) = running.join_next().await {
            for (key, count) in sequence.unwrap().unwrap() {
                *seen.entry(key).or_default() += count;
            }
        }
    }
    let expected = [
        (Code::Admitted, false),
        (Code::Admitted, true),
        (Code::Voided, false),
        (Code::Voided, true),
        (Code::AttemptReleased, false),
        (Code::AttemptReleased, true),
        (Code::Tombstoned, false),
        (Code::PolicyMissing, false),
        (Code::DailyCount, false),
        (Code::MonthlyCount, false),
        (Code::YearlyCount, false),
        (Code::DailyAmount, false),
        (Code::MonthlyAmount, false),
        (Code::YearlyAmount, false),
        (Code::IdempotencyConflict, false),
        (Code::AttemptVoided, false),
        (Code::BacklogFull, false),
    ];
    for (code, replay) in expected {
        let count = seen.get(&(code.as_str(), replay)).copied().unwrap_or(0);
        assert!(count >= 100, "only {count} of {code:?} (replay {replay}) in {seen:#?}");
    }
}

#[tokio::test]
async fn tables_in_memory() {
    check_tables(None).await;
}

#[tokio::test]
async fn tables_in_redis() {
    check_tables(Some(&Redis::start().unwrap())).await;
}

#[tokio::test]
async fn tables_in_valkey() {
    check_tables(Some(&Redis::start_valkey().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differential_in_redis() {
    check_differential(&Redis::start().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differential_in_valkey() {
    check_differential(&Redis::start_valkey().unwrap()).await;
}

/// Slips that a script might have, each as a text to replace and its replacement.
const SLIPS: &[(&str, &str)] = &[
    ("if day > sd then", "if day >= sd then"),
    ("if month > sm then ma, mc = 0, 0 else month = sm end", "if month ~= sm then ma, mc = 0, 0 end"),
    ("dc > day_count_max - 1", "dc > day_count_max"),
    ("mc > month_count_max - 1", "mc >= month_count_max - 1"),
    ("da > day_amount_max - amount", "da >= day_amount_max - amount"),
    ("ya > year_amount_max - amount", "ya > year_amount_max"),
    ("dc + 1, ma + amount", "dc + 1, ma"),
    (">= backlog_max", "> backlog_max"),
    ("expires > now", "expires >= now"),
    ("now + ttl, o_decision", "now + ttl + 1, o_decision"),
    ("o_amount == amount and o_currency == currency", "o_amount == amount"),
    (
        "code, replay, told, journal = ADMITTED, true, o_decision, false",
        "code, replay, journal = ADMITTED, true, false",
    ),
    ("if same and position(live, attempt) then", "if false then"),
    ("if #live < 16", "if #live <= 16"),
    ("if #voided > 16", "if #voided >= 16"),
    ("live == '' and not pinned", "live == ''"),
    ("elseif voided ~= '' and position(voided, attempt) then", "elseif false then"),
    ("elseif position(voided, attempt) then", "elseif false then"),
    ("elseif charged and o_currency ~= currency and position(live, attempt) then", "elseif false then"),
    ("account_changed, charged = VOIDED, true, false", "account_changed = VOIDED, true"),
    ("if o_day == day then", "if true then"),
    ("if o_year == year then ya2, yc2", "if o_year == year then ya2"),
    ("elseif refusal ~= 0 then", "elseif false then"),
    ("  changes = changes + 1\n", ""),
];

/// The comparison notices each slip: a suite that cannot fail would prove nothing.
#[tokio::test]
async fn a_script_with_a_slip_is_noticed() {
    let redis = Redis::start().unwrap();
    for (right, wrong) in SLIPS {
        assert_eq!(SCRIPT.matches(right).count(), 1, "{right:?} is to be found once in the script");
        let script = SCRIPT.replace(right, wrong);
        let mut noticed = false;
        for seed in seeds() {
            noticed = run_sequence(redis.url(), 0, seed, script.clone()).await.is_err();
            if noticed {
                break;
            }
        }
        assert!(noticed, "{wrong:?} in place of {right:?} was not noticed");
    }
}

/// A store with another number of shards would look for keys in the wrong place.
#[tokio::test]
async fn another_number_of_shards_is_refused() {
    let redis = Redis::start().unwrap();
    open(&redis.url(), 0).verify().await.unwrap();
    let other = open_with(&redis.url(), SHARDS + 1, 10_000);
    let refused = StoreError::Shards { stored: SHARDS, configured: SHARDS + 1 };
    assert_eq!(other.verify().await, Err(refused.clone()));
    assert_eq!(other.apply(&table_commands()[0], &Notes::default()).await, Err(refused));
}

/// a Redis that hangs, and one that is gone, are answered in time; the store works again when it is back.
#[tokio::test]
async fn q9_a_store_that_hangs_or_is_gone_is_answered_in_time() {
    let mut redis = Redis::start().unwrap();
    let store = open_with(&redis.url(), SHARDS, 100);
    let commands = table_commands();
    let notes = Notes::default();
    until_answered(&store, &commands[0]).await;
    redis.process().pause().unwrap();
    assert_eq!(store.apply(&commands[1], &notes).await, Err(StoreError::Timeout { after_ms: 100 }));
    redis.process().resume().unwrap();
    until_answered(&store, &commands[1]).await;
    redis.process().kill().unwrap();
    store.apply(&commands[2], &notes).await.unwrap_err();
    redis.restart().unwrap();
    until_answered(&store, &commands[2]).await;
}

/// A value that something else wrote is never taken for a counter.
#[tokio::test]
async fn a_foreign_value_is_an_error_and_stays() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let command = &table_commands()[0];
    let key = keys::account(quota::shard_of(&command.merchant, SHARDS), &command.merchant, command.currency);
    let mut connection = connect(&redis.url(), 0).await;
    for foreign in [&b"\x02"[..], b"\x01short", b""] {
        redis::cmd("SET").arg(&key).arg(foreign).exec_async(&mut connection).await.unwrap();
        store.apply(command, &Notes::default()).await.unwrap_err();
        let kept: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        assert_eq!(kept, foreign);
    }
}

/// a charge whose event cannot be appended is not made.
#[tokio::test]
async fn no_event_no_charge() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let command = &table_commands()[0];
    let stream = keys::stream(quota::shard_of(&command.merchant, SHARDS));
    let mut connection = connect(&redis.url(), 0).await;
    // Above every number that the script gives, so that it can give none.
    redis::cmd("XADD").arg(&stream).arg("7-1").arg("f").arg("v").exec_async(&mut connection).await.unwrap();
    store.apply(command, &Notes::default()).await.unwrap_err();
    assert_eq!(store.account(&command.merchant, command.currency).await, Ok(None));
    assert_eq!(store.order(&command.merchant, &command.order_no).await, Ok(None));
}

/// a connection lost between a command and its answer. What was admitted is admitted once; what was refused is
/// two events, never two with one id.
#[tokio::test]
async fn q3_q6_a_lost_answer_is_asked_for_again() {
    let redis = Redis::start().unwrap();
    let line = cut::Line::to(&redis.url()).await;
    let store = open(&line.url(), 0);
    let mut command = table_commands()[0].clone();
    let first = Command { order_no: OrderNo::parse("first").unwrap(), decision_id: [1; 16], ..command.clone() };
    until_answered(&store, &first).await;
    let before = store.account(&command.merchant, command.currency).await.unwrap().unwrap();

    line.cut_next_answer();
    let Action::Consume(consume) = &mut command.action else { panic!("the first row consumes") };
    consume.limits = Limits::UNLIMITED;
    let reply = store.apply(&command, &Notes::default()).await.unwrap();
    assert_eq!((reply.record.code, reply.record.replay, reply.event_seq), (Code::Admitted, true, None));
    assert_eq!(reply.decision_id, command.decision_id);
    let after = store.account(&command.merchant, command.currency).await.unwrap().unwrap();
    assert_eq!(after.day.count, before.day.count + 1);

    line.cut_next_answer();
    command.order_no = OrderNo::parse("refused").unwrap();
    command.decision_id = [2; 16];
    let Action::Consume(consume) = &mut command.action else { panic!("the first row consumes") };
    consume.refusal = Some(Code::AboveSingleMax);
    let reply = store.apply(&command, &Notes::default()).await.unwrap();
    assert_eq!((reply.record.code, reply.event_seq), (Code::AboveSingleMax, Some(4)));
    let stream = keys::stream(quota::shard_of(&command.merchant, SHARDS));
    let mut connection = connect(&redis.url(), 0).await;
    let entries: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let ids = entries.ids.iter().map(|entry| entry.get::<Vec<u8>>("c").unwrap());
    let ids = ids.map(|context| EventContext::decode(context.as_slice()).unwrap().event_id).collect::<BTreeSet<_>>();
    assert_eq!((entries.ids.len(), ids.len()), (4, 4));
    assert!(ids.contains(reply.event_id.as_slice()));
}
