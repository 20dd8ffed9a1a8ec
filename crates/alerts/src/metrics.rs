//! Metrics of raised alerts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Level, Subject};
use sluice_kit::metrics::Part;

/// Alerts that this server raised. Types are bounded by the policies' thresholds; no request can add one.
#[derive(Debug, Default)]
pub struct AlertMetrics {
    raised: Family<[(&'static str, String); 2], Counter>,
}

impl Part for AlertMetrics {
    fn register(&self, r: &mut Registry) {
        r.register("quota_alerts", "Alerts that this server raised", self.raised.clone());
        // The series exist from the start: a rate misses the first increment of a new series.
        for subject in Subject::ALL.into_iter().filter(|subject| subject.is_operators()) {
            let labels = [("type", subject.word().to_owned()), ("level", Level::Critical.as_str().to_owned())];
            drop(self.raised.get_or_create(&labels));
        }
    }
}

impl AlertMetrics {
    /// An alert was raised, as `daily_80` and `warning`. Once for each row of `quota_alert`.
    pub fn raised(&self, alert_type: &str, level: &str) {
        self.raised.get_or_create(&[("type", alert_type.to_owned()), ("level", level.to_owned())]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_alerts_are_there_before_the_first() {
        let (mut registry, mut text) = (Registry::default(), String::new());
        AlertMetrics::default().register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let first = r#"quota_alerts_total{type="journal_backlog",level="critical"} 0"#;
        assert!(text.contains(first), "{text}");
    }
}
