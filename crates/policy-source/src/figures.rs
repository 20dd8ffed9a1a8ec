//! The policy sources' figures at `/metrics`. Labels take their values from our own enums only.

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

/// What takes the place of an answer of the policy service, the nearest to it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The account's last answer that could be used.
    LastKnown,
    /// The policies of Postgres and the file.
    Configured,
    /// The limits for when no policy can be had.
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

/// The figures. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    source_up: Family<[Label; 1], Gauge>,
    reads: Family<[Label; 2], Counter>,
    step_downs: Family<[Label; 1], Counter>,
    accounts: Gauge,
}

impl Part for Figures {
    fn register(&self, r: &mut Registry) {
        r.register(
            "sluice_policy_source_up",
            "1 while the last reading of the source is in force",
            self.source_up.clone(),
        );
        r.register(
            "sluice_policy_reads",
            "Readings of policies by source and whether they could be used",
            self.reads.clone(),
        );
        r.register(
            "sluice_policy_step_downs",
            "Decisions that took something else than the policy service's present answer",
            self.step_downs.clone(),
        );
        // Series that are there from the start: a rate sees no first increment of one that was not.
        for step in [Step::LastKnown, Step::Configured, Step::Defaults] {
            drop(self.step_downs.get_or_create(&[("to", step.as_str())]));
        }
        r.register(
            "sluice_policy_service_accounts",
            "Accounts whose answer of the policy service is kept",
            self.accounts.clone(),
        );
    }
}

impl Figures {
    /// A source was read.
    pub fn read(&self, source: Source, usable: bool) {
        let source = ("source", source.as_str());
        self.source_up.get_or_create(&[source]).set(i64::from(usable));
        self.reads.get_or_create(&[source, ("usable", if usable { "true" } else { "false" })]).inc();
    }

    /// A decision took something else than the policy service's present answer.
    pub fn stepped_down(&self, step: Step) {
        self.step_downs.get_or_create(&[("to", step.as_str())]).inc();
    }

    /// So many accounts' answers are kept.
    pub fn set_accounts(&self, accounts: usize) {
        self.accounts.set(i64::try_from(accounts).unwrap_or(i64::MAX));
    }
}
