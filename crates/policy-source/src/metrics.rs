//! The policy sources' metrics at `/metrics`. Labels take their values from our own enums only.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use sluice_kit::metrics::Part;

/// Where policies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    File,
    Postgres,
    Service,
}

impl Source {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Postgres => "postgres",
            Self::Service => "service",
        }
    }
}

/// The fallbacks for an answer of the policy service, the nearest to it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The account's last answer that could be used.
    LastKnown,
    /// The policies of Postgres and the file.
    Configured,
    /// The limits where no policy is available.
    Defaults,
}

impl Step {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastKnown => "last_known",
            Self::Configured => "configured",
            Self::Defaults => "defaults",
        }
    }
}

type Label = (&'static str, &'static str);

/// The metrics. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct PolicyMetrics {
    source_up: Family<[Label; 1], Gauge>,
    reads: Family<[Label; 2], Counter>,
    step_downs: Family<[Label; 1], Counter>,
    accounts: Gauge,
}

impl Part for PolicyMetrics {
    fn register(&self, r: &mut Registry) {
        r.register(
            "sluice_policy_source_up",
            "1 while the last read of the source is in force",
            self.source_up.clone(),
        );
        r.register(
            "sluice_policy_reads",
            "Reads of policies by source and whether they could be used",
            self.reads.clone(),
        );
        r.register(
            "sluice_policy_step_downs",
            "Decisions that used a fallback for the policy service's current answer",
            self.step_downs.clone(),
        );
        // The series exist from the start: a rate misses the first increment of a new series.
        for step in [Step::LastKnown, Step::Configured, Step::Defaults] {
            drop(self.step_downs.get_or_create(&[("to", step.as_str())]));
        }
        r.register(
            "sluice_policy_service_accounts",
            "Accounts whose answer of the policy service is cached",
            self.accounts.clone(),
        );
    }
}

impl PolicyMetrics {
    /// A source was read.
    pub fn read(&self, source: Source, usable: bool) {
        let source = ("source", source.as_str());
        self.source_up.get_or_create(&[source]).set(i64::from(usable));
        self.reads.get_or_create(&[source, ("usable", if usable { "true" } else { "false" })]).inc();
    }

    /// A decision used a fallback for the policy service's current answer.
    pub fn stepped_down(&self, step: Step) {
        self.step_downs.get_or_create(&[("to", step.as_str())]).inc();
    }

    /// Sets the number of accounts whose answers are cached.
    pub fn set_accounts(&self, accounts: usize) {
        self.accounts.set(i64::try_from(accounts).unwrap_or(i64::MAX));
    }
}
