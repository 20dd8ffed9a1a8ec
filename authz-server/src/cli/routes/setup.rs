//! What the checks need to know of Envoy's configuration: the filters of the listeners, the rules, and the routes.

use serde_yaml_ng::Value;
use sluice_rules::Document;

use super::super::rules;
use super::super::yaml::{at, items, type_of, walk};

/// Envoy's name of its own authorization filter, where no listener names it differently.
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// The filter's name in the shipped configuration.
const SLUICE: &str = "sluice";

/// Everything that is read from the files.
#[derive(Debug, Default)]
pub(super) struct Setup {
    /// Names of the filters of all listeners; empty where no listener was given.
    pub filters: Vec<String>,
    sluice: Option<String>,
    pub ext_authz: Option<ExtAuthz>,
    pub rules: Option<Document>,
    pub hosts: Vec<Host>,
}

/// Envoy's own authorization filter, as far as it matters.
#[derive(Debug)]
pub(super) struct ExtAuthz {
    pub name: String,
    pub encode_raw_headers: bool,
    pub pack_as_bytes: bool,
    pub failure_mode_allow: bool,
}

/// A virtual host with its routes.
#[derive(Debug)]
pub(super) struct Host {
    pub name: String,
    pub config: Value,
    pub routes: Vec<Value>,
}

impl Setup {
    /// Adds the content of a file.
    ///
    /// # Errors
    /// Where the rules in it are refused.
    pub(super) fn add(&mut self, document: &Value) -> Result<(), String> {
        let (mut filters, mut hosts) = (Vec::new(), Vec::new());
        walk(document, &mut |node| {
            filters.extend(items(node.get("http_filters")));
            hosts.extend(items(node.get("virtual_hosts")));
        });
        for filter in filters {
            self.add_filter(filter)?;
        }
        for host in hosts {
            let name = host.get("name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
            self.hosts.push(Host { name, config: host.clone(), routes: items(host.get("routes")).cloned().collect() });
        }
        Ok(())
    }

    fn add_filter(&mut self, filter: &Value) -> Result<(), String> {
        let Some(name) = filter.get("name").and_then(Value::as_str) else { return Ok(()) };
        self.filters.push(name.to_owned());
        let Some(config) = filter.get("typed_config") else { return Ok(()) };
        let kind = type_of(config).unwrap_or_default();
        let flag = |path: &[&str]| at(config, path).and_then(Value::as_bool).unwrap_or_default();
        if kind.ends_with(".ext_authz.v3.ExtAuthz") {
            self.ext_authz = Some(ExtAuthz {
                name: name.to_owned(),
                encode_raw_headers: flag(&["encode_raw_headers"]),
                pack_as_bytes: flag(&["with_request_body", "pack_as_bytes"]),
                failure_mode_allow: flag(&["failure_mode_allow"]),
            });
        } else if let Some(text) = rules::plugin(config).filter(|_| kind.ends_with(".wasm.v3.Wasm")) {
            let document = Document::from_json(text.as_bytes()).map_err(|error| format!("filter {name:?}: {error}"))?;
            self.sluice = Some(name.to_owned());
            self.rules = Some(document);
        }
        Ok(())
    }

    /// The name of Sluice's filter.
    pub(super) fn sluice(&self) -> &str {
        self.sluice.as_deref().unwrap_or(SLUICE)
    }

    /// The name of Envoy's own filter.
    pub(super) fn native(&self) -> &str {
        self.ext_authz.as_ref().map_or(EXT_AUTHZ, |filter| &filter.name)
    }
}
