//! The body of every refusal: RFC 9457 problem details with Sluice's members.

use quota::Code;
use serde::{Deserialize, Serialize};

/// The media type of the body.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A refusal, as returned to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URN that names the kind of problem by its code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in one sentence.
    pub title: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The stable code, for programs.
    pub code: Code,
    /// Details of this request, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The decision's id, where the server decided; the journal row has the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
    /// The binding limit, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitUsage>,
    /// The credit line that refused, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credit: Option<CreditStanding>,
    /// The reason of the refusal, for programs, where it is not a limit with usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<RefusalDetails>,
}

/// Details of a refusal besides its code. Each code has its own members; amounts are in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalDetails {
    /// `BELOW_SINGLE_MIN`: the minimum for one payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_min: Option<u64>,
    /// `ABOVE_SINGLE_MAX`: the maximum for one payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_max: Option<u64>,
    /// `CHANNEL_NOT_ALLOWED`: the allowed channels, the first ones of many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_channels: Option<Vec<String>>,
    /// `CURRENCY_NOT_ALLOWED`: the allowed currencies, the first ones of many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_currencies: Option<Vec<String>>,
    /// How many more are allowed than the list names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_more: Option<u64>,
    /// `IDEMPOTENCY_CONFLICT`: the amount of the first request under this number, in `first_currency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_amount: Option<u64>,
    /// See `first_amount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_currency: Option<String>,
    /// `BAD_AMOUNT` of a correction: the counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<String>,
    /// The counter's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// The value that the correction would result in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_be: Option<i64>,
    /// `SUSPENDED`: `account`, or `merchant` where the merchant is suspended as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
    /// A window or pending limit where payments have a weight: what the payment counts against it, in place of its amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_amount: Option<u64>,
    /// `CREDIT_…`: how the credit line stands. A problem has it as a member of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<CreditStanding>,
}

/// How a credit line stands that refused a charge. Amounts are in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditStanding {
    /// The limit in force.
    pub limit: u64,
    /// Held + unbilled + open statements − repayments that are not applied: below zero where more was repaid than is owed.
    pub exposure: i64,
    /// What the line still takes.
    pub available: u64,
    /// `current`, `grace`, `watch`, `restricted`, `frozen` or `defaulted`.
    pub stage: String,
    pub days_past_due: u32,
    /// The due date of the oldest statement that is past due, `YYYY-MM-DD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_due_on: Option<String>,
    /// The least repayment after which nothing material is past due, and the refused payment is within the limit.
    pub amount_to_cure: u64,
    /// When the line was last read, RFC 3339 in UTC, where the server cannot read it at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<String>,
}

/// The binding limit and its usage. Amounts are in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUsage {
    /// As in `daily_amount`.
    pub name: String,
    pub max: u64,
    pub used: u64,
    pub remaining: u64,
    /// RFC 3339 in UTC; absent for a limit that does not reset with time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<String>,
}

impl Problem {
    /// A problem with the code's own status and title.
    #[must_use]
    pub fn new(code: Code, detail: Option<String>) -> Self {
        Self {
            kind: format!("urn:sluice:problem:{}", code.as_str().to_ascii_lowercase()),
            title: code.title().to_owned(),
            status: code.http_status(),
            code,
            detail,
            decision_id: None,
            limit: None,
            credit: None,
            details: None,
        }
    }

    /// The problem with the details of the refusal: a credit line becomes a member of its own.
    #[must_use]
    pub fn with_details(mut self, mut details: RefusalDetails) -> Self {
        self.credit = details.credit.take();
        self.details = Some(details).filter(|details| *details != RefusalDetails::default());
        self
    }

    /// The body's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
