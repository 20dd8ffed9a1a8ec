//! Virtual environments of pinned Python packages, made once under the tools folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dirs;
use crate::failure::{Context, Result};
use crate::process::run;

/// What to do where one cannot be made.
const ADVICE: &str = "this test needs python3 (3.10 or newer) with the modules venv and pip; on Debian: \
    apt-get install python3-venv";

/// The interpreter of the environment `name` with what `requirements` lists, each package with its version and the hashes of its
/// files; made where it is not there yet.
///
/// # Errors
/// Says what to install.
pub fn python(name: &str, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).context(requirements.display())?;
    let tools = dirs::tools()?;
    let home = tools.join(name);
    // Test binaries may run side by side: one of them installs, the others wait for it.
    let lock = File::create(tools.join(format!("{name}.lock")))?;
    lock.lock()?;
    let python = home.join("bin/python");
    // Written last, so that a broken installation is made again, and so is one of other versions.
    let stamp = home.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    eprintln!("installing Python packages (once, into {})", home.display());
    install(&home, &python, requirements).context(ADVICE)?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}

fn install(home: &Path, python: &Path, requirements: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(home);
    run(Command::new("python3").args(["-m", "venv"]).arg(home))?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
    run(pip.args(["--only-binary=:all:", "--requirement"]).arg(requirements)).map(drop)
}
