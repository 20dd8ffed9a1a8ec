//! Tables of commands and their answers, for every implementation of the rule: the ledger's own tests and the store suite
//! run the same rows.

use quota::{
    Action, AmountMinor, AttemptId, Calendar, Code, Command, Consume, Currency, Limits, MerchantId, OrderNo,
    WindowLimits,
};

const NOW_MS: i64 = 1_795_296_600_000;
const TTL_SECS: u32 = 2 * 86_400;

fn amount(minor: u64) -> AmountMinor {
    AmountMinor::new(minor).unwrap()
}

fn day_amount(max: u64) -> Limits {
    Limits { day: WindowLimits { amount: amount(max), ..WindowLimits::UNLIMITED }, ..Limits::UNLIMITED }
}

/// One row of a table: who asks for what, when, and what comes of it.
#[derive(Clone)]
pub(crate) struct Row {
    order: &'static str,
    attempt: &'static str,
    /// `None` voids.
    amount: Option<u64>,
    currency: &'static str,
    limits: Limits,
    at_secs: i64,
    pub(crate) code: Code,
    pub(crate) replay: bool,
    /// Day amount and count afterwards.
    pub(crate) day: (u64, u64),
}

impl Row {
    pub(crate) fn consume(
        order: &'static str,
        attempt: &'static str,
        amount: u64,
        code: Code,
        day: (u64, u64),
    ) -> Self {
        Self {
            order,
            attempt,
            amount: Some(amount),
            currency: "USD",
            limits: day_amount(100),
            at_secs: 0,
            code,
            replay: false,
            day,
        }
    }

    pub(crate) fn void(order: &'static str, attempt: &'static str, code: Code, day: (u64, u64)) -> Self {
        Self { amount: None, ..Self::consume(order, attempt, 0, code, day) }
    }

    fn replay(self) -> Self {
        Self { replay: true, ..self }
    }

    fn currency(self, currency: &'static str) -> Self {
        Self { currency, ..self }
    }

    fn at_secs(self, at_secs: i64) -> Self {
        Self { at_secs, ..self }
    }

    fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The row's command; `number` tells its decision from the others.
    pub(crate) fn command(&self, number: usize) -> Command {
        let now_ms = NOW_MS + self.at_secs * 1000;
        let action = match self.amount {
            Some(minor) => Action::Consume(Consume { amount: amount(minor), limits: self.limits, refusal: None }),
            None => Action::Void,
        };
        Command {
            merchant: MerchantId::parse("m").unwrap(),
            currency: Currency::parse(self.currency).unwrap(),
            order_no: OrderNo::parse(self.order).unwrap(),
            attempt: AttemptId::from_text(self.attempt),
            action,
            decision_id: (number as u128).to_be_bytes(),
            now_ms,
            windows: Calendar::UTC.windows_at(now_ms),
            order_ttl_secs: TTL_SECS,
            backlog_max: 1000,
            payment_no: None,
            channel: None,
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.amount {
            Some(minor) => write!(f, "consume {minor} for order {} by attempt {}", self.order, self.attempt),
            None => write!(f, "void attempt {} at order {}", self.attempt, self.order),
        }
    }
}

/// Hands every table, with its name, to a checker that begins with an empty store each time.
pub(crate) fn each(check: &mut dyn FnMut(&str, &[Row])) {
    q1_q2_limits_hold_to_the_unit(check);
    q3_an_order_is_charged_once(check);
    q3_q4_attempts_and_voids(check);
}

/// a charge is admitted up to the limit and not one unit further; a refusal changes nothing.
fn q1_q2_limits_hold_to_the_unit(check: &mut dyn FnMut(&str, &[Row])) {
    use Code::{Admitted, DailyAmount, DailyCount, MonthlyAmount, YearlyCount};
    check(
        "amount",
        &[
            Row::consume("a", "1", 99, Admitted, (99, 1)),
            Row::consume("b", "2", 2, DailyAmount, (99, 1)),
            Row::consume("b", "3", 1, Admitted, (100, 2)),
            Row::consume("c", "4", 1, DailyAmount, (100, 2)),
            // A limit that was lowered below what is used refuses even nothing.
            Row::consume("d", "5", 0, DailyAmount, (100, 2)).limits(day_amount(99)),
            Row::consume("d", "6", 0, Admitted, (100, 3)),
        ],
    );
    let two_a_day = Limits { day: WindowLimits { count: amount(2), ..WindowLimits::UNLIMITED }, ..day_amount(0) };
    let month = Limits { month: WindowLimits { amount: amount(5), ..WindowLimits::UNLIMITED }, ..Limits::UNLIMITED };
    let year = Limits { year: WindowLimits { count: amount(3), ..WindowLimits::UNLIMITED }, ..Limits::UNLIMITED };
    check(
        "others",
        &[
            Row::consume("a", "1", 3, Admitted, (3, 1)).limits(month),
            Row::consume("b", "2", 3, MonthlyAmount, (3, 1)).limits(month),
            Row::consume("b", "3", 2, Admitted, (5, 2)).limits(month),
            Row::consume("c", "4", 2, DailyCount, (5, 2)).limits(two_a_day),
            Row::consume("c", "5", 2, Admitted, (7, 3)).limits(year),
            Row::consume("d", "6", 2, YearlyCount, (7, 3)).limits(year),
        ],
    );
    check(
        "no limit is bounded by what a counter can hold",
        &[
            Row::consume("a", "1", AmountMinor::MAX.get(), Admitted, (AmountMinor::MAX.get(), 1))
                .limits(Limits::UNLIMITED),
            Row::consume("b", "2", 1, DailyAmount, (AmountMinor::MAX.get(), 1)).limits(Limits::UNLIMITED),
        ],
    );
}

/// one order consumes once, however often it comes.
fn q3_an_order_is_charged_once(check: &mut dyn FnMut(&str, &[Row])) {
    use Code::{Admitted, IdempotencyConflict};
    check(
        "replays",
        &[
            Row::consume("a", "1", 60, Admitted, (60, 1)),
            Row::consume("a", "1", 60, Admitted, (60, 1)).replay(),
            Row::consume("a", "2", 60, Admitted, (60, 1)).replay(),
            Row::consume("a", "3", 61, IdempotencyConflict, (60, 1)),
            // A replay goes before every limit, also one lowered since.
            Row::consume("a", "4", 60, Admitted, (60, 1)).replay().limits(day_amount(0)),
            // Forgotten after its time.
            Row::consume("a", "5", 61, Admitted, (61, 1)).at_secs(i64::from(TTL_SECS)),
        ],
    );
}

/// voids by attempt, in whatever order attempts and voids arrive.
fn q3_q4_attempts_and_voids(check: &mut dyn FnMut(&str, &[Row])) {
    use Code::{Admitted, AttemptReleased, AttemptVoided, DailyAmount, Tombstoned, Voided};
    check(
        "the last live attempt returns the charge, once",
        &[
            Row::consume("a", "1", 60, Admitted, (60, 1)),
            Row::consume("a", "2", 60, Admitted, (60, 1)).replay(),
            Row::void("a", "1", AttemptReleased, (60, 1)),
            Row::void("a", "1", AttemptReleased, (60, 1)).replay(),
            Row::void("a", "2", Voided, (0, 0)),
            Row::void("a", "2", Voided, (0, 0)).replay(),
            Row::consume("a", "1", 60, AttemptVoided, (0, 0)),
            Row::consume("a", "3", 70, Admitted, (70, 1)),
        ],
    );
    check(
        "a void that overtakes its attempt",
        &[
            Row::void("a", "1", Tombstoned, (0, 0)),
            Row::consume("a", "1", 60, AttemptVoided, (0, 0)),
            Row::consume("a", "2", 60, Admitted, (60, 1)),
            Row::void("a", "3", Tombstoned, (60, 1)),
            Row::consume("a", "3", 60, AttemptVoided, (60, 1)),
            Row::consume("b", "4", 60, DailyAmount, (60, 1)),
            Row::void("b", "4", Tombstoned, (60, 1)),
        ],
    );
    check(
        "another currency",
        &[
            Row::consume("a", "1", 60, Admitted, (60, 1)),
            Row::consume("a", "2", 60, Code::IdempotencyConflict, (0, 0)).currency("EUR"),
            // The void of an attempt that never was admitted is no conflict: late, it must find its tombstone.
            Row::void("a", "3", Tombstoned, (0, 0)).currency("EUR"),
            Row::void("a", "1", Code::IdempotencyConflict, (0, 0)).currency("EUR"),
            Row::void("a", "1", Voided, (0, 0)),
            Row::consume("a", "3", 60, AttemptVoided, (0, 0)).currency("EUR"),
            Row::consume("a", "4", 60, Admitted, (60, 1)).currency("EUR"),
        ],
    );
    let day = 86_400;
    check(
        "a charge goes back into the window it came from or into none",
        &[
            Row::consume("a", "1", 60, Admitted, (60, 1)),
            Row::consume("b", "2", 30, Admitted, (30, 1)).at_secs(day).limits(Limits::UNLIMITED),
            Row::void("a", "1", Voided, (30, 1)).at_secs(day),
            // A clock that lags by a day: the closed window is not opened again.
            Row::consume("c", "3", 70, Admitted, (100, 2)),
            Row::consume("d", "4", 1, DailyAmount, (100, 2)),
        ],
    );
}
