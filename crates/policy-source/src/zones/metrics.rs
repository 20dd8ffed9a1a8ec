//! Metrics of the time zone data in use.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::ZoneData;
use sluice_kit::metrics::Part;

/// The metrics. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ZoneMetrics {
    data: Family<[(&'static str, String); 2], Gauge>,
    outdated: Gauge,
    fallbacks: Gauge,
}

impl Part for ZoneMetrics {
    fn register(&self, r: &mut Registry) {
        r.register("sluice_zone_data", "The time zone data in use, by origin and release", self.data.clone());
        r.register(
            "sluice_zone_data_outdated",
            "1 while the system's time zone data is older than the compiled-in",
            self.outdated.clone(),
        );
        r.register(
            "sluice_zone_fallbacks",
            "Time zones in use whose data is missing or unusable in the database in use",
            self.fallbacks.clone(),
        );
    }
}

impl ZoneMetrics {
    /// What is in use now.
    pub fn set(&self, data: &ZoneData) {
        // One series at a time: an old release would else stay for ever.
        self.data.clear();
        let labels = [("origin", data.origin.to_owned()), ("version", data.version.clone())];
        self.data.get_or_create(&labels).set(1);
        self.outdated.set(i64::from(data.is_system_outdated));
        self.fallbacks.set(i64::try_from(data.fallbacks).unwrap_or(i64::MAX));
    }
}
