//! One row of a table: a command, its time, and the expected answer.

use std::sync::Arc;

use quota::{
    Action, Adjust, AmountMinor, AttemptId, Calendar, Change, Charge, Code, Command, CounterName, CreditTerms,
    Currency, Effect, Grant, HoldTerms, LimitName, Limits, Mark, MerchantId, OnExpiry, OperationId, Order, OrderNo,
    OrderState, Pace, PerPeriod, Period, Posting, PostingKind, Refund, ReleaseRight, Reply, Report, Reset, Resolution,
    RightId, Settle, Share, Subject, ThresholdPolicy, Thresholds, Trust, Weight, WindowLimits,
};

/// 21:30 in UTC on 21 November 2026, a Saturday.
const NOW_MS: i64 = 1_795_296_600_000;
const NOW_SECS: u32 = 1_795_296_600;
/// Longer than from then to the end of the year.
pub(crate) const TTL_SECS: u32 = 60 * 86_400;
/// Half of what is left, but nothing of the last fifth, for two seconds.
pub(crate) const TRUST: Trust = Trust { above_percent: 20, share_percent: 50, ttl_ms: 2_000 };
/// How long a row's hold stays open.
pub(crate) const LIFETIME_SECS: u32 = 3_600;

pub(crate) fn amount(minor: u64) -> AmountMinor {
    AmountMinor::new(minor).unwrap()
}

fn right_id(name: &str) -> RightId {
    RightId(std::array::from_fn(|at| name.as_bytes().get(at).copied().unwrap_or_default()))
}

pub(crate) fn day_amount(max: u64) -> Limits {
    Limits::UNLIMITED.with(Period::Day, WindowLimits { amount: amount(max), ..WindowLimits::UNLIMITED })
}

/// A value that a row expects in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Amount and count afterwards.
    Day(u64, u64),
    Week(u64, u64),
    Month(u64, u64),
    Year(u64, u64),
    /// Refunded of the day, the month and the year afterwards.
    Refunded(u64, u64, u64),
    /// Refunded of the week afterwards.
    RefundedOfWeek(u64),
    Pending(u64),
    /// Exposure and unbilled amount of the credit line afterwards.
    Credit(i64, u64),
    /// The account keeps no exposure.
    NoCredit,
    /// The order: its state, the captured amount of a hold, and the refunded amount.
    Order(OrderState, u64, u64),
    /// When the hold ends, seconds after the table's time.
    HoldUntil(u32),
    /// The amount that the command moved, or would have moved.
    Moved(u64),
    /// What of it counts.
    Counted(u64),
    WaitMs(u64),
    Version(u64),
    Suspended(bool),
    /// How many thresholds the usage of a limit has reached.
    Reached(LimitName, u8),
    /// Whether an event is journaled.
    Journaled(bool),
    /// The row whose decision id is returned to the caller.
    DecisionId(usize),
    /// Whether an outcome of the order was unknown before.
    WasUnknown(bool),
}

impl Expected {
    /// The actual value in the answer.
    fn of(self, reply: &Reply) -> Self {
        let record = &reply.record;
        let window = |period| (record.of(period).amount_after, record.of(period).count_after);
        let refunded = |period| record.of(period).refunded_after;
        match self {
            Self::Day(..) => Self::Day(window(Period::Day).0, window(Period::Day).1),
            Self::Week(..) => Self::Week(window(Period::Week).0, window(Period::Week).1),
            Self::Month(..) => Self::Month(window(Period::Month).0, window(Period::Month).1),
            Self::Year(..) => Self::Year(window(Period::Year).0, window(Period::Year).1),
            Self::Refunded(..) => {
                Self::Refunded(refunded(Period::Day), refunded(Period::Month), refunded(Period::Year))
            }
            Self::RefundedOfWeek(_) => Self::RefundedOfWeek(refunded(Period::Week)),
            Self::Pending(_) => Self::Pending(record.pending_after),
            Self::Credit(..) | Self::NoCredit => match record.credit {
                Some(credit) => Self::Credit(credit.exposure_after, credit.unbilled_after),
                None => Self::NoCredit,
            },
            Self::Order(..) => Self::Order(record.order.state, record.order.settled, record.order.refunded),
            Self::HoldUntil(_) => Self::HoldUntil(record.order.hold_until_secs - NOW_SECS),
            Self::Moved(_) => Self::Moved(record.amount),
            Self::Counted(_) => Self::Counted(record.counted()),
            Self::WaitMs(_) => Self::WaitMs(record.wait_ms),
            Self::Version(_) => Self::Version(record.version),
            Self::Suspended(_) => Self::Suspended(record.suspended_at_ms > 0),
            Self::Reached(limit, _) => {
                let index = ThresholdPolicy::LIMITS.iter().position(|other| *other == limit).unwrap();
                Self::Reached(limit, record.levels.by_limit[index])
            }
            Self::Journaled(_) => Self::Journaled(reply.event_seq.is_some()),
            Self::WasUnknown(_) => Self::WasUnknown(record.was_unknown),
            Self::DecisionId(_) => Self::DecisionId(usize::try_from(u128::from_be_bytes(reply.decision_id)).unwrap()),
        }
    }
}

/// One command and the expected answer.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    order: Option<&'static str>,
    attempt: &'static str,
    currency: &'static str,
    action: Action,
    effect: Effect,
    at_ms: i64,
    history: Option<Box<Order>>,
    threshold_policy: Option<ThresholdPolicy>,
    credit: Option<CreditTerms>,
    code: Code,
    replay: bool,
    expected: Vec<Expected>,
}

/// The command.
impl Row {
    fn of(order: Option<&'static str>, attempt: &'static str, action: Action) -> Self {
        Self {
            order,
            attempt,
            currency: "USD",
            action,
            effect: Effect::Commit,
            at_ms: 0,
            history: None,
            threshold_policy: Some(ThresholdPolicy::new(&day_amount(100), Thresholds::DEFAULT)),
            credit: None,
            code: Code::Applied,
            replay: false,
            expected: Vec::new(),
        }
    }

    /// A charge under a limit of 100 a day.
    fn charge(minor: u64) -> Charge {
        Charge {
            amount: amount(minor),
            weight: Weight::AMOUNT,
            limits: day_amount(100),
            refusal: None,
            pace: None,
            replays_max: None,
            refuse_unknown_credit: false,
        }
    }

    pub(crate) fn consume(order: &'static str, attempt: &'static str, minor: u64) -> Self {
        Self::of(Some(order), attempt, Action::Consume(Self::charge(minor)))
    }

    pub(crate) fn hold(order: &'static str, attempt: &'static str, minor: u64) -> Self {
        let terms = HoldTerms { lifetime_secs: LIFETIME_SECS, on_expiry: OnExpiry::Void };
        Self::of(Some(order), attempt, Action::Hold(Self::charge(minor), terms))
    }

    /// A hold that counts as captured when it expires.
    pub(crate) fn hold_to_settle(order: &'static str, attempt: &'static str, minor: u64) -> Self {
        let terms = HoldTerms { lifetime_secs: LIFETIME_SECS, on_expiry: OnExpiry::Settle };
        Self::of(Some(order), attempt, Action::Hold(Self::charge(minor), terms))
    }

    pub(crate) fn void_attempt(order: &'static str, attempt: &'static str) -> Self {
        Self::of(Some(order), attempt, Action::VoidAttempt)
    }

    pub(crate) fn void(order: &'static str) -> Self {
        Self::of(Some(order), "void", Action::Void)
    }

    pub(crate) fn expire(order: &'static str) -> Self {
        Self::of(Some(order), "expire", Action::Expire)
    }

    /// The hold ends so many seconds after the table's time.
    pub(crate) fn extend(order: &'static str, secs: u32) -> Self {
        Self::of(Some(order), "operator", Action::ExtendHold { until_secs: NOW_SECS + secs })
    }

    /// The capture `number`; without an amount it captures all that is held.
    pub(crate) fn settle(order: &'static str, number: &'static str, minor: impl Into<Option<u64>>) -> Self {
        let minor = minor.into().map(amount);
        let id = OperationId::of(number);
        Self::of(
            Some(order),
            number,
            Action::Settle(Settle { amount: minor, id, last: false, over_capture_percent: 0, reported: false }),
        )
    }

    /// The refund `number`, whose attempt has the same name; without an amount it refunds all that is left.
    pub(crate) fn refund(order: &'static str, number: &'static str, minor: impl Into<Option<u64>>) -> Self {
        Self::of(Some(order), number, Action::Refund(Self::refund_of(number, minor.into())))
    }

    pub(crate) fn reserve(order: &'static str, number: &'static str, minor: impl Into<Option<u64>>) -> Self {
        let refund = Refund { reserve: true, ..Self::refund_of(number, minor.into()) };
        Self::of(Some(order), number, Action::Refund(refund))
    }

    pub(crate) fn release(order: &'static str, number: &'static str, minor: impl Into<Option<u64>>) -> Self {
        Self::of(Some(order), number, Action::Release(Self::refund_of(number, minor.into())))
    }

    fn refund_of(number: &'static str, minor: Option<u64>) -> Refund {
        Refund {
            amount: minor.map(amount),
            id: OperationId::of(number),
            daily_max: AmountMinor::MAX,
            monthly_max: AmountMinor::MAX,
            reserve: false,
        }
    }

    /// The outcome of this attempt is unknown.
    pub(crate) fn unknown(order: &'static str, attempt: &'static str, subject: Subject) -> Self {
        Self::of(Some(order), attempt, Action::MarkUnknown(Mark { subject, amount: None }))
    }

    pub(crate) fn resolve(order: &'static str, resolution: Resolution) -> Self {
        Self::of(Some(order), "operator", Action::Resolve(resolution))
    }

    /// A holder wants the right of this name, under a limit of 100 a day.
    pub(crate) fn grant(right: &'static str, minor: u64, count: u64) -> Self {
        let (right, wanted) = (right_id(right), Share { amount: minor, count });
        let (limits, weight) = (day_amount(100), Weight::AMOUNT);
        Self::of(None, "", Action::Grant(Grant { right, wanted, trust: TRUST, limits, weight, refusal: None }))
    }

    /// The payment went on, admitted from the right.
    pub(crate) fn report(right: &'static str, order: &'static str, attempt: &'static str, minor: u64) -> Self {
        let report = Report { right: right_id(right), amount: amount(minor), weight: Weight::AMOUNT };
        Self::of(Some(order), attempt, Action::Report(report))
    }

    /// The holder returns its right.
    pub(crate) fn release_right(right: &'static str) -> Self {
        Self::of(None, "", Action::ReleaseRight(ReleaseRight { right: right_id(right), by_holder: true }))
    }

    /// Another than the holder ends the right.
    pub(crate) fn end_right(right: &'static str) -> Self {
        Self::of(None, "operator", Action::ReleaseRight(ReleaseRight { right: right_id(right), by_holder: false }))
    }

    pub(crate) fn orphan_right(right: &'static str) -> Self {
        Self::of(None, "", Action::OrphanRight(right_id(right)))
    }

    /// A posting under a number of its kind.
    pub(crate) fn post(kind: PostingKind, number: &'static str, minor: u64) -> Self {
        Self::of(Some(number), "operator", Action::Post(Posting { kind, amount: amount(minor) }))
    }

    pub(crate) fn adjust(counter: CounterName, change: Change) -> Self {
        Self::of(None, "operator", Action::Adjust(Adjust { counter, change, expected_version: None }))
    }

    pub(crate) fn reset(periods: &[Period]) -> Self {
        let has = |period| periods.contains(&period);
        let windows = PerPeriod::from_fn(has);
        Self::of(None, "operator", Action::Reset(Reset { windows, expected_version: None }))
    }

    /// A command about the merchant as a whole.
    pub(crate) fn merchant(action: Action) -> Self {
        Self::of(None, "operator", action).without_thresholds()
    }

    /// A command about the account alone.
    pub(crate) fn account(action: Action) -> Self {
        Self::of(None, "operator", action)
    }
}

/// Attempt, time and terms.
impl Row {
    pub(crate) fn currency(self, currency: &'static str) -> Self {
        Self { currency, ..self }
    }

    /// By another attempt than the constructor's.
    pub(crate) fn by(self, attempt: &'static str) -> Self {
        Self { attempt, ..self }
    }

    pub(crate) fn at_ms(self, at_ms: i64) -> Self {
        Self { at_ms, ..self }
    }

    pub(crate) fn at_secs(self, at_secs: u32) -> Self {
        self.at_ms(i64::from(at_secs) * 1000)
    }

    pub(crate) fn at_days(self, days: u32) -> Self {
        self.at_secs(days * 86_400)
    }

    pub(crate) fn effect(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    pub(crate) fn history(self, order: Order) -> Self {
        Self { history: Some(Box::new(order)), ..self }
    }

    /// Usage is reported for these limits, at these percentages.
    pub(crate) fn with_thresholds(self, limits: &Limits, percents: &[u32]) -> Self {
        let thresholds = Thresholds::new(percents.iter().copied()).unwrap();
        Self { threshold_policy: Some(ThresholdPolicy::new(limits, thresholds)), ..self }
    }

    /// The account has a credit line of so much, in the billing cycle that begins on this day.
    pub(crate) fn credit(self, limit: u64, cycle: u32) -> Self {
        self.capped_credit(limit, limit, cycle)
    }

    /// The same where an overdue line is capped.
    pub(crate) fn capped_credit(self, limit: u64, uncapped: u64, cycle: u32) -> Self {
        Self { credit: Some(CreditTerms { cycle, limit: amount(limit), uncapped_limit: amount(uncapped) }), ..self }
    }

    /// The thresholds are unknown.
    pub(crate) fn without_thresholds(self) -> Self {
        Self { threshold_policy: None, ..self }
    }

    fn with_charge(mut self, change: impl FnOnce(&mut Charge)) -> Self {
        if let Action::Consume(charge) | Action::Hold(charge, _) = &mut self.action {
            change(charge);
        }
        self
    }

    fn with_grant(mut self, change: impl FnOnce(&mut Grant)) -> Self {
        if let Action::Grant(grant) = &mut self.action {
            change(grant);
        }
        self
    }

    pub(crate) fn limits(self, limits: Limits) -> Self {
        self.with_charge(|charge| charge.limits = limits).with_grant(|grant| grant.limits = limits)
    }

    pub(crate) fn weight(mut self, weight: Weight) -> Self {
        if let Action::Report(report) = &mut self.action {
            report.weight = weight;
        }
        self.with_charge(|charge| charge.weight = weight).with_grant(|grant| grant.weight = weight)
    }

    pub(crate) fn refused_by_policy(self, code: Code) -> Self {
        self.with_charge(|charge| charge.refusal = Some(code)).with_grant(|grant| grant.refusal = Some(code))
    }

    pub(crate) fn trust(self, trust: Trust) -> Self {
        self.with_grant(|grant| grant.trust = trust)
    }

    /// The rule allows `max` repetitions.
    pub(crate) fn replays(self, max: u8) -> Self {
        self.with_charge(|charge| charge.replays_max = Some(max))
    }

    /// The charge is refused where the server does not know the account's credit line.
    pub(crate) fn refusing_unknown_credit(self) -> Self {
        self.with_charge(|charge| charge.refuse_unknown_credit = true)
    }

    pub(crate) fn pace(self, pace: Pace) -> Self {
        self.with_charge(|charge| charge.pace = Some(pace))
    }

    pub(crate) fn last(mut self) -> Self {
        if let Action::Settle(settle) = &mut self.action {
            settle.last = true;
        }
        self
    }

    pub(crate) fn reported(mut self) -> Self {
        if let Action::Settle(settle) = &mut self.action {
            settle.reported = true;
        }
        self
    }

    pub(crate) fn over_capture_percent(mut self, percent: u8) -> Self {
        if let Action::Settle(settle) = &mut self.action {
            settle.over_capture_percent = percent;
        }
        self
    }

    pub(crate) fn refund_limits(mut self, daily: u64, monthly: u64) -> Self {
        if let Action::Refund(refund) | Action::Release(refund) = &mut self.action {
            (refund.daily_max, refund.monthly_max) = (amount(daily), amount(monthly));
        }
        self
    }

    pub(crate) fn expecting_version(mut self, version: u64) -> Self {
        if let Action::Adjust(Adjust { expected_version, .. }) | Action::Reset(Reset { expected_version, .. }) =
            &mut self.action
        {
            *expected_version = Some(version);
        }
        self
    }
}

/// The expected answer.
impl Row {
    pub(crate) fn gives<const N: usize>(self, code: Code, expected: [Expected; N]) -> Self {
        Self { code, expected: expected.to_vec(), ..self }
    }

    pub(crate) fn replayed<const N: usize>(self, code: Code, expected: [Expected; N]) -> Self {
        Self { replay: true, ..self.gives(code, expected) }
    }

    /// The row's command; `number` is its decision id.
    pub(crate) fn command(&self, number: usize) -> Command {
        let now_ms = NOW_MS + self.at_ms;
        Command {
            merchant: MerchantId::parse("m").unwrap(),
            currency: if self.action.is_of_merchant() {
                Currency::NONE
            } else {
                Currency::parse(self.currency).unwrap()
            },
            order_no: self.order.map(|order| OrderNo::parse(order).unwrap()),
            attempt: AttemptId::from_text(self.attempt),
            action: self.action,
            effect: self.effect,
            decision_id: (number as u128).to_be_bytes(),
            now_ms,
            windows: Calendar::UTC.windows_at(now_ms),
            order_ttl_secs: TTL_SECS,
            backlog_max: 1000,
            threshold_policy: self.threshold_policy.map(Arc::new),
            credit: self.credit,
            history: self.history.clone(),
            payment_no: None,
            operation_no: None,
            channel: None,
        }
    }

    /// Compares an answer with the expected one.
    pub(crate) fn check(&self, reply: &Reply) -> Result<(), String> {
        let record = &reply.record;
        if (record.code, record.replay) != (self.code, self.replay) {
            let (code, replay) = (record.code, record.replay);
            return Err(format!("{code:?} (replay {replay}) in place of {:?} (replay {})", self.code, self.replay));
        }
        let wrong = self
            .expected
            .iter()
            .map(|expected| (*expected, expected.of(reply)))
            .find(|(expected, got)| expected != got);
        wrong.map_or(Ok(()), |(expected, got)| Err(format!("{got:?} in place of {expected:?}")))
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} by {} at {} ms", self.action.as_str(), self.order.unwrap_or("-"), self.attempt, self.at_ms)
    }
}
