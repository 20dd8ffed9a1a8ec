//! Counts the instructions of programs with valgrind's callgrind: exact where measured times spread.
//!
//! A server runs under valgrind from its start, some ten times slower, and some fifty times slower once its counter is made.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dirs::RunDir;
use crate::failure::{Context, Failure, Result};
use crate::process::run;
use crate::tools;

/// What to do where [`Callgrind::find`] finds nothing.
pub const INSTALL: &str = "valgrind is not installed: apt-get install valgrind";

/// No function is left out.
const NOTHING: &str = "";

/// valgrind on this machine.
#[derive(Clone, Debug)]
pub struct Callgrind {
    valgrind: PathBuf,
    vgdb: PathBuf,
}

/// A program that runs under callgrind wherever it is started.
#[derive(Clone, Debug)]
pub struct Counted {
    /// To be started in place of the program, with the same arguments and environment.
    pub program: PathBuf,
    vgdb: PathBuf,
    out: PathBuf,
    pipes: PathBuf,
    /// What is not counted: functions with this in their names, and all that they call.
    except: &'static str,
}

/// The counter of a running [`Counted`].
#[derive(Debug)]
pub struct Counter {
    counted: Counted,
    pid: u32,
    dumps: u32,
}

impl Callgrind {
    /// `None` where valgrind is not installed.
    #[must_use]
    pub fn find() -> Option<Self> {
        let program = |name| tools::candidates(&[name]).into_iter().next();
        Some(Self { valgrind: program("valgrind")?, vgdb: program("vgdb")? })
    }

    /// Puts a script into `dir` that runs `program` under callgrind, with `more` behind the arguments that it gets. The process
    /// keeps its id.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn wrap(&self, program: &Path, more: &[&str], dir: &RunDir) -> Result<Counted> {
        let name = program.file_name().unwrap_or_default().display();
        let (out, pipes) = (dir.join(format!("{name}.callgrind")), dir.join("vgdb"));
        let script = format!(
            "#!/bin/sh\nexec '{}' --tool=callgrind --instr-atstart=no --separate-threads=yes --callgrind-out-file='{}' --vgdb-prefix='{}' '{}' \"$@\" {}\n",
            self.valgrind.display(),
            out.display(),
            pipes.display(),
            program.display(),
            more.join(" ")
        );
        let path = dir.join(format!("{name}-counted"));
        fs::write(&path, script).context(format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Counted { program: path, vgdb: self.vgdb.clone(), out, pipes, except: NOTHING })
    }

    /// The instructions within one function, and all that it calls, of a program that runs to its end.
    ///
    /// # Errors
    /// When the program fails, or never calls the function.
    pub fn within(&self, function: &str, program: &mut Command, dir: &RunDir) -> Result<u64> {
        let out = dir.join("within.callgrind");
        let mut command = Command::new(&self.valgrind);
        command.args(["--tool=callgrind", "--vgdb=no"]).arg(format!("--toggle-collect=*{function}*"));
        command.arg(format!("--callgrind-out-file={}", out.display()));
        command.arg(program.get_program()).args(program.get_args());
        run(&mut command)?;
        match total(&out, NOTHING)? {
            0 => Err(Failure::new(format!("{} is not called", function))),
            counted => Ok(counted),
        }
    }
}

impl Counted {
    /// The same without what functions with `part` in their names take: what comes by the clock, such as a probe.
    #[must_use]
    pub fn except(self, part: &'static str) -> Self {
        Self { except: part, ..self }
    }

    /// The counter of the process that was started. What runs for the first time afterwards is translated then: some work should
    /// come before what is counted.
    ///
    /// # Errors
    /// When the process does not answer valgrind's debugger.
    pub fn counter(self, pid: u32) -> Result<Counter> {
        let counter = Counter { counted: self, pid, dumps: 0 };
        counter.command(&["instrumentation", "on"])?;
        Ok(counter)
    }
}

impl Counter {
    /// The instructions of the process's first thread while `work` is done.
    ///
    /// # Errors
    /// Those of the work, or when the process does not answer valgrind's debugger.
    pub async fn count(&mut self, work: impl AsyncFnOnce() -> Result<()>) -> Result<u64> {
        self.command(&["zero"])?;
        work().await?;
        self.command(&["dump"])?;
        self.dumps += 1;
        let mut out = self.counted.out.clone().into_os_string();
        out.push(format!(".{}-01", self.dumps));
        total(Path::new(&out), self.counted.except)
    }

    fn command(&self, command: &[&str]) -> Result<()> {
        let mut vgdb = Command::new(&self.counted.vgdb);
        vgdb.arg(format!("--pid={}", self.pid)).arg("--wait=10");
        vgdb.arg(format!("--vgdb-prefix={}", self.counted.pipes.display())).args(command);
        run(&mut vgdb).map(drop)
    }
}

/// The sum that callgrind writes behind a profile, without what functions with `except` in their names take.
fn total(out: &Path, except: &str) -> Result<u64> {
    let profile = fs::read_to_string(out).context(format!("reading {}", out.display()))?;
    let total = profile.lines().rev().find_map(|line| line.strip_prefix("summary: "));
    let total = total.and_then(|total| total.trim().parse::<u64>().ok());
    let total = total.ok_or_else(|| Failure::new(format!("{} has no sum", out.display())))?;
    Ok(total.saturating_sub(if except == NOTHING { 0 } else { spent_in(&profile, except) }))
}

/// The instructions of functions with `part` in their names where others call them, with all that they call (Callgrind Format
/// Specification: a name follows its number where it appears first, and the costs of calls are on the line behind their number).
fn spent_in(profile: &str, part: &str) -> u64 {
    let mut known = HashMap::new();
    let mut matches = |text| {
        let (number, name): (&str, _) =
            str::split_once(text, ' ').map_or((text, None), |(number, name)| (number, Some(name)));
        *known.entry(number).or_insert_with(|| name.is_some_and(|name: &str| name.contains(part)))
    };
    let (mut caller, mut callee, mut spent) = (false, false, 0);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("fn=") {
            caller = matches(text);
        } else if let Some(text) = line.strip_prefix("cfn=") {
            callee = matches(text);
        } else if line.starts_with("calls=") && callee && !caller {
            let costs = lines.next().and_then(|costs| costs.rsplit(' ').next()?.parse::<u64>().ok());
            spent += costs.unwrap_or_default();
        }
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_function_are_found_by_its_name() {
        let profile = "fn=(1) main\n5 10\ncfn=(2) a::probe::go\ncalls=2 7\n6 100\ncfn=(3) other\ncalls=1 8\n+1 7\n\n\
            fn=(2)\n7 20\ncfn=(2)\ncalls=1 7\n8 50\n\nfn=(3)\ncfn=(2)\ncalls=1 7\n* 3\n";
        assert_eq!([spent_in(profile, "probe"), spent_in(profile, "other"), spent_in(profile, "none")], [103, 7, 0]);
    }
}
