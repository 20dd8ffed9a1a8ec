//! what ends a hold comes from many sides at once, and one of them ends it.

use std::collections::BTreeMap;
use std::sync::Arc;

use quota::{
    Action, AmountMinor, AttemptId, Calendar, Charge, Code, Command, Currency, Effect, HoldTerms, Limits, MerchantId,
    OnExpiry, OperationId, OrderNo, Period, Reply, Settle,
};
use sluice_store::{AuditContext, RedisStore, Store, keys, packed};
use testkit::redis::Redis;

use crate::sequence::{expire, shard_of};
use crate::support::{connect, open};

const ROUNDS: u128 = 150;
/// Connections that each capture, void and expire.
pub(crate) const SERVERS: usize = 6;
const HELD: u64 = 60;
const CAPTURED: u64 = 20;
const NOW_MS: i64 = 1_795_296_600_000;
const LIFETIME_SECS: u32 = 60;

pub(crate) fn command(order: &str, name: &str, action: Action, number: u128) -> Command {
    let now_ms = NOW_MS + if matches!(action, Action::Hold(..)) { 0 } else { i64::from(LIFETIME_SECS) * 1000 };
    Command {
        merchant: MerchantId::parse("m").unwrap(),
        currency: Currency::parse("USD").unwrap(),
        order_no: Some(OrderNo::parse(order).unwrap()),
        attempt: AttemptId::from_text(name),
        action,
        effect: Effect::Commit,
        decision_id: number.to_be_bytes(),
        now_ms,
        windows: Calendar::UTC.windows_at(now_ms),
        order_ttl_secs: 3_600,
        backlog_max: 1_000_000,
        threshold_policy: None,
        credit: None,
        history: None,
        payment_no: None,
        operation_no: None,
        channel: None,
    }
}

/// A charge without limits.
pub(crate) fn charge(minor: u64) -> Charge {
    Charge {
        amount: AmountMinor::new(minor).unwrap(),
        weight: quota::Weight::AMOUNT,
        limits: Limits::UNLIMITED,
        refusal: None,
        pace: None,
        replays_max: None,
        refuse_unknown_credit: false,
    }
}

fn hold(order: &str, on_expiry: OnExpiry, number: u128) -> Command {
    let terms = HoldTerms { lifetime_secs: LIFETIME_SECS, on_expiry };
    command(order, "hold", Action::Hold(charge(HELD), terms), number)
}

/// Everything that may end a hold, from one server.
fn endings(order: &str, server: usize, number: u128) -> Vec<Command> {
    let name = format!("{order} {server}");
    let settle = Settle {
        amount: AmountMinor::new(CAPTURED),
        id: OperationId::of(&name),
        last: true,
        over_capture_percent: 0,
        reported: false,
    };
    let mut actions = vec![Action::Settle(settle), Action::Void, Action::Expire];
    // Each server has another of them first.
    actions.rotate_left(server % 3);
    actions.into_iter().map(|action| command(order, &name, action, number)).collect()
}

/// What the reply took off the hold, where it is the one that ended it.
fn ended(reply: &Reply) -> Option<u64> {
    let ends = matches!(reply.record.code, Code::Applied | Code::Voided) && !reply.record.replay;
    ends.then_some(reply.record.windows.day.amount_before - reply.record.windows.day.amount_after)
}

async fn race(stores: &[Arc<RedisStore>], order: &str, number: u128) -> Vec<u64> {
    let mut running = tokio::task::JoinSet::new();
    for (server, store) in stores.iter().enumerate() {
        for command in endings(order, server, number + 1) {
            let store = Arc::clone(store);
            running.spawn(async move { store.apply(&command, &AuditContext::default()).await.unwrap() });
        }
    }
    running.join_all().await.iter().filter_map(ended).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q4_a_hold_ends_once_whatever_ends_it() {
    let redis = Redis::start().unwrap();
    let stores: Vec<_> = (0..SERVERS).map(|_| Arc::new(open(&redis.url(), 0))).collect();
    let mut used = 0;
    let mut winners = BTreeMap::<u64, u32>::new();
    for round in 0..ROUNDS {
        let order = format!("order-{round}");
        let on_expiry = if round % 2 == 0 { OnExpiry::Void } else { OnExpiry::Settle };
        let reply = stores[0].apply(&hold(&order, on_expiry, round * 100), &AuditContext::default()).await.unwrap();
        assert_eq!(reply.record.code, Code::Admitted);
        let returned = race(&stores, &order, round * 100).await;
        assert_eq!(returned.len(), 1, "{order} was ended {} times", returned.len());
        *winners.entry(returned[0]).or_default() += 1;
        used += HELD - returned[0];
        let account = stores[0].account(&hold("-", on_expiry, 0).merchant, Currency::parse("USD").unwrap()).await;
        let account = account.unwrap().unwrap();
        assert_eq!(
            (account.windows.day.amount, account.windows.month.amount, account.pending),
            (used, used, 0),
            "{order}"
        );
    }
    // A capture returns what it leaves; a void, or an expiry that voids, returns all of it.
    assert!(winners.contains_key(&(HELD - CAPTURED)) && winners.contains_key(&HELD), "{winners:?}");
    assert_eq!(journalled(&redis).await, i128::from(used));
}

/// What all events together added to the day.
async fn journalled(redis: &Redis) -> i128 {
    let shard = shard_of(&MerchantId::parse("m").unwrap());
    let mut connection = connect(&redis.url(), 0).await;
    let entries: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg(keys::stream(shard)).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    // Holds are stated in full: the amount that was asked for is not needed.
    let records = entries.ids.iter().map(|entry| packed::record(&entry.get::<Vec<u8>>("d").unwrap(), 0).unwrap());
    let days = records.map(|record| record.of(Period::Day));
    days.map(|day| i128::from(day.amount_after) - i128::from(day.amount_before)).sum()
}

/// However many servers sweep, each hold that is due ends once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q4_holds_expire_once_however_many_servers_sweep() {
    let redis = Redis::start().unwrap();
    let stores: Vec<_> = (0..SERVERS).map(|_| Arc::new(open(&redis.url(), 0))).collect();
    let holds = 100;
    for number in 0..holds {
        let hold = hold(&format!("order-{number}"), OnExpiry::Void, number);
        assert_eq!(stores[0].apply(&hold, &AuditContext::default()).await.unwrap().record.code, Code::Admitted);
    }
    let merchant = MerchantId::parse("m").unwrap();
    let mut running = tokio::task::JoinSet::new();
    for store in &stores {
        let (store, shard) = (Arc::clone(store), shard_of(&merchant));
        running.spawn(async move {
            let mut ends = 0;
            for hold in store.due_holds(shard, u64::from(u32::MAX), 0..1_000).await.unwrap().holds {
                let reply = store.apply(&expire(&hold), &AuditContext::default()).await.unwrap();
                ends += u128::from(ended(&reply).is_some());
            }
            ends
        });
    }
    assert_eq!(running.join_all().await.into_iter().sum::<u128>(), holds);
    let account = stores[0].account(&merchant, Currency::parse("USD").unwrap()).await.unwrap().unwrap();
    assert_eq!((account.windows.day.amount, account.windows.day.count, account.pending), (0, 0, 0));
    assert_eq!(stores[0].due_holds(shard_of(&merchant), u64::from(u32::MAX), 0..1_000).await.unwrap().holds, []);
}
