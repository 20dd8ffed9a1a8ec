//! Metrics of accounts, alerts and streams at `/metrics`. Accounts are bounded in number, types of alerts by the policies'
//! thresholds; no request can add labels.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use sluice_kit::metrics::Part;

type Account = [(&'static str, String); 2];

/// The metrics.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    usage_rate: Family<Account, Gauge<f64, AtomicU64>>,
    shown: Mutex<HashSet<Account>>,
    left_out: Gauge,
    alerts_active: Family<[(&'static str, &'static str); 1], Gauge>,
    /// Open streams.
    pub streams: Gauge,
    /// Events sent in streams.
    pub stream_events: Counter,
}

/// An account's usage.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountUsage {
    pub merchant_id: String,
    pub currency: String,
    /// The highest used part of a limit: 1 is all of it.
    pub rate: f64,
}

impl Part for StreamMetrics {
    fn register(&self, r: &mut Registry) {
        r.register(
            "quota_usage_rate",
            "Highest used part of a limit, 1 being all of it; of the accounts nearest to a limit, published by one server",
            self.usage_rate.clone(),
        );
        let left_out = self.left_out.clone();
        r.register(
            "quota_usage_rate_left_out_accounts",
            "Accounts with usage or unknown limits that quota_usage_rate leaves out",
            left_out,
        );
        r.register("quota_alerts_active", "Open alerts, published by one server", self.alerts_active.clone());
        r.register("sluice_streams", "Open live streams", self.streams.clone());
        r.register("sluice_stream_events", "Events sent in live streams", self.stream_events.clone());
    }
}

impl StreamMetrics {
    /// Sets the number of open alerts.
    pub fn set_alerts_active(&self, warning: i64, critical: i64) {
        self.alerts_active.get_or_create(&[("level", "warning")]).set(warning);
        self.alerts_active.get_or_create(&[("level", "critical")]).set(critical);
    }

    /// Sets the usage of these accounts, and how many others have any.
    pub fn set_usage(&self, accounts: &[AccountUsage], left_out: i64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let label = |account: &AccountUsage| {
            [("merchant_id", account.merchant_id.clone()), ("currency", account.currency.clone())]
        };
        let now: HashSet<Account> = accounts.iter().map(label).collect();
        for gone in shown.difference(&now) {
            self.usage_rate.remove(gone);
        }
        for account in accounts {
            self.usage_rate.get_or_create(&label(account)).set(account.rate);
        }
        *shown = now;
        self.left_out.set(left_out);
    }

    /// Another server publishes accounts and open alerts.
    pub fn leave_to_another(&self) {
        self.set_usage(&[], 0);
        self.alerts_active.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &StreamMetrics) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    fn usage(merchant_id: &str, rate: f64) -> AccountUsage {
        AccountUsage { merchant_id: merchant_id.to_owned(), currency: "USD".to_owned(), rate }
    }

    #[test]
    fn only_the_accounts_of_the_last_round_are_shown() {
        let metrics = StreamMetrics::default();
        metrics.set_usage(&[usage("m-1", 0.5), usage("m-2", 1.25)], 7);
        metrics.set_usage(&[usage("m-2", 0.75)], 8);
        metrics.set_alerts_active(3, 1);
        let shown = text(&metrics);
        assert!(shown.contains(r#"quota_usage_rate{merchant_id="m-2",currency="USD"} 0.75"#), "{shown}");
        assert!(shown.contains("quota_usage_rate_left_out_accounts 8"), "{shown}");
        assert!(shown.contains(r#"quota_alerts_active{level="critical"} 1"#), "{shown}");
        assert!(!shown.contains("m-1"), "{shown}");
        metrics.leave_to_another();
        let shown = text(&metrics);
        assert!(!shown.contains("m-2") && !shown.contains("quota_alerts_active{"), "{shown}");
    }

    #[test]
    fn a_merchants_name_cannot_break_out_of_its_label() {
        let metrics = StreamMetrics::default();
        metrics.set_usage(&[usage(r#"m"\,x="1"#, 0.5)], 0);
        let shown = text(&metrics);
        assert!(shown.contains(r#"merchant_id="m\"\\,x=\"1""#), "{shown}");
    }
}
