//! Parts of a payment that are counted within one function of this program, which runs itself under callgrind for that.

use std::hint::black_box;
use std::process::Command as Program;
use std::time::Duration;

use bench::counts::{BATCH, Payments};
use bytes::Bytes;
use prost::Message;
use proto::batch::BatchCheckRequest;
use quota::{Command, Stored, decide};
use sluice_settings::Secret;
use sluice_store::packed::{self, KeyIndexes};
use sluice_store::{RedisStore, RedisStoreConfig, Store, keys};
use testkit::callgrind::Callgrind;
use testkit::dirs::RunDir;
use testkit::redis::Redis;
use testkit::{Failure, Result};

/// Batches of each workload.
const BATCHES: usize = 20;
/// The argument by which this program runs one.
const ARGUMENT: &str = "--workload";

/// Runs the workload that the command line names; `false` where it names none.
pub(crate) fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [ARGUMENT, "decide"] => decide_each(&commands(&mut Payments::new())?),
        [ARGUMENT, "pack", record] => {
            let mut payments = Payments::new();
            let checks = |_| BatchCheckRequest { checks: (0..BATCH).map(|_| payments.check().into()).collect() };
            let messages: Vec<Bytes> = (0..BATCHES).map(checks).map(|batch| batch.encode_to_vec().into()).collect();
            pack_each(messages, &commands(&mut payments)?, &bytes(record))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

pub(crate) fn count_decide(callgrind: &Callgrind) -> Result<u64> {
    count(callgrind, "workload::decide_each", &["decide"])
}

/// `record` is what the script replies for a plain charge.
pub(crate) fn count_pack(callgrind: &Callgrind, record: &[u8]) -> Result<u64> {
    let digits: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
    count(callgrind, "workload::pack_each", &["pack", &digits])
}

/// Instructions for each payment.
fn count(callgrind: &Callgrind, function: &str, arguments: &[&str]) -> Result<u64> {
    let mut program = Program::new(std::env::current_exe()?);
    program.arg(ARGUMENT).args(arguments);
    Ok(callgrind.within(function, &mut program, &*RunDir::new("counts-within")?)? / (BATCHES * BATCH) as u64)
}

/// The record of a plain charge, which its event has as the reply.
pub(crate) async fn record() -> Result<Vec<u8>> {
    let redis = Redis::start_valkey()?;
    let url = Secret::new(redis.url());
    let store = RedisStore::open(&RedisStoreConfig { url, shards: 1, timeout: Duration::from_secs(10) })?;
    let mut payments = Payments::new();
    // The second one finds its merchant's account.
    for _ in 0..=BATCH + BATCH {
        store.apply_one(&payments.command()?).await?;
    }
    let mut connection = redis.connection().await?;
    let found: redis::streams::StreamRangeReply = redis::cmd("XREVRANGE")
        .arg(keys::stream(0))
        .arg(&["+", "-", "COUNT", "1"])
        .query_async(&mut connection)
        .await?;
    let record = found.ids.first().and_then(|entry| entry.get("d"));
    record.ok_or_else(|| Failure::new("the payment left no record"))
}

fn commands(payments: &mut Payments) -> Result<Vec<Command>> {
    let calls = (0..BATCHES * BATCH).map(|_| payments.command());
    calls.map(|call| Ok(call?.0.clone())).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).filter_map(byte).collect()
}

/// All of them on one account.
#[inline(never)]
fn decide_each(commands: &[Command]) {
    let mut account = None;
    for command in commands {
        let stored = Stored { account: account.as_ref(), ..Stored::default() };
        let outcome = black_box(decide(stored, command, command.now_ms));
        assert_eq!(outcome.record.code, quota::Code::Admitted);
        account = outcome.account;
    }
}

#[inline(never)]
fn pack_each(messages: Vec<Bytes>, commands: &[Command], record: &[u8]) -> Result<()> {
    let indexes = KeyIndexes { account: 12, order: 1, merchant: 23, stream: 1, right: 0, threshold_policy: 1 };
    let mut out = Vec::new();
    for (message, commands) in messages.into_iter().zip(commands.chunks(BATCH)) {
        black_box(BatchCheckRequest::decode(message)?);
        for command in commands {
            out.clear();
            packed::command(&mut out, command, indexes, command.order_ttl_secs);
            black_box(&out);
            let mut reply = record;
            let record = packed::take_record(&mut reply)?;
            let amount = command.action.amount().map_or(0, quota::AmountMinor::get);
            black_box(packed::record_and_decision(record, amount)?);
        }
    }
    Ok(())
}
