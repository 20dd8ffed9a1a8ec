//! The shipped `envoy/envoy.yaml` or `envoy/envoy-native.yaml`, and `envoy/routes.yaml`, with addresses and file paths exchanged.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_yaml_ng::{Mapping, Value};

use crate::build::{self, NativeModule};
use crate::dirs;
use crate::failure::{Context, Failure, Result};

/// Envoy's name of the filter in the shipped configuration.
const FILTER: &str = "sluice";

/// The cluster of decision servers.
const SERVERS: &str = "sluice_authz";
/// Chooses the host of every suite that does not choose one itself: `wasm` or `native`.
pub const HOST_VARIABLE: &str = "E2E_HOST";

/// What runs the filter in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A proxy-wasm VM (`envoy/envoy.yaml`).
    Wasm,
    /// A dynamic module in Envoy's process (`envoy/envoy-native.yaml`).
    Native,
}

impl Host {
    /// Where the filter's file is named, within its typed configuration.
    const fn place(self) -> &'static str {
        match self {
            Self::Wasm => "config.vm_config.code.local.filename",
            Self::Native => "dynamic_module_config.module.local.filename",
        }
    }

    /// The one that [`HOST_VARIABLE`] names; wasm without it.
    ///
    /// # Errors
    /// When the variable names none.
    pub fn chosen() -> Result<Self> {
        match std::env::var(HOST_VARIABLE).as_deref() {
            Err(_) | Ok("" | "wasm") => Ok(Self::Wasm),
            Ok("native") => Ok(Self::Native),
            Ok(other) => Err(Failure::new(format!("{HOST_VARIABLE}={other}: must be wasm or native"))),
        }
    }
}

/// A configuration to start Envoy with.
#[derive(Clone, Debug)]
pub struct EnvoyConfig {
    host: Host,
    /// The URLs of the servers, for the native host.
    servers: Vec<String>,
    bootstrap: Value,
    routes: String,
    workers: u32,
}

/// Where an Envoy listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub payments: SocketAddr,
    /// `/stats/prometheus` and nothing else.
    pub stats: SocketAddr,
    pub admin: SocketAddr,
}

impl EnvoyConfig {
    /// The shipped files with the compiled filter's path; one worker.
    ///
    /// # Errors
    /// When a file is missing or is not YAML.
    pub fn shipped(filter: &Path) -> Result<Self> {
        Self::of(Host::Wasm, filter)
    }

    /// The shipped files of a host with a filter's path; one worker.
    ///
    /// # Errors
    /// When a file is missing or is not YAML.
    pub fn of(host: Host, filter: &Path) -> Result<Self> {
        let dir = dirs::workspace().join("envoy");
        let file = match host {
            Host::Wasm => "envoy.yaml",
            Host::Native => "envoy-native.yaml",
        };
        let bootstrap = fs::read_to_string(dir.join(file)).context(format!("envoy/{file}"))?;
        let routes = fs::read_to_string(dir.join("routes.yaml")).context("envoy/routes.yaml")?;
        let bootstrap = serde_yaml_ng::from_str(&bootstrap).context(format!("envoy/{file}"))?;
        let mut config = Self { host, servers: Vec::new(), bootstrap, routes, workers: 1 };
        config.set_filter(filter)?;
        Ok(config)
    }

    /// The shipped files of a host with the shipped filter, built if it is not up to date; one worker.
    ///
    /// # Errors
    /// As [`EnvoyConfig::of`], and when the filter cannot be built.
    pub fn for_host(host: Host) -> Result<Self> {
        let filter = match host {
            Host::Wasm => build::filter_wasm()?,
            Host::Native => build::filter_native(NativeModule::Shipped, false)?,
        };
        Self::of(host, &filter)
    }

    /// Runs another file in the place of the filter.
    ///
    /// # Errors
    /// When the shipped file has no place for it.
    pub fn set_filter(&mut self, filter: &Path) -> Result<()> {
        let place = self.host.place();
        *at(self.filter()?, place)? = text(filter);
        Ok(())
    }

    /// What runs the filter.
    #[must_use]
    pub fn host(&self) -> Host {
        self.host
    }

    /// Number of worker threads.
    #[must_use]
    pub fn with_workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Number of worker threads.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// The route file's text.
    #[must_use]
    pub fn routes(&self) -> &str {
        &self.routes
    }

    /// Exchanges the route file's text.
    pub fn set_routes(&mut self, routes: &str) {
        routes.clone_into(&mut self.routes);
    }

    /// The whole bootstrap, for a test that needs another one than what is shipped.
    pub fn bootstrap(&mut self) -> &mut Value {
        &mut self.bootstrap
    }

    /// The address of a cluster's only endpoint.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn set_cluster(&mut self, name: &str, address: SocketAddr) -> Result<()> {
        if name == SERVERS {
            self.servers = vec![format!("http://{address}")];
        }
        let clusters = at(&mut self.bootstrap, "static_resources.clusters")?;
        let cluster = named(clusters, name)?;
        *at(cluster, "type")? = text("STATIC");
        let endpoint = at(cluster, "load_assignment.endpoints.0.lb_endpoints.0.endpoint.address")?;
        set_address(endpoint, address)
    }

    /// The Unix socket of the decision servers' only endpoint.
    ///
    /// # Errors
    /// When the shipped file has no such cluster.
    pub fn set_server_socket(&mut self, path: &Path) -> Result<()> {
        self.set_cluster(SERVERS, SocketAddr::from(([127, 0, 0, 1], 1)))?;
        self.servers = vec![format!("unix:{}", path.display())];
        let cluster = named(at(&mut self.bootstrap, "static_resources.clusters")?, SERVERS)?;
        let address = at(cluster, "load_assignment.endpoints.0.lb_endpoints.0.endpoint.address")?;
        *address = serde_yaml_ng::to_value(serde_json::json!({"pipe": {"path": path}}))?;
        Ok(())
    }

    /// The same as [`EnvoyConfig::set_cluster`] for several endpoints.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn set_endpoints(&mut self, name: &str, addresses: &[SocketAddr]) -> Result<()> {
        let (first, more) = addresses.split_first().ok_or_else(|| Failure::new("a cluster without endpoints"))?;
        self.set_cluster(name, *first)?;
        let cluster = named(at(&mut self.bootstrap, "static_resources.clusters")?, name)?;
        let endpoints = at(cluster, "load_assignment.endpoints.0.lb_endpoints")?;
        if name == SERVERS {
            self.servers.extend(more.iter().map(|address| format!("http://{address}")));
        }
        for address in more {
            let mut another = at(endpoints, "0")?.clone();
            set_address(at(&mut another, "endpoint.address")?, *address)?;
            endpoints.as_sequence_mut().ok_or_else(|| Failure::new("endpoints are no list"))?.push(another);
        }
        Ok(())
    }

    /// Takes the health checks from a cluster whose servers answer none.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn remove_health_checks(&mut self, name: &str) -> Result<()> {
        let cluster = named(at(&mut self.bootstrap, "static_resources.clusters")?, name)?;
        if let Value::Mapping(cluster) = cluster {
            cluster.remove("health_checks");
        }
        Ok(())
    }

    /// Asks the servers of a cluster for their health at this interval (`0.2s`), without jitter.
    ///
    /// # Errors
    /// When there is no such cluster, or it has no health checks.
    pub fn set_health_interval(&mut self, name: &str, interval: &str) -> Result<()> {
        let cluster = named(at(&mut self.bootstrap, "static_resources.clusters")?, name)?;
        for (key, value) in [("interval", interval), ("no_traffic_interval", interval), ("interval_jitter", "0s")] {
            *at(cluster, &format!("health_checks.0.{key}"))? = value.into();
        }
        Ok(())
    }

    /// The plugin configuration (rules and cluster).
    ///
    /// # Errors
    /// When the shipped file has none, or it is not JSON.
    pub fn plugin(&mut self) -> Result<serde_json::Value> {
        let value = self.document()?;
        let document = value.as_str().ok_or_else(|| Failure::new("the plugin configuration is not a text"))?;
        serde_json::from_str(document).context("the plugin configuration")
    }

    /// Exchanges the plugin configuration.
    ///
    /// # Errors
    /// When the shipped file has no place for it.
    pub fn set_plugin(&mut self, plugin: &serde_json::Value) -> Result<()> {
        *self.document()? = Value::String(plugin.to_string());
        Ok(())
    }

    fn document(&mut self) -> Result<&mut Value> {
        let place = match self.host {
            Host::Wasm => "config.configuration.value",
            Host::Native => "filter_config.value",
        };
        at(self.filter()?, place)
    }

    /// A plugin configuration with the servers' URLs, where the host needs them: the native one has connections of its own.
    #[must_use]
    pub fn with_servers(&self, mut plugin: serde_json::Value) -> serde_json::Value {
        if let (Host::Native, false, Some(plugin)) = (self.host, self.servers.is_empty(), plugin.as_object_mut()) {
            plugin.insert("servers".to_owned(), self.servers.clone().into());
        }
        plugin
    }

    /// Takes an HTTP filter out of the chain, as a load test does that measures what the filter costs. Its per-route
    /// settings must go from the route file as well.
    ///
    /// # Errors
    /// When there is no such filter.
    pub fn remove_http_filter(&mut self, name: &str) -> Result<()> {
        let filters = at(self.connection_manager()?, "http_filters")?;
        named(filters, name)?;
        if let Value::Sequence(filters) = filters {
            filters.retain(|filter| name_of(filter) != Some(name));
        }
        Ok(())
    }

    /// An HTTP filter's configuration, for a test or a load variant that changes it.
    ///
    /// # Errors
    /// When there is no such filter.
    pub fn http_filter(&mut self, name: &str) -> Result<&mut Value> {
        named(at(self.connection_manager()?, "http_filters")?, name)
    }

    /// The text that Envoy is started with.
    ///
    /// # Errors
    /// When the shipped file lacks a place for an address or a path.
    pub fn render(&self, addresses: Addresses, routes_dir: &Path, access_log: &PathBuf) -> Result<String> {
        let mut config = self.clone();
        // A filter whose configuration is discovered has none here.
        if let Ok(plugin) = config.plugin() {
            let plugin = config.with_servers(plugin);
            config.set_plugin(&plugin)?;
        }
        set_address(at(&mut config.bootstrap, "admin.address")?, addresses.admin)?;
        config.set_cluster("admin", addresses.admin)?;
        set_address(at(&mut config.bootstrap, "static_resources.listeners.0.address")?, addresses.payments)?;
        set_address(at(&mut config.bootstrap, "static_resources.listeners.1.address")?, addresses.stats)?;
        let manager = config.connection_manager()?;
        let source = at(manager, "rds.config_source.path_config_source")?;
        *at(source, "path")? = text(routes_dir.join("routes.yaml"));
        *at(source, "watched_directory.path")? = text(routes_dir);
        if let Ok(path) = at(manager, "access_log.0.typed_config.path") {
            *path = text(access_log);
        }
        quoted(&config.bootstrap)
    }

    fn connection_manager(&mut self) -> Result<&mut Value> {
        at(&mut self.bootstrap, "static_resources.listeners.0.filter_chains.0.filters.0.typed_config")
    }

    fn filter(&mut self) -> Result<&mut Value> {
        let filters = at(self.connection_manager()?, "http_filters")?;
        at(named(filters, FILTER)?, "typed_config")
    }
}

/// Writes a document as JSON, which is YAML too: each text keeps its quotes. Envoy reads a bare `off` as false.
pub(super) fn quoted(document: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(document)?)
}

fn text(value: impl AsRef<Path>) -> Value {
    Value::String(value.as_ref().display().to_string())
}

/// Descends along names and positions, as in `listeners.0.address`.
fn at<'a>(value: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    path.split('.').try_fold(value, |value, step| {
        let next = match step.parse::<usize>() {
            Ok(position) => value.get_mut(position),
            Err(_) => value.get_mut(step),
        };
        next.ok_or_else(|| Failure::new(format!("envoy.yaml has no {step:?} on the way along {path}")))
    })
}

fn name_of(value: &Value) -> Option<&str> {
    value.get("name").and_then(Value::as_str)
}

fn named<'a>(list: &'a mut Value, name: &str) -> Result<&'a mut Value> {
    let found = list.as_sequence_mut().and_then(|list| list.iter_mut().find(|entry| name_of(entry) == Some(name)));
    found.ok_or_else(|| Failure::new(format!("envoy.yaml has nothing named {name}")))
}

fn set_address(address: &mut Value, to: SocketAddr) -> Result<()> {
    let mut socket = Mapping::new();
    socket.insert("address".into(), to.ip().to_string().into());
    socket.insert("port_value".into(), to.port().into());
    *at(address, "socket_address")? = Value::Mapping(socket);
    Ok(())
}
