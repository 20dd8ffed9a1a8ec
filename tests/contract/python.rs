//! The programs in Python that read the contract: pinned packages in a virtual environment, made once under the tools folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::process::run;
use e2e::{Context, Result, dirs};

/// Every package with its version and the hashes of its files.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// What to do where it cannot be made.
const ADVICE: &str = "the API's contract test needs python3 (3.10 or newer) with the modules venv and pip; on Debian: \
    apt-get install python3-venv";

/// The environment's interpreter, after making the environment where it is not there yet.
pub(crate) fn installed() -> Result<PathBuf> {
    let tools = dirs::tools()?;
    let home = tools.join("contract-python");
    // Test binaries may run side by side: one of them installs, the others wait for it.
    let lock = File::create(tools.join("contract-python.lock"))?;
    lock.lock()?;
    let python = home.join("bin/python");
    // Written last, so that a broken installation is made again, and so is one of other versions.
    let stamp = home.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    eprintln!("installing the contract test's Python packages (once, into {})", home.display());
    install(&home, &python).context(ADVICE)?;
    fs::write(&stamp, REQUIREMENTS)?;
    Ok(python)
}

fn install(home: &Path, python: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(home);
    run(Command::new("python3").args(["-m", "venv"]).arg(home))?;
    let requirements = dirs::workspace().join("tests/contract/requirements.txt");
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--only-binary=:all:",
    ]);
    run(pip.arg("--requirement").arg(requirements)).map(drop)
}
