//! The script's argument for a command.

use quota::{
    Action, Adjust, AmountMinor, Change, Charge, Code, Command, Effect, HoldTerms, Limits, NOW_MS_MAX, OnExpiry,
    OperationId, OperationKind, OrderState, Origin, Origins, Pace, Reset, Resolution, Settle, Subject, ThresholdPolicy,
    WindowIds,
};

use super::{FORMAT, Writer};

/// A consume without anything out of the ordinary.
const PLAIN: u8 = 0;
/// Limits of windows come first in a threshold policy.
const WINDOW_LIMITS: usize = 6;
/// In place of a capture's bound: the money has moved.
const REPORTED: u8 = 255;
/// In place of the replays that a rule lets through: any number.
const ANY_REPLAYS: u8 = 255;
/// Flags of a command.
const DRY: u8 = 1;
const JOURNALED: u8 = 2;
const PACED: u8 = 4;
const LAST_OR_RESERVED: u8 = 8;

/// The indexes of a command's keys in the call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIndexes {
    /// 0 for a command about the merchant as a whole.
    pub account: u16,
    pub order: u16,
    pub merchant: u16,
    pub stream: u16,
    /// 0 without a threshold policy.
    pub threshold_policy: u16,
}

/// Whether a command is a plain charge: its order is kept for `order_ttl_secs`, and it has only an amount and the limits of the
/// windows.
#[must_use]
pub fn is_plain(command: &Command, order_ttl_secs: u32) -> bool {
    let Action::Consume(Charge { refusal: None, pace: None, .. }) = command.action else { return false };
    command.order_no.is_some()
        && command.effect == Effect::Commit
        && command.history.is_none()
        && command.windows.since_ms <= command.now_ms
        && command.order_ttl_secs == order_ttl_secs
}

/// Appends the script's argument for a command; `plain_ttl_secs` is the lifetime of plain charges' orders in this call.
pub fn command(out: &mut Vec<u8>, command: &Command, indexes: KeyIndexes, plain_ttl_secs: u32) {
    let plain = is_plain(command, plain_ttl_secs);
    let history = command.history.as_deref().map(super::pack_order).unwrap_or_default();
    let mut out = Writer(out);
    out.bytes(&[if plain { PLAIN } else { op(&command.action) }]);
    let KeyIndexes { account, order, merchant, stream, threshold_policy } = indexes;
    [account, order, merchant, stream, threshold_policy].into_iter().for_each(|index| out.u16(index));
    out.u32(command.backlog_max);
    out.optional(command.action.amount().map(AmountMinor::get));
    if plain {
        out.quiet_maxima(command);
    } else {
        out.maxima(&command.action);
    }
    out.number(command.time_ms());
    out.expected(command);
    out.number(command.windows.since_ms.clamp(0, NOW_MS_MAX).unsigned_abs());
    out.u32(command.order_ttl_secs);
    out.bytes(&[flags(command), refusal(&command.action), replays_max(&command.action)]);
    // The journal rebuilds no longer order: an order's lists are bounded.
    out.u16(u16::try_from(history.len()).unwrap_or(u16::MAX));
    if plain {
        out.maxima(&command.action);
    } else {
        out.action(command);
    }
    out.bytes(&history);
}

const fn op(action: &Action) -> u8 {
    match action {
        Action::Consume(_) => 1,
        Action::Hold(..) => 2,
        Action::VoidAttempt => 3,
        Action::Void => 4,
        Action::Settle(_) => 5,
        Action::Refund(_) => 6,
        Action::Release(_) => 7,
        Action::Expire => 8,
        Action::Adjust(Adjust { .. }) => 9,
        Action::Reset(_) => 10,
        Action::Suspend => 11,
        Action::Resume => 12,
        Action::Initialize => 13,
        Action::Roll => 14,
        Action::MarkUnknown(_) => 15,
        Action::Resolve(_) => 16,
        Action::SuspendMerchant => 17,
        Action::ResumeMerchant => 18,
    }
}

fn flags(command: &Command) -> u8 {
    let effect = match command.effect {
        Effect::Commit => 0,
        Effect::DryRun => DRY,
        Effect::DryRunJournaled => DRY + JOURNALED,
    };
    let is_paced = command.action.charge().is_some_and(|charge| charge.pace.is_some());
    effect + if is_paced { PACED } else { 0 } + if is_last_or_reserved(&command.action) { LAST_OR_RESERVED } else { 0 }
}

const fn is_last_or_reserved(action: &Action) -> bool {
    match action {
        Action::Settle(settle) => settle.last,
        Action::Refund(refund) | Action::Release(refund) => refund.reserve,
        Action::Consume(_)
        | Action::Hold(..)
        | Action::VoidAttempt
        | Action::Void
        | Action::MarkUnknown(_)
        | Action::Resolve(_)
        | Action::Expire
        | Action::Adjust(_)
        | Action::Reset(_)
        | Action::Suspend
        | Action::Resume
        | Action::SuspendMerchant
        | Action::ResumeMerchant
        | Action::Initialize
        | Action::Roll => false,
    }
}

fn refusal(action: &Action) -> u8 {
    action.charge().and_then(|charge| charge.refusal).map_or(0, Code::number)
}

fn replays_max(action: &Action) -> u8 {
    action.charge().and_then(|charge| charge.replays_max).unwrap_or(ANY_REPLAYS)
}

impl Writer<'_> {
    fn maxima(&mut self, action: &Action) {
        match action.charge() {
            Some(charge) => self.windows(&charge.limits),
            None => self.bytes(&[0; 48]),
        }
    }

    /// The maxima up to which the charge neither breaks a limit nor reaches a threshold.
    fn quiet_maxima(&mut self, command: &Command) {
        let Action::Consume(charge) = &command.action else { return self.maxima(&command.action) };
        let Some(policy) = &command.threshold_policy else { return self.windows(&charge.limits) };
        for (limit, quiet) in ThresholdPolicy::LIMITS.into_iter().zip(policy.quiet_maxima()).take(WINDOW_LIMITS) {
            let max = AmountMinor::new(limit.max(&charge.limits)).unwrap_or(AmountMinor::MAX);
            self.amount(max.min(quiet));
        }
    }

    fn windows(&mut self, limits: &Limits) {
        let Limits { day, month, year, .. } = limits;
        let maxima = [day.count, month.count, year.count, day.amount, month.amount, year.amount];
        maxima.into_iter().for_each(|max| self.amount(max));
    }

    /// The account head that a plain charge expects, and the order that it leaves.
    fn expected(&mut self, command: &Command) {
        let WindowIds { day, month, year, .. } = command.windows;
        let [day, month, year] = [day, month, year].map(|id| Origin { id, epoch: 0 });
        let windows = Origins { day, month, year };
        self.bytes(&[FORMAT]);
        self.charged_in(&windows);
        // Not suspended, nothing pending, and no threshold level reached.
        self.bytes(&[0; 7]);
        self.bytes(&[FORMAT]);
        self.charged_in(&windows);
        self.bytes(&[OrderState::Charged.number(), 0]);
        self.bytes(command.currency.code().as_bytes());
        self.amount(command.action.amount().unwrap_or(AmountMinor::ZERO));
        let expires = command.time_ms() / 1000 + u64::from(command.order_ttl_secs);
        self.u32(u32::try_from(expires).unwrap_or(u32::MAX));
        self.bytes(&command.decision_id);
        self.bytes(&[1, 0, 0]);
        self.bytes(&command.attempt.0);
    }

    fn action(&mut self, command: &Command) {
        match &command.action {
            Action::Consume(charge) => self.pace(charge),
            Action::Hold(charge, terms) => {
                self.amount(charge.limits.pending);
                self.terms(terms);
                self.pace(charge);
            }
            Action::Settle(Settle { id, reported, over_capture_percent, .. }) => {
                self.bytes(&id.0);
                self.bytes(&[if *reported { REPORTED } else { *over_capture_percent }]);
            }
            Action::Refund(refund) | Action::Release(refund) => {
                self.bytes(&refund.id.0);
                self.amount(refund.daily_max);
                self.amount(refund.monthly_max);
            }
            Action::MarkUnknown(mark) => self.subject(mark.subject),
            Action::Resolve(resolution) => {
                self.bytes(&[u8::from(*resolution == Resolution::Made)]);
                // As long as the argument of a mark-unknown command, so that the script reads both alike.
                self.bytes(&[0; 16]);
            }
            Action::Adjust(adjust) => self.adjust(adjust),
            Action::Reset(Reset { day, month, year, expected_version }) => {
                self.bytes(&[u8::from(*day) + 2 * u8::from(*month) + 4 * u8::from(*year)]);
                self.number(command.windows.until_ms.clamp(0, NOW_MS_MAX).unsigned_abs());
                self.optional(*expected_version);
            }
            Action::VoidAttempt
            | Action::Void
            | Action::Expire
            | Action::Suspend
            | Action::Resume
            | Action::SuspendMerchant
            | Action::ResumeMerchant
            | Action::Initialize
            | Action::Roll => {}
        }
    }

    fn subject(&mut self, subject: Subject) {
        let (kind, id) = match subject {
            Subject::Charge => (0, OperationId([0; 16])),
            Subject::Capture(id) => (OperationKind::Capture.number(), id),
            Subject::Refund(id) => (OperationKind::Refund.number(), id),
            Subject::Void => (OperationKind::Release.number(), OperationId([0; 16])),
        };
        self.bytes(&[kind]);
        self.bytes(&id.0);
    }

    fn terms(&mut self, terms: &HoldTerms) {
        self.u32(terms.lifetime_secs);
        self.bytes(&[u8::from(terms.on_expiry == OnExpiry::Settle)]);
    }

    fn pace(&mut self, charge: &Charge) {
        if let Some(Pace { interval_us, tolerance_us, delay_ms_max, ceiling }) = &charge.pace {
            [u64::from(*interval_us), *tolerance_us, u64::from(*delay_ms_max)]
                .into_iter()
                .for_each(|us| self.number(us));
            self.windows(ceiling);
        }
    }

    fn adjust(&mut self, adjust: &Adjust) {
        let change = match adjust.change {
            Change::Add(_) => 1,
            Change::Subtract(_) => 2,
            Change::Set(_) => 3,
        };
        self.bytes(&[adjust.counter.number(), change]);
        self.optional(adjust.expected_version);
    }
}
