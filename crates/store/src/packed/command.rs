//! The script's argument for a command.

use quota::{
    Action, Adjust, AmountMinor, Change, Charge, Code, Command, CreditTerms, Effect, Grant, HoldTerms, Limits,
    NOW_MS_MAX, OnExpiry, OperationId, OperationKind, OrderState, Origin, Origins, Pace, Reset, Resolution, Settle,
    Subject, ThresholdPolicy, Weight,
};

use super::Writer;
use super::flags::{
    COMMAND_DRY, COMMAND_JOURNALED, COMMAND_LAST_OR_RESERVED, COMMAND_PACED, COMMAND_REFUSE_UNKNOWN_CREDIT,
    COMMAND_WEIGHED, ORDER_ON_CREDIT,
};
use super::layout::{MAXIMA, ORDER_FORMAT, len};
use super::op::{self, ANY_REPLAYS, REPORTED};

/// The indexes of a command's keys in the call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIndexes {
    /// 0 for a command about the merchant as a whole.
    pub account: u16,
    pub order: u16,
    pub merchant: u16,
    pub stream: u16,
    /// 0 for a command that concerns no right.
    pub right: u16,
    /// 0 without a threshold policy.
    pub threshold_policy: u16,
}

/// Whether a command is a plain charge: its order is kept for `order_ttl_secs`, and it has only an amount, which counts as it is,
/// and the limits of the windows.
#[must_use]
pub fn is_plain(command: &Command, order_ttl_secs: u32) -> bool {
    let Action::Consume(Charge { weight: Weight::AMOUNT, refusal: None, pace: None, .. }) = command.action else {
        return false;
    };
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
    out.bytes(&[match (plain, &command.credit) {
        (true, None) => op::PLAIN,
        (true, Some(_)) => op::PLAIN_CREDIT,
        (false, _) => number(&command.action),
    }]);
    let KeyIndexes { account, order, merchant, stream, right, threshold_policy } = indexes;
    [account, order, merchant, stream, threshold_policy, right].into_iter().for_each(|index| out.u16(index));
    out.u32(command.backlog_max);
    out.optional(command.action.amount().map(AmountMinor::get));
    if plain {
        out.quiet_maxima(command);
    } else {
        out.maxima(&command.action);
    }
    out.number(command.time_ms());
    out.expected(command);
    out.u32(command.credit.as_ref().map_or(0, |terms| terms.cycle));
    out.number(command.windows.since_ms.clamp(0, NOW_MS_MAX).unsigned_abs());
    out.u32(command.order_ttl_secs);
    out.bytes(&[flags_of(command), refusal(&command.action), replays_max(&command.action)]);
    // The journal rebuilds no longer order: an order's lists are bounded.
    out.u16(u16::try_from(history.len()).unwrap_or(u16::MAX));
    out.credit(command.credit.as_ref());
    if let Some(charge) = weighed(&command.action) {
        out.weight(charge.weight);
    }
    if plain {
        out.maxima(&command.action);
    } else {
        out.action(command);
    }
    out.bytes(&history);
}

const fn number(action: &Action) -> u8 {
    match action {
        Action::Consume(_) => op::CONSUME,
        Action::Hold(..) => op::HOLD,
        Action::VoidAttempt => op::VOID_ATTEMPT,
        Action::Void => op::VOID,
        Action::Settle(_) => op::SETTLE,
        Action::Refund(_) => op::REFUND,
        Action::Release(_) => op::RELEASE,
        Action::Expire => op::EXPIRE,
        Action::ExtendHold { .. } => op::EXTEND_HOLD,
        Action::Adjust(Adjust { .. }) => op::ADJUST,
        Action::Reset(_) => op::RESET,
        Action::Suspend => op::SUSPEND,
        Action::Resume => op::RESUME,
        Action::Initialize => op::INITIALIZE,
        Action::Roll => op::ROLL,
        Action::MarkUnknown(_) => op::UNKNOWN,
        Action::Resolve(_) => op::RESOLVE,
        Action::SuspendMerchant => op::SUSPEND_MERCHANT,
        Action::ResumeMerchant => op::RESUME_MERCHANT,
        Action::Post(_) => op::POST,
        Action::Grant(_) => op::GRANT,
        Action::Report(_) => op::REPORT,
        Action::ReleaseRight(_) => op::RELEASE_RIGHT,
        Action::OrphanRight(_) => op::ORPHAN_RIGHT,
    }
}

fn flags_of(command: &Command) -> u8 {
    let effect = match command.effect {
        Effect::Commit => 0,
        Effect::DryRun => COMMAND_DRY,
        Effect::DryRunJournaled => COMMAND_DRY + COMMAND_JOURNALED,
    };
    let charge = command.action.charge();
    let flags = [
        (charge.is_some_and(|charge| charge.pace.is_some()), COMMAND_PACED),
        (is_last_or_reserved(&command.action), COMMAND_LAST_OR_RESERVED),
        (charge.is_some_and(|charge| charge.refuse_unknown_credit), COMMAND_REFUSE_UNKNOWN_CREDIT),
        (weighed(&command.action).is_some(), COMMAND_WEIGHED),
    ];
    flags.into_iter().fold(effect, |all, (is_set, flag)| if is_set { all | flag } else { all })
}

/// The charge, where its amount does not count as it is.
fn weighed(action: &Action) -> Option<&Charge> {
    action.charge().filter(|charge| !charge.weight.is_amount())
}

const fn is_last_or_reserved(action: &Action) -> bool {
    match action {
        Action::Settle(settle) => settle.last,
        Action::Refund(refund) | Action::Release(refund) => refund.reserve,
        Action::ReleaseRight(release) => !release.by_holder,
        Action::Consume(_)
        | Action::Hold(..)
        | Action::VoidAttempt
        | Action::Void
        | Action::MarkUnknown(_)
        | Action::Resolve(_)
        | Action::Expire
        | Action::ExtendHold { .. }
        | Action::Adjust(_)
        | Action::Reset(_)
        | Action::Suspend
        | Action::Resume
        | Action::SuspendMerchant
        | Action::ResumeMerchant
        | Action::Initialize
        | Action::Post(_)
        | Action::Grant(_)
        | Action::Report(_)
        | Action::OrphanRight(_)
        | Action::Roll => false,
    }
}

fn refusal(action: &Action) -> u8 {
    let of_grant = if let Action::Grant(grant) = action { grant.refusal } else { None };
    let refusal = of_grant.or_else(|| action.charge().and_then(|charge| charge.refusal));
    refusal.map_or(0, Code::number)
}

fn replays_max(action: &Action) -> u8 {
    action.charge().and_then(|charge| charge.replays_max).unwrap_or(ANY_REPLAYS)
}

impl Writer<'_> {
    fn credit(&mut self, terms: Option<&CreditTerms>) {
        if let Some(CreditTerms { cycle: _, limit, uncapped_limit }) = terms {
            self.amount(*limit);
            self.amount(*uncapped_limit);
        }
    }

    fn maxima(&mut self, action: &Action) {
        if let Action::Grant(grant) = action {
            return self.windows(&grant.limits);
        }
        match action.charge() {
            Some(charge) => self.windows(&charge.limits),
            None => self.bytes(&[0; len(MAXIMA)]),
        }
    }

    /// The maxima up to which the charge neither breaks a limit nor reaches a threshold.
    fn quiet_maxima(&mut self, command: &Command) {
        let Action::Consume(charge) = &command.action else { return self.maxima(&command.action) };
        let Some(policy) = &command.threshold_policy else { return self.windows(&charge.limits) };
        let mut limits = charge.limits;
        for (limit, quiet) in ThresholdPolicy::LIMITS.into_iter().zip(policy.quiet_maxima()) {
            let max = limit.max_mut(&mut limits);
            *max = quiet.min(*max);
        }
        self.windows(&limits);
    }

    fn windows(&mut self, limits: &Limits) {
        limits.windows.iter().for_each(|(_, window)| self.amount(window.count));
        limits.windows.iter().for_each(|(_, window)| self.amount(window.amount));
    }

    /// The account head that a plain charge expects, and the order that it leaves.
    fn expected(&mut self, command: &Command) {
        let windows: Origins = command.windows.ids.map(|id| Origin { id: *id, epoch: 0 });
        self.charged_in(&windows);
        // Not suspended, nothing pending, and no threshold level reached.
        self.bytes(&[0; 11]);
        self.bytes(&[ORDER_FORMAT]);
        self.charged_in(&windows);
        let flags = if command.credit.is_some() { ORDER_ON_CREDIT } else { 0 };
        self.bytes(&[OrderState::Charged.number(), flags]);
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
            Action::ExtendHold { until_secs } => self.u32(*until_secs),
            Action::MarkUnknown(mark) => self.subject(mark.subject),
            Action::Resolve(resolution) => {
                self.bytes(&[if *resolution == Resolution::Made { op::MADE } else { op::NOT_MADE }]);
                // As long as the argument of a mark-unknown command, so that the script reads both alike.
                self.bytes(&[0; 16]);
            }
            Action::Adjust(adjust) => self.adjust(adjust),
            Action::Post(posting) => self.bytes(&[posting.kind.number()]),
            Action::Reset(Reset { windows, expected_version }) => {
                let bits = windows.iter().filter(|(_, reset)| **reset).map(|(period, _)| op::reset_of(period));
                self.bytes(&[bits.fold(0, |all, bit| all | bit)]);
                self.number(command.windows.until_ms.clamp(0, NOW_MS_MAX).unsigned_abs());
                self.optional(*expected_version);
            }
            Action::Grant(Grant { right: _, wanted, trust, limits: _, weight, refusal: _ }) => {
                self.number(wanted.amount);
                self.number(wanted.count);
                self.bytes(&[trust.above_percent, trust.share_percent]);
                self.number(trust.ttl_ms.into());
                self.number(command.windows.until_ms.clamp(0, NOW_MS_MAX).unsigned_abs());
                self.weight(*weight);
            }
            Action::Report(report) => self.weight(report.weight),
            Action::VoidAttempt
            | Action::Void
            | Action::Expire
            | Action::Suspend
            | Action::Resume
            | Action::SuspendMerchant
            | Action::ResumeMerchant
            | Action::Initialize
            | Action::ReleaseRight(_)
            | Action::OrphanRight(_)
            | Action::Roll => {}
        }
    }

    fn subject(&mut self, subject: Subject) {
        let (kind, id) = match subject {
            Subject::Charge => (op::OF_CHARGE, OperationId([0; 16])),
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
            Change::Add(_) => op::ADD,
            Change::Subtract(_) => op::SUBTRACT,
            Change::Set(_) => op::SET,
        };
        self.bytes(&[adjust.counter.number(), change]);
        self.optional(adjust.expected_version);
    }
}
