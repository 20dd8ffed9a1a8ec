//! Metrics of unknown outcomes. No request can create a label: reasons are counted by their class.

use super::read::Open;

/// Operations with open outcomes, by their value in the table.
const OPERATIONS: [&str; 5] = ["consume", "hold", "settle", "refund", "void"];
/// Classes of reasons: of a status its hundred, else the word itself.
const REASONS: [&str; 24] = [
    "status_1xx",
    "status_3xx",
    "status_4xx",
    "status_5xx",
    "flag_UT",
    "flag_LR",
    "flag_UR",
    "flag_UC",
    "flag_UPE",
    "flag_DC",
    "flag_DR",
    "flag_SI",
    "flag_DPE",
    "flag_UMSDR",
    "flag_DT",
    "flags_unreadable",
    "no_status",
    "retried",
    "tries_unknown",
    "gateway_unknown",
    "outcome_header_unreadable",
    "amount_unreadable",
    "status_2xx",
    "other",
];

sluice_kit::metrics! {
    /// Metrics of unknown outcomes.
    pub struct OutcomeMetrics {
        unknown: Counter["operation", "reason"] = "sluice_unknown_outcomes",
            "Operations whose outcome at the gateway is unknown, by operation (charge, capture, refund, void) and reason";
        open: Gauge["operation"] = "sluice_unknown_outcomes_open",
            "Unknown outcomes that are not resolved yet, by operation; set by one server";
        oldest_seconds: FloatGauge = "sluice_unknown_outcomes_oldest_seconds",
            "Age of the oldest unknown outcome that is not resolved, 0 where there is none; set by one server";
    }
}

impl OutcomeMetrics {
    /// Counts an unknown outcome.
    pub(super) fn unknown(&self, operation: &'static str, reason: &str) {
        self.unknown.of([operation, class(reason)]).inc();
    }

    /// Sets the number of open outcomes.
    pub fn set_open(&self, open: &[Open]) {
        for operation in OPERATIONS {
            let count = open.iter().filter(|open| open.operation == operation).map(|open| open.count).sum();
            self.open.of([operation]).set(count);
        }
        self.oldest_seconds.set(open.iter().map(|open| open.oldest_secs).fold(0.0, f64::max));
    }

    /// Another server reports the open ones.
    pub fn leave_to_another(&self) {
        self.open.clear();
        self.oldest_seconds.set(0.0);
    }
}

fn class(reason: &str) -> &'static str {
    let of_status =
        reason.strip_prefix("status_").map(|status| format!("status_{}xx", status.get(..1).unwrap_or_default()));
    let word = of_status.as_deref().unwrap_or(reason);
    REASONS.into_iter().find(|known| *known == word).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_by_their_class() {
        for (reason, expected) in [
            ("status_406", "status_4xx"),
            ("status_503", "status_5xx"),
            ("status_302", "status_3xx"),
            ("flag_UC", "flag_UC"),
            ("retried", "retried"),
            ("status_", "other"),
            ("status_4xx; x", "status_4xx"),
            ("flag_XX", "other"),
            ("", "other"),
        ] {
            assert_eq!(class(reason), expected, "{reason}");
        }
    }
}
