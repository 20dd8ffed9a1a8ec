//! Plugin configurations that would enforce nothing, or something else than their author thinks: Envoy refuses to start with
//! them, and its log names what to mend.

use std::sync::Arc;

use serde_json::{Value, json};
use testkit::dirs::RunDir;
use testkit::envoy::{Envoy, EnvoyConfig, Host};
use testkit::stack::StackOptions;
use testkit::{Context, Failure, Result};

use crate::suite::Suite;

/// What is wrong, how the shipped configuration is changed to have it, and a word that the log must hold.
type Row = (&'static str, fn(&mut Value), &'static str);

const ROWS: &[Row] = &[
    ("no rules", |plugin| plugin["rules"] = json!([]), "rules"),
    ("every rule off", |plugin| each_rule(plugin, |rule| rule["mode"] = "off".into()), "off"),
    ("a mode that does not exist", |plugin| plugin["rules"][0]["mode"] = "shdow".into(), "shdow"),
    ("a field that does not exist", |plugin| plugin["rules"][0]["body_bytes"] = 1.into(), "body_bytes"),
    ("no source of the amount", |plugin| plugin["rules"][0]["extract"]["amount"] = json!([]), "amount"),
    ("no cluster", |plugin| drop(plugin.as_object_mut().map(|plugin| plugin.remove("cluster"))), "cluster"),
    (
        "a capture that the path lacks",
        |plugin| plugin["rules"][0]["extract"]["merchant"] = json!([{"path": "shop"}]),
        "shop",
    ),
    ("no methods", |plugin| plugin["rules"][0]["match"]["methods"] = json!([]), "methods"),
    ("a timeout of nothing", |plugin| plugin["rules"][0]["timeout_ms"] = 0.into(), "timeout_ms"),
];

fn each_rule(plugin: &mut Value, change: impl Fn(&mut Value)) {
    plugin["rules"].as_array_mut().into_iter().flatten().for_each(change);
}

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("refused::a_configuration_that_would_enforce_nothing", async || {
        // The native host needs no cluster but servers, which the harness names (filter_abi has that row).
        let native = Host::chosen()? == Host::Native;
        for (what, change, word) in ROWS.iter().filter(|(what, ..)| !native || *what != "no cluster") {
            try_row(*change, word).context(*what)?;
        }
        Ok(())
    });
}

fn try_row(change: fn(&mut Value), word: &str) -> Result<()> {
    let dir = RunDir::new("refused")?;
    let mut plugin = StackOptions::shipped_plugin()?;
    change(&mut plugin);
    let mut config = EnvoyConfig::for_host(Host::chosen()?)?;
    for cluster in ["gateway", "sluice_authz"] {
        config.set_cluster(cluster, ([127, 0, 0, 1], 9).into())?;
    }
    config.set_plugin(&plugin)?;
    match Envoy::start_in(Arc::clone(&dir), config) {
        Ok(_) => Err(Failure::new("Envoy started")),
        Err(failure) => {
            let log = std::fs::read_to_string(dir.join("envoy.log"))?;
            let said = log.lines().any(|line| line.contains("plugin configuration is refused") && line.contains(word));
            ensure!(said, "the log does not say {word:?}: {failure}");
            Ok(())
        }
    }
}
