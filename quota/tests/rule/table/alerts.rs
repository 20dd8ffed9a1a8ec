//! Thresholds that usage has reached after each command.

use quota::LimitName::{
    DailyAmount, DailyCount, MonthlyAmount, PendingAmount, WeeklyAmount, WeeklyCount, YearlyAmount,
};
use quota::{Action, Change, Code, CounterName, Limits, PerPeriod, Period, WindowLimits};

use super::Check;
use super::row::Expected::{Day, Journaled, Month, Pending, Reached, Version};
use super::row::{LIFETIME_SECS, Row, amount, day_amount};

pub(super) fn each(check: &mut Check) {
    payments(check);
    returned(check);
    by_hand(check);
    windows(check);
    limits(check);
    lists(check);
    every_limit(check);
}

/// A threshold is reached at its value, and left below it.
fn payments(check: &mut Check) {
    use Code::{Admitted, DailyAmount as Refused};
    check(
        "payments",
        &[
            Row::consume("a", "1", 79).gives(Admitted, [Day(79, 1), Reached(DailyAmount, 0)]),
            Row::consume("b", "2", 1).gives(Admitted, [Day(80, 2), Reached(DailyAmount, 1)]),
            Row::consume("b", "2", 1).replayed(Admitted, [Reached(DailyAmount, 1), Journaled(false)]),
            Row::consume("c", "3", 19).gives(Admitted, [Day(99, 3), Reached(DailyAmount, 1)]),
            Row::consume("d", "4", 2).gives(Refused, [Day(99, 3), Reached(DailyAmount, 1)]),
            Row::consume("e", "5", 1).gives(Admitted, [Day(100, 4), Reached(DailyAmount, 2)]),
        ],
    );
    check(
        "both at once",
        &[
            Row::consume("a", "1", 100).gives(Admitted, [Reached(DailyAmount, 2), Reached(DailyCount, 0)]),
            Row::consume("b", "2", 1).currency("EUR").gives(Admitted, [Reached(DailyAmount, 0)]),
        ],
    );
}

/// Returned quota takes usage below its thresholds.
fn returned(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptReleased, Voided};
    check(
        "voids, refunds and holds",
        &[
            Row::consume("a", "1", 30).gives(Admitted, [Reached(DailyAmount, 0)]),
            Row::consume("b", "2", 70).gives(Admitted, [Reached(DailyAmount, 2)]),
            Row::consume("b", "3", 70).replayed(Admitted, [Reached(DailyAmount, 2)]),
            Row::void_attempt("b", "3").gives(AttemptReleased, [Reached(DailyAmount, 2)]),
            Row::refund("b", "r1", 1).gives(Applied, [Day(99, 2), Reached(DailyAmount, 1)]),
            Row::refund("b", "r2", 20).gives(Applied, [Day(79, 2), Reached(DailyAmount, 0)]),
            Row::consume("c", "4", 21).gives(Admitted, [Day(100, 3), Reached(DailyAmount, 2)]),
            Row::void_attempt("a", "1").gives(Voided, [Day(70, 2), Reached(DailyAmount, 0)]),
            Row::hold("d", "5", 30).gives(Admitted, [Day(100, 3), Reached(DailyAmount, 2)]),
            Row::settle("d", "s", 5).last().gives(Applied, [Day(75, 3), Reached(DailyAmount, 0)]),
            Row::hold("e", "6", 25).gives(Admitted, [Reached(DailyAmount, 2)]),
            Row::expire("e").at_secs(LIFETIME_SECS).gives(Voided, [Day(75, 3), Reached(DailyAmount, 0)]),
        ],
    );
}

fn by_hand(check: &mut Check) {
    use Code::{Admitted, Applied};
    let used = CounterName::Amount(Period::Day);
    check(
        "corrections",
        &[
            Row::adjust(used, Change::Add(amount(85))).gives(Applied, [Reached(DailyAmount, 1)]),
            Row::adjust(used, Change::Set(amount(150))).gives(Applied, [Reached(DailyAmount, 2)]),
            Row::adjust(used, Change::Subtract(amount(71))).gives(Applied, [Day(79, 0), Reached(DailyAmount, 0)]),
            Row::adjust(used, Change::Set(amount(80))).gives(Applied, [Reached(DailyAmount, 1)]),
            Row::account(Action::Suspend).gives(Applied, [Reached(DailyAmount, 1)]),
            Row::account(Action::Resume).gives(Applied, [Reached(DailyAmount, 1)]),
            Row::reset(&[Period::Month]).gives(Applied, [Reached(DailyAmount, 1)]),
            Row::reset(&[Period::Day]).gives(Applied, [Day(0, 0), Reached(DailyAmount, 0)]),
            Row::consume("a", "1", 80).gives(Admitted, [Reached(DailyAmount, 1)]),
        ],
    );
}

/// A new window begins with no threshold reached, and may reach the same ones at once.
fn windows(check: &mut Check) {
    use Code::{Admitted, Applied, DailyAmount as Refused};
    let month = day_amount(100).with(Period::Month, WindowLimits { amount: amount(200), ..WindowLimits::UNLIMITED });
    let row = |row: Row| row.with_thresholds(&month, &[80, 100]);
    check(
        "windows that end",
        &[
            row(Row::consume("a", "1", 100)).gives(Admitted, [Reached(DailyAmount, 2), Reached(MonthlyAmount, 0)]),
            row(Row::consume("b", "2", 90))
                .at_days(1)
                .gives(Admitted, [Day(90, 1), Month(190, 2), Reached(DailyAmount, 1), Reached(MonthlyAmount, 1)]),
            // A refusal in a new day reports that day, and leaves the stored one unchanged.
            row(Row::consume("c", "3", 101))
                .at_days(2)
                .gives(Refused, [Reached(DailyAmount, 0), Reached(MonthlyAmount, 1)]),
            row(Row::account(Action::Roll))
                .at_days(2)
                .gives(Applied, [Day(0, 0), Reached(DailyAmount, 0), Reached(MonthlyAmount, 1), Journaled(true)]),
            row(Row::consume("d", "4", 100))
                .at_days(10)
                .gives(Admitted, [Month(100, 1), Reached(DailyAmount, 2), Reached(MonthlyAmount, 0)]),
            row(Row::consume("e", "5", 100))
                .at_days(11)
                .gives(Admitted, [Reached(DailyAmount, 2), Reached(MonthlyAmount, 2)]),
        ],
    );
}

/// Limits that change without a payment: the next change of the account or a sweep updates the levels.
fn limits(check: &mut Check) {
    use Code::{Admitted, Applied};
    let roll = || Row::account(Action::Roll);
    let under = |row: Row, max: u64| row.with_thresholds(&day_amount(max), &[80, 100]);
    check(
        "limits that are raised and lowered",
        &[
            Row::consume("a", "1", 60).gives(Admitted, [Reached(DailyAmount, 0), Version(1)]),
            roll().replayed(Applied, [Reached(DailyAmount, 0), Version(1), Journaled(false)]),
            under(roll(), 70).gives(Applied, [Reached(DailyAmount, 1), Version(2), Journaled(true)]),
            under(roll(), 70).replayed(Applied, [Reached(DailyAmount, 1), Version(2), Journaled(false)]),
            under(roll(), 60).gives(Applied, [Reached(DailyAmount, 2)]),
            under(Row::consume("b", "2", 1).limits(day_amount(1_000)), 1_000)
                .gives(Admitted, [Reached(DailyAmount, 0)]),
            under(Row::consume("c", "3", 0).limits(day_amount(61)), 61).gives(Admitted, [Reached(DailyAmount, 2)]),
            // Without a policy the levels stay.
            Row::refund("a", "r", 60).without_thresholds().gives(Applied, [Day(1, 3), Reached(DailyAmount, 2)]),
            roll().without_thresholds().replayed(Applied, [Reached(DailyAmount, 2), Journaled(false)]),
            roll()
                .with_thresholds(&Limits::UNLIMITED, &[80, 100])
                .gives(Applied, [Reached(DailyAmount, 0), Journaled(true)]),
        ],
    );
}

/// Other percentages apply from the next change on, also where the same number is reached as before.
fn lists(check: &mut Check) {
    use Code::{Admitted, Applied};
    let roll = |percents: &[u32]| Row::account(Action::Roll).with_thresholds(&day_amount(100), percents);
    check(
        "lists of percentages",
        &[
            Row::consume("a", "1", 85).gives(Admitted, [Reached(DailyAmount, 1), Version(1)]),
            roll(&[70, 100]).gives(Applied, [Reached(DailyAmount, 1), Version(2), Journaled(true)]),
            roll(&[70, 100]).replayed(Applied, [Reached(DailyAmount, 1), Version(2), Journaled(false)]),
            roll(&[10, 20, 30, 40, 50, 60, 70, 86]).gives(Applied, [Reached(DailyAmount, 7)]),
            roll(&[10, 20, 30, 40, 50, 60, 70, 85]).gives(Applied, [Reached(DailyAmount, 8)]),
            roll(&[]).gives(Applied, [Reached(DailyAmount, 0), Journaled(true)]),
            roll(&[86, 1_000]).replayed(Applied, [Reached(DailyAmount, 0), Journaled(false)]),
        ],
    );
}

fn every_limit(check: &mut Check) {
    use Code::Admitted;
    let window = |amount_max, count_max| WindowLimits {
        amount: amount(amount_max),
        count: amount(count_max),
        ..WindowLimits::UNLIMITED
    };
    let windows = PerPeriod { day: window(20, 3), week: window(30, 5), month: window(40, 4), year: window(80, 5) };
    let limits = Limits { windows, pending: amount(10) };
    let row = |row: Row| row.limits(Limits::UNLIMITED).with_thresholds(&limits, &[50, 100]);
    check(
        "every limit",
        &[
            row(Row::consume("a", "1", 9)).gives(Admitted, [Reached(DailyAmount, 0), Reached(DailyCount, 0)]),
            row(Row::hold("b", "2", 5)).gives(
                Admitted,
                [Reached(DailyAmount, 1), Reached(DailyCount, 1), Reached(PendingAmount, 1), Reached(MonthlyAmount, 0)],
            ),
            row(Row::consume("c", "3", 26)).gives(
                Admitted,
                [
                    Reached(DailyCount, 2),
                    Reached(DailyAmount, 2),
                    Reached(WeeklyCount, 1),
                    Reached(WeeklyAmount, 2),
                    Reached(MonthlyAmount, 2),
                    Reached(YearlyAmount, 1),
                ],
            ),
            row(Row::hold("d", "4", 5)).gives(Admitted, [Pending(10), Reached(PendingAmount, 2)]),
        ],
    );
    // The pending amount is evaluated with any change, also where only the limit has changed since.
    let pending = |max: u64| Limits { pending: amount(max), ..Limits::UNLIMITED };
    check(
        "pending",
        &[
            Row::hold("a", "1", 50).with_thresholds(&pending(100), &[80]).gives(Admitted, [Reached(PendingAmount, 0)]),
            Row::consume("b", "2", 1).with_thresholds(&pending(60), &[80]).gives(Admitted, [Reached(PendingAmount, 1)]),
        ],
    );
}
