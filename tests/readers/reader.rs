//! A process that reads requests as a framework does, and answers batch by batch over its pipes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use testkit::process::run;
use testkit::{Context, Failure, Result, dirs, tools};

/// Inputs that go over the pipe at once.
const BATCH: usize = 500;

/// A running reader. It ends when its input does.
pub(crate) struct Reader {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Reader {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a reader")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or_else(|| Failure::new("the reader has no output"))?);
        Ok(Self { child, input, output })
    }

    /// The answers of one kind of question, one for each input.
    pub(crate) fn ask(&mut self, kind: &str, inputs: &[Value]) -> Result<Vec<Value>> {
        let mut answers = Vec::with_capacity(inputs.len());
        for batch in inputs.chunks(BATCH) {
            let pipe = self.input.as_mut().ok_or_else(|| Failure::new("the reader has no input"))?;
            writeln!(pipe, "{}", json!({"kind": kind, "inputs": batch})).context("asking a reader")?;
            let mut line = String::new();
            self.output.read_line(&mut line)?;
            let answered: Vec<Value> = serde_json::from_str(&line).context("what a reader answered")?;
            assert_eq!(answered.len(), batch.len(), "a reader answers each input");
            answers.extend(answered);
        }
        Ok(answers)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn folder() -> PathBuf {
    dirs::workspace().join("tests/readers")
}

/// Flask, Django, Django REST framework, Bottle and WebOb.
pub(crate) fn python() -> Result<Reader> {
    let mut command = Command::new(tools::python("readers-python", &folder().join("requirements.txt"))?);
    command.arg(folder().join("readers.py"));
    Reader::start(command)
}

/// Express and qs, where Node and npm are there. The packages are pinned, with their hashes, and installed once.
pub(crate) fn node() -> Result<Option<Reader>> {
    let has = |program| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !has("node") || !has("npm") {
        return Ok(None);
    }
    let home = dirs::tools()?.join("readers-node");
    let lock = fs::File::create(dirs::tools()?.join("readers-node.lock"))?;
    lock.lock()?;
    let wanted = fs::read_to_string(folder().join("package-lock.json"))?;
    // Written last, so that a broken installation is made again, and so is one of other versions.
    let stamp = home.join("installed.json");
    if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        fs::create_dir_all(&home)?;
        for file in ["package.json", "package-lock.json"] {
            fs::copy(folder().join(file), home.join(file))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&home);
        run(&mut npm).context("installing Express (once)")?;
        fs::write(&stamp, wanted)?;
    }
    drop(lock);
    let mut command = Command::new("node");
    command.arg(folder().join("readers.mjs")).arg(home.join("package.json"));
    Reader::start(command).map(Some)
}
