//! the store's own time bounds the time of every command.

use proptest::prelude::*;

use crate::table::Row;
use crate::table::row::{LIFETIME_SECS, TTL_SECS};
use quota::{
    Account, Action, Calendar, Code, Command, LAG_MS_MAX, Ledger, MerchantId, NotBegun, Order, OrderNo, OrderState,
    Period, Reply,
};

const DAY_MS: i64 = 86_400_000;

/// The time that rows begin with.
fn now_ms() -> i64 {
    Row::consume("a", "1", 1).command(0).now_ms
}

fn account(ledger: &Ledger) -> Account {
    let command = Row::consume("a", "1", 1).command(0);
    ledger.account(&command.merchant, command.currency).copied().unwrap_or_default()
}

/// The row's command by a clock that differs from the store's by `lie_ms`. The store's clock shows the row's time.
fn lying(row: Row, number: usize, lie_ms: i64) -> (Command, i64) {
    let command = row.command(number);
    let (store_ms, now_ms) = (command.now_ms, command.now_ms + lie_ms);
    (Command { now_ms, windows: Calendar::UTC.windows_at(now_ms), ..command }, store_ms)
}

/// Each command on an account that was charged today, with a hold of an hour: the command and its time, the error of its clock,
/// and the answer.
#[test]
fn f1_what_the_stores_time_allows() {
    let until_midnight_ms = Calendar::UTC.windows_at(now_ms()).until_ms - now_ms();
    let hold_secs = LIFETIME_SECS;
    let table = [
        // Windows, to the millisecond.
        (Row::consume("b", "2", 1), until_midnight_ms - 1, Ok(Code::Admitted)),
        (Row::consume("b", "2", 1), until_midnight_ms, Err(NotBegun)),
        (Row::consume("b", "2", 1), 8 * DAY_MS, Err(NotBegun)),
        (Row::consume("b", "2", 1), 10 * 366 * DAY_MS, Err(NotBegun)),
        (Row::consume("b", "2", 1), -8 * DAY_MS, Ok(Code::Admitted)),
        (Row::consume("b", "2", 1), -50 * 366 * DAY_MS, Ok(Code::Admitted)),
        // Any kind of command.
        (Row::account(Action::Roll), 8 * DAY_MS, Err(NotBegun)),
        (Row::expire("held"), 8 * DAY_MS, Err(NotBegun)),
        (Row::settle("held", "c", None), 8 * DAY_MS, Err(NotBegun)),
        (Row::reset(&Period::ALL), 8 * DAY_MS, Err(NotBegun)),
        (Row::account(Action::Initialize).currency("JPY"), 8 * DAY_MS, Err(NotBegun)),
        // A hold ends by the store's time, whichever clock lags.
        (Row::expire("held").at_secs(hold_secs - 1), 1_000, Ok(Code::Admitted)),
        (Row::expire("held").at_secs(hold_secs), 0, Ok(Code::Voided)),
        (Row::expire("held").at_secs(hold_secs), -1_000, Ok(Code::Admitted)),
        (Row::expire("held").at_secs(hold_secs + 60), -8 * DAY_MS, Ok(Code::Voided)),
        (Row::expire("held").at_secs(hold_secs + 59), -8 * DAY_MS, Ok(Code::Admitted)),
        // An order is kept for its time.
        (Row::consume("a", "1", 2).at_secs(TTL_SECS - 1), 1_000, Ok(Code::IdempotencyConflict)),
        (Row::consume("a", "1", 2).at_secs(TTL_SECS), 0, Ok(Code::Admitted)),
    ];
    for (number, (row, lie_ms, expected)) in table.into_iter().enumerate() {
        let mut ledger = Ledger::new(1);
        let _charged = ledger.apply(&Row::consume("a", "1", 60).command(1));
        let _held = ledger.apply(&Row::hold("held", "h", 10).command(2));
        let before = (account(&ledger), ledger.drain().len());
        let (command, store_ms) = lying(row.clone(), 3, lie_ms);
        let reply = ledger.apply_at(&command, store_ms);
        assert_eq!(reply.map(|reply| reply.record.code), expected, "{number}: {row} by {lie_ms} ms");
        let day = Calendar::UTC.windows_at(store_ms).ids.day;
        assert!(account(&ledger).windows.day.id <= day, "{number}: {row}");
        if expected.is_err() {
            assert_eq!((account(&ledger), ledger.drain().len()), (before.0, 0), "{number}: {row}");
        }
    }
}

/// What a command writes is dated by the store's time, to the minute: an order or hold of a lagging clock lasts as long as another.
#[test]
fn f1_what_is_written_lasts_by_the_stores_time() {
    for (lie_ms, lag_ms) in [(0, 0), (-1_000, 1_000), (-60_000, 60_000), (-60_001, 60_000), (-8 * DAY_MS, 60_000)] {
        let mut ledger = Ledger::new(1);
        let (command, store_ms) = lying(Row::hold("a", "1", 60), 1, lie_ms);
        let _reply = ledger.apply_at(&command, store_ms);
        let order = ledger.order(&command.merchant, &OrderNo::parse("a").unwrap()).unwrap();
        let expected = u32::try_from((store_ms - lag_ms) / 1000).unwrap() + LIFETIME_SECS;
        assert_eq!((order.hold.until_secs, order.expires_at_secs), (expected, expected + TTL_SECS), "{lie_ms}");
        let (suspend, _) = lying(Row::account(Action::Suspend), 2, lie_ms);
        let _reply = ledger.apply_at(&suspend, store_ms);
        assert_eq!(account(&ledger).suspended_at_ms, (store_ms - lag_ms).unsigned_abs(), "{lie_ms}");
    }
}

/// All or none: a command before its day keeps the batch from being decided, unless an earlier command was refused.
#[test]
fn f1_a_batch_with_a_command_before_its_day_is_not_decided() {
    let mut ledger = Ledger::new(1);
    let (early, store_ms) = lying(Row::consume("c", "3", 1), 3, 8 * DAY_MS);
    let (first, refused) = (Row::consume("a", "1", 60).command(1), Row::consume("b", "2", 101).command(2));
    assert_eq!(ledger.apply_all_or_none_at(&[first.clone(), early.clone(), refused.clone()], store_ms), Err(NotBegun));
    assert_eq!((account(&ledger), ledger.drain().len()), (Account::default(), 0));
    let replies = ledger.apply_all_or_none_at(&[first, refused, early], store_ms).unwrap();
    let codes: Vec<_> = replies.iter().map(|reply| reply.record.code).collect();
    assert_eq!(codes, [Code::BatchRefused, Code::DailyAmount, Code::BatchRefused]);
}

/// An account in a day of next week, of next year, and in ten years: a reset moves it back with what was counted since; refunds
/// of earlier charges take nothing out of that.
#[test]
fn f1_a_reset_brings_an_account_back_that_is_ahead() {
    for days in [8, 366, 3_660] {
        let mut ledger = Ledger::new(1);
        let mut done = |row: Row, number| ledger.apply(&row.command(number)).record;
        let _before = done(Row::consume("before", "1", 30), 1);
        let _frozen = done(Row::consume("frozen", "2", 20).at_days(days), 2);
        let since = done(Row::consume("since", "3", 5), 3);
        let ahead = Calendar::UTC.windows_at(now_ms() + i64::from(days) * DAY_MS);
        assert_eq!((since.windows.day.id, since.windows.day.amount_after), (ahead.ids.day, 25), "{days}");
        let back = done(Row::reset(&[Period::Day]), 4);
        let now = Calendar::UTC.windows_at(now_ms());
        assert_eq!(
            (back.windows.day.id, back.windows.month.id, back.windows.year.id),
            (now.ids.day, now.ids.month, now.ids.year),
            "{days}"
        );
        assert_eq!(
            (back.windows.day.amount_before, back.windows.day.amount_after, back.windows.day.count_after),
            (25, 0, 0),
            "{days}"
        );
        let kept_year = if ahead.ids.year > now.ids.year { 25 } else { 55 };
        assert_eq!(
            (back.windows.year.amount_after, back.windows.year.epoch >= 128),
            (kept_year, ahead.ids.year > now.ids.year),
            "{days}"
        );
        assert!(back.windows.day.epoch > 128, "{days}: {back:?}");
        let _after = done(Row::consume("after", "5", 7), 5);
        for (order, number) in [("before", "r1"), ("frozen", "r2"), ("since", "r3")] {
            let refunded = done(Row::refund(order, number, None), 6);
            assert_eq!((refunded.code, refunded.windows.day.amount_after), (Code::Applied, 7), "{days} {order}");
        }
        assert_eq!(done(Row::refund("after", "r4", None), 7).windows.day.amount_after, 0, "{days}");
    }
}

/// A reset by a lagging clock after midnight does not know the current windows: the stored ones stay.
#[test]
fn f1_a_reset_that_is_late_takes_no_account_into_a_closed_window() {
    let mut ledger = Ledger::new(1);
    let _today = ledger.apply(&Row::consume("a", "1", 30).at_days(1).command(1));
    let stored = account(&ledger).windows.day.id;
    let (reset, store_ms) = lying(Row::reset(&Period::ALL).at_days(1), 2, -DAY_MS);
    let record = ledger.apply_at(&reset, store_ms).unwrap().record;
    assert_eq!((record.windows.day.id, record.windows.day.epoch, record.windows.day.amount_after), (stored, 1, 0));
}

/// A step: kind of command, order, amount, error of its clock in ms, and seconds that pass before it.
type Step = (u8, u8, u64, i64, u32);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lie = prop_oneof![
        4 => Just(0_i64),
        2 => -90_000..90_000_i64,
        2 => -10 * DAY_MS..10 * DAY_MS,
        1 => -30 * 366 * DAY_MS..30 * 366 * DAY_MS,
    ];
    let passes = prop_oneof![8 => 0..60_u32, 2 => 3_000..4_000_u32, 1 => 80_000..100_000_u32];
    proptest::collection::vec((0..7_u8, 0..4_u8, 1..60_u64, lie, passes), 1..80)
}

const ORDERS: [&str; 4] = ["a", "b", "c", "d"];

fn row((kind, order, minor, ..): Step) -> Row {
    let order = ORDERS[usize::from(order) % ORDERS.len()];
    match kind {
        0 | 1 => Row::consume(order, order, minor),
        2 | 3 => Row::hold(order, order, minor),
        4 => Row::expire(order),
        5 => Row::account(Action::Roll),
        _ => Row::reset(&[Period::Day]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// No window is opened, no hold ended and no order evicted before its time, and what is written lasts.
    #[test]
    fn f1_no_clock_but_the_stores_moves_a_window_or_ends_anything(steps in steps()) {
        let mut ledger = Ledger::new(1);
        let mut store_ms = now_ms();
        for (number, step) in steps.into_iter().enumerate() {
            store_ms += i64::from(step.4) * 1000;
            let now_ms = store_ms + step.3;
            let windows = Calendar::UTC.windows_at(now_ms);
            let command = Command { now_ms, windows, ..row(step).command(number + 1) };
            let before = command.order_no.as_ref().and_then(|order_no| order(&ledger, order_no));
            let reply = ledger.apply_at(&command, store_ms);
            prop_assert_eq!(reply.is_err(), windows.since_ms > store_ms);
            prop_assert!(account(&ledger).windows.day.id <= Calendar::UTC.windows_at(store_ms).ids.day);
            let done = |reply: &Reply| !reply.record.replay && reply.record.code.http_status() == 200;
            let Some(reply) = reply.ok().filter(done) else { continue };
            if let Some(before) = before.filter(|order| order.state != OrderState::Open) {
                let charged = reply.record.code == Code::Admitted;
                prop_assert!(!charged || i64::from(before.expires_at_secs) * 1000 <= store_ms, "{command:?}");
                let expired = command.action == Action::Expire;
                prop_assert!(!expired || i64::from(before.hold.until_secs) * 1000 <= store_ms, "{command:?}");
            }
            let after = command.order_no.as_ref().and_then(|order_no| order(&ledger, order_no));
            let least_ms = store_ms - LAG_MS_MAX as i64 - 1000 + i64::from(TTL_SECS) * 1000;
            prop_assert!(after.is_none_or(|order| i64::from(order.expires_at_secs) * 1000 >= least_ms));
        }
    }
}

fn order(ledger: &Ledger, order_no: &OrderNo) -> Option<Order> {
    ledger.order(&MerchantId::parse("m").unwrap(), order_no).cloned()
}
