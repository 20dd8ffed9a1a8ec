//! The stable codes of every answer: one table to HTTP, one to the number that the Redis script uses.

use serde::{Deserialize, Serialize};

/// The result of a command. The text form is part of the contract and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum Code {
    /// The charge was consumed, or is a replay of one that was.
    Admitted = 0,
    /// The last live attempt was voided and the order's charge returned.
    Voided = 1,
    /// The attempt was voided; other live attempts keep the order's charge.
    AttemptReleased = 2,
    /// The void arrived before its attempt; only that attempt will be refused.
    Tombstoned = 3,
    /// The operation took effect, or is a replay of one that did.
    Applied = 4,

    /// The request could not be read as a payment: a field is missing, repeated or contradictory.
    BadRequest = 10,
    /// The amount is malformed, not positive, over-precise or too large.
    BadAmount = 11,
    /// The body is larger than the rule reads.
    BodyTooLarge = 12,
    /// The body's encoding or media type cannot be read.
    UnsupportedContent = 13,

    /// No policy applies to the merchant.
    PolicyMissing = 20,
    /// The policy does not allow the channel.
    ChannelNotAllowed = 21,
    /// The policy does not allow the currency.
    CurrencyNotAllowed = 22,
    /// The amount is below the single minimum.
    BelowSingleMin = 23,
    /// The amount is above the single maximum.
    AboveSingleMax = 24,
    /// The account is suspended, or its merchant as a whole.
    Suspended = 25,
    /// The policies refuse merchants that they do not name, and this one is not named.
    MerchantUnknown = 26,

    /// The day's number of charges is used up.
    DailyCount = 30,
    /// The month's number of charges is used up.
    MonthlyCount = 31,
    /// The year's number of charges is used up.
    YearlyCount = 32,
    /// The day's amount would be exceeded.
    DailyAmount = 33,
    /// The month's amount would be exceeded.
    MonthlyAmount = 34,
    /// The year's amount would be exceeded.
    YearlyAmount = 35,
    /// The amount of open holds would exceed its maximum.
    PendingAmount = 36,
    /// The charge is above a limit, and the wait under the throttle would be too long.
    Throttled = 37,
    /// More than was captured and is not refunded yet.
    RefundExceedsOrder = 40,
    /// The day's refunds would be exceeded.
    RefundDaily = 41,
    /// The month's refunds would be exceeded.
    RefundMonthly = 42,

    /// The order is already charged with another amount or currency.
    IdempotencyConflict = 50,
    /// The attempt was voided before it arrived.
    AttemptVoided = 51,
    /// No such order is charged.
    OrderUnknown = 52,
    /// The order was settled or voided, or an operation returned quota of it: this operation is too late.
    OrderClosed = 53,
    /// More than the hold plus the over-capture that the policy allows.
    CaptureExceedsHold = 54,
    /// The order takes no more captures and refunds.
    OrderFull = 55,
    /// The account is no longer at the version that the change is based on.
    VersionConflict = 56,
    /// Another operation of the same atomic batch was refused.
    BatchRefused = 57,
    /// The order is charged, and its rule allows no further repetition.
    ReplayRefused = 58,

    /// The store gave no answer in time.
    StoreUnavailable = 60,
    /// The journal's backlog is at its bound; new charges are refused rather than lost.
    BacklogFull = 61,
    /// The decision server gave no usable answer in time.
    AuthzUnavailable = 62,
}

impl Code {
    /// Every code, in the order of checks.
    pub const ALL: [Self; 39] = [
        Self::Admitted,
        Self::Voided,
        Self::AttemptReleased,
        Self::Tombstoned,
        Self::Applied,
        Self::BadRequest,
        Self::BadAmount,
        Self::BodyTooLarge,
        Self::UnsupportedContent,
        Self::PolicyMissing,
        Self::MerchantUnknown,
        Self::ChannelNotAllowed,
        Self::CurrencyNotAllowed,
        Self::BelowSingleMin,
        Self::AboveSingleMax,
        Self::Suspended,
        Self::DailyCount,
        Self::MonthlyCount,
        Self::YearlyCount,
        Self::DailyAmount,
        Self::MonthlyAmount,
        Self::YearlyAmount,
        Self::PendingAmount,
        Self::Throttled,
        Self::RefundExceedsOrder,
        Self::RefundDaily,
        Self::RefundMonthly,
        Self::IdempotencyConflict,
        Self::AttemptVoided,
        Self::OrderUnknown,
        Self::OrderClosed,
        Self::CaptureExceedsHold,
        Self::OrderFull,
        Self::VersionConflict,
        Self::BatchRefused,
        Self::ReplayRefused,
        Self::StoreUnavailable,
        Self::BacklogFull,
        Self::AuthzUnavailable,
    ];

    /// The text of the contract, as in `DAILY_AMOUNT`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "ADMITTED",
            Self::Voided => "VOIDED",
            Self::AttemptReleased => "ATTEMPT_RELEASED",
            Self::Tombstoned => "TOMBSTONED",
            Self::Applied => "APPLIED",
            Self::BadRequest => "BAD_REQUEST",
            Self::BadAmount => "BAD_AMOUNT",
            Self::BodyTooLarge => "BODY_TOO_LARGE",
            Self::UnsupportedContent => "UNSUPPORTED_CONTENT",
            Self::PolicyMissing => "POLICY_MISSING",
            Self::MerchantUnknown => "MERCHANT_UNKNOWN",
            Self::ChannelNotAllowed => "CHANNEL_NOT_ALLOWED",
            Self::CurrencyNotAllowed => "CURRENCY_NOT_ALLOWED",
            Self::BelowSingleMin => "BELOW_SINGLE_MIN",
            Self::AboveSingleMax => "ABOVE_SINGLE_MAX",
            Self::Suspended => "SUSPENDED",
            Self::DailyCount => "DAILY_COUNT",
            Self::MonthlyCount => "MONTHLY_COUNT",
            Self::YearlyCount => "YEARLY_COUNT",
            Self::DailyAmount => "DAILY_AMOUNT",
            Self::MonthlyAmount => "MONTHLY_AMOUNT",
            Self::YearlyAmount => "YEARLY_AMOUNT",
            Self::PendingAmount => "PENDING_AMOUNT",
            Self::Throttled => "THROTTLED",
            Self::RefundExceedsOrder => "REFUND_EXCEEDS_ORDER",
            Self::RefundDaily => "REFUND_DAILY",
            Self::RefundMonthly => "REFUND_MONTHLY",
            Self::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Self::AttemptVoided => "ATTEMPT_VOIDED",
            Self::OrderUnknown => "ORDER_UNKNOWN",
            Self::OrderClosed => "ORDER_CLOSED",
            Self::CaptureExceedsHold => "CAPTURE_EXCEEDS_HOLD",
            Self::OrderFull => "ORDER_FULL",
            Self::VersionConflict => "VERSION_CONFLICT",
            Self::BatchRefused => "BATCH_REFUSED",
            Self::ReplayRefused => "REPLAY_REFUSED",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::BacklogFull => "BACKLOG_FULL",
            Self::AuthzUnavailable => "AUTHZ_UNAVAILABLE",
        }
    }

    /// The HTTP status of the proxy's answer: 429 where the limit resets with time, 403 where it does not.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Admitted | Self::Voided | Self::AttemptReleased | Self::Tombstoned | Self::Applied => 200,
            Self::BadRequest | Self::BadAmount => 400,
            Self::PolicyMissing
            | Self::MerchantUnknown
            | Self::ChannelNotAllowed
            | Self::CurrencyNotAllowed
            | Self::BelowSingleMin
            | Self::AboveSingleMax
            | Self::Suspended
            | Self::RefundExceedsOrder
            | Self::CaptureExceedsHold => 403,
            Self::OrderUnknown => 404,
            Self::IdempotencyConflict
            | Self::AttemptVoided
            | Self::OrderClosed
            | Self::OrderFull
            | Self::VersionConflict
            | Self::BatchRefused
            | Self::ReplayRefused => 409,
            Self::BodyTooLarge => 413,
            Self::UnsupportedContent => 415,
            Self::DailyCount
            | Self::MonthlyCount
            | Self::YearlyCount
            | Self::DailyAmount
            | Self::MonthlyAmount
            | Self::YearlyAmount
            | Self::PendingAmount
            | Self::Throttled
            | Self::RefundDaily
            | Self::RefundMonthly => 429,
            Self::StoreUnavailable | Self::BacklogFull | Self::AuthzUnavailable => 503,
        }
    }

    /// A sentence that is safe to show to any caller.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Admitted => "The payment is within its limits.",
            Self::Voided => "The charge was returned.",
            Self::AttemptReleased => "The attempt was voided; the order's charge is kept by other attempts.",
            Self::Tombstoned => "The attempt will be refused should it still arrive.",
            Self::Applied => "The operation took effect.",
            Self::BadRequest => "The request cannot be read as a payment.",
            Self::BadAmount => "The amount cannot be accepted.",
            Self::BodyTooLarge => "The body is too large.",
            Self::UnsupportedContent => "The body's encoding or media type is not supported.",
            Self::PolicyMissing => "No limit policy applies to this merchant.",
            Self::MerchantUnknown => "No limit policy names this merchant, and unknown merchants are refused.",
            Self::ChannelNotAllowed => "The channel is not allowed for this merchant.",
            Self::CurrencyNotAllowed => "The currency is not allowed for this merchant.",
            Self::BelowSingleMin => "The amount is below the minimum for one payment.",
            Self::AboveSingleMax => "The amount is above the maximum for one payment.",
            Self::Suspended => "The account or its merchant is suspended.",
            Self::DailyCount => "The day's number of payments is used up.",
            Self::MonthlyCount => "The month's number of payments is used up.",
            Self::YearlyCount => "The year's number of payments is used up.",
            Self::DailyAmount => "The day's amount would be exceeded.",
            Self::MonthlyAmount => "The month's amount would be exceeded.",
            Self::YearlyAmount => "The year's amount would be exceeded.",
            Self::PendingAmount => "The amount of open holds would be exceeded.",
            Self::Throttled => "Payments past the limit are paced; this one may come again later.",
            Self::RefundExceedsOrder => "The refund exceeds what is left of the order's captured amount.",
            Self::RefundDaily => "The day's amount of refunds would be exceeded.",
            Self::RefundMonthly => "The month's amount of refunds would be exceeded.",
            Self::IdempotencyConflict => "The order was already charged with another amount or currency.",
            Self::AttemptVoided => "This attempt was voided before it arrived.",
            Self::OrderUnknown => "No such order is charged.",
            Self::OrderClosed => "The order is closed: it was settled, voided, released or refunded.",
            Self::CaptureExceedsHold => "The capture exceeds the hold by more than is allowed.",
            Self::OrderFull => "The order has as many captures and refunds as are kept.",
            Self::VersionConflict => "The account has changed since; read it again.",
            Self::BatchRefused => "Nothing was done: another operation of the batch was refused.",
            Self::ReplayRefused => "The order is charged already, and its repetitions are used up.",
            Self::StoreUnavailable => "The quota store gave no answer in time.",
            Self::BacklogFull => "The journal is at its bound; no new charges are taken.",
            Self::AuthzUnavailable => "The decision server gave no answer in time.",
        }
    }

    /// Reads the text form; `None` for an unknown code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The code's number in packed records.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Reads the number of a packed record; `None` for an unknown number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}
