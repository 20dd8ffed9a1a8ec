use super::table::{self, Row};
use super::*;
use crate::Ledger;

#[test]
fn q1_q2_q3_q4_tables() {
    table::each(&mut |name, rows| {
        let mut ledger = Ledger::new(4);
        for (number, row) in rows.iter().enumerate() {
            let record = ledger.apply(&row.command(number)).record;
            let got = (record.code, record.replay, (record.day.amount_after, record.day.count_after));
            assert_eq!(got, (row.code, row.replay, row.day), "{name}, row {number}: {row}");
        }
    });
}

#[test]
fn an_order_with_too_many_attempts_keeps_its_charge() {
    let mut ledger = Ledger::new(1);
    let names: Vec<String> = (0..=ATTEMPTS_MAX + 1).map(|number| number.to_string()).collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    for (number, name) in names.iter().enumerate() {
        let reply = ledger.apply(&Row::consume("a", name, 60, Code::Admitted, (60, 1)).command(number));
        assert_eq!((reply.record.code, reply.record.replay), (Code::Admitted, number > 0), "{number}");
    }
    for (number, name) in names.iter().enumerate() {
        let reply = ledger.apply(&Row::void("a", name, Code::AttemptReleased, (60, 1)).command(number));
        assert_eq!(reply.record.day.amount_after, 60, "{number}");
    }
    let order = ledger.order(&MerchantId::parse("m").unwrap(), &OrderNo::parse("a").unwrap()).unwrap();
    assert!(order.charged && order.pinned);
    assert_eq!(order.voided.len(), ATTEMPTS_MAX);
}

/// every change and every refusal is an event, numbered without gaps; at the bound charges are refused.
#[test]
fn q6_events_are_numbered_and_the_backlog_is_bounded() {
    let mut ledger = Ledger::new(1);
    let mut command = Row::consume("a", "1", 1, Code::Admitted, (1, 1)).command(0);
    command.backlog_max = 2;
    let mut seen = Vec::new();
    for (order, attempt) in [("a", "1"), ("a", "1"), ("a", "2"), ("b", "3"), ("a", "2")] {
        command.order_no = OrderNo::parse(order).unwrap();
        command.attempt = AttemptId::from_text(attempt);
        let reply = ledger.apply(&command);
        seen.push((reply.record.code, reply.event_seq));
    }
    command.action = Action::Void;
    seen.push((ledger.apply(&command).record.code, ledger.apply(&command).event_seq));
    let expected = [
        (Code::Admitted, Some(1)),
        (Code::Admitted, None),
        (Code::Admitted, Some(2)),
        (Code::BacklogFull, None),
        (Code::Admitted, None),
        (Code::AttemptReleased, None),
    ];
    assert_eq!(seen, expected);
    assert_eq!(ledger.drain().iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
}
