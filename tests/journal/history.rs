//! Orders that Redis has forgotten, rebuilt from the usage log exactly, or not at all.

use std::sync::Arc;

use quota::{
    Action, AmountMinor, AttemptId, Code, MerchantId, OnExpiry, Order, OrderNo, OrderState, Origins, PerPeriod, Refund,
    Reset, Weight,
};
use sluice_journal::HistoryStore;
use sluice_journal::history::{self, HistoryError};
use sluice_kit::database;
use sluice_settings::Secret;
use sluice_store::{Store, StoreError};
use sqlx::PgPool;
use testkit::{Failure, Result};

use crate::bench::{AT_MS, Bench, SHARDS};
use crate::engine::{Engine, ORDER_TTL_SECS, audit, consume, hold, refund, settle, weighed};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Longer than any order of these tests is remembered.
const LATER_MS: i64 = AT_MS + 1_000 * DAY_MS;

type Found = std::result::Result<Option<Order>, HistoryError>;

/// What the log knows of the order; an error of the test itself is another than the log's.
async fn ask(engine: &Engine, pool: &PgPool, order_no: &str, now_ms: i64) -> Result<Found> {
    let (merchant, order_no) = (MerchantId::parse("m-1")?, OrderNo::parse(order_no)?);
    Ok(history::find_at(pool, &engine.store, &merchant, &order_no, engine.order_ttl_secs, now_ms).await)
}

async fn find(engine: &Engine, pool: &PgPool, order_no: &str, now_ms: i64) -> Result<Option<Order>> {
    Ok(ask(engine, pool, order_no, now_ms).await??)
}

/// What a rebuilt order does not have: the attempts, and until when Redis remembers it.
fn without_attempts(order: Option<Order>) -> Option<Order> {
    let order = order.filter(|order| order.state != OrderState::Open)?;
    Some(Order { live: Vec::new(), voided: Vec::new(), pinned: false, expires_at_secs: 0, ..order })
}

#[tokio::test]
async fn a_forgotten_order_is_refunded_once() -> Result<()> {
    let (bench, mut now_ms) = (Bench::start()?, AT_MS);
    let (engine, pool, journal) = (Engine::open(&bench)?, bench.postgres.pool().await?, bench.journal("a")?);
    engine.grant("m-1", "o-1", consume(100), AT_MS).await?;
    engine.grant("m-1", "o-2", consume(7), AT_MS).await?;
    bench.wait_until_drained(SHARDS).await?;
    for (value, number, code, used) in [
        (30, "r-1", Code::Applied, 77),
        // The same again, and with another amount; both find the first in the log.
        (30, "r-1", Code::Applied, 77),
        (40, "r-1", Code::IdempotencyConflict, 77),
        (71, "r-2", Code::RefundExceedsOrder, 77),
        (70, "r-3", Code::Applied, 7),
        (1, "r-4", Code::RefundExceedsOrder, 7),
    ] {
        now_ms += 2 * HOUR_MS;
        engine.forget(&bench, "m-1", "o-1").await?;
        let mut command = engine.command("m-1", "o-1", Action::Refund(refund(value, number)), now_ms)?;
        command.history = find(&engine, &pool, "o-1", now_ms).await?.map(Box::new);
        let reply = engine.apply(&command).await?;
        assert_eq!(reply.record.code, code, "{number}");
        let account = engine.account("m-1").await?;
        assert_eq!(
            (account.windows.day.amount, account.windows.month.amount, account.windows.year.amount),
            (used, used, used),
            "{number}"
        );
        bench.wait_until_drained(SHARDS).await?;
    }
    journal.stop()
}

#[tokio::test]
async fn a_tombstone_hides_no_past_and_an_unreadable_one_holds_up_no_other() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, pool, journal) = (Engine::open(&bench)?, bench.postgres.pool().await?, bench.journal("a")?);
    engine.grant("m-1", "o-1", consume(100), AT_MS).await?;
    bench.wait_until_drained(SHARDS).await?;
    engine.forget(&bench, "m-1", "o-1").await?;
    let voided = engine.run("m-1", "o-1", Action::VoidAttempt, AT_MS + HOUR_MS).await?;
    assert_eq!(voided.record.code, Code::Tombstoned);
    bench.wait_until_drained(SHARDS).await?;
    let redis = Arc::new(Engine::open(&bench)?.store);
    let recalling = HistoryStore::new(Arc::clone(&redis), pool);
    let mut command = engine.command("m-1", "o-1", Action::Refund(refund(30, "r-1")), AT_MS + 2 * HOUR_MS)?;
    command.attempt = AttemptId::from_text("another");
    assert_eq!(recalling.apply(&command, &audit("proxy", "")).await?.record.code, Code::Applied);
    bench.wait_until_drained(SHARDS).await?;

    let nowhere = database::pool(&Secret::new("postgres://127.0.0.1:1/nowhere"), 1)?;
    let recalling = HistoryStore::new(redis, nowhere);
    let of = |order_no, action| engine.command("m-1", order_no, action, AT_MS + 3 * HOUR_MS);
    let batch = [of("o-2", Action::Refund(refund(1, "r-1")))?, of("o-3", consume(5))?]
        .map(|command| Arc::new((command, audit("proxy", ""))));
    let results = recalling.apply_each(&batch).await;
    let [Err(StoreError::History(_)), Ok(reply)] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!(reply.record.code, Code::Admitted);
    let refused = recalling.apply_all(&batch).await;
    assert!(matches!(refused, Err(StoreError::History(_))), "{refused:?}");
    journal.stop()
}

#[tokio::test]
async fn orders_are_rebuilt_as_the_store_had_them() -> Result<()> {
    let bench = Bench::start()?;
    let (mut engine, pool, journal) = (Engine::open(&bench)?, bench.postgres.pool().await?, bench.journal("a")?);
    // Redis still has them all, to compare with.
    engine.order_ttl_secs = 400 * 86_400;
    let reserve = |value, number| Action::Refund(Refund { reserve: true, ..refund(value, number) });
    let table: [(&str, &[(Action, &str)]); 11] = [
        ("charge", &[(consume(100), "a")]),
        ("charge by two attempts", &[(consume(100), "a"), (consume(100), "b")]),
        ("one attempt left", &[(consume(100), "a"), (consume(100), "b"), (Action::VoidAttempt, "a")]),
        ("voided", &[(consume(100), "a"), (Action::VoidAttempt, "a")]),
        ("charged again", &[(consume(100), "a"), (Action::VoidAttempt, "a"), (consume(60), "b")]),
        (
            "captures",
            &[(hold(100, 60, OnExpiry::Settle), "a"), (settle(30, "1", false), "b"), (settle(50, "2", true), "c")],
        ),
        ("an open hold", &[(hold(100, 999, OnExpiry::Settle), "a"), (settle(30, "1", false), "b")]),
        ("over-captured", &[(hold(100, 60, OnExpiry::Void), "a"), (settle(120, "1", true), "b")]),
        (
            "refunds",
            &[
                (consume(100), "a"),
                (Action::Refund(refund(10, "1")), "b"),
                (reserve(20, "2"), "c"),
                (reserve(20, "2"), "d"),
                (Action::Refund(refund(20, "2")), "e"),
                (reserve(5, "3"), "f"),
            ],
        ),
        (
            "a cancelled reservation",
            &[(consume(100), "a"), (reserve(20, "1"), "b"), (reserve(20, "1"), "c"), (Action::VoidAttempt, "c")],
        ),
        (
            "a released hold",
            &[
                (hold(100, 60, OnExpiry::Void), "a"),
                (settle(30, "1", false), "b"),
                (Action::Release(refund(0, "2")), "c"),
                (Action::Release(refund(0, "3")), "d"),
            ],
        ),
    ];
    for (name, steps) in table {
        let order_no = name.replace(' ', "-");
        for (at, (action, attempt)) in steps.iter().enumerate() {
            let mut command = engine.command("m-1", &order_no, *action, AT_MS + at as i64 * 9 * HOUR_MS)?;
            command.attempt = AttemptId::from_text(attempt);
            let reply = engine.apply(&command).await?;
            assert_eq!(reply.record.code.http_status(), 200, "{name}, step {at}: {:?}", reply.record.code);
        }
        bench.wait_until_drained(SHARDS).await?;
        let kept = without_attempts(engine.order("m-1", &order_no).await?);
        assert_eq!(find(&engine, &pool, &order_no, LATER_MS).await?, kept, "{name}");
        assert_eq!(kept.is_none(), name == "voided", "{name}");
    }
    journal.stop()
}

/// Any sequence of operations on an order, over months with windows that are reset, is rebuilt to the last figure.
#[tokio::test]
async fn generated_orders_are_rebuilt_as_the_store_had_them() -> Result<()> {
    let bench = Bench::start()?;
    let (mut engine, pool, journal) = (Engine::open(&bench)?, bench.postgres.pool().await?, bench.journal("a")?);
    engine.order_ttl_secs = 400 * 86_400;
    let mut random = Random(0x5eed);
    let (mut states, mut operations, mut weights) = ([0_u32; OrderState::ALL.len()], 0, 0);
    let (orders, mut now_ms) = (150, AT_MS);
    for number in 0..orders {
        for _ in 0..1 + random.below(24) {
            now_ms += random.pick(&[0, 1_000, HOUR_MS, 5 * HOUR_MS]);
            let action = any_action(&mut random);
            let order_no = if matches!(action, Action::Reset(_)) { String::new() } else { format!("o-{number}") };
            let mut command = engine.command("m-1", &order_no, action, now_ms)?;
            command.attempt = AttemptId::from_text(random.pick(&["a", "b", "c"]));
            engine.apply(&command).await?;
        }
    }
    bench.wait_until_drained(SHARDS).await?;
    for number in 0..orders {
        let order_no = format!("o-{number}");
        let kept = engine.order("m-1", &order_no).await?;
        if let Some(order) = &kept {
            states[usize::from(order.state.number())] += 1;
            operations += order.operations.len();
            weights += u32::from(!order.weight.is_amount());
        }
        assert_eq!(find(&engine, &pool, &order_no, LATER_MS).await?, without_attempts(kept), "{order_no}");
    }
    // A generator that makes no order of a kind would prove nothing of it.
    assert!(states.iter().all(|count| *count > 0), "{states:?}");
    assert!(operations > 100 && weights > 50, "{operations} operations, {weights} with a weight");
    journal.stop()
}

fn any_action(random: &mut Random) -> Action {
    let numbers = ["1", "2", "3", "4"];
    let (value, number) = (random.pick(&[0, 5, 10, 40]), random.pick(&numbers));
    let reserve = Refund { reserve: true, ..refund(value, number) };
    let settled = random.pick(&[OnExpiry::Void, OnExpiry::Settle]);
    let weight =
        random.pick(&[Weight::AMOUNT, Weight::share(3_333).unwrap_or(Weight::AMOUNT), Weight::price(AmountMinor::MAX)]);
    match random.below(20) {
        0..=3 => weighed(consume(100), weight),
        4..=7 => weighed(hold(100, 3600, settled), weight),
        8..=9 => Action::VoidAttempt,
        10 => Action::Void,
        11..=12 => settle(value, number, random.below(3) == 0),
        13..=14 => Action::Refund(refund(value, number)),
        15..=16 => Action::Refund(reserve),
        17 => Action::Release(refund(value, number)),
        18 => Action::Expire,
        _ => Action::Reset(Reset {
            windows: PerPeriod { day: true, week: false, month: random.below(2) == 0, year: false },
            expected_version: None,
        }),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or_default()]
    }
}

/// Redis should still know the order: it has lost writes, and perhaps the charge itself, so nothing may come back twice.
#[tokio::test]
async fn an_order_that_was_lost_gives_nothing_back() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, pool, journal) = (Engine::open(&bench)?, bench.postgres.pool().await?, bench.journal("a")?);
    engine.grant("m-1", "o-1", consume(100), AT_MS).await?;
    bench.wait_until_drained(SHARDS).await?;
    let lost = find(&engine, &pool, "o-1", AT_MS + HOUR_MS / 2).await?.ok_or_else(|| Failure::new("no order"))?;
    assert_eq!((lost.captured(), lost.charged_in), (100, Origins::default()));
    let forgotten = find(&engine, &pool, "o-1", AT_MS + HOUR_MS).await?.ok_or_else(|| Failure::new("no order"))?;
    assert_eq!(forgotten.charged_in.day.id, 20_261_120);
    // The log is about this merchant's order only.
    assert_eq!(find(&engine, &pool, "o-2", LATER_MS).await?, None);
    journal.stop()
}

#[tokio::test]
async fn a_log_that_may_be_incomplete_is_no_history() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, pool) = (Engine::open(&bench)?, bench.postgres.pool().await?);
    let journal = bench.journal("a")?;
    engine.grant("m-1", "o-1", consume(100), AT_MS).await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.stop()?;
    assert!(find(&engine, &pool, "o-1", LATER_MS).await?.is_some());

    // An event of the shard that waits: it may be the order's unless it is younger than orders are remembered.
    engine.grant("m-1", "o-2", consume(1), AT_MS).await?;
    let behind = ask(&engine, &pool, "o-1", LATER_MS).await?;
    assert!(matches!(behind, Err(HistoryError::Behind { .. })), "{behind:?}");
    let young = AT_MS + i64::from(ORDER_TTL_SECS) * 1000 / 2;
    assert!(find(&engine, &pool, "o-1", young).await?.is_some());
    let journal = bench.journal("b")?;
    bench.wait_until_drained(SHARDS).await?;
    assert!(find(&engine, &pool, "o-1", LATER_MS).await?.is_some());

    let shard = i32::from(quota::shard_of(&MerchantId::parse("m-1")?, SHARDS));
    sqlx::query("INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq) VALUES ($1, 'missing', 5, 6)")
        .bind(shard)
        .execute(&pool)
        .await?;
    let gap = ask(&engine, &pool, "o-1", LATER_MS).await?;
    assert!(matches!(gap, Err(HistoryError::Gap)), "{gap:?}");
    sqlx::query("UPDATE journal_anomaly SET resolved_at = now()").execute(&pool).await?;
    assert!(find(&engine, &pool, "o-1", LATER_MS).await?.is_some());

    let aside = "INSERT INTO journal_rejected (shard, stream_id, content_hash, fields, reason) \
        VALUES ($1, '0-9', gen_random_uuid(), ARRAY['c'::bytea, $2], 'test')";
    sqlx::query(aside).bind(shard).bind(b"\x0bxo-2y".as_slice()).execute(&pool).await?;
    assert!(find(&engine, &pool, "o-1", LATER_MS).await?.is_some());
    sqlx::query(aside).bind(shard).bind(b"\x0bxo-1y".as_slice()).execute(&pool).await?;
    let aside = ask(&engine, &pool, "o-1", LATER_MS).await?;
    assert!(matches!(aside, Err(HistoryError::Gap)), "{aside:?}");
    journal.stop()
}
