//! Suspension: of one account, and of a merchant with all its accounts.

use quota::{Action, Code, Effect, OrderState};

use super::Check;
use super::row::Expected::{Day, DecisionId, Journaled, Order, Suspended, Version};
use super::row::Row;

pub(crate) fn each(check: &mut Check) {
    x6_a_suspended_account_takes_no_replay(check);
    x6_a_suspended_account_gives_back(check);
    b7_a_merchant_is_suspended_in_all_currencies(check);
    b7_account_and_merchant_are_suspended_apart(check);
}

fn suspend() -> [(&'static str, Row, Row); 2] {
    [
        ("account", Row::account(Action::Suspend), Row::account(Action::Resume)),
        ("merchant", Row::merchant(Action::SuspendMerchant), Row::merchant(Action::ResumeMerchant)),
    ]
}

/// X6: a suspended account accepts no payment: no new one, no repetition, not even the same attempt.
fn x6_a_suspended_account_takes_no_replay(check: &mut Check) {
    use Code::{Admitted, Applied};
    for (who, suspend, resume) in suspend() {
        check(
            &format!("X6: no charge of a suspended {who}"),
            &[
                Row::consume("a", "1", 60).gives(Admitted, []),
                Row::hold("h", "1", 10).gives(Admitted, []),
                suspend.gives(Applied, [Suspended(true), Journaled(true)]),
                Row::consume("a", "1", 60).gives(Code::Suspended, [Day(70, 2), Journaled(true)]),
                Row::consume("a", "2", 60).gives(Code::Suspended, [Day(70, 2)]),
                Row::consume("a", "2", 60).refused_by_policy(Code::PolicyMissing).gives(Code::Suspended, []),
                Row::consume("a", "2", 61).gives(Code::Suspended, []),
                Row::hold("h", "1", 10).gives(Code::Suspended, []),
                Row::hold("h", "2", 10).gives(Code::Suspended, []),
                Row::consume("b", "3", 1).gives(Code::Suspended, [Day(70, 2)]),
                Row::hold("c", "4", 1).gives(Code::Suspended, [Day(70, 2)]),
                Row::consume("b", "3", 1).effect(Effect::DryRunJournaled).gives(Code::Suspended, [Journaled(true)]),
                Row::consume("b", "3", 1).refused_by_policy(Code::PolicyMissing).gives(Code::PolicyMissing, []),
                resume.gives(Applied, [Suspended(false), Journaled(true)]),
                Row::consume("a", "1", 60).replayed(Admitted, [DecisionId(0), Journaled(false)]),
                Row::consume("a", "2", 60).replayed(Admitted, [DecisionId(0)]),
                Row::consume("b", "3", 1).gives(Admitted, [Day(71, 3)]),
            ],
        );
    }
}

/// X6: operations that return quota, and captures that the gateway has made, are still accepted.
fn x6_a_suspended_account_gives_back(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptReleased, Voided};
    for (who, suspend, _) in suspend() {
        check(
            &format!("X6: a suspended {who} gives back"),
            &[
                Row::consume("a", "1", 20).gives(Admitted, []),
                Row::consume("a", "2", 20).replayed(Admitted, []),
                Row::consume("b", "1", 20).gives(Admitted, []),
                Row::hold("h", "1", 20).gives(Admitted, []),
                Row::hold("k", "1", 20).gives(Admitted, []),
                suspend.gives(Applied, []),
                Row::void_attempt("a", "1").gives(AttemptReleased, []),
                Row::void_attempt("a", "2").gives(Voided, [Day(60, 3)]),
                Row::refund("b", "r1", 10).gives(Applied, [Day(50, 3)]),
                Row::release("b", "r2", 5).gives(Applied, [Day(45, 3)]),
                Row::settle("h", "c1", 15).last().gives(Applied, [Day(40, 3), Order(OrderState::Settled, 15, 0)]),
                Row::void("k").gives(Voided, [Day(20, 2)]),
            ],
        );
    }
}

/// B7: one command suspends every currency, also one that was never used, and changes no windows.
fn b7_a_merchant_is_suspended_in_all_currencies(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "B7: every currency",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Version(1)]),
            Row::consume("b", "1", 60).currency("EUR").gives(Admitted, [Version(1)]),
            Row::merchant(Action::SuspendMerchant)
                .gives(Applied, [Suspended(true), Version(1), Journaled(true), Day(0, 0)]),
            Row::merchant(Action::SuspendMerchant).replayed(Applied, [Suspended(true), Version(1), Journaled(false)]),
            Row::consume("c", "1", 1).gives(Code::Suspended, [Day(60, 1), Version(1), Suspended(false)]),
            Row::consume("d", "1", 1).currency("EUR").gives(Code::Suspended, [Day(60, 1)]),
            Row::consume("e", "1", 1).currency("JPY").gives(Code::Suspended, [Day(0, 0), Version(0)]),
            Row::account(Action::Initialize).currency("KWD").gives(Applied, []),
            Row::hold("f", "1", 1).currency("KWD").gives(Code::Suspended, []),
            Row::merchant(Action::ResumeMerchant)
                .effect(Effect::DryRun)
                .gives(Applied, [Suspended(false), Version(1), Journaled(false)]),
            Row::consume("e", "1", 1).currency("JPY").gives(Code::Suspended, []),
            Row::merchant(Action::ResumeMerchant).gives(Applied, [Suspended(false), Version(2), Journaled(true)]),
            Row::merchant(Action::ResumeMerchant).replayed(Applied, [Suspended(false), Version(2), Journaled(false)]),
            Row::consume("e", "1", 1).currency("JPY").gives(Admitted, [Day(1, 1)]),
            Row::consume("c", "1", 1).gives(Admitted, [Day(61, 2)]),
        ],
    );
    check(
        "B7: an unknown merchant",
        &[
            Row::merchant(Action::ResumeMerchant).replayed(Applied, [Suspended(false), Version(0), Journaled(false)]),
            Row::merchant(Action::SuspendMerchant).gives(Applied, [Version(1)]),
            Row::consume("a", "1", 1).gives(Code::Suspended, [Day(0, 0), Version(0)]),
        ],
    );
}

/// B7: each suspension is ended by its own command.
fn b7_account_and_merchant_are_suspended_apart(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "B7: account and merchant",
        &[
            Row::account(Action::Suspend).gives(Applied, [Suspended(true)]),
            Row::merchant(Action::SuspendMerchant).gives(Applied, [Suspended(true)]),
            Row::account(Action::Resume).gives(Applied, [Suspended(false)]),
            Row::consume("a", "1", 1).gives(Code::Suspended, []),
            Row::account(Action::Suspend).gives(Applied, []),
            Row::merchant(Action::ResumeMerchant).gives(Applied, [Suspended(false)]),
            Row::consume("a", "1", 1).gives(Code::Suspended, [Suspended(true)]),
            Row::consume("a", "1", 1).currency("EUR").gives(Admitted, []),
            Row::account(Action::Resume).gives(Applied, []),
            Row::consume("b", "1", 1).gives(Admitted, []),
        ],
    );
}
