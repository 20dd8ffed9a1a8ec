//! Where and with what a run was made.

use std::process::Command;

use serde::Serialize;

use super::LoadOptions;
use testkit::Result;
use testkit::dirs;
use testkit::process::run;
use testkit::tools;

/// Machine, source and programs of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub commit: String,
    pub command: String,
    pub envoy: String,
    pub redis: String,
    pub postgres: String,
    /// The optimised server, or the one of `cargo build`.
    pub server: &'static str,
}

impl Machine {
    pub(super) fn look(options: &LoadOptions) -> Result<Self> {
        let server = if options.release { "release" } else { "debug" };
        let postgres = run(Command::new(tools::postgres_bin()?.join("postgres")).arg("--version"))?;
        Ok(Self {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            commit: commit(),
            command: command(),
            envoy: envoy(&run(Command::new(tools::envoy()?).arg("--version"))?),
            redis: redis(&run(Command::new(tools::redis_server()?).arg("--version"))?),
            postgres: postgres.trim().to_owned(),
            server,
        })
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    model.unwrap_or("unknown").to_owned()
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn word(text: &str, wanted: fn(&str) -> bool) -> String {
    text.split_whitespace().find(|word| wanted(word)).unwrap_or("unknown").to_owned()
}

/// The version out of `<path> version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn envoy(text: &str) -> String {
    let build = text.split_whitespace().last().unwrap_or_default();
    build.split('/').nth(1).unwrap_or("unknown").to_owned()
}

/// Name, version and allocator: `Valkey 9.1.2, malloc=libc`.
fn redis(text: &str) -> String {
    let name = text.split_whitespace().next().unwrap_or("unknown");
    let version = word(text, |word| word.starts_with("v="));
    let allocator = word(text, |word| word.starts_with("malloc="));
    format!("{name} {}, {allocator}", version.trim_start_matches("v="))
}

/// As a reader repeats it: without the path of the program and of the file that the figures go to.
fn command() -> String {
    let mut words = vec!["cargo load".to_owned()];
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some() {
        words.push("--".to_owned());
    }
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => drop(arguments.next()),
            _ => words.push(argument),
        }
    }
    words.join(" ")
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(dirs::workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_none_or(|status| !status.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if changed { format!("{commit} with changes") } else { commit }
}
