//! HTTP header names. Those that start with [`PREFIX`] are Sluice's alone: the filter strips them from clients' requests.

/// Every header that only Sluice may set.
pub const PREFIX: &str = "x-sluice-";

/// Whether a name is one that only Sluice may set, in any case; or one that gateways take for it which write names as variables
/// (CGI, WSGI, PHP), where whatever is no letter and no digit is an underscore.
#[must_use]
pub fn is_own(name: &str) -> bool {
    let start = name.as_bytes().get(..PREFIX.len()).unwrap_or_default();
    let same = |(own, other): (u8, &u8)| {
        own.eq_ignore_ascii_case(other) || !own.is_ascii_alphanumeric() && !other.is_ascii_alphanumeric()
    };
    start.len() == PREFIX.len() && PREFIX.bytes().zip(start).all(same)
}
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
