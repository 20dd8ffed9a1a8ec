//! What callers send: one type for each operation, shared by REST, batches and gRPC. Amounts are whole minor units.

use chrono::{DateTime, Utc};
use quota::{CounterName, Period};
use serde::Deserialize;
use utoipa::ToSchema;

use super::table::OperationRequest;

/// Would a payment be admitted?
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    /// Minor units, more than 0.
    #[schema(example = 50_000, minimum = 1)]
    pub amount: i64,
    #[schema(max_length = 32)]
    pub channel: Option<String>,
}

/// Consume quota for an order, once: for good, or as a hold whose final amount is open.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChargeRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    /// The idempotency key: the same order with the same amount gets the first answer.
    #[schema(example = "ORDER-001", max_length = 128)]
    pub order_no: String,
    /// Minor units, more than 0.
    #[schema(example = 50_000, minimum = 1)]
    pub amount: i64,
    /// The gateway's own number of the payment.
    #[schema(max_length = 128)]
    pub payment_no: Option<String>,
    #[schema(max_length = 32)]
    pub channel: Option<String>,
    /// A note for the usage log.
    #[schema(max_length = 1024)]
    pub remarks: Option<String>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Capture from a hold.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = "ORDER-001", max_length = 128)]
    pub order_no: String,
    /// Minor units, more than 0; all that is still held where none is given.
    #[schema(minimum = 1)]
    pub amount: Option<i64>,
    /// The idempotency key of this capture within the order; required where `final` is false.
    #[schema(max_length = 128)]
    pub capture_no: Option<String>,
    /// Whether the hold ends with this capture, and what it still holds is returned; true where it is not given.
    pub r#final: Option<bool>,
    /// The channel that the order was charged under: its policy says by how much captures may exceed their hold.
    #[schema(max_length = 32)]
    pub channel: Option<String>,
    /// A note for the usage log.
    #[schema(max_length = 1024)]
    pub remarks: Option<String>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// End a hold; what it still holds is returned.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VoidRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = "ORDER-001", max_length = 128)]
    pub order_no: String,
    /// The channel that the order was charged under.
    #[schema(max_length = 32)]
    pub channel: Option<String>,
    /// Why, for the usage log.
    #[schema(max_length = 1024)]
    pub remarks: Option<String>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Keep a hold open for longer. Sent again, it changes nothing.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendHoldRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = "ORDER-001", max_length = 128)]
    pub order_no: String,
    /// When the hold ends now: later than at present, and within 400 days. A hold never ends earlier than before.
    #[schema(example = "2027-01-31T12:00:00Z")]
    pub hold_until: DateTime<Utc>,
    /// Why, for the usage log.
    #[schema(max_length = 1024)]
    pub remarks: Option<String>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Return captured quota.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = "ORDER-001", max_length = 128)]
    pub order_no: String,
    /// The idempotency key of this refund within the order.
    #[schema(example = "REFUND-001", max_length = 128)]
    pub refund_no: String,
    /// Minor units, more than 0; all that was captured and not refunded where none is given.
    #[schema(minimum = 1)]
    pub amount: Option<i64>,
    #[schema(max_length = 128)]
    pub payment_no: Option<String>,
    /// The channel that the order was charged under: its policy says how much may be refunded.
    #[schema(max_length = 32)]
    pub channel: Option<String>,
    /// A note for the usage log.
    #[schema(max_length = 1024)]
    pub remarks: Option<String>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Give back what an order has consumed: a hold is voided, what was captured is refunded.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = "ORDER-001", max_length = 128)]
    pub order_no: String,
    /// Minor units, more than 0; all that is left where none is given. A hold is voided as a whole.
    #[schema(minimum = 1)]
    pub amount: Option<i64>,
    /// Distinguishes several releases of one order; without it an order is released once.
    #[schema(max_length = 128)]
    pub refund_no: Option<String>,
    #[schema(max_length = 128)]
    pub payment_no: Option<String>,
    /// The channel that the order was charged under: its policy says how much may be refunded.
    #[schema(max_length = 32)]
    pub channel: Option<String>,
    /// A note for the usage log.
    #[schema(max_length = 1024)]
    pub remarks: Option<String>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How a counter is corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdjustOperation {
    Add,
    Subtract,
    Set,
}

/// Declares the counters of requests, from the table of counters.
macro_rules! counter_fields {
    ([$({ $name:ident, $variant:ident, $kind:ident $(($period:ident))?, $number:literal, $doc:literal })+]) => {
        /// A counter of an account.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum CounterField {
            $($variant,)+
        }

        impl From<CounterField> for CounterName {
            fn from(field: CounterField) -> Self {
                match field { $(CounterField::$variant => Self::$kind $((Period::$period))?,)+ }
            }
        }
    };
}

quota::for_each_counter!(counter_fields!());

/// Correct one counter by hand.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdjustRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    pub counter: CounterField,
    pub operation: AdjustOperation,
    /// Minor units, or a number of transactions; 0 or more.
    #[schema(minimum = 0)]
    pub amount: i64,
    /// Why, for the usage log.
    #[schema(example = "duplicate import of 2026-11-20", max_length = 1024)]
    pub reason: String,
    /// The account's `version` that the change was decided on. Without it a request that is sent twice counts twice.
    #[schema(minimum = 0)]
    pub expected_version: Option<u64>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The windows to empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResetWindow {
    Daily,
    Weekly,
    Monthly,
    Yearly,
    All,
}

impl ResetWindow {
    /// Whether windows of this kind are emptied.
    #[must_use]
    pub fn has(self, period: Period) -> bool {
        match self {
            Self::Daily => period == Period::Day,
            Self::Weekly => period == Period::Week,
            Self::Monthly => period == Period::Month,
            Self::Yearly => period == Period::Year,
            Self::All => true,
        }
    }
}

/// Empty windows: consumed amount, number of transactions and refunds.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    pub window: ResetWindow,
    /// Why, for the usage log.
    #[schema(max_length = 1024)]
    pub reason: String,
    /// The account's `version` that the reset was decided on.
    #[schema(minimum = 0)]
    pub expected_version: Option<u64>,
    /// Data of the caller for the usage log.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Refuse charges of an account from now on, or take them again; without a currency those of the merchant as a whole.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code of one account. Without it the merchant is meant as a whole: all its accounts, also those that
    /// it does not have yet.
    #[schema(example = "USD")]
    pub currency: Option<String>,
    /// Why, for the usage log.
    #[schema(max_length = 1024)]
    pub reason: String,
}

/// Make an account, so that it is listed before its first payment.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InitializeRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
}

/// End a right that its holder has not returned.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRightRequest {
    #[schema(example = "merchant-001", max_length = 64)]
    pub merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[schema(example = "USD")]
    pub currency: String,
    /// As the list of rights and usage logs have it.
    #[schema(example = "5c1f0a90-0000-0000-0000-00000000002a", format = Uuid)]
    pub right_id: String,
    /// Why, for the usage log.
    #[schema(max_length = 1024)]
    pub reason: String,
}

/// Many operations at once.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// 1 to 1000 operations. Those of one merchant are done in their order.
    #[schema(min_items = 1, max_items = 1000)]
    pub operations: Vec<OperationRequest>,
    /// All or none, for operations of one merchant.
    #[serde(default)]
    pub atomic: bool,
}
