//! Commands to a store, with everything that the rule needs: time, windows and limits are parameters, never looked up.

use std::sync::Arc;

use crate::{
    AmountMinor, AttemptId, Breach, Channel, ClosedCycle, ClosedWindow, Code, CounterName, CreditTerms, Crossing,
    Currency, HoldTerms, Limits, MerchantId, OperationId, OperationNo, Order, OrderNo, Origins, PaymentNo, PerPeriod,
    Policy, Posting, PostingKind, Record, Right, RightId, Share, ThresholdPolicy, Throttle, Trust, Weighed, Weight,
    WindowIds, WindowLimits,
};

/// Later times (after the year 2223) are treated as this one, so that their microseconds stay exact in a double.
pub const NOW_MS_MAX: i64 = 8_000_000_000_000;

/// How far a command's time may lag behind the store's, in milliseconds. An earlier time is treated as lagging by this much.
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
    pub effect: Effect,
    /// UUIDv7 of this decision and of its event.
    pub decision_id: [u8; 16],
    /// Milliseconds since the epoch. Expiry of holds and orders, and pacing, use it within the bounds of the store's own time:
    /// see [`Command::time_at`].
    pub now_ms: i64,
    /// The windows of `now_ms` in the policy's calendar. They are opened only if they have begun by the store's own time.
    pub windows: WindowIds,
    /// How long the store keeps the order, from now or from the end of its hold.
    pub order_ttl_secs: u32,
    /// Events that may be pending in the journal's stream before new charges are refused.
    pub backlog_max: u32,
    /// The thresholds to evaluate; without it the account's levels stay as they are.
    pub threshold_policy: Option<Arc<ThresholdPolicy>>,
    /// The credit line that the account has. Where the server knows of none, the exposure is kept all the same once it was kept,
    /// and [`Charge::refuse_unknown_credit`] says whether charges are refused.
    pub credit: Option<CreditTerms>,
    /// The order rebuilt from the journal, where the store has evicted it.
    pub history: Option<Box<Order>>,
    /// For the journal only.
    pub payment_no: Option<PaymentNo>,
    /// For the journal only: the caller's number of a capture or refund.
    pub operation_no: Option<OperationNo>,
    /// For the journal only: whether the policy allows it is in [`Charge::refusal`].
    pub channel: Option<Channel>,
}

impl Command {
    /// The command's own time, limited to the range that can be stored.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        storable(self.now_ms)
    }

    /// The time that the rule uses when the store's own clock shows `store_ms`: the command's, but never later than the store's
    /// and never more than [`LAG_MS_MAX`] behind it.
    #[must_use]
    pub fn time_at(&self, store_ms: i64) -> u64 {
        let store_ms = storable(store_ms);
        self.time_ms().clamp(store_ms.saturating_sub(LAG_MS_MAX), store_ms)
    }

    /// Whether the command's windows have begun when the store's own clock shows `store_ms`. A command that arrives before its
    /// windows is not decided.
    #[must_use]
    pub fn has_begun(&self, store_ms: i64) -> bool {
        storable(self.windows.since_ms) <= storable(store_ms)
    }
}

/// A time, limited to the range that can be stored.
pub(crate) fn storable(ms: i64) -> u64 {
    ms.clamp(0, NOW_MS_MAX).unsigned_abs()
}

/// Whether a command changes state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// It changes state.
    #[default]
    Commit,
    /// The answer is given, nothing is changed and nothing journaled.
    DryRun,
    /// As `DryRun`, but a refusal is journaled: a payment was refused because of it.
    DryRunJournaled,
}

/// The operation that a command requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Consume quota for good.
    Consume(Charge),
    /// Consume quota whose final amount is open.
    Hold(Charge, HoldTerms),
    /// Void one attempt at an order, or the refund that it has reserved.
    VoidAttempt,
    /// End a hold, and return the amount that is still held.
    Void,
    /// Capture from a hold.
    Settle(Settle),
    /// Return captured quota.
    Refund(Refund),
    /// Record that the outcome of the order, or of an operation on it, is unknown after the gateway's answer.
    MarkUnknown(Mark),
    /// Record the outcome of an order whose outcome was unknown.
    Resolve(Resolution),
    /// Void or refund, depending on the order's state.
    Release(Refund),
    /// End an expired hold in the way that its terms define.
    Expire,
    /// Keep a hold open for longer.
    ExtendHold {
        /// Seconds since the epoch. A hold never ends earlier than before.
        until_secs: u32,
    },
    /// Correct one counter by hand.
    Adjust(Adjust),
    /// Empty windows.
    Reset(Reset),
    /// Refuse charges of the account from now on.
    Suspend,
    /// Accept charges of the account again.
    Resume,
    /// Refuse charges of the merchant from now on, whatever their currency.
    SuspendMerchant,
    /// Accept charges of the merchant again, except of accounts that are suspended themselves.
    ResumeMerchant,
    /// Create the account, if it does not exist yet.
    Initialize,
    /// Post to the account's credit line. The command's order number is that of the posting, among those of its kind.
    Post(Posting),
    /// Set an amount and a number of payments aside for a holder.
    Grant(Grant),
    /// Charge an order that a holder has admitted from a right. The payment went on: limits and suspensions do not refuse it.
    Report(Report),
    /// End a right, and return what no payment was reported for.
    ReleaseRight(ReleaseRight),
    /// Record that a right's holder is lost: what it has not reported stays consumed.
    OrphanRight(RightId),
    /// Close the windows that have ended, and update the account's threshold levels to its limits.
    Roll,
}

impl Action {
    /// Every name that [`Action::as_str`] has.
    pub const NAMES: [&str; 29] = [
        "consume",
        "hold",
        "void",
        "settle",
        "reserve_refund",
        "refund",
        "release",
        "unknown",
        "resolve",
        "expire",
        "extend_hold",
        "adjust",
        "reset",
        "suspend",
        "resume",
        "suspend_merchant",
        "resume_merchant",
        "initialize",
        PostingKind::Repayment.as_str(),
        PostingKind::Reversal.as_str(),
        PostingKind::WriteOff.as_str(),
        PostingKind::TransferIn.as_str(),
        PostingKind::TransferOut.as_str(),
        PostingKind::Recovery.as_str(),
        PostingKind::Opening.as_str(),
        "grant_right",
        "release_right",
        "orphan_right",
        "roll",
    ];

    /// The name used in the journal, logs and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            // A report is a charge: its order and its row are those of one.
            Self::Consume(_) | Self::Report(_) => "consume",
            Self::Hold(..) => "hold",
            Self::VoidAttempt | Self::Void => "void",
            Self::Settle(_) => "settle",
            Self::Refund(refund) if refund.reserve => "reserve_refund",
            Self::Refund(_) => "refund",
            Self::MarkUnknown(_) => "unknown",
            Self::Resolve(_) => "resolve",
            Self::Release(_) => "release",
            Self::Expire => "expire",
            Self::ExtendHold { .. } => "extend_hold",
            Self::Adjust(_) => "adjust",
            Self::Reset(_) => "reset",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::SuspendMerchant => "suspend_merchant",
            Self::ResumeMerchant => "resume_merchant",
            Self::Initialize => "initialize",
            Self::Post(posting) => posting.kind.as_str(),
            Self::Grant(_) => "grant_right",
            Self::ReleaseRight(_) => "release_right",
            Self::OrphanRight(_) => "orphan_right",
            Self::Roll => "roll",
        }
    }

    /// The requested amount, if any.
    #[must_use]
    pub const fn amount(&self) -> Option<AmountMinor> {
        match self {
            Self::Consume(charge) | Self::Hold(charge, _) => Some(charge.amount),
            Self::Settle(settle) => settle.amount,
            Self::Refund(refund) | Self::Release(refund) => refund.amount,
            Self::MarkUnknown(mark) => mark.amount,
            Self::Adjust(adjust) => Some(adjust.change.amount()),
            Self::Post(posting) => Some(posting.amount),
            Self::Report(report) => Some(report.amount),
            Self::VoidAttempt
            | Self::Void
            | Self::Expire
            | Self::ExtendHold { .. }
            | Self::Resolve(_)
            | Self::Reset(_)
            | Self::Suspend
            | Self::Resume
            | Self::SuspendMerchant
            | Self::ResumeMerchant
            | Self::Initialize
            | Self::Grant(_)
            | Self::ReleaseRight(_)
            | Self::OrphanRight(_)
            | Self::Roll => None,
        }
    }

    /// The charge, where it is one.
    #[must_use]
    pub const fn charge(&self) -> Option<&Charge> {
        match self {
            Self::Consume(charge) | Self::Hold(charge, _) => Some(charge),
            Self::VoidAttempt
            | Self::Void
            | Self::Settle(_)
            | Self::Refund(_)
            | Self::MarkUnknown(_)
            | Self::Resolve(_)
            | Self::Release(_)
            | Self::Expire
            | Self::ExtendHold { .. }
            | Self::Adjust(_)
            | Self::Reset(_)
            | Self::Suspend
            | Self::Resume
            | Self::SuspendMerchant
            | Self::ResumeMerchant
            | Self::Initialize
            | Self::Post(_)
            | Self::Grant(_)
            | Self::Report(_)
            | Self::ReleaseRight(_)
            | Self::OrphanRight(_)
            | Self::Roll => None,
        }
    }

    /// The right that it concerns, if any.
    #[must_use]
    pub const fn right(&self) -> Option<RightId> {
        match self {
            Self::Grant(grant) => Some(grant.right),
            Self::Report(report) => Some(report.right),
            Self::ReleaseRight(release) => Some(release.right),
            Self::OrphanRight(right) => Some(*right),
            Self::Consume(_)
            | Self::Hold(..)
            | Self::VoidAttempt
            | Self::Void
            | Self::Settle(_)
            | Self::Refund(_)
            | Self::MarkUnknown(_)
            | Self::Resolve(_)
            | Self::Release(_)
            | Self::Expire
            | Self::ExtendHold { .. }
            | Self::Adjust(_)
            | Self::Reset(_)
            | Self::Suspend
            | Self::Resume
            | Self::SuspendMerchant
            | Self::ResumeMerchant
            | Self::Initialize
            | Self::Post(_)
            | Self::Roll => None,
        }
    }

    /// The kind of posting, whose numbers are apart from those of orders and of other kinds.
    #[must_use]
    pub const fn posting(&self) -> Option<PostingKind> {
        if let Self::Post(posting) = self { Some(posting.kind) } else { None }
    }

    /// Whether it concerns the merchant as a whole, and so no account.
    #[must_use]
    pub const fn is_of_merchant(&self) -> bool {
        matches!(self, Self::SuspendMerchant | Self::ResumeMerchant)
    }
}

/// A charge and the limits in force for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub amount: AmountMinor,
    /// What the amount counts against the amount limits; the order keeps it.
    pub weight: Weight,
    pub limits: Limits,
    /// The code with which the policy refuses the charge, independent of usage. The replay of an admitted charge takes precedence.
    pub refusal: Option<Code>,
    /// The pace above the window limits; without it they are hard.
    pub pace: Option<Pace>,
    /// How many repetitions of an admitted charge are allowed, by other attempts than its own; at most
    /// [`crate::REPLAYS_MAX`], and `None` for any number.
    pub replays_max: Option<u8>,
    /// Refuse the charge with [`Code::CreditUnknown`] where the account is on a credit line and the command has no terms of it.
    pub refuse_unknown_credit: bool,
}

impl Charge {
    /// What it counts against the amount limits.
    #[must_use]
    pub fn counts(&self) -> u64 {
        self.weight.counts(self.amount.get())
    }

    /// The figure beside its amount; `None` where the limits count amounts as they are.
    #[must_use]
    pub fn weighed(&self) -> Option<Weighed> {
        (!self.weight.is_amount()).then(|| Weighed { weight: self.weight, counted: self.counts() })
    }

    /// The window limits that no charge exceeds.
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
                weight: policy.weight,
                limits: policy.limits,
                refusal: policy.refuses(amount, currency, channel),
                pace: match policy.breach {
                    Breach::Reject => None,
                    Breach::Throttle(throttle) => Some(Pace::of(&throttle, &policy.limits)),
                },
                replays_max: None,
                refuse_unknown_credit: false,
            },
            None => Self {
                amount,
                weight: Weight::AMOUNT,
                limits: Limits::UNLIMITED,
                refusal: Some(Code::PolicyMissing),
                pace: None,
                replays_max: None,
                refuse_unknown_credit: false,
            },
        }
    }
}

/// A right that a holder asks for, and what bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub right: RightId,
    /// What the holder has use for.
    pub wanted: Share,
    pub trust: Trust,
    pub limits: Limits,
    /// What the amounts of its payments count.
    pub weight: Weight,
    /// The code with which the policy refuses charges, whatever their amount.
    pub refusal: Option<Code>,
}

/// The end of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseRight {
    pub right: RightId,
    /// Its holder ends it, and has reported all of its payments. All others wait until none can be reported any more.
    pub by_holder: bool,
}

impl ReleaseRight {
    /// How long after a right's end its payments may still be reported, in milliseconds: the proxy tries for 16 minutes, and a
    /// command's time may lag behind the store's.
    pub const REPORTED_WITHIN_MS: u64 = 18 * 60_000;
}

/// A payment that a holder has admitted from a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub right: RightId,
    pub amount: AmountMinor,
    /// What the amount counts, where the right is not known any more.
    pub weight: Weight,
}

/// The pace of charges above a limit: the generic cell rate algorithm (ITU-T I.371) with a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two charges, microseconds.
    pub interval_us: u32,
    /// How much earlier than its theoretical arrival time a charge may arrive, microseconds.
    pub tolerance_us: u64,
    /// How long the proxy may delay a charge.
    pub delay_ms_max: u32,
    /// Window limits that are never exceeded; the other members of [`Limits`] are not used here.
    pub ceiling: Limits,
}

impl Pace {
    /// The pace of a policy's throttle.
    #[must_use]
    pub fn of(throttle: &Throttle, limits: &Limits) -> Self {
        let interval_us = 60_000_000 / throttle.per_minute.max(1);
        let raised = |max: AmountMinor| {
            let raised = u128::from(max.get()) * u128::from(throttle.ceiling_percent.max(100)) / 100;
            u64::try_from(raised).ok().and_then(AmountMinor::new).unwrap_or(AmountMinor::MAX)
        };
        let window = |window: &WindowLimits| WindowLimits {
            amount: raised(window.amount),
            count: raised(window.count),
            ..WindowLimits::UNLIMITED
        };
        Self {
            interval_us,
            tolerance_us: u64::from(interval_us) * u64::from(throttle.burst.saturating_sub(1)),
            delay_ms_max: throttle.delay_ms_max,
            ceiling: Limits { windows: limits.windows.map(window), ..Limits::UNLIMITED },
        }
    }
}

/// A capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// `None` captures all that is still held.
    pub amount: Option<AmountMinor>,
    pub id: OperationId,
    /// Ends the hold: the amount that is still held is returned.
    pub last: bool,
    /// By how many percent of the hold all its captures may exceed it; 0 to 100.
    pub over_capture_percent: u8,
    /// The gateway has captured already: the money has moved. So any amount is accepted, also from a hold that has ended, and
    /// consumed in the current windows.
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
    /// The gateway has not refunded yet: the amount is counted as refunded, but quota is returned only when the same refund is
    /// sent again without this. The void of its attempt cancels it.
    pub reserve: bool,
}

impl Refund {
    /// A refund under a policy; without one only the order bounds it.
    #[must_use]
    pub fn under(policy: Option<&Policy>, amount: Option<AmountMinor>, id: OperationId, reserve: bool) -> Self {
        let limits = policy.map_or(Limits::UNLIMITED, |policy| policy.limits);
        Self { amount, id, daily_max: limits.windows.day.refunded, monthly_max: limits.windows.month.refunded, reserve }
    }
}

/// An outcome that the gateway's answer left unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub subject: Subject,
    /// The requested amount; for a charge it is that of the order.
    pub amount: Option<AmountMinor>,
}

/// The operation whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The order's charge or hold.
    Charge,
    Capture(OperationId),
    Refund(OperationId),
    /// The end of its hold.
    Void,
}

/// The outcome of a charge or hold that was unknown before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The gateway made it: it stays consumed.
    Made,
    /// The gateway made it by none of its attempts: its quota is returned, and the order may be charged again.
    NotMade,
}

/// How a counter is corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Add(AmountMinor),
    Subtract(AmountMinor),
    Set(AmountMinor),
}

impl Change {
    /// The amount of the correction.
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
    /// The account's version that the change is based on; the change is refused at any other version.
    pub expected_version: Option<u64>,
}

/// Windows to empty: consumed amount, number of charges and refunded amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    pub windows: PerPeriod<bool>,
    /// As for [`Adjust::expected_version`].
    pub expected_version: Option<u64>,
}

/// A store's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub record: Record,
    /// The decision id returned to the caller: the first decision's where the answer repeats it.
    pub decision_id: [u8; 16],
    /// This command's own id, which is also its event's.
    pub event_id: [u8; 16],
    /// The event's number within its shard, from 1 without gaps; `None` where nothing was journaled.
    pub event_seq: Option<u64>,
}

/// A right after a command that changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RightAfter {
    Kept(Right),
    Ended,
}

/// The result of a command: the new state where it changes, and whether an event is journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub record: Record,
    /// See [`Reply::decision_id`].
    pub decision_id: [u8; 16],
    pub account: Option<crate::Account>,
    pub order: Option<Order>,
    pub right: Option<RightAfter>,
    pub merchant: Option<crate::Merchant>,
    /// Windows that the change to the account closed.
    pub closed: Vec<ClosedWindow>,
    /// The billing cycle that it closed.
    pub closed_cycle: Option<ClosedCycle>,
    /// The thresholds that the change to the account crossed.
    pub crossing: Option<Crossing>,
    /// The windows of a report's right, where they are not the account's any more.
    pub counted_in: Option<Origins>,
    pub journal: bool,
}
