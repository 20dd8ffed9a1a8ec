//! Rights: what is set aside for a holder counts at once, a payment that it reports moves no counter, and the rest is returned.

use quota::{Code, Limits, OrderState, Period, ReleaseRight, Trust, Weight, WindowLimits};

use super::Check;
use super::row::Expected::{Counted, Credit, Day, Journaled, Moved, Order, Version, Week};
use super::row::{Row, TRUST, amount, day_amount};

pub(crate) fn each(check: &mut Check) {
    q1_what_is_set_aside_counts(check);
    q1_nothing_is_granted_of_the_last_stretch(check);
    q3_a_report_charges_once(check);
    q3_q4_reports_and_voids(check);
    q4_what_is_not_used_is_returned(check);
    a_report_is_always_taken(check);
    only_its_holder_ends_a_right_early(check);
    a_restricted_account_has_no_new_rights(check);
    rights_stay_in_their_day(check);
    rights_are_of_what_counts(check);
}

/// Q-1: a right counts from its grant on; what the holder admits from it is paid for already.
fn q1_what_is_set_aside_counts(check: &mut Check) {
    use Code::{Admitted, Applied, DailyAmount};
    check(
        "Q-1: a right",
        &[
            Row::grant("r", 40, 10).gives(Applied, [Day(40, 10), Moved(40), Version(1), Journaled(true)]),
            // The grant came before: its answer was lost.
            Row::grant("r", 40, 10).replayed(Applied, [Day(40, 10), Version(1), Journaled(false)]),
            Row::consume("a", "1", 61).gives(DailyAmount, [Day(40, 10)]),
            Row::consume("a", "2", 60).gives(Admitted, [Day(100, 11)]),
            Row::consume("b", "3", 1).gives(DailyAmount, [Day(100, 11)]),
            Row::report("r", "c", "4", 30).gives(
                Admitted,
                [Day(100, 11), Moved(30), Counted(30), Order(OrderState::Charged, 0, 0), Journaled(true)],
            ),
            Row::report("r", "d", "5", 10).gives(Admitted, [Day(100, 11)]),
            Row::consume("b", "6", 1).gives(DailyAmount, [Day(100, 11)]),
            // All of its amount is used, and eight of its payments are not.
            Row::release_right("r").gives(Applied, [Day(100, 3), Moved(0), Journaled(true)]),
            Row::release_right("r").replayed(Applied, [Day(100, 3), Journaled(false)]),
        ],
    );
}

/// Q-1: a right is at most half of what is left above the threshold, and there is none below.
fn q1_nothing_is_granted_of_the_last_stretch(check: &mut Check) {
    use Code::{Admitted, Applied, RightRefused};
    let refused = |row: Row, day| row.gives(RightRefused, [day, Journaled(false)]);
    check(
        "Q-1: smaller and smaller",
        &[
            Row::grant("a", 1_000, 10).gives(Applied, [Day(40, 10), Moved(40)]),
            Row::grant("b", 1_000, 10).gives(Applied, [Day(60, 20), Moved(20)]),
            Row::grant("c", 1_000, 10).gives(Applied, [Day(70, 30), Moved(10)]),
            Row::grant("d", 3, 10).gives(Applied, [Day(73, 40), Moved(3)]),
            Row::consume("o", "1", 6).gives(Admitted, [Day(79, 41)]),
            refused(Row::grant("e", 1_000, 10), Day(79, 41)),
            Row::consume("p", "2", 21).gives(Admitted, [Day(100, 42)]),
        ],
    );
    let ten_a_day = day_amount(100).with(Period::Day, WindowLimits { count: amount(10), ..WindowLimits::UNLIMITED });
    let week = Limits::UNLIMITED.with(Period::Week, WindowLimits { amount: amount(20), ..WindowLimits::UNLIMITED });
    check(
        "Q-1: every limit bounds a right",
        &[
            refused(Row::grant("a", 0, 10), Day(0, 0)),
            refused(Row::grant("a", 10, 0), Day(0, 0)),
            refused(Row::grant("a", 10, 10).trust(Trust::NONE), Day(0, 0)),
            refused(Row::grant("a", 10, 10).trust(Trust { ttl_ms: 0, ..TRUST }), Day(0, 0)),
            Row::grant("a", 30, 100).limits(ten_a_day).gives(Applied, [Day(30, 4)]),
            refused(Row::grant("b", 30, 100).limits(week), Day(30, 4)),
            Row::grant("b", 30, 1).limits(Limits::UNLIMITED).gives(Applied, [Day(60, 5), Week(60, 5)]),
        ],
    );
}

/// Q-3: an order is charged once, however often and by whom it is reported.
fn q3_a_report_charges_once(check: &mut Check) {
    use Code::{Admitted, Applied, IdempotencyConflict, OrderClosed};
    check(
        "Q-3: repeated reports",
        &[
            Row::grant("r", 40, 10).gives(Applied, []),
            Row::report("r", "a", "1", 10).gives(Admitted, [Day(40, 10), Version(1)]),
            Row::report("r", "a", "1", 10).replayed(Admitted, [Version(1), Journaled(false)]),
            // Another holder let the same order pass: its amount stays with the right.
            Row::report("r", "a", "2", 10).replayed(Admitted, [Day(40, 10), Journaled(true)]),
            Row::report("r", "a", "3", 11).gives(IdempotencyConflict, [Day(40, 10), Journaled(true)]),
            Row::consume("a", "4", 10).replayed(Admitted, [Day(40, 10)]),
            Row::consume("a", "5", 11).gives(IdempotencyConflict, []),
            Row::consume("b", "6", 10).gives(Admitted, [Day(50, 11)]),
            Row::report("r", "b", "7", 10).replayed(Admitted, [Day(50, 11)]),
            Row::report("r", "b", "8", 10).currency("EUR").gives(IdempotencyConflict, [Day(0, 0)]),
            Row::release_right("r").gives(Applied, [Day(20, 2), Moved(30)]),
            Row::refund("b", "f1", 10).gives(Applied, [Day(10, 2)]),
            Row::report("r", "b", "9", 10).gives(OrderClosed, [Day(10, 2), Journaled(true)]),
        ],
    );
}

/// Q-3, Q-4: a payment that failed is voided before or after its report, and is not charged.
fn q3_q4_reports_and_voids(check: &mut Check) {
    use Code::{Admitted, Applied, AttemptVoided, Voided};
    check(
        "Q-3: voids of what was reported",
        &[
            Row::grant("r", 40, 10).gives(Applied, []),
            Row::report("r", "a", "1", 10).gives(Admitted, []),
            Row::void_attempt("a", "1").gives(Voided, [Day(30, 9)]),
            Row::report("r", "a", "1", 10).gives(AttemptVoided, [Day(30, 9)]),
            Row::void_attempt("b", "2").gives(Code::Tombstoned, [Day(30, 9)]),
            Row::report("r", "b", "2", 10).gives(AttemptVoided, [Day(30, 9)]),
            // Another attempt went on: the order is charged, from the right.
            Row::report("r", "b", "3", 10).gives(Admitted, [Day(30, 9)]),
            Row::release_right("r").gives(Applied, [Day(10, 1), Moved(20)]),
        ],
    );
}

/// Q-4: the counters are those of the orders alone once every right has ended.
fn q4_what_is_not_used_is_returned(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "Q-4: two rights",
        &[
            Row::grant("a", 20, 5).gives(Applied, [Day(20, 5)]),
            Row::grant("b", 20, 5).gives(Applied, [Day(40, 10)]),
            Row::report("a", "o", "1", 7).gives(Admitted, [Day(40, 10)]),
            Row::report("b", "p", "2", 9).gives(Admitted, [Day(40, 10)]),
            Row::release_right("a").gives(Applied, [Day(27, 6), Moved(13)]),
            Row::refund("p", "f1", 4).gives(Applied, [Day(23, 6)]),
            Row::release_right("b").gives(Applied, [Day(12, 2), Moved(11)]),
        ],
    );
}

/// What went on is charged, whatever has become of its right.
fn a_report_is_always_taken(check: &mut Check) {
    use Code::{Admitted, Applied, DailyAmount};
    check(
        "without a right",
        &[
            Row::report("none", "a", "1", 60).gives(Admitted, [Day(60, 1), Journaled(true)]),
            Row::report("none", "b", "2", 60).gives(Admitted, [Day(120, 2)]),
            Row::consume("c", "3", 0).gives(DailyAmount, [Day(120, 2)]),
        ],
    );
    check(
        "of more than the right has left",
        &[
            Row::grant("r", 10, 1).gives(Applied, [Day(10, 1)]),
            Row::report("r", "a", "1", 11).gives(Admitted, [Day(21, 2)]),
            Row::report("r", "b", "2", 5).gives(Admitted, [Day(21, 2)]),
            Row::report("r", "c", "3", 5).gives(Admitted, [Day(26, 3)]),
            Row::release_right("r").gives(Applied, [Day(21, 3), Moved(5)]),
            Row::report("r", "d", "4", 1).gives(Admitted, [Day(22, 4)]),
        ],
    );
    check(
        "late, of a holder that was lost",
        &[
            Row::grant("r", 10, 2).gives(Applied, [Day(10, 2)]),
            Row::orphan_right("r").gives(Applied, [Day(10, 2), Moved(10), Journaled(true)]),
            Row::orphan_right("r").replayed(Applied, [Journaled(false)]),
            Row::orphan_right("none").replayed(Applied, [Journaled(false)]),
            Row::report("r", "a", "1", 4).at_secs(3_600).gives(Admitted, [Day(10, 2)]),
            Row::end_right("r").at_secs(3_600).gives(Applied, [Day(4, 1), Moved(6)]),
        ],
    );
}

/// Others end a right only where no payment of it can be reported any more.
fn only_its_holder_ends_a_right_early(check: &mut Check) {
    use Code::{Applied, RightInUse};
    let over_ms = i64::from(TRUST.ttl_ms) + i64::try_from(ReleaseRight::REPORTED_WITHIN_MS).unwrap();
    check(
        "in use",
        &[
            Row::grant("r", 40, 10).gives(Applied, []),
            Row::end_right("r").gives(RightInUse, [Day(40, 10)]),
            Row::end_right("r").at_ms(over_ms - 1).gives(RightInUse, [Day(40, 10)]),
            Row::end_right("r").at_ms(over_ms).gives(Applied, [Day(0, 0), Moved(40)]),
            Row::end_right("r").at_ms(over_ms).replayed(Applied, [Journaled(false)]),
        ],
    );
}

/// Suspended, refused by its policy, or on a credit line: no new right. What is set aside already is reported and returned.
fn a_restricted_account_has_no_new_rights(check: &mut Check) {
    use Code::{Admitted, Applied, PolicyMissing, RightRefused};
    let ends = [
        ("account", Row::account(quota::Action::Suspend), Row::account(quota::Action::Resume)),
        ("merchant", Row::merchant(quota::Action::SuspendMerchant), Row::merchant(quota::Action::ResumeMerchant)),
    ];
    for (who, suspend, resume) in ends {
        check(
            &format!("a suspended {who}"),
            &[
                Row::grant("r", 20, 5).gives(Applied, []),
                suspend.gives(Applied, []),
                Row::grant("s", 20, 5).gives(RightRefused, [Day(20, 5), Journaled(false)]),
                Row::report("r", "a", "1", 10).gives(Admitted, [Day(20, 5)]),
                Row::release_right("r").gives(Applied, [Day(10, 1)]),
                resume.gives(Applied, []),
                Row::grant("s", 20, 5).gives(Applied, [Day(30, 6)]),
            ],
        );
    }
    check(
        "restricted",
        &[
            Row::grant("r", 20, 5).refused_by_policy(PolicyMissing).gives(RightRefused, [Day(0, 0)]),
            Row::grant("r", 20, 5).credit(1_000, 20_261_101).gives(RightRefused, [Day(0, 0)]),
            Row::grant("r", 20, 5).gives(Applied, [Day(20, 5)]),
        ],
    );
    check(
        "on a credit line since",
        &[
            Row::grant("r", 20, 5).gives(Applied, []),
            Row::consume("a", "1", 1).credit(1_000, 20_261_101).gives(Admitted, [Credit(1, 1)]),
            Row::report("r", "b", "2", 10).credit(1_000, 20_261_101).gives(Admitted, [Day(21, 6)]),
        ],
    );
}

/// A payment is counted where its right was, though it is reported on the next day.
fn rights_stay_in_their_day(check: &mut Check) {
    use Code::{Admitted, Applied};
    check(
        "over midnight",
        &[
            Row::grant("r", 40, 10).gives(Applied, [Day(40, 10), Week(40, 10)]),
            Row::report("r", "a", "1", 10).at_days(1).gives(Admitted, [Day(0, 0), Week(40, 10)]),
            Row::release_right("r").at_days(1).gives(Applied, [Day(0, 0), Week(10, 1), Moved(30)]),
            // The order is of the day before: only the week gets it back.
            Row::void_attempt("a", "1").at_days(1).gives(Code::Voided, [Day(0, 0), Week(0, 0)]),
        ],
    );
}

/// With a weight a right is an amount as the limits count it, and keeps the weight that it was granted with.
fn rights_are_of_what_counts(check: &mut Check) {
    use Code::{Admitted, Applied};
    let half = Weight::share(5_000).unwrap();
    check(
        "half of the amount",
        &[
            Row::grant("r", 40, 10).weight(half).gives(Applied, [Day(40, 10), Moved(40)]),
            Row::report("r", "a", "1", 60).gives(Admitted, [Day(40, 10), Moved(60), Counted(30)]),
            Row::release_right("r").gives(Applied, [Day(30, 1), Moved(10)]),
            Row::report("r", "b", "2", 10).weight(half).gives(Admitted, [Day(35, 2), Counted(5)]),
            Row::void_attempt("a", "1").gives(Code::Voided, [Day(5, 1)]),
        ],
    );
}
