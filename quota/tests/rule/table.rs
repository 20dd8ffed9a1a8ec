//! Tables of commands and their answers, for every implementation of the rule: the ledger's tests and the store suite
//! run the same rows. This file has the charges; the other operations have files of their own.

// Named by path, because the store suite includes this file from elsewhere.
#[path = "table/accounts.rs"]
mod accounts;
#[path = "table/alerts.rs"]
mod alerts;
#[path = "table/batches.rs"]
mod batches;
#[path = "table/closed.rs"]
mod closed;
#[path = "table/credit.rs"]
mod credit;
#[path = "table/holds.rs"]
mod holds;
#[path = "table/mistakes.rs"]
mod mistakes;
#[path = "table/outcomes.rs"]
mod outcomes;
#[path = "table/pacing.rs"]
mod pacing;
#[path = "table/refunds.rs"]
mod refunds;
#[path = "table/rights.rs"]
mod rights;
#[path = "table/row.rs"]
pub(crate) mod row;
#[path = "table/suspension.rs"]
mod suspension;
#[path = "table/weights.rs"]
mod weights;

use quota::{AmountMinor, Code, LimitName, Limits, PerPeriod, Period, WindowLimits};
use row::Expected::{Day, DecisionId, Journaled, Month, Moved, Version, Week, Year};
use row::{TTL_SECS, amount, day_amount};

pub(crate) use batches::{Batch, batches};
pub(crate) use row::Row;

/// Takes a table and its name.
type Check<'a> = dyn FnMut(&str, &[Row]) + 'a;

/// Passes every table, with its name, to a checker that starts with an empty store each time.
pub(crate) fn each(check: &mut Check) {
    q1_q2_limits_hold_to_the_unit(check);
    q1_q2_every_limit_is_checked_in_the_order_of_codes(check);
    q3_an_order_is_charged_once(check);
    q3_q4_attempts_and_voids(check);
    holds::each(check);
    outcomes::each(check);
    refunds::each(check);
    closed::each(check);
    credit::each(check);
    weights::each(check);
    rights::each(check);
    suspension::each(check);
    accounts::each(check);
    alerts::each(check);
    pacing::each(check);
    mistakes::each(check);
}

/// a charge is admitted up to the limit and not one unit further; a refusal changes nothing.
fn q1_q2_limits_hold_to_the_unit(check: &mut Check) {
    use Code::{Admitted, DailyAmount, DailyCount, MonthlyAmount, YearlyCount};
    check(
        "amount",
        &[
            Row::consume("a", "1", 99).gives(Admitted, [Day(99, 1), Version(1), Moved(99)]),
            Row::consume("b", "2", 2).gives(DailyAmount, [Day(99, 1), Version(1), Moved(2), Journaled(true)]),
            Row::consume("b", "3", 1).gives(Admitted, [Day(100, 2)]),
            Row::consume("c", "4", 1).gives(DailyAmount, [Day(100, 2)]),
            // A limit that was lowered below the usage refuses even an amount of 0; it applies from the next payment on.
            Row::consume("d", "5", 0).limits(day_amount(99)).gives(DailyAmount, [Day(100, 2)]),
            Row::consume("d", "6", 0).gives(Admitted, [Day(100, 3)]),
            Row::consume("e", "7", 50).limits(day_amount(150)).gives(Admitted, [Day(150, 4)]),
        ],
    );
    let two_a_day = day_amount(0).with(Period::Day, WindowLimits { count: amount(2), ..WindowLimits::UNLIMITED });
    let month = Limits::UNLIMITED.with(Period::Month, WindowLimits { amount: amount(5), ..WindowLimits::UNLIMITED });
    let week = Limits::UNLIMITED.with(Period::Week, WindowLimits { amount: amount(8), ..WindowLimits::UNLIMITED });
    let one_a_week = Limits::UNLIMITED.with(Period::Week, WindowLimits { count: amount(1), ..WindowLimits::UNLIMITED });
    let year = Limits::UNLIMITED.with(Period::Year, WindowLimits { count: amount(3), ..WindowLimits::UNLIMITED });
    check(
        "others",
        &[
            Row::consume("a", "1", 3).limits(month).gives(Admitted, [Day(3, 1), Month(3, 1), Year(3, 1)]),
            Row::consume("b", "2", 3).limits(month).gives(MonthlyAmount, [Day(3, 1)]),
            Row::consume("b", "3", 2).limits(month).gives(Admitted, [Day(5, 2)]),
            Row::consume("c", "4", 2).limits(two_a_day).gives(DailyCount, [Day(5, 2)]),
            Row::consume("c", "5", 2).limits(year).gives(Admitted, [Day(7, 3)]),
            Row::consume("d", "6", 2).limits(year).gives(YearlyCount, [Day(7, 3)]),
            // The next day begins at 0, and on Monday the week.
            Row::consume("g", "w1", 1).at_days(1).limits(week).gives(Admitted, [Day(1, 1), Week(8, 4)]),
            Row::consume("h", "w2", 1).at_days(1).limits(week).gives(Code::WeeklyAmount, [Day(1, 1), Week(8, 4)]),
            Row::consume("h", "w3", 1).at_days(2).limits(week).gives(Admitted, [Week(1, 1), Month(9, 5)]),
            Row::consume("i", "w4", 1).at_days(2).limits(one_a_week).gives(Code::WeeklyCount, [Week(1, 1)]),
            // The next day and the next month begin at 0, the year continues.
            Row::consume("e", "7", 1).at_days(10).limits(month).gives(Admitted, [Day(1, 1), Month(1, 1), Year(10, 6)]),
            Row::consume("f", "8", 1).at_days(10).limits(year).gives(YearlyCount, [Year(10, 6)]),
        ],
    );
    let max = AmountMinor::MAX.get();
    check(
        "no limit is bounded by what a counter can hold",
        &[
            Row::consume("a", "1", max).limits(Limits::UNLIMITED).gives(Admitted, [Day(max, 1), Year(max, 1)]),
            Row::consume("b", "2", 1).limits(Limits::UNLIMITED).gives(DailyAmount, [Day(max, 1)]),
            Row::consume("b", "3", 1).at_days(1).limits(Limits::UNLIMITED).gives(Code::WeeklyAmount, [Day(0, 0)]),
            Row::consume("b", "3", 1).at_days(2).limits(Limits::UNLIMITED).gives(Code::MonthlyAmount, [Week(0, 0)]),
            Row::consume("b", "4", 1).at_days(10).limits(Limits::UNLIMITED).gives(Code::YearlyAmount, [Month(0, 0)]),
            Row::consume("b", "5", 1).at_days(41).limits(Limits::UNLIMITED).gives(Admitted, [Year(1, 1)]),
        ],
    );
}

/// where several limits would be broken, the first in the order of codes is named, and none is consumed.
fn q1_q2_every_limit_is_checked_in_the_order_of_codes(check: &mut Check) {
    let none = |window: WindowLimits| WindowLimits { count: AmountMinor::ZERO, ..window };
    let small = WindowLimits { amount: amount(4), ..WindowLimits::UNLIMITED };
    let mut limits = Limits { windows: PerPeriod::all(none(small)), pending: amount(4) };
    let open = AmountMinor::MAX;
    let mut rows = Vec::new();
    let mut refuses = |limits, code| {
        rows.push(Row::hold("a", "1", 5).limits(limits).gives(code, [Day(0, 0), Month(0, 0), Year(0, 0), Version(0)]));
    };
    refuses(limits, Code::DailyCount);
    *LimitName::DailyCount.max_mut(&mut limits) = open;
    refuses(limits, Code::WeeklyCount);
    *LimitName::WeeklyCount.max_mut(&mut limits) = open;
    refuses(limits, Code::MonthlyCount);
    *LimitName::MonthlyCount.max_mut(&mut limits) = open;
    refuses(limits, Code::YearlyCount);
    *LimitName::YearlyCount.max_mut(&mut limits) = open;
    refuses(limits, Code::DailyAmount);
    *LimitName::DailyAmount.max_mut(&mut limits) = open;
    refuses(limits, Code::WeeklyAmount);
    *LimitName::WeeklyAmount.max_mut(&mut limits) = open;
    refuses(limits, Code::MonthlyAmount);
    *LimitName::MonthlyAmount.max_mut(&mut limits) = open;
    refuses(limits, Code::YearlyAmount);
    *LimitName::YearlyAmount.max_mut(&mut limits) = open;
    refuses(limits, Code::PendingAmount);
    limits.pending = open;
    refuses(limits, Code::Admitted);
    rows.pop();
    let by_policy = Row::hold("a", "1", 5).limits(limits.with(Period::Day, none(small)));
    for code in [
        Code::PolicyMissing,
        Code::MerchantUnknown,
        Code::ChannelNotAllowed,
        Code::CurrencyNotAllowed,
        Code::BelowSingleMin,
    ] {
        rows.push(by_policy.clone().refused_by_policy(code).gives(code, [Day(0, 0), Version(0)]));
    }
    rows.push(Row::hold("a", "1", 5).limits(limits).gives(Code::Admitted, [Day(5, 1), Month(5, 1), Year(5, 1)]));
    check("the order of codes", &rows);
}

/// one order consumes once, however often it is repeated.
fn q3_an_order_is_charged_once(check: &mut Check) {
    use Code::{Admitted, IdempotencyConflict};
    check(
        "replays",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1), DecisionId(0), Journaled(true)]),
            // The same attempt: nothing changes. Another attempt: it is stored with the order and journaled.
            Row::consume("a", "1", 60).replayed(Admitted, [Day(60, 1), DecisionId(0), Journaled(false)]),
            Row::consume("a", "2", 60).replayed(Admitted, [Day(60, 1), DecisionId(0), Journaled(true), Version(1)]),
            Row::consume("a", "3", 61).gives(IdempotencyConflict, [Day(60, 1), DecisionId(3)]),
            Row::hold("a", "3", 60).gives(IdempotencyConflict, [Day(60, 1)]),
            // A replay takes precedence over every limit, also one lowered since, and over the current policy.
            Row::consume("a", "4", 60).limits(day_amount(0)).replayed(Admitted, [Day(60, 1)]),
            Row::consume("a", "5", 60).refused_by_policy(Code::PolicyMissing).replayed(Admitted, [Day(60, 1)]),
            Row::consume("a", "6", 60).at_days(2).replayed(Admitted, [Day(0, 0)]),
            // Evicted after its time, to the second.
            Row::consume("a", "7", 61).at_secs(2 * 86_400 + TTL_SECS - 1).gives(IdempotencyConflict, [Day(0, 0)]),
            Row::consume("a", "8", 61).at_secs(2 * 86_400 + TTL_SECS).gives(Admitted, [Day(61, 1)]),
        ],
    );
}

/// voids by attempt, in whatever order attempts and voids arrive.
fn q3_q4_attempts_and_voids(check: &mut Check) {
    use Code::{Admitted, AttemptReleased, AttemptVoided, DailyAmount, Tombstoned, Voided};
    check(
        "the last live attempt returns the charge, once",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::consume("a", "2", 60).replayed(Admitted, [Day(60, 1)]),
            Row::void_attempt("a", "1").gives(AttemptReleased, [Day(60, 1)]),
            Row::void_attempt("a", "1").replayed(AttemptReleased, [Day(60, 1), Journaled(false)]),
            Row::void_attempt("a", "2").gives(Voided, [Day(0, 0), Month(0, 0), Year(0, 0), Moved(60)]),
            Row::void_attempt("a", "2").replayed(Voided, [Day(0, 0), Journaled(false)]),
            Row::consume("a", "1", 60).gives(AttemptVoided, [Day(0, 0)]),
            Row::consume("a", "3", 70).gives(Admitted, [Day(70, 1)]),
        ],
    );
    check(
        "a void that overtakes its attempt",
        &[
            Row::void_attempt("a", "1").gives(Tombstoned, [Day(0, 0), Version(0)]),
            Row::consume("a", "1", 60).gives(AttemptVoided, [Day(0, 0)]),
            Row::hold("a", "1", 60).gives(AttemptVoided, [Day(0, 0)]),
            Row::consume("a", "2", 60).gives(Admitted, [Day(60, 1)]),
            Row::void_attempt("a", "3").gives(Tombstoned, [Day(60, 1)]),
            Row::consume("a", "3", 60).gives(AttemptVoided, [Day(60, 1)]),
            Row::consume("b", "4", 60).gives(DailyAmount, [Day(60, 1)]),
            Row::void_attempt("b", "4").gives(Tombstoned, [Day(60, 1)]),
        ],
    );
    check(
        "another currency",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::consume("a", "2", 60).currency("EUR").gives(Code::IdempotencyConflict, [Day(0, 0)]),
            // The void of an attempt that was never admitted is no conflict: a late attempt must find its tombstone.
            Row::void_attempt("a", "3").currency("EUR").gives(Tombstoned, [Day(0, 0)]),
            Row::void_attempt("a", "1").currency("EUR").gives(Code::IdempotencyConflict, [Day(0, 0)]),
            Row::void_attempt("a", "1").gives(Voided, [Day(0, 0)]),
            Row::consume("a", "3", 60).currency("EUR").gives(AttemptVoided, [Day(0, 0)]),
            Row::consume("a", "4", 60).currency("EUR").gives(Admitted, [Day(60, 1)]),
        ],
    );
    check(
        "a charge goes back into the windows it came from or into none",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Day(60, 1)]),
            Row::consume("b", "2", 30).at_days(1).limits(Limits::UNLIMITED).gives(Admitted, [Day(30, 1), Month(90, 2)]),
            Row::void_attempt("a", "1").at_days(1).gives(Voided, [Day(30, 1), Month(30, 1), Year(30, 1)]),
            // A clock that lags by a day: the closed window is not opened again.
            Row::consume("c", "3", 70).gives(Admitted, [Day(100, 2)]),
            Row::consume("d", "4", 1).gives(DailyAmount, [Day(100, 2)]),
        ],
    );
}
