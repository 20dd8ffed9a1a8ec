//! The decision server as a child process on free loopback ports, configured by environment only.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::dirs::RunDir;
use crate::failure::Result;
use crate::ports::{self, loopback, with_free_ports};
use crate::process::{Process, Service};
use crate::wait;

/// Migrations run in the meantime, and a debug server that is counted is slow under valgrind.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A line of the log may come so much later than what it reports, on a machine that is busy.
const LOGGED_WITHIN: Duration = Duration::from_secs(10);

/// What "started" means to a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadyWhen {
    /// `/ready` answers 200: all dependencies are there.
    #[default]
    Ready,
    /// `/health` answers 200: the process is up, with Redis or Postgres perhaps absent.
    Healthy,
}

/// How to start the server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The binary.
    pub program: PathBuf,
    /// The whole environment but for the addresses, which the harness chooses.
    pub env: BTreeMap<String, String>,
    pub ready_when: ReadyWhen,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    port: u16,
    grpc_port: u16,
    probe_port: u16,
    process: Process,
    dir: Arc<RunDir>,
}

impl Server {
    /// Starts the server in a run folder.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_in(dir: Arc<RunDir>, options: ServerOptions) -> Result<Self> {
        with_free_ports(|| {
            let ports = [ports::free()?, ports::free()?, ports::free()?];
            let process = launch(&options, ports, &dir)?;
            let [port, grpc_port, probe_port] = ports;
            Ok(Self { options: options.clone(), port, grpc_port, probe_port, process, dir: Arc::clone(&dir) })
        })
    }

    /// Where `/health`, `/ready`, `/metrics` and the admin API are.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Where probes and metrics are answered, whatever is done to the admin API.
    #[must_use]
    pub fn probe_address(&self) -> SocketAddr {
        loopback(self.probe_port)
    }

    /// Where Envoy asks.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        loopback(self.grpc_port)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The options for the next [`Service::restart`].
    pub fn options(&mut self) -> &mut ServerOptions {
        &mut self.options
    }

    /// A variable of the server's environment.
    #[must_use]
    pub fn options_env(&self, name: &str) -> Option<&str> {
        self.options.env.get(name).map(String::as_str)
    }

    /// GET on the admin port: status and body.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        wait::http_get(self.admin_address(), path)
    }

    /// A metric of `/metrics`, summed over the series whose labels contain all of `labels` (as in `code="ADMITTED"`).
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let (_, text) = self.get("/metrics")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            let matches = labels.iter().all(|label| rest.contains(label));
            rest.rsplit(' ').next().filter(|_| matches)?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// The log so far: every line that is a JSON object.
    #[must_use]
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.process.log()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first such line of the log. Lines are written by a thread of the server's own, so one may come a little later than what it
    /// reports.
    ///
    /// # Errors
    /// When none comes.
    pub fn logged(&self, is_it: impl Fn(&serde_json::Value) -> bool) -> Result<serde_json::Value> {
        wait::until("a line of the log", LOGGED_WITHIN, || Ok(self.log_lines().into_iter().find(|line| is_it(line))))
    }

    /// The decision lines of the log: those that carry a `code`, wherever the log's format puts its fields.
    #[must_use]
    pub fn decisions(&self) -> Vec<serde_json::Value> {
        let fields = |line: serde_json::Value| line.get("fields").cloned().unwrap_or(line);
        self.log_lines().into_iter().map(fields).filter(|line| line.get("code").is_some()).collect()
    }
}

impl Service for Server {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = launch(&self.options, [self.port, self.grpc_port, self.probe_port], &self.dir)?;
        Ok(())
    }
}

fn launch(options: &ServerOptions, ports: [u16; 3], dir: &RunDir) -> Result<Process> {
    let [port, grpc_port, probe_port] = ports;
    let mut command = Command::new(&options.program);
    // Nothing but a test of it waits for proxies to notice a stop.
    command.env_clear().current_dir(dir.path()).env("SLUICE_DRAIN_MS", "0");
    command.env("SLUICE_PROBE_PORT", probe_port.to_string()).envs(&options.env);
    command.env("PORT", port.to_string()).env("GRPC_PORT", grpc_port.to_string()).env("SLUICE_BIND", "127.0.0.1");
    let mut process = Process::start("authz-server", command, &dir.join("server.log"))?;
    let path = match options.ready_when {
        ReadyWhen::Ready => "/ready",
        ReadyWhen::Healthy => "/health",
    };
    process.wait_ready(READY_WITHIN, || {
        let ready = wait::http_get(loopback(port), path).is_ok_and(|(status, _)| status == 200);
        Ok(ready && wait::connect(loopback(grpc_port)).is_ok())
    })?;
    Ok(process)
}
