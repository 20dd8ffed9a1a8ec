//! Throttled charges above a limit: the burst, the delay, the wait that is too long, and the ceiling.

use quota::{Code, Effect, Limits, Pace, Period, Throttle, WindowLimits};

use super::Check;
use super::row::Expected::{Day, Journaled, Pending, Version, WaitMs};
use super::row::{Row, amount, day_amount};

/// One charge a second, two at once, a delay of 1.5 seconds at most, a ceiling of 150 % of the limits.
const THROTTLE: Throttle = Throttle { per_minute: 60, burst: 2, delay_ms_max: 1_500, ceiling_percent: 150 };

pub(crate) fn each(check: &mut Check) {
    turns(check);
    rounding(check);
    ceilings(check);
    clocks(check);
}

fn paced(row: Row) -> Row {
    row.pace(Pace::of(&THROTTLE, &day_amount(100)))
}

fn turns(check: &mut Check) {
    use Code::{Admitted, DailyAmount, Throttled};
    check(
        "turns",
        &[
            // Up to the limit nothing is paced, and no slot is reserved.
            paced(Row::consume("a", "1", 95)).gives(Admitted, [WaitMs(0)]),
            paced(Row::consume("b", "2", 5)).gives(Admitted, [Day(100, 2), WaitMs(0)]),
            // The burst, then the delay, then a wait that is too long: that charge consumes nothing and reserves no slot.
            paced(Row::consume("c", "3", 10)).gives(Admitted, [Day(110, 3), WaitMs(0)]),
            paced(Row::consume("d", "4", 10)).gives(Admitted, [Day(120, 4), WaitMs(0)]),
            paced(Row::consume("e", "5", 10)).gives(Admitted, [Day(130, 5), WaitMs(1_000)]),
            paced(Row::consume("f", "6", 10))
                .gives(Throttled, [Day(130, 5), WaitMs(2_000), Version(5), Journaled(true)]),
            paced(Row::consume("f", "7", 10)).at_ms(499).gives(Throttled, [WaitMs(1_501)]),
            // A dry run reserves no slot.
            paced(Row::consume("f", "8", 10)).effect(Effect::DryRun).at_ms(500).gives(Admitted, [WaitMs(1_500)]),
            paced(Row::consume("f", "8", 10)).at_ms(500).gives(Admitted, [Day(140, 6), WaitMs(1_500)]),
            // The same attempt again gets `Admitted` without a wait: it has waited already.
            paced(Row::consume("f", "8", 10)).at_ms(500).replayed(Admitted, [Day(140, 6), WaitMs(0), Journaled(false)]),
            // A charge within the limits does not wait for charges above them.
            paced(Row::consume("g", "9", 1)).at_ms(500).limits(day_amount(141)).gives(Admitted, [WaitMs(0)]),
            // Without a pace the limit is hard.
            Row::consume("h", "10", 1).gives(DailyAmount, [Day(141, 7)]),
            // Idle time brings the burst back, and not more than it.
            paced(Row::consume("h", "11", 1)).at_ms(60_000).gives(Admitted, [WaitMs(0)]),
            paced(Row::consume("i", "12", 1)).at_ms(60_000).gives(Admitted, [WaitMs(0)]),
            paced(Row::consume("j", "13", 1)).at_ms(60_000).gives(Admitted, [Day(144, 10), WaitMs(1_000)]),
            // In a new day usage is within the limits.
            paced(Row::consume("k", "14", 100)).at_days(1).gives(Admitted, [Day(100, 1), WaitMs(0)]),
        ],
    );
}

/// A wait is returned in whole milliseconds, rounded up.
fn rounding(check: &mut Check) {
    use Code::{Admitted, Throttled};
    let seven = |delay_ms_max| {
        let throttle = Throttle { per_minute: 7, burst: 1, delay_ms_max, ..THROTTLE };
        move |row: Row| {
            row.limits(day_amount(0)).pace(Pace { ceiling: Limits::UNLIMITED, ..Pace::of(&throttle, &day_amount(0)) })
        }
    };
    check(
        "rounding",
        &[
            // A seventh of a minute is 8,571,428 microseconds.
            seven(8_571)(Row::consume("a", "1", 1)).gives(Admitted, [WaitMs(0)]),
            seven(8_571)(Row::consume("b", "2", 1)).gives(Throttled, [WaitMs(8_572)]),
            seven(8_572)(Row::consume("b", "2", 1)).gives(Admitted, [WaitMs(8_572)]),
            seven(8_572)(Row::consume("c", "3", 1)).at_ms(8_571).gives(Admitted, [WaitMs(8_572)]),
        ],
    );
}

/// Q-1 with a throttle: never above the ceiling of any window limit.
fn ceilings(check: &mut Check) {
    use Code::{Admitted, DailyAmount, MonthlyCount, PendingAmount, Throttled};
    check(
        "the ceiling",
        &[
            paced(Row::consume("a", "1", 151)).gives(DailyAmount, [Day(0, 0), WaitMs(0)]),
            paced(Row::consume("a", "2", 150)).gives(Admitted, [Day(150, 1)]),
            paced(Row::consume("b", "3", 1)).gives(DailyAmount, [Day(150, 1)]),
        ],
    );
    let two_a_month =
        Limits::UNLIMITED.with(Period::Month, WindowLimits { count: amount(2), ..WindowLimits::UNLIMITED });
    let counted = |row: Row| row.limits(two_a_month).pace(Pace::of(&THROTTLE, &two_a_month));
    check(
        "the ceiling of a count",
        &[
            counted(Row::consume("a", "1", 9)).gives(Admitted, []),
            counted(Row::consume("b", "2", 9)).gives(Admitted, []),
            counted(Row::consume("c", "3", 9)).gives(Admitted, [Day(27, 3)]),
            counted(Row::consume("d", "4", 9)).gives(MonthlyCount, [Day(27, 3)]),
        ],
    );
    let pending = Limits { pending: amount(10), ..day_amount(0) };
    let held = |row: Row| row.limits(pending).pace(Pace { ceiling: day_amount(100), ..Pace::of(&THROTTLE, &pending) });
    check(
        "holds are paced, and their pending limit has no ceiling above it",
        &[
            held(Row::hold("a", "1", 11)).gives(PendingAmount, [Pending(0)]),
            held(Row::hold("a", "1", 10)).gives(Admitted, [Pending(10), WaitMs(0)]),
            held(Row::settle("a", "c1", None)).gives(Code::Applied, [Pending(0)]),
            held(Row::hold("b", "2", 10)).gives(Admitted, [WaitMs(0)]),
            // The pending limit is checked before the pace.
            held(Row::hold("c", "3", 1)).gives(PendingAmount, [WaitMs(0)]),
            held(Row::consume("c", "4", 1)).gives(Admitted, [WaitMs(1_000)]),
            held(Row::consume("d", "5", 1)).gives(Throttled, [WaitMs(2_000)]),
        ],
    );
}

/// Two servers, one with a lagging clock, share one pace.
fn clocks(check: &mut Check) {
    use Code::{Admitted, Throttled};
    check(
        "a lagging clock takes its turn after the others",
        &[
            paced(Row::consume("a", "1", 100)).gives(Admitted, []),
            paced(Row::consume("b", "2", 1)).gives(Admitted, [WaitMs(0)]),
            paced(Row::consume("c", "3", 1)).at_ms(-400).gives(Admitted, [WaitMs(400)]),
            paced(Row::consume("d", "4", 1)).at_ms(-400).gives(Admitted, [WaitMs(1_400)]),
            paced(Row::consume("e", "5", 1)).at_ms(-400).gives(Throttled, [WaitMs(2_400)]),
            paced(Row::consume("e", "6", 1)).at_ms(2_000).gives(Admitted, [WaitMs(0)]),
        ],
    );
}
