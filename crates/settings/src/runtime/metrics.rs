//! Metrics of changes of settings.

use sluice_kit::metrics::signed;
use strum::IntoStaticStr;

/// Why settings that may change could not be read. Its word is a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub(super) enum SettingsFailure {
    /// The service or the database gave no answer.
    Away,
    /// The answer is not valid.
    Refused,
}

sluice_kit::metrics! {
    /// Metrics of changes of settings.
    pub struct SettingsMetrics {
        changes: Counter = "sluice_settings_changes", "Settings that got another value";
        failures: Counter["kind"] = "sluice_settings_failures", "Readings that failed or were refused";
        current: Gauge = "sluice_settings_current", "Whether the last reading is in force";
        version: Gauge = "sluice_settings_version", "Number of the change in force";
    }
}

impl SettingsMetrics {
    /// Settings were read and applied; so many have a new value.
    pub fn read(&self, changes: u64, version: u64) {
        self.changes.inc_by(changes);
        self.version.set(signed(version));
        self.current.set(1);
    }

    /// Settings could not be read, or are not valid; the last good ones stay.
    pub(super) fn failed(&self, failure: SettingsFailure) {
        self.failures.of([failure.into_str()]).inc();
        self.current.set(0);
    }
}
