//! Holds: captures, how they end, and what remains.

use quota::{AmountMinor, Change, Code, CounterName, Effect, Limits, OrderState, Period};

use super::Check;
use super::row::Expected::{Day, DecisionId, HoldUntil, Journaled, Month, Moved, Order, Pending, Version};
use super::row::{LIFETIME_SECS, Row, TTL_SECS, amount};

pub(crate) fn each(check: &mut Check) {
    a_hold_consumes_and_pends(check);
    captures(check);
    captures_beyond_the_hold(check);
    captures_are_taken_once(check);
    voids(check);
    attempts(check);
    expiry(check);
    extensions(check);
    windows(check);
}

/// A hold counts against every limit at once, as a charge does, and against the pending one.
fn a_hold_consumes_and_pends(check: &mut Check) {
    use Code::{Admitted, DailyAmount, IdempotencyConflict, PendingAmount};
    let pending = Limits { pending: amount(50), ..Limits::UNLIMITED };
    check(
        "pending limit",
        &[
            Row::hold("a", "1", 50).limits(pending).gives(Admitted, [Day(50, 1), Pending(50)]),
            Row::hold("b", "2", 1).limits(pending).gives(PendingAmount, [Day(50, 1), Pending(50), Version(1)]),
            // The pending limit applies to holds only.
            Row::consume("c", "3", 10).limits(pending).gives(Admitted, [Day(60, 2), Pending(50)]),
            Row::settle("a", "c1", 20).gives(Code::Applied, [Day(60, 2), Pending(30)]),
            Row::hold("b", "4", 21).limits(pending).gives(PendingAmount, [Pending(30)]),
            Row::hold("b", "5", 20).limits(pending).gives(Admitted, [Day(80, 3), Pending(50)]),
            // It belongs to no window: it continues beyond the end of the day.
            Row::hold("d", "6", 1).limits(pending).at_days(1).gives(PendingAmount, [Day(0, 0), Pending(50)]),
        ],
    );
    check(
        "a hold is charged once",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Day(60, 1), Pending(60), Order(OrderState::Held, 0, 0)]),
            Row::hold("a", "1", 60).replayed(Admitted, [DecisionId(0), Journaled(false), Pending(60)]),
            Row::hold("a", "2", 60).replayed(Admitted, [DecisionId(0), Journaled(true), Day(60, 1), Pending(60)]),
            Row::hold("a", "3", 61).gives(IdempotencyConflict, [Pending(60)]),
            Row::consume("a", "3", 60).gives(IdempotencyConflict, [Day(60, 1)]),
            Row::hold("b", "4", 41).gives(DailyAmount, [Day(60, 1), Pending(60)]),
            Row::settle("a", "c1", None).gives(Code::Applied, [Day(60, 1), Pending(0)]),
            // A late retry of the hold gets `Admitted` again, and holds nothing more.
            Row::hold("a", "5", 60).replayed(Admitted, [Day(60, 1), Pending(0), Order(OrderState::Settled, 60, 0)]),
        ],
    );
}

/// Captures below the hold, of all of it, and in parts.
fn captures(check: &mut Check) {
    use Code::{Admitted, Applied, BadAmount, CaptureExceedsHold, OrderClosed, OrderUnknown};
    use OrderState::{Held, Settled};
    check(
        "one capture",
        &[
            Row::settle("a", "c1", 60).gives(OrderUnknown, [Day(0, 0), Version(0)]),
            Row::hold("a", "1", 60).gives(Admitted, []),
            // Without an amount: all of it.
            Row::settle("a", "c1", None).gives(Applied, [Moved(60), Day(60, 1), Pending(0), Order(Settled, 60, 0)]),
            Row::hold("b", "2", 40).gives(Admitted, [Day(100, 2), Pending(40)]),
            // The last one returns the rest.
            Row::settle("b", "c1", 30).last().gives(Applied, [Day(90, 2), Pending(0), Order(Settled, 30, 0)]),
            Row::settle("b", "c2", 1).gives(OrderClosed, [Day(90, 2)]),
            Row::void("b").gives(OrderClosed, [Day(90, 2)]),
            Row::consume("c", "3", 10).gives(Admitted, [Day(100, 3)]),
            Row::settle("c", "c1", 10).gives(OrderClosed, [Day(100, 3)]),
        ],
    );
    check(
        "captures in parts",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 10).gives(Applied, [Day(60, 1), Pending(50), Order(Held, 10, 0)]),
            Row::settle("a", "c2", 0).gives(BadAmount, [Pending(50)]),
            Row::settle("a", "c2", 51).gives(CaptureExceedsHold, [Pending(50), Moved(51), Order(Held, 10, 0)]),
            Row::settle("a", "c2", 20).gives(Applied, [Day(60, 1), Pending(30), Order(Held, 30, 0)]),
            Row::settle("a", "c3", 30).gives(Applied, [Day(60, 1), Pending(0), Order(Settled, 60, 0)]),
            Row::settle("a", "c4", 1).gives(OrderClosed, []),
            Row::hold("b", "2", 40).gives(Admitted, [Day(100, 2)]),
            Row::settle("b", "c1", 10).gives(Applied, [Pending(30)]),
            Row::settle("b", "c2", 10).last().gives(Applied, [Day(80, 2), Pending(0), Order(Settled, 20, 0)]),
        ],
    );
    check(
        "a hold of nothing",
        &[
            Row::hold("a", "1", 0).gives(Admitted, [Day(0, 1), Pending(0)]),
            Row::settle("a", "c1", None).gives(BadAmount, []),
            Row::void("a").gives(Code::Voided, [Day(0, 0)]),
        ],
    );
    check(
        "another currency",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 60).currency("EUR").gives(Code::IdempotencyConflict, [Day(0, 0), Pending(0)]),
            Row::void("a").currency("EUR").gives(Code::IdempotencyConflict, [Day(0, 0)]),
            Row::settle("a", "c1", 60).gives(Applied, [Day(60, 1), Pending(0)]),
        ],
    );
}

/// Captured amounts are consumed regardless of the limits, up to the over-capture that the policy allows.
fn captures_beyond_the_hold(check: &mut Check) {
    use Code::{Admitted, Applied, CaptureExceedsHold};
    use OrderState::{Held, Settled};
    check(
        "over-capture",
        &[
            Row::hold("a", "1", 95).gives(Admitted, [Day(95, 1)]),
            Row::settle("a", "c1", 100).over_capture_percent(5).gives(CaptureExceedsHold, [Day(95, 1), Pending(95)]),
            // 5 % of 95 is 4.75: four units.
            Row::settle("a", "c1", 99).over_capture_percent(5).gives(Applied, [Day(99, 1), Pending(0)]),
            Row::hold("b", "2", 1).gives(Admitted, [Day(100, 2)]),
            Row::settle("b", "c1", 2).over_capture_percent(100).gives(Applied, [Day(101, 2), Month(101, 2)]),
        ],
    );
    check(
        "the bound is one of all captures together",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 40).over_capture_percent(10).gives(Applied, [Order(Held, 40, 0)]),
            Row::settle("a", "c2", 27).over_capture_percent(10).gives(CaptureExceedsHold, [Day(60, 1), Pending(20)]),
            Row::settle("a", "c2", 26).over_capture_percent(10).gives(Applied, [Day(66, 1), Order(Settled, 66, 0)]),
            Row::settle("a", "c3", 1).over_capture_percent(10).gives(Code::OrderClosed, []),
        ],
    );
    check(
        "what the gateway has captured is taken, also late and beyond every bound",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::settle("a", "c1", 10).last().gives(Applied, [Day(10, 1), Order(Settled, 10, 0)]),
            Row::settle("a", "c2", 20).gives(Code::OrderClosed, [Day(10, 1)]),
            Row::settle("a", "c2", 20).reported().gives(Applied, [Day(30, 1), Pending(0), Order(Settled, 30, 0)]),
            Row::settle("a", "c2", 20).reported().replayed(Applied, [Day(30, 1)]),
            Row::settle("a", "c3", None).reported().gives(Code::OrderClosed, [Day(30, 1)]),
            Row::hold("b", "2", 10).gives(Admitted, [Day(40, 2)]),
            Row::settle("b", "c1", 90).reported().gives(Applied, [Day(120, 2), Pending(0), Order(Settled, 90, 0)]),
            Row::consume("c", "3", 0).limits(Limits::UNLIMITED).gives(Admitted, []),
            Row::settle("c", "c1", 1).reported().gives(Code::OrderClosed, []),
        ],
    );
    let max = AmountMinor::MAX.get();
    check(
        "a counter that is full takes no more",
        &[
            Row::hold("a", "1", max).limits(Limits::UNLIMITED).gives(Admitted, [Pending(max)]),
            Row::settle("a", "c1", 10).gives(Applied, [Pending(max - 10)]),
            Row::settle("a", "c2", max).over_capture_percent(100).gives(CaptureExceedsHold, [Day(max, 1)]),
            Row::settle("a", "c2", max - 10).over_capture_percent(100).gives(Applied, [Day(max, 1), Pending(0)]),
        ],
    );
    // Each window by itself can count no more than a counter holds.
    for period in Period::ALL {
        let full = Row::adjust(CounterName::Amount(period), Change::Set(amount(max)));
        check(
            "a capture beyond the hold that a window cannot count",
            &[
                Row::hold("a", "1", 50).gives(Admitted, []),
                full.gives(Applied, [Version(2)]),
                Row::settle("a", "c1", 51).over_capture_percent(100).gives(CaptureExceedsHold, [Version(2)]),
                Row::settle("a", "c1", 50).over_capture_percent(100).gives(Applied, [Version(3)]),
            ],
        );
    }
}

/// a capture is identified by its number.
fn captures_are_taken_once(check: &mut Check) {
    use Code::{Admitted, Applied, IdempotencyConflict};
    use OrderState::{Held, Settled};
    check(
        "captures again",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 10).gives(Applied, [Pending(50), DecisionId(1)]),
            Row::settle("a", "c1", 10).replayed(Applied, [Pending(50), DecisionId(1), Journaled(false), Version(2)]),
            Row::settle("a", "c1", 10).by("other").replayed(Applied, [Pending(50), DecisionId(1)]),
            Row::settle("a", "c1", None).replayed(Applied, [Moved(10), Pending(50), DecisionId(1)]),
            Row::settle("a", "c1", 11).gives(IdempotencyConflict, [Pending(50)]),
            // A refund may have the number of a capture: the numbers are separate.
            Row::refund("a", "c1", 5).gives(Applied, [Order(Held, 10, 5)]),
            Row::settle("a", "c2", 50).gives(Applied, [Order(Settled, 60, 5), Pending(0)]),
            // Also after the hold has ended.
            Row::settle("a", "c2", 50).replayed(Applied, [DecisionId(7), Order(Settled, 60, 5)]),
            Row::settle("a", "c1", 10).at_days(1).replayed(Applied, [DecisionId(1)]),
        ],
    );
}

/// Ending a hold by hand.
fn voids(check: &mut Check) {
    use Code::{Admitted, Applied, OrderClosed, OrderUnknown};
    use OrderState::{Settled, Voided};
    check(
        "void",
        &[
            Row::void("a").gives(OrderUnknown, [Version(0), Journaled(true)]),
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::void("a").gives(Code::Voided, [Day(0, 0), Month(0, 0), Pending(0), Moved(60), Order(Voided, 0, 0)]),
            Row::void("a").replayed(Code::Voided, [Day(0, 0), Moved(60), DecisionId(2), Journaled(false)]),
            Row::settle("a", "c1", 60).gives(OrderClosed, [Day(0, 0)]),
            Row::refund("a", "r1", 60).gives(OrderClosed, [Day(0, 0)]),
            Row::hold("a", "1", 60).gives(OrderClosed, [Day(0, 0), Pending(0)]),
            Row::consume("a", "2", 60).gives(OrderClosed, [Day(0, 0)]),
            Row::void_attempt("a", "1").gives(Code::Tombstoned, [Day(0, 0), Pending(0)]),
        ],
    );
    check(
        "what was captured stays",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 25).gives(Applied, []),
            Row::void("a").gives(Code::Voided, [Moved(35), Day(25, 1), Pending(0), Order(Settled, 25, 0)]),
            Row::void("a").replayed(Code::Voided, [Moved(35), Day(25, 1), DecisionId(2), Journaled(false)]),
            Row::void("a").by("other").replayed(Code::Voided, [Day(25, 1), DecisionId(2)]),
            Row::settle("a", "c2", 10).gives(OrderClosed, [Day(25, 1)]),
            Row::refund("a", "r1", None).gives(Applied, [Moved(25), Day(0, 1), Order(Settled, 25, 25)]),
        ],
    );
    check(
        "a charge is no hold",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::void("a").gives(OrderClosed, [Day(60, 1)]),
            Row::expire("a").at_days(1).gives(OrderClosed, [Journaled(false)]),
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(0, 0)]),
            Row::void("a").gives(OrderUnknown, []),
        ],
    );
}

/// The void of an attempt ends an untouched hold, but not a partly captured one.
fn attempts(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptReleased, Voided};
    use OrderState::{Held, Open};
    check(
        "attempts at a hold",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::hold("a", "2", 60).replayed(Admitted, []),
            Row::void_attempt("a", "1").gives(AttemptReleased, [Pending(60)]),
            Row::void_attempt("a", "2").gives(Voided, [Day(0, 0), Pending(0), Order(Open, 0, 0)]),
            // Unlike a hold that was voided itself, the order may be charged again, also without a hold.
            Row::consume("a", "3", 50).gives(Admitted, [Day(50, 1), Pending(0)]),
        ],
    );
    check(
        "an attempt at a captured hold",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 10).gives(Applied, []),
            Row::void_attempt("a", "1").gives(AttemptReleased, [Day(60, 1), Pending(50), Order(Held, 10, 0)]),
            Row::void_attempt("a", "1").replayed(AttemptReleased, [Journaled(false)]),
            Row::settle("a", "c2", None).gives(Applied, [Moved(50), Pending(0)]),
        ],
    );
}

/// An expired hold ends once, as its policy defines.
fn expiry(check: &mut Check) {
    use Code::{Admitted, Applied, OrderClosed, OrderUnknown};
    use OrderState::{Held, Settled};
    check(
        "expiry returns",
        &[
            Row::expire("a").gives(OrderUnknown, [Journaled(false)]),
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::expire("a").at_secs(LIFETIME_SECS - 1).replayed(Admitted, [Pending(60), Journaled(false)]),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(Code::Voided, [Moved(60), Day(0, 0), Pending(0)]),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(OrderClosed, [Day(0, 0), Journaled(false)]),
            Row::settle("a", "c1", None).at_secs(LIFETIME_SECS).gives(OrderClosed, [Day(0, 0)]),
            Row::void("a").replayed(Code::Voided, [Journaled(false)]),
        ],
    );
    check(
        "expiry settles",
        &[
            Row::hold_to_settle("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 15).gives(Applied, []),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(Applied, [Moved(45), Day(60, 1), Order(Settled, 60, 0)]),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(OrderClosed, [Pending(0), Journaled(false)]),
            Row::refund("a", "r1", None).at_secs(LIFETIME_SECS).gives(Applied, [Moved(60), Day(0, 1)]),
        ],
    );
    check(
        "expiry after captures",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::settle("a", "c1", 15).gives(Applied, [Order(Held, 15, 0)]),
            // Expired but not ended yet: it can still be captured.
            Row::settle("a", "c2", 5).at_secs(LIFETIME_SECS).gives(Applied, [Order(Held, 20, 0)]),
            Row::expire("a").at_secs(LIFETIME_SECS + 1).gives(Code::Voided, [Moved(40), Day(20, 1), Pending(0)]),
            Row::hold("b", "2", 60).gives(Admitted, []),
            Row::settle("b", "c1", None).gives(Applied, [Pending(0)]),
            Row::expire("b").at_secs(LIFETIME_SECS).gives(OrderClosed, [Day(80, 2), Order(Settled, 60, 0)]),
        ],
    );
    check(
        "an open hold is kept beyond its own end",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::expire("a").at_secs(TTL_SECS + LIFETIME_SECS - 1).gives(Code::Voided, [Pending(0)]),
        ],
    );
}

/// A hold returns quota to the windows that it was consumed in.
fn windows(check: &mut Check) {
    use Code::{Admitted, Applied};
    let later = |row: Row| row.limits(Limits::UNLIMITED).at_days(1);
    check(
        "a hold of yesterday",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Day(60, 1), Month(60, 1)]),
            later(Row::hold("b", "2", 30)).gives(Admitted, [Day(30, 1), Month(90, 2), Pending(90)]),
            later(Row::settle("a", "c1", 20)).last().gives(Applied, [Day(30, 1), Month(50, 2), Pending(30)]),
            // The amount above the hold is consumed today.
            later(Row::settle("b", "c1", 33))
                .over_capture_percent(10)
                .gives(Applied, [Day(33, 1), Month(53, 2), Pending(0)]),
        ],
    );
    check(
        "a hold of last month",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::void("a").at_days(10).gives(Code::Voided, [Day(0, 0), Month(0, 0), Pending(0)]),
        ],
    );
}

/// An extension changes when a hold ends, and nothing else; sent again, it changes nothing.
fn extensions(check: &mut Check) {
    use Code::{Admitted, Applied, IdempotencyConflict, OrderClosed, OrderUnknown, Voided};
    use OrderState::Held;
    // All of it is on the same day.
    let later = LIFETIME_SECS + 600;
    check(
        "extensions of a hold",
        &[
            Row::extend("a", later).gives(OrderUnknown, []),
            Row::hold("a", "1", 60).gives(Admitted, [Day(60, 1), Pending(60)]),
            Row::extend("a", later).currency("EUR").gives(IdempotencyConflict, []),
            Row::extend("a", later)
                .gives(Applied, [Pending(60), Moved(60), Version(1), HoldUntil(later), Journaled(true)]),
            Row::extend("a", later).replayed(Applied, [HoldUntil(later), Journaled(false)]),
            // Never earlier than before.
            Row::extend("a", LIFETIME_SECS).replayed(Applied, [HoldUntil(later), Journaled(false)]),
            Row::extend("a", later + 1).effect(Effect::DryRun).gives(Applied, [Journaled(false)]),
            // Its first end does not end it.
            Row::expire("a").at_secs(LIFETIME_SECS).replayed(Admitted, [Pending(60), Order(Held, 0, 0)]),
            // What was captured is not held any more.
            Row::settle("a", "c1", 20).gives(Applied, [Pending(40)]),
            Row::extend("a", later + 2).gives(Applied, [Moved(40), Order(Held, 20, 0), HoldUntil(later + 2)]),
            Row::expire("a").at_secs(later + 1).replayed(Admitted, [Pending(40)]),
            // Its time is over, and no job has ended it yet.
            Row::extend("a", 2 * later).at_secs(later + 5).gives(Applied, [HoldUntil(2 * later)]),
            Row::expire("a").at_secs(2 * later).gives(Voided, [Day(20, 1), Pending(0)]),
            Row::extend("a", 3 * later).at_secs(2 * later).gives(OrderClosed, [Pending(0)]),
            Row::consume("b", "2", 10).gives(Admitted, [Day(30, 2)]),
            Row::extend("b", later).gives(OrderClosed, [Day(30, 2)]),
        ],
    );
}
