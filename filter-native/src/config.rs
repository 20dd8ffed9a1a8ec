//! One configuration of the filter: the rules document with the servers' URLs, and what its streams share.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use filter::config::{CONFIG_BYTES_MAX, Plugin, document};
use sluice_rules::{RuleSet, Source};

use crate::abi::{self, ConfigHandle, Level};
use crate::client::Server;
use crate::engine::Message;
use crate::metrics::Metrics;
use crate::thread::{self, Outlet};

/// A valid configuration in force.
pub struct Config {
    /// Differs from that of every other configuration of the process.
    pub id: u64,
    pub plugin: Arc<Plugin>,
    pub metrics: Arc<Metrics>,
    /// The module's thread.
    pub outlet: Arc<dyn Outlet>,
    /// Routes with an unknown mode that were logged.
    warned_routes: Mutex<BTreeSet<String>>,
}

/// Most routes whose unknown mode is named in the log.
const WARNED_ROUTES_MAX: usize = 64;

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("id", &self.id).field("cluster", &self.plugin.cluster).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads a configuration and announces it to the module's thread.
    ///
    /// # Errors
    /// One sentence that names the field and what to do.
    pub fn new(handle: ConfigHandle, text: &[u8]) -> Result<Arc<Self>, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (plugin, servers) = parse(text)?;
        attempt_prefix()?;
        let outlet = thread::outlet()?;
        let plugin = Plugin { holder: Some(outlet.holder()), ..plugin };
        let metrics = Arc::new(Metrics::define(handle, plugin.enforcing()));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (rules, enforcing, batch_max) = (plugin.rules.rules().len(), plugin.enforcing(), plugin.batch_max);
        let cluster = Arc::clone(&plugin.cluster);
        let open = Message::Open { config: id, cluster, servers, batch_max, metrics: Arc::clone(&metrics) };
        outlet.send(open).map_err(|_| "the filter's thread has ended".to_owned())?;
        let line = format!("sluice: configured, rules={rules} enforcing={enforcing} batch_max={batch_max}");
        abi::log(Level::Info, &line);
        Ok(Arc::new(Self { id, plugin: Arc::new(plugin), metrics, outlet, warned_routes: Mutex::default() }))
    }

    #[must_use]
    pub fn handle(&self) -> &ConfigHandle {
        self.metrics.handle()
    }

    /// Whether a route still has to be logged.
    pub fn is_new_route(&self, route: String) -> bool {
        let mut warned = self.warned_routes.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < WARNED_ROUTES_MAX && warned.insert(route)
    }

    /// Envoy has dropped it. Its name of the servers is given back before the thread looks for who has one.
    pub fn end(config: Arc<Self>) {
        let (outlet, id) = (Arc::clone(&config.outlet), config.id);
        drop(config);
        let _ = outlet.send(Message::Close { config: id });
    }

    /// On Envoy's main thread: the size of a call that no stream waits for.
    pub fn scheduled(&self, size: u64) {
        self.metrics.record_batch(size);
    }
}

/// A new attempt's id: random by process, so that attempts of different proxies differ.
#[must_use]
pub fn next_attempt() -> Option<u128> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Some((u128::from(attempt_prefix().ok()?) << 64) | u128::from(number))
}

fn attempt_prefix() -> Result<u64, String> {
    static PREFIX: OnceLock<Result<u64, String>> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| getrandom::u64().map_err(|error| error.to_string()));
    prefix.clone().map_err(|error| format!("no randomness for attempt ids: {error}"))
}

/// Reads the JSON of a configuration.
///
/// # Errors
/// One sentence that names the field and what to do.
pub fn parse(text: &[u8]) -> Result<(Plugin, Vec<Server>), String> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(format!("it has {} bytes, at most {CONFIG_BYTES_MAX} are read", text.len()));
    }
    let document = document(text)?;
    if document.servers.is_empty() {
        return Err("servers: must name the URLs of the decision servers, such as [\"http://127.0.0.1:40023\"]: a native module \
                    cannot use a cluster of Envoy"
            .to_owned());
    }
    let servers = document.servers.iter().map(|url| Server::parse(url)).collect::<Result<Vec<_>, _>>()?;
    readable(&document.rules)?;
    let cluster = document.servers.join(",").into();
    Ok((Plugin::new(cluster, document), servers))
}

/// Envoy's ABI for modules reads metadata one level deep.
fn readable(rules: &RuleSet) -> Result<(), String> {
    for rule in rules.rules() {
        let deep = |source: &&Source| matches!(source, Source::Metadata(path) if path.len() > 2);
        if let Some(source) = rule.sources().find(deep) {
            return Err(format!(
                "rule {:?}: {} is nested, and a native module reads metadata of one level: have Envoy copy the value to \
                 a header (claim_to_headers of jwt_authn), or use the wasm filter",
                rule.name,
                source.describe()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(merchant: &str) -> String {
        format!(
            r#"{{"name": "p", "match": {{"methods": ["POST"], "path": "/p"}}, "unit": "minor", "extract":
            {{"merchant": [{merchant}], "amount": [{{"header": "a"}}], "currency": [{{"header": "c"}}], "order_no": [{{"header": "o"}}]}}}}"#
        )
    }

    #[test]
    fn a_configuration_needs_servers_and_flat_metadata() {
        let header = rule(r#"{"header": "m"}"#);
        let table = [
            (format!(r#"{{"servers": ["http://127.0.0.1:1"], "rules": [{header}]}}"#), Ok("http://127.0.0.1:1")),
            (
                format!(r#"{{"cluster": "c", "servers": ["http://a:1", "unix:/s"], "rules": [{header}]}}"#),
                Ok("http://a:1,unix:/s"),
            ),
            (format!(r#"{{"cluster": "c", "rules": [{header}]}}"#), Err("servers: must name")),
            (format!(r#"{{"servers": ["https://a"], "rules": [{header}]}}"#), Err("servers: \"https://a\"")),
            (
                format!(
                    r#"{{"servers": ["http://a:1"], "rules": [{}]}}"#,
                    rule(r#"{"metadata": ["jwt", "payload", "sub"]}"#)
                ),
                Err("is nested"),
            ),
            (
                format!(r#"{{"servers": ["http://a:1"], "rules": [{}]}}"#, rule(r#"{"metadata": ["jwt", "sub"]}"#)),
                Ok("http://a:1"),
            ),
            (String::new(), Err("no configuration")),
        ];
        for (text, expected) in table {
            match (parse(text.as_bytes()), expected) {
                (Ok((plugin, _)), Ok(cluster)) => assert_eq!(&*plugin.cluster, cluster, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
            }
        }
    }
}
