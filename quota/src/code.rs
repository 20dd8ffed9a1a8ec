//! The stable codes of every answer, in one table: the text of the contract, the HTTP status, a sentence, and the number in
//! packed values.

use serde::{Deserialize, Serialize};

/// Declares [`Code`] from rows of variant, number, text, HTTP status and sentence, in the order of checks.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal, $status:literal, $title:literal;)+) => {
        /// The result of a command. The text form and the number are part of the contract and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $variant = $number,)+
        }

        impl Code {
            /// Every code, in the order of checks.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$variant),+];

            /// The text of the contract, as in `DAILY_AMOUNT`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The HTTP status of the proxy's answer: 429 where the limit resets with time, 403 where it does not.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// A sentence that is safe to show to any caller.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    /// The charge was consumed, or is a replay of one that was.
    Admitted = 0, "ADMITTED", 200, "The payment is within its limits.";
    /// The last live attempt was voided and the order's charge returned.
    Voided = 1, "VOIDED", 200, "The charge was returned.";
    /// The attempt was voided; other live attempts keep the order's charge.
    AttemptReleased = 2, "ATTEMPT_RELEASED", 200, "The attempt was voided; the order's charge is kept by other attempts.";
    /// The void arrived before its attempt; only that attempt will be refused.
    Tombstoned = 3, "TOMBSTONED", 200, "The attempt will be refused should it still arrive.";
    /// The operation took effect, or is a replay of one that did.
    Applied = 4, "APPLIED", 200, "The operation took effect.";
    /// The request could not be read as a payment: a field is missing, repeated or contradictory.
    BadRequest = 10, "BAD_REQUEST", 400, "The request cannot be read as a payment.";
    /// The amount is malformed, not positive, over-precise or too large.
    BadAmount = 11, "BAD_AMOUNT", 400, "The amount cannot be accepted.";
    /// The body is larger than the rule reads.
    BodyTooLarge = 12, "BODY_TOO_LARGE", 413, "The body is too large.";
    /// The body's encoding or media type cannot be read.
    UnsupportedContent = 13, "UNSUPPORTED_CONTENT", 415, "The body's encoding or media type is not supported.";
    /// No policy applies to the merchant.
    PolicyMissing = 20, "POLICY_MISSING", 403, "No limit policy applies to this merchant.";
    /// The policies refuse merchants that they do not name, and this one is not named.
    MerchantUnknown = 26, "MERCHANT_UNKNOWN", 403, "No limit policy names this merchant, and unknown merchants are refused.";
    /// The credit line is overdue, or closed, and takes no charge.
    CreditFrozen = 27, "CREDIT_FROZEN", 403, "The credit line takes no new payments.";
    /// The grade or the stage of the credit line allows other channels only.
    CreditChannel = 28, "CREDIT_CHANNEL", 403, "The grade or the stage of the credit line does not allow this channel.";
    /// The policy does not allow the channel.
    ChannelNotAllowed = 21, "CHANNEL_NOT_ALLOWED", 403, "The channel is not allowed for this merchant.";
    /// The policy does not allow the currency.
    CurrencyNotAllowed = 22, "CURRENCY_NOT_ALLOWED", 403, "The currency is not allowed for this merchant.";
    /// The amount is below the single minimum.
    BelowSingleMin = 23, "BELOW_SINGLE_MIN", 403, "The amount is below the minimum for one payment.";
    /// The amount is above the single maximum.
    AboveSingleMax = 24, "ABOVE_SINGLE_MAX", 403, "The amount is above the maximum for one payment.";
    /// The account is suspended, or its merchant as a whole.
    Suspended = 25, "SUSPENDED", 403, "The account or its merchant is suspended.";
    /// The account is on a credit line that the server has never read, and such charges are refused; or a posting to an account
    /// without one.
    CreditUnknown = 29, "CREDIT_UNKNOWN", 503, "The account's credit line could not be read.";
    /// The day's number of charges is used up.
    DailyCount = 30, "DAILY_COUNT", 429, "The day's number of payments is used up.";
    /// The week's number of charges is used up.
    WeeklyCount = 38, "WEEKLY_COUNT", 429, "The week's number of payments is used up.";
    /// The month's number of charges is used up.
    MonthlyCount = 31, "MONTHLY_COUNT", 429, "The month's number of payments is used up.";
    /// The year's number of charges is used up.
    YearlyCount = 32, "YEARLY_COUNT", 429, "The year's number of payments is used up.";
    /// The day's amount would be exceeded.
    DailyAmount = 33, "DAILY_AMOUNT", 429, "The day's amount would be exceeded.";
    /// The week's amount would be exceeded.
    WeeklyAmount = 39, "WEEKLY_AMOUNT", 429, "The week's amount would be exceeded.";
    /// The month's amount would be exceeded.
    MonthlyAmount = 34, "MONTHLY_AMOUNT", 429, "The month's amount would be exceeded.";
    /// The year's amount would be exceeded.
    YearlyAmount = 35, "YEARLY_AMOUNT", 429, "The year's amount would be exceeded.";
    /// The amount of open holds would exceed its maximum.
    PendingAmount = 36, "PENDING_AMOUNT", 429, "The amount of open holds would be exceeded.";
    /// The charge is above a limit, and the wait under the throttle would be too long.
    Throttled = 37, "THROTTLED", 429, "Payments past the limit are paced; this one may come again later.";
    /// The charge would fit into the credit line, but not into what is left of it while it is overdue.
    CreditRestricted = 45, "CREDIT_RESTRICTED", 403, "The credit line is restricted until overdue amounts are paid.";
    /// The charge would exceed the credit line.
    CreditExhausted = 44, "CREDIT_EXHAUSTED", 403, "The credit line is used up; a repayment frees it.";
    /// More than was captured and is not refunded yet.
    RefundExceedsOrder = 40, "REFUND_EXCEEDS_ORDER", 403, "The refund exceeds what is left of the order's captured amount.";
    /// The day's refunds would be exceeded.
    RefundDaily = 41, "REFUND_DAILY", 429, "The day's amount of refunds would be exceeded.";
    /// The month's refunds would be exceeded.
    RefundMonthly = 42, "REFUND_MONTHLY", 429, "The month's amount of refunds would be exceeded.";
    /// The order is already charged with another amount or currency.
    IdempotencyConflict = 50, "IDEMPOTENCY_CONFLICT", 409, "The order was already charged with another amount or currency.";
    /// The attempt was voided before it arrived.
    AttemptVoided = 51, "ATTEMPT_VOIDED", 409, "This attempt was voided before it arrived.";
    /// No such order is charged.
    OrderUnknown = 52, "ORDER_UNKNOWN", 404, "No such order is charged.";
    /// The order was settled or voided, or an operation returned quota of it: this operation is too late.
    OrderClosed = 53, "ORDER_CLOSED", 409, "The order is closed: it was settled, voided, released or refunded.";
    /// More than the hold plus the over-capture that the policy allows.
    CaptureExceedsHold = 54, "CAPTURE_EXCEEDS_HOLD", 403, "The capture exceeds the hold by more than is allowed.";
    /// The order takes no more captures and refunds.
    OrderFull = 55, "ORDER_FULL", 409, "The order has as many captures and refunds as are kept.";
    /// The account is no longer at the version that the change is based on.
    VersionConflict = 56, "VERSION_CONFLICT", 409, "The account has changed since; read it again.";
    /// Another operation of the same atomic batch was refused.
    BatchRefused = 57, "BATCH_REFUSED", 409, "Nothing was done: another operation of the batch was refused.";
    /// The order is charged, and its rule allows no further repetition.
    ReplayRefused = 58, "REPLAY_REFUSED", 409, "The order is charged already, and its repetitions are used up.";
    /// Nothing is set aside for the holder: too little is left of a limit, the account is restricted or on a credit line, or its policy
    /// grants none.
    RightRefused = 59, "RIGHT_REFUSED", 409, "No right is granted; payments are decided one by one.";
    /// Payments may still be admitted from the right, or reported.
    RightInUse = 63, "RIGHT_IN_USE", 409, "Payments of the right may still be reported: until 18 minutes after its end.";
    /// The store gave no answer in time.
    StoreUnavailable = 60, "STORE_UNAVAILABLE", 503, "The quota store gave no answer in time.";
    /// The journal's backlog is at its bound; new charges are refused rather than lost.
    BacklogFull = 61, "BACKLOG_FULL", 503, "The journal is at its bound; no new charges are taken.";
    /// The decision server gave no usable answer in time.
    AuthzUnavailable = 62, "AUTHZ_UNAVAILABLE", 503, "The decision server gave no answer in time.";
}

impl Code {
    /// Reads the text form; `None` for an unknown code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| crate::is_same(code.as_str().as_bytes(), text.as_bytes()))
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
