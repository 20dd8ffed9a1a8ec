//! Answers as messages, from the answers of REST.

use chrono::{DateTime, Utc};
use prost_types::{Duration, Timestamp};
use proto::quota_v1 as pb;
use proto::quota_v1::batch_result::Result as Outcome;
use quota::{Effect, OrderState};

use super::status;
use crate::admin::Answer;
use crate::admin::execute::MerchantAccounts;
use crate::admin::page::Page;
use crate::admin::rights::RightView;
use sluice_decision::decider::Decision;
use sluice_decision::operations::{
    AccountView, CheckAnswer, Counters, CreditView, LimitView, MerchantAnswer, OperationAnswer, OrderView,
};

/// A message that answers an operation.
pub(super) trait AnswerMessage {
    /// The answer of a decision.
    fn of(done: &Decision) -> Self;
}

/// What an operation did.
impl AnswerMessage for pb::OperationResponse {
    fn of(done: &Decision) -> Self {
        MerchantAnswer::of(done).map_or_else(|| account_changed(OperationAnswer::of(done)), merchant)
    }
}

fn account_changed(answer: OperationAnswer) -> pb::OperationResponse {
    pb::OperationResponse {
        code: answer.code.to_owned(),
        replay: answer.replay,
        decision_id: answer.decision_id.to_string(),
        merchant_id: answer.merchant_id,
        currency: answer.currency,
        amount: number(answer.amount),
        counted_amount: answer.counted_amount.map(number),
        credit: answer.credit.map(credit),
        counters: Some(counters(&answer.counters)),
        order: answer.order.map(order),
        is_suspended: answer.is_suspended,
        version: number(answer.version),
        delay: answer.delay_ms.map(duration),
        policy_version: answer.policy_version,
    }
}

/// What an operation on a merchant as a whole did: it is of no currency and has no counters.
fn merchant(answer: MerchantAnswer) -> pb::OperationResponse {
    pb::OperationResponse {
        code: answer.code.to_owned(),
        replay: answer.replay,
        decision_id: answer.decision_id.to_string(),
        merchant_id: answer.merchant_id,
        is_suspended: answer.is_suspended,
        version: number(answer.version),
        ..pb::OperationResponse::default()
    }
}

/// What a dry run found.
impl AnswerMessage for pb::CheckResponse {
    fn of(done: &Decision) -> Self {
        checked(CheckAnswer::of(done))
    }
}

fn checked(answer: CheckAnswer) -> pb::CheckResponse {
    pb::CheckResponse {
        allowed: answer.allowed,
        code: answer.code.to_owned(),
        counted_amount: answer.counted_amount.map(number),
        remaining_daily: answer.remaining_daily.map(number),
        remaining_weekly: answer.remaining_weekly.map(number),
        remaining_monthly: answer.remaining_monthly.map(number),
        remaining_yearly: answer.remaining_yearly.map(number),
        limits: answer.limits.iter().map(limit).collect(),
        binding_limit: answer.binding_limit.map(str::to_owned),
        resets_at: answer.resets_at.map(timestamp),
        fits: answer.fits.map(number),
        exhausted_at: answer.exhausted_at.map(timestamp),
        wait: answer.wait_ms.map(duration),
        policy_version: answer.policy_version,
    }
}

/// The result of a batch.
pub(super) fn batch(outcomes: &[Answer<Decision>]) -> pb::BatchResponse {
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let result = |outcome: &Answer<Decision>| match outcome {
        Ok(done) if done.command().effect != Effect::Commit => Outcome::Check(AnswerMessage::of(done)),
        Ok(done) => Outcome::Operation(AnswerMessage::of(done)),
        Err(problem) => Outcome::Refusal(status::refusal(problem)),
    };
    let counted = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    pb::BatchResponse {
        succeeded: counted(outcomes.len().saturating_sub(failed)),
        failed: counted(failed),
        results: outcomes.iter().map(|outcome| pb::BatchResult { result: Some(result(outcome)) }).collect(),
    }
}

/// The state of an account.
pub(super) fn account(view: AccountView) -> pb::Account {
    pb::Account {
        merchant_id: view.merchant_id,
        currency: view.currency,
        counters: Some(counters(&view.counters)),
        daily_reset_at: view.daily_reset_at.map(timestamp),
        weekly_reset_at: view.weekly_reset_at.map(timestamp),
        monthly_reset_at: view.monthly_reset_at.map(timestamp),
        yearly_reset_at: view.yearly_reset_at.map(timestamp),
        is_suspended: view.is_suspended,
        suspended_at: view.suspended_at.map(timestamp),
        suspended_reason: view.provenance.suspended_reason,
        suspended_by: view.provenance.suspended_by,
        last_order_no: view.provenance.last_order_no,
        last_payment_no: view.provenance.last_payment_no,
        last_updated_by: view.provenance.last_updated_by,
        version: number(view.version),
        limits: view.limits.iter().map(limit).collect(),
        policy_version: view.policy_version,
        is_merchant_suspended: view.is_merchant_suspended,
        merchant_suspended_at: view.merchant_suspended_at.map(timestamp),
        merchant_suspended_reason: view.provenance.merchant_suspended_reason,
        merchant_suspended_by: view.provenance.merchant_suspended_by,
        credit: view.credit.map(credit),
    }
}

/// Every account of a merchant.
pub(super) fn accounts(found: MerchantAccounts) -> pb::ListAccountsResponse {
    pb::ListAccountsResponse {
        accounts: found.accounts.into_iter().map(account).collect(),
        is_suspended: found.is_suspended,
        suspended_at: found.suspended_at.map(timestamp),
        suspended_reason: found.suspended_reason,
        suspended_by: found.suspended_by,
    }
}

/// A page of rights.
pub(super) fn rights(page: Page<RightView>) -> pb::ListRightsResponse {
    let right = |view: RightView| pb::Right {
        right_id: view.right_id.to_string(),
        merchant_id: view.merchant_id,
        currency: view.currency,
        granted_amount: number(view.granted_amount),
        granted_count: number(view.granted_count),
        left_amount: number(view.left_amount),
        left_count: number(view.left_count),
        until: Some(timestamp(view.until)),
        orphaned: view.orphaned,
        decision_id: view.decision_id.to_string(),
        day: i32::try_from(view.day).unwrap_or(i32::MAX),
    };
    pb::ListRightsResponse { items: page.items.into_iter().map(right).collect(), next_cursor: page.next_cursor }
}

/// Declares the conversion of every counter, from the table of counters.
macro_rules! counters {
    ([$({ $name:ident, $variant:ident, $kind:ident $(($period:ident))?, $number:literal, $doc:literal })+]) => {
        fn counters(counters: &Counters) -> pb::Counters {
            pb::Counters { $($name: number(counters.$name),)+ }
        }
    };
}

quota::for_each_counter!(counters!());

fn credit(view: CreditView) -> pb::CreditUsage {
    pb::CreditUsage {
        limit: view.limit.map(number),
        exposure: view.exposure,
        available: view.available.map(number),
        unbilled: number(view.unbilled),
    }
}

fn order(view: OrderView) -> pb::Order {
    pb::Order {
        order_no: view.order_no,
        state: order_state(view.state).into(),
        amount: number(view.amount),
        settled: number(view.settled),
        refunded: number(view.refunded),
        hold_until: view.hold_until.map(timestamp),
    }
}

fn order_state(word: &str) -> pb::OrderState {
    match OrderState::parse(word) {
        None => pb::OrderState::Unspecified,
        Some(OrderState::Open) => pb::OrderState::Open,
        Some(OrderState::Charged) => pb::OrderState::Charged,
        Some(OrderState::Held) => pb::OrderState::Held,
        Some(OrderState::Settled) => pb::OrderState::Settled,
        Some(OrderState::Voided) => pb::OrderState::Voided,
    }
}

fn limit(view: &LimitView) -> pb::Limit {
    pb::Limit {
        name: view.name.to_owned(),
        max: number(view.max),
        used: number(view.used),
        remaining: number(view.remaining),
        resets_at: view.resets_at.map(timestamp),
        exhausted_at: view.exhausted_at.map(timestamp),
    }
}

/// Amounts, counts and versions stay below 2^53.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn timestamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: at.timestamp(), nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or_default() }
}

pub(super) fn duration(millis: u64) -> Duration {
    let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap_or_default();
    Duration { seconds: number(millis / 1000), nanos }
}
