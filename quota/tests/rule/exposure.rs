//! Properties of credit lines under any sequence of commands: exposure, statements and events agree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::properties::{Step, account, commands, minor, orders, steps};
use quota::{
    Action, Code, Command, CreditUsage, Ledger, OperationKind, Order, OrderNo, OrderState, Posting, PostingKind,
};

/// The commands of the steps, some of them replaced by postings.
fn commands_with_postings(steps: &[Step]) -> Vec<Command> {
    let mut commands = commands(steps, true);
    for (command, (letter, order, _, amount, flags, _)) in commands.iter_mut().zip(steps) {
        if flags % 8 == 5 {
            let kind = PostingKind::ALL[usize::from(*letter) % PostingKind::ALL.len()];
            command.action = Action::Post(Posting { kind, amount: minor(*amount) });
            command.order_no = OrderNo::parse(&format!("posting-{order}-{amount}")).ok();
        }
    }
    commands
}

fn credit(ledger: &Ledger) -> CreditUsage {
    account(ledger).credit.unwrap_or_default()
}

/// What an order has in the exposure: what it holds, and what was captured and not refunded of it.
fn owed(order: &Order) -> i64 {
    let refunds = order.operations.iter().filter(|operation| operation.kind == OperationKind::Refund);
    let refunded: u64 = refunds.map(|operation| operation.amount.get()).sum();
    let owed = match order.state {
        _ if order.credit_cycle == 0 => 0,
        OrderState::Open | OrderState::Voided => 0,
        OrderState::Charged | OrderState::Held => order.amount.get() - refunded,
        OrderState::Settled => order.settled - refunded,
    };
    owed.cast_signed()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// no admitted charge or transfer leaves more than the limit that its command has.
    #[test]
    fn q1_no_admission_is_above_the_line(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands_with_postings(&steps) {
            let reply = ledger.apply(&command);
            let gives = matches!(command.action, Action::Post(Posting { kind: PostingKind::TransferOut, .. }));
            let admitted = reply.record.code.http_status() == 200 && !reply.record.replay;
            if let Some(terms) = command.credit.filter(|_| admitted && (gives || command.action.charge().is_some())) {
                let exposure = reply.record.credit.unwrap().exposure_after;
                prop_assert!(exposure <= terms.limit.get().cast_signed(), "{:?}", &command);
            }
            let is_of_credit = matches!(reply.record.code, Code::CreditExhausted | Code::CreditRestricted);
            if let Some(terms) = command.credit.filter(|_| is_of_credit) {
                let before = reply.record.credit.unwrap().exposure_before;
                let above = before + reply.record.amount.cast_signed() - terms.limit.get().cast_signed();
                prop_assert!(above > 0, "{:?}", &command);
                let capped = above <= (terms.uncapped_limit.get() - terms.limit.get()).cast_signed();
                prop_assert_eq!(capped, reply.record.code == Code::CreditRestricted);
            }
        }
    }

    /// the exposure is what the orders hold and owe, and what was posted.
    #[test]
    fn q4_orders_and_postings_make_up_the_exposure(steps in steps()) {
        let mut ledger = Ledger::new(1);
        let mut posted = 0;
        for command in commands_with_postings(&steps) {
            let reply = ledger.apply(&command);
            if let (Action::Post(posting), Some(_)) = (command.action, reply.event_seq.filter(|_| reply.record.code == Code::Applied)) {
                let amount = posting.amount.get().cast_signed();
                posted += match posting.kind {
                    PostingKind::Reversal | PostingKind::TransferOut | PostingKind::Opening => amount,
                    PostingKind::Repayment | PostingKind::WriteOff | PostingKind::TransferIn => -amount,
                    PostingKind::Recovery => 0,
                };
            }
            let owed: i64 = orders(&ledger).iter().map(owed).sum();
            prop_assert_eq!(credit(&ledger).exposure, owed + posted, "{:?}", &command);
        }
    }

    /// a cycle closes once, with what its events have billed; and each event begins where the one before it ended.
    #[test]
    fn q4_events_make_up_statements(steps in steps()) {
        let mut ledger = Ledger::new(1);
        let mut closed = BTreeMap::new();
        let (mut usage, mut version) = (CreditUsage::default(), 0);
        for command in commands_with_postings(&steps) {
            let _reply = ledger.apply(&command);
            for event in ledger.drain() {
                if let Some(cycle) = event.closed_cycle {
                    prop_assert_eq!((cycle.cycle, cycle.amount), (usage.cycle, usage.unbilled), "{:?}", &event);
                    prop_assert!(closed.insert(cycle.cycle, cycle.amount).is_none(), "{:?}", &event);
                }
                let is_change = event.record.version > version;
                version = event.record.version;
                let Some(record) = event.record.credit else { continue };
                prop_assert_eq!(record.exposure_before, usage.exposure, "{:?}", &event);
                if record.cycle == usage.cycle {
                    prop_assert_eq!(record.unbilled_before, usage.unbilled, "{:?}", &event);
                } else {
                    prop_assert_eq!(record.unbilled_before, 0, "{:?}", &event);
                }
                if is_change {
                    prop_assert_eq!(event.closed_cycle.is_some(), record.cycle != usage.cycle && usage.cycle != 0);
                    usage = record.after();
                } else {
                    prop_assert_eq!(record.exposure_after, usage.exposure, "{:?}", &event);
                }
            }
            prop_assert_eq!(usage, credit(&ledger), "{:?}", &command);
        }
    }

    #[test]
    fn q2_what_is_refused_changes_no_exposure(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands_with_postings(&steps) {
            let before = credit(&ledger);
            let reply = ledger.apply(&command);
            if reply.record.code.http_status() != 200 {
                prop_assert_eq!(credit(&ledger), before, "{:?}", &command);
            }
        }
    }
}
