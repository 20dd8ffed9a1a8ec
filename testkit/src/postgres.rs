//! A private PostgreSQL on a free loopback port, with an empty database `sluice`.
//!
//! It trusts every local connection: the data are a test's. Initialised data are kept once under the tools folder and
//! copied for each start, which is ten times as fast as `initdb`. Beside `sluice` they have `template0` only: each database is
//! 300 files to create and delete for every test.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::dirs::{self, RunDir};
use crate::failure::{Context, Failure, Result};
use crate::ports::{self, loopback, with_free_ports};
use crate::process::{Process, Service, run};
use crate::{tools, wait};

/// Recovery after a kill in the middle of a load takes a while.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Superuser and database.
const NAME: &str = "sluice";
/// Tests come with a handful of pools.
const CONNECTIONS_MAX: u32 = 50;
/// The users whose account runs the server when we are root, which it refuses.
const UNPRIVILEGED_USERS: [&str; 2] = ["nobody", "daemon"];

/// A running server; its data outlive a restart and go with the run folder.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    durable: bool,
    process: Process,
    dir: Arc<RunDir>,
}

impl Postgres {
    /// Starts in a run folder of its own, without flushing to disk: a killed process loses nothing, a crashed machine may.
    ///
    /// # Errors
    /// When no server is found or it does not become ready.
    pub fn start() -> Result<Self> {
        Self::start_in(RunDir::new("postgres")?, false)
    }

    /// Starts in a given run folder. `durable` flushes every commit to disk, as a production server does.
    ///
    /// # Errors
    /// When no server is found or it does not become ready.
    pub fn start_in(dir: Arc<RunDir>, durable: bool) -> Result<Self> {
        let bin = tools::postgres_bin()?;
        let data = dir.join("postgres");
        dirs::copy_tree(&template(&bin)?, &data, unprivileged()?)?;
        with_free_ports(|| {
            let port = ports::free()?;
            let process = launch(&bin, port, &data, durable, &dir)?;
            Ok(Self { bin: bin.clone(), data: data.clone(), port, durable, process, dir: Arc::clone(&dir) })
        })
    }

    /// As in `postgres://sluice@127.0.0.1:15002/sluice`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{NAME}@{}/{NAME}", loopback(self.port))
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A small pool for looking into the journal from a test.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn pool(&self) -> Result<sqlx::PgPool> {
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(3).acquire_timeout(Duration::from_secs(10));
        Ok(options.connect(&self.url()).await?)
    }
}

/// Ends the server itself, at once: killed, it would leave a segment of shared memory behind, of which the kernel has few.
impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.process.end_by(rustix::process::Signal::QUIT, Duration::from_secs(5));
    }
}

impl Service for Postgres {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = launch(&self.bin, self.port, &self.data, self.durable, &self.dir)?;
        Ok(())
    }

    /// SIGINT, Postgres's "fast" stop: SIGTERM would wait for every client to leave.
    fn stop(&mut self) -> Result<()> {
        self.process.end_by(rustix::process::Signal::INT, Duration::from_secs(10)).map(drop)
    }
}

fn launch(bin: &Path, port: u16, data: &Path, durable: bool, dir: &RunDir) -> Result<Process> {
    let mut command = server_command(&bin.join("postgres"), data)?;
    // Unix sockets are off: the path of a deep run folder would not fit into a socket's name.
    command.arg("-D").arg(data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""]);
    let connections = format!("max_connections={CONNECTIONS_MAX}");
    let flush = if durable { "on" } else { "off" };
    for setting in [
        connections.as_str(),
        "shared_buffers=64MB",
        "max_wal_size=512MB",
        &format!("fsync={flush}"),
        &format!("full_page_writes={flush}"),
    ] {
        command.args(["-c", setting]);
    }
    let mut process = Process::start("postgres", command, &dir.join("postgres.log"))?;
    let pid = process.pid().to_string();
    process.wait_ready(READY_WITHIN, || Ok(says_ready(data, &pid) && answers(port)))?;
    Ok(process)
}

/// The server's own word in its pid file: the first line is its process, the eighth its state.
fn says_ready(data: &Path, pid: &str) -> bool {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = file.lines();
    lines.next() == Some(pid) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}

/// Sends a start-up message of protocol 3.0 and looks whether the reply is an authentication message.
fn answers(port: u16) -> bool {
    let body = format!("user\0{NAME}\0database\0{NAME}\0\0");
    let length = u32::try_from(body.len() + 8).unwrap_or_default();
    let mut message = length.to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes());
    message.extend(body.as_bytes());
    wait::exchange(loopback(port), &message).is_ok_and(|reply| reply.first() == Some(&b'R'))
}

/// Initialised data with the database in it, made once for each PostgreSQL version.
fn template(bin: &Path) -> Result<PathBuf> {
    let version = run(Command::new(bin.join("postgres")).arg("--version"))?;
    let version = version.split_whitespace().nth(2).unwrap_or("unknown");
    let tools = dirs::tools()?;
    let home = tools.join(format!("postgres-{NAME}-{version}"));
    let lock = File::create(tools.join("postgres-data.lock"))?;
    lock.lock()?;
    if !home.is_dir() {
        let fresh = tools.join(format!("postgres-data.tmp-{}", std::process::id()));
        let _ = fs::remove_dir_all(&fresh);
        let made = initialise(bin, &fresh);
        if made.is_err() {
            let _ = fs::remove_dir_all(&fresh);
        }
        made?;
        fs::rename(&fresh, &home)?;
    }
    Ok(home)
}

fn initialise(bin: &Path, data: &Path) -> Result<()> {
    fs::create_dir(data)?;
    fs::set_permissions(data, Permissions::from_mode(0o700))?;
    dirs::give(data, unprivileged()?)?;
    let mut initdb = server_command(&bin.join("initdb"), data)?;
    initdb.arg("-D").arg(data).args(["--username", NAME, "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    initdb.args(["--no-sync", "--no-instructions", "--wal-segsize=1"]);
    run(&mut initdb).context("preparing the data of PostgreSQL")?;
    execute(bin, data, "postgres", &format!("CREATE DATABASE {NAME}\n"))?;
    let drop = "DROP DATABASE postgres\nALTER DATABASE template1 IS_TEMPLATE false\nDROP DATABASE template1\n";
    execute(bin, data, NAME, drop)
}

/// Executes statements, one a line, in single-user mode, which needs no port.
fn execute(bin: &Path, data: &Path, database: &str, statements: &str) -> Result<()> {
    let input = data.join("statements.sql");
    fs::write(&input, statements)?;
    let mut single = server_command(&bin.join("postgres"), data)?;
    single.args(["--single", "-F", "-D"]).arg(data).arg(database);
    single.stdin(File::open(&input)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = single.spawn().context("starting postgres --single")?;
    let mut complaints = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        stderr.read_to_string(&mut complaints)?;
    }
    let status = child.wait()?;
    fs::remove_file(&input)?;
    if status.success() && !complaints.contains("ERROR") {
        return Ok(());
    }
    Err(Failure::new(format!("PostgreSQL failed ({status}) to execute {statements}: {complaints}")))
}

/// A command with a bare environment, run by the unprivileged user where we are root.
fn server_command(program: &Path, dir: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin").current_dir(dir);
    if let Some((user, group)) = unprivileged()? {
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// User and group that must run the server when we are root; `None` where we are not.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let found = UNPRIVILEGED_USERS.iter().find_map(|name| account(&accounts, name));
    let missing =
        || Failure::new(format!("PostgreSQL does not run as root, and no user of {UNPRIVILEGED_USERS:?} exists"));
    found.map(Some).ok_or_else(missing)
}

fn account(accounts: &str, name: &str) -> Option<(u32, u32)> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
