//! Validates a caller's body: identifiers, amounts and the operation.

use quota::{
    Adjust, AmountMinor, AttemptId, Change, Channel, Currency, Effect, HoldTerms, MerchantId, OperationId, OperationNo,
    OrderNo, PaymentNo, PerPeriod, ReleaseRight, Reset, RightId,
};
use sluice_kit::clock;
use thiserror::Error;
use uuid::Uuid;

use super::body::{
    AdjustOperation, AdjustRequest, ChargeRequest, CheckRequest, ExtendHoldRequest, InitializeRequest, RefundRequest,
    ReleaseRequest, ReleaseRightRequest, ResetRequest, SettleRequest, SuspendRequest, VoidRequest,
};
use crate::request::{Operation, Request, capture_id};
use sluice_store::{METADATA_BYTES_MAX, REMARKS_BYTES_MAX};

/// Requests of the API are identified by their orders and numbers; all of them are one attempt.
const ATTEMPT: &str = "api";

/// The attempt of every request of the API.
pub(super) fn api_attempt() -> AttemptId {
    AttemptId::from_text(ATTEMPT)
}

/// A body that is not an operation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    pub field: &'static str,
    pub problem: String,
    /// The field is an amount.
    pub is_amount: bool,
}

impl Invalid {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into(), is_amount: false }
    }
}

impl Request {
    fn parsed(merchant_id: &str, currency: &str, operation: Operation) -> Result<Self, Invalid> {
        let request = Self::of_merchant(merchant_id, operation)?;
        let currency = Currency::parse(currency).map_err(|error| Invalid::new("currency", error.to_string()))?;
        Ok(Self { currency, ..request })
    }

    fn of_merchant(merchant_id: &str, operation: Operation) -> Result<Self, Invalid> {
        let merchant =
            MerchantId::parse(merchant_id).map_err(|error| Invalid::new("merchant_id", error.to_string()))?;
        Ok(Self::new(merchant, Currency::NONE, api_attempt(), operation))
    }

    fn order(mut self, order_no: &str) -> Result<Self, Invalid> {
        self.order_no = Some(OrderNo::parse(order_no).map_err(|error| Invalid::new("order_no", error.to_string()))?);
        Ok(self)
    }

    fn payment(mut self, payment_no: Option<&str>) -> Result<Self, Invalid> {
        let parsed = payment_no.map(PaymentNo::parse).transpose();
        self.payment_no = parsed.map_err(|error| Invalid::new("payment_no", error.to_string()))?;
        Ok(self)
    }

    fn operation(mut self, field: &'static str, number: Option<&str>) -> Result<Self, Invalid> {
        let parsed = number.map(OperationNo::parse).transpose();
        self.operation_no = parsed.map_err(|error| Invalid::new(field, error.to_string()))?;
        Ok(self)
    }

    fn channel(mut self, channel: Option<&str>) -> Result<Self, Invalid> {
        let parsed = channel.map(Channel::parse).transpose();
        self.channel = parsed.map_err(|error| Invalid::new("channel", error.to_string()))?;
        Ok(self)
    }

    fn reason(mut self, reason: String) -> Result<Self, Invalid> {
        if reason.trim().is_empty() {
            return Err(Invalid::new("reason", "must say why"));
        }
        self.reason = bounded("reason", reason, REMARKS_BYTES_MAX)?;
        Ok(self)
    }

    fn notes(
        mut self,
        remarks: Option<String>,
        metadata: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<Self, Invalid> {
        self.remarks = bounded("remarks", remarks.unwrap_or_default(), REMARKS_BYTES_MAX)?;
        let text = metadata.map(|object| serde_json::Value::Object(object).to_string()).unwrap_or_default();
        self.metadata = bounded("metadata", text, METADATA_BYTES_MAX)?;
        Ok(self)
    }
}

/// Postgres keeps no NUL in texts.
fn bounded(field: &'static str, text: String, bytes_max: usize) -> Result<String, Invalid> {
    if text.len() > bytes_max {
        return Err(Invalid::new(field, format!("must have at most {bytes_max} bytes, this one has {}", text.len())));
    }
    if text.contains('\0') || text.contains("\\u0000") {
        return Err(Invalid::new(field, "must not hold a NUL character"));
    }
    Ok(text)
}

fn amount(minor: i64) -> Result<AmountMinor, Invalid> {
    match count(minor)? {
        AmountMinor::ZERO => Err(Invalid { is_amount: true, ..Invalid::new("amount", "must be more than 0") }),
        amount => Ok(amount),
    }
}

fn count(minor: i64) -> Result<AmountMinor, Invalid> {
    u64::try_from(minor).ok().and_then(AmountMinor::new).ok_or_else(|| Invalid {
        is_amount: true,
        ..Invalid::new("amount", format!("must be from 0 to {} minor units", AmountMinor::MAX))
    })
}

/// A version is counted by the store, where numbers are exact up to 2^53 − 1.
fn version(expected: Option<u64>) -> Result<Option<u64>, Invalid> {
    match expected {
        Some(version) if AmountMinor::new(version).is_none() => {
            Err(Invalid::new("expected_version", format!("must be from 0 to {}", AmountMinor::MAX)))
        }
        expected => Ok(expected),
    }
}

/// The operations, by their names in the table.
impl Request {
    pub(super) fn check(body: CheckRequest) -> Result<Self, Invalid> {
        let operation = Operation::Consume(amount(body.amount)?);
        let request = Self::parsed(&body.merchant_id, &body.currency, operation)?.channel(body.channel.as_deref())?;
        Ok(Self { effect: Effect::DryRun, ..request })
    }

    pub(super) fn consume(body: ChargeRequest) -> Result<Self, Invalid> {
        Self::of_charge(Operation::Consume(amount(body.amount)?), body)
    }

    pub(super) fn hold(body: ChargeRequest) -> Result<Self, Invalid> {
        Self::of_charge(Operation::Hold(amount(body.amount)?), body)
    }

    fn of_charge(operation: Operation, body: ChargeRequest) -> Result<Self, Invalid> {
        Self::parsed(&body.merchant_id, &body.currency, operation)?
            .order(&body.order_no)?
            .payment(body.payment_no.as_deref())?
            .channel(body.channel.as_deref())?
            .notes(body.remarks, body.metadata)
    }

    pub(super) fn settle(body: SettleRequest) -> Result<Self, Invalid> {
        let last = body.r#final.unwrap_or(true);
        if !last && body.capture_no.is_none() {
            return Err(Invalid::new("capture_no", "is required where final is false, to distinguish captures"));
        }
        let amount = body.amount.map(amount).transpose()?;
        let id = capture_id(body.capture_no.as_deref());
        Self::parsed(&body.merchant_id, &body.currency, Operation::Settle { amount, id, last, reported: false })?
            .order(&body.order_no)?
            .operation("capture_no", body.capture_no.as_deref())?
            .channel(body.channel.as_deref())?
            .notes(body.remarks, body.metadata)
    }

    pub(super) fn void(body: VoidRequest) -> Result<Self, Invalid> {
        Self::parsed(&body.merchant_id, &body.currency, Operation::Void)?
            .order(&body.order_no)?
            .channel(body.channel.as_deref())?
            .notes(body.remarks, body.metadata)
    }

    pub(super) fn extend_hold(body: ExtendHoldRequest) -> Result<Self, Invalid> {
        let now_secs = clock::now_ms() / 1000;
        let latest = now_secs + i64::from(HoldTerms::LIFETIME_SECS_MAX);
        let until_secs = body.hold_until.timestamp();
        let until_secs = u32::try_from(until_secs).ok().filter(|_| until_secs > now_secs && until_secs <= latest);
        let problem = || Invalid::new("hold_until", "must be later than now, and within 400 days");
        let operation = Operation::ExtendHold { until_secs: until_secs.ok_or_else(problem)? };
        Self::parsed(&body.merchant_id, &body.currency, operation)?
            .order(&body.order_no)?
            .notes(body.remarks, body.metadata)
    }

    pub(super) fn refund(body: RefundRequest) -> Result<Self, Invalid> {
        let operation = Operation::Refund {
            amount: body.amount.map(amount).transpose()?,
            id: OperationId::of(&body.refund_no),
            reserve: false,
        };
        Self::parsed(&body.merchant_id, &body.currency, operation)?
            .order(&body.order_no)?
            .operation("refund_no", Some(&body.refund_no))?
            .payment(body.payment_no.as_deref())?
            .channel(body.channel.as_deref())?
            .notes(body.remarks, body.metadata)
    }

    pub(super) fn release(body: ReleaseRequest) -> Result<Self, Invalid> {
        // Without a number the order is released once: the empty number belongs to no other release.
        let id = OperationId::of(body.refund_no.as_deref().unwrap_or_default());
        Self::parsed(
            &body.merchant_id,
            &body.currency,
            Operation::Release { amount: body.amount.map(amount).transpose()?, id },
        )?
        .order(&body.order_no)?
        .operation("refund_no", body.refund_no.as_deref())?
        .payment(body.payment_no.as_deref())?
        .channel(body.channel.as_deref())?
        .notes(body.remarks, body.metadata)
    }

    pub(super) fn adjust(body: AdjustRequest) -> Result<Self, Invalid> {
        let amount = count(body.amount)?;
        let change = match body.operation {
            AdjustOperation::Add => Change::Add(amount),
            AdjustOperation::Subtract => Change::Subtract(amount),
            AdjustOperation::Set => Change::Set(amount),
        };
        let expected_version = version(body.expected_version)?;
        let operation = Operation::Adjust(Adjust { counter: body.counter.into(), change, expected_version });
        Self::parsed(&body.merchant_id, &body.currency, operation)?.reason(body.reason)?.notes(None, body.metadata)
    }

    pub(super) fn reset(body: ResetRequest) -> Result<Self, Invalid> {
        let operation = Operation::Reset(Reset {
            windows: PerPeriod::from_fn(|period| body.window.has(period)),
            expected_version: version(body.expected_version)?,
        });
        Self::parsed(&body.merchant_id, &body.currency, operation)?.reason(body.reason)?.notes(None, body.metadata)
    }

    pub(super) fn suspend(body: SuspendRequest) -> Result<Self, Invalid> {
        Self::suspension(body, Operation::Suspend, Operation::SuspendMerchant)
    }

    pub(super) fn resume(body: SuspendRequest) -> Result<Self, Invalid> {
        Self::suspension(body, Operation::Resume, Operation::ResumeMerchant)
    }

    fn suspension(body: SuspendRequest, of_account: Operation, of_merchant: Operation) -> Result<Self, Invalid> {
        match &body.currency {
            Some(currency) => Self::parsed(&body.merchant_id, currency, of_account),
            None => Self::of_merchant(&body.merchant_id, of_merchant),
        }?
        .reason(body.reason)
    }

    pub(super) fn release_right(body: ReleaseRightRequest) -> Result<Self, Invalid> {
        let id = Uuid::parse_str(&body.right_id).map_err(|_| Invalid::new("right_id", "must be a UUID"))?;
        let release = ReleaseRight { right: RightId(id.into_bytes()), by_holder: false };
        Self::parsed(&body.merchant_id, &body.currency, Operation::ReleaseRight(release))?.reason(body.reason)
    }

    pub(super) fn initialize(body: InitializeRequest) -> Result<Self, Invalid> {
        Self::parsed(&body.merchant_id, &body.currency, Operation::Initialize)
    }
}
