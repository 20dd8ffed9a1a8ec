//! The decision rule: how a command changes an account and an order.
//!
//! This is one of two implementations; the other is the Redis script. The differential suite compares the two.

mod account;
mod charge;
mod credit;
mod hold;
mod merchant;
mod outcome;
mod refund;
mod right;
mod void;

use crate::{
    Account, Action, AmountMinor, Charge, Code, Command, CreditRecord, Crossing, Effect, First, Merchant, Operation,
    OperationId, OperationKind, Order, OrderState, OrderSummary, Outcome, Record, Resolution, Right, RightAfter,
    ThresholdLevels, Weighed,
};

/// The stored state that a command concerns; `None` where nothing is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored<'a> {
    pub account: Option<&'a Account>,
    pub merchant: Option<&'a Merchant>,
    pub order: Option<&'a Order>,
    pub right: Option<&'a Right>,
    /// The number of pending events in the shard's stream.
    pub backlog: u64,
}

/// Applies the rule. `store_ms` is the time of the store's own clock, milliseconds since the epoch. Call it only for a command
/// whose windows have begun by that time ([`Command::has_begun`]).
#[must_use]
pub fn decide(stored: Stored<'_>, command: &Command, store_ms: i64) -> Outcome {
    let Stored { account, merchant, order, right, backlog } = stored;
    let merchant = merchant.copied().unwrap_or_default();
    let stored = account.copied().unwrap_or_default();
    let now_ms = command.time_at(store_ms);
    let known = order.filter(|order| u64::from(order.expires_at_secs) > now_ms / 1000);
    let recalled = command.history.as_deref().and_then(|history| recall(known, history));
    let case = Case {
        command,
        exists: account.is_some(),
        stored,
        account: stored.rolled(command.windows).with_credit(command.credit.as_ref()),
        merchant,
        order: recalled.as_ref().or(known),
        right: right.copied(),
        backlog,
        store_ms,
        now_ms,
    };
    case.outcome(case.bounded(case.verdict()))
}

/// The order rebuilt from the journal, where the store has evicted it; attempts that were voided meanwhile stay voided.
fn recall(known: Option<&Order>, history: &Order) -> Option<Order> {
    match known {
        None => Some(history.clone()),
        Some(order) if order.was_never_charged() => Some(Order { voided: order.voided.clone(), ..history.clone() }),
        Some(_) => None,
    }
}

/// A command with the stored state.
struct Case<'a> {
    command: &'a Command,
    exists: bool,
    stored: Account,
    /// As of the command's windows.
    account: Account,
    merchant: Merchant,
    order: Option<&'a Order>,
    right: Option<Right>,
    backlog: u64,
    store_ms: i64,
    /// The time that the rule uses: the command's, within the bounds of the store's own time.
    now_ms: u64,
}

/// What the rule decided for a case.
struct Verdict {
    code: Code,
    replay: bool,
    journal: bool,
    decision_id: [u8; 16],
    amount: u64,
    /// What the amount counts, where that is another figure.
    weighed: Option<Weighed>,
    /// The amount of the operation that the command conflicts with, where it is not the order's.
    first: Option<AmountMinor>,
    wait_ms: u64,
    account: Option<Account>,
    order: Option<Order>,
    right: Option<RightAfter>,
    /// The merchant after a command about it as a whole.
    merchant: Option<Merchant>,
}

impl Verdict {
    fn amount(self, amount: u64) -> Self {
        Self { amount, ..self }
    }

    fn weighed(self, weighed: Option<Weighed>) -> Self {
        Self { weighed, ..self }
    }

    /// The answer repeats an earlier one.
    fn replayed(self) -> Self {
        Self { replay: true, ..self }
    }

    /// No event: nothing changed, and no caller was refused.
    fn unjournaled(self) -> Self {
        Self { journal: false, ..self }
    }

    fn with_decision_id(self, decision_id: [u8; 16]) -> Self {
        Self { decision_id, ..self }
    }

    fn account(self, account: Account) -> Self {
        Self { account: Some(account), ..self }
    }

    fn order(self, order: Order) -> Self {
        Self { order: Some(order), ..self }
    }

    fn right(self, right: RightAfter) -> Self {
        Self { right: Some(right), ..self }
    }
}

impl<'a> Case<'a> {
    fn verdict(&self) -> Verdict {
        match &self.command.action {
            Action::Consume(charge) => self.charge(charge, None),
            Action::Hold(charge, terms) => self.charge(charge, Some(terms)),
            Action::VoidAttempt => self.void_attempt(),
            Action::Void => self.void(),
            Action::Settle(settle) => self.settle(settle),
            Action::Refund(refund) => self.refund(refund),
            Action::MarkUnknown(mark) => self.mark_unknown(mark),
            Action::Resolve(Resolution::Made) => self.made(),
            Action::Resolve(Resolution::NotMade) => self.not_made(),
            Action::Release(refund) => self.release(refund),
            Action::Expire => self.expire(),
            Action::ExtendHold { until_secs } => self.extend_hold(*until_secs),
            Action::Adjust(adjust) => self.adjust(adjust),
            Action::Reset(reset) => self.reset(reset),
            Action::Suspend => self.suspend(true),
            Action::Resume => self.suspend(false),
            Action::SuspendMerchant => self.suspend_merchant(true),
            Action::ResumeMerchant => self.suspend_merchant(false),
            Action::Initialize => self.initialize(),
            Action::Post(posting) => self.post(posting),
            Action::Grant(grant) => self.grant(grant),
            Action::Report(report) => self.report(report),
            Action::ReleaseRight(release) => self.release_right(release),
            Action::OrphanRight(_) => self.orphan_right(),
            Action::Roll => self.roll(),
        }
    }

    /// When the backlog is full, every refusal is `BacklogFull` without an event, and the tombstone of an unknown attempt is
    /// stored without an event: callers must not be able to fill Redis with either.
    fn bounded(&self, verdict: Verdict) -> Verdict {
        let refused = verdict.code.http_status() != 200;
        if !verdict.journal || !(refused || verdict.code == Code::Tombstoned) || !self.is_full() {
            return verdict;
        }
        let code = if refused { Code::BacklogFull } else { verdict.code };
        Verdict { code, ..verdict.unjournaled() }
    }

    const fn now_secs(&self) -> u64 {
        self.now_ms / 1000
    }

    fn is_full(&self) -> bool {
        self.backlog >= u64::from(self.command.backlog_max)
    }

    /// An answer that changes nothing.
    fn answer(&self, code: Code) -> Verdict {
        Verdict {
            code,
            replay: false,
            journal: true,
            decision_id: self.command.decision_id,
            amount: self.command.action.amount().map_or(0, AmountMinor::get),
            weighed: self.command.action.charge().and_then(Charge::weighed),
            first: None,
            wait_ms: 0,
            account: None,
            order: None,
            right: None,
            merchant: None,
        }
    }

    /// The order, if it can be captured, voided or refunded; else the code of the refusal.
    fn charged_order(&self) -> Result<&'a Order, Code> {
        match self.order {
            None => Err(Code::OrderUnknown),
            Some(order) if order.state == OrderState::Open => Err(Code::OrderUnknown),
            Some(order) if order.currency != self.command.currency => Err(Code::IdempotencyConflict),
            Some(order) => Ok(order),
        }
    }

    /// This command as stored in the order.
    fn operation(&self, kind: OperationKind, id: OperationId, amount: AmountMinor) -> Operation {
        Operation {
            kind,
            id,
            attempt: self.command.attempt,
            amount,
            counted: self.account.origins(),
            decision_id: self.command.decision_id,
        }
    }

    fn outcome(&self, verdict: Verdict) -> Outcome {
        let Verdict {
            code,
            replay,
            journal,
            decision_id,
            amount,
            weighed,
            first,
            wait_ms,
            account,
            order,
            right,
            merchant,
        } = verdict;
        if let Some(merchant) = merchant {
            return self.merchant_outcome(code, replay, journal, merchant);
        }
        let account = account.map(|account| Account {
            version: self.account.version + 1,
            levels: self.levels(&account),
            ..account
        });
        let order = order.map(|order| Order { expires_at_secs: self.expires_at_secs(&order), ..order });
        let after = account.unwrap_or(self.account);
        let record = Record {
            code,
            replay,
            windows: self.account.usage(&after),
            pending_before: self.account.pending,
            pending_after: after.pending,
            amount,
            weighed,
            wait_ms,
            order: order.as_ref().or(self.order).map(summary).unwrap_or_default(),
            first: self
                .order
                .filter(|_| code == Code::IdempotencyConflict)
                .map(|order| First { amount: first.unwrap_or(order.amount).get(), currency: order.currency }),
            was_unknown: self.order.is_some_and(Order::is_doubtful),
            suspended_at_ms: after.suspended_at_ms,
            merchant_suspended: self.merchant.suspended_at_ms > 0,
            version: if self.command.effect == Effect::Commit { after.version } else { self.account.version },
            levels: after.levels,
            credit: CreditRecord::between(&self.account, &after),
        };
        if self.command.effect != Effect::Commit {
            let journal = self.command.effect == Effect::DryRunJournaled && journal && code.http_status() != 200;
            return Outcome {
                record,
                decision_id,
                account: None,
                order: None,
                right: None,
                merchant: None,
                closed: Vec::new(),
                closed_cycle: None,
                crossing: None,
                counted_in: None,
                journal,
            };
        }
        let closed = account.map(|account| account.closed_since(&self.stored)).unwrap_or_default();
        let closed_cycle = account.and_then(|account| account.closed_cycle_since(&self.stored));
        let crossing = account.as_ref().and_then(|account| self.crossing(account));
        let by_right = order.as_ref().filter(|_| account.is_none() && right.is_some());
        let counted_in = by_right.map(|order| order.charged_in).filter(|origins| *origins != self.account.origins());
        Outcome {
            record,
            decision_id,
            account,
            order,
            right,
            merchant: None,
            closed,
            closed_cycle,
            crossing,
            counted_in,
            journal,
        }
    }

    /// The thresholds that the account has reached, if alerts are configured for it.
    fn levels(&self, account: &Account) -> ThresholdLevels {
        self.command.threshold_policy.as_ref().map_or(account.levels, |policy| policy.levels(account))
    }

    fn crossing(&self, account: &Account) -> Option<Crossing> {
        let (before, after) = (self.account.levels, account.levels);
        let policy = self.command.threshold_policy.as_deref().filter(|_| before != after)?;
        Some(Crossing { before, after, threshold_policy: *policy })
    }

    /// The store keeps an open hold beyond its own end.
    fn expires_at_secs(&self, order: &Order) -> u32 {
        let now = self.now_secs();
        let from = match order.state {
            OrderState::Held => now.max(u64::from(order.hold.until_secs)),
            OrderState::Open | OrderState::Charged | OrderState::Settled | OrderState::Voided => now,
        };
        u32::try_from(from + u64::from(self.command.order_ttl_secs)).unwrap_or(u32::MAX)
    }
}

const fn summary(order: &Order) -> OrderSummary {
    OrderSummary {
        state: order.state,
        hold_until_secs: order.hold.until_secs,
        amount: order.amount.get(),
        settled: order.settled,
        refunded: order.refunded,
    }
}
