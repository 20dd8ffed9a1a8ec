//! Keys of `CheckRequest.attributes.context_extensions`: how the filter hands a charge to the server.
//!
//! Only Envoy's own configuration and the filter write these; a client cannot.

/// What is asked: [`ACTION_CONSUME`] or [`ACTION_VOID`]. Its presence says that the filter has read the charge already.
pub const ACTION: &str = "sluice.action";
/// Consume quota for an attempt at an order.
pub const ACTION_CONSUME: &str = "consume";
/// Take one attempt back.
pub const ACTION_VOID: &str = "void";
/// Whose quota.
pub const MERCHANT: &str = "sluice.merchant";
/// Whole minor units, decimal digits. Absent on a void.
pub const AMOUNT_MINOR: &str = "sluice.amount_minor";
/// ISO 4217 alphabetic code.
pub const CURRENCY: &str = "sluice.currency";
/// The idempotency key.
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
/// Why an attempt is voided: one of `client_gone`, `check_timeout`, `upstream_4xx`, `upstream_5xx`, `upstream_unreached`.
pub const REASON: &str = "sluice.reason";
/// The reason of voids that the server makes itself, for Envoy's native filter, which never heard the answer.
pub const REASON_ANSWER_UNHEARD: &str = "answer_unheard";
