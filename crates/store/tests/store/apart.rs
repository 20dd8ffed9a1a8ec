//! What concerns one command of a call, or the commands of one shard, and no other.

use std::sync::Arc;

use quota::{
    Action, Adjust, AmountMinor, AttemptId, Calendar, Change, Charge, Code, Command, CounterName, Currency, Effect,
    HoldTerms, Limits, MerchantId, OnExpiry, OrderNo, Period, Reply,
};
use redis::aio::MultiplexedConnection;
use sluice_store::{AuditContext, RedisStore, Store, StoreError, keys};
use testkit::redis::Redis;

use crate::cut::Line;
use crate::generate::MERCHANTS;
use crate::sequence::shard_of;
use crate::support::{connect, flush, open, until_answered};

const TTL_SECS: u32 = 3_600;
const LIFETIME_SECS: u32 = 600;
const NOW_MS: i64 = 1_795_296_600_000;

pub(crate) fn command(merchant: &str, number: u8) -> Command {
    let charge = Charge {
        amount: AmountMinor::new(u64::from(number)).unwrap(),
        weight: quota::Weight::AMOUNT,
        limits: Limits::UNLIMITED,
        refusal: None,
        pace: None,
        replays_max: None,
        refuse_unknown_credit: false,
    };
    Command {
        merchant: MerchantId::parse(merchant).unwrap(),
        currency: Currency::parse("USD").unwrap(),
        order_no: Some(OrderNo::parse(&format!("order-{number}")).unwrap()),
        attempt: AttemptId([number; 16]),
        action: Action::Consume(charge),
        effect: Effect::Commit,
        decision_id: [number; 16],
        now_ms: NOW_MS,
        windows: Calendar::UTC.windows_at(NOW_MS),
        order_ttl_secs: TTL_SECS,
        backlog_max: 1_000,
        threshold_policy: None,
        credit: None,
        history: None,
        payment_no: None,
        operation_no: None,
        channel: None,
    }
}

fn hold(merchant: &str, number: u8) -> Command {
    let command = command(merchant, number);
    let Action::Consume(charge) = command.action else { unreachable!("a command consumes here") };
    let terms = HoldTerms { lifetime_secs: LIFETIME_SECS, on_expiry: OnExpiry::Void };
    Command { action: Action::Hold(charge, terms), ..command }
}

fn account_key(command: &Command) -> String {
    keys::account(shard_of(&command.merchant), &command.merchant, command.currency)
}

fn order_key(command: &Command) -> String {
    keys::order(shard_of(&command.merchant), &command.merchant, command.order_no.as_ref())
}

fn merchant_key(command: &Command) -> String {
    keys::merchant(shard_of(&command.merchant), &command.merchant)
}

pub(crate) async fn each(store: &RedisStore, commands: &[Command]) -> Vec<Result<Reply, StoreError>> {
    let batch: Vec<_> = commands.iter().map(|command| Arc::new((command.clone(), AuditContext::default()))).collect();
    store.apply_each(&batch).await
}

/// Which of the commands were admitted; any other has an error that says the store holds something else.
fn admitted(results: &[Result<Reply, StoreError>]) -> Vec<bool> {
    let admitted = |result: &Result<Reply, StoreError>| match result {
        Ok(reply) => {
            assert_eq!(reply.record.code, Code::Admitted);
            true
        }
        Err(StoreError::Corrupt(_)) => false,
        Err(error) => panic!("{error}"),
    };
    results.iter().map(admitted).collect()
}

/// Every key with what it holds.
async fn everything(connection: &mut MultiplexedConnection) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await.unwrap();
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let value = redis::cmd("DUMP").arg(&name).query_async(connection).await.unwrap();
        all.push((name, value));
    }
    all
}

pub(crate) async fn charged(store: &RedisStore, command: &Command) -> u64 {
    let account = store.account(&command.merchant, command.currency).await.unwrap();
    account.map_or(0, |account| account.windows.day.amount)
}

/// An order without attempts that is remembered beyond every test.
fn order_in_state(state: u8) -> Vec<u8> {
    let mut order = vec![0; 44];
    (order[0], order[13]) = (6, state);
    order[15..18].copy_from_slice(b"USD");
    order[26..30].copy_from_slice(&u32::MAX.to_le_bytes());
    order
}

/// An account of the form of ours whose day has this amount.
fn account_with(day: u32, amount: f64) -> Vec<u8> {
    let mut account = vec![0; 152];
    account[0] = 6;
    account[1..5].copy_from_slice(&day.to_le_bytes());
    account[24..32].copy_from_slice(&amount.to_le_bytes());
    account
}

/// A number that the script does not look at and no other reader takes is an error of the command that meets it,
/// whether the account is of these windows, where a charge is a plain one, or of older ones.
#[tokio::test]
async fn a_foreign_number_fails_its_own_command() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let mut connection = connect(&redis.url(), 0).await;
    let [one, other, third] = [command("m-1", 1), command("m-2", 2), command("m-1", 3)];
    let now = other.windows;
    for day in [now.ids.day, now.ids.month * 100] {
        for amount in [0.5, -1.0, 9_007_199_254_740_992.0, f64::NAN] {
            flush(&redis.url(), 0).await;
            let mut account = account_with(day, amount);
            if day != now.ids.day {
                // The day is over; the month has the number.
                account.copy_within(24..32, 56);
            }
            redis::cmd("SET").arg(account_key(&other)).arg(account).exec_async(&mut connection).await.unwrap();
            let results = each(&store, &[one.clone(), other.clone(), third.clone()]).await;
            assert_eq!(admitted(&results), [true, false, true], "{amount} of {day}");
            assert_eq!(charged(&store, &one).await, 1 + 3);
        }
    }
}

/// A value with another format is an error of the commands that need it. It stays, and so does everything else of theirs.
#[tokio::test]
async fn a_foreign_value_fails_its_own_command() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let mut connection = connect(&redis.url(), 0).await;
    let [one, other, third] = [command("m-1", 1), command("m-2", 2), command("m-1", 3)];
    let foreign = [
        redis::cmd("SET").arg(account_key(&other)).arg(&b"\x02"[..]).to_owned(),
        redis::cmd("SET").arg(account_key(&other)).arg(&b""[..]).to_owned(),
        redis::cmd("SET").arg(account_key(&other)).arg(vec![9_u8; 119]).to_owned(),
        redis::cmd("RPUSH").arg(account_key(&other)).arg("a list").to_owned(),
        redis::cmd("SET").arg(order_key(&other)).arg(&b"\x04short"[..]).to_owned(),
        redis::cmd("SET").arg(order_key(&other)).arg(vec![4_u8; 60]).to_owned(),
        redis::cmd("SET").arg(order_key(&other)).arg(order_in_state(5)).to_owned(),
        redis::cmd("SET").arg(merchant_key(&other)).arg(&b"\x02"[..]).to_owned(),
        redis::cmd("SET").arg(merchant_key(&other)).arg(vec![1_u8; 17]).to_owned(),
        redis::cmd("SET").arg(merchant_key(&other)).arg(vec![2_u8; 18]).to_owned(),
    ];
    for foreign in foreign {
        flush(&redis.url(), 0).await;
        foreign.exec_async(&mut connection).await.unwrap();
        let before = everything(&mut connection).await;
        let results = each(&store, &[one.clone(), other.clone(), third.clone()]).await;
        assert_eq!(admitted(&results), [true, false, true], "{foreign:?}");
        assert_eq!(charged(&store, &one).await, 1 + 3);
        let after = everything(&mut connection).await;
        assert!(before.iter().all(|held| after.contains(held)), "{foreign:?}");
        let of_other = |key: &str| key.contains("m-2") || *key == keys::stream(shard_of(&other.merchant));
        assert_eq!(after.iter().filter(|(key, _)| of_other(key)).count(), 1, "{foreign:?}");

        // All or none of them: none.
        let batch = [command("m-2", 4), other.clone()].map(|command| Arc::new((command, AuditContext::default())));
        store.apply_all(&batch).await.unwrap_err();
        assert_eq!(everything(&mut connection).await, after, "{foreign:?}");
    }
}

/// B7: what is no merchant's state is not taken for one, nor overwritten; and a suspension without its event is none.
#[tokio::test]
async fn b7_a_merchant_is_not_suspended_by_halves() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let mut connection = connect(&redis.url(), 0).await;
    let [first, second] = [command("m-1", 1), command("m-1", 2)];
    let suspend =
        Command { action: Action::SuspendMerchant, currency: Currency::NONE, order_no: None, ..command("m-1", 3) };
    assert_eq!(admitted(&each(&store, std::slice::from_ref(&first)).await), [true]);
    let foreign = [
        redis::cmd("SET").arg(merchant_key(&first)).arg("foreign").to_owned(),
        redis::cmd("RPUSH").arg(merchant_key(&first)).arg("a list").to_owned(),
    ];
    for foreign in foreign {
        redis::cmd("DEL").arg(merchant_key(&first)).exec_async(&mut connection).await.unwrap();
        foreign.exec_async(&mut connection).await.unwrap();
        let before = everything(&mut connection).await;
        assert!(matches!(each(&store, std::slice::from_ref(&suspend)).await[0], Err(StoreError::Corrupt(_))));
        assert_eq!(everything(&mut connection).await, before, "{foreign:?}");
    }
    redis::cmd("DEL").arg(merchant_key(&first)).exec_async(&mut connection).await.unwrap();
    let stream = keys::stream(shard_of(&first.merchant));
    redis::cmd("RENAME").arg(&stream).arg("aside").exec_async(&mut connection).await.unwrap();
    redis::cmd("SET").arg(&stream).arg("no stream").exec_async(&mut connection).await.unwrap();
    assert!(each(&store, std::slice::from_ref(&suspend)).await[0].is_err());
    assert_eq!(store.merchant(&first.merchant).await.unwrap(), None);
    redis::cmd("RENAME").arg("aside").arg(&stream).exec_async(&mut connection).await.unwrap();
    // In one call: what comes before the suspension is admitted, what comes after it is not.
    let third = command("m-1", 4);
    let results = each(&store, &[second, suspend, third]).await;
    let codes: Vec<Code> = results.into_iter().map(|result| result.unwrap().record.code).collect();
    assert_eq!(codes, [Code::Admitted, Code::Applied, Code::Suspended]);
}

/// A shard whose events cannot be appended, or whose holds cannot be listed, is not charged; the others are.
#[tokio::test]
async fn a_shard_that_cannot_be_written_fails_its_own_commands() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let mut connection = connect(&redis.url(), 0).await;
    let shard = shard_of(&MerchantId::parse("m-1").unwrap());
    let elsewhere = MERCHANTS.into_iter().find(|name| shard_of(&MerchantId::parse(name).unwrap()) != shard).unwrap();
    let foreign = [
        redis::cmd("SET").arg(keys::stream(shard)).arg("no stream").to_owned(),
        // Above every number that the script gives, so that it can give none.
        redis::cmd("XADD").arg(keys::stream(shard)).arg("7-1").arg("f").arg("v").to_owned(),
        redis::cmd("SET").arg(keys::expiry(shard)).arg("no sorted set").to_owned(),
    ];
    for foreign in foreign {
        flush(&redis.url(), 0).await;
        foreign.exec_async(&mut connection).await.unwrap();
        let commands = [command("m-1", 1), hold(elsewhere, 2), hold("m-1", 3), command(elsewhere, 4)];
        let results = each(&store, &commands).await;
        assert_eq!(admitted(&results), [false, true, false, true], "{foreign:?}");
        assert_eq!([charged(&store, &commands[0]).await, charged(&store, &commands[1]).await], [0, 2 + 4]);
        assert_eq!(store.order(&commands[0].merchant, commands[0].order_no.as_ref().unwrap()).await, Ok(None));
        let events: u64 = redis::cmd("XLEN")
            .arg(keys::stream(shard_of(&commands[1].merchant)))
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(events, 2, "{foreign:?}");
    }
}

/// With a full memory nothing is charged, and the answer states that the store is unavailable.
#[tokio::test]
async fn a_full_memory_charges_nothing() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let mut connection = connect(&redis.url(), 0).await;
    let known = command("m-1", 1);
    assert_eq!(admitted(&each(&store, std::slice::from_ref(&known)).await), [true]);
    let limit = |bytes: u64| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).to_owned();
    limit(1).exec_async(&mut connection).await.unwrap();
    let before = everything(&mut connection).await;
    let results = each(&store, &[command("m-1", 2), known.clone(), hold("m-2", 3)]).await;
    assert!(
        matches!(results.as_slice(), [Err(StoreError::Unavailable(_)), _, Err(StoreError::Unavailable(_))]),
        "{results:?}"
    );
    assert_eq!(everything(&mut connection).await, before);
    limit(0).exec_async(&mut connection).await.unwrap();
    assert_eq!(admitted(&each(&store, &[command("m-1", 2), hold("m-2", 3)]).await), [true, true]);
}

/// Redis frees an order when the rule forgets it: a hold's only after its end.
#[tokio::test]
async fn orders_are_freed_when_they_are_forgotten() {
    let redis = Redis::start().unwrap();
    let store = open(&redis.url(), 0);
    let mut connection = connect(&redis.url(), 0).await;
    // The first is the account's first, the second a plain one, the third of another lifetime than its call's others.
    let longer = Command { order_ttl_secs: 2 * TTL_SECS, ..command("m-1", 3) };
    let commands = [command("m-1", 1), command("m-1", 2), longer, hold("m-1", 4)];
    assert_eq!(admitted(&each(&store, &commands).await), [true; 4]);
    let expected = [TTL_SECS, TTL_SECS, 2 * TTL_SECS, TTL_SECS + LIFETIME_SECS];
    for (command, expected) in commands.iter().zip(expected) {
        let ttl: u32 = redis::cmd("TTL").arg(order_key(command)).query_async(&mut connection).await.unwrap();
        assert!((expected - 60..=expected).contains(&ttl), "{ttl} instead of {expected}");
    }
    let ttl: i32 = redis::cmd("TTL").arg(account_key(&commands[0])).query_async(&mut connection).await.unwrap();
    assert_eq!(ttl, -1, "accounts stay");
}

/// where a call's answer is lost, what is known by its attempt is asked for again. A correction is not: it
/// is not known whether it was done, and done twice it would be wrong.
#[tokio::test]
async fn a_lost_answer_is_asked_for_again_where_that_is_safe() {
    let redis = Redis::start().unwrap();
    let line = Line::to(&redis.url()).await;
    let store = open(&line.url(), 0);
    let first = command("m-1", 1);
    until_answered(&store, &first).await;
    let five = AmountMinor::new(5).unwrap();
    let adjust =
        Adjust { counter: CounterName::Amount(Period::Day), change: Change::Add(five), expected_version: None };
    let correction = Command { order_no: None, action: Action::Adjust(adjust), ..command("m-1", 2) };
    let charge = command("m-1", 3);

    line.cut_next_answer();
    let results = each(&store, &[correction.clone(), charge.clone()]).await;
    let [Err(StoreError::Unavailable(_)), Ok(reply)] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!((reply.record.code, reply.record.replay, reply.decision_id), (Code::Admitted, true, charge.decision_id));
    assert_eq!(charged(&store, &first).await, 1 + 5 + 3);

    line.cut_next_answer();
    let batch = [correction, command("m-1", 4)].map(|command| Arc::new((command, AuditContext::default())));
    assert!(matches!(store.apply_all(&batch).await, Err(StoreError::Unavailable(_))));
    assert_eq!(charged(&store, &first).await, 1 + 5 + 3 + 5 + 4);
}
