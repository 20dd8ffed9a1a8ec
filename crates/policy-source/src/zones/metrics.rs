//! Metrics of the time zone data in use.

use super::ZoneData;
use sluice_kit::metrics::signed;

sluice_kit::metrics! {
    /// Metrics of the time zone data in use.
    pub struct ZoneMetrics {
        data: Gauge["origin", "version"] = "sluice_zone_data", "The time zone data in use, by origin and release";
        outdated: Gauge = "sluice_zone_data_outdated",
            "1 while the system's time zone data is older than the compiled-in";
        fallbacks: Gauge = "sluice_zone_fallbacks",
            "Time zones in use whose data is missing or unusable in the database in use";
    }
}

impl ZoneMetrics {
    /// What is in use now.
    pub fn set(&self, data: &ZoneData) {
        // One series at a time: an old release would else stay for ever.
        self.data.clear();
        self.data.of([data.origin.to_owned(), data.version.clone()]).set(1);
        self.outdated.set(i64::from(data.is_system_outdated));
        self.fallbacks.set(signed(data.fallbacks));
    }
}
