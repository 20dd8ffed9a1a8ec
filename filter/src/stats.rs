//! The filter's metrics in the proxy's stats, defined once per VM.

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stat {
    /// Payments that the server admitted for the first time.
    Admitted,
    /// Payments that the server admitted as a repetition of an earlier one.
    Replayed,
    /// Payments that the server refused and the proxy answered.
    Refused,
    /// Admitted payments that were delayed before they were forwarded.
    Delayed,
    /// Admitted payments that were answered 429 because too many were delayed already.
    NotDelayed,
    /// Payments that would have been refused, on shadow routes.
    ShadowRefused,
    /// Requests that could not be read as a charge (400, 413, 415), shadow routes included.
    BadRequest,
    /// Payments without a usable answer that were answered 503.
    NoAnswerDenied,
    /// Payments without a usable answer that were forwarded.
    NoAnswerAllowed,
    /// Voids passed to the proxy for sending, retries not counted.
    VoidSent,
    /// Voids sent again.
    VoidRetried,
    /// Voids given up, or dropped because the queue was full.
    VoidLost,
    /// Captures, refunds, voids and unknown outcomes reported to the server, retries not counted.
    ConfirmSent,
    /// Captures, refunds, voids and unknown outcomes reported again.
    ConfirmRetried,
    /// Captures, refunds, voids and unknown outcomes that the server never received or did not accept.
    ConfirmLost,
    /// Captures whose amount in the gateway's answer could not be read; nothing was settled.
    AmountUnreadable,
    /// Answers of the gateway whose outcome header could not be read; their outcome is unknown.
    OutcomeUnreadable,
    /// Admitted payments whose outcome cannot be known; their charge is kept.
    Unknown,
    /// Requests that no rule matches.
    Unmatched,
    /// Requests on routes that are switched off.
    Off,
    /// Requests whose route names a mode that does not exist; they are enforced.
    UnknownMode,
    /// Streams that ended while their payment was being decided.
    ClientGone,
    /// Calls into the proxy that failed unexpectedly.
    HostFailed,
    /// Payments whose check was not queued because too many wait already.
    QueueFull,
    /// Payments whose check was sent once more because its call was lost.
    CheckRepeated,
    /// Payments that were admitted from a right, without a call.
    Trusted,
    /// Payments of rights reported again.
    ReportRetried,
    /// Payments of rights that the server never received or did not accept.
    ReportLost,
}

impl Stat {
    /// Every counter.
    pub const ALL: [Self; 28] = [
        Self::Admitted,
        Self::Replayed,
        Self::Refused,
        Self::Delayed,
        Self::NotDelayed,
        Self::ShadowRefused,
        Self::BadRequest,
        Self::NoAnswerDenied,
        Self::NoAnswerAllowed,
        Self::VoidSent,
        Self::VoidRetried,
        Self::VoidLost,
        Self::ConfirmSent,
        Self::ConfirmRetried,
        Self::ConfirmLost,
        Self::AmountUnreadable,
        Self::OutcomeUnreadable,
        Self::Unknown,
        Self::Unmatched,
        Self::Off,
        Self::UnknownMode,
        Self::ClientGone,
        Self::HostFailed,
        Self::QueueFull,
        Self::CheckRepeated,
        Self::Trusted,
        Self::ReportRetried,
        Self::ReportLost,
    ];

    /// The name in the proxy's stats.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "sluice_admitted",
            Self::Replayed => "sluice_replayed",
            Self::Refused => "sluice_refused",
            Self::Delayed => "sluice_delayed",
            Self::NotDelayed => "sluice_not_delayed",
            Self::ShadowRefused => "sluice_shadow_refused",
            Self::BadRequest => "sluice_bad_request",
            Self::NoAnswerDenied => "sluice_no_answer_denied",
            Self::NoAnswerAllowed => "sluice_no_answer_allowed",
            Self::VoidSent => "sluice_void_sent",
            Self::VoidRetried => "sluice_void_retried",
            Self::VoidLost => "sluice_void_lost",
            Self::ConfirmSent => "sluice_confirm_sent",
            Self::ConfirmRetried => "sluice_confirm_retried",
            Self::ConfirmLost => "sluice_confirm_lost",
            Self::AmountUnreadable => "sluice_amount_unreadable",
            Self::OutcomeUnreadable => "sluice_outcome_unreadable",
            Self::Unknown => "sluice_unknown",
            Self::Unmatched => "sluice_unmatched",
            Self::Off => "sluice_off",
            Self::UnknownMode => "sluice_unknown_mode",
            Self::ClientGone => "sluice_client_gone",
            Self::HostFailed => "sluice_host_failed",
            Self::QueueFull => "sluice_queue_full",
            Self::CheckRepeated => "sluice_asked_again",
            Self::Trusted => "sluice_trusted",
            Self::ReportRetried => "sluice_report_retried",
            Self::ReportLost => "sluice_report_lost",
        }
    }

    /// The position in [`Stat::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Gauge: rules that enforce unless their route sets another mode.
pub const RULES_ENFORCING: &str = "sluice_rules_enforcing";
/// Histogram: milliseconds from a check to its answer.
pub const CHECK_MS: &str = "sluice_check_ms";
/// Histogram: how many checks and follow-ups were sent in one call.
pub const BATCH_CHECKS: &str = "sluice_batch_checks";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_at_its_position() {
        for (at, stat) in Stat::ALL.into_iter().enumerate() {
            assert_eq!(stat.index(), at, "{}", stat.name());
        }
    }
}
