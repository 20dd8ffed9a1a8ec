//! The metrics of tracing at `/metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::metrics::Part;

/// Why a span did not reach the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lost {
    /// More spans waited than the queue holds.
    QueueFull,
    /// The collector could not be reached, or gave no answer in time.
    Unsent,
    /// The collector rejected it.
    Rejected,
}

impl Lost {
    pub(super) const ALL: [Self; 3] = [Self::QueueFull, Self::Unsent, Self::Rejected];

    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unsent => "unsent",
            Self::Rejected => "rejected",
        }
    }
}

/// The metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct TraceMetrics {
    exported: Counter,
    lost: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Default for TraceMetrics {
    /// All at zero, and present: a rate sees the first loss.
    fn default() -> Self {
        let metrics = Self { exported: Counter::default(), lost: Family::default() };
        Lost::ALL.into_iter().for_each(|why| metrics.lost(why, 0));
        metrics
    }
}

impl Part for TraceMetrics {
    fn register(&self, r: &mut Registry) {
        r.register("sluice_spans_exported", "Spans that the collector has taken", self.exported.clone());
        r.register("sluice_spans_dropped", "Spans that did not reach the collector", self.lost.clone());
    }
}

impl TraceMetrics {
    pub(super) fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    pub(super) fn lost(&self, why: Lost, spans: u64) {
        self.lost.get_or_create(&[("why", why.as_str())]).inc_by(spans);
    }

    #[cfg(test)]
    pub(super) fn lost_spans(&self, why: Lost) -> u64 {
        self.lost.get_or_create(&[("why", why.as_str())]).get()
    }

    #[cfg(test)]
    pub(super) fn exported_spans(&self) -> u64 {
        self.exported.get()
    }
}
