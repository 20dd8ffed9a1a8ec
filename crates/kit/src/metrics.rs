//! What the server exposes at `/metrics`. Each part of the server declares its own metrics in one table, see
//! [`metrics!`](crate::metrics!).

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;

mod table;

pub use prometheus_client::registry::Registry;
pub use table::{Counter, FloatGauge, Gauge, Histogram, Labelled, histogram, signed};

/// The label that only series of single merchants have.
const MERCHANT_LABEL: &str = "merchant_id=\"";
/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics that a part of the server owns.
pub trait Part: Default + Send + Sync + 'static {
    /// Adds them to what is exposed.
    fn register(&self, registry: &mut Registry);
}

/// What the server exposes: the metrics of its parts and of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// What parts of the server have registered, by their types.
    parts: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The metrics of the process; those of a part come with its first use.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        crate::process::register(&mut registry);
        Self { registry: Mutex::new(registry), parts: Mutex::default() }
    }

    /// The metrics of one part of the server: registered at their first use, and the same ones from then on.
    pub fn part<T: Part>(&self) -> Arc<T> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = parts.get(&TypeId::of::<T>()).and_then(|part| Arc::clone(part).downcast().ok());
        known.unwrap_or_else(|| {
            let part = Arc::new(T::default());
            part.register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
            parts.insert(TypeId::of::<T>(), Arc::<T>::clone(&part));
            part
        })
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner)) {
            Ok(()) => text,
            // Writing to a string fails only where a metric cannot be encoded; the scrape then has a comment without metrics.
            Err(std::fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}

/// Metrics without the series of single merchants: a merchant's volume is not for every reader.
#[must_use]
pub fn without_merchants(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| line.starts_with('#') || !line.contains(MERCHANT_LABEL)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::metrics! {
        /// One metric of each kind.
        struct EachKind {
            count: Counter = "a_count", "Counted";
            level: FloatGauge = "a_level", "Measured";
            errors: Counter["kind", "use"] = "errors", "Failed", [["timeout", "read"]];
            rates: Gauge["name"] = "rates", "Without a series from the start";
            seconds: Histogram(0.5, 2)["use"] = "seconds", "Time in seconds", [["read"]];
        }
    }

    #[test]
    fn metrics_are_exposed_under_the_names_of_their_table() {
        let metrics = Metrics::new();
        let part: Arc<EachKind> = metrics.part();
        part.count.inc();
        part.level.set(0.5);
        part.errors.of(["reply", "read"]).inc_by(2);
        part.seconds.of(["read"]).observe(0.75);
        let text = metrics.encode();
        for line in [
            "# HELP a_count Counted.",
            "# TYPE a_count counter",
            "a_count_total 1",
            "a_level 0.5",
            "errors_total{kind=\"reply\",use=\"read\"} 2",
            "errors_total{kind=\"timeout\",use=\"read\"} 0",
            "seconds_bucket{le=\"0.5\",use=\"read\"} 0",
            "seconds_bucket{le=\"1.0\",use=\"read\"} 1",
            "seconds_count{use=\"read\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("rates"), "{text}");
        part.rates.of(["a".to_owned()]).set(1);
        metrics.part::<EachKind>().rates.of(["b"]).set(2);
        part.rates.remove(["a"]);
        let text = metrics.encode();
        assert!(text.contains("rates{name=\"b\"} 2") && !text.contains("name=\"a\""), "{text}");
        part.rates.clear();
        assert!(!metrics.encode().contains("rates"));
    }

    #[test]
    fn x10_series_of_single_merchants_can_be_left_out() {
        let text = "# HELP quota_usage_rate merchant_id=\"x\"\nquota_usage_rate{merchant_id=\"m\",currency=\"USD\"} 0.5\n\
            quota_usage_rate_left_out_accounts 1\n# EOF\n";
        let open = "# HELP quota_usage_rate merchant_id=\"x\"\nquota_usage_rate_left_out_accounts 1\n# EOF\n";
        assert_eq!(without_merchants(text), open);
    }
}
