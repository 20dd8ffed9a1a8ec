//! The store suite: the same tables and the same generated sequences for every store, and each reply of the Redis script
//! compared with the reference ledger's.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod apart;
mod books;
mod credit_race;
mod cut;
mod failover;
mod figures;
mod generate;
mod mutants;
mod previous;
mod races;
mod sequence;
mod shrink;
mod support;
#[path = "../../../../quota/tests/rule/table.rs"]
mod table;
mod upgrade;

use std::collections::BTreeSet;
use std::sync::Arc;

use generate::Generator;
use prost::Message;
use proto::journal::EventContext;
use quota::{Action, Code, Command, Limits, OrderNo, Reply};
use sequence::{Seen, Sequence, Step};
use shrink::Shrinker;
use sluice_store::{AuditContext, Call, MemoryStore, SCRIPT, Store, StoreError, keys};
use support::{SHARDS, connect, flush, open, open_with, until_answered};
use table::{Batch, Row};
use testkit::Service;
use testkit::redis::Redis;

/// Sequences of a normal run. Seeds that once failed stay in this file.
const SEEDS: &str = include_str!("seeds.txt");
const COMMANDS_PER_SEED: usize = 4_000;
/// Each store sees at least this many commands in a normal run.
const COMMANDS_MIN: usize = 500_000;
/// Sequences that run at a time, each in a database of its own.
const AT_A_TIME: usize = 8;

fn seeds() -> Vec<u64> {
    let lines = SEEDS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().unwrap()).collect()
}

fn table_commands() -> Vec<Command> {
    let mut commands = Vec::new();
    table::each(&mut |_, rows| commands.extend(rows.iter().enumerate().map(|(number, row)| row.command(number))));
    commands
}

/// Rows with their commands, numbered from `first` on.
fn numbered(rows: &[Row], first: usize) -> Vec<Call> {
    rows.iter().zip(first..).map(|(row, number)| Arc::new((row.command(number), AuditContext::default()))).collect()
}

fn check_replies(name: &str, rows: &[Row], replies: &[Reply]) {
    assert_eq!(rows.len(), replies.len(), "{name}");
    for (number, (row, reply)) in rows.iter().zip(replies).enumerate() {
        row.check(reply).unwrap_or_else(|wrong| panic!("{name}, row {number}, {row}: {wrong}"));
    }
}

async fn check_rows(store: &impl Store, name: &str, rows: &[Row]) {
    let mut replies = Vec::new();
    for call in numbered(rows, 0) {
        replies.push(store.apply_one(&call).await.unwrap());
    }
    check_replies(name, rows, &replies);
}

/// The rows of one time in one call answer what they answer one by one.
async fn check_rows_at_once(store: &impl Store, name: &str, rows: &[Row]) {
    let mut replies = Vec::new();
    for call in numbered(rows, 0).chunk_by(|one, next| one.0.now_ms == next.0.now_ms) {
        replies.extend(at_once(store, call).await);
    }
    check_replies(name, rows, &replies);
}

async fn at_once(store: &impl Store, batch: &[Call]) -> Vec<Reply> {
    store.apply_each(batch).await.into_iter().map(Result::unwrap).collect()
}

async fn check_batch(store: &impl Store, batch: &Batch) {
    let Batch { name, before, together, after } = batch;
    check_replies(name, before, &at_once(store, &numbered(before, 0)).await);
    let replies = store.apply_all(&numbered(together, before.len())).await.unwrap();
    check_replies(name, together, &replies);
    check_rows_from(store, name, after, before.len() + together.len()).await;
}

async fn check_rows_from(store: &impl Store, name: &str, rows: &[Row], first: usize) {
    let mut replies = Vec::new();
    for call in numbered(rows, first) {
        replies.push(store.apply_one(&call).await.unwrap());
    }
    check_replies(name, rows, &replies);
}

async fn check_tables_in_redis(redis: &Redis) {
    let mut tables = Vec::new();
    table::each(&mut |name, rows| tables.push((name.to_owned(), rows.to_vec())));
    assert!(!tables.is_empty());
    let store = open(&redis.url(), 0);
    for (name, rows) in &tables {
        flush(&redis.url(), 0).await;
        check_rows(&store, name, rows).await;
        flush(&redis.url(), 0).await;
        check_rows_at_once(&store, name, rows).await;
    }
    for batch in table::batches() {
        flush(&redis.url(), 0).await;
        check_batch(&store, &batch).await;
    }
}

/// Gives one generated sequence to a script and to the reference; where they differ, the steps up to there come back too.
async fn run_sequence(url: &str, database: usize, seed: u64, script: &str) -> Result<Seen, (Vec<Step>, String)> {
    let mut sequence = Sequence::begin(url, database, script).await;
    let mut generator = Generator::new(seed);
    let mut steps = Vec::new();
    while sequence.commands() < COMMANDS_PER_SEED {
        let (step, result) = sequence.generate(&mut generator).await;
        steps.push(step);
        if let Err(wrong) = result {
            return Err((steps, wrong));
        }
    }
    match sequence.end().await {
        Ok(()) => Ok(sequence.seen),
        Err(wrong) => Err((steps, wrong)),
    }
}

/// A sequence that fails is made as short as it still fails, and reported with its seed.
async fn report(redis: &Redis, seed: u64, steps: Vec<Step>, wrong: String) -> String {
    match Shrinker::new(redis.url(), SCRIPT).shrink(steps).await {
        Some((steps, wrong)) => format!("seed {seed}, {} calls: {steps:#?}\n{wrong}", steps.len()),
        None => format!("seed {seed}, and not when played again: {wrong}"),
    }
}

/// between the two implementations.
async fn check_differential(redis: &Redis) {
    let seeds = seeds();
    assert!(seeds.len() * COMMANDS_PER_SEED >= COMMANDS_MIN, "too few seeds");
    let mut seen = Seen::new();
    for group in seeds.chunks(AT_A_TIME) {
        let mut running = tokio::task::JoinSet::new();
        for (database, seed) in group.iter().enumerate() {
            let (url, seed) = (redis.url(), *seed);
            running.spawn(async move { (seed, run_sequence(&url, database, seed, SCRIPT).await) });
        }
        while let Some(sequence) = running.join_next().await {
            match sequence.unwrap() {
                (_, Ok(codes)) => codes.into_iter().for_each(|(key, count)| *seen.entry(key).or_default() += count),
                (seed, Err((steps, wrong))) => panic!("{}", report(redis, seed, steps, wrong).await),
            }
        }
    }
    for (code, replay) in ANSWERS {
        let count = seen.get(&(code.as_str(), *replay)).copied().unwrap_or(0);
        assert!(count >= 100, "only {count} of {code:?} (replay {replay}) in {seen:#?}");
    }
}

/// Every answer that a store gives, at first and as a replay.
const ANSWERS: &[(Code, bool)] = &[
    (Code::Admitted, false),
    (Code::Admitted, true),
    (Code::Voided, false),
    (Code::Voided, true),
    (Code::AttemptReleased, false),
    (Code::AttemptReleased, true),
    (Code::Tombstoned, false),
    (Code::Applied, false),
    (Code::Applied, true),
    (Code::BadAmount, false),
    (Code::PolicyMissing, false),
    (Code::ChannelNotAllowed, false),
    (Code::MerchantUnknown, false),
    (Code::Suspended, false),
    (Code::CreditUnknown, false),
    (Code::DailyCount, false),
    (Code::MonthlyCount, false),
    (Code::YearlyCount, false),
    (Code::DailyAmount, false),
    (Code::MonthlyAmount, false),
    (Code::YearlyAmount, false),
    (Code::PendingAmount, false),
    (Code::Throttled, false),
    (Code::RefundExceedsOrder, false),
    (Code::RefundDaily, false),
    (Code::RefundMonthly, false),
    (Code::IdempotencyConflict, false),
    (Code::AttemptVoided, false),
    (Code::OrderUnknown, false),
    (Code::OrderClosed, false),
    (Code::CaptureExceedsHold, false),
    (Code::OrderFull, false),
    (Code::VersionConflict, false),
    (Code::BatchRefused, false),
    (Code::ReplayRefused, false),
    (Code::RightRefused, false),
    (Code::BacklogFull, false),
];

#[tokio::test]
async fn tables_in_memory() {
    let mut tables = Vec::new();
    table::each(&mut |name, rows| tables.push((name.to_owned(), rows.to_vec())));
    for (name, rows) in &tables {
        check_rows(&MemoryStore::new(SHARDS), name, rows).await;
    }
    for batch in table::batches() {
        check_batch(&MemoryStore::new(SHARDS), &batch).await;
    }
}

#[tokio::test]
async fn tables_in_redis() {
    check_tables_in_redis(&Redis::start().unwrap()).await;
}

#[tokio::test]
async fn tables_in_valkey() {
    check_tables_in_redis(&Redis::start_valkey().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differential_in_redis() {
    check_differential(&Redis::start().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differential_in_valkey() {
    check_differential(&Redis::start_valkey().unwrap()).await;
}

/// The comparison notices every mutant: a suite that cannot fail would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mutant_of_the_script_is_noticed() {
    mutants::check(&Redis::start().unwrap()).await;
}

/// A failing sequence is reported by what it needs to fail: two charges of one order in two currencies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_made_short() {
    let redis = Redis::start().unwrap();
    let right = "o_amount == amount and o_currency == currency and";
    let script = SCRIPT.replace(right, "o_amount == amount and");
    assert_ne!(script, SCRIPT);
    let (steps, _) = run_sequence(&redis.url(), 0, seeds()[1], &script).await.unwrap_err();
    let before = steps.len();
    let (steps, _) = Shrinker::new(redis.url(), &script).shrink(steps).await.unwrap();
    let commands: Vec<_> = steps.iter().flat_map(|step| &step.commands).collect();
    assert!(steps.len() < before && commands.len() == 2, "{before} calls became {steps:#?}");
    assert_eq!(commands[0].order_no, commands[1].order_no);
    assert_ne!(commands[0].currency, commands[1].currency);
}

/// A store with another number of shards would look for keys in the wrong place.
#[tokio::test]
async fn another_number_of_shards_is_refused() {
    let redis = Redis::start().unwrap();
    open(&redis.url(), 0).verify().await.unwrap();
    let other = open_with(&redis.url(), SHARDS + 1, 10_000);
    let refused = StoreError::Shards { stored: SHARDS, configured: SHARDS + 1 };
    assert_eq!(other.verify().await, Err(refused.clone()));
    assert_eq!(other.apply(&table_commands()[0], &AuditContext::default()).await, Err(refused));
}

/// a Redis that hangs, and one that is gone, are answered in time; the store works again when it is back.
#[tokio::test]
async fn q9_a_store_that_hangs_or_is_gone_is_answered_in_time() {
    let mut redis = Redis::start().unwrap();
    let store = open_with(&redis.url(), SHARDS, 100);
    let commands = table_commands();
    let audit = AuditContext::default();
    until_answered(&store, &commands[0]).await;
    redis.process().pause().unwrap();
    assert_eq!(store.apply(&commands[1], &audit).await, Err(StoreError::Timeout { after_ms: 100 }));
    redis.process().resume().unwrap();
    until_answered(&store, &commands[1]).await;
    redis.process().kill().unwrap();
    store.apply(&commands[2], &audit).await.unwrap_err();
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
    for foreign in [&b"\x01"[..], b"\x02short", b""] {
        redis::cmd("SET").arg(&key).arg(foreign).exec_async(&mut connection).await.unwrap();
        store.apply(command, &AuditContext::default()).await.unwrap_err();
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
    store.apply(command, &AuditContext::default()).await.unwrap_err();
    assert_eq!(store.account(&command.merchant, command.currency).await, Ok(None));
    assert_eq!(store.order(&command.merchant, command.order_no.as_ref().unwrap()).await, Ok(None));
}

/// a connection lost between a command and its answer. What was admitted is admitted once; what was refused is
/// two events, never two with one id.
#[tokio::test]
async fn q3_q6_a_lost_answer_is_asked_for_again() {
    let redis = Redis::start().unwrap();
    let line = cut::Line::to(&redis.url()).await;
    let store = open(&line.url(), 0);
    let mut command = table_commands()[0].clone();
    let first = Command { order_no: Some(OrderNo::parse("first").unwrap()), decision_id: [1; 16], ..command.clone() };
    until_answered(&store, &first).await;
    let before = store.account(&command.merchant, command.currency).await.unwrap().unwrap();

    line.cut_next_answer();
    let Action::Consume(consume) = &mut command.action else { panic!("the first row consumes") };
    consume.limits = Limits::UNLIMITED;
    let reply = store.apply(&command, &AuditContext::default()).await.unwrap();
    assert_eq!((reply.record.code, reply.record.replay, reply.event_seq), (Code::Admitted, true, None));
    assert_eq!(reply.decision_id, command.decision_id);
    let after = store.account(&command.merchant, command.currency).await.unwrap().unwrap();
    assert_eq!(after.windows.day.count, before.windows.day.count + 1);

    line.cut_next_answer();
    command.order_no = Some(OrderNo::parse("refused").unwrap());
    command.decision_id = [2; 16];
    let Action::Consume(consume) = &mut command.action else { panic!("the first row consumes") };
    consume.refusal = Some(Code::AboveSingleMax);
    let reply = store.apply(&command, &AuditContext::default()).await.unwrap();
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
