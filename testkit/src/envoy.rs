//! A private Envoy that runs the shipped configuration, with only addresses and file paths put in.

mod config;
mod routes;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub use config::{Addresses, EnvoyConfig, HOST_VARIABLE, Host};
pub use routes::{RouteState, with_route};

use crate::dirs::RunDir;
use crate::failure::{Context, Result};
use crate::ports::{self, loopback, with_free_ports};
use crate::process::{Process, Service};
use crate::{tools, wait};

/// V8 compiles the filter before the listener opens.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The access log is written out this often, so that tests need not wait for Envoy's ten seconds.
const FLUSH_INTERVAL_MS: &str = "20";

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    config: EnvoyConfig,
    addresses: Addresses,
    process: Process,
    dir: Arc<RunDir>,
}

impl Envoy {
    /// Starts Envoy with `config` in a run folder.
    ///
    /// # Errors
    /// When no Envoy is found, or it refuses the configuration.
    pub fn start_in(dir: Arc<RunDir>, config: EnvoyConfig) -> Result<Self> {
        fs::create_dir_all(routes_dir(&dir))?;
        with_free_ports(|| {
            let free = || ports::free().map(loopback);
            let addresses = Addresses { payments: free()?, stats: free()?, admin: free()? };
            let process = launch(&config, addresses, &dir)?;
            Ok(Self { config: config.clone(), addresses, process, dir: Arc::clone(&dir) })
        })
    }

    /// One more Envoy of the same configuration, in a run folder of its own.
    ///
    /// # Errors
    /// Those of [`Self::start_in`].
    pub fn another(&self) -> Result<Self> {
        Self::start_in(RunDir::new("envoy")?, self.config.clone())
    }

    /// What runs the filter.
    #[must_use]
    pub fn host(&self) -> Host {
        self.config.host()
    }

    /// The payment listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses.payments
    }

    /// The listener of figures.
    #[must_use]
    pub fn stats_address(&self) -> SocketAddr {
        self.addresses.stats
    }

    /// The admin interface.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// GET on the admin interface.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub fn admin(&self, path: &str) -> Result<String> {
        let (_, body) = wait::http_get(self.admin_address(), path).context(format!("Envoy's admin, {path}"))?;
        Ok(body)
    }

    /// A counter or gauge of `/stats/prometheus`, summed over its labels; 0 where Envoy has none of that name yet.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.admin("/stats/prometheus")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// The access log so far, one JSON object per request.
    ///
    /// # Errors
    /// When a line is not JSON.
    pub fn access_log(&self) -> Result<Vec<serde_json::Value>> {
        let text = fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).context("a line of the access log")).collect()
    }

    /// The route file in force.
    #[must_use]
    pub fn routes(&self) -> &str {
        self.config.routes()
    }

    /// Puts a changed route file in force, as an operator does: a new file renamed over the old one. Returns when Envoy has
    /// counted the update.
    ///
    /// # Errors
    /// When Envoy does not take the file within five seconds.
    pub fn switch_routes(&mut self, routes: &str) -> Result<()> {
        let before = self.metric("envoy_http_rds_update_success")?;
        self.config.set_routes(routes);
        write_routes(&self.config, &self.dir)?;
        wait::until("the new routes in force", Duration::from_secs(5), || {
            Ok((self.metric("envoy_http_rds_update_success")? > before).then_some(()))
        })
    }
}

impl Service for Envoy {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = launch(&self.config, self.addresses, &self.dir)?;
        Ok(())
    }
}

fn routes_dir(dir: &RunDir) -> std::path::PathBuf {
    dir.join("routes")
}

fn write_routes(config: &EnvoyConfig, dir: &RunDir) -> Result<()> {
    let fresh = dir.join("routes.yaml.new");
    fs::write(&fresh, config.routes())?;
    Ok(fs::rename(fresh, routes_dir(dir).join("routes.yaml"))?)
}

fn launch(config: &EnvoyConfig, addresses: Addresses, dir: &RunDir) -> Result<Process> {
    write_routes(config, dir)?;
    let file = dir.join("envoy.yaml");
    let access_log = dir.join("access.log");
    fs::write(&file, config.render(addresses, &routes_dir(dir), &access_log)?)?;
    let mut command = Command::new(tools::envoy()?);
    command.env_clear().current_dir(dir.path()).arg("-c").arg(&file);
    command.args(["--concurrency", &config.workers().to_string(), "--disable-hot-restart"]);
    command.args(["--file-flush-interval-msec", FLUSH_INTERVAL_MS, "--log-level", "warning"]);
    command.args(["--component-log-level", "wasm:info,dynamic_modules:info"]);
    let mut process = Process::start("envoy", command, &dir.join("envoy.log"))?;
    let own_config = file.display().to_string();
    // Asking for the configuration's path as well: another Envoy may have taken the port just before.
    process.wait_ready(READY_WITHIN, || {
        let Ok((200, _)) = wait::http_get(addresses.admin, "/ready") else {
            return Ok(false);
        };
        let info = wait::http_get(addresses.admin, "/server_info")?.1;
        Ok(info.contains(&own_config) && wait::connect(addresses.payments).is_ok())
    })?;
    Ok(process)
}
