//! Mistakes found in other quota services, each as the table that it would break.

use quota::{Action, AmountMinor, Change, Code, CounterName, Effect, Limits, OrderState, Period, WindowLimits};

use super::Check;
use super::row::Expected::{Day, DecisionId, Journaled, Month, Order, Pending, Refunded, Version, Year};
use super::row::{LIFETIME_SECS, Row, amount};

pub(crate) fn each(check: &mut Check) {
    charges(check);
    releases(check);
    limits_that_are_stored_are_checked(check);
    accounts(check);
    holds(check);
}

fn charges(check: &mut Check) {
    use Code::{Admitted, DailyAmount};
    check(
        "check and consume in two steps: a check promises nothing",
        &[
            Row::consume("a", "1", 60).effect(Effect::DryRun).gives(Admitted, [Day(60, 1)]),
            Row::consume("b", "2", 60).effect(Effect::DryRun).gives(Admitted, [Day(60, 1)]),
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::consume("b", "2", 60).gives(DailyAmount, [Day(60, 1)]),
        ],
    );
    check(
        "the last order's number stored and never compared: no order consumes twice, the last one or an earlier one",
        &[
            Row::consume("a", "1", 20).gives(Admitted, [Day(20, 1)]),
            Row::consume("a", "2", 20).replayed(Admitted, [Day(20, 1)]),
            Row::consume("b", "3", 20).gives(Admitted, [Day(40, 2)]),
            Row::consume("a", "4", 20).replayed(Admitted, [Day(40, 2), DecisionId(0)]),
        ],
    );
    let hundred = AmountMinor::new(100).unwrap_or_default();
    let all = WindowLimits { amount: hundred, count: hundred, ..WindowLimits::UNLIMITED };
    let limits = Limits::UNLIMITED
        .with(Period::Day, all)
        .with(Period::Month, all)
        .with(Period::Year, WindowLimits { amount: amount(5), count: hundred, ..WindowLimits::UNLIMITED });
    check(
        "a refused charge burns other limits: it changes none",
        &[
            Row::consume("a", "1", 6).limits(limits).gives(Code::YearlyAmount, [Day(0, 0), Month(0, 0), Year(0, 0)]),
            Row::consume("a", "2", 5).limits(limits).gives(Admitted, [Day(5, 1), Month(5, 1), Year(5, 1), Version(1)]),
        ],
    );
}

fn releases(check: &mut Check) {
    use Code::{Admitted, Applied, OrderUnknown, RefundExceedsOrder, Voided};
    check(
        "release lowers only what is pending: it lowers what is used",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Day(60, 1), Pending(60)]),
            Row::release("a", "r1", 60).gives(Voided, [Day(0, 0), Month(0, 0), Year(0, 0), Pending(0)]),
            Row::consume("b", "2", 60).gives(Admitted, [Day(60, 1)]),
            Row::release("b", "r1", 60).gives(Applied, [Day(0, 1), Month(0, 1), Year(0, 1), Pending(0)]),
        ],
    );
    check(
        "release needs no earlier consume: it is of an order that was charged",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::release("b", "r1", 60).gives(OrderUnknown, [Day(60, 1), Refunded(0, 0, 0)]),
            Row::refund("b", "r1", 60).gives(OrderUnknown, [Day(60, 1)]),
            Row::void("b").gives(OrderUnknown, [Day(60, 1)]),
            Row::settle("b", "c1", 60).gives(OrderUnknown, [Day(60, 1)]),
        ],
    );
    check(
        "release can be repeated below nothing: it is taken once, and never returns more than the order",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::consume("b", "2", 30).gives(Admitted, [Day(90, 2)]),
            Row::release("a", "r1", 60).gives(Applied, [Day(30, 2), Refunded(60, 60, 60)]),
            Row::release("a", "r1", 60).replayed(Applied, [Day(30, 2), Refunded(60, 60, 60), Journaled(false)]),
            Row::release("a", "r2", 60).gives(RefundExceedsOrder, [Day(30, 2), Refunded(60, 60, 60)]),
        ],
    );
    check(
        "a refund taken from today's window though the charge was yesterday's: today's stays",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::consume("b", "2", 40).at_days(1).gives(Admitted, [Day(40, 1), Month(100, 2)]),
            Row::refund("a", "r1", 60).at_days(1).gives(Applied, [Day(40, 1), Month(40, 2), Refunded(60, 60, 60)]),
        ],
    );
}

fn limits_that_are_stored_are_checked(check: &mut Check) {
    use Code::{Admitted, Applied};
    let amounts = |max| WindowLimits { amount: amount(max), ..WindowLimits::UNLIMITED };
    let counts = |max| WindowLimits { count: amount(max), ..WindowLimits::UNLIMITED };
    let free = Limits::UNLIMITED;
    let limits = [
        (free.with(Period::Day, amounts(15)), Code::DailyAmount),
        (free.with(Period::Month, amounts(15)), Code::MonthlyAmount),
        (free.with(Period::Year, amounts(15)), Code::YearlyAmount),
        (free.with(Period::Day, counts(1)), Code::DailyCount),
        (free.with(Period::Month, counts(1)), Code::MonthlyCount),
        (free.with(Period::Year, counts(1)), Code::YearlyCount),
        (Limits { pending: amount(15), ..free }, Code::PendingAmount),
    ];
    for (limits, code) in limits {
        check(
            &format!("limits stored and never checked: {}", code.as_str()),
            &[
                Row::hold("a", "1", 10).limits(limits).gives(Admitted, [Day(10, 1), Pending(10)]),
                Row::hold("b", "2", 10).limits(limits).gives(code, [Day(10, 1), Pending(10), Version(1)]),
            ],
        );
    }
    for (daily, monthly, code) in [(15, 99, Code::RefundDaily), (99, 15, Code::RefundMonthly)] {
        check(
            &format!("limits stored and never checked: {}", code.as_str()),
            &[
                Row::consume("a", "1", 60).gives(Admitted, []),
                Row::refund("a", "r1", 10).refund_limits(daily, monthly).gives(Applied, [Refunded(10, 10, 10)]),
                Row::refund("a", "r2", 10)
                    .refund_limits(daily, monthly)
                    .gives(code, [Refunded(10, 10, 10), Day(50, 1)]),
            ],
        );
    }
}

fn accounts(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "a version column without a version predicate: of two changes decided on one version, one is made",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Version(1)]),
            Row::adjust(CounterName::Amount(Period::Day), Change::Set(amount(10)))
                .expecting_version(1)
                .gives(Applied, [Day(10, 1), Version(2)]),
            Row::adjust(CounterName::Amount(Period::Day), Change::Set(amount(20)))
                .expecting_version(1)
                .gives(Code::VersionConflict, [Day(10, 1), Version(2)]),
        ],
    );
    check(
        "a reset forgets the transaction counters: it empties amounts, counts and refunds",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::refund("a", "r1", 10).gives(Applied, [Day(50, 1), Refunded(10, 10, 10)]),
            Row::reset(&Period::ALL).gives(Applied, [Day(0, 0), Month(0, 0), Year(0, 0), Refunded(0, 0, 0)]),
        ],
    );
    check(
        "a reset job's tick is missed: a window ends without one",
        &[
            Row::consume("a", "1", 100).gives(Admitted, [Day(100, 1)]),
            Row::consume("b", "2", 100).at_days(10).gives(Admitted, [Day(100, 1), Month(100, 1), Year(200, 2)]),
        ],
    );
    check(
        "initialising at once makes duplicates: the second finds the account",
        &[
            Row::account(Action::Initialize).gives(Applied, [Version(1), Journaled(true)]),
            Row::account(Action::Initialize).replayed(Applied, [Version(1), Journaled(false)]),
            Row::consume("a", "1", 60).gives(Admitted, [Version(2)]),
            Row::account(Action::Initialize).replayed(Applied, [Day(60, 1), Version(2)]),
        ],
    );
    check(
        "balances go below nothing because a decrement has no condition",
        &[
            Row::consume("a", "1", 60).gives(Admitted, []),
            Row::adjust(CounterName::Amount(Period::Day), Change::Subtract(amount(61)))
                .gives(Code::BadAmount, [Day(60, 1), Version(1)]),
            Row::reset(&[Period::Day]).gives(Applied, [Day(0, 0)]),
            Row::refund("a", "r1", 60).gives(Applied, [Day(0, 0), Month(0, 1)]),
        ],
    );
}

fn holds(check: &mut Check) {
    use Code::{Admitted, Applied, OrderClosed, Voided};
    check(
        "a hold leaks when its process dies: it ends by itself",
        &[
            Row::hold("a", "1", 100).gives(Admitted, [Pending(100)]),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(Voided, [Day(0, 0), Pending(0)]),
            Row::hold("b", "2", 100).at_secs(LIFETIME_SECS).gives(Admitted, [Day(100, 1)]),
        ],
    );
    check(
        "returns are not idempotent: a hold that is captured, voided and due returns what it holds once",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::consume("b", "2", 40).gives(Admitted, [Day(100, 2)]),
            Row::settle("a", "c1", 20).last().gives(Applied, [Day(60, 2), Pending(0)]),
            Row::settle("a", "c1", 20).last().replayed(Applied, [Day(60, 2), DecisionId(2)]),
            Row::void("a").gives(OrderClosed, [Day(60, 2), Pending(0)]),
            Row::expire("a").at_secs(LIFETIME_SECS).gives(OrderClosed, [Day(60, 2), Order(OrderState::Settled, 20, 0)]),
        ],
    );
}
