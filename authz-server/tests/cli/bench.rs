//! Runs the built program with nothing but the given environment.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use testkit::dirs::RunDir;
use testkit::{Context, Result, build};

/// How a run ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What was printed on success.
    ///
    /// # Panics
    /// When the run failed.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// Runs a command.
pub(crate) fn run(env: &[(&str, &str)], arguments: &[&str]) -> Result<Ran> {
    let mut command = Command::new(build::server_bin(false)?);
    command.env_clear().envs(env.iter().copied()).args(arguments).stdin(Stdio::null());
    let output = command.output().context("starting the program")?;
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// A file in a folder of its own.
pub(crate) fn file(dir: &RunDir, name: &str, text: &str) -> Result<String> {
    let path: PathBuf = dir.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}
