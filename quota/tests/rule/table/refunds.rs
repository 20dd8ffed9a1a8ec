//! Refunds: of charges and captures, at once or reserved first; releases; orders that only the journal has.

use quota::{
    AttemptId, Code, Currency, Hold, Limits, Operation, OperationId, OperationKind, Order as StoredOrder, OrderState,
    Origin, Origins, Period,
};

use super::Check;
use super::row::Expected::{Day, DecisionId, Journaled, Month, Moved, Order, Pending, Refunded, Version, Year};
use super::row::{Row, TTL_SECS, amount};

pub(crate) fn each(check: &mut Check) {
    parts(check);
    refunds_are_taken_once(check);
    limits(check);
    windows(check);
    reservations(check);
    releases(check);
    history(check);
}

/// At most what was captured is refunded; the charge itself stays counted.
fn parts(check: &mut Check) {
    use Code::{Admitted, Applied, BadAmount, OrderUnknown, RefundExceedsOrder};
    use OrderState::{Charged, Held, Settled};
    check(
        "refunds of a charge",
        &[
            Row::refund("a", "r1", 10).gives(OrderUnknown, [Day(0, 0), Version(0)]),
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::refund("a", "r1", 61).gives(RefundExceedsOrder, [Moved(61), Day(60, 1), Refunded(0, 0, 0)]),
            Row::refund("a", "r1", 0).gives(BadAmount, [Day(60, 1)]),
            Row::refund("a", "r1", 20).gives(Applied, [Day(40, 1), Refunded(20, 20, 20), Order(Charged, 0, 20)]),
            Row::refund("a", "r2", 41).gives(RefundExceedsOrder, [Day(40, 1)]),
            Row::refund("a", "r2", None).gives(Applied, [Moved(40), Day(0, 1), Refunded(60, 60, 60)]),
            Row::refund("a", "r3", None).gives(RefundExceedsOrder, [Moved(0), Day(0, 1), Order(Charged, 0, 60)]),
            Row::refund("a", "r3", 1).gives(RefundExceedsOrder, [Day(0, 1)]),
            // A refunded charge was paid: the void of its attempt no longer returns it, and its order is not charged again.
            Row::void_attempt("a", "1").gives(Code::AttemptReleased, [Day(0, 1)]),
            Row::consume("a", "2", 60).gives(Code::OrderClosed, [Day(0, 1)]),
        ],
    );
    check(
        "refunds of a hold are of what was captured",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::refund("a", "r1", 1).gives(RefundExceedsOrder, [Day(60, 1), Pending(60)]),
            Row::settle("a", "c1", 20).gives(Applied, [Pending(40)]),
            Row::refund("a", "r1", 21).gives(RefundExceedsOrder, []),
            Row::refund("a", "r1", None).gives(Applied, [Moved(20), Day(40, 1), Pending(40), Order(Held, 20, 20)]),
            Row::settle("a", "c2", 30).last().gives(Applied, [Day(30, 1), Pending(0), Order(Settled, 50, 20)]),
            Row::refund("a", "r2", 31).gives(RefundExceedsOrder, []),
            Row::refund("a", "r2", 30).gives(Applied, [Day(0, 1), Order(Settled, 50, 50)]),
        ],
    );
    check(
        "a refund of more than was held",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 66).over_capture_percent(10).gives(Applied, [Day(66, 1)]),
            Row::refund("a", "r1", None).gives(Applied, [Moved(66), Day(0, 1), Refunded(66, 66, 66)]),
        ],
    );
    check(
        "another currency",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::refund("a", "r1", 60).currency("EUR").gives(Code::IdempotencyConflict, [Refunded(0, 0, 0)]),
            Row::refund("a", "r1", 60).gives(Applied, [Day(0, 1)]),
        ],
    );
}

/// a refund is identified by its number.
fn refunds_are_taken_once(check: &mut Check) {
    use Code::{Admitted, Applied, IdempotencyConflict};
    check(
        "refunds again",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::refund("a", "r1", 20).gives(Applied, [Day(40, 1), DecisionId(1)]),
            Row::refund("a", "r1", 20).replayed(Applied, [Day(40, 1), DecisionId(1), Journaled(false), Version(2)]),
            Row::refund("a", "r1", None).by("other").replayed(Applied, [Moved(20), Day(40, 1), DecisionId(1)]),
            Row::refund("a", "r1", 21).gives(IdempotencyConflict, [Day(40, 1)]),
            // A reservation of a refund that was made already is the same refund.
            Row::reserve("a", "r1", 20).replayed(Applied, [Day(40, 1), DecisionId(1)]),
            // A replay takes precedence over the limits.
            Row::refund("a", "r1", 20).refund_limits(0, 0).replayed(Applied, [Refunded(20, 20, 20)]),
            Row::refund("a", "r1", 20).at_days(1).replayed(Applied, [DecisionId(1), Refunded(0, 20, 20)]),
        ],
    );
}

/// Refunds count on the day they are made, against limits of their own.
fn limits(check: &mut Check) {
    use Code::{Admitted, Applied, RefundDaily, RefundMonthly};
    check(
        "refund limits",
        &[
            Row::consume("a", "1", 100).gives(Admitted, []),
            Row::refund("a", "r1", 21).refund_limits(20, 50).gives(RefundDaily, [Day(100, 1), Refunded(0, 0, 0)]),
            Row::refund("a", "r1", 20).refund_limits(20, 50).gives(Applied, [Refunded(20, 20, 20)]),
            Row::refund("a", "r2", 1).refund_limits(20, 50).gives(RefundDaily, [Day(80, 1), Version(2)]),
            Row::refund("a", "r2", 20).refund_limits(20, 50).at_days(1).gives(Applied, [Refunded(20, 40, 40)]),
            Row::refund("a", "r3", 11).refund_limits(20, 50).at_days(2).gives(RefundMonthly, [Refunded(0, 40, 40)]),
            // Both limits would be exceeded: the answer names the day's.
            Row::refund("a", "r3", 21).refund_limits(20, 50).at_days(2).gives(RefundDaily, [Refunded(0, 40, 40)]),
            Row::refund("a", "r3", 10).refund_limits(20, 50).at_days(2).gives(Applied, [Refunded(10, 50, 50)]),
            Row::refund("a", "r4", 20).refund_limits(20, 50).at_days(10).gives(Applied, [Refunded(20, 20, 70)]),
            // A reservation counts, and its confirmation does not count again.
            Row::reserve("a", "r5", 15).refund_limits(20, 50).at_days(11).gives(Applied, [Refunded(15, 35, 85)]),
            Row::refund("a", "r6", 6).refund_limits(20, 50).at_days(11).gives(RefundDaily, [Refunded(15, 35, 85)]),
            Row::refund("a", "r5", 15).refund_limits(20, 50).at_days(11).gives(Applied, [Refunded(15, 35, 85)]),
        ],
    );
}

/// A refund restores the windows that its charge came from while they are open, and counts as refunded today.
fn windows(check: &mut Check) {
    use Code::{Admitted, Applied};
    let free = |row: Row| row.limits(Limits::UNLIMITED);
    check(
        "windows of a refund",
        &[
            free(Row::consume("a", "1", 60)).gives(Admitted, [Day(60, 1)]),
            free(Row::consume("b", "2", 30)).at_days(1).gives(Admitted, [Day(30, 1), Month(90, 2)]),
            Row::refund("a", "r1", 10).at_days(1).gives(Applied, [Day(30, 1), Month(80, 2), Refunded(10, 10, 10)]),
            Row::refund("a", "r2", 10).at_days(10).gives(Applied, [Day(0, 0), Month(0, 0), Year(70, 2)]),
            Row::refund("a", "r3", 10).at_days(41).gives(Applied, [Year(0, 0), Refunded(10, 10, 10)]),
            // A clock that lags by 41 days restores nothing either.
            Row::refund("a", "r4", 10).gives(Applied, [Year(0, 0), Refunded(20, 20, 20)]),
        ],
    );
    check(
        "nothing is returned to a window that was reset",
        &[
            free(Row::consume("a", "1", 60)).gives(Admitted, [Day(60, 1), Month(60, 1)]),
            Row::reset(&[Period::Day]).gives(Applied, [Day(0, 0), Month(60, 1)]),
            free(Row::consume("b", "2", 30)).gives(Admitted, [Day(30, 1), Month(90, 2)]),
            Row::refund("a", "r1", 25).gives(Applied, [Day(30, 1), Month(65, 2), Refunded(25, 25, 25)]),
            Row::refund("b", "r1", 10).gives(Applied, [Day(20, 1), Month(55, 2)]),
        ],
    );
}

/// A refund that the gateway has not made yet: counted at once, its quota returned when it is made, cancelled when it is not.
fn reservations(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptVoided, IdempotencyConflict, RefundExceedsOrder, Tombstoned};
    use OrderState::Charged;
    check(
        "reserved and made",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::reserve("a", "r1", 20).gives(Applied, [Day(60, 1), Refunded(20, 20, 20), Order(Charged, 0, 20)]),
            Row::reserve("a", "r1", 20).replayed(Applied, [DecisionId(1), Journaled(false)]),
            Row::reserve("a", "r1", 21).gives(IdempotencyConflict, [Day(60, 1)]),
            // A reserved amount is not refunded twice.
            Row::refund("a", "r2", 41).gives(RefundExceedsOrder, []),
            Row::refund("a", "r1", 21).gives(IdempotencyConflict, []),
            Row::refund("a", "r1", 20).gives(Applied, [Moved(20), Day(40, 1), Refunded(20, 20, 20)]),
            Row::refund("a", "r1", 20).replayed(Applied, [DecisionId(1), Day(40, 1), Journaled(false)]),
            // A refund that was made cannot be cancelled.
            Row::void_attempt("a", "r1").gives(Tombstoned, [Day(40, 1), Refunded(20, 20, 20)]),
        ],
    );
    check(
        "reserved and cancelled",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::reserve("a", "r1", None).gives(Applied, [Moved(60), Day(60, 1), Refunded(60, 60, 60)]),
            Row::void_attempt("a", "r1")
                .gives(Applied, [Moved(60), Day(60, 1), Refunded(0, 0, 0), Order(Charged, 0, 0)]),
            Row::void_attempt("a", "r1").replayed(Code::AttemptReleased, [Day(60, 1), Journaled(false)]),
            // The attempt itself is refused when it arrives late; another attempt is accepted.
            Row::reserve("a", "r1", None).gives(AttemptVoided, [Refunded(0, 0, 0)]),
            Row::refund("a", "r1", None).gives(AttemptVoided, [Day(60, 1)]),
            Row::refund("a", "r1", 30).by("second").gives(Applied, [Day(30, 1)]),
        ],
    );
    check(
        "after a cancelled reservation the void of the attempt returns the charge",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::reserve("a", "r1", 10).gives(Applied, []),
            Row::void_attempt("a", "r1").currency("EUR").gives(IdempotencyConflict, [Day(0, 0)]),
            Row::void_attempt("a", "r1").gives(Applied, [Day(60, 1)]),
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(0, 0)]),
        ],
    );
    check(
        "the latest attempt at a reservation is the one that cancels it",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::reserve("a", "r1", 10).gives(Applied, []),
            Row::reserve("a", "r1", 10)
                .by("again")
                .replayed(Applied, [DecisionId(1), Journaled(true), Refunded(10, 10, 10)]),
            Row::void_attempt("a", "r1").gives(Tombstoned, [Refunded(10, 10, 10)]),
            Row::void_attempt("a", "again").gives(Applied, [Refunded(0, 0, 0)]),
        ],
    );
    check(
        "a reservation is cancelled where it was counted",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::reserve("a", "r1", 10).gives(Applied, [Refunded(10, 10, 10)]),
            Row::refund("a", "r2", 5).at_days(1).gives(Applied, [Refunded(5, 15, 15)]),
            Row::void_attempt("a", "r1").at_days(1).gives(Applied, [Refunded(5, 5, 5)]),
            Row::reserve("a", "r3", 10).at_days(1).gives(Applied, [Refunded(15, 15, 15)]),
            Row::reset(&[Period::Month]).at_days(1).gives(Applied, [Refunded(15, 0, 15)]),
            Row::void_attempt("a", "r3").at_days(1).gives(Applied, [Refunded(5, 0, 5)]),
        ],
    );
}

/// Void or refund, depending on the order's state.
fn releases(check: &mut Check) {
    use Code::{Admitted, Applied, OrderUnknown, RefundExceedsOrder, Voided};
    use OrderState::Settled;
    check(
        "releases",
        &[
            Row::release("a", "r1", None).gives(OrderUnknown, [Version(0)]),
            Row::void_attempt("a", "1").gives(Code::Tombstoned, []),
            Row::release("a", "r1", None).gives(OrderUnknown, [Version(0)]),
            // A hold: voided, whatever the amount.
            Row::hold("a", "2", 60).gives(Admitted, []),
            Row::release("a", "r1", 10).gives(Voided, [Moved(60), Day(0, 0), Pending(0)]),
            Row::release("a", "r1", 10).replayed(Voided, [Moved(60), Day(0, 0), DecisionId(4), Journaled(false)]),
            Row::release("a", "r2", 10).replayed(Voided, [Moved(60), Day(0, 0), DecisionId(4), Journaled(false)]),
            // A charge: refunded.
            Row::consume("b", "3", 60).gives(Admitted, []),
            Row::release("b", "r1", 10).gives(Applied, [Day(50, 1), Refunded(10, 10, 10)]),
            Row::release("b", "r1", 10).replayed(Applied, [Day(50, 1)]),
            Row::release("b", "r2", 51).gives(RefundExceedsOrder, [Day(50, 1)]),
            Row::release("b", "r2", None).gives(Applied, [Moved(50), Day(0, 1)]),
            // A captured hold: refunded. A partly captured one: the rest of the hold is voided first.
            Row::hold("c", "4", 60).gives(Admitted, []),
            Row::settle("c", "c1", 20).gives(Applied, []),
            Row::release("c", "r1", None).gives(Voided, [Moved(40), Day(20, 2), Pending(0), Order(Settled, 20, 0)]),
            // The same release again does not go on to refund; another one does.
            Row::release("c", "r1", None).replayed(Voided, [Moved(40), Day(20, 2), DecisionId(14), Journaled(false)]),
            Row::release("c", "r1", 7).by("other").replayed(Voided, [Day(20, 2), Refunded(60, 60, 60)]),
            Row::release("c", "r1", None).currency("EUR").gives(Code::IdempotencyConflict, []),
            Row::release("c", "r2", None).gives(Applied, [Moved(20), Day(0, 2), Order(Settled, 20, 20)]),
            Row::release("c", "r2", None).replayed(Applied, [Moved(20), Day(0, 2), Journaled(false)]),
            Row::release("c", "r3", 1).refund_limits(0, 0).gives(RefundExceedsOrder, []),
            // A refund may have the number of a release: the numbers are separate.
            Row::hold("d", "5", 60).gives(Admitted, []),
            Row::settle("d", "c1", 20).gives(Applied, []),
            Row::release("d", "r1", None).gives(Voided, [Day(20, 3)]),
            Row::refund("d", "r1", 5).gives(Applied, [Day(15, 3), Order(Settled, 20, 5)]),
            Row::release("d", "r1", None).replayed(Voided, [Moved(40), Day(15, 3)]),
        ],
    );
}

/// An order that the store has evicted and the journal still has.
fn history(check: &mut Check) {
    use Code::{Admitted, Applied, IdempotencyConflict, OrderUnknown, RefundExceedsOrder};
    use OrderState::{Charged, Settled};
    let old = rebuilt(Charged);
    check(
        "refund of an old order",
        &[
            Row::refund("a", "r2", 25).gives(OrderUnknown, []),
            // 15 were refunded before it was evicted; its windows are closed.
            Row::refund("a", "r2", 50).history(old.clone()).gives(RefundExceedsOrder, [Day(0, 0)]),
            Row::refund("a", "r1", 15).history(old.clone()).replayed(Applied, [DecisionId(77), Refunded(0, 0, 0)]),
            Row::refund("a", "r1", 16).history(old.clone()).gives(IdempotencyConflict, []),
            Row::refund("a", "r2", 25)
                .history(old.clone())
                .gives(Applied, [Refunded(25, 25, 25), Order(Charged, 0, 40)]),
            // From now on the store has it again, and its state takes precedence over the history sent with a second request.
            Row::refund("a", "r2", 25).history(old.clone()).replayed(Applied, [DecisionId(4), Refunded(25, 25, 25)]),
            Row::refund("a", "r3", 21).history(old.clone()).gives(RefundExceedsOrder, []),
            Row::refund("a", "r3", 20).gives(Applied, [Refunded(45, 45, 45), Order(Charged, 0, 60)]),
            Row::consume("a", "1", 60).gives(Code::OrderClosed, [Day(0, 0)]),
        ],
    );
    check(
        "what expired in the store gives way to the journal",
        &[
            Row::consume("a", "1", 30).gives(Admitted, []),
            Row::refund("a", "r1", 30).at_secs(TTL_SECS).gives(OrderUnknown, []),
            Row::refund("a", "r9", 45).at_secs(TTL_SECS).history(old).gives(Applied, [Order(Charged, 0, 60)]),
        ],
    );
    check(
        "a tombstone does not hide the history",
        &[
            Row::void_attempt("a", "9").gives(Code::Tombstoned, []),
            Row::refund("a", "r2", 25).gives(OrderUnknown, []),
            Row::refund("a", "r2", 25).by("9").history(rebuilt(Charged)).gives(Code::AttemptVoided, []),
            Row::refund("a", "r2", 25).history(rebuilt(Charged)).gives(Applied, [Order(Charged, 0, 40)]),
        ],
    );
    let open = StoredOrder { operations: Vec::new(), refunded: 0, ..rebuilt(OrderState::Held) };
    check(
        "settle of an old hold",
        &[
            Row::settle("a", "c1", 60).gives(OrderUnknown, []),
            Row::settle("a", "c1", 40).last().history(open.clone()).gives(Applied, [Day(0, 0), Order(Settled, 40, 0)]),
            Row::settle("a", "c1", 40).last().history(open).replayed(Applied, [DecisionId(1), Order(Settled, 40, 0)]),
        ],
    );
}

/// An order of 60 of the year before, as rebuilt from the journal, with a refund of 15.
pub(super) fn rebuilt(state: OrderState) -> StoredOrder {
    let origin = |id| Origin { id, epoch: 0 };
    let windows =
        Origins { day: origin(20_251_120), week: origin(20_251_117), month: origin(202_511), year: origin(2025) };
    let refund = Operation {
        kind: OperationKind::Refund,
        id: OperationId::of("r1"),
        attempt: AttemptId::from_text("r1"),
        amount: amount(15),
        counted: windows,
        decision_id: 77_u128.to_be_bytes(),
    };
    StoredOrder {
        currency: Currency::parse("USD").unwrap(),
        amount: amount(60),
        weight: quota::Weight::AMOUNT,
        charged_in: windows,
        state,
        pinned: true,
        given_back: true,
        unknown: false,
        made: false,
        doubted: false,
        hold: Hold::default(),
        settled: 0,
        refunded: 15,
        credit_cycle: 0,
        live: Vec::new(),
        voided: Vec::new(),
        operations: vec![refund],
        decision_id: 99_u128.to_be_bytes(),
        expires_at_secs: 0,
    }
}
