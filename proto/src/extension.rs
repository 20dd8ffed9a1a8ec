//! Keys of `CheckRequest.attributes.context_extensions`: how the filter sends a request to the server.
//!
//! Only Envoy's own configuration and the filter write these; a client cannot.

/// The requested operation, one of the `ACTION_*` values. Its presence means that the filter has read the request already.
pub const ACTION: &str = "sluice.action";
/// Consume quota for an attempt at an order.
pub const ACTION_CONSUME: &str = "consume";
/// Consume quota whose final amount is open.
pub const ACTION_HOLD: &str = "hold";
/// Capture from a hold.
pub const ACTION_SETTLE: &str = "settle";
/// Return captured quota.
pub const ACTION_REFUND: &str = "refund";
/// Void one attempt: return what it consumed, held or reserved for a refund.
pub const ACTION_VOID: &str = "void";
/// End an order's hold.
pub const ACTION_VOID_ORDER: &str = "void_order";
/// Report that the outcome of the attempt is unknown after the gateway's answer: see [`OUTCOME_OF`] and [`REASON`].
pub const ACTION_UNKNOWN: &str = "unknown";
/// Report that the gateway made the order's charge; the outcome of an earlier attempt may be unknown.
pub const ACTION_MADE: &str = "made";
/// Report a charge that was admitted from a right ([`RIGHT`]): it went to the gateway already.
pub const ACTION_REPORT: &str = "report";
/// End a right ([`RIGHT`]): nothing is admitted from it any more, and every payment of it was reported.
pub const ACTION_RELEASE_RIGHT: &str = "release_right";
/// The right that a payment was admitted from, or that ends: 32 hexadecimal digits.
pub const RIGHT: &str = "sluice.right";
/// On a charge or a report: asks for a right as large as this, `<number of payments> <amount that they count>`. The right's id is
/// that of the attempt, so that its holder can end it although the answer was lost. The answer is the header
/// [`crate::header::RIGHT`].
pub const RIGHT_WANTED: &str = "sluice.right_wanted";
/// The operation with the unknown outcome: [`ACTION_CONSUME`], [`ACTION_HOLD`], [`ACTION_SETTLE`], [`ACTION_REFUND`] or
/// [`ACTION_VOID_ORDER`], with the requested amount, number and finality.
pub const OUTCOME_OF: &str = "sluice.outcome_of";
/// Absent where the operation takes effect. [`DRY_SILENT`]: it is only decided, and nothing is journaled. [`DRY_JOURNAL`]: it is
/// only decided, and a refusal is journaled.
pub const DRY: &str = "sluice.dry";
/// See [`DRY`].
pub const DRY_SILENT: &str = "1";
/// See [`DRY`].
pub const DRY_JOURNAL: &str = "journal";
/// The caller's number of a capture or refund (`capture_no`, `refund_no`), which identifies a repetition.
pub const OPERATION_NO: &str = "sluice.operation_no";
/// [`FINAL_NOT`] on a capture after which the hold stays open. Absent: it is the last one.
pub const FINAL: &str = "sluice.final";
/// See [`FINAL`].
pub const FINAL_NOT: &str = "0";
/// [`STAGE_RESERVE`] on a refund that the gateway has not made yet: it is counted, its quota is returned by the same refund
/// without a stage, and the void of its attempt cancels it.
pub const STAGE: &str = "sluice.stage";
/// See [`STAGE`].
pub const STAGE_RESERVE: &str = "reserve";
/// The merchant whose quota is used.
pub const MERCHANT: &str = "sluice.merchant";
/// Whole minor units, decimal digits. Absent on a void; on a capture or refund absent means all that is left.
pub const AMOUNT_MINOR: &str = "sluice.amount_minor";
/// ISO 4217 alphabetic code.
pub const CURRENCY: &str = "sluice.currency";
/// The idempotency key of a charge. Absent on a dry run of a charge that has none yet.
pub const ORDER_NO: &str = "sluice.order_no";
/// Optional.
pub const PAYMENT_NO: &str = "sluice.payment_no";
/// Optional.
pub const CHANNEL: &str = "sluice.channel";
/// 32 hexadecimal digits, unique per request through the proxy.
pub const ATTEMPT: &str = "sluice.attempt";
/// `enforce` or `shadow`.
pub const MODE: &str = "sluice.mode";
/// The W3C `traceparent` of the request, where it has one.
pub const TRACEPARENT: &str = "sluice.traceparent";
/// On a charge: how many repetitions of its order by other attempts are allowed, 0 to 31. Absent for any number.
pub const REPLAYS_MAX: &str = "sluice.replays_max";
/// Why an attempt is voided: one of `client_gone`, `check_timeout`, `upstream_4xx`, `upstream_5xx`, `upstream_not_made`,
/// `upstream_unreached`, `not_delayed`. Why an outcome is unknown: `status_<code>`, `flag_<letters>` of Envoy's response flags,
/// `retried`, `tries_unknown`, `gateway_unknown`, `outcome_header_unreadable`, `amount_unreadable`, `flags_unreadable`,
/// `no_status`.
pub const REASON: &str = "sluice.reason";
/// The reason of voids by the server itself, where Envoy's native filter did not receive the answer.
pub const REASON_ANSWER_UNHEARD: &str = "answer_unheard";
