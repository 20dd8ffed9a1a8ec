//! Answers to callers: usage around an operation, and an account's current state. Amounts are minor units.

use chrono::{DateTime, Utc};
use proto::LimitUsage;
use quota::{
    Account, Charge, Counter, CounterName, CreditUsage, Currency, LimitName, LimitState, Limits, Merchant, Outlook,
    Period, Policy, Prediction, Record, WindowUsage,
};
use serde::Serialize;
use sluice_lines::Credit;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::decider::{Decision, InForce};

/// Declares the counters of answers, from the table of counters.
macro_rules! counters {
    ([$({ $name:ident, $variant:ident, $kind:ident $(($period:ident))?, $number:literal, $doc:literal })+]) => {
        /// An account's counters.
        #[derive(Clone, Copy, Debug, Serialize, ToSchema)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: u64,)+
        }

        impl From<&Account> for Counters {
            fn from(account: &Account) -> Self {
                Self { $($name: CounterName::$kind $((Period::$period))?.of(account),)+ }
            }
        }
    };
}

quota::for_each_counter!(counters!());

/// What counts against the amount limits, where that is not the amount.
fn counted_amount(record: &Record) -> Option<u64> {
    record.weighed.map(|weighed| weighed.counted)
}

/// The counters after a decision.
fn counters_after(record: &Record) -> Counters {
    let counter = |window: &WindowUsage| Counter {
        amount: window.amount_after,
        count: window.count_after,
        refunded: window.refunded_after,
        ..Counter::default()
    };
    let windows = record.windows.map(counter);
    Counters::from(&Account { windows, pending: record.pending_after, ..Account::default() })
}

/// How an order stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OrderView {
    pub order_no: String,
    /// `open` (not charged), `charged`, `held`, `settled` or `voided`.
    #[schema(value_type = String, example = "held")]
    pub state: &'static str,
    pub amount: u64,
    /// Captured of a hold.
    pub settled: u64,
    /// Refunded, and reserved for refunds.
    pub refunded: u64,
    /// When an open hold ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<DateTime<Utc>>,
}

/// An operation took effect.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OperationAnswer {
    /// Always true: a refusal is a problem with its own status.
    pub success: bool,
    #[schema(value_type = String, example = "ADMITTED")]
    pub code: &'static str,
    /// The operation had been done by an earlier request; this one changed nothing.
    pub replay: bool,
    /// The decision; its usage log row has the same id.
    pub decision_id: Uuid,
    pub merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    /// The amount that the operation moved.
    pub amount: u64,
    /// What the amount counts against the amount limits, consumed, captured or returned; absent where it is the amount itself, and where nothing moves, as in a repeated refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_amount: Option<u64>,
    #[serde(flatten)]
    pub counters: Counters,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderView>,
    /// Whether charges are refused: the account is suspended, or its merchant as a whole.
    pub is_suspended: bool,
    /// Number of changes of the account so far.
    pub version: u64,
    /// What the account uses of its credit line, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credit: Option<CreditView>,
    /// How long the payment is to be held back, where the policy throttles; milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
}

/// What an account uses of its credit line. Amounts are minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CreditView {
    /// The limit in force; absent where the line is not known at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Held + unbilled + open statements - repayments that are not applied; below zero where more was repaid than is owed.
    pub exposure: i64,
    /// What the line still takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// Charged and captured in the billing cycle, less what was returned of it.
    pub unbilled: u64,
}

impl CreditView {
    /// The usage after a decision; `None` for an account without a line.
    #[must_use]
    pub fn of(done: &Decision) -> Option<Self> {
        let usage = done.reply.record.credit?.after();
        Some(Self::from_usage(usage, &done.in_force().credit))
    }

    /// The usage of an account.
    #[must_use]
    pub fn from_usage(usage: CreditUsage, credit: &Credit) -> Self {
        let day = match credit {
            Credit::Line(day) => Some(day),
            Credit::NoLine | Credit::Unread | Credit::Unknown => None,
        };
        let limit = day.map(|day| day.limit);
        let is_closed = day.is_some_and(|day| usage.cycle < day.cycle.id().0);
        Self {
            limit: limit.map(|limit| limit.limit.max(0).unsigned_abs()),
            exposure: usage.exposure,
            available: limit.map(|limit| limit.available(usage.exposure).unsigned_abs()),
            unbilled: if is_closed { 0 } else { usage.unbilled },
        }
    }
}

impl OperationAnswer {
    /// The answer of an operation that was not refused.
    #[must_use]
    pub fn of(done: &Decision) -> Self {
        let record = &done.reply.record;
        Self {
            success: true,
            code: record.code.as_str(),
            replay: record.replay,
            decision_id: Uuid::from_bytes(done.reply.decision_id),
            merchant_id: done.command().merchant.to_string(),
            currency: done.command().currency.to_string(),
            amount: record.amount,
            counted_amount: counted_amount(record),
            counters: counters_after(record),
            order: order_view(done),
            is_suspended: record.suspended_at_ms > 0 || record.merchant_suspended,
            version: record.version,
            credit: CreditView::of(done),
            delay_ms: (record.wait_ms > 0).then_some(record.wait_ms),
            policy_version: done.in_force().policy.as_ref().map(|policy| policy.version.to_string()),
        }
    }
}

/// A posting to a credit line took effect.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PostingAnswer {
    /// Always true: a refusal is a problem with its own status.
    pub success: bool,
    #[schema(value_type = String, example = "APPLIED")]
    pub code: &'static str,
    /// The posting had been made by an earlier request; this one changed nothing.
    pub replay: bool,
    /// The decision; its usage log row has the same id.
    pub decision_id: Uuid,
    pub merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    /// `repayment`, `repayment_reversal`, `recovery`, `write_off`, `transfer_in`, `transfer_out` or `opening`.
    #[schema(value_type = String, example = "repayment")]
    pub kind: &'static str,
    pub number: String,
    /// Minor units.
    pub amount: u64,
    /// The line after it.
    pub credit: Option<CreditView>,
}

impl PostingAnswer {
    /// The answer of a posting that was not refused.
    #[must_use]
    pub fn of(done: &Decision) -> Self {
        let record = &done.reply.record;
        Self {
            success: true,
            code: record.code.as_str(),
            replay: record.replay,
            decision_id: Uuid::from_bytes(done.reply.decision_id),
            merchant_id: done.command().merchant.to_string(),
            currency: done.command().currency.to_string(),
            kind: done.command().action.as_str(),
            number: done.command().order_no.as_ref().map(ToString::to_string).unwrap_or_default(),
            amount: record.amount,
            credit: CreditView::of(done),
        }
    }
}

/// An operation on a merchant as a whole took effect.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MerchantAnswer {
    /// Always true: a refusal is a problem with its own status.
    pub success: bool,
    #[schema(value_type = String, example = "APPLIED")]
    pub code: &'static str,
    /// The merchant was so already; nothing changed.
    pub replay: bool,
    /// The decision; its usage log row has the same id.
    pub decision_id: Uuid,
    pub merchant_id: String,
    /// Whether charges of all its accounts are refused.
    pub is_suspended: bool,
    /// Null where it is not. Always present: the answer for an account has no such member.
    #[schema(required = true)]
    pub suspended_at: Option<DateTime<Utc>>,
    /// Number of changes of the merchant's own state so far.
    pub version: u64,
}

impl MerchantAnswer {
    /// The answer of an operation on a merchant as a whole; `None` for one on an account.
    #[must_use]
    pub fn of(done: &Decision) -> Option<Self> {
        let record = &done.reply.record;
        done.command().action.is_of_merchant().then(|| Self {
            success: true,
            code: record.code.as_str(),
            replay: record.replay,
            decision_id: Uuid::from_bytes(done.reply.decision_id),
            merchant_id: done.command().merchant.to_string(),
            is_suspended: record.merchant_suspended,
            suspended_at: moment(record.suspended_at_ms),
            version: record.version,
        })
    }
}

fn order_view(done: &Decision) -> Option<OrderView> {
    let order = &done.reply.record.order;
    let held = order.state == quota::OrderState::Held;
    done.command().order_no.as_ref().map(|order_no| OrderView {
        order_no: order_no.to_string(),
        state: order.state.as_str(),
        amount: order.amount,
        settled: order.settled,
        refunded: order.refunded,
        hold_until: DateTime::from_timestamp(i64::from(order.hold_until_secs), 0).filter(|_| held),
    })
}

/// A limit and what it leaves.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LimitView {
    #[schema(value_type = String, example = "daily_amount")]
    pub name: &'static str,
    pub max: u64,
    /// Counted, the asked payment included where it is allowed.
    pub used: u64,
    pub remaining: u64,
    /// When the window ends; absent where no window lifts the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<DateTime<Utc>>,
    /// When the limit will be used up if the window goes on at its rate so far; absent where the window ends first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausted_at: Option<DateTime<Utc>>,
}

impl From<&Outlook> for LimitView {
    fn from(outlook: &Outlook) -> Self {
        Self {
            name: outlook.limit.as_str(),
            max: outlook.max,
            used: outlook.used,
            remaining: outlook.remaining,
            resets_at: outlook.resets_at_ms.and_then(DateTime::from_timestamp_millis),
            exhausted_at: outlook.exhausted_at_ms.and_then(DateTime::from_timestamp_millis),
        }
    }
}

/// Whether a payment would be admitted, and what its limits leave. Nothing was consumed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckAnswer {
    pub allowed: bool,
    /// The code that a charge would be answered with.
    #[schema(value_type = String, example = "ADMITTED")]
    pub code: &'static str,
    /// What the payment would count against the amount limits; absent where it is the amount itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_amount: Option<u64>,
    /// What would remain of the day's amount after the payment; what remains now where it is refused. Null without a limit.
    pub remaining_daily: Option<u64>,
    pub remaining_weekly: Option<u64>,
    pub remaining_monthly: Option<u64>,
    pub remaining_yearly: Option<u64>,
    /// Every limit that the policy sets.
    pub limits: Vec<LimitView>,
    /// The limit that lets the fewest payments of this size through.
    #[schema(value_type = Option<String>, example = "daily_amount")]
    pub binding_limit: Option<&'static str>,
    /// When the binding limit resets.
    pub resets_at: Option<DateTime<Utc>>,
    /// How many payments of this size fit, this one included. Null where nothing bounds them.
    pub fits: Option<u64>,
    /// The earliest projected exhaustion of a limit.
    pub exhausted_at: Option<DateTime<Utc>>,
    /// How long the payment would be held back, or after which time it may come again; milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    pub policy_version: Option<String>,
}

impl CheckAnswer {
    /// The answer to a dry charge.
    #[must_use]
    pub fn of(done: &Decision) -> Self {
        let record = &done.reply.record;
        let charge = done.command().action.charge();
        let hard = charge.map_or(Limits::UNLIMITED, Charge::hard_limits);
        let counted = charge.map_or(0, Charge::counts);
        let policy = done.in_force().policy.as_ref();
        let prediction = policy.map(|policy| {
            Prediction::of(record, counted, &policy.limits, &hard, &policy.calendar, done.command().now_ms)
        });
        let limits: Vec<LimitView> =
            prediction.iter().flat_map(|prediction| &prediction.limits).map(LimitView::from).collect();
        let remaining =
            |limit: LimitName| limits.iter().find(|view| view.name == limit.as_str()).map(|view| view.remaining);
        // The refusing limit binds, whatever the next payments would reach first.
        let refusing = LimitName::of_code(record.code);
        let binding = refusing.or_else(|| prediction.as_ref().and_then(|prediction| prediction.binding));
        let binding_view = binding.and_then(|limit| limits.iter().find(|view| view.name == limit.as_str()));
        let allowed = record.code.http_status() == 200;
        let hard = !allowed && refusing.is_none() && record.code != quota::Code::Throttled;
        Self {
            allowed,
            code: record.code.as_str(),
            counted_amount: counted_amount(record),
            remaining_daily: remaining(LimitName::DailyAmount),
            remaining_weekly: remaining(LimitName::WeeklyAmount),
            remaining_monthly: remaining(LimitName::MonthlyAmount),
            remaining_yearly: remaining(LimitName::YearlyAmount),
            binding_limit: binding.map(LimitName::as_str),
            resets_at: binding_view.and_then(|view| view.resets_at),
            fits: if hard { Some(0) } else { prediction.as_ref().and_then(|prediction| prediction.fits) },
            exhausted_at: prediction
                .as_ref()
                .and_then(|prediction| prediction.exhausted_at_ms)
                .and_then(DateTime::from_timestamp_millis),
            wait_ms: (record.wait_ms > 0).then_some(record.wait_ms),
            policy_version: done.in_force().policy.as_ref().map(|policy| policy.version.to_string()),
            limits,
        }
    }
}

/// The limit that refused, as problems show it, with the whole seconds after which a retry may succeed.
#[must_use]
pub fn refusing_limit(done: &Decision) -> (Option<LimitUsage>, Option<u64>) {
    let record = &done.reply.record;
    let wait_secs = (record.wait_ms > 0).then(|| record.wait_ms.div_ceil(1000));
    let Some((limit, policy)) = LimitName::of_code(record.code).zip(done.in_force().policy.as_ref()) else {
        return (None, wait_secs);
    };
    let state = LimitState::of(limit, &policy.limits, record);
    let resets_at_ms = limit.period().and_then(|period| policy.calendar.ends_at_ms(period, state.window));
    let left_ms = resets_at_ms.map(|at| u64::try_from(at.saturating_sub(done.command().now_ms)).unwrap_or_default());
    let limit = LimitUsage {
        name: limit.as_str().to_owned(),
        max: state.max,
        used: state.before,
        remaining: state.remaining(),
        resets_at: resets_at_ms
            .and_then(DateTime::from_timestamp_millis)
            .map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
    };
    (Some(limit), left_ms.map(|left| left.div_ceil(1000).max(1)).or(wait_secs))
}

/// What the journal knows beside the counters.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Provenance {
    /// Of the account's own suspension.
    pub suspended_reason: Option<String>,
    pub suspended_by: Option<String>,
    /// Of the suspension of the merchant as a whole.
    pub merchant_suspended_reason: Option<String>,
    pub merchant_suspended_by: Option<String>,
    pub last_order_no: Option<String>,
    pub last_payment_no: Option<String>,
    pub last_updated_by: Option<String>,
}

/// An account as it stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AccountView {
    pub merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    #[serde(flatten)]
    pub counters: Counters,
    /// When the day, week, month and year of the account end; null without a policy.
    pub daily_reset_at: Option<DateTime<Utc>>,
    pub weekly_reset_at: Option<DateTime<Utc>>,
    pub monthly_reset_at: Option<DateTime<Utc>>,
    pub yearly_reset_at: Option<DateTime<Utc>>,
    /// Whether charges are refused: the account is suspended, or its merchant as a whole.
    pub is_suspended: bool,
    /// Since when the account itself is suspended; null where it is not.
    pub suspended_at: Option<DateTime<Utc>>,
    /// Whether the merchant is suspended as a whole; resuming the account does not change that.
    pub is_merchant_suspended: bool,
    pub merchant_suspended_at: Option<DateTime<Utc>>,
    /// Some seconds behind the counters, because the journal publishes it.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Number of changes of the account so far.
    pub version: u64,
    /// Every limit that the policy sets.
    pub limits: Vec<LimitView>,
    /// What the account uses of its credit line, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credit: Option<CreditView>,
    pub policy_version: Option<String>,
}

impl AccountView {
    /// The account as of its windows; `account` is rolled to them.
    pub(super) fn of(
        merchant_id: String,
        currency: Currency,
        account: &Account,
        in_force: &InForce,
        provenance: Provenance,
        now_ms: i64,
    ) -> Self {
        let policy = in_force.policy.as_deref();
        let resets = |period| {
            let at = policy.and_then(|policy| policy.calendar.ends_at_ms(period, account.of(period).id));
            at.and_then(DateTime::from_timestamp_millis)
        };
        let suspended_at = moment(account.suspended_at_ms);
        Self {
            merchant_id,
            currency: currency.to_string(),
            counters: Counters::from(account),
            daily_reset_at: resets(Period::Day),
            weekly_reset_at: resets(Period::Week),
            monthly_reset_at: resets(Period::Month),
            yearly_reset_at: resets(Period::Year),
            is_suspended: suspended_at.is_some(),
            suspended_at,
            is_merchant_suspended: false,
            merchant_suspended_at: None,
            provenance: if suspended_at.is_some() {
                provenance
            } else {
                Provenance { suspended_reason: None, suspended_by: None, ..provenance }
            },
            version: account.version,
            limits: policy.map(|policy| limits(account, policy, now_ms)).unwrap_or_default(),
            credit: account.credit.map(|usage| CreditView::from_usage(usage, &in_force.credit)),
            policy_version: policy.map(|policy| policy.version.to_string()),
        }
    }

    /// With the state of the merchant as a whole.
    pub(super) fn of_merchant(mut self, state: Merchant) -> Self {
        self.merchant_suspended_at = moment(state.suspended_at_ms);
        self.is_merchant_suspended = self.merchant_suspended_at.is_some();
        self.is_suspended |= self.is_merchant_suspended;
        if !self.is_merchant_suspended {
            let provenance = self.provenance;
            self.provenance = Provenance { merchant_suspended_reason: None, merchant_suspended_by: None, ..provenance };
        }
        self
    }
}

/// A moment of the store; none where it is 0.
#[must_use]
pub fn moment(millis: u64) -> Option<DateTime<Utc>> {
    let millis = i64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    DateTime::from_timestamp_millis(millis)
}

fn limits(account: &Account, policy: &Policy, now_ms: i64) -> Vec<LimitView> {
    let record = standing(account);
    let limits = &policy.limits;
    let prediction = Prediction::of(&record, 0, limits, limits, &policy.calendar, now_ms);
    prediction.limits.iter().map(LimitView::from).collect()
}

/// The record of a decision that changes nothing.
fn standing(account: &Account) -> Record {
    let window = |counter: &Counter| WindowUsage {
        id: counter.id,
        epoch: counter.epoch,
        amount_before: counter.amount,
        amount_after: counter.amount,
        count_before: counter.count,
        count_after: counter.count,
        refunded_before: counter.refunded,
        refunded_after: counter.refunded,
    };
    Record {
        windows: account.windows.map(window),
        pending_before: account.pending,
        pending_after: account.pending,
        ..Record::bare(quota::Code::Admitted)
    }
}
