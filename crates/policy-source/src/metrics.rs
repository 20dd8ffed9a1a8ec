//! The policy sources' metrics at `/metrics`.

use strum::{IntoStaticStr, VariantNames};

/// Where policies come from. Its word is a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum Source {
    File,
    Postgres,
    Service,
}

/// The fallbacks for an answer of the policy service, the nearest to it first. Their words are values of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantNames)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum Step {
    /// The account's last answer that could be used.
    LastKnown,
    /// The policies of Postgres and the file.
    Configured,
    /// The limits where no policy is available.
    Defaults,
}

sluice_kit::metrics! {
    /// The policy sources' metrics.
    pub struct PolicyMetrics {
        enforcement_active: Gauge = "sluice_enforcement_active", "1 while limits are in force";
        document: Gauge["version"] = "sluice_policy_document", "The policy document in force";
        source_up: Gauge["source"] = "sluice_policy_source_up", "1 while the last read of the source is in force";
        reads: Counter["source", "usable"] = "sluice_policy_reads",
            "Reads of policies by source and whether they could be used";
        step_downs: Counter["to"] = "sluice_policy_step_downs",
            "Decisions that used a fallback for the policy service's current answer",
            Step::VARIANTS.iter().map(|step| [*step]);
        pub(super) accounts: Gauge = "sluice_policy_service_accounts",
            "Accounts whose answer of the policy service is cached";
    }
}

impl PolicyMetrics {
    /// Whether limits are in force, and from which version of the policy document.
    pub(super) fn set_document(&self, version: Option<&str>) {
        self.enforcement_active.set(i64::from(version.is_some()));
        // One series at a time: otherwise an old version would stay for ever.
        self.document.clear();
        if let Some(version) = version {
            self.document.of([version.to_owned()]).set(1);
        }
    }

    /// A source was read.
    pub fn read(&self, source: Source, usable: bool) {
        self.source_up.of([source.into_str()]).set(i64::from(usable));
        self.reads.of([source.into_str(), if usable { "true" } else { "false" }]).inc();
    }

    /// A decision used a fallback for the policy service's current answer.
    pub fn stepped_down(&self, step: Step) {
        self.step_downs.of([step.into_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_kit::metrics::Metrics;

    #[test]
    fn one_document_is_in_force_at_a_time() {
        let metrics = Metrics::new();
        metrics.part::<PolicyMetrics>().set_document(Some("1"));
        metrics.part::<PolicyMetrics>().set_document(Some("2"));
        let text = metrics.encode();
        assert!(text.contains("sluice_policy_document{version=\"2\"} 1") && !text.contains("version=\"1\""), "{text}");
        assert!(text.contains("sluice_enforcement_active 1"), "{text}");
        metrics.part::<PolicyMetrics>().set_document(None);
        assert!(metrics.encode().contains("sluice_enforcement_active 0"));
    }
}
