//! What a store is asked, with everything that the rule needs: time, windows and limits are given, never looked up.

use std::sync::Arc;

use crate::{
    AmountMinor, AttemptId, Breach, Channel, ClosedWindow, Code, Crossing, Currency, HoldTerms, Limits, MerchantId,
    OperationId, OperationNo, Order, OrderNo, PaymentNo, Period, Policy, Record, Throttle, Watch, WindowIds,
    WindowLimits,
};

/// Times after the year 2223 count as this one, so that their microseconds stay exact in a double.
pub const NOW_MS_MAX: i64 = 8_000_000_000_000;

/// How far a command's time may lie behind the store's, in milliseconds; an earlier one counts as this much behind it.
pub const LAG_MS_MAX: u64 = 60_000;

/// One command to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub merchant: MerchantId,
    /// [`Currency::NONE`] for commands about the merchant as a whole.
    pub currency: Currency,
    /// `None` for commands about the account or the merchant alone, and for dry runs of a charge.
    pub order_no: Option<OrderNo>,
    pub attempt: AttemptId,
    pub action: Action,
    pub dry: Dry,
    /// UUIDv7 of this decision and of its event.
    pub decision_id: [u8; 16],
    /// Milliseconds since the epoch. What ends, is forgotten or is paced goes by it as far as the store's own time allows: see
    /// [`Command::time_at`].
    pub now_ms: i64,
    /// The windows of `now_ms` in the policy's calendar. They are opened only where they have begun by the store's own time.
    pub windows: WindowIds,
    /// How long the order is remembered from now on, or from the end of its hold on.
    pub order_ttl_secs: u32,
    /// Events that may wait in the journal's stream before new charges are refused.
    pub backlog_max: u32,
    /// Which usage is told of; without it the account's marks stay as they are.
    pub watch: Option<Arc<Watch>>,
    /// The order as the journal knows it, for one that the store has forgotten.
    pub history: Option<Box<Order>>,
    /// For the journal only.
    pub payment_no: Option<PaymentNo>,
    /// For the journal only: the caller's number of a capture or refund.
    pub operation_no: Option<OperationNo>,
    /// For the journal only: the policy's word on it is in [`Charge::refusal`].
    pub channel: Option<Channel>,
}

impl Command {
    /// The command's own time, as far as it can be stored.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        storable(self.now_ms)
    }

    /// The time that the rule reckons with where the store's own clock shows `store_ms`: the command's, but none that the store
    /// has not reached, and none that is over for longer than [`LAG_MS_MAX`].
    #[must_use]
    pub fn time_at(&self, store_ms: i64) -> u64 {
        let store_ms = storable(store_ms);
        self.time_ms().clamp(store_ms.saturating_sub(LAG_MS_MAX), store_ms)
    }

    /// Whether the command's windows have begun where the store's own clock shows `store_ms`. A command that comes before its
    /// windows is not decided.
    #[must_use]
    pub fn has_begun(&self, store_ms: i64) -> bool {
        storable(self.windows.since_ms) <= storable(store_ms)
    }
}

/// A time as far as it can be stored.
pub(crate) fn storable(ms: i64) -> u64 {
    ms.clamp(0, NOW_MS_MAX).unsigned_abs()
}

/// Whether a command takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dry {
    /// It does.
    #[default]
    No,
    /// The answer is given, nothing is changed and nothing journalled.
    Silent,
    /// As `Silent`, but a refusal is journalled: somebody was refused because of it.
    Noted,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Consume quota for good.
    Consume(Charge),
    /// Consume quota whose final amount is open.
    Hold(Charge, HoldTerms),
    /// Take one attempt at an order back, or the refund that it has reserved.
    VoidAttempt,
    /// End a hold, and return what it still holds.
    Void,
    /// Capture from a hold.
    Settle(Settle),
    /// Return captured quota.
    Refund(Refund),
    /// Say that the gateway's answer leaves open what became of the order, or of an operation on it.
    MarkUnknown(Mark),
    /// Say what became of an order whose outcome was unknown.
    Resolve(Resolution),
    /// Void or refund, whichever the order's state asks for.
    Release(Refund),
    /// End a hold whose time is over in the way that it says.
    Expire,
    /// Correct one counter by hand.
    Adjust(Adjust),
    /// Empty windows.
    Reset(Reset),
    /// Refuse charges of the account from now on.
    Suspend,
    /// Take the account's charges again.
    Resume,
    /// Refuse charges of the merchant from now on, whatever their currency.
    SuspendMerchant,
    /// Take the merchant's charges again, but for accounts that are suspended themselves.
    ResumeMerchant,
    /// Make the account, where it is not there yet.
    Initialize,
    /// Close the windows that are over, and bring the account's marks in line with its limits.
    Roll,
}

impl Action {
    /// The word of the journal, the log and the metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Consume(_) => "consume",
            Self::Hold(..) => "hold",
            Self::VoidAttempt | Self::Void => "void",
            Self::Settle(_) => "settle",
            Self::Refund(refund) if refund.reserve => "reserve_refund",
            Self::Refund(_) => "refund",
            Self::MarkUnknown(_) => "unknown",
            Self::Resolve(_) => "resolve",
            Self::Release(_) => "release",
            Self::Expire => "expire",
            Self::Adjust(_) => "adjust",
            Self::Reset(_) => "reset",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::SuspendMerchant => "suspend_merchant",
            Self::ResumeMerchant => "resume_merchant",
            Self::Initialize => "initialize",
            Self::Roll => "roll",
        }
    }

    /// The amount that was asked for, where one was.
    #[must_use]
    pub const fn amount(&self) -> Option<AmountMinor> {
        match self {
            Self::Consume(charge) | Self::Hold(charge, _) => Some(charge.amount),
            Self::Settle(settle) => settle.amount,
            Self::Refund(refund) | Self::Release(refund) => refund.amount,
            Self::MarkUnknown(mark) => mark.amount,
            Self::Adjust(adjust) => Some(adjust.change.amount()),
            Self::VoidAttempt
            | Self::Void
            | Self::Expire
            | Self::Resolve(_)
            | Self::Reset(_)
            | Self::Suspend
            | Self::Resume
            | Self::SuspendMerchant
            | Self::ResumeMerchant
            | Self::Initialize
            | Self::Roll => None,
        }
    }

    /// Whether it is about the merchant as a whole, and so about no account.
    #[must_use]
    pub const fn is_of_merchant(&self) -> bool {
        matches!(self, Self::SuspendMerchant | Self::ResumeMerchant)
    }
}

/// A charge and the limits in force for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub amount: AmountMinor,
    pub limits: Limits,
    /// The code with which the policy refuses the charge whatever was consumed before. The replay of an admitted one goes before
    /// it.
    pub refusal: Option<Code>,
    /// What happens past the window limits; without it they are hard.
    pub pace: Option<Pace>,
    /// How many repetitions of an admitted charge are let through, by other attempts than its own; at most
    /// [`crate::REPLAYS_MAX`], and `None` for any number.
    pub replays_max: Option<u8>,
}

impl Charge {
    /// The window limits that no charge passes.
    #[must_use]
    pub fn hard_limits(&self) -> Limits {
        self.pace.map_or(self.limits, |pace| pace.ceiling)
    }

    /// A charge under a policy; without one it is refused.
    #[must_use]
    pub fn under(policy: Option<&Policy>, amount: AmountMinor, currency: Currency, channel: Option<&Channel>) -> Self {
        match policy {
            Some(policy) => Self {
                amount,
                limits: policy.limits,
                refusal: policy.refuses(amount, currency, channel),
                pace: match policy.breach {
                    Breach::Reject => None,
                    Breach::Throttle(throttle) => Some(Pace::of(&throttle, &policy.limits)),
                },
                replays_max: None,
            },
            None => Self {
                amount,
                limits: Limits::UNLIMITED,
                refusal: Some(Code::PolicyMissing),
                pace: None,
                replays_max: None,
            },
        }
    }
}

/// The pace of charges past a limit: the generic cell rate algorithm (ITU-T I.371) with a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two charges, microseconds.
    pub interval_us: u32,
    /// How much earlier than its turn a charge may come, microseconds.
    pub tolerance_us: u64,
    /// How long the proxy may hold a charge back.
    pub delay_ms_max: u32,
    /// Window limits that are never exceeded; the others of [`Limits`] do not count here.
    pub ceiling: Limits,
}

impl Pace {
    /// The pace that a policy's throttle asks for.
    #[must_use]
    pub fn of(throttle: &Throttle, limits: &Limits) -> Self {
        let interval_us = 60_000_000 / throttle.per_minute.max(1);
        let raised = |max: AmountMinor| {
            let raised = u128::from(max.get()) * u128::from(throttle.ceiling_percent.max(100)) / 100;
            u64::try_from(raised).ok().and_then(AmountMinor::new).unwrap_or(AmountMinor::MAX)
        };
        let window = |window: WindowLimits| WindowLimits { amount: raised(window.amount), count: raised(window.count) };
        Self {
            interval_us,
            tolerance_us: u64::from(interval_us) * u64::from(throttle.burst.saturating_sub(1)),
            delay_ms_max: throttle.delay_ms_max,
            ceiling: Limits {
                day: window(limits.day),
                month: window(limits.month),
                year: window(limits.year),
                ..Limits::UNLIMITED
            },
        }
    }
}

/// A capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// `None` captures all that is still held.
    pub amount: Option<AmountMinor>,
    pub id: OperationId,
    /// Ends the hold: what it still holds is returned.
    pub last: bool,
    /// By how many percent of the hold all its captures may exceed it; 0 to 100.
    pub over_capture_percent: u8,
    /// The gateway has captured already: the money has moved, so it is taken whatever its amount, also from a hold that has
    /// ended, and consumed in the windows of now.
    pub reported: bool,
}

/// A refund and the limits in force for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refund {
    /// `None` refunds all that is left.
    pub amount: Option<AmountMinor>,
    pub id: OperationId,
    pub daily_max: AmountMinor,
    pub monthly_max: AmountMinor,
    /// The gateway has not refunded yet: counted as refunded, but quota comes back only when the same refund is asked for
    /// again without this, and the void of its attempt cancels it.
    pub reserve: bool,
}

impl Refund {
    /// A refund under a policy; without one nothing but the order bounds it.
    #[must_use]
    pub fn under(policy: Option<&Policy>, amount: Option<AmountMinor>, id: OperationId, reserve: bool) -> Self {
        let limits = policy.map_or(Limits::UNLIMITED, |policy| policy.limits);
        Self { amount, id, daily_max: limits.refund_daily, monthly_max: limits.refund_monthly, reserve }
    }
}

/// What the gateway left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub subject: Subject,
    /// What was asked for; of a charge the order knows it.
    pub amount: Option<AmountMinor>,
}

/// What an unknown outcome is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The order's charge or hold.
    Charge,
    Capture(OperationId),
    Refund(OperationId),
    /// The end of its hold.
    Void,
}

/// What became of a charge or hold whose outcome was unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The gateway made it: it stays.
    Made,
    /// The gateway never made it, by none of its attempts: its quota comes back, and the order may be charged again.
    NotMade,
}

/// A counter that can be corrected by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterName {
    Amount(Period),
    Count(Period),
    Refunded(Period),
    Pending,
}

impl CounterName {
    /// Every counter; the place is its number in packed commands.
    pub const ALL: [Self; 10] = [
        Self::Amount(Period::Day),
        Self::Amount(Period::Month),
        Self::Amount(Period::Year),
        Self::Count(Period::Day),
        Self::Count(Period::Month),
        Self::Count(Period::Year),
        Self::Refunded(Period::Day),
        Self::Refunded(Period::Month),
        Self::Refunded(Period::Year),
        Self::Pending,
    ];

    /// The name that the account's figures have in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amount(Period::Day) => "daily_used",
            Self::Amount(Period::Month) => "monthly_used",
            Self::Amount(Period::Year) => "yearly_used",
            Self::Count(Period::Day) => "transactions_today",
            Self::Count(Period::Month) => "transactions_month",
            Self::Count(Period::Year) => "transactions_year",
            Self::Refunded(Period::Day) => "refunded_today",
            Self::Refunded(Period::Month) => "refunded_month",
            Self::Refunded(Period::Year) => "refunded_year",
            Self::Pending => "pending_amount",
        }
    }

    /// Reads the name back; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| counter.as_str() == text)
    }

    /// The number of packed commands: the place in [`CounterName::ALL`].
    #[must_use]
    pub fn number(self) -> u8 {
        let place = Self::ALL.into_iter().position(|counter| counter == self).unwrap_or_default();
        u8::try_from(place).unwrap_or_default()
    }
}

/// How a counter is corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Add(AmountMinor),
    Subtract(AmountMinor),
    Set(AmountMinor),
}

impl Change {
    /// The number that comes with it.
    #[must_use]
    pub const fn amount(self) -> AmountMinor {
        match self {
            Self::Add(amount) | Self::Subtract(amount) | Self::Set(amount) => amount,
        }
    }
}

/// A correction by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjust {
    pub counter: CounterName,
    pub change: Change,
    /// The account's version that the change was decided on; another one refuses it.
    pub expected_version: Option<u64>,
}

/// Windows to empty: consumed amount, number of charges and refunded amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    pub day: bool,
    pub month: bool,
    pub year: bool,
    /// As for [`Adjust::expected_version`].
    pub expected_version: Option<u64>,
}

impl Reset {
    pub(crate) const fn of(&self, period: Period) -> bool {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
            Period::Year => self.year,
        }
    }
}

/// A store's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub record: Record,
    /// The decision that the caller is told: the first one's where the answer repeats it.
    pub decision_id: [u8; 16],
    /// This command's own id, which its event has.
    pub event_id: [u8; 16],
    /// The event's number within its shard, from 1 without gaps; `None` where nothing was journalled.
    pub event_seq: Option<u64>,
}

/// What becomes of a command: the new state where it changes, and whether the journal hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub record: Record,
    /// See [`Reply::decision_id`].
    pub decision_id: [u8; 16],
    pub account: Option<crate::Account>,
    pub order: Option<Order>,
    pub merchant: Option<crate::Merchant>,
    /// Windows that the change of the account has closed.
    pub closed: Vec<ClosedWindow>,
    /// Where the change of the account crosses thresholds.
    pub crossing: Option<Crossing>,
    pub journal: bool,
}
