//! Parts of Envoy's configuration that it discovers from a file and takes up again when the file is exchanged.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::dirs::RunDir;
use testkit::envoy::{Addresses, EnvoyConfig, Host};
use testkit::ports;
use testkit::wait;
use testkit::{Context, Failure, Result};

/// Envoy takes a file up within a second.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(20);
/// What the filter logs of each configuration that it takes.
const TAKEN: &str = "sluice: configured";

/// What is discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The filter's configuration (ECDS): the listener and its connections stay.
    Filter,
    /// A whole listener (LDS): its connections drain.
    Listener,
}

/// The discovered part.
#[derive(Debug)]
pub(super) struct Discovered {
    swap: Swap,
    dir: Arc<RunDir>,
    /// The resource, with the plugin configuration in it as it was last.
    resource: Value,
    address: Option<SocketAddr>,
    /// As it was when the part was taken out.
    config: EnvoyConfig,
}

impl Discovered {
    /// Moves the part out of `config` into a file.
    pub(super) fn new(swap: Swap, dir: &Arc<RunDir>, config: &mut EnvoyConfig) -> Result<Self> {
        fs::create_dir_all(dir.join("discovered"))?;
        let plugin = config.plugin()?;
        config.set_plugin(&config.with_servers(plugin))?;
        let before = config.clone();
        let discovered = match swap {
            Swap::Filter => {
                let resource = filter(dir, config)?;
                Self { swap, dir: Arc::clone(dir), resource, address: None, config: before }
            }
            Swap::Listener => {
                let address = ports::loopback(ports::free()?);
                let resource = listener(dir, config, address)?;
                Self { swap, dir: Arc::clone(dir), resource, address: Some(address), config: before }
            }
        };
        discovered.write()?;
        Ok(discovered)
    }

    /// Where the discovered listener listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Puts another plugin configuration in force, and returns when every worker has it.
    pub(super) async fn swap(&mut self, plugin: &Value, workers: u32) -> Result<()> {
        let before = self.taken()?;
        let text = Value::String(self.config.with_servers(plugin.clone()).to_string());
        *self.configuration()? = text;
        self.write()?;
        // The main thread tries a configuration before the workers get it. The native host has one for all of them.
        let more = match self.config.host() {
            Host::Wasm => usize::try_from(workers)? + 1,
            Host::Native => 1,
        };
        wait::until_async("the swapped configuration in force", IN_FORCE_WITHIN, || async {
            Ok((self.taken()? >= before + more).then_some(()))
        })
        .await
    }

    fn configuration(&mut self) -> Result<&mut Value> {
        let place = match self.config.host() {
            Host::Wasm => "typed_config/config/configuration/value",
            Host::Native => "typed_config/filter_config/value",
        };
        let path = match self.swap {
            Swap::Filter => format!("/{place}"),
            Swap::Listener => {
                let filters = "/filter_chains/0/filters/0/typed_config/http_filters";
                let all = self.resource.pointer(filters).and_then(Value::as_array);
                let at = all.and_then(|all| all.iter().position(|filter| filter["name"] == "sluice"));
                format!("{filters}/{}/{place}", at.unwrap_or_default())
            }
        };
        self.resource.pointer_mut(&path).ok_or_else(|| Failure::new(format!("the discovered part has no {path}")))
    }

    fn taken(&self) -> Result<usize> {
        let log = fs::read_to_string(self.dir.join("envoy.log")).context("envoy.log")?;
        Ok(log.matches(TAKEN).count())
    }

    fn write(&self) -> Result<()> {
        let fresh = self.dir.join("discovered.new");
        fs::write(&fresh, json!({"resources": [self.resource]}).to_string())?;
        Ok(fs::rename(fresh, file(&self.dir))?)
    }
}

fn file(dir: &RunDir) -> PathBuf {
    dir.join("discovered").join("resource.json")
}

fn source(dir: &RunDir) -> Value {
    let folder = dir.join("discovered").display().to_string();
    json!({"path_config_source": {"path": file(dir).display().to_string(), "watched_directory": {"path": folder}}})
}

/// Puts a reference in the place of the filter's configuration and gives that.
fn filter(dir: &RunDir, config: &mut EnvoyConfig) -> Result<Value> {
    let filter = config.http_filter("sluice")?;
    let typed: Value = serde_json::to_value(&filter["typed_config"])?;
    let kind = typed["@type"].clone();
    let reference = json!({"name": "sluice", "config_discovery": {"config_source": source(dir), "type_urls": [kind]}});
    *filter = serde_yaml_ng::to_value(reference)?;
    let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    Ok(json!({"@type": kind, "name": "sluice", "typed_config": typed}))
}

/// Makes a discovered listener beside the one that is there, alike but for its address.
fn listener(dir: &RunDir, config: &mut EnvoyConfig, address: SocketAddr) -> Result<Value> {
    let addresses = Addresses { payments: address, stats: address, admin: address };
    let rendered = config.render(addresses, &dir.join("routes"), &dir.join("access.log"))?;
    let rendered: Value = serde_json::from_str(&rendered)?;
    let mut listener = rendered["static_resources"]["listeners"][0].clone();
    listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    listener["name"] = "discovered".into();
    let lds = json!({"lds_config": source(dir)});
    config.bootstrap()["dynamic_resources"] = serde_yaml_ng::to_value(lds)?;
    Ok(listener)
}
