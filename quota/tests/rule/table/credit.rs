//! Credit lines: the exposure bounds charges, billing cycles close, and postings count once.

use quota::{Action, Code, Effect, OrderState, PostingKind, Resolution};

use super::Check;
use super::row::Expected::{Credit, Day, DecisionId, Journaled, Moved, NoCredit, Order, Pending, Version};
use super::row::{LIFETIME_SECS, Row, day_amount};

/// The billing cycle of the tables' time, and the one after it.
const NOVEMBER: u32 = 20_261_101;
const DECEMBER: u32 = 20_261_201;

pub(crate) fn each(check: &mut Check) {
    q1_q2_the_exposure_holds_to_the_unit(check);
    a_capped_line_says_so(check);
    q4_what_an_order_gives_back_lowers_the_exposure(check);
    q4_holds_count_when_they_are_made_and_are_billed_when_captured(check);
    a_cycle_closes_with_the_first_command_after_it(check);
    refunds_lower_the_cycle_that_billed_them(check);
    orders_without_credit_do_not_concern_it(check);
    q3_postings_count_once(check);
    transfers_are_bounded(check);
    a_line_that_is_not_known_refuses_where_it_is_to(check);
    restrictions_come_before_limits(check);
}

fn consume(order: &'static str, attempt: &'static str, minor: u64) -> Row {
    Row::consume(order, attempt, minor).limits(quota::Limits::UNLIMITED).credit(100, NOVEMBER)
}

fn hold(order: &'static str, attempt: &'static str, minor: u64) -> Row {
    Row::hold(order, attempt, minor).limits(quota::Limits::UNLIMITED).credit(100, NOVEMBER)
}

fn repay(number: &'static str, minor: u64) -> Row {
    Row::post(PostingKind::Repayment, number, minor).credit(100, NOVEMBER)
}

/// Q-1, Q-2: a charge is admitted up to the line and not one unit further; a repayment is visible to the next payment.
fn q1_q2_the_exposure_holds_to_the_unit(check: &mut Check) {
    use Code::{Admitted, Applied, CreditExhausted};
    check(
        "a line is used, refused, repaid and used again",
        &[
            consume("a", "1", 99).gives(Admitted, [Credit(99, 99), Version(1), Moved(99)]),
            consume("b", "2", 2).gives(CreditExhausted, [Credit(99, 99), Version(1), Journaled(true), Day(99, 1)]),
            hold("b", "3", 2).gives(CreditExhausted, [Credit(99, 99), Pending(0)]),
            consume("b", "4", 2).effect(Effect::DryRun).gives(CreditExhausted, [Credit(99, 99), Journaled(false)]),
            consume("b", "5", 1).effect(Effect::DryRun).gives(Admitted, [Credit(100, 100), Version(1)]),
            consume("b", "6", 1).gives(Admitted, [Credit(100, 100)]),
            repay("r1", 60).gives(Applied, [Credit(40, 100), Moved(60), Journaled(true), Day(100, 2)]),
            consume("c", "7", 60).gives(Admitted, [Credit(100, 160)]),
            consume("d", "8", 1).gives(CreditExhausted, []),
            // More than is owed: a balance that is used up first.
            repay("r2", 150).gives(Applied, [Credit(-50, 160)]),
            consume("e", "9", 150).gives(Admitted, [Credit(100, 310)]),
            consume("f", "10", 0).gives(Admitted, [Credit(100, 310)]),
            // A line that was lowered below its exposure takes nothing, not even nothing.
            consume("g", "11", 0).credit(99, NOVEMBER).gives(CreditExhausted, []),
        ],
    );
    check(
        "a line of zero is prepaid",
        &[
            consume("a", "1", 1).credit(0, NOVEMBER).gives(CreditExhausted, [Credit(0, 0)]),
            repay("r1", 10).credit(0, NOVEMBER).gives(Applied, [Credit(-10, 0)]),
            consume("a", "2", 10).credit(0, NOVEMBER).gives(Admitted, [Credit(0, 10)]),
            consume("b", "3", 1).credit(0, NOVEMBER).gives(CreditExhausted, [Credit(0, 10)]),
        ],
    );
    check(
        "repetitions add nothing",
        &[
            consume("a", "1", 60).gives(Admitted, [Credit(60, 60)]),
            consume("a", "1", 60).replayed(Admitted, [Credit(60, 60)]),
            consume("a", "2", 60).replayed(Admitted, [Credit(60, 60)]),
            consume("a", "3", 61).gives(Code::IdempotencyConflict, [Credit(60, 60)]),
        ],
    );
    let max = quota::AmountMinor::MAX.get();
    check(
        "an exposure is bounded by what can be counted",
        &[
            consume("a", "1", max).credit(max, NOVEMBER).gives(Admitted, [Credit(max.cast_signed(), max)]),
            // The server does not know the line any more.
            Row::consume("b", "2", 1)
                .at_days(60)
                .limits(quota::Limits::UNLIMITED)
                .gives(CreditExhausted, [Credit(max.cast_signed(), max)]),
            Row::post(PostingKind::Reversal, "r", 1).gives(Code::BadAmount, []),
            repay("r1", max).gives(Applied, [Credit(0, max)]),
            repay("r2", max).gives(Applied, [Credit(-max.cast_signed(), max)]),
            repay("r3", 1).gives(Code::BadAmount, [Credit(-max.cast_signed(), max)]),
            repay("r4", 0).gives(Code::BadAmount, [Credit(-max.cast_signed(), max)]),
            Row::post(PostingKind::Recovery, "v", 0).gives(Code::BadAmount, []),
            Row::post(PostingKind::Recovery, "v", max).gives(Applied, [Credit(-max.cast_signed(), max)]),
        ],
    );
}

/// The code says whether the line is used up, or only what is left of it while it is overdue.
fn a_capped_line_says_so(check: &mut Check) {
    use Code::{Admitted, CreditExhausted, CreditRestricted};
    let capped = |row: Row| row.capped_credit(50, 100, NOVEMBER);
    check(
        "capped",
        &[
            capped(consume("a", "1", 40)).gives(Admitted, [Credit(40, 40)]),
            capped(consume("b", "2", 20)).gives(CreditRestricted, [Credit(40, 40), Journaled(true)]),
            capped(consume("b", "3", 61)).gives(CreditExhausted, [Credit(40, 40)]),
            capped(consume("b", "4", 60)).gives(CreditRestricted, []),
            capped(consume("b", "5", 10)).gives(Admitted, [Credit(50, 50)]),
        ],
    );
}

/// Q-4: voids, releases and refunds take out of the exposure what their charge has put there, once.
fn q4_what_an_order_gives_back_lowers_the_exposure(check: &mut Check) {
    use Code::{Admitted, Applied, Voided};
    check(
        "a charge",
        &[
            consume("a", "1", 60).gives(Admitted, [Credit(60, 60)]),
            consume("b", "2", 30).gives(Admitted, [Credit(90, 90)]),
            Row::void_attempt("a", "1")
                .credit(100, NOVEMBER)
                .gives(Voided, [Credit(30, 30), Order(OrderState::Open, 0, 0)]),
            Row::void_attempt("a", "1").credit(100, NOVEMBER).replayed(Voided, [Credit(30, 30)]),
            consume("a", "3", 70).gives(Admitted, [Credit(100, 100)]),
            Row::resolve("a", Resolution::NotMade).gives(Voided, [Credit(30, 30)]),
            Row::refund("b", "f1", 10).gives(Applied, [Credit(20, 20)]),
            Row::refund("b", "f1", 10).replayed(Applied, [Credit(20, 20)]),
            Row::reserve("b", "f2", 5).gives(Applied, [Credit(20, 20)]),
            Row::void_attempt("b", "f2").gives(Applied, [Credit(20, 20)]),
            Row::reserve("b", "f3", 5).gives(Applied, [Credit(20, 20)]),
            Row::refund("b", "f3", 5).gives(Applied, [Credit(15, 15)]),
            Row::release("b", "f4", None).gives(Applied, [Credit(0, 0)]),
        ],
    );
}

/// Q-4: a hold is part of the exposure at once, and of the statement when it is captured.
fn q4_holds_count_when_they_are_made_and_are_billed_when_captured(check: &mut Check) {
    use Code::{Admitted, Applied, Voided};
    let settle = |number, minor: u64| Row::settle("a", number, minor).credit(100, NOVEMBER);
    check(
        "captures",
        &[
            hold("a", "1", 60).gives(Admitted, [Credit(60, 0), Pending(60)]),
            settle("c1", 20).gives(Applied, [Credit(60, 20)]),
            settle("c1", 20).replayed(Applied, [Credit(60, 20)]),
            // The last capture returns the rest.
            settle("c2", 30).last().gives(Applied, [Credit(50, 50), Pending(0)]),
            Row::refund("a", "f1", 50).gives(Applied, [Credit(0, 0)]),
        ],
    );
    check(
        "beyond the hold",
        &[
            hold("a", "1", 60).gives(Admitted, [Credit(60, 0)]),
            settle("c1", 66).over_capture_percent(10).gives(Applied, [Credit(66, 66)]),
            // The gateway has captured more: the money has moved.
            settle("c2", 50).reported().gives(Applied, [Credit(116, 116)]),
            consume("b", "2", 0).gives(Code::CreditExhausted, []),
        ],
    );
    check(
        "ends",
        &[
            hold("a", "1", 60).gives(Admitted, [Credit(60, 0)]),
            settle("c1", 20).gives(Applied, [Credit(60, 20)]),
            Row::void("a").gives(Voided, [Credit(20, 20)]),
            hold("b", "2", 30).gives(Admitted, [Credit(50, 20)]),
            Row::expire("b").at_secs(LIFETIME_SECS).gives(Voided, [Credit(20, 20)]),
            Row::hold_to_settle("c", "3", 30)
                .limits(quota::Limits::UNLIMITED)
                .credit(100, NOVEMBER)
                .gives(Admitted, [Credit(50, 20)]),
            Row::expire("c").at_secs(LIFETIME_SECS).gives(Applied, [Credit(50, 50)]),
            hold("d", "4", 10).gives(Admitted, [Credit(60, 50)]),
            Row::void_attempt("d", "4").gives(Voided, [Credit(50, 50)]),
        ],
    );
}

/// The first command of the next cycle closes the one before, once; an earlier cycle is the stored one.
fn a_cycle_closes_with_the_first_command_after_it(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "by a charge",
        &[
            consume("a", "1", 60).gives(Admitted, [Credit(60, 60)]),
            consume("b", "2", 10).at_days(10).credit(100, DECEMBER).gives(Admitted, [Credit(70, 10)]),
            // A server that is behind charges the cycle that is open.
            consume("c", "3", 5).at_days(10).gives(Admitted, [Credit(75, 15)]),
            consume("d", "4", 26).at_days(10).credit(100, DECEMBER).gives(Code::CreditExhausted, [Credit(75, 15)]),
        ],
    );
    check(
        "without traffic",
        &[
            consume("a", "1", 60).gives(Admitted, [Credit(60, 60)]),
            Row::account(Action::Roll).at_days(10).credit(100, DECEMBER).gives(Applied, [Credit(60, 0), Version(2)]),
            Row::account(Action::Roll).at_days(10).credit(100, DECEMBER).replayed(Applied, [Credit(60, 0), Version(2)]),
        ],
    );
    check(
        "a refusal closes nothing",
        &[
            consume("a", "1", 60).gives(Admitted, [Credit(60, 60)]),
            consume("b", "2", 50)
                .at_days(10)
                .credit(100, DECEMBER)
                .gives(Code::CreditExhausted, [Credit(60, 0), Version(1)]),
            consume("c", "3", 1).gives(Admitted, [Credit(61, 61)]),
        ],
    );
}

/// A refund lowers what is unbilled where its charge was billed in the open cycle, and the exposure in any case.
fn refunds_lower_the_cycle_that_billed_them(check: &mut Check) {
    use Code::{Admitted, Applied, Voided};
    let december = |row: Row| row.at_days(10).credit(100, DECEMBER);
    check(
        "across a cycle's end",
        &[
            consume("a", "1", 40).gives(Admitted, [Credit(40, 40)]),
            hold("b", "2", 30).gives(Admitted, [Credit(70, 40)]),
            december(consume("c", "3", 20)).gives(Admitted, [Credit(90, 20)]),
            december(Row::refund("a", "f1", 15)).gives(Applied, [Credit(75, 20)]),
            december(Row::void_attempt("a", "1")).gives(Code::AttemptReleased, [Credit(75, 20)]),
            december(Row::settle("b", "c1", 10)).gives(Applied, [Credit(75, 30)]),
            december(Row::release("b", "f2", None)).gives(Voided, [Credit(55, 30)]),
            december(Row::refund("b", "f3", 10)).gives(Applied, [Credit(45, 20)]),
            december(Row::refund("c", "f4", 20)).gives(Applied, [Credit(25, 0)]),
        ],
    );
}

/// What was charged before the line was opened was never part of its exposure.
fn orders_without_credit_do_not_concern_it(check: &mut Check) {
    use Code::{Admitted, Applied, Voided};
    let before = |row: Row| row.limits(quota::Limits::UNLIMITED);
    check(
        "opened later",
        &[
            before(Row::consume("a", "1", 40)).gives(Admitted, [NoCredit]),
            before(Row::hold("b", "2", 30)).gives(Admitted, [NoCredit]),
            consume("c", "3", 100).gives(Admitted, [Credit(100, 100)]),
            Row::refund("a", "f1", 15).gives(Applied, [Credit(100, 100)]),
            Row::settle("b", "c1", 10).gives(Applied, [Credit(100, 100)]),
            Row::void("b").gives(Voided, [Credit(100, 100)]),
            // A server that does not know the line counts all the same.
            before(Row::consume("d", "4", 5)).gives(Admitted, [Credit(105, 105)]),
            Row::account(Action::Reset(quota::Reset { windows: quota::PerPeriod::all(true), expected_version: None }))
                .gives(Applied, [Credit(105, 105), Day(0, 0)]),
        ],
    );
    check(
        "opened by a roll",
        &[
            before(Row::consume("a", "1", 40)).gives(Admitted, [NoCredit, Version(1)]),
            Row::account(Action::Roll).credit(100, NOVEMBER).gives(Applied, [Credit(0, 0), Version(2)]),
            Row::void_attempt("a", "1").gives(Voided, [Credit(0, 0)]),
        ],
    );
}

/// Q-3: one number of a kind posts once, whatever is repeated; numbers of kinds and of orders are apart.
fn q3_postings_count_once(check: &mut Check) {
    use Code::{Admitted, Applied, IdempotencyConflict};
    check(
        "repayments",
        &[
            consume("n", "1", 60).gives(Admitted, [Credit(60, 60)]),
            repay("n", 10).gives(Applied, [Credit(50, 60), DecisionId(1)]),
            repay("n", 10).replayed(Applied, [Credit(50, 60), DecisionId(1), Journaled(false)]),
            repay("n", 11).gives(IdempotencyConflict, [Credit(50, 60), Journaled(true)]),
            repay("n", 10).currency("EUR").gives(IdempotencyConflict, []),
            Row::post(PostingKind::Reversal, "n", 10).gives(Applied, [Credit(60, 60)]),
            Row::post(PostingKind::Reversal, "n", 10).replayed(Applied, [Credit(60, 60)]),
            Row::post(PostingKind::WriteOff, "n", 60).gives(Applied, [Credit(0, 60)]),
            // It is for what was written off, and has left the exposure already.
            Row::post(PostingKind::Recovery, "n", 60).gives(Applied, [Credit(0, 60), Moved(60), Journaled(true)]),
            Row::post(PostingKind::Recovery, "n", 60).replayed(Applied, [Credit(0, 60), Journaled(false)]),
            Row::post(PostingKind::Recovery, "n", 61).gives(IdempotencyConflict, []),
            repay("m", 10).effect(Effect::DryRun).gives(Applied, [Credit(-10, 60), Journaled(false)]),
            consume("n", "1", 60).replayed(Admitted, [Credit(0, 60)]),
            Row::settle("n", "c", None).gives(Code::OrderClosed, []),
        ],
    );
    check(
        "what was open elsewhere counts above the limit too, and is on no new statement",
        &[
            Row::post(PostingKind::Opening, "o1", 10).gives(Code::CreditUnknown, [NoCredit]),
            Row::post(PostingKind::Opening, "o1", 150).credit(100, NOVEMBER).gives(Applied, [Credit(150, 0)]),
            Row::post(PostingKind::Opening, "o1", 150).credit(100, NOVEMBER).replayed(Applied, [Credit(150, 0)]),
            consume("a", "1", 1).gives(Code::CreditExhausted, [Credit(150, 0)]),
            repay("r1", 60).gives(Applied, [Credit(90, 0)]),
            consume("a", "2", 10).gives(Admitted, [Credit(100, 10)]),
        ],
    );
    check(
        "before any other command",
        &[
            Row::post(PostingKind::Repayment, "r1", 10).gives(Code::CreditUnknown, [NoCredit]),
            Row::post(PostingKind::Recovery, "r1", 10).gives(Code::CreditUnknown, [NoCredit]),
            repay("r1", 10).gives(Applied, [Credit(-10, 0), Version(1)]),
            consume("a", "1", 110).gives(Admitted, []),
        ],
    );
}

/// What is given to another account is part of the exposure, within the limit, and of the statement; what is received lowers the
/// exposure.
fn transfers_are_bounded(check: &mut Check) {
    use Code::{Applied, CreditExhausted, CreditRestricted, Suspended};
    let give = |number, minor| Row::post(PostingKind::TransferOut, number, minor).credit(100, NOVEMBER);
    check(
        "transfers",
        &[
            give("t1", 90).gives(Applied, [Credit(90, 90)]),
            give("t2", 11).gives(CreditExhausted, [Credit(90, 90), Journaled(true)]),
            give("t2", 10).capped_credit(50, 100, NOVEMBER).gives(CreditRestricted, []),
            Row::post(PostingKind::TransferIn, "t1", 50).gives(Applied, [Credit(40, 90)]),
            Row::account(Action::Suspend).gives(Applied, []),
            give("t3", 1).gives(Suspended, [Credit(40, 90)]),
            repay("r1", 40).gives(Applied, [Credit(0, 90)]),
        ],
    );
}

/// Where the server has not read the line, new charges on it are refused if their rule says so. What was admitted is repeated.
fn a_line_that_is_not_known_refuses_where_it_is_to(check: &mut Check) {
    use Code::{Admitted, Applied, CreditUnknown, Voided};
    let unread = |row: Row| row.limits(quota::Limits::UNLIMITED).refusing_unknown_credit();
    check(
        "not read yet",
        &[
            unread(Row::consume("a", "1", 10)).gives(Admitted, [NoCredit]),
            consume("b", "2", 10).refusing_unknown_credit().gives(Admitted, [Credit(10, 10), Version(2)]),
            unread(Row::consume("c", "3", 1)).gives(CreditUnknown, [Credit(10, 10), Day(20, 2), Journaled(true)]),
            unread(Row::consume("c", "4", 0)).gives(CreditUnknown, [Moved(0)]),
            unread(Row::hold("c", "5", 1)).gives(CreditUnknown, [Credit(10, 10), Pending(0), Version(2)]),
            unread(Row::consume("c", "6", 1)).effect(Effect::DryRun).gives(CreditUnknown, [Journaled(false)]),
            unread(Row::consume("b", "2", 10)).replayed(Admitted, [Credit(10, 10)]),
            unread(Row::consume("b", "7", 10)).replayed(Admitted, [Credit(10, 10)]),
            unread(Row::consume("d", "8", 1)).currency("EUR").gives(Admitted, [NoCredit]),
            Row::consume("c", "9", 1).limits(quota::Limits::UNLIMITED).gives(Admitted, [Credit(11, 11)]),
            Row::refund("b", "f1", 10).gives(Applied, [Credit(1, 1)]),
            Row::void_attempt("c", "9").gives(Voided, [Credit(0, 0)]),
            unread(Row::consume("e", "10", 1)).refused_by_policy(Code::CreditFrozen).gives(Code::CreditFrozen, []),
            unread(Row::consume("e", "11", 1)).limits(day_amount(0)).gives(CreditUnknown, []),
            Row::account(Action::Suspend).gives(Applied, []),
            unread(Row::consume("e", "12", 1)).gives(Code::Suspended, []),
        ],
    );
}

/// What refuses a charge whatever its amount comes before limits, and limits before the line.
fn restrictions_come_before_limits(check: &mut Check) {
    let none = quota::Limits::UNLIMITED.with(
        quota::Period::Day,
        quota::WindowLimits { count: quota::AmountMinor::ZERO, ..quota::WindowLimits::UNLIMITED },
    );
    let pending = quota::Limits { pending: quota::AmountMinor::ZERO, ..quota::Limits::UNLIMITED };
    check(
        "order of codes",
        &[
            consume("a", "1", 101).limits(none).refused_by_policy(Code::CreditFrozen).gives(Code::CreditFrozen, []),
            consume("a", "1", 101).limits(none).refused_by_policy(Code::CreditChannel).gives(Code::CreditChannel, []),
            consume("a", "1", 101).limits(none).gives(Code::DailyCount, []),
            hold("a", "1", 101).limits(pending).gives(Code::PendingAmount, []),
            hold("a", "1", 101).gives(Code::CreditExhausted, []),
        ],
    );
}
