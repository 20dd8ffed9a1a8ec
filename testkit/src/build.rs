//! Builds what the stack runs with the same cargo, profile and target folder that a user would: the filter's module and the
//! server's program. Each is built once per process; cargo itself sees to it that several processes do not collide.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::dirs;
use crate::failure::{Context, Failure, Result};

/// The target that proxies load.
const WASM_TARGET: &str = "wasm32-wasip1";
/// The profile of the module: small, without unwinding.
const WASM_PROFILE: &str = "wasm";

/// The program that runs, where it is a program and no suite.
static PROGRAM: OnceLock<Program> = OnceLock::new();
/// The name of the server's program.
const SERVER: &str = "authz-server";

/// A program that starts the stack.
#[derive(Clone, Copy, Debug)]
enum Program {
    /// Of this package; it has the server built.
    Builds(&'static str),
    /// It contains the server, and is the server where it is called by that name.
    ContainsServer,
}

/// Set to anything, this environment variable makes a program build as the suites do: for suites that run programs.
pub const WORKSPACE_VARIABLE: &str = "E2E_WORKSPACE";

/// Says that a program of `package` runs, which was built by itself. What it builds has the same dependencies with the same
/// features then, so that none is built twice. Suites say nothing: they are built with the whole workspace, and so is the server
/// for them; cargo takes the features of suites into account only where one is built too.
pub fn for_program(package: &'static str) {
    PROGRAM.get_or_init(|| Program::Builds(package));
}

/// Says that this program contains the server: it starts itself by the server's name, so that nothing but the filter is left to be
/// built. Its `main` asks [`is_server`] first.
pub fn for_program_with_server() {
    PROGRAM.get_or_init(|| Program::ContainsServer);
}

/// Whether this process was started by the server's name.
#[must_use]
pub fn is_server() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == SERVER))
}

/// The compiled filter, built if it is not up to date.
///
/// # Errors
/// When the target cannot be added to the toolchain, or the build fails; the compiler's words are on stderr.
pub fn filter_wasm() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    once(&BUILT, || {
        ensure_wasm_target()?;
        cargo("the filter", &["build", "-p", "filter", "--target", WASM_TARGET, "--profile", WASM_PROFILE])?;
        existing(dirs::target().join(WASM_TARGET).join(WASM_PROFILE).join("filter.wasm"))
    })
}

/// The filter that reads each charge and asks no server, for the load rig; never what is shipped.
///
/// # Errors
/// As [`filter_wasm`].
pub fn filter_wasm_parse_only() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    once(&BUILT, || filter_with("parse_only", "the parse-only filter"))
}

/// What the native module is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeModule {
    /// What is shipped.
    Shipped,
    /// It reads each charge and calls no server, for the load rig.
    ParseOnly,
    /// It panics where a request's or an answer's header asks for it, for tests of what a panic costs.
    Trapping,
}

/// The native module, built if it is not up to date; optimised where `release` says so. Every kind is copied into a folder of its own
/// under the file's name, since cargo leaves the last one that was built in one place.
///
/// # Errors
/// When the build fails; the compiler's words are on stderr.
pub fn filter_native(module: NativeModule, release: bool) -> Result<PathBuf> {
    const FILE: &str = "libsluice_filter_native.so";
    static BUILT: [OnceLock<std::result::Result<PathBuf, String>>; 6] = [const { OnceLock::new() }; 6];
    let (at, kind, features): (usize, _, &[&str]) = match module {
        NativeModule::Shipped => (0, "shipped", &[]),
        NativeModule::ParseOnly => (1, "parse-only", &["--features", "parse_only"]),
        NativeModule::Trapping => (2, "trapping", &["--features", "trap"]),
    };
    let (profile, built_in) = if release { ("release", "release") } else { ("dev", "debug") };
    once(&BUILT[at + if release { 3 } else { 0 }], || {
        let native = dirs::target().join("native");
        fs::create_dir_all(&native)?;
        let lock = fs::File::create(native.join("lock"))?;
        lock.lock().context("waiting for another process that builds a native module")?;
        cargo("the native filter", &[&["build", "-p", "filter-native", "--profile", profile], features].concat())?;
        let folder = native.join(format!("{kind}-{built_in}"));
        fs::create_dir_all(&folder)?;
        let (fresh, copy) = (folder.join("new"), folder.join(FILE));
        fs::copy(existing(dirs::target().join(built_in).join(FILE))?, &fresh)?;
        fs::rename(&fresh, &copy)?;
        Ok(copy)
    })
}

/// The filter that traps where a request's header asks for it, for tests of what a trap costs; never what is shipped.
///
/// # Errors
/// As [`filter_wasm`].
pub fn filter_wasm_trapping() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    once(&BUILT, || filter_with("trap", "the trapping filter"))
}

/// The server's program, built if it is not up to date; optimised where `release` says so.
///
/// # Errors
/// When the build fails; the compiler's words are on stderr.
pub fn server_bin(release: bool) -> Result<PathBuf> {
    static DEBUG: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    static RELEASE: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let (built, profile, folder) = if release { (&RELEASE, "release", "release") } else { (&DEBUG, "dev", "debug") };
    once(built, || {
        let selection = match PROGRAM.get().filter(|_| std::env::var_os(WORKSPACE_VARIABLE).is_none()) {
            Some(Program::ContainsServer) => return this_program_as_server(),
            Some(Program::Builds(package)) => ["-p", SERVER, "-p", *package],
            None => ["--workspace", "--test", "cli", "--quiet"],
        };
        cargo("the server", &[&["build"], &selection[..], &["--bin", SERVER, "--profile", profile]].concat())?;
        existing(dirs::target().join(folder).join(SERVER))
    })
}

/// A link to this program with the server's name.
fn this_program_as_server() -> Result<PathBuf> {
    let program = std::env::current_exe().context("looking for this program")?;
    let folder = dirs::target().join("server-of").join(program.file_name().unwrap_or_default());
    fs::create_dir_all(&folder)?;
    let (fresh, link) = (folder.join(format!("{SERVER}.{}", std::process::id())), folder.join(SERVER));
    std::os::unix::fs::symlink(&program, &fresh)?;
    fs::rename(&fresh, &link)?;
    Ok(link)
}

/// The filter with a feature that is never shipped, in a folder of its own, so that it never lies where the shipped module is
/// looked for. All such modules share what they depend on, so each is copied from where cargo leaves the last one.
fn filter_with(feature: &str, what: &str) -> Result<PathBuf> {
    ensure_wasm_target()?;
    let folder = dirs::target().join("parse-only");
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock().context("waiting for another process that builds a filter")?;
    let folder_text = folder.display().to_string();
    let options = ["--target", WASM_TARGET, "--profile", WASM_PROFILE, "--target-dir", &folder_text];
    cargo(what, &[&["build", "-p", "filter", "--features", feature], &options[..]].concat())?;
    let (fresh, module) = (folder.join(format!("{feature}.new")), folder.join(format!("{feature}.wasm")));
    fs::copy(existing(folder.join(WASM_TARGET).join(WASM_PROFILE).join("filter.wasm"))?, &fresh)?;
    fs::rename(&fresh, &module)?;
    Ok(module)
}

/// Adds the filter's target to the toolchain where it is missing.
///
/// # Errors
/// When the compiler has no standard library for the target and rustup is not there or cannot add it.
pub fn ensure_wasm_target() -> Result<()> {
    if has_wasm_target()? {
        return Ok(());
    }
    eprintln!("adding the target {WASM_TARGET} to the toolchain");
    let advice = format!("run `rustup target add {WASM_TARGET}`, or install that standard library with your compiler");
    let added = Command::new("rustup")
        .args(["target", "add", WASM_TARGET])
        .current_dir(dirs::workspace())
        .stdin(Stdio::null())
        .status()
        .context(&advice)?;
    if added.success() && has_wasm_target()? { Ok(()) } else { Err(Failure::new(advice)) }
}

fn has_wasm_target() -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .current_dir(dirs::workspace())
        .stdin(Stdio::null())
        .output()
        .context("asking rustc for its targets")?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && PathBuf::from(folder.trim()).is_dir())
}

fn once(
    built: &OnceLock<std::result::Result<PathBuf, String>>,
    build: impl FnOnce() -> Result<PathBuf>,
) -> Result<PathBuf> {
    built.get_or_init(|| build().map_err(|failure| failure.to_string())).clone().map_err(Failure::new)
}

fn cargo(what: &str, arguments: &[&str]) -> Result<()> {
    eprintln!("building {what}");
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--locked")
        .current_dir(dirs::workspace())
        .stdin(Stdio::null())
        .status()
        .context(format!("starting cargo to build {what}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("building {what} failed: see above, or run `cargo {}`", arguments.join(" "))))
    }
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    if path.is_file() {
        Ok(path)
    } else {
        Err(Failure::new(format!("cargo built, but {} is not there: check CARGO_TARGET_DIR", path.display())))
    }
}
