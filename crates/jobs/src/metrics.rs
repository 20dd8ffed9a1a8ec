//! The sweeps' metrics at `/metrics`. Labels take their values from our own enums only.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use sluice_kit::metrics::Part;

/// What is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sweep {
    Holds,
    Windows,
    Thresholds,
}

impl Sweep {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Windows => "windows",
            Self::Thresholds => "thresholds",
        }
    }
}

type Label = (&'static str, &'static str);

/// The metrics. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics {
    holds_ended: Family<[Label; 1], Counter>,
    accounts_closed: Counter,
    accounts_updated: Counter,
    hold_lag_secs: Gauge,
    finished: Family<[Label; 1], Gauge<f64, AtomicU64>>,
    errors: Family<[Label; 1], Counter>,
}

impl Part for JobMetrics {
    fn register(&self, r: &mut Registry) {
        r.register("sluice_holds_expired", "Expired holds that this server ended", self.holds_ended.clone());
        let accounts = self.accounts_closed.clone();
        r.register("sluice_windows_closed", "Accounts without traffic whose windows this server closed", accounts);
        let accounts = self.accounts_updated.clone();
        r.register(
            "sluice_thresholds_swept",
            "Accounts that this server found across a threshold without a payment",
            accounts,
        );
        let lag = self.hold_lag_secs.clone();
        r.register("sluice_hold_sweep_lag_seconds", "How late the oldest hold was at the last sweep", lag);
        let finished = self.finished.clone();
        r.register("sluice_sweep_finished_timestamp_seconds", "When a sweep last finished", finished);
        r.register("sluice_sweep_errors", "Sweeps that failed", self.errors.clone());
    }
}

impl JobMetrics {
    /// Counts an expired hold.
    pub(super) fn hold_ended(&self, settled: bool) {
        let how = if settled { "settled" } else { "voided" };
        self.holds_ended.get_or_create(&[("how", how)]).inc();
    }

    /// Counts accounts whose windows were closed.
    pub(super) fn accounts_closed(&self, accounts: u64) {
        self.accounts_closed.inc_by(accounts);
    }

    /// Counts accounts whose thresholds were updated to their limits.
    pub(super) fn accounts_updated(&self, accounts: u64) {
        self.accounts_updated.inc_by(accounts);
    }

    /// Sets how late the oldest hold was.
    pub(super) fn set_hold_lag(&self, secs: u64) {
        self.hold_lag_secs.set(i64::try_from(secs).unwrap_or(i64::MAX));
    }

    /// Records that a sweep finished.
    pub(super) fn finished(&self, sweep: Sweep, now_ms: i64) {
        self.finished.get_or_create(&[("sweep", sweep.as_str())]).set(now_ms as f64 / 1000.0);
    }

    /// Counts a failed sweep.
    pub(super) fn failed(&self, sweep: Sweep) {
        self.errors.get_or_create(&[("sweep", sweep.as_str())]).inc();
    }
}
