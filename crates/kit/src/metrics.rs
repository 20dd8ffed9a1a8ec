//! Every metric that the server exposes at `/metrics`, behind typed methods. Labels take their values from our own enums only,
//! so that no request can create a series.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use quota::Code;

/// The label that only series of single merchants have.
const MERCHANT_LABEL: &str = "merchant_id=\"";
/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Check latency buckets: 0.25 ms, doubling, 12 of them, up to half a second.
const LATENCY_FIRST_SECS: f64 = 0.000_25;
const LATENCY_FACTOR: f64 = 2.0;
const LATENCY_BUCKETS: u16 = 12;

/// What went wrong with a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
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
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Reply => "reply",
            Self::Clock => "clock",
        }
    }
}

/// A dependency whose state is a gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependency {
    Redis,
    Postgres,
}

impl Dependency {
    /// The label's value, and the name in `/ready`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

/// Why settings that may change could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettingsFailure {
    /// The service or the database gave no answer.
    Away,
    /// The answer is not valid.
    Refused,
}

impl SettingsFailure {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Refused => "refused",
        }
    }
}

type Label = (&'static str, &'static str);
type FloatGauge = Gauge<f64, AtomicU64>;

/// Metrics that a part of the server owns.
pub trait Part: Default + Send + Sync + 'static {
    /// Adds them to what is exposed.
    fn register(&self, registry: &mut Registry);
}

/// What the server exposes, and the metrics that several of its parts share.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    operations: Family<[Label; 2], Counter>,
    replays: Counter,
    over_captures: Counter,
    check_seconds: Histogram,
    store_errors: Family<[Label; 1], Counter>,
    journal_rows: Counter,
    journal_batches: Counter,
    journal_duplicates: Counter,
    journal_rejected: Counter,
    journal_taken_over: Counter,
    journal_retries: Family<[Label; 1], Counter>,
    journal_backlog: Gauge,
    journal_backlog_shard_max: Gauge,
    journal_backlog_shard_bound: Gauge,
    journal_lag_seconds: FloatGauge,
    journal_missing: Gauge,
    journal_rewound: Gauge,
    journal_lost_accounts: Gauge,
    journal_accounts_lost: Counter,
    redis_up: Gauge,
    postgres_up: Gauge,
    clock_offset_seconds: FloatGauge,
    accounts_ahead: Gauge,
    enforcement_active: Gauge,
    policy_info: Family<[(&'static str, String); 1], Gauge>,
    log_lines_dropped: Counter,
    settings_changes: Counter,
    settings_failures: Family<[Label; 1], Counter>,
    settings_current: Gauge,
    settings_version: Gauge,
    /// What parts of the server have registered, by their types.
    parts: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero; enforcement is inactive and every dependency down until reported otherwise.
    #[must_use]
    pub fn new() -> Self {
        let buckets = exponential_buckets(LATENCY_FIRST_SECS, LATENCY_FACTOR, LATENCY_BUCKETS);
        let mut metrics = Self {
            registry: Mutex::default(),
            operations: Family::default(),
            replays: Counter::default(),
            over_captures: Counter::default(),
            check_seconds: Histogram::new(buckets),
            store_errors: Family::default(),
            journal_rows: Counter::default(),
            journal_batches: Counter::default(),
            journal_duplicates: Counter::default(),
            journal_rejected: Counter::default(),
            journal_taken_over: Counter::default(),
            journal_retries: Family::default(),
            journal_backlog: Gauge::default(),
            journal_backlog_shard_max: Gauge::default(),
            journal_backlog_shard_bound: Gauge::default(),
            journal_lag_seconds: FloatGauge::default(),
            journal_missing: Gauge::default(),
            journal_rewound: Gauge::default(),
            journal_lost_accounts: Gauge::default(),
            journal_accounts_lost: Counter::default(),
            redis_up: Gauge::default(),
            postgres_up: Gauge::default(),
            clock_offset_seconds: FloatGauge::default(),
            accounts_ahead: Gauge::default(),
            enforcement_active: Gauge::default(),
            policy_info: Family::default(),
            log_lines_dropped: Counter::default(),
            settings_changes: Counter::default(),
            settings_failures: Family::default(),
            settings_current: Gauge::default(),
            settings_version: Gauge::default(),
            parts: Mutex::default(),
        };
        let mut registry = Registry::default();
        metrics.register_decisions(&mut registry);
        metrics.register_journal(&mut registry);
        metrics.register_state(&mut registry);
        metrics.register_settings(&mut registry);
        crate::process::register(&mut registry);
        metrics.registry = Mutex::new(registry);
        metrics
    }

    /// The metrics of one part of the server: registered at their first use, and the same ones from then on.
    pub fn part<T: Part>(&self) -> Arc<T> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = parts.get(&TypeId::of::<T>()).and_then(|part| Arc::clone(part).downcast().ok());
        known.unwrap_or_else(|| {
            let part = Arc::new(T::default());
            part.register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
            parts.insert(TypeId::of::<T>(), Arc::<T>::clone(&part));
            part
        })
    }

    /// One decision was answered with `code`. `action` is a word of [`quota::Action::as_str`], or `check` for a dry run.
    pub fn decision(&self, action: &'static str, code: Code, replay: bool) {
        self.operations.get_or_create(&[("action", action), ("code", code.as_str())]).inc();
        if replay {
            self.replays.inc();
        }
    }

    /// Counts captures of an order beyond its hold.
    pub fn over_capture(&self) {
        self.over_captures.inc();
    }

    /// One check took this long, its store call included.
    pub fn check_took(&self, duration: Duration) {
        self.check_seconds.observe(duration.as_secs_f64());
    }

    /// One store call failed.
    pub fn store_error(&self, failure: Failure) {
        self.store_errors.get_or_create(&[("kind", failure.as_str())]).inc();
    }

    /// One transaction brought `stored` new rows to Postgres; `duplicates` were there already and `rejected` were set
    /// aside.
    pub fn journal_stored(&self, stored: u64, duplicates: u64, rejected: u64) {
        self.journal_batches.inc();
        self.journal_rows.inc_by(stored);
        self.journal_duplicates.inc_by(duplicates);
        self.journal_rejected.inc_by(rejected);
    }

    /// This server's journal became the one that reads.
    pub fn journal_taken_over(&self) {
        self.journal_taken_over.inc();
    }

    /// The journal could not reach a dependency and tries again.
    pub fn journal_retry(&self, dependency: Dependency) {
        self.journal_retries.get_or_create(&[("dependency", dependency.as_str())]).inc();
    }

    /// Events that are in Redis and not yet known to be in Postgres: of all shards, and of the shard that has most,
    /// because the bound, `shard_bound_events`, is one of each shard.
    pub fn set_journal_backlog(&self, events: u64, shard_max_events: u64, shard_bound_events: u64) {
        self.journal_backlog.set(signed(events));
        self.journal_backlog_shard_max.set(signed(shard_max_events));
        self.journal_backlog_shard_bound.set(signed(shard_bound_events));
    }

    /// Age of the oldest event of the batch at hand.
    pub fn set_journal_lag(&self, lag: Duration) {
        self.journal_lag_seconds.set(lag.as_secs_f64());
    }

    /// Missing sequence numbers, ranges that were used twice with different events, and accounts that Redis lost.
    pub fn set_journal_anomalies(&self, missing_events: u64, rewound_ranges: u64, lost_accounts: u64) {
        self.journal_missing.set(signed(missing_events));
        self.journal_rewound.set(signed(rewound_ranges));
        self.journal_lost_accounts.set(signed(lost_accounts));
    }

    /// An account was found lost.
    pub fn journal_account_lost(&self) {
        self.journal_accounts_lost.inc();
    }

    /// Whether the dependency answered its last call.
    pub fn set_up(&self, dependency: Dependency, up: bool) {
        let gauge = match dependency {
            Dependency::Redis => &self.redis_up,
            Dependency::Postgres => &self.postgres_up,
        };
        gauge.set(i64::from(up));
    }

    /// How far this server's clock is ahead of Redis'.
    pub fn set_clock_offset_ms(&self, ahead_ms: i64) {
        let secs = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
        self.clock_offset_seconds.set(if ahead_ms < 0 { -secs } else { secs });
    }

    /// Accounts in windows that have not begun anywhere; returns whether the number has changed.
    pub fn set_accounts_ahead(&self, accounts: u64) -> bool {
        self.accounts_ahead.set(signed(accounts)) != signed(accounts)
    }

    /// Whether limits are in force, and from which version of the policy document.
    pub fn set_policy(&self, version: Option<&str>) {
        self.enforcement_active.set(i64::from(version.is_some()));
        // One series at a time: otherwise an old version would stay for ever.
        self.policy_info.clear();
        if let Some(version) = version {
            self.policy_info.get_or_create(&[("version", version.to_owned())]).set(1);
        }
    }

    /// A log line did not fit into the queue.
    pub fn log_line_dropped(&self) {
        self.log_lines_dropped.inc();
    }

    /// Settings were read and applied; so many have a new value.
    pub fn settings_read(&self, changes: u64, version: u64) {
        self.settings_changes.inc_by(changes);
        self.settings_version.set(signed(version));
        self.settings_current.set(1);
    }

    /// Settings could not be read, or are not valid; the last good ones stay.
    pub fn settings_failed(&self, failure: SettingsFailure) {
        self.settings_failures.get_or_create(&[("kind", failure.as_str())]).inc();
        self.settings_current.set(0);
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner)) {
            Ok(()) => text,
            // Writing to a string fails only where a metric cannot be encoded; the scrape then has a comment without metrics.
            Err(std::fmt::Error) => "# EOF\n".to_owned(),
        }
    }

    fn register_decisions(&self, r: &mut Registry) {
        r.register("quota_operations", "Decisions by action and code", self.operations.clone());
        r.register("quota_replays", "Decisions that repeated an earlier answer", self.replays.clone());
        r.register("sluice_over_captures", "Captures beyond their hold", self.over_captures.clone());
        r.register("sluice_check_seconds", "Time of one check in seconds", self.check_seconds.clone());
        r.register("sluice_store_errors", "Store calls that failed", self.store_errors.clone());
        // Series exist from the start: a rate misses the first increment of a new series.
        for failure in [Failure::Timeout, Failure::Connection, Failure::Reply, Failure::Clock] {
            drop(self.store_errors.get_or_create(&[("kind", failure.as_str())]));
        }
    }

    fn register_settings(&self, r: &mut Registry) {
        r.register("sluice_settings_changes", "Settings that got another value", self.settings_changes.clone());
        r.register("sluice_settings_failures", "Readings that failed or were refused", self.settings_failures.clone());
        r.register("sluice_settings_current", "Whether the last reading is in force", self.settings_current.clone());
        r.register("sluice_settings_version", "Number of the change in force", self.settings_version.clone());
    }

    fn register_journal(&self, r: &mut Registry) {
        r.register("sluice_journal_rows_stored", "Events stored in Postgres", self.journal_rows.clone());
        r.register("sluice_journal_batches", "Transactions that stored events", self.journal_batches.clone());
        r.register("sluice_journal_duplicates", "Events that were stored already", self.journal_duplicates.clone());
        r.register("sluice_journal_rejected", "Events set aside as unreadable", self.journal_rejected.clone());
        r.register(
            "sluice_journal_taken_over",
            "Times that this server began to read the streams",
            self.journal_taken_over.clone(),
        );
        r.register("sluice_journal_retries", "Failed attempts of the journal", self.journal_retries.clone());
        r.register(
            "sluice_journal_backlog_events",
            "Events in Redis: they and their accounts are not known to be in Postgres",
            self.journal_backlog.clone(),
        );
        let shard_max = self.journal_backlog_shard_max.clone();
        r.register("sluice_journal_backlog_shard_max_events", "Events of the shard with most of them", shard_max);
        r.register(
            "sluice_journal_backlog_shard_bound_events",
            "Events of a shard at which its charges are refused (SLUICE_BACKLOG_EVENTS_MAX)",
            self.journal_backlog_shard_bound.clone(),
        );
        r.register("sluice_journal_lag_seconds", "Age of the oldest event at hand", self.journal_lag_seconds.clone());
        r.register("sluice_journal_missing_events", "Sequence numbers that are missing", self.journal_missing.clone());
        let lost = self.journal_lost_accounts.clone();
        r.register("sluice_journal_lost_accounts", "Accounts that Redis lost, not resolved", lost);
        let lost = self.journal_accounts_lost.clone();
        r.register("sluice_journal_accounts_lost", "Accounts that stored events showed to be lost by Redis", lost);
        r.register(
            "sluice_journal_rewound_ranges",
            "Sequence ranges that were used twice",
            self.journal_rewound.clone(),
        );
    }

    fn register_state(&self, r: &mut Registry) {
        r.register("sluice_redis_up", "1 while Redis answers", self.redis_up.clone());
        r.register("sluice_postgres_up", "1 while Postgres answers", self.postgres_up.clone());
        r.register(
            "sluice_clock_offset_seconds",
            "This server's clock minus Redis' clock; beyond SLUICE_CLOCK_SKEW_MS_MAX the server decides nothing",
            self.clock_offset_seconds.clone(),
        );
        r.register(
            "sluice_accounts_ahead",
            "Accounts in a window that has not begun: a reset brings them back",
            self.accounts_ahead.clone(),
        );
        r.register("sluice_enforcement_active", "1 while limits are in force", self.enforcement_active.clone());
        r.register("sluice_policy_document", "The policy document in force", self.policy_info.clone());
        r.register("sluice_log_lines_dropped", "Log lines lost to a full queue", self.log_lines_dropped.clone());
    }
}

/// Metrics without the series of single merchants: a merchant's volume is not for every reader.
#[must_use]
pub fn without_merchants(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| line.starts_with('#') || !line.contains(MERCHANT_LABEL)).collect()
}

/// Gauges are signed; a count beyond their range is shown as the largest value.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_exposed_under_their_names() {
        let metrics = Metrics::new();
        metrics.decision("consume", Code::DailyAmount, false);
        metrics.decision("consume", Code::Admitted, true);
        metrics.store_error(Failure::Timeout);
        metrics.journal_stored(5, 2, 1);
        metrics.set_up(Dependency::Redis, true);
        metrics.set_policy(Some("1"));
        metrics.set_policy(Some("2"));
        metrics.check_took(Duration::from_millis(1));
        let text = metrics.encode();
        for line in [
            "quota_operations_total{action=\"consume\",code=\"DAILY_AMOUNT\"} 1",
            "quota_replays_total 1",
            "sluice_store_errors_total{kind=\"timeout\"} 1",
            "sluice_journal_rows_stored_total 5",
            "sluice_journal_duplicates_total 2",
            "sluice_journal_rejected_total 1",
            "sluice_redis_up 1",
            "sluice_postgres_up 0",
            "sluice_enforcement_active 1",
            "sluice_policy_document{version=\"2\"} 1",
            "sluice_check_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("version=\"1\""));
    }

    #[test]
    fn x10_series_of_single_merchants_can_be_left_out() {
        let text = "# HELP quota_usage_rate merchant_id=\"x\"\nquota_usage_rate{merchant_id=\"m\",currency=\"USD\"} 0.5\n\
            quota_usage_rate_left_out_accounts 1\n# EOF\n";
        let open = "# HELP quota_usage_rate merchant_id=\"x\"\nquota_usage_rate_left_out_accounts 1\n# EOF\n";
        assert_eq!(without_merchants(text), open);
    }
}
