//! The outcome of an admitted payment, from the gateway's outcome header, its status and the proxy's response flags.

use std::borrow::Cow;

use sluice_rules::{Unreadable, VoidOn};

/// What a host knows of a stream's end. Each number may cost a call into the proxy.
pub trait EndingReader {
    /// Envoy's response flags; `None` if not available.
    fn flags(&self) -> Option<u64>;
    /// The status that went to the client.
    fn code(&self) -> Option<u16>;
    /// How often the proxy tried the gateway; `None` if not available.
    fn tries(&self) -> Option<u64>;
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The status that went to the client, from the gateway or from the proxy itself.
    pub status: Option<u16>,
    /// Envoy's response flags, one bit each (see [`UNREACHED`] and [`UNKNOWN`]).
    pub flags: u64,
    /// How often the proxy tried the gateway; `None` if not available.
    pub tries: Option<u64>,
}

impl Ending {
    /// Reads what matters. The gateway's own status counts, whatever other filters made of it. A success is a success whatever came
    /// before it, unless the gateway reports the outcome itself: `has_outcome`.
    #[must_use]
    pub fn read(host: &impl EndingReader, status: Option<u16>, has_outcome: bool) -> Self {
        // Flags that cannot be read might mean that the outcome is unknown.
        let flags = host.flags().unwrap_or(UNKNOWN);
        let ending = Self { status: status.or_else(|| host.code()), flags, tries: None };
        // Only a possible refusal needs the tries.
        let refuses = has_outcome || !ending.is_success() || flags & UNREACHED != 0;
        Self { tries: if refuses { host.tries() } else { None }, ..ending }
    }

    /// Whether the gateway's status is a success.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self.status, Some(200..=299))
    }

    /// Whether the gateway's answer is its own and complete, as far as the proxy got it: errors, if any, were on the client's side.
    #[must_use]
    pub const fn is_sound_upstream(self) -> bool {
        self.flags & (UNKNOWN | UNREACHED) & !DOWNSTREAM == 0
    }

    /// `Err` if a try before the last one may have reached the gateway: hedged tries and retries count alike.
    const fn tried_once(self) -> Result<(), Doubt> {
        match self.tries {
            Some(0 | 1) => Ok(()),
            Some(_) => Err(Doubt::Retried),
            None => Err(Doubt::TriesUnknown),
        }
    }
}

/// The outcome that the gateway reports in the header that the rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayOutcome {
    /// No header, or the rule names none: the status decides.
    #[default]
    Absent,
    Made,
    NotMade,
    Unknown,
    /// Another value, different values, or a header that could not be read.
    Unreadable,
}

impl GatewayOutcome {
    /// Reads every value of the header. Equal repetitions count as one.
    #[must_use]
    pub fn read(values: &Result<Vec<Vec<u8>>, Unreadable>) -> Self {
        let Ok(values) = values else { return Self::Unreadable };
        let Some((first, rest)) = values.split_first() else { return Self::Absent };
        if rest.iter().any(|other| other != first) {
            return Self::Unreadable;
        }
        match first.as_slice() {
            b"made" => Self::Made,
            b"not_made" => Self::NotMade,
            b"unknown" => Self::Unknown,
            _ => Self::Unreadable,
        }
    }
}

/// Why a charge is voided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ClientGone,
    CheckTimeout,
    Upstream4xx,
    Upstream5xx,
    UpstreamNotMade,
    UpstreamUnreached,
    NotDelayed,
}

impl Reason {
    /// The word of the contract ([`proto::extension::REASON`]).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::CheckTimeout => "check_timeout",
            Self::Upstream4xx => "upstream_4xx",
            Self::Upstream5xx => "upstream_5xx",
            Self::UpstreamNotMade => "upstream_not_made",
            Self::UpstreamUnreached => "upstream_unreached",
            Self::NotDelayed => "not_delayed",
        }
    }
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A response flag of [`UNKNOWN`], by Envoy's letters.
    Flag(&'static str),
    /// The proxy did not return its response flags.
    FlagsUnreadable,
    /// A status that is neither a success nor a refusal.
    Status(u16),
    /// No status at all.
    NoStatus,
    /// The proxy tried more than once, and the last answer does not cover the earlier tries.
    Retried,
    /// The number of tries is not available.
    TriesUnknown,
    /// The gateway itself reports `unknown`.
    GatewayUnknown,
    /// The gateway's outcome header cannot be read.
    OutcomeUnreadable,
    /// The gateway has captured, but the amount cannot be read.
    AmountUnreadable,
}

impl Doubt {
    /// The word of the contract ([`proto::extension::REASON`]).
    #[must_use]
    pub fn word(self) -> Cow<'static, str> {
        match self {
            Self::Flag(letters) => Cow::Owned(format!("flag_{letters}")),
            Self::FlagsUnreadable => Cow::Borrowed("flags_unreadable"),
            Self::Status(status) => Cow::Owned(format!("status_{status}")),
            Self::NoStatus => Cow::Borrowed("no_status"),
            Self::Retried => Cow::Borrowed("retried"),
            Self::TriesUnknown => Cow::Borrowed("tries_unknown"),
            Self::GatewayUnknown => Cow::Borrowed("gateway_unknown"),
            Self::OutcomeUnreadable => Cow::Borrowed("outcome_header_unreadable"),
            Self::AmountUnreadable => Cow::Borrowed("amount_unreadable"),
        }
    }
}

/// What to do with the charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The gateway did what was requested: the charge stays.
    Keep,
    /// The gateway did not do what was requested: the charge is voided.
    Void(Reason),
    /// It is unknown whether the gateway did it: the charge is kept and marked.
    Unknown(Doubt),
}

const fn bits<const N: usize>(positions: [(u32, &str); N]) -> u64 {
    let mut mask = 0;
    let mut rest: &[(u32, &str)] = &positions;
    while let [(position, _), others @ ..] = rest {
        mask |= 1_u64.wrapping_shl(*position);
        rest = others;
    }
    mask
}

/// Flags by which the request cannot have reached the gateway, as bit positions of `response.flags`. The positions are
/// the order of `CoreResponseFlag` in Envoy's `stream_info.h`; the letters are those of `%RESPONSE_FLAGS%`.
pub const UNREACHED: u64 = bits([
    (1, "UH"),    // no healthy host
    (5, "UF"),    // the connection failed
    (7, "UO"),    // a circuit breaker is open
    (8, "NR"),    // no route
    (10, "FI"),   // aborted by fault injection
    (11, "RL"),   // refused by a rate limit after this filter
    (12, "UAEX"), // refused by an external authorization after this filter
    (21, "NFCF"), // a filter's configuration is missing
    (24, "NC"),   // no such cluster
    (25, "OM"),   // the overload manager refused it
    (26, "DF"),   // the gateway's name did not resolve
    (27, "DO"),   // dropped by the cluster's overload policy
    (29, "UDO"),  // dropped by the cluster unconditionally
]);

/// The flags of [`UNKNOWN`]; where several are set, the first of them is named as the reason.
const UNKNOWN_FLAGS: [(u32, &str); 11] = [
    (2, "UT"),     // no answer in time
    (3, "LR"),     // reset by the proxy
    (4, "UR"),     // reset by the gateway
    (6, "UC"),     // the connection ended
    (23, "UPE"),   // the gateway broke the protocol
    (14, "DC"),    // the client left
    (28, "DR"),    // the client reset the stream
    (16, "SI"),    // the stream was idle
    (18, "DPE"),   // the client broke the protocol
    (19, "UMSDR"), // the stream lived too long
    (22, "DT"),    // the connection lived too long
];

/// Flags by which the request may have reached the gateway without an answer that can be trusted.
pub const UNKNOWN: u64 = bits(UNKNOWN_FLAGS);

/// Those of [`UNKNOWN`] that only the client's side of the stream causes. A client can cause them at will, after the gateway has
/// answered.
pub const DOWNSTREAM: u64 = bits([(14, "DC"), (16, "SI"), (18, "DPE"), (19, "UMSDR"), (22, "DT"), (28, "DR")]);

/// Judges the end of an admitted payment.
///
/// Flags come before the gateway's answer: a reset after the headers leaves 200 behind, and a failed connection 503. The outcome
/// header comes before the status. "Not made" is accepted after a single try only: the last answer does not cover the tries
/// before it. A refusal stays one if the client leaves while it is delivered, so callers judge at the response headers first.
#[must_use]
pub fn judge(void_on: &VoidOn, ending: Ending, outcome: GatewayOutcome) -> Fate {
    if let Some(doubt) = flagged(ending.flags) {
        return Fate::Unknown(doubt);
    }
    let refused = |reason| match ending.tried_once() {
        Ok(()) => Fate::Void(reason),
        Err(doubt) => Fate::Unknown(doubt),
    };
    if ending.flags & UNREACHED != 0 {
        return refused(Reason::UpstreamUnreached);
    }
    match (outcome, ending.status) {
        (GatewayOutcome::Made, _) => Fate::Keep,
        (GatewayOutcome::NotMade, _) => refused(Reason::UpstreamNotMade),
        (GatewayOutcome::Unknown, _) => Fate::Unknown(Doubt::GatewayUnknown),
        (GatewayOutcome::Unreadable, _) => Fate::Unknown(Doubt::OutcomeUnreadable),
        (GatewayOutcome::Absent, None | Some(0)) => Fate::Unknown(Doubt::NoStatus),
        (GatewayOutcome::Absent, Some(200..=299)) => Fate::Keep,
        (GatewayOutcome::Absent, Some(status)) if void_on.covers(status) => {
            refused(if status < 500 { Reason::Upstream4xx } else { Reason::Upstream5xx })
        }
        (GatewayOutcome::Absent, Some(status)) => Fate::Unknown(Doubt::Status(status)),
    }
}

fn flagged(flags: u64) -> Option<Doubt> {
    match flags & UNKNOWN {
        0 => None,
        // No stream ends in all of these ways: this value means that the flags could not be read.
        UNKNOWN => Some(Doubt::FlagsUnreadable),
        set => UNKNOWN_FLAGS
            .into_iter()
            .find(|(position, _)| set & 1_u64.wrapping_shl(*position) != 0)
            .map(|(_, letters)| Doubt::Flag(letters)),
    }
}

#[cfg(test)]
mod tests;
