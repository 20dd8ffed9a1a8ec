//! Metrics of raised alerts.

use strum::VariantArray;

use super::Subject;

sluice_kit::metrics! {
    /// Alerts that this server raised. Types are bounded by the policies' thresholds; no request can add one.
    pub struct AlertMetrics {
        raised: Counter["type", "level"] = "quota_alerts", "Alerts that this server raised",
            Subject::VARIANTS
                .iter()
                .filter_map(|subject| Some([subject.word(), subject.operators_level()?.into_str()]));
    }
}

impl AlertMetrics {
    /// An alert was raised, as `daily_80` and `warning`. Once for each row of `quota_alert`.
    pub fn raised(&self, alert_type: &str, level: &str) {
        self.raised.of([alert_type.to_owned(), level.to_owned()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_kit::metrics::Metrics;

    #[test]
    fn operators_alerts_are_there_before_the_first() {
        let metrics = Metrics::new();
        drop(metrics.part::<AlertMetrics>());
        let text = metrics.encode();
        let first = r#"quota_alerts_total{type="journal_backlog",level="critical"} 0"#;
        assert!(text.contains(first), "{text}");
        assert!(text.contains(r#"quota_alerts_total{type="credit_watch",level="warning"} 0"#), "{text}");
    }
}
