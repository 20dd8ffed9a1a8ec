//! Operators' commands on an account: corrections, resets, suspension, and maintenance.

use quota::{Action, AmountMinor, Change, Code, CounterName, Effect, OrderState, Period};

use super::Check;
use super::row::Expected::{
    Day, DecisionId, Journaled, Month, Moved, Order, Pending, Refunded, RefundedOfWeek, Suspended, Version, Week, Year,
};
use super::row::{Row, amount};

pub(crate) fn each(check: &mut Check) {
    every_counter_is_adjusted(check);
    adjustments(check);
    resets(check);
    a_reset_closes_the_way_back(check);
    suspension(check);
    upkeep(check);
    dry_runs(check);
}

fn add(minor: u64) -> Change {
    Change::Add(amount(minor))
}

fn subtract(minor: u64) -> Change {
    Change::Subtract(amount(minor))
}

fn set(minor: u64) -> Change {
    Change::Set(amount(minor))
}

/// Each counter by itself: increased, decreased and set, and no other counter changes.
fn every_counter_is_adjusted(check: &mut Check) {
    for counter in CounterName::ALL {
        let expected = |value: u64| {
            let only = |this| if this == counter { value } else { 0 };
            let amount = |period| only(CounterName::Amount(period));
            let count = |period| only(CounterName::Count(period));
            let refunded = |period| only(CounterName::Refunded(period));
            [
                Day(amount(Period::Day), count(Period::Day)),
                Week(amount(Period::Week), count(Period::Week)),
                Month(amount(Period::Month), count(Period::Month)),
                Year(amount(Period::Year), count(Period::Year)),
                Refunded(refunded(Period::Day), refunded(Period::Month), refunded(Period::Year)),
                RefundedOfWeek(refunded(Period::Week)),
                Pending(only(CounterName::Pending)),
            ]
        };
        check(
            counter.as_str(),
            &[
                Row::adjust(counter, add(70)).gives(Code::Applied, expected(70)),
                Row::adjust(counter, subtract(30)).gives(Code::Applied, expected(40)),
                Row::adjust(counter, subtract(41)).gives(Code::BadAmount, expected(40)),
                Row::adjust(counter, set(7)).gives(Code::Applied, expected(7)),
                Row::adjust(counter, add(AmountMinor::MAX.get())).gives(Code::BadAmount, expected(7)),
                Row::adjust(counter, set(AmountMinor::MAX.get()))
                    .gives(Code::Applied, expected(AmountMinor::MAX.get())),
                Row::adjust(counter, add(1)).gives(Code::BadAmount, [Version(4)]),
                Row::adjust(counter, subtract(AmountMinor::MAX.get())).gives(Code::Applied, expected(0)),
            ],
        );
    }
}

fn adjustments(check: &mut Check) {
    use Code::{Admitted, Applied, DailyAmount, VersionConflict};
    let used = CounterName::Amount(Period::Day);
    check(
        "an adjustment counts with the next charge",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Version(1)]),
            Row::adjust(used, add(30))
                .gives(Applied, [Day(90, 1), Month(60, 1), Moved(30), Version(2), Journaled(true)]),
            Row::consume("b", "2", 11).gives(DailyAmount, [Day(90, 1)]),
            Row::consume("b", "3", 10).gives(Admitted, [Day(100, 2)]),
            // Never below 0, whatever is returned after a correction.
            Row::adjust(used, set(5)).gives(Applied, [Day(5, 2)]),
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(0, 1), Month(10, 1)]),
        ],
    );
    check(
        "a change decided on another version",
        &[
            Row::adjust(used, add(1)).expecting_version(1).gives(VersionConflict, [Day(0, 0), Version(0)]),
            Row::adjust(used, add(1)).expecting_version(0).gives(Applied, [Day(1, 0), Version(1)]),
            Row::adjust(used, add(1)).expecting_version(0).gives(VersionConflict, [Day(1, 0), Version(1)]),
            Row::reset(&[Period::Day]).expecting_version(0).gives(VersionConflict, [Day(1, 0), Version(1)]),
            Row::consume("a", "1", 5).gives(Admitted, [Version(2)]),
            Row::adjust(used, set(0)).expecting_version(1).gives(VersionConflict, [Day(6, 1)]),
            Row::reset(&[Period::Day]).expecting_version(2).gives(Applied, [Day(0, 0), Version(3)]),
        ],
    );
}

fn resets(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "resets by window",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::consume("b", "2", 10).gives(Admitted, []),
            Row::refund("b", "r1", 10).gives(Applied, [Day(60, 2), Refunded(10, 10, 10)]),
            Row::reset(&[Period::Month]).gives(Applied, [Day(60, 2), Month(0, 0), Year(60, 2), Refunded(10, 0, 10)]),
            Row::reset(&[Period::Day, Period::Year]).gives(Applied, [Day(0, 0), Year(0, 0), Refunded(0, 0, 0)]),
            // The pending amount belongs to no window: only the end of the hold changes it.
            Row::reset(&Period::ALL).gives(Applied, [Pending(60), Version(6)]),
            Row::consume("c", "3", 100).gives(Admitted, [Day(100, 1)]),
        ],
    );
    check(
        "a reset of the week alone",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Week(60, 1)]),
            Row::reset(&[Period::Week]).gives(Applied, [Day(60, 1), Week(0, 0), Month(60, 1), Version(2)]),
            Row::consume("b", "2", 40).gives(Admitted, [Day(100, 2), Week(40, 1)]),
            // The first charge is of before the reset.
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(40, 1), Week(40, 1)]),
            Row::refund("b", "r1", 10).gives(Applied, [Week(30, 1), RefundedOfWeek(10)]),
            // On Monday the week begins anew: what is returned of the one before changes nothing.
            Row::refund("b", "r2", 10).at_days(2).gives(Applied, [Week(0, 0), RefundedOfWeek(10), Month(20, 1)]),
        ],
    );
    check(
        "a reset of an account that is not there",
        &[Row::reset(&Period::ALL).gives(Applied, [Day(0, 0), Version(1)])],
    );
}

/// A charge made before a reset is not returned to the window after it.
fn a_reset_closes_the_way_back(check: &mut Check) {
    use Code::{Admitted, Applied, Voided};
    check(
        "void after a reset",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1), Month(60, 1)]),
            Row::reset(&[Period::Day]).gives(Applied, [Day(0, 0)]),
            Row::consume("b", "2", 90).gives(Admitted, [Day(90, 1), Month(150, 2)]),
            Row::void_attempt("a", "1").gives(Voided, [Day(90, 1), Month(90, 1), Year(90, 1)]),
            Row::void_attempt("b", "2").gives(Voided, [Day(0, 0), Month(0, 0)]),
        ],
    );
    check(
        "captures after a reset",
        &[
            Row::hold("a", "1", 60).gives(Admitted, []),
            Row::reset(&Period::ALL).gives(Applied, [Day(0, 0), Pending(60)]),
            Row::consume("b", "2", 30).gives(Admitted, [Day(30, 1)]),
            Row::settle("a", "c1", 20).last().gives(Applied, [Day(30, 1), Year(30, 1), Pending(0)]),
        ],
    );
    // The first 255 resets of a window are distinguished.
    let mut rows = vec![Row::consume("a", "1", 60).gives(Admitted, [])];
    rows.extend((0..255).map(|_| Row::reset(&[Period::Day]).gives(Applied, [Day(0, 0)])));
    rows.push(Row::consume("b", "2", 90).gives(Admitted, []));
    rows.push(Row::void_attempt("a", "1").gives(Voided, [Day(90, 1)]));
    check("many resets", &rows);
}

/// A suspended account accepts no charge, not even one that was admitted before. Captures, voids and refunds go on.
fn suspension(check: &mut Check) {
    use Code::{Admitted, Applied, Suspended as Refused};
    check(
        "suspension",
        &[
            Row::hold("a", "1", 60).gives(Admitted, [Suspended(false)]),
            Row::account(Action::Suspend).gives(Applied, [Suspended(true), Version(2), Journaled(true)]),
            Row::account(Action::Suspend).replayed(Applied, [Suspended(true), Version(2), Journaled(false)]),
            Row::consume("b", "2", 1).gives(Refused, [Suspended(true), Day(60, 1), Journaled(true)]),
            Row::hold("b", "2", 1).gives(Refused, [Pending(60)]),
            Row::consume("b", "2", 1).effect(Effect::DryRun).gives(Refused, []),
            // After a missing policy, before every other rule of a policy.
            Row::consume("b", "2", 1).refused_by_policy(Code::PolicyMissing).gives(Code::PolicyMissing, []),
            Row::consume("b", "2", 1).refused_by_policy(Code::ChannelNotAllowed).gives(Refused, []),
            Row::hold("a", "1", 60).gives(Refused, [Journaled(true)]),
            Row::hold("a", "3", 60).gives(Refused, [Pending(60)]),
            Row::settle("a", "c1", 20)
                .last()
                .gives(Applied, [Day(20, 1), Pending(0), Order(OrderState::Settled, 20, 0)]),
            Row::refund("a", "r1", 20).gives(Applied, [Day(0, 1)]),
            // Beyond the end of every window.
            Row::consume("b", "2", 1).at_days(41).gives(Refused, [Year(0, 0)]),
            Row::consume("e", "9", 1).currency("EUR").gives(Admitted, [Suspended(false)]),
            Row::account(Action::Resume).at_days(41).gives(Applied, [Suspended(false), Journaled(true)]),
            Row::account(Action::Resume).at_days(41).replayed(Applied, [Suspended(false), Journaled(false)]),
            Row::consume("b", "2", 1).at_days(41).gives(Admitted, [Day(1, 1)]),
        ],
    );
    check("resuming an account that is not there", &[Row::account(Action::Resume).replayed(Applied, [Version(0)])]);
    check(
        "suspending an account that is not there",
        &[
            Row::account(Action::Suspend).gives(Applied, [Suspended(true), Version(1)]),
            Row::consume("a", "1", 1).gives(Refused, [Version(1)]),
        ],
    );
}

/// Creating an account, and closing ended windows without a charge.
fn upkeep(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "roll",
        &[
            Row::account(Action::Roll).replayed(Applied, [Version(0), Journaled(false)]),
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::account(Action::Roll).replayed(Applied, [Day(60, 1), Version(1), Journaled(false)]),
            Row::account(Action::Roll)
                .at_days(1)
                .gives(Applied, [Day(0, 0), Month(60, 1), Version(2), Journaled(true)]),
            Row::account(Action::Roll).at_days(1).replayed(Applied, [Version(2), Journaled(false)]),
            // A server with a lagging clock neither rolls back nor opens a closed window.
            Row::account(Action::Roll).replayed(Applied, [Day(0, 0), Version(2)]),
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(0, 0), Month(0, 0)]),
            Row::account(Action::Roll).at_days(41).gives(Applied, [Year(0, 0)]),
        ],
    );
}

/// A dry run is answered as the real one would be, and changes nothing.
fn dry_runs(check: &mut Check) {
    use Code::{Admitted, Applied, DailyAmount};
    let dry_run = |row: Row| row.effect(Effect::DryRun);
    let dry_run_journaled = |row: Row| row.effect(Effect::DryRunJournaled);
    check(
        "dry runs",
        &[
            dry_run(Row::consume("a", "1", 60)).gives(Admitted, [Day(60, 1), Journaled(false)]),
            dry_run_journaled(Row::consume("a", "1", 60)).gives(Admitted, [Day(60, 1), Journaled(false)]),
            dry_run(Row::consume("a", "1", 101)).gives(DailyAmount, [Day(0, 0), Journaled(false)]),
            // A caller was refused because of it.
            dry_run_journaled(Row::consume("a", "1", 101)).gives(DailyAmount, [Day(0, 0), Journaled(true)]),
            dry_run(Row::void_attempt("a", "1")).gives(Code::Tombstoned, [Journaled(false)]),
            Row::hold("a", "1", 60).gives(Admitted, [Day(60, 1), Pending(60), Version(1), DecisionId(5)]),
            dry_run(Row::settle("a", "c1", 20)).gives(Applied, [Pending(40)]),
            dry_run(Row::void("a")).gives(Code::Voided, [Day(0, 0), Pending(0)]),
            // The simulated result has the current version: a change may be based on it.
            dry_run(Row::reset(&Period::ALL)).gives(Applied, [Day(0, 0), Version(1)]),
            dry_run(Row::account(Action::Suspend)).gives(Applied, [Suspended(true)]),
            dry_run(Row::account(Action::Roll)).at_days(1).gives(Applied, [Day(0, 0)]),
            dry_run_journaled(Row::refund("a", "r1", 1)).gives(Code::RefundExceedsOrder, [Journaled(true)]),
            // Unchanged.
            Row::hold("a", "1", 60)
                .replayed(Admitted, [Day(60, 1), Pending(60), Version(1), DecisionId(5), Suspended(false)]),
        ],
    );
}
