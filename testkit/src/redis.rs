//! A private Redis (or Valkey) with an append-only file, on a free loopback port.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::dirs::RunDir;
use crate::failure::Result;
use crate::ports::{self, loopback, with_free_ports};
use crate::process::{Process, Service};
use crate::{tools, wait};

/// Loading the append-only file of a large test takes a while.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The longest path that a Unix socket may have on Linux (unix(7)), without the final zero.
const SOCKET_PATH_MAX: usize = 107;

/// A running server; its data outlive a restart and go with the run folder.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    port: u16,
    data: PathBuf,
    process: Process,
    dir: Arc<RunDir>,
}

impl Redis {
    /// Starts the system's Redis, or the pinned Valkey, in a run folder of its own.
    ///
    /// # Errors
    /// When no server is found or it does not become ready.
    pub fn start() -> Result<Self> {
        Self::start_in(RunDir::new("redis")?)
    }

    /// Starts in a given run folder.
    ///
    /// # Errors
    /// When no server is found or it does not become ready.
    pub fn start_in(dir: Arc<RunDir>) -> Result<Self> {
        Self::start_program(tools::redis_server()?, dir)
    }

    /// Starts the pinned Valkey, whatever the system has.
    ///
    /// # Errors
    /// When it cannot be fetched or does not become ready.
    pub fn start_valkey() -> Result<Self> {
        Self::start_valkey_in(RunDir::new("valkey")?)
    }

    /// Starts the pinned Valkey in a given run folder.
    ///
    /// # Errors
    /// When it cannot be fetched or does not become ready.
    pub fn start_valkey_in(dir: Arc<RunDir>) -> Result<Self> {
        Self::start_program(tools::valkey_server()?, dir)
    }

    /// Starts a given program in a run folder.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_program(program: PathBuf, dir: Arc<RunDir>) -> Result<Self> {
        let data = dir.join("redis");
        std::fs::create_dir_all(&data)?;
        with_free_ports(|| {
            let port = ports::free()?;
            let process = launch(&program, port, &data, &dir)?;
            Ok(Self { program: program.clone(), port, data: data.clone(), process, dir: Arc::clone(&dir) })
        })
    }

    /// As in `redis://127.0.0.1:15001/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", loopback(self.port))
    }

    /// Its Unix socket, as in `unix:///run/redis.sock`: a hop through it costs both sides less than one through the loopback. The
    /// TCP address where the socket's path would be too long.
    #[must_use]
    pub fn local_url(&self) -> String {
        socket(&self.data).map_or_else(|| self.url(), |path| format!("unix://{}", path.display()))
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection for looking into the store from a test. It does not reconnect.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn connection(&self) -> Result<redis::aio::MultiplexedConnection> {
        Ok(redis::Client::open(self.url())?.get_multiplexed_async_connection().await?)
    }

    /// Ends the server and starts it again with nothing in it: acknowledged writes are lost.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart_empty(&mut self) -> Result<()> {
        self.kill()?;
        std::fs::remove_dir_all(&self.data)?;
        std::fs::create_dir_all(&self.data)?;
        self.restart()
    }
}

impl Service for Redis {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = launch(&self.program, self.port, &self.data, &self.dir)?;
        Ok(())
    }
}

/// The socket in the data folder, where its path is not too long for one.
fn socket(data: &Path) -> Option<PathBuf> {
    let path = data.join("redis.sock");
    (path.as_os_str().len() <= SOCKET_PATH_MAX).then_some(path)
}

fn launch(program: &PathBuf, port: u16, data: &PathBuf, dir: &RunDir) -> Result<Process> {
    let mut command = Command::new(program);
    command.env_clear().current_dir(data);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"]);
    command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]).arg("--dir").arg(data);
    if let Some(path) = socket(data) {
        command.arg("--unixsocket").arg(path);
    }
    // A replica's copy is sent at once: by default Redis waits five seconds for more replicas to come.
    command.args(["--repl-diskless-sync-delay", "0"]);
    let mut process = Process::start("redis", command, &dir.join("redis.log"))?;
    let own_id = format!("process_id:{}\r\n", process.pid());
    // Asking for the process id as well: another server may have taken the port just before.
    process.wait_ready(READY_WITHIN, || {
        let reply = wait::exchange(loopback(port), b"INFO server\r\n").unwrap_or_default();
        let loaded = wait::exchange(loopback(port), b"PING\r\n").unwrap_or_default();
        Ok(String::from_utf8_lossy(&reply).contains(&own_id) && loaded.starts_with(b"+PONG"))
    })?;
    Ok(process)
}
