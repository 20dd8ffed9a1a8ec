//! The metrics of log and tracing.

use strum::{IntoStaticStr, VariantNames};

/// Why a span did not reach the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub(super) enum Lost {
    /// More spans waited than the queue holds.
    QueueFull,
    /// The collector could not be reached, or gave no answer in time.
    Unsent,
    /// The collector rejected it.
    Rejected,
}

crate::metrics! {
    /// The log's metrics.
    pub struct LogMetrics {
        pub(super) lines_dropped: Counter = "sluice_log_lines_dropped", "Log lines lost to a full queue";
    }
}

crate::metrics! {
    /// The metrics of tracing.
    pub struct TraceMetrics {
        pub(super) exported: Counter = "sluice_spans_exported", "Spans that the collector has taken";
        lost: Counter["why"] = "sluice_spans_dropped", "Spans that did not reach the collector",
            Lost::VARIANTS.iter().map(|why| [*why]);
    }
}

impl TraceMetrics {
    pub(super) fn lost(&self, why: Lost, spans: u64) {
        self.lost.of([why.into_str()]).inc_by(spans);
    }

    #[cfg(test)]
    pub(super) fn lost_spans(&self) -> Vec<u64> {
        Lost::VARIANTS.iter().map(|why| self.lost.of([*why]).get()).collect()
    }
}
