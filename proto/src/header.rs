//! HTTP header names. Those that start with [`PREFIX`] are reserved for Sluice: the filter strips them from clients' requests.

/// Every header that only Sluice may set.
pub const PREFIX: &str = "x-sluice-";

/// Whether only Sluice may set this name, in any case. Includes names that gateways read as such a name where they write names
/// as variables (CGI, WSGI, PHP), with an underscore for every character other than letters and digits.
#[must_use]
pub fn is_own(name: impl AsRef<[u8]>) -> bool {
    let start = name.as_ref().get(..PREFIX.len()).unwrap_or_default();
    let same = |(own, other): (u8, &u8)| {
        own.eq_ignore_ascii_case(other) || !own.is_ascii_alphanumeric() && !other.is_ascii_alphanumeric()
    };
    start.len() == PREFIX.len() && PREFIX.bytes().zip(start).all(same)
}
/// The code of the decision, as in `ADMITTED` or `DAILY_AMOUNT`; on requests to the gateway and on refusals.
pub const CODE: &str = "x-sluice-code";
/// The decision's id, a UUID: the journal row of the decision has the same.
pub const DECISION_ID: &str = "x-sluice-decision-id";
/// `true` where the answer repeats an earlier answer for the same order.
pub const REPLAY: &str = "x-sluice-replay";
/// How long the proxy delays an admitted request, in milliseconds; absent where there is no delay.
pub const DELAY_MS: &str = "x-sluice-delay-ms";
/// On answers to the proxy filter that asked for a right: `refused`, or what was granted, as [`crate::right::Answer`] writes it. Absent where
/// that is not known. The filter keeps it to itself.
pub const RIGHT: &str = "x-sluice-right";
/// Seconds until the binding limit resets (RFC 9110).
pub const RETRY_AFTER: &str = "retry-after";
/// The remaining quota of the binding limit (IETF draft `ratelimit-headers`).
pub const RATE_LIMIT: &str = "ratelimit";
/// The binding limit's quota and window (IETF draft `ratelimit-headers`).
pub const RATE_LIMIT_POLICY: &str = "ratelimit-policy";
