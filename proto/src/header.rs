//! HTTP header names. Those that start with [`PREFIX`] are Sluice's alone: the filter strips them from clients' requests.

/// Every header that only Sluice may set.
pub const PREFIX: &str = "x-sluice-";
/// The code of the decision, as in `ADMITTED` or `DAILY_AMOUNT`; on requests to the gateway and on refusals.
pub const CODE: &str = "x-sluice-code";
/// The decision's id, a UUID: the journal row of the decision has the same.
pub const DECISION_ID: &str = "x-sluice-decision-id";
/// `true` where the answer repeats an earlier one for the same order.
pub const REPLAY: &str = "x-sluice-replay";
/// How long the proxy holds an admitted request back before it goes on, in milliseconds; absent where it goes on at once.
pub const DELAY_MS: &str = "x-sluice-delay-ms";
/// Seconds until the limit that bound resets (RFC 9110).
pub const RETRY_AFTER: &str = "retry-after";
/// What is left of the binding limit (IETF draft `ratelimit-headers`).
pub const RATE_LIMIT: &str = "ratelimit";
/// The binding limit's quota and window (IETF draft `ratelimit-headers`).
pub const RATE_LIMIT_POLICY: &str = "ratelimit-policy";
