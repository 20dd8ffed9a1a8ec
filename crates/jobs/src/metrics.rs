//! The sweeps' metrics at `/metrics`.

use sluice_credit::NoticeKind;
use sluice_kit::metrics::signed;
use strum::IntoStaticStr;

/// What is swept. Its word is a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum Sweep {
    Holds,
    Windows,
    Thresholds,
    Credit,
    Transfers,
    Rights,
}

sluice_kit::metrics! {
    /// The sweeps' metrics.
    pub struct JobMetrics {
        holds_ended: Counter["how"] = "sluice_holds_expired", "Expired holds that this server ended";
        pub(super) accounts_closed: Counter = "sluice_windows_closed",
            "Accounts without traffic whose windows this server closed";
        pub(super) accounts_updated: Counter = "sluice_thresholds_swept",
            "Accounts that this server found across a threshold without a payment";
        pub(super) cycles_closed: Counter = "sluice_credit_cycles_closed",
            "Billing cycles of credit lines without traffic that this server closed";
        scorecard_runs: Counter["cause"] = "sluice_credit_scorecard_runs",
            "Runs of scorecards that this server made, at a cycle's close or a change of stage";
        grade_changes: Counter["direction"] = "sluice_credit_grade_changes",
            "Grades of credit lines that runs of this server changed";
        notices: Counter["kind"] = "sluice_credit_notices", "Notices of dunning that this server sent";
        pub(super) hold_lag_secs: Gauge = "sluice_hold_sweep_lag_seconds",
            "How late the oldest hold was at the last sweep";
        finished: FloatGauge["sweep"] = "sluice_sweep_finished_timestamp_seconds", "When a sweep last finished";
        errors: Counter["sweep"] = "sluice_sweep_errors", "Sweeps that failed";
        pub(super) rights: Gauge = "sluice_rights", "Rights that are not returned, as this server's last sweep found them";
        pub(super) rights_amount: Gauge["merchant", "currency"] = "sluice_rights_amount",
            "What rights have left of the accounts with the most of it, minor units, as this server's last sweep found it";
        pub(super) rights_orphaned: Gauge = "sluice_rights_orphaned",
            "Rights whose holder is lost, as this server's last sweep found them: what it has not reported stays consumed";
        accounts_ahead: Gauge = "sluice_accounts_ahead",
            "Accounts in a window that has not begun: a reset brings them back";
    }
}

impl JobMetrics {
    /// Counts an expired hold.
    pub(super) fn hold_ended(&self, settled: bool) {
        self.holds_ended.of([if settled { "settled" } else { "voided" }]).inc();
    }

    /// Counts a notice of dunning.
    pub(super) fn notice_sent(&self, kind: NoticeKind) {
        self.notices.of([kind.as_str()]).inc();
    }

    /// Counts a run of the scorecards.
    pub(super) fn scorecard_ran(&self, is_close: bool) {
        self.scorecard_runs.of([if is_close { "close" } else { "stage" }]).inc();
    }

    /// Counts a grade that a run changed.
    pub(super) fn grade_changed(&self, is_down: bool) {
        self.grade_changes.of([if is_down { "down" } else { "up" }]).inc();
    }

    /// Records that a sweep finished.
    pub(super) fn finished(&self, sweep: Sweep, now_ms: i64) {
        self.finished.of([sweep.into_str()]).set(now_ms as f64 / 1000.0);
    }

    /// Counts a failed sweep.
    pub(super) fn failed(&self, sweep: Sweep) {
        self.errors.of([sweep.into_str()]).inc();
    }

    /// Sets the number of accounts in windows that have not begun anywhere; returns whether it has changed.
    pub(super) fn set_accounts_ahead(&self, accounts: u64) -> bool {
        self.accounts_ahead.set(signed(accounts)) != signed(accounts)
    }
}
