//! Q-1, Q-4: charges, captures, refunds and repayments of one credit line from many sides at once, while its billing cycle closes.

use std::sync::Arc;

use quota::{
    Action, AmountMinor, Code, Command, CreditTerms, Currency, HoldTerms, MerchantId, OperationId, Posting,
    PostingKind, Refund, Reply, Settle,
};
use sluice_store::{AuditContext, RedisStore, Store, keys, packed};
use testkit::redis::Redis;

use crate::races::{SERVERS, charge, command};
use crate::sequence::shard_of;
use crate::support::{connect, open};

const STEPS: usize = 40;
const LIMIT: u64 = 1_000;
/// The second one begins half way, for each server when it is there.
const CYCLES: [u32; 2] = [20_261_101, 20_261_120];

fn minor(amount: u64) -> AmountMinor {
    AmountMinor::new(amount).unwrap()
}

/// What one server does in a step: a charge and its refund, a hold and its capture, a repayment.
fn step(server: usize, step: usize) -> Vec<Command> {
    let cycle = CYCLES[usize::from(step >= STEPS / 2)];
    let credit = Some(CreditTerms { cycle, limit: minor(LIMIT), uncapped_limit: minor(LIMIT) });
    let [charged, held, repaid] = ["c", "h", "p"].map(|kind| format!("{kind}-{server}-{step}"));
    let refund = Refund::under(None, None, OperationId::of("r"), false);
    let settle = Settle {
        amount: Some(minor(30)),
        id: OperationId::of("s"),
        last: true,
        over_capture_percent: 0,
        reported: false,
    };
    let repayment = Posting { kind: PostingKind::Repayment, amount: minor(60) };
    let mut actions = vec![
        (&charged, Action::Consume(charge(70))),
        (&held, Action::Hold(charge(50), HoldTerms::DEFAULT)),
        (&held, Action::Settle(settle)),
        (&repaid, Action::Post(repayment)),
    ];
    if step.is_multiple_of(3) {
        actions.push((&charged, Action::Refund(refund)));
    }
    let number = |place: usize| (server * STEPS + step) as u128 * 10 + place as u128;
    let numbered = actions.into_iter().enumerate();
    numbered.map(|(place, (order, action))| Command { credit, ..command(order, "a", action, number(place)) }).collect()
}

async fn server(store: Arc<RedisStore>, number: usize) -> Vec<(Action, Reply)> {
    let mut replies = Vec::new();
    for command in (0..STEPS).flat_map(|own| step(number, own)) {
        let reply = store.apply(&command, &AuditContext::default()).await.unwrap();
        replies.push((command.action, reply));
    }
    replies
}

/// No admission exceeds the limit, the replies make up exposure and statement, and the cycle closes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q1_q4_a_credit_line_holds_while_everything_comes_at_once() {
    let redis = Redis::start().unwrap();
    let stores: Vec<_> = (0..SERVERS).map(|_| Arc::new(open(&redis.url(), 0))).collect();
    let mut running = tokio::task::JoinSet::new();
    for (number, store) in stores.iter().enumerate() {
        running.spawn(server(Arc::clone(store), number));
    }
    let replies: Vec<(Action, Reply)> = running.join_all().await.into_iter().flatten().collect();

    let codes = |code| replies.iter().filter(|(_, reply)| reply.record.code == code).count();
    assert!(codes(Code::Admitted) > 0 && codes(Code::CreditExhausted) > 0, "the limit was met, and not always");
    let (mut exposure, mut billed) = (0, [0_i64; 2]);
    for (action, reply) in &replies {
        let credit = reply.record.credit.unwrap();
        if action.charge().is_some() && reply.record.code == Code::Admitted {
            assert!(credit.exposure_after <= i64::try_from(LIMIT).unwrap(), "{credit:?}");
        }
        exposure += credit.exposure_after - credit.exposure_before;
        billed[usize::from(credit.cycle == CYCLES[1])] +=
            credit.unbilled_after.cast_signed() - credit.unbilled_before.cast_signed();
    }
    let merchant = MerchantId::parse("m").unwrap();
    let account = stores[0].account(&merchant, Currency::parse("USD").unwrap()).await.unwrap().unwrap();
    let credit = account.credit.unwrap();
    assert_eq!((credit.exposure, credit.unbilled.cast_signed()), (exposure, billed[1]));
    assert_eq!(closed(&redis, &merchant).await, [(CYCLES[0], billed[0])]);
}

/// The billing cycles that events have closed, with their amounts.
async fn closed(redis: &Redis, merchant: &MerchantId) -> Vec<(u32, i64)> {
    let mut connection = connect(&redis.url(), 0).await;
    let stream = keys::stream(shard_of(merchant));
    let entries: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let cycles = entries.ids.iter().filter_map(|entry| packed::closed(&entry.get::<Vec<u8>>("w")?).unwrap().cycle);
    cycles.map(|closed| (closed.cycle, closed.amount.cast_signed())).collect()
}
