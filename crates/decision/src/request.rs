//! What is to be decided, before a policy is known.

use std::borrow::Cow;

use quota::{
    Action, Adjust, AmountMinor, AttemptId, Channel, Charge, Code, Currency, Effect, Grant, HoldTerms, Limits, Mark,
    MerchantId, Mode, OperationId, OperationNo, OrderNo, PaymentNo, Policy, Posting, PostingKind, Refund, ReleaseRight,
    Report, Reset, Resolution, RightId, Settle, Share, Trust, Weight,
};
use sluice_kit::telemetry::Trace;
use sluice_lines::{LineKey, Opening, id_of};
use sluice_store::NO_ATTEMPT;
use strum::IntoStaticStr;

/// What is requested. An absent amount means all that is held, or all that is left to refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Consume(AmountMinor),
    Hold(AmountMinor),
    Settle {
        amount: Option<AmountMinor>,
        id: OperationId,
        /// It is the hold's last capture.
        last: bool,
        /// The gateway has made it: it is booked whatever its amount.
        reported: bool,
    },
    Void,
    VoidAttempt,
    Refund {
        amount: Option<AmountMinor>,
        id: OperationId,
        /// It is reserved now and confirmed once the gateway has made it.
        reserve: bool,
    },
    Release {
        amount: Option<AmountMinor>,
        id: OperationId,
    },
    MarkUnknown(Mark),
    Resolve(Resolution),
    Adjust(Adjust),
    Reset(Reset),
    Suspend,
    Resume,
    SuspendMerchant,
    ResumeMerchant,
    Initialize,
    /// An expired hold ends.
    Expire,
    /// A hold stays open until then, seconds since the epoch.
    ExtendHold {
        until_secs: u32,
    },
    /// A posting to the credit line. Its number is the request's `order_no`.
    Post(Posting),
    /// A holder asks for a right.
    GrantRight {
        right: RightId,
        wanted: Share,
    },
    /// A charge that a holder has admitted from a right.
    Report {
        right: RightId,
        amount: AmountMinor,
    },
    ReleaseRight(ReleaseRight),
    /// A right's holder is lost.
    OrphanRight(RightId),
    /// Windows that are over close, and thresholds are compared with the current limits.
    Roll,
}

impl Operation {
    /// Its amount.
    #[must_use]
    pub const fn amount(&self) -> Option<AmountMinor> {
        match self {
            Self::Consume(amount) | Self::Hold(amount) | Self::Report { amount, .. } => Some(*amount),
            Self::Settle { amount, .. }
            | Self::Refund { amount, .. }
            | Self::Release { amount, .. }
            | Self::MarkUnknown(Mark { amount, .. }) => *amount,
            Self::Post(posting) => Some(posting.amount),
            Self::Void
            | Self::VoidAttempt
            | Self::Resolve(_)
            | Self::Adjust(_)
            | Self::Reset(_)
            | Self::Suspend
            | Self::Resume
            | Self::SuspendMerchant
            | Self::ResumeMerchant
            | Self::Initialize
            | Self::Expire
            | Self::ExtendHold { .. }
            | Self::GrantRight { .. }
            | Self::ReleaseRight(_)
            | Self::OrphanRight(_)
            | Self::Roll => None,
        }
    }
}

/// A valid request for a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub merchant: MerchantId,
    /// [`Currency::NONE`] for the merchant as a whole.
    pub currency: Currency,
    pub order_no: Option<OrderNo>,
    pub payment_no: Option<PaymentNo>,
    pub operation_no: Option<OperationNo>,
    pub channel: Option<Channel>,
    pub attempt: AttemptId,
    pub operation: Operation,
    pub effect: Effect,
    /// How many repetitions of a charge are let through; `None` for any number.
    pub replays_max: Option<u8>,
    /// Whether the caller can hold a paced payment back. Where it cannot, a charge that would have to wait is refused.
    pub may_delay: bool,
    /// Why an attempt is voided, a hold ends or an account is changed manually; or empty.
    pub reason: String,
    /// A person's note, or empty.
    pub remarks: String,
    /// A JSON object, or empty.
    pub metadata: String,
    /// The day on which money was received, `YYYYMMDD`, where it is not the business day; of an opening, its due date.
    pub value_day: Option<u32>,
}

impl Request {
    /// A request for an operation, with nothing optional in it.
    #[must_use]
    pub const fn new(merchant: MerchantId, currency: Currency, attempt: AttemptId, operation: Operation) -> Self {
        Self {
            merchant,
            currency,
            order_no: None,
            payment_no: None,
            operation_no: None,
            channel: None,
            attempt,
            operation,
            effect: Effect::Commit,
            replays_max: None,
            may_delay: true,
            reason: String::new(),
            remarks: String::new(),
            metadata: String::new(),
            value_day: None,
        }
    }

    /// A posting to a credit line under a number, which is its own among those of its kind.
    #[must_use]
    pub fn posting(merchant: MerchantId, currency: Currency, number: OrderNo, posting: Posting) -> Self {
        let request = Self::new(merchant, currency, NO_ATTEMPT, Operation::Post(posting));
        Self { order_no: Some(number), ..request }
    }

    /// The posting that takes over a statement of another system.
    #[must_use]
    pub fn opening((merchant, currency): &LineKey, opening: Opening) -> Self {
        let posting = Posting { kind: PostingKind::Opening, amount: opening.amount };
        let request = Self::posting(merchant.clone(), *currency, opening.number, posting);
        Self { value_day: Some(id_of(opening.due_on)), ..request }
    }

    /// The action of the command: the operation with the terms of the policy.
    pub(crate) fn action(&self, policy: Option<&Policy>) -> Action {
        match self.operation {
            Operation::Consume(amount) => Action::Consume(self.charge(amount, policy)),
            Operation::Hold(amount) => {
                let terms = policy.map_or(HoldTerms::DEFAULT, |policy| policy.hold);
                Action::Hold(self.charge(amount, policy), terms)
            }
            Operation::Settle { amount, id, last, reported } => {
                let over_capture_percent = policy.map_or(0, |policy| policy.over_capture_percent);
                Action::Settle(Settle { amount, id, last, over_capture_percent, reported })
            }
            Operation::Void => Action::Void,
            Operation::VoidAttempt => Action::VoidAttempt,
            Operation::Refund { amount, id, reserve } => Action::Refund(Refund::under(policy, amount, id, reserve)),
            Operation::Release { amount, id } => Action::Release(Refund::under(policy, amount, id, false)),
            Operation::MarkUnknown(mark) => Action::MarkUnknown(mark),
            Operation::Resolve(resolution) => Action::Resolve(resolution),
            Operation::Adjust(adjust) => Action::Adjust(adjust),
            Operation::Reset(reset) => Action::Reset(reset),
            Operation::Suspend => Action::Suspend,
            Operation::Resume => Action::Resume,
            Operation::SuspendMerchant => Action::SuspendMerchant,
            Operation::ResumeMerchant => Action::ResumeMerchant,
            Operation::Initialize => Action::Initialize,
            Operation::Expire => Action::Expire,
            Operation::ExtendHold { until_secs } => Action::ExtendHold { until_secs },
            Operation::Post(posting) => Action::Post(posting),
            Operation::GrantRight { right, wanted } => Action::Grant(self.grant(right, wanted, policy)),
            Operation::Report { right, amount } => {
                Action::Report(Report { right, amount, weight: policy.map_or(Weight::AMOUNT, |policy| policy.weight) })
            }
            Operation::ReleaseRight(release) => Action::ReleaseRight(release),
            Operation::OrphanRight(right) => Action::OrphanRight(right),
            Operation::Roll => Action::Roll,
        }
    }

    /// A policy without trust grants nothing.
    fn grant(&self, right: RightId, wanted: Share, policy: Option<&Policy>) -> Grant {
        let trusting = policy.and_then(|policy| Some((policy, policy.trust?)));
        let Some((policy, trust)) = trusting else {
            return Grant {
                right,
                wanted,
                trust: Trust::NONE,
                limits: Limits::UNLIMITED,
                weight: Weight::AMOUNT,
                refusal: Some(Code::PolicyMissing),
            };
        };
        // Whatever the amounts: the holder has their bounds.
        let refusal = policy.refuses(policy.single_min, self.currency, self.channel.as_ref());
        Grant { right, wanted, trust, limits: policy.limits, weight: policy.weight, refusal }
    }

    fn charge(&self, amount: AmountMinor, policy: Option<&Policy>) -> Charge {
        let mut charge = Charge::under(policy, amount, self.currency, self.channel.as_ref());
        charge.replays_max = self.replays_max;
        if let Some(pace) = charge.pace.as_mut().filter(|_| !self.may_delay) {
            pace.delay_ms_max = 0;
        }
        charge
    }
}

/// Where a request comes from. Its word is the one in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum Source {
    /// A payment or a follow-up at the proxy.
    Proxy,
    /// The admin API or the command line.
    Api,
    /// A periodic job.
    Job,
}

/// The caller, and how it calls.
#[derive(Clone, Debug)]
pub struct Caller {
    pub source: Source,
    /// The actor in the journal.
    pub actor: Cow<'static, str>,
    /// `system`, `admin` or `api`; empty where the actor implies it.
    pub operator_type: &'static str,
    pub mode: Mode,
    /// The caller's span.
    pub trace: Option<Trace>,
}

/// The id of a capture; one without a number is the order's only one.
#[must_use]
pub fn capture_id(capture_no: Option<&str>) -> OperationId {
    OperationId::of(capture_no.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use sluice_policy::PolicyBook;
    use sluice_policy_source::zones::Zones;

    use super::*;

    fn amount(minor: u64) -> AmountMinor {
        AmountMinor::new(minor).unwrap()
    }

    /// The action of a request under a policy that paces charges, bounds refunds and takes captures beyond a hold.
    fn action(operation: Operation, may_delay: bool) -> Action {
        let text = "version: v1\ndefault: {timezone: UTC, daily_amount: 5000, refund_daily_amount: 70, \
            over_capture_percent: 15, \
            breach: {throttle: {per_minute: 60, burst: 1, delay_ms_max: 2000, ceiling_percent: 150}}}\n";
        let book = PolicyBook::from_yaml(text, &Zones::compiled_in()).unwrap();
        let merchant = MerchantId::parse("m").unwrap();
        let currency = Currency::parse("USD").unwrap();
        let policy = book.effective(&merchant, currency, None, 0).unwrap();
        let request = Request::new(merchant.clone(), currency, AttemptId([7; 16]), operation);
        Request { may_delay, replays_max: Some(3), ..request }.action(Some(policy))
    }

    #[test]
    fn the_policys_terms_are_in_the_action() {
        for operation in [Operation::Consume(amount(5)), Operation::Hold(amount(5))] {
            for (may_delay, expected_ms) in [(true, 2000), (false, 0)] {
                let (Action::Consume(charge) | Action::Hold(charge, _)) = action(operation, may_delay) else {
                    panic!("no charge")
                };
                assert_eq!(charge.pace.unwrap().delay_ms_max, expected_ms, "{operation:?}");
                assert_eq!(charge.replays_max, Some(3));
            }
        }
        let id = OperationId::of("r");
        let Action::Refund(refund) = action(Operation::Refund { amount: None, id, reserve: true }, true) else {
            panic!("no refund")
        };
        assert_eq!((refund.daily_max.get(), refund.reserve, refund.id), (70, true, id));
        let settle = Operation::Settle { amount: None, id, last: false, reported: true };
        let Action::Settle(settle) = action(settle, true) else { panic!("no capture") };
        assert_eq!((settle.id, settle.last, settle.reported, settle.over_capture_percent), (id, false, true, 15));
    }

    #[test]
    fn an_operation_without_a_policy_has_the_defaults() {
        let merchant = MerchantId::parse("m").unwrap();
        let request = |operation| Request::new(merchant.clone(), Currency::NONE, AttemptId([0; 16]), operation);
        let Action::Hold(charge, terms) = request(Operation::Hold(amount(5))).action(None) else { panic!("no hold") };
        assert_eq!((charge.pace, terms), (None, HoldTerms::DEFAULT));
        assert_eq!(request(Operation::Roll).action(None), Action::Roll);
    }
}
