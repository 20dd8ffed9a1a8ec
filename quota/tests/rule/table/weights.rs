//! Weights: what a payment counts against the limits is a share of its amount, or a price; what is returned is what was counted.

use quota::{Change, Code, CounterName, Limits, OrderState, Period, Resolution, Weight};

use super::Check;
use super::row::Expected::{Counted, Credit, Day, Journaled, Moved, Order, Pending, Refunded, Version};
use super::row::{LIFETIME_SECS, Row, amount};

/// The billing cycle of the tables' time.
const NOVEMBER: u32 = 20_261_101;

pub(crate) fn each(check: &mut Check) {
    q1_q2_limits_bound_what_counts(check);
    q3_repetitions_have_the_first_figures(check);
    q4_parts_return_what_the_whole_counted(check);
    q4_a_price_is_returned_with_the_last_part(check);
    q4_holds_and_captures(check);
    money_stays_what_it_is(check);
}

fn share(bp: u32) -> Weight {
    Weight::share(bp).unwrap()
}

fn price(units: u64) -> Weight {
    Weight::price(amount(units))
}

/// the limit of 100 a day is for what counts.
fn q1_q2_limits_bound_what_counts(check: &mut Check) {
    use Code::{Admitted, DailyAmount, PendingAmount};
    let consume = |order, attempt, minor, weight| Row::consume(order, attempt, minor).weight(weight);
    check(
        "a share",
        &[
            consume("a", "1", 150, share(5_000)).gives(Admitted, [Day(75, 1), Moved(150), Counted(75), Version(1)]),
            consume("b", "2", 51, share(5_000)).gives(DailyAmount, [Day(75, 1), Moved(51), Counted(26), Version(1)]),
            consume("b", "3", 50, share(5_000)).gives(Admitted, [Day(100, 2), Counted(25)]),
            consume("c", "4", 1, share(1)).gives(DailyAmount, [Counted(1), Journaled(true)]),
            consume("c", "5", 1_000, share(0)).gives(Admitted, [Day(100, 3), Moved(1_000), Counted(0)]),
        ],
    );
    check(
        "more than the amount",
        &[
            consume("a", "1", 34, share(30_000)).gives(DailyAmount, [Counted(102)]),
            consume("a", "2", 33, share(30_000)).gives(Admitted, [Day(99, 1), Counted(99)]),
            consume("b", "3", quota::AmountMinor::MAX.get(), share(Weight::BP_MAX))
                .gives(DailyAmount, [Counted(quota::AmountMinor::MAX.get())]),
        ],
    );
    check(
        "a price",
        &[
            consume("a", "1", 1_000_000, price(40)).gives(Admitted, [Day(40, 1), Moved(1_000_000), Counted(40)]),
            consume("b", "2", 1, price(40)).gives(Admitted, [Day(80, 2), Counted(40)]),
            consume("c", "3", 1, price(40)).gives(DailyAmount, [Day(80, 2), Counted(40)]),
            // A payment of no amount has nothing that counts.
            consume("c", "4", 0, price(40)).gives(Admitted, [Day(80, 3), Counted(0)]),
        ],
    );
    let pending = Limits { pending: amount(50), ..Limits::UNLIMITED };
    check(
        "open holds",
        &[
            Row::hold("a", "1", 100).limits(pending).weight(share(3_000)).gives(Admitted, [Pending(30), Counted(30)]),
            Row::hold("b", "2", 70).limits(pending).weight(share(3_000)).gives(PendingAmount, [Counted(21)]),
            Row::hold("b", "3", 64).limits(pending).weight(share(3_000)).gives(Admitted, [Pending(50), Day(50, 2)]),
        ],
    );
}

/// an order keeps the weight that it was charged with, whatever the policy says later.
fn q3_repetitions_have_the_first_figures(check: &mut Check) {
    use Code::{Admitted, Applied, IdempotencyConflict};
    check(
        "repetitions",
        &[
            Row::consume("a", "1", 80).weight(share(2_500)).gives(Admitted, [Day(20, 1), Counted(20)]),
            Row::consume("a", "1", 80).replayed(Admitted, [Day(20, 1), Counted(20)]),
            Row::consume("a", "2", 80).weight(price(7)).replayed(Admitted, [Day(20, 1), Moved(80), Counted(20)]),
            Row::consume("a", "3", 40).weight(price(7)).gives(IdempotencyConflict, [Moved(40), Counted(7)]),
            Row::refund("a", "r1", 40).gives(Applied, [Day(10, 1), Counted(10)]),
            Row::refund("a", "r1", 40).replayed(Applied, [Day(10, 1), Moved(40)]),
        ],
    );
    check(
        "charged again after its void",
        &[
            Row::consume("a", "1", 80).weight(share(2_500)).gives(Admitted, [Day(20, 1)]),
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(0, 0), Moved(80), Counted(20)]),
            Row::consume("a", "2", 80).gives(Admitted, [Day(80, 1), Counted(80)]),
            Row::void_attempt("a", "2").gives(Code::Voided, [Day(0, 0), Counted(80)]),
            Row::consume("a", "3", 80).weight(price(3)).gives(Admitted, [Day(3, 1), Counted(3)]),
            Row::resolve("a", Resolution::NotMade).gives(Code::Voided, [Day(0, 0), Moved(80), Counted(3)]),
        ],
    );
}

/// shares are rounded up, and yet all parts together return what the whole has counted.
fn q4_parts_return_what_the_whole_counted(check: &mut Check) {
    use Code::{Admitted, Applied, RefundExceedsOrder};
    check(
        "refunds",
        &[
            Row::consume("a", "1", 10).weight(share(3_333)).gives(Admitted, [Day(4, 1), Counted(4)]),
            Row::refund("a", "r1", 3).gives(Applied, [Day(3, 1), Moved(3), Counted(1), Refunded(3, 3, 3)]),
            Row::refund("a", "r2", 3).gives(Applied, [Day(2, 1), Counted(1)]),
            // Reserved: nothing is returned yet.
            Row::reserve("a", "r3", 1).gives(Applied, [Day(2, 1), Refunded(7, 7, 7)]),
            Row::refund("a", "r4", 2).gives(Applied, [Day(1, 1), Counted(1), Refunded(9, 9, 9)]),
            Row::refund("a", "r3", 1).gives(Applied, [Day(1, 1), Counted(0), Refunded(9, 9, 9)]),
            Row::refund("a", "r5", 2).gives(RefundExceedsOrder, [Day(1, 1)]),
            Row::refund("a", "r5", None).gives(Applied, [Day(0, 1), Moved(1), Counted(1), Refunded(10, 10, 10)]),
        ],
    );
    check(
        "a reserved refund that is not made",
        &[
            Row::consume("a", "1", 10).weight(share(15_000)).gives(Admitted, [Day(15, 1)]),
            Row::reserve("a", "r1", 4).gives(Applied, [Day(15, 1), Refunded(4, 4, 4)]),
            Row::void_attempt("a", "r1").gives(Applied, [Day(15, 1), Refunded(0, 0, 0)]),
            Row::release("a", "r2", 10).gives(Applied, [Day(0, 1), Counted(15)]),
        ],
    );
}

fn q4_a_price_is_returned_with_the_last_part(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "refunds of a payment with a price",
        &[
            Row::consume("a", "1", 10).weight(price(25)).gives(Admitted, [Day(25, 1)]),
            Row::refund("a", "r1", 9).gives(Applied, [Day(25, 1), Moved(9), Counted(0)]),
            Row::refund("a", "r2", 1).gives(Applied, [Day(0, 1), Moved(1), Counted(25)]),
        ],
    );
}

/// what is held is pending by its weight; captures beyond the hold count in addition.
fn q4_holds_and_captures(check: &mut Check) {
    use Code::{Admitted, Applied, CaptureExceedsHold, Voided};
    use OrderState::{Held, Settled};
    check(
        "captures",
        &[
            Row::hold("a", "1", 100).weight(share(5_000)).gives(Admitted, [Day(50, 1), Pending(50)]),
            Row::settle("a", "c1", 31).gives(Applied, [Day(50, 1), Pending(35), Moved(31), Counted(15)]),
            Row::settle("a", "c2", 29)
                .last()
                .gives(Applied, [Day(30, 1), Pending(0), Moved(29), Counted(15), Order(Settled, 60, 0)]),
            Row::refund("a", "r1", None).gives(Applied, [Day(0, 1), Counted(30)]),
        ],
    );
    check(
        "a part of a hold with a price keeps the price, and so does what rounding leaves",
        &[
            Row::hold("a", "1", 10).weight(price(9)).gives(Admitted, [Day(9, 1), Pending(9)]),
            Row::settle("a", "c1", 6).last().gives(Applied, [Day(9, 1), Pending(0), Moved(6), Counted(9)]),
            Row::hold("b", "2", 2).weight(share(5_000)).gives(Admitted, [Day(10, 2), Pending(1)]),
            Row::settle("b", "c1", 1).last().gives(Applied, [Day(10, 2), Pending(0), Moved(1), Counted(1)]),
        ],
    );
    check(
        "beyond the hold",
        &[
            Row::hold("a", "1", 40).weight(share(20_000)).gives(Admitted, [Day(80, 1), Pending(80)]),
            Row::settle("a", "c1", 45).gives(CaptureExceedsHold, [Day(80, 1)]),
            Row::settle("a", "c1", 45)
                .over_capture_percent(15)
                .gives(Applied, [Day(90, 1), Pending(0), Moved(45), Counted(90), Order(Settled, 45, 0)]),
            // The gateway has captured once more, after the hold has ended.
            Row::settle("a", "c2", 5).reported().gives(Applied, [Day(100, 1), Counted(10)]),
            Row::refund("a", "r1", 50).gives(Applied, [Day(0, 1), Counted(100)]),
        ],
    );
    let nearly_full = Change::Set(amount(quota::AmountMinor::MAX.get() - 9));
    check(
        "more than a counter holds",
        &[
            Row::hold("a", "1", 40).weight(share(20_000)).gives(Admitted, [Day(80, 1)]),
            Row::adjust(CounterName::Amount(Period::Day), nearly_full).gives(Applied, []),
            Row::settle("a", "c1", 45).over_capture_percent(15).gives(CaptureExceedsHold, [Pending(80)]),
            Row::settle("a", "c1", 44).over_capture_percent(15).gives(Applied, [Pending(0), Counted(88)]),
        ],
    );
    check(
        "voids",
        &[
            Row::hold("a", "1", 30).weight(share(3_333)).gives(Admitted, [Day(10, 1), Pending(10)]),
            Row::settle("a", "c1", 10).gives(Applied, [Day(10, 1), Pending(7), Counted(3), Order(Held, 10, 0)]),
            Row::refund("a", "r1", 10).gives(Applied, [Day(7, 1), Pending(7), Counted(3)]),
            Row::void("a").gives(Voided, [Day(0, 1), Pending(0), Moved(20), Counted(7), Order(Settled, 10, 10)]),
            Row::hold("b", "2", 30).weight(price(9)).gives(Admitted, [Day(9, 2), Pending(9)]),
            Row::void("b").gives(Voided, [Day(0, 1), Pending(0), Moved(30), Counted(9)]),
            Row::void("b").replayed(Voided, [Day(0, 1), Moved(30)]),
        ],
    );
    check(
        "expiry",
        &[
            Row::hold("a", "1", 30).weight(share(3_333)).gives(Admitted, [Day(10, 1), Pending(10)]),
            Row::hold_to_settle("b", "2", 30).weight(price(9)).gives(Admitted, [Day(19, 2), Pending(19)]),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(Voided, [Day(9, 1), Pending(9), Counted(10)]),
            Row::expire("b").at_secs(LIFETIME_SECS).gives(Applied, [Day(9, 1), Pending(0), Moved(30), Counted(9)]),
        ],
    );
}

/// The exposure of a credit line and the limits on refunds are about money.
fn money_stays_what_it_is(check: &mut Check) {
    use Code::{Admitted, Applied, CreditExhausted, RefundDaily};
    let consume =
        |order, attempt, minor| Row::consume(order, attempt, minor).weight(share(1_000)).credit(100, NOVEMBER);
    check(
        "credit and refunds",
        &[
            consume("a", "1", 90).gives(Admitted, [Day(9, 1), Credit(90, 90), Counted(9)]),
            consume("b", "2", 11).gives(CreditExhausted, [Credit(90, 90), Moved(11), Counted(2)]),
            Row::refund("a", "r1", 60).refund_limits(50, 200).gives(RefundDaily, []),
            Row::refund("a", "r1", 50)
                .refund_limits(50, 200)
                .gives(Applied, [Day(4, 1), Credit(40, 40), Refunded(50, 50, 50), Counted(5)]),
        ],
    );
}
