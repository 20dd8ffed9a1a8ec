//! The tables and batches in the ledger, and what it keeps of orders, windows and events.

use std::collections::BTreeMap;

use crate::table::{self, Batch, Row};
use crate::zones::zone;
use quota::{
    ATTEMPTS_MAX, Action, Calendar, ClosedWindow, Code, Command, Counter, Effect, Ledger, MerchantId, OPERATIONS_MAX,
    Order, OrderNo, OrderState, Period, Reply,
};

#[test]
fn q1_q2_q3_q4_tables() {
    let mut rows_seen = 0;
    table::each(&mut |name, rows| {
        let mut ledger = Ledger::new(4);
        for (number, row) in rows.iter().enumerate() {
            row.check(&ledger.apply(&row.command(number))).unwrap_or_else(|wrong| {
                panic!("{name}, row {number}, {row}: {wrong}");
            });
        }
        rows_seen += rows.len();
    });
    assert!(rows_seen > 400, "{rows_seen}");
}

#[test]
fn q2_batches() {
    for Batch { name, before, together, after } in table::batches() {
        let mut ledger = Ledger::new(4);
        let mut number = 0..;
        let mut numbered = |rows: &[Row]| rows.iter().cloned().zip(number.by_ref()).collect::<Vec<_>>();
        let (before, together, after) = (numbered(&before), numbered(&together), numbered(&after));
        let check = |rows: &[(Row, usize)], replies: Vec<Reply>| {
            assert_eq!(replies.len(), rows.len(), "{name}");
            for ((row, number), reply) in rows.iter().zip(&replies) {
                row.check(reply).unwrap_or_else(|wrong| panic!("{name}, row {number}, {row}: {wrong}"));
            }
        };
        let commands =
            |rows: &[(Row, usize)]| rows.iter().map(|(row, number)| row.command(*number)).collect::<Vec<_>>();
        check(&before, commands(&before).iter().map(|command| ledger.apply(command)).collect());
        check(&together, ledger.apply_all_or_none(&commands(&together)));
        check(&after, commands(&after).iter().map(|command| ledger.apply(command)).collect());
    }
}

fn merchant() -> MerchantId {
    MerchantId::parse("m").unwrap()
}

fn order(ledger: &Ledger, order_no: &str) -> Order {
    ledger.order(&merchant(), &OrderNo::parse(order_no).unwrap()).unwrap().clone()
}

/// Short texts with the lifetime of a row's.
fn names(count: usize) -> Vec<&'static str> {
    (0..count).map(|number| &*number.to_string().leak()).collect()
}

#[test]
fn an_order_with_too_many_attempts_keeps_its_charge() {
    let mut ledger = Ledger::new(1);
    let names = names(ATTEMPTS_MAX + 2);
    for (number, name) in names.iter().enumerate() {
        let reply = ledger.apply(&Row::consume("a", name, 60).command(number));
        assert_eq!((reply.record.code, reply.record.replay), (Code::Admitted, number > 0), "{number}");
    }
    for (number, name) in names.iter().enumerate() {
        let reply = ledger.apply(&Row::void_attempt("a", name).command(number));
        assert_eq!(reply.record.windows.day.amount_after, 60, "{number}");
    }
    let order = order(&ledger, "a");
    assert!(order.state == OrderState::Charged && order.pinned);
    assert_eq!(order.voided.len(), ATTEMPTS_MAX);
}

/// The last capture is always accepted: otherwise a hold could end only by its expiry.
#[test]
fn an_order_takes_so_many_captures_and_its_last_one() {
    let mut ledger = Ledger::new(1);
    let _admitted = ledger.apply(&Row::hold("a", "1", 60).command(0));
    for (number, name) in names(OPERATIONS_MAX).into_iter().enumerate() {
        let reply = ledger.apply(&Row::settle("a", name, 1).command(number + 1));
        assert_eq!(reply.record.code, Code::Applied, "{number}");
    }
    let captures = OPERATIONS_MAX as u64;
    let mut code = |row: Row| ledger.apply(&row.command(1000)).record.code;
    assert_eq!(code(Row::settle("a", "more", 1)), Code::OrderFull);
    assert_eq!(code(Row::refund("a", "more", 1)), Code::OrderFull);
    assert_eq!(code(Row::settle("a", "last", 1).last()), Code::Applied);
    assert_eq!(code(Row::settle("a", "0", 1)), Code::Applied, "a replay is no new one");
    assert_eq!(code(Row::refund("a", "more", 1)), Code::OrderFull);
    let order = order(&ledger, "a");
    assert_eq!((order.settled, order.operations.len()), (captures + 1, OPERATIONS_MAX + 1));
}

/// every change and every refusal is an event, numbered without gaps; when the backlog is full, charges are refused, and
/// operations that return quota are still accepted.
#[test]
fn q6_events_are_numbered_and_the_backlog_is_bounded() {
    let mut ledger = Ledger::new(1);
    let rows = [
        (Row::hold("a", "1", 1), Code::Admitted, Some(1)),
        (Row::hold("a", "1", 1), Code::Admitted, None),
        (Row::hold("a", "2", 1), Code::Admitted, Some(2)),
        (Row::consume("b", "3", 1), Code::BacklogFull, None),
        (Row::consume("b", "3", 1).effect(Effect::DryRunJournaled), Code::BacklogFull, None),
        (Row::hold("a", "2", 1), Code::Admitted, None),
        (Row::hold("a", "4", 1), Code::BacklogFull, None),
        (Row::refund("z", "r1", 1), Code::BacklogFull, None),
        (Row::void_attempt("z", "5"), Code::Tombstoned, None),
        (Row::void_attempt("a", "2"), Code::AttemptReleased, Some(3)),
        (Row::settle("a", "c1", None), Code::Applied, Some(4)),
        (Row::refund("a", "r1", None), Code::Applied, Some(5)),
    ];
    for (number, (row, code, seq)) in rows.into_iter().enumerate() {
        let reply = ledger.apply(&Command { backlog_max: 2, ..row.command(number) });
        assert_eq!((reply.record.code, reply.event_seq), (code, seq), "{number}: {row}");
    }
    assert_eq!(ledger.drain().iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

/// A closed window is reported once, with its final counters, by the first change after its end.
#[test]
fn q5_closed_windows_are_events() {
    let mut ledger = Ledger::new(1);
    let rows = [
        Row::consume("a", "1", 60),
        Row::refund("a", "r1", 10),
        // A refusal changes nothing, so it closes nothing.
        Row::consume("b", "2", 101).at_days(1),
        Row::consume("b", "3", 30).at_days(1),
        Row::consume("c", "4", 5).at_days(1),
        // A clock that lags.
        Row::void_attempt("b", "3"),
        Row::account(Action::Roll).at_days(41),
    ];
    for (number, row) in rows.iter().enumerate() {
        let _reply = ledger.apply(&row.command(number));
    }
    let counter = |id, amount, count, refunded| Counter { id, epoch: 0, amount, count, refunded };
    let day = |counter| ClosedWindow { period: Period::Day, counter };
    let expected = [
        vec![],
        vec![],
        vec![],
        vec![day(counter(20_261_121, 50, 1, 10))],
        vec![],
        vec![],
        vec![
            day(counter(20_261_122, 5, 1, 0)),
            ClosedWindow { period: Period::Week, counter: counter(20_261_116, 55, 2, 10) },
            ClosedWindow { period: Period::Month, counter: counter(202_611, 55, 2, 10) },
            ClosedWindow { period: Period::Year, counter: counter(2026, 55, 2, 10) },
        ],
    ];
    let events = ledger.drain();
    assert_eq!(events.len(), expected.len());
    for (event, expected) in events.iter().zip(expected) {
        assert_eq!(event.closed, expected, "{event:?}");
    }
}

/// Two servers whose clocks differ by a minute and a half, through the end of a day of 23 hours: what the later one has
/// closed, the earlier one does not open, and no day is counted above its limit.
#[test]
fn q5_two_servers_whose_clocks_differ() {
    let calendar = Calendar::new(zone("America/New_York"), 0).unwrap();
    let midnight_ms = calendar.ends_at_ms(Period::Day, 20_260_308).unwrap();
    let mut ledger = Ledger::new(1);
    let mut admitted = BTreeMap::<u32, u64>::new();
    let orders = names(400);
    let mut last_day = 0;
    for (number, order) in orders.iter().enumerate() {
        let lag_ms = if number % 2 == 0 { 0 } else { 90_000 };
        let now_ms = midnight_ms - 200_000 + number as i64 * 1_000 - lag_ms;
        let command =
            Command { now_ms, windows: calendar.windows_at(now_ms), ..Row::consume(order, "1", 1).command(number) };
        let record = ledger.apply(&command).record;
        assert!(record.windows.day.id >= last_day, "{number}");
        last_day = record.windows.day.id;
        if record.code == Code::Admitted {
            *admitted.entry(record.windows.day.id).or_default() += 1;
        }
    }
    assert_eq!(admitted, BTreeMap::from([(20_260_308, 100), (20_260_309, 100)]));
}

#[test]
fn holds_are_due_until_they_end() {
    let mut ledger = Ledger::new(4);
    for (number, row) in
        [Row::hold("a", "1", 10), Row::hold("b", "2", 10), Row::consume("c", "3", 10)].iter().enumerate()
    {
        let _reply = ledger.apply(&row.command(number));
    }
    let until = order(&ledger, "a").hold.until_secs;
    let due = |ledger: &Ledger, at| {
        let mut due = ledger.due_holds(at).map(|(_, order_no, _)| order_no.to_string()).collect::<Vec<_>>();
        due.sort();
        due
    };
    assert_eq!(due(&ledger, until - 1), [""; 0]);
    assert_eq!(due(&ledger, until), ["a", "b"]);
    let _settled = ledger.apply(&Row::settle("a", "c1", 4).last().command(9));
    assert_eq!(due(&ledger, until), ["b"]);
    let _expired = ledger.apply(&Row::expire("b").at_secs(table::row::LIFETIME_SECS).command(10));
    assert_eq!(due(&ledger, u32::MAX), [""; 0]);
}

/// Only the refused command of a batch is journaled, once.
#[test]
fn q6_a_refused_batch_is_one_event() {
    let mut ledger = Ledger::new(1);
    let commands = [
        Row::consume("a", "1", 60).command(1),
        Row::consume("b", "2", 60).command(2),
        Row::consume("c", "3", 1).command(3),
    ];
    let _refused = ledger.apply_all_or_none(&commands);
    let events = ledger.drain();
    assert_eq!(events.iter().map(|event| (event.seq, event.record.code)).collect::<Vec<_>>(), [(1, Code::DailyAmount)]);
    assert_eq!(ledger.account(&merchant(), commands[0].currency), None);
}
