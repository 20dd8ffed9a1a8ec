//! What became of an admitted payment, from the gateway's status and the proxy's response flags.

use quota::rule::VoidOn;

/// What the proxy knows of the end of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The status that went to the client, from the gateway or from the proxy itself.
    pub status: Option<u16>,
    /// Envoy's response flags, one bit each (see [`UNREACHED`] and [`UNKNOWN`]).
    pub flags: u64,
    /// How often the proxy tried the gateway, where it says so.
    pub tries: Option<u64>,
}

impl Ending {
    /// Whether the gateway says that it did what was asked.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self.status, Some(200..=299))
    }

    /// Whether the gateway's answer can be trusted to be its own and whole, as far as the proxy got it: what went wrong, if
    /// anything, went wrong on the client's side.
    #[must_use]
    pub const fn is_sound_upstream(self) -> bool {
        self.flags & (UNKNOWN | UNREACHED) & !DOWNSTREAM == 0
    }
}

/// Why a charge is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ClientGone,
    CheckTimeout,
    Upstream4xx,
    Upstream5xx,
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
            Self::UpstreamUnreached => "upstream_unreached",
            Self::NotDelayed => "not_delayed",
        }
    }
}

/// What to do with the charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The charge stays: the payment was made, or the rule does not void such answers. Only a success
    /// ([`Ending::is_success`]) says that something was done.
    Keep,
    /// The payment was not made.
    Void(Reason),
    /// Nobody can tell; the charge is kept.
    Unknown,
}

const fn bits<const N: usize>(positions: [u32; N]) -> u64 {
    let mut mask = 0;
    let mut rest: &[u32] = &positions;
    while let [position, others @ ..] = rest {
        mask |= 1_u64.wrapping_shl(*position);
        rest = others;
    }
    mask
}

/// Flags by which the request cannot have reached the gateway, as bit positions of `response.flags`. The positions are
/// the order of `CoreResponseFlag` in Envoy's `stream_info.h`; the letters are those of `%RESPONSE_FLAGS%`.
pub const UNREACHED: u64 = bits([
    1,  // UH, no healthy host
    5,  // UF, the connection failed
    7,  // UO, a circuit breaker is open
    8,  // NR, no route
    10, // FI, aborted by fault injection
    11, // RL, refused by a rate limit after this filter
    12, // UAEX, refused by an external authorization after this filter
    21, // NFCF, a filter's configuration is missing
    24, // NC, no such cluster
    25, // OM, the overload manager refused it
    26, // DF, the gateway's name did not resolve
    27, // DO, dropped by the cluster's overload policy
    29, // UDO, dropped by the cluster unconditionally
]);

/// Flags by which the request may have reached the gateway without an answer that can be trusted.
pub const UNKNOWN: u64 = bits([
    2,  // UT, no answer in time
    3,  // LR, reset by the proxy
    4,  // UR, reset by the gateway
    6,  // UC, the connection ended
    14, // DC, the client left
    16, // SI, the stream was idle
    18, // DPE, the client broke the protocol
    19, // UMSDR, the stream lived too long
    22, // DT, the connection lived too long
    23, // UPE, the gateway broke the protocol
    28, // DR, the client reset the stream
]);

/// Those of [`UNKNOWN`] that the client's side of the stream alone brings about. A client can cause them as it likes, after the
/// gateway has said what it did.
pub const DOWNSTREAM: u64 = bits([
    14, // DC
    16, // SI
    18, // DPE
    19, // UMSDR
    22, // DT
    28, // DR
]);

/// The gateway's own "no answer in time": as unknown as the proxy's.
const GATEWAY_TIMEOUT: u16 = 504;

/// Judges the end of an admitted payment.
///
/// Flags come before the status: a reset after the headers leaves 200 behind, and a connection that failed 503. After a
/// retry by the proxy, an unreached last try says nothing of the first one. A 4xx or 5xx that the rule voids is trusted even
/// if the client left while it was delivered, so callers ask at the response headers first.
#[must_use]
pub fn judge(void_on: &VoidOn, ending: Ending) -> Fate {
    let retried = ending.tries.is_some_and(|tries| tries > 1);
    if ending.flags & UNKNOWN != 0 {
        return Fate::Unknown;
    }
    if ending.flags & UNREACHED != 0 {
        return if retried { Fate::Unknown } else { Fate::Void(Reason::UpstreamUnreached) };
    }
    match ending.status {
        None | Some(0) => Fate::Unknown,
        Some(status) if void_on.covers(status) => {
            Fate::Void(if status < 500 { Reason::Upstream4xx } else { Reason::Upstream5xx })
        }
        Some(GATEWAY_TIMEOUT) => Fate::Unknown,
        Some(_) => Fate::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::plugin;

    #[test]
    fn endings_are_judged_by_flags_then_status() {
        use Fate::{Keep, Unknown, Void};
        let plugin = plugin("{}");
        let void_on = &plugin.rules.rules()[0].void_on;
        let table: &[(Option<u16>, u64, Option<u64>, Fate)] = &[
            (Some(200), 0, None, Keep),
            (Some(302), 0, Some(1), Keep),
            (Some(422), 0, None, Void(Reason::Upstream4xx)),
            (Some(409), 0, None, Keep),
            (Some(500), 0, None, Void(Reason::Upstream5xx)),
            (Some(500), 0, Some(3), Void(Reason::Upstream5xx)),
            (Some(504), 0, None, Unknown),
            (Some(504), 0x4, None, Unknown),
            (Some(503), 0x20, Some(1), Void(Reason::UpstreamUnreached)),
            (Some(503), 0x20, None, Void(Reason::UpstreamUnreached)),
            (Some(503), 0x20, Some(2), Unknown),
            (Some(503), 0x60, Some(1), Unknown),
            (Some(503), 0x2, Some(0), Void(Reason::UpstreamUnreached)),
            (Some(404), 0x100, None, Void(Reason::UpstreamUnreached)),
            // The three cases that were observed: client gone, reset before headers, reset after them.
            (None, 16_384, None, Unknown),
            (Some(503), 64, Some(1), Unknown),
            (Some(200), 8_388_608, Some(1), Unknown),
            (None, 0, None, Unknown),
            (Some(0), 0, None, Unknown),
            (Some(99), 0, None, Keep),
        ];
        for (status, flags, tries, expected) in table {
            let ending = Ending { status: *status, flags: *flags, tries: *tries };
            assert_eq!(judge(void_on, ending), *expected, "{ending:?}");
        }
        assert_eq!(UNREACHED & UNKNOWN, 0);
        assert_eq!(DOWNSTREAM & !UNKNOWN, 0);
    }

    #[test]
    fn what_goes_wrong_on_the_clients_side_alone_leaves_the_gateways_word() {
        let sound = |flags| Ending { flags, ..Ending::default() }.is_sound_upstream();
        for bit in 0..u64::BITS {
            let flags = 1 << bit;
            let harmless = flags & (UNKNOWN | UNREACHED) == 0;
            let downstream = [14, 16, 18, 19, 22, 28].contains(&bit);
            assert_eq!(sound(flags), harmless || downstream, "{bit}");
            assert_eq!(sound(flags | DOWNSTREAM), harmless || downstream, "{bit}");
        }
        assert!(!sound(UNKNOWN), "flags that could not be read");
        for (status, success) in
            [(None, false), (Some(199), false), (Some(200), true), (Some(299), true), (Some(300), false)]
        {
            assert_eq!(Ending { status, ..Ending::default() }.is_success(), success, "{status:?}");
        }
    }
}
