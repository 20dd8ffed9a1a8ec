//! Outcomes that the gateway leaves unknown: how they are marked, and how they are resolved.

use quota::{Code, OperationId, OrderState, Resolution, Subject};

use super::Check;
use super::row::Expected::{Day, DecisionId, Journaled, Moved, Order, Pending, Refunded, WasUnknown};
use super::row::{LIFETIME_SECS, Row};

pub(crate) fn each(check: &mut Check) {
    x2_an_unknown_charge_is_kept_and_marked(check);
    x2_what_settles_an_unknown_charge(check);
    x2_a_charge_that_was_not_made_comes_back(check);
    x2_unknown_operations_stay_findable(check);
}

/// Marked once, by whichever attempt; an unknown order is not marked.
fn x2_an_unknown_charge_is_kept_and_marked(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptReleased, IdempotencyConflict, OrderUnknown};
    use Subject::Charge;
    check(
        "a mark",
        &[
            Row::unknown("a", "1", Charge).gives(OrderUnknown, [Journaled(false), Day(0, 0)]),
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1), WasUnknown(false)]),
            Row::unknown("a", "1", Charge).currency("EUR").gives(IdempotencyConflict, [Journaled(false)]),
            Row::unknown("a", "1", Charge).gives(Applied, [Journaled(true), Day(60, 1), Moved(60), WasUnknown(false)]),
            Row::unknown("a", "1", Charge).replayed(Applied, [Journaled(false), WasUnknown(true)]),
            Row::consume("a", "2", 60).replayed(Admitted, [Day(60, 1), DecisionId(1), WasUnknown(true)]),
            Row::unknown("a", "2", Charge).replayed(Applied, [Journaled(false)]),
            // The gateway refuses the retry: the outcome of the first attempt stays unknown.
            Row::void_attempt("a", "2").gives(AttemptReleased, [Day(60, 1), WasUnknown(true)]),
            // The mark of an attempt that was voided before has no effect.
            Row::consume("b", "3", 10).gives(Admitted, [Day(70, 2)]),
            Row::consume("b", "4", 10).replayed(Admitted, [Day(70, 2)]),
            Row::void_attempt("b", "4").gives(AttemptReleased, [Day(70, 2)]),
            Row::unknown("b", "4", Charge).replayed(Applied, [Journaled(false)]),
            Row::unknown("b", "3", Charge).gives(Applied, [Journaled(true), WasUnknown(false)]),
        ],
    );
    check(
        "an order that is open again and charged anew has no mark",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::unknown("a", "1", Charge).gives(Applied, [Journaled(true)]),
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(0, 0), WasUnknown(true)]),
            Row::unknown("a", "1", Charge).gives(OrderUnknown, [Journaled(false)]),
            Row::consume("a", "2", 50).gives(Admitted, [Day(50, 1), WasUnknown(false)]),
            Row::unknown("a", "2", Charge).gives(Applied, [Journaled(true), WasUnknown(false)]),
        ],
    );
}

/// Resolved by a later answer of the gateway, and by any operation that proves that it has the order.
fn x2_what_settles_an_unknown_charge(check: &mut Check) {
    use Code::{Admitted, Applied, OrderUnknown, Voided};
    use Subject::Charge;
    let settled = |row: Row, state: OrderState| {
        [
            Row::hold("a", "1", 60).gives(Admitted, [Pending(60)]),
            Row::unknown("a", "1", Charge).gives(Applied, [Journaled(true), Moved(60)]),
            row,
            // A late mark, and a repeated resolution, change nothing.
            Row::unknown("a", "1", Charge).replayed(Applied, [Journaled(false)]),
            Row::resolve("a", Resolution::Made)
                .replayed(Applied, [Journaled(false), WasUnknown(false), Order(state, 0, 0)]),
        ]
    };
    check(
        "made",
        &settled(
            Row::resolve("a", Resolution::Made).gives(Applied, [Journaled(true), WasUnknown(true)]),
            OrderState::Held,
        ),
    );
    check("voided", &settled(Row::void("a").gives(Voided, [Journaled(true), WasUnknown(true)]), OrderState::Voided));
    check(
        "released",
        &settled(Row::release("a", "r", None).gives(Voided, [Journaled(true), WasUnknown(true)]), OrderState::Voided),
    );
    check(
        "captured and refunded",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Pending(60)]),
            Row::unknown("a", "1", Charge).gives(Applied, [Journaled(true)]),
            Row::settle("a", "c", 20).gives(Applied, [WasUnknown(true)]),
            Row::settle("a", "d", 20).gives(Applied, [WasUnknown(false)]),
            Row::consume("b", "2", 20).gives(Admitted, []),
            Row::unknown("b", "2", Charge).gives(Applied, [Journaled(true)]),
            // A reservation proves nothing: the gateway is called after it.
            Row::reserve("b", "r", 5).gives(Applied, [WasUnknown(true)]),
            Row::refund("b", "r", 5).gives(Applied, [WasUnknown(true), Refunded(5, 5, 5)]),
            Row::refund("b", "s", 5).gives(Applied, [WasUnknown(false)]),
            Row::consume("c", "3", 20).gives(Admitted, []),
            Row::unknown("c", "3", Charge).gives(Applied, [Journaled(true)]),
            Row::refund("c", "r", 5).gives(Applied, [WasUnknown(true)]),
            Row::unknown("c", "3", Charge).replayed(Applied, [Journaled(false)]),
        ],
    );
    check(
        "the resolution may arrive before the mark",
        &[
            Row::resolve("a", Resolution::Made).gives(OrderUnknown, [Journaled(false)]),
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::resolve("a", Resolution::Made).currency("EUR").gives(Code::IdempotencyConflict, [Journaled(false)]),
            Row::resolve("a", Resolution::Made).replayed(Applied, [Journaled(false), Day(60, 1)]),
            Row::unknown("a", "1", Charge).replayed(Applied, [Journaled(false)]),
        ],
    );
    check(
        "the expiry of a hold resolves nothing at the gateway",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Pending(60)]),
            Row::unknown("a", "1", Charge).gives(Applied, [Journaled(true)]),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(Voided, [Pending(0), WasUnknown(true)]),
            Row::resolve("a", Resolution::NotMade).at_secs(LIFETIME_SECS).gives(Code::OrderClosed, [Pending(0)]),
            Row::resolve("a", Resolution::Made).at_secs(LIFETIME_SECS).gives(Applied, [Journaled(true), Pending(0)]),
        ],
    );
}

/// By hand: none of the attempts was made at the gateway, so the order may be charged again.
fn x2_a_charge_that_was_not_made_comes_back(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptVoided, IdempotencyConflict, OrderClosed, OrderUnknown, Voided};
    use Subject::Charge;
    check(
        "not made",
        &[
            Row::resolve("a", Resolution::NotMade).gives(OrderUnknown, [Journaled(true)]),
            Row::void_attempt("a", "0").gives(Code::Tombstoned, []),
            Row::resolve("a", Resolution::NotMade).replayed(Voided, [Journaled(false)]),
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::consume("a", "2", 60).replayed(Admitted, [Day(60, 1)]),
            Row::unknown("a", "1", Charge).gives(Applied, [Journaled(true)]),
            Row::resolve("a", Resolution::NotMade).currency("EUR").gives(IdempotencyConflict, []),
            Row::resolve("a", Resolution::NotMade)
                .gives(Voided, [Day(0, 0), Moved(60), Journaled(true), WasUnknown(true)]),
            Row::resolve("a", Resolution::NotMade).replayed(Voided, [Day(0, 0), Journaled(false)]),
            Row::resolve("a", Resolution::Made).gives(OrderUnknown, [Journaled(false)]),
            Row::consume("a", "1", 60).gives(AttemptVoided, []),
            Row::consume("a", "2", 60).gives(AttemptVoided, []),
            Row::consume("a", "3", 70).gives(Admitted, [Day(70, 1), WasUnknown(false)]),
        ],
    );
    check(
        "a hold that was not made",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Pending(60)]),
            Row::unknown("a", "1", Charge).gives(Applied, []),
            Row::resolve("a", Resolution::NotMade)
                .gives(Voided, [Day(0, 0), Pending(0), Order(OrderState::Open, 0, 0)]),
        ],
    );
    check(
        "what the gateway is known to have is no more taken back",
        &[
            Row::consume("a", "1", 20).gives(Admitted, [Day(20, 1)]),
            Row::unknown("a", "1", Charge).gives(Applied, []),
            Row::resolve("a", Resolution::Made).gives(Applied, []),
            Row::resolve("a", Resolution::NotMade).gives(OrderClosed, [Day(20, 1)]),
            Row::hold("b", "2", 20).gives(Admitted, [Day(40, 2)]),
            Row::settle("b", "c", 20).gives(Applied, []),
            Row::resolve("b", Resolution::NotMade).gives(OrderClosed, [Day(40, 2)]),
            Row::consume("c", "3", 20).gives(Admitted, [Day(60, 3)]),
            Row::reserve("c", "r", 5).gives(Applied, []),
            Row::resolve("c", Resolution::NotMade).gives(OrderClosed, [Day(60, 3)]),
        ],
    );
}

/// A capture, refund or void with an unknown outcome is journaled until it is known; the order records that there was one.
fn x2_unknown_operations_stay_findable(check: &mut Check) {
    use Code::{Admitted, Applied, OrderUnknown, Voided};
    let capture = Subject::Capture(OperationId::of("c"));
    let refund = Subject::Refund(OperationId::of("r"));
    check(
        "a capture",
        &[
            Row::unknown("a", "1", capture).gives(OrderUnknown, [Journaled(false)]),
            Row::hold("a", "1", 60).gives(Admitted, [Pending(60)]),
            Row::unknown("a", "2", capture).gives(Applied, [Journaled(true), Pending(60), WasUnknown(false)]),
            Row::settle("a", "d", 20).gives(Applied, [WasUnknown(true)]),
            Row::settle("a", "c", 20).gives(Applied, [WasUnknown(true), Pending(20)]),
            Row::unknown("a", "2", capture).replayed(Applied, [Journaled(false), WasUnknown(true)]),
            Row::unknown("a", "3", refund).gives(Applied, [Journaled(true)]),
        ],
    );
    check(
        "a refund",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::reserve("a", "r", 20).gives(Applied, [Refunded(20, 20, 20)]),
            Row::unknown("a", "r", refund).gives(Applied, [Journaled(true), Refunded(20, 20, 20), Day(60, 1)]),
            Row::refund("a", "r", 20).by("2").gives(Applied, [WasUnknown(true), Day(40, 1)]),
            Row::unknown("a", "r", refund).replayed(Applied, [Journaled(false)]),
            Row::reserve("a", "s", 20).gives(Applied, [Refunded(40, 40, 40)]),
            Row::void_attempt("a", "s").gives(Applied, [Refunded(20, 20, 20)]),
            // It was cancelled in the meantime.
            Row::unknown("a", "s", Subject::Refund(OperationId::of("s"))).replayed(Applied, [Journaled(false)]),
        ],
    );
    check(
        "a void",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Pending(60)]),
            Row::unknown("a", "2", Subject::Void).gives(Applied, [Journaled(true), Pending(60)]),
            Row::void("a").gives(Voided, [WasUnknown(true), Pending(0)]),
            Row::unknown("a", "3", Subject::Void).replayed(Applied, [Journaled(false)]),
            Row::hold("b", "4", 60).gives(Admitted, [Pending(60)]),
            Row::settle("b", "c", 20).gives(Applied, [Pending(40)]),
            Row::void("b").gives(Voided, [Pending(0)]),
            Row::unknown("b", "5", Subject::Void).replayed(Applied, [Journaled(false)]),
        ],
    );
}
