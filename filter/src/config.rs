//! The plugin configuration: the rules document of [`sluice_rules`], with the cluster that serves decisions.

use std::sync::Arc;

use prost::Message;
use quota::Mode;
use sluice_rules::{Document, RuleSet, Unmatched};

use crate::trust::Holder;

/// Largest plugin configuration that is read, in bytes.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;

/// A valid plugin configuration.
#[derive(Debug)]
pub struct Plugin {
    /// What serves decisions: Envoy's name of a cluster, or in the native host the URLs of the servers.
    pub cluster: Arc<str>,
    /// Most checks in one call.
    pub batch_max: usize,
    pub unmatched: Unmatched,
    pub rules: RuleSet,
    /// The rights that payments may be admitted from; `None` where the host has none.
    pub holder: Option<Arc<Holder>>,
}

// The document and the contract have the same limit.
const _: () = assert!(sluice_rules::BATCH_MAX == proto::batch::CHECKS_MAX);

/// Any protobuf message. Where a call names its cluster, Envoy first tries to read an encoded service description: such a name
/// would get another meaning.
#[derive(prost::Message)]
struct Anything {}

impl Plugin {
    /// Reads the JSON of `configuration`.
    ///
    /// # Errors
    /// One sentence that names the field and what to do.
    pub fn parse(configuration: &[u8]) -> Result<Self, String> {
        let mut document = document(configuration)?;
        let cluster = document.cluster.take().ok_or("cluster: must name the cluster that serves decisions")?;
        if Anything::decode(cluster.as_bytes()).is_ok() {
            return Err(format!("cluster: Envoy would read {cluster:?} as a protobuf message: choose another name"));
        }
        Ok(Self::new(cluster.into(), document))
    }

    /// What a document says, for a host that names its servers itself.
    #[must_use]
    pub fn new(cluster: Arc<str>, document: Document) -> Self {
        Self {
            cluster,
            batch_max: document.batch_max,
            unmatched: document.unmatched,
            rules: document.rules,
            holder: None,
        }
    }

    /// How many rules enforce unless their route sets another mode.
    #[must_use]
    pub fn enforcing(&self) -> u64 {
        let enforcing = self.rules.rules().iter().filter(|rule| rule.mode == Mode::Enforce);
        u64::try_from(enforcing.count()).unwrap_or(u64::MAX)
    }
}

/// Reads the JSON of a plugin configuration.
///
/// # Errors
/// One sentence that names the field and what to do.
pub fn document(configuration: &[u8]) -> Result<Document, String> {
    if configuration.is_empty() {
        return Err("the plugin has no configuration: nothing would be enforced".to_owned());
    }
    Document::from_json(configuration).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"{"name": "p", "match": {"methods": ["POST"], "path": "/p"}, "unit": "minor", "extract":
        {"merchant": [{"header": "m"}], "amount": [{"header": "a"}], "currency": [{"header": "c"}], "order_no": [{"header": "o"}]}"#;

    #[test]
    fn a_configuration_needs_a_cluster_and_rules() {
        let table = [
            (format!(r#"{{"cluster": "c", "rules": [{RULE}}}]}}"#), Ok(1)),
            (format!(r#"{{"cluster": "c", "rules": [{RULE}, "mode": "shadow"}}]}}"#), Ok(0)),
            (format!(r#"{{"rules": [{RULE}}}]}}"#), Err("cluster")),
            (format!(r#"{{"cluster": "", "rules": [{RULE}}}]}}"#), Err("cluster")),
            (format!(r#"{{"cluster": "pa", "rules": [{RULE}}}]}}"#), Err("cluster: Envoy would read")),
            (r#"{"cluster": "c", "rules": []}"#.to_owned(), Err("rules")),
            (String::new(), Err("no configuration")),
            ("{".to_owned(), Err("EOF")),
        ];
        for (text, expected) in table {
            match (Plugin::parse(text.as_bytes()), expected) {
                (Ok(plugin), Ok(enforcing)) => assert_eq!(plugin.enforcing(), enforcing, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
            }
        }
    }
}
