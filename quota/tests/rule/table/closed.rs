//! Orders that accept no more charges: an operation that returns quota closes them, and rules bound their repetitions.

use quota::{Action, Code, Effect, Order as StoredOrder, OrderState, Period};

use super::Check;
use super::row::Expected::{Day, DecisionId, Journaled, Order, Pending, Version};
use super::row::{LIFETIME_SECS, Row, day_amount};

pub(crate) fn each(check: &mut Check) {
    x5_an_order_that_gave_back_takes_no_charge(check);
    x5_an_order_that_gave_nothing_back_is_repeated(check);
    x5_a_limit_is_not_passed_by_giving_back(check);
    x5_an_order_of_the_journal_stays_closed(check);
    x6_a_rule_bounds_repetitions(check);
    x6_a_repetition_is_counted_by_live_attempts(check);
}

/// X5: once any operation returned any part of it, an order accepts no charge attempt: neither the same attempt nor another,
/// of any amount and of any kind.
fn x5_an_order_that_gave_back_takes_no_charge(check: &mut Check) {
    use Code::{Admitted, Applied, Voided};
    let consume = || Row::consume("a", "1", 60).gives(Admitted, []);
    let hold = || Row::hold("a", "1", 60).gives(Admitted, []);
    let captured = || Row::settle("a", "c1", 20).gives(Applied, []);
    let table: [(&str, Vec<Row>); 12] = [
        ("release", vec![consume(), Row::release("a", "r1", None).gives(Applied, [Day(0, 1)])]),
        ("release of a part", vec![consume(), Row::release("a", "r1", 1).gives(Applied, [Day(59, 1)])]),
        ("refund", vec![consume(), Row::refund("a", "r1", 60).gives(Applied, [Day(0, 1)])]),
        ("refund of all but one unit", vec![consume(), Row::refund("a", "r1", 59).gives(Applied, [Day(1, 1)])]),
        (
            "a reserved refund that was made",
            vec![
                consume(),
                Row::reserve("a", "r1", 1).gives(Applied, []),
                Row::refund("a", "r1", 1).gives(Applied, [Day(59, 1)]),
            ],
        ),
        (
            "a refund, whatever is voided then",
            vec![
                consume(),
                Row::refund("a", "r1", 1).gives(Applied, []),
                Row::void_attempt("a", "1").gives(Code::AttemptReleased, [Day(59, 1)]),
            ],
        ),
        ("release of a hold", vec![hold(), Row::release("a", "r1", None).gives(Voided, [Day(0, 0), Pending(0)])]),
        ("void of a hold", vec![hold(), Row::void("a").gives(Voided, [Day(0, 0), Pending(0)])]),
        ("void of a hold's rest", vec![hold(), captured(), Row::void("a").gives(Voided, [Day(20, 1)])]),
        ("expiry", vec![hold(), Row::expire("a").at_secs(LIFETIME_SECS).gives(Voided, [Day(0, 0), Pending(0)])]),
        (
            "expiry of a hold's rest",
            vec![hold(), captured(), Row::expire("a").at_secs(LIFETIME_SECS).gives(Voided, [Day(20, 1)])],
        ),
        (
            "refund of a capture",
            vec![
                hold(),
                Row::settle("a", "c1", None).gives(Applied, [Order(OrderState::Settled, 60, 0)]),
                Row::refund("a", "r1", 10).gives(Applied, [Day(50, 1)]),
            ],
        ),
    ];
    for (name, before) in table {
        let attempts = ["1", "2"].into_iter().flat_map(|attempt| {
            let held = Row::hold("a", attempt, 60);
            [Row::consume("a", attempt, 60), Row::consume("a", attempt, 7), held.clone(), held.currency("EUR")]
        });
        let at_secs = LIFETIME_SECS + 1;
        let voided = name == "a refund, whatever is voided then";
        let mut rows = before;
        for (number, attempt) in attempts.enumerate() {
            let code = if voided && number < 4 { Code::AttemptVoided } else { Code::OrderClosed };
            rows.push(attempt.at_secs(at_secs).gives(code, [Journaled(true)]));
        }
        rows.push(
            Row::consume("a", "3", 60)
                .at_secs(at_secs)
                .effect(Effect::DryRunJournaled)
                .gives(Code::OrderClosed, [Journaled(true)]),
        );
        check(&format!("X5: no charge after {name}"), &rows);
    }
}

/// X5: the void of an attempt, a refund that the gateway has not made, a capture and a correction by hand close nothing.
fn x5_an_order_that_gave_nothing_back_is_repeated(check: &mut Check) {
    use Code::{Admitted, Applied, Voided};
    let consume = || Row::consume("a", "1", 60).gives(Admitted, []);
    let hold = || Row::hold("a", "1", 60).gives(Admitted, []);
    let consumes = || Row::consume("a", "2", 60).replayed(Admitted, [DecisionId(0)]);
    let holds = || Row::hold("a", "2", 60).replayed(Admitted, [DecisionId(0)]);
    let reserve = || Row::reserve("a", "r1", 10).gives(Applied, [Day(60, 1)]);
    let table: [(&str, Vec<Row>); 7] = [
        (
            "the void of its attempts",
            vec![
                consume(),
                Row::void_attempt("a", "1").gives(Voided, [Day(0, 0)]),
                Row::consume("a", "2", 50).gives(Admitted, [Day(50, 1)]),
            ],
        ),
        (
            "the void of a hold's attempts",
            vec![
                hold(),
                Row::void_attempt("a", "1").gives(Voided, [Day(0, 0), Pending(0)]),
                Row::hold("a", "2", 50).gives(Admitted, [Day(50, 1)]),
            ],
        ),
        ("a reserved refund", vec![consume(), reserve(), consumes()]),
        (
            "a reserved refund that was not made",
            vec![consume(), reserve(), Row::void_attempt("a", "r1").gives(Applied, []), consumes()],
        ),
        // A capture returns the part of the hold that the payment did not need: a repeated sale gets the same answer.
        (
            "a capture that returns the rest",
            vec![
                hold(),
                Row::settle("a", "c1", 20).last().gives(Applied, [Day(20, 1)]),
                holds(),
                Row::settle("a", "c1", 20).last().replayed(Applied, [Day(20, 1), DecisionId(1)]),
            ],
        ),
        (
            "an expiry that captures",
            vec![
                Row::hold_to_settle("a", "1", 60).gives(Admitted, []),
                Row::expire("a").at_secs(LIFETIME_SECS).gives(Applied, [Day(60, 1)]),
                holds().at_secs(LIFETIME_SECS),
            ],
        ),
        ("a reset", vec![consume(), Row::reset(&Period::ALL).gives(Applied, [Day(0, 0)]), consumes()]),
    ];
    for (name, rows) in table {
        check(&format!("X5: a charge after {name}"), &rows);
    }
}

/// X5, Q-1: the paid amount never exceeds the limit plus the returned amount.
fn x5_a_limit_is_not_passed_by_giving_back(check: &mut Check) {
    use Code::{Admitted, Applied, OrderClosed};
    let limit = || day_amount(1_000);
    check(
        "X5: pay A, release A, pay A, pay B",
        &[
            Row::consume("A", "1", 1_000).limits(limit()).gives(Admitted, [Day(1_000, 1)]),
            Row::release("A", "r1", None).gives(Applied, [Day(0, 1)]),
            Row::consume("A", "2", 1_000).limits(limit()).gives(OrderClosed, [Day(0, 1), Version(2)]),
            Row::consume("B", "3", 1_000).limits(limit()).gives(Admitted, [Day(1_000, 2)]),
        ],
    );
    check(
        "X5: pay 1000, refund 999, pay it again, pay 999",
        &[
            Row::consume("A", "1", 1_000).limits(limit()).gives(Admitted, [Day(1_000, 1)]),
            Row::refund("A", "r1", 999).gives(Applied, [Day(1, 1)]),
            Row::consume("A", "2", 1_000).limits(limit()).gives(OrderClosed, [Day(1, 1)]),
            Row::consume("B", "3", 999).limits(limit()).gives(Admitted, [Day(1_000, 2)]),
            // Further refunds are accepted.
            Row::refund("A", "r2", 1).gives(Applied, [Day(999, 2), Order(OrderState::Charged, 0, 1_000)]),
        ],
    );
}

/// X5: an order that is rebuilt from the journal with a refund is still closed.
fn x5_an_order_of_the_journal_stays_closed(check: &mut Check) {
    use Code::{Admitted, Applied, OrderClosed};
    let rebuilt = super::refunds::rebuilt(OrderState::Charged);
    check(
        "X5: an evicted order that returned quota",
        &[
            Row::reserve("a", "r2", 5).history(rebuilt.clone()).gives(Applied, [Order(OrderState::Charged, 0, 20)]),
            Row::consume("a", "2", 60).gives(OrderClosed, []),
        ],
    );
    let untouched = StoredOrder { given_back: false, refunded: 0, operations: Vec::new(), pinned: false, ..rebuilt };
    check(
        "X5: an evicted order that returned no quota yet",
        &[
            Row::reserve("a", "r2", 5).history(untouched.clone()).gives(Applied, []),
            Row::consume("a", "2", 60).replayed(Admitted, []),
            Row::refund("a", "r2", 5).gives(Applied, []),
            Row::consume("a", "3", 60).gives(OrderClosed, []),
        ],
    );
    check(
        "X5: an evicted order that returns quota now",
        &[
            Row::refund("a", "r2", 5).history(untouched).gives(Applied, []),
            Row::consume("a", "2", 60).gives(OrderClosed, []),
        ],
    );
}

/// X6: as many repetitions as the rule allows, and the same attempt any number of times.
fn x6_a_rule_bounds_repetitions(check: &mut Check) {
    use Code::{Admitted, ReplayRefused};
    check(
        "X6: none",
        &[
            Row::consume("a", "1", 60).replays(0).gives(Admitted, [Day(60, 1)]),
            Row::consume("a", "1", 60).replays(0).replayed(Admitted, [Day(60, 1), DecisionId(0), Journaled(false)]),
            Row::consume("a", "2", 60).replays(0).gives(ReplayRefused, [Day(60, 1), Version(1), Journaled(true)]),
            Row::consume("a", "2", 61).replays(0).gives(Code::IdempotencyConflict, []),
            Row::hold("b", "3", 40).replays(0).gives(Admitted, []),
            Row::hold("b", "4", 40).replays(0).gives(ReplayRefused, [Pending(40)]),
            // Another rule may allow them.
            Row::consume("a", "2", 60).replayed(Admitted, []),
        ],
    );
    let mut rows = vec![Row::consume("a", "0", 60).replays(3).gives(Admitted, [])];
    rows.extend(["1", "2", "3"].map(|attempt| Row::consume("a", attempt, 60).replays(3).replayed(Admitted, [])));
    rows.extend(["4", "5"].map(|attempt| Row::consume("a", attempt, 60).replays(3).gives(ReplayRefused, [])));
    rows.extend(
        ["0", "3"].map(|attempt| Row::consume("a", attempt, 60).replays(3).replayed(Admitted, [Journaled(false)])),
    );
    check("X6: three", &rows);
}

/// X6: a voided attempt is not counted, and an order whose attempts were evicted had at least one.
fn x6_a_repetition_is_counted_by_live_attempts(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptReleased, ReplayRefused, Voided};
    check(
        "X6: voided attempts",
        &[
            Row::consume("a", "1", 60).replays(1).gives(Admitted, []),
            Row::consume("a", "2", 60).replays(1).replayed(Admitted, []),
            Row::consume("a", "3", 60).replays(1).gives(ReplayRefused, []),
            Row::void_attempt("a", "2").gives(AttemptReleased, []),
            Row::consume("a", "3", 60).replays(1).replayed(Admitted, []),
            Row::void_attempt("a", "1").gives(AttemptReleased, []),
            Row::void_attempt("a", "3").gives(Voided, []),
            Row::consume("a", "4", 60).replays(0).gives(Admitted, [Day(60, 1)]),
        ],
    );
    let rebuilt = super::refunds::rebuilt(OrderState::Charged);
    let untouched = StoredOrder { given_back: false, refunded: 0, operations: Vec::new(), ..rebuilt };
    let reserve = |pinned| {
        let order = StoredOrder { pinned, ..untouched.clone() };
        Row::reserve("a", "r2", 5).history(order).gives(Applied, [])
    };
    check("X6: evicted attempts", &[reserve(false), Row::consume("a", "2", 60).replays(0).gives(ReplayRefused, [])]);
    check(
        "X6: more attempts than are stored",
        &[reserve(true), Row::consume("a", "2", 60).replays(31).gives(ReplayRefused, [])],
    );
    check(
        "X6: a correction by hand concerns no order",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::account(Action::Roll).replayed(Applied, []),
            Row::consume("a", "2", 60).replays(0).gives(ReplayRefused, []),
        ],
    );
}
