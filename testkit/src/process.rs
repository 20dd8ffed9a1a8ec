//! Child processes that cannot be left behind: each has its own process group and dies with this process, however that
//! ends. Their output goes to log files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::failure::{Context, Failure, Result};
use crate::procfs;
use crate::wait;

/// How long a process may take to end by itself before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Lines of a log that an error shows.
const TAIL_LINES: usize = 30;

/// A running child with its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`. The environment is what `command` says: nothing is inherited
    /// where it was cleared.
    ///
    /// # Errors
    /// When the log cannot be written or the program not be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).append(true).open(log).context(format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let program = command.get_program().to_owned();
        let child = spawn(command).context(format!("starting {}", program.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(format!("{name} has no process id")))?;
        Ok(Self { name: name.to_owned(), child, pid, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with everything the process printed.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether the process is running (or paused).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails when the process has ended, with the end of its log.
    ///
    /// # Errors
    /// Says how it ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("ended ({status})"))),
        }
    }

    /// A failure of this process with the end of its log.
    #[must_use]
    pub fn failure(&self, what: &str) -> Failure {
        Failure::new(format!("{} {what}; the end of {}:\n{}", self.name, self.log.display(), tail(&self.log)))
    }

    /// Waits for `ready`, watching that the process lives. Errors carry the end of the log.
    ///
    /// # Errors
    /// When the process ends or is not ready in time.
    pub fn wait_ready(&mut self, within: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let waited = wait::until("ready", within, || {
            self.check_running()?;
            Ok(ready()?.then_some(()))
        });
        match waited {
            Err(failure) if self.is_running() => Err(self.failure(&format!("did not become {failure}"))),
            other => other,
        }
    }

    /// Asks the process to end (SIGTERM) and kills it where it does not within ten seconds.
    ///
    /// # Errors
    /// Those of waiting.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.end_by(Signal::TERM, STOP_WITHIN)
    }

    /// Asks the process to end (SIGTERM), and does not wait.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn terminate(&mut self) -> Result<()> {
        self.check_running()?;
        Ok(kill_process(self.pid, Signal::TERM)?)
    }

    /// As [`Process::stop`], with another signal and patience.
    ///
    /// # Errors
    /// Those of waiting.
    pub fn end_by(&mut self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        let _ = self.resume();
        if self.is_running() {
            let _ = kill_process(self.pid, signal);
        }
        let ended = wait::until(&self.name, within, || Ok(self.child.try_wait()?));
        match ended {
            Ok(status) => Ok(status),
            Err(_) => self.kill(),
        }
    }

    /// Kills the process and its children at once (SIGKILL).
    ///
    /// # Errors
    /// Those of waiting.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.is_running() {
            let tree = procfs::tree(self.pid);
            let _ = kill_process_group(self.pid, Signal::KILL);
            signal_all(&tree, Signal::KILL);
        }
        Ok(self.child.wait()?)
    }

    /// Freezes the process and its children (SIGSTOP): its sockets stay open and nothing answers.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.check_running()?;
        signal_all(&procfs::tree(self.pid), Signal::STOP);
        Ok(())
    }

    /// Ends a [`Process::pause`].
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resume(&mut self) -> Result<()> {
        self.check_running()?;
        signal_all(&procfs::tree(self.pid), Signal::CONT);
        Ok(())
    }

    /// Processor time, user and system, that the process with its children (ended ones too) has used so far.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn cpu_time(&self) -> Result<Duration> {
        procfs::cpu_time(self.pid)
    }

    /// The same by the names of the process's own threads, as far as they live.
    #[must_use]
    pub fn thread_times(&self) -> BTreeMap<String, Duration> {
        procfs::thread_times(self.pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill_process(*pid, signal);
    }
}

/// What all started servers can do.
pub trait Service {
    /// The server's process.
    fn process(&mut self) -> &mut Process;

    /// Starts again on the same port with the same data, and waits until ready. A running process is stopped before.
    ///
    /// # Errors
    /// When it does not become ready.
    fn restart(&mut self) -> Result<()>;

    /// The process id.
    fn pid(&mut self) -> u32 {
        self.process().pid()
    }

    /// SIGTERM, then SIGKILL.
    ///
    /// # Errors
    /// Those of waiting.
    fn stop(&mut self) -> Result<()> {
        self.process().stop().map(drop)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// Those of waiting.
    fn kill(&mut self) -> Result<()> {
        self.process().kill().map(drop)
    }

    /// SIGSTOP: hangs without closing anything.
    ///
    /// # Errors
    /// When the process has ended.
    fn pause(&mut self) -> Result<()> {
        self.process().pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When the process has ended.
    fn resume(&mut self) -> Result<()> {
        self.process().resume()
    }

    /// Processor time used since the start of the process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    fn cpu_time(&mut self) -> Result<Duration> {
        self.process().cpu_time()
    }
}

/// An order to the thread that starts all children.
struct Order {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// Starts a child from one thread that lives as long as this process: the kernel sends a child its death signal when the
/// *thread* that started it ends, and test threads end early.
fn spawn(command: Command) -> Result<Child> {
    static KEEPER: OnceLock<Option<mpsc::Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let serve = move || {
            for mut order in inbox {
                let _ = order.reply.send(spawn_tied(&mut order.command));
            }
        };
        std::thread::Builder::new().name("process-keeper".to_owned()).spawn(serve).ok().map(|_| orders)
    });
    let keeper = keeper.as_ref().ok_or_else(|| Failure::new("the thread that starts processes could not be made"))?;
    let (reply, child) = mpsc::channel();
    keeper.send(Order { command, reply })?;
    Ok(child.recv()??)
}

/// The one place of `unsafe`: between fork and exec the child asks to be killed when its parent dies.
#[expect(unsafe_code, reason = "pre_exec is unsafe; the closure makes two system calls and allocates nothing")]
fn spawn_tied(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getpid();
        let tie = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above; then no signal will come.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
        };
        // SAFETY: only async-signal-safe system calls, no allocation and no lock between fork and exec.
        unsafe { command.pre_exec(tie) };
    }
    command.spawn()
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
}

/// Runs a program to its end and gives its standard output; a failure carries what it printed.
///
/// # Errors
/// When the program cannot be started or does not exit with 0.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().context(format!("starting {program}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{program} failed ({}):\n{stdout}{stderr}", output.status)))
}
