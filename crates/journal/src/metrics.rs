//! The journal's metrics at `/metrics`.

use std::time::Duration;

use sluice_kit::health::Dependency;
use sluice_kit::metrics::signed;

use super::backlog::Backlog;
use super::postgres::{Anomalies, Stored};

sluice_kit::metrics! {
    /// The journal's metrics.
    pub struct JournalMetrics {
        rows: Counter = "sluice_journal_rows_stored", "Events stored in Postgres";
        batches: Counter = "sluice_journal_batches", "Transactions that stored events";
        duplicates: Counter = "sluice_journal_duplicates", "Events that were stored already";
        rejected: Counter = "sluice_journal_rejected", "Events set aside as unreadable";
        pub(super) taken_over: Counter = "sluice_journal_taken_over",
            "Times that this server began to read the streams";
        retries: Counter["dependency"] = "sluice_journal_retries", "Failed attempts of the journal";
        backlog: Gauge = "sluice_journal_backlog_events",
            "Events in Redis: they and their accounts are not known to be in Postgres";
        backlog_shard_max: Gauge = "sluice_journal_backlog_shard_max_events", "Events of the shard with most of them";
        backlog_shard_bound: Gauge = "sluice_journal_backlog_shard_bound_events",
            "Events of a shard at which its charges are refused (SLUICE_BACKLOG_EVENTS_MAX)";
        lag_seconds: FloatGauge = "sluice_journal_lag_seconds", "Age of the oldest event at hand";
        missing: Gauge = "sluice_journal_missing_events", "Sequence numbers that are missing";
        lost_accounts: Gauge = "sluice_journal_lost_accounts", "Accounts that Redis lost, not resolved";
        pub(super) accounts_lost: Counter = "sluice_journal_accounts_lost",
            "Accounts that stored events showed to be lost by Redis";
        rewound: Gauge = "sluice_journal_rewound_ranges", "Sequence ranges that were used twice";
    }
}

impl JournalMetrics {
    /// One transaction was committed.
    pub(super) fn stored(&self, stored: Stored) {
        self.batches.inc();
        self.rows.inc_by(stored.rows);
        self.duplicates.inc_by(stored.duplicates);
        self.rejected.inc_by(stored.rejected);
    }

    /// The journal could not reach a dependency and tries again.
    pub(super) fn retry(&self, dependency: Dependency) {
        self.retries.of([dependency.into_str()]).inc();
    }

    /// Sets the waiting events of all shards, and of the one that has most: the bound is one of each shard.
    pub(super) fn set_backlog(&self, backlog: &Backlog, shard_bound_events: u64) {
        self.backlog.set(signed(backlog.events));
        self.backlog_shard_max.set(signed(backlog.fullest_events));
        self.backlog_shard_bound.set(signed(shard_bound_events));
    }

    /// Sets the age of the oldest event of the batch at hand.
    pub(super) fn set_lag(&self, lag: Duration) {
        self.lag_seconds.set(lag.as_secs_f64());
    }

    /// Sets what the last check of the sequences found.
    pub(super) fn set_anomalies(&self, anomalies: &Anomalies) {
        self.missing.set(signed(anomalies.missing_events));
        self.rewound.set(signed(anomalies.rewound_ranges));
        self.lost_accounts.set(signed(anomalies.lost_accounts));
    }
}
