//! Metrics of accounts, alerts and streams at `/metrics`. Accounts are bounded in number, types of alerts by the policies'
//! thresholds; no request can add labels.

use std::collections::HashSet;
use std::sync::Arc;

sluice_kit::metrics! {
    /// Metrics of accounts, alerts and streams.
    pub struct StreamMetrics {
        usage_rate: FloatGauge["merchant_id", "currency"] = "quota_usage_rate",
            "Highest used part of a limit, 1 being all of it; of the accounts nearest to a limit, published by one server";
        left_out: Gauge = "quota_usage_rate_left_out_accounts",
            "Accounts with usage or unknown limits that quota_usage_rate leaves out";
        alerts_active: Gauge["level"] = "quota_alerts_active", "Open alerts, published by one server";
        /// Open streams.
        pub streams: Gauge = "sluice_streams", "Open live streams";
        /// Events sent in streams.
        pub stream_events: Counter = "sluice_stream_events", "Events sent in live streams";
    }
}

/// An account's usage.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountUsage {
    pub merchant_id: String,
    pub currency: String,
    /// The highest used part of a limit: 1 is all of it.
    pub rate: f64,
}

/// Publishes accounts and open alerts.
#[derive(Debug)]
pub(super) struct Publisher {
    metrics: Arc<StreamMetrics>,
    /// The accounts that have a series.
    shown: HashSet<[String; 2]>,
}

impl Publisher {
    pub(super) fn new(metrics: Arc<StreamMetrics>) -> Self {
        Self { metrics, shown: HashSet::new() }
    }

    /// Sets the number of open alerts.
    pub(super) fn set_alerts_active(&self, warning: i64, critical: i64) {
        self.metrics.alerts_active.of(["warning"]).set(warning);
        self.metrics.alerts_active.of(["critical"]).set(critical);
    }

    /// Sets the usage of these accounts, and how many others have any.
    pub(super) fn set_usage(&mut self, accounts: Vec<AccountUsage>, left_out: i64) {
        let mut gone = std::mem::take(&mut self.shown);
        for AccountUsage { merchant_id, currency, rate } in accounts {
            let account = [merchant_id, currency];
            self.metrics.usage_rate.of(account.clone()).set(rate);
            gone.remove(&account);
            self.shown.insert(account);
        }
        gone.into_iter().for_each(|account| self.metrics.usage_rate.remove(account));
        self.metrics.left_out.set(left_out);
    }

    /// Another server publishes them.
    pub(super) fn leave_to_another(&mut self) {
        self.set_usage(Vec::new(), 0);
        self.metrics.alerts_active.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_kit::metrics::Metrics;

    fn usage(merchant_id: &str, rate: f64) -> AccountUsage {
        AccountUsage { merchant_id: merchant_id.to_owned(), currency: "USD".to_owned(), rate }
    }

    #[test]
    fn only_the_accounts_of_the_last_round_are_shown() {
        let metrics = Metrics::new();
        let mut publisher = Publisher::new(metrics.part());
        publisher.set_usage(vec![usage("m-1", 0.5), usage("m-2", 1.25)], 7);
        publisher.set_usage(vec![usage("m-2", 0.75)], 8);
        publisher.set_alerts_active(3, 1);
        let shown = metrics.encode();
        assert!(shown.contains(r#"quota_usage_rate{merchant_id="m-2",currency="USD"} 0.75"#), "{shown}");
        assert!(shown.contains("quota_usage_rate_left_out_accounts 8"), "{shown}");
        assert!(shown.contains(r#"quota_alerts_active{level="critical"} 1"#), "{shown}");
        assert!(!shown.contains("m-1"), "{shown}");
        publisher.leave_to_another();
        let shown = metrics.encode();
        assert!(!shown.contains("m-2") && !shown.contains("quota_alerts_active{"), "{shown}");
    }

    #[test]
    fn a_merchants_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new();
        Publisher::new(metrics.part()).set_usage(vec![usage(r#"m"\,x="1"#, 0.5)], 0);
        let shown = metrics.encode();
        assert!(shown.contains(r#"merchant_id="m\"\\,x=\"1""#), "{shown}");
    }
}
