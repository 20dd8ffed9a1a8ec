//! Metrics of decisions at `/metrics`.

use quota::Code;
use sluice_store::StoreError;
use strum::{IntoStaticStr, VariantNames};

/// Why there was no decision. Its word is a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(const_into_str, serialize_all = "snake_case")]
enum Failure {
    /// No answer within the deadline.
    Timeout,
    /// The connection could not be made, or broke.
    Connection,
    /// An answer that is an error, or cannot be understood.
    Reply,
    /// Not called, or not decided: this server's clock is not the store's.
    Clock,
}

impl Failure {
    const fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Timeout { .. } => Self::Timeout,
            StoreError::Unavailable(_) => Self::Connection,
            StoreError::Clock(_) | StoreError::NotBegun => Self::Clock,
            StoreError::Shards { .. } | StoreError::Corrupt(_) | StoreError::History(_) | StoreError::NeedsHistory => {
                Self::Reply
            }
        }
    }
}

/// Buckets of checks: 0.25 ms, doubling, 12 of them, up to half a second.
const FIRST_SECS: f64 = 0.000_25;
const BUCKETS: u16 = 12;

sluice_kit::metrics! {
    /// Metrics of decisions.
    pub struct DecisionMetrics {
        operations: Counter["action", "code"] = "quota_operations", "Decisions by action and code";
        replays: Counter = "quota_replays", "Decisions that repeated an earlier answer";
        pub(super) over_captures: Counter = "sluice_over_captures", "Captures beyond their hold";
        pub(super) late_conflicts: Counter = "sluice_late_conflicts",
            "Payments admitted from rights that their order did not accept when they were reported";
        pub(super) check_seconds: Histogram(FIRST_SECS, BUCKETS) = "sluice_check_seconds",
            "Time of one check in seconds";
        store_errors: Counter["kind"] = "sluice_store_errors", "Store calls that failed",
            Failure::VARIANTS.iter().map(|kind| [*kind]);
    }
}

impl DecisionMetrics {
    /// One decision was answered with `code`. `action` is a word of [`quota::Action::as_str`], or `check` for a dry run.
    pub fn decision(&self, action: &'static str, code: Code, replay: bool) {
        self.operations.of([action, code.as_str()]).inc();
        if replay {
            self.replays.inc();
        }
    }

    /// One store call failed.
    pub(super) fn store_error(&self, error: &StoreError) {
        self.store_errors.of([Failure::of(error).into_str()]).inc();
    }
}
